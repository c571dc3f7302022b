"""Processes that train one network together: each learns from its share of every batch, and all stay equal.

The loss is computed over the whole batch: every process is given the outputs of all, and sends back what concerns its
own. So any term, also one that sums over the batch before it divides, has the value and the gradient that one process
with all samples would find. What hangs on a clock or a signal is decided by the first, or by all together.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Value = TypeVar("Value")


@dataclass(frozen=True)
class Team:
    """Process number rank of size; one alone needs nobody. torch.distributed is begun before a larger one works."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that decides, writes and tells."""
        return self.rank == 0

    def share(self, values: Sequence[Value]) -> Sequence[Value]:
        """The part of a list that this process sees to: every size-th."""
        return values[self.rank :: self.size]

    def collected(self, own: Sequence[Value]) -> list[Value]:
        """What all processes made of their shares of a list, in the list's order."""
        parts = self.all_of(own)
        return [parts[number % self.size][number // self.size] for number in range(sum(map(len, parts)))]

    def gathered(self, own: Tensor) -> Tensor:
        """The tensors (B, ...) of all processes, one after the other; gradients flow back to each one's own."""
        if self.size == 1:
            return own
        gathered: Tensor = _Gathered.apply(own, self)  # type: ignore[no-untyped-call]
        return gathered

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every process the sum of all gradients. The same parameters have one everywhere."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        for dtype in dict.fromkeys(g.dtype for g in gradients):
            these = [g for g in gradients if g.dtype == dtype]
            flat = torch.cat([g.reshape(-1) for g in these])
            self.add_up(flat)
            for gradient, summed in zip(these, torch.split(flat, [g.numel() for g in these]), strict=True):
                gradient.copy_(summed.view_as(gradient))

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        return max(self._numbers(flag)) > 0

    def seconds(self, taken: float) -> float:
        """What it took by the first one's clock: what hangs on time must not differ."""
        return self._numbers(taken)[0]

    def _numbers(self, own: float) -> list[float]:
        """Each process's number, by a shorter way than all_of: this is asked for at every step."""
        if self.size == 1:
            return [own]
        return [float(part) for part in self.parts(torch.tensor([own], dtype=torch.float64))]

    def parts(self, own: Tensor) -> list[Tensor]:
        """The tensors of all processes, of one shape, in order; without gradients."""
        from torch.distributed import all_gather

        parts = [torch.empty_like(own) for _ in range(self.size)]
        all_gather(parts, own)
        return parts

    def add_up(self, tensor: Tensor) -> None:
        """Replace a tensor by the sum of those of all processes."""
        from torch.distributed import all_reduce

        all_reduce(tensor)

    def equalise(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the first one's values, in place."""
        if self.size == 1:
            return
        from torch.distributed import broadcast

        for tensor in tensors:
            whole = tensor.detach().contiguous()
            broadcast(whole, src=0)
            tensor.detach().copy_(whole)

    def of_first(self, value: Value) -> Value:
        """What it is in the first process."""
        if self.size == 1:
            return value
        from torch.distributed import broadcast_object_list

        values = [value]
        broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def all_of(self, value: Value) -> list[Value]:
        """What it is in each process, in order."""
        if self.size == 1:
            return [value]
        from torch.distributed import all_gather_object

        values: list[Any] = [None] * self.size
        all_gather_object(values, value)
        return values


ALONE = Team()


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, team: Team) -> Tensor:
        ctx.rank, ctx.count = team.rank, len(own)
        return torch.cat(team.parts(own.contiguous()))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        start = ctx.rank * ctx.count
        return gradients[0][start : start + ctx.count], None
