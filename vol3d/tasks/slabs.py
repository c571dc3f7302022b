"""Slabs on their way from the network to the files: cut anew, averaged, written while the next ones are made."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Self

import torch
from numpy.typing import NDArray
from torch import Tensor

from vol3d.errors import ResourceError, is_out_of_memory
from vol3d.geometry.box import Box
from vol3d.tasks.models import Model
from vol3d.tasks.stopwatch import Stopwatch
from vol3d.volume.source import Writable

Slab = tuple[int, Tensor]
"""The number of a first plane, and planes (K, z, Y, X)."""

SLAB_BYTES = 64 << 20
"""What a slab of probabilities on the volume's own grid may take."""


def accumulator_bytes(device: torch.device) -> int:
    """What the planes that windows are added up in may take: 2 GB of the computer's memory, a third of a free GPU."""
    return torch.cuda.mem_get_info(device)[0] // 3 if device.type == "cuda" else 2 << 30


class WriteBehind:
    """Writes to sinks from a thread of its own, one slab behind the one at hand; leaving it waits for the last."""

    def __init__(self, clock: Stopwatch) -> None:
        self._clock, self._pool = clock, ThreadPoolExecutor(1, thread_name_prefix="vol3d-write")
        self._last: list[Future[None]] = []

    def write(self, sink: Writable, box: Box, voxels: NDArray[Any]) -> None:
        """Store a (C, Z, Y, X) array, which is left alone from now on, at the box; raises what an earlier one met."""
        while len(self._last) > 1:
            self._last.pop(0).result()
        self._last.append(self._pool.submit(self._write, sink, box, voxels))

    def _write(self, sink: Writable, box: Box, voxels: NDArray[Any]) -> None:
        with self._clock("write"):
            sink.write(box, voxels)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._pool.shutdown(wait=True)
        if raised[0] is None:
            for future in self._last:
                future.result()


def recut(slabs: Iterator[Slab], depth: int) -> Iterator[Slab]:
    """The same planes (K, z, Y, X) in slabs of depth planes (the last may be thinner)."""
    first, kept = 0, torch.empty(0)
    for start, slab in slabs:
        first, kept = (first, torch.cat([kept, slab], dim=1)) if kept.numel() else (start, slab)
        while kept.shape[1] >= depth:
            yield first, kept[:, :depth]
            first, kept = first + depth, kept[:, depth:]
    if kept.numel():
        yield first, kept


def placed(slabs: Iterator[Slab], inside: Box, tile: Box, outside: Tensor, depth: int) -> Iterator[Slab]:
    """Slabs (K, z, Y, X) of a box as slabs of a tile that holds it, of at most depth planes.

    outside has what each of the K channels is around the box.
    """
    if inside == tile:
        yield from slabs
        return

    def around(planes: int) -> Tensor:
        return outside[:, None, None, None].repeat(1, planes, tile.shape.y, tile.shape.x)

    def empty(first: int, stop: int) -> Iterator[Slab]:
        for start in range(first, stop, depth):
            yield start, around(min(depth, stop - start))

    yield from empty(tile.start.z, inside.start.z)
    _, rows, columns = inside.seen_from(tile.start).slices
    for first, slab in slabs:
        whole = around(slab.shape[1])
        whole[:, :, rows, columns] = slab
        yield first, whole
    yield from empty(inside.stop.z, tile.stop.z)


def weighted_mean(values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The mean of tensors of one shape by their weights, which are positive."""
    total = values[0] * weights[0]
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total = total + value * weight
    return total / sum(weights)


@contextmanager
def out_of_memory_told(models: Sequence[Model]) -> Iterator[None]:
    """Memory that runs out in the block as an error that says what was tried and what helps.

    Raises:
        ResourceError: it did.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        windows = ", ".join(str(tuple(model.window)) for model in models)
        raise ResourceError(
            f"out of memory, down to single windows (z, y, x) {windows} and sums in the computer's memory: give a "
            "smaller inference.window, fewer models at once, or --device cpu"
        ) from error
