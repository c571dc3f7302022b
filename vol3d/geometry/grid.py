"""Where windows and slabs start, decided once from the whole volume's shape."""

import math
from collections.abc import Iterator
from typing import Literal

from vol3d.geometry.box import Box
from vol3d.shapes import Index3, Shape3

Stride = Literal["fixed", "even"]
"""Whether windows follow each other at a fixed stride, or are spread evenly."""


def window_starts(size: int, window: int, overlap: float, stride: Stride = "fixed") -> tuple[int, ...]:
    """First voxels of the windows along one axis.

    size, window are voxels (size >= window), overlap is the fraction that neighbours share, in [0, 1).
    fixed: a fixed stride, the last window moved back to the edge, the grid of MONAI's
    sliding_window_inference. even: as few windows as share at least overlap, with their distances equal
    to a voxel, nnU-Net's grid.

    >>> window_starts(110, 64, 0.5), window_starts(110, 64, 0.5, "even")
    ((0, 32, 46), (0, 23, 46))

    Raises:
        ValueError: the window is larger than the axis, or overlap is out of range.
    """
    if not 0.0 <= overlap < 1.0:
        raise ValueError(f"overlap must be in [0, 1), got {overlap}")
    if not 1 <= window <= size:
        raise ValueError(f"a window of {window} voxels does not fit an axis of {size}")
    last = size - window
    if stride == "even":
        gaps = math.ceil(last / max(1.0, window * (1.0 - overlap)))
        return tuple(round(last / gaps * number) for number in range(gaps + 1)) if gaps else (0,)
    step = max(1, int(window * (1.0 - overlap)))
    return tuple(min(start, last) for start in range(0, last + step, step))


def padded_shape(shape: Shape3, window: Shape3) -> tuple[Shape3, Index3]:
    """The volume grown to at least one window, and how many of the added voxels lie before it.

    MONAI's rule: half of the missing voxels (rounded down) before, the rest behind.
    """
    missing = [max(0, w - n) for n, w in zip(shape, window, strict=True)]
    full = Shape3(*(n + m for n, m in zip(shape, missing, strict=True)))
    return full, Index3(*(m // 2 for m in missing))


def around(box: Box, whole: Box) -> Iterator[Box]:
    """The rest of a whole box around one inside it, as at most six boxes that do not overlap."""
    start, stop = list(whole.start), list(whole.stop)
    for axis in range(3):
        for a, b in ((start[axis], box.start[axis]), (box.stop[axis], stop[axis])):
            if a < b:
                first, last = start.copy(), stop.copy()
                first[axis], last[axis] = a, b
                yield Box(Index3(*first), Index3(*last))
        start[axis], stop[axis] = box.start[axis], box.stop[axis]


def planes_in(shape: Shape3, voxels: int) -> int:
    """How many z planes hold at most so many voxels; one where one holds more."""
    return max(1, voxels // (shape.y * shape.x))


def slabs(shape: Shape3, depth: int) -> Iterator[Box]:
    """The volume cut along z into boxes of at most depth planes, in order."""
    for z in range(0, shape.z, depth):
        yield Box(Index3(z, 0, 0), Index3(min(z + depth, shape.z), shape.y, shape.x))
