"""A training step's passes on a GPU, recorded as a CUDA graph and played again.

A U-Net's step has more than a thousand kernels. Started one by one, they take the CPU longer than the GPU, and
keep it from preparing batches meanwhile; a graph is started at once.
"""

from collections.abc import Callable, Hashable, Iterable

import torch
from torch import Tensor

Work = Callable[[Tensor, Tensor], Tensor]
"""Images and labels to a loss, with its gradients left at the parameters."""


class Recorded:
    """Does the work as it is at first, and plays a record of it from the second time on that everything is alike.

    What cannot be recorded (it asks the GPU for a number, or memory is short) is done as it is from then on. buffers
    are what the work changes beside gradients: recording leaves them alone, so that a training that is resumed, and
    records anew, is the one that was not stopped.
    """

    def __init__(
        self,
        work: Work,
        buffers: Callable[[], Iterable[Tensor]] = tuple,
        record: Callable[[Work, Tensor, Tensor], Work] | None = None,
    ) -> None:
        self.work, self.buffers, self.record = work, buffers, record or _graph
        self.refused = False
        self._alike: Hashable = None
        self._play: Work | None = None

    def __call__(self, images: Tensor, labels: Tensor, alike: Hashable) -> Tensor:
        """The loss. alike names whatever else the work hangs on but the values of tensors."""
        alike = (images.shape, labels.shape, alike)
        if alike != self._alike:
            self._alike, self._play = alike, None
            return self.work(images, labels)
        if self._play is None and not self.refused:
            before = [(buffer, buffer.clone()) for buffer in self.buffers()]
            try:
                self._play = self.record(self.work, images, labels)
            except RuntimeError:  # also what torch raises where memory is short
                self.refused = True
            for buffer, kept in before:
                buffer.copy_(kept)
        return (self._play or self.work)(images, labels)


def _graph(work: Work, images: Tensor, labels: Tensor) -> Work:
    """Record the work on tensors that stay where they are, and into which others are copied to play it."""
    given = images.clone(), labels.clone()
    beside, now = torch.cuda.Stream(images.device), torch.cuda.current_stream(images.device)  # type: ignore[no-untyped-call]
    beside.wait_stream(now)
    with torch.cuda.stream(beside), torch.random.fork_rng(devices=[images.device]):
        work(*given)  # what libraries do once in a stream cannot be recorded
    now.wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    # Threads that make batches meanwhile may ask for memory.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        loss = work(*given)

    def play(images: Tensor, labels: Tensor) -> Tensor:
        for kept, new in zip(given, (images, labels), strict=True):
            kept.copy_(new)
        graph.replay()
        return loss

    return play
