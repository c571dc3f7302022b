"""The tables of regions/reduce.py from tensors, made where they lie: only the tables come to the computer's memory.

Neighbours along a row mostly share a label. Runs of equal labels are added as one, so that the voxels
of a large component do not queue for one entry of a table.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

VOXELS_AT_ONCE = 1 << 25  # of which moments makes some 4 GB at worst, other tables 1 GB: estimates


def counts(labels: Tensor, count: int, where: Tensor | None) -> NDArray[np.int64]:
    """As in reduce.py."""
    table = torch.zeros(count + 1, dtype=torch.int64, device=labels.device)
    for part, _ in _parts(labels, where):
        starts = _run_starts(part)
        table.index_add_(0, part[starts], torch.diff(starts, append=starts.new_tensor([part.numel()])))
    return _told(table, 0)


def probability_sums(labels: Tensor, count: int, probability: Tensor, units: int) -> NDArray[np.int64]:
    """As in reduce.py, in so many units."""
    table = torch.zeros(count + 1, dtype=torch.int64, device=labels.device)
    for names, p in _inside(labels, probability, None):
        wide = torch.nan_to_num(p.to(torch.promote_types(p.dtype, torch.float32)), nan=0.0)
        _add(table, names, (wide * units).round().long())
    return _told(table, 0)


def highest(labels: Tensor, count: int, values: Tensor, where: Tensor | None) -> NDArray[Any]:
    """As in reduce.py."""
    floating = values.dtype.is_floating_point
    kind = torch.promote_types(values.dtype, torch.float32 if floating else torch.int32)
    none = -math.inf if floating else torch.iinfo(kind).min
    table = torch.full((count + 1,), none, dtype=kind, device=labels.device)
    for names, numbers in _inside(labels, values, where):
        table.scatter_reduce_(0, names.long(), numbers.to(kind), "amax")
    return _told(table, none)


def first_places(labels: Tensor, count: int, none: int) -> NDArray[np.int64]:
    """As in reduce.py; none is what a label without voxels has."""
    table = torch.full((count + 1,), none, dtype=torch.int64, device=labels.device)
    for number, (part, _) in enumerate(_parts(labels, None)):
        starts = _run_starts(part)
        table.scatter_reduce_(0, part[starts].long(), starts + number * VOXELS_AT_ONCE, "amin")
    return _told(table, none)


def moments(labels: Tensor, count: int, start: int) -> NDArray[np.int64]:
    """As in reduce.py."""
    table = torch.zeros((9, count + 1), dtype=torch.int64, device=labels.device)
    _, height, width = labels.shape
    for part, place in _parts(labels, None):
        inside = part.nonzero()[:, 0]
        names, places = part[inside], inside + place.start
        z, y, x = places // (height * width) + start, places // width % height, places % width
        for column, values in zip(table, (z, y, x, z * z, y * y, x * x, z * y, z * x, y * x), strict=True):
            _add(column, names, values)
    return np.ascontiguousarray(_told(table.T, 0))


def occurs(labels: Tensor, count: int) -> NDArray[np.bool_]:
    """As in reduce.py."""
    table = torch.zeros(count + 1, dtype=torch.bool, device=labels.device)
    table[labels.reshape(-1).long()] = True
    return _told(table, False)


def _told(table: Tensor, background: Any) -> NDArray[Any]:
    table[0] = background
    told: NDArray[Any] = table.cpu().numpy()
    return told


def _parts(labels: Tensor, where: Tensor | None) -> Iterator[tuple[Tensor, slice]]:
    """The flat labels some at a time, 0 where where is false, and their places."""
    flat, chosen = labels.reshape(-1), None if where is None else where.reshape(-1)
    for start in range(0, flat.numel(), VOXELS_AT_ONCE):
        place = slice(start, start + VOXELS_AT_ONCE)
        yield flat[place] if chosen is None else flat[place] * chosen[place], place


def _inside(labels: Tensor, values: Tensor, where: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
    """The labels and values of the voxels that have a label and a true where."""
    beside = values.reshape(-1)
    for part, place in _parts(labels, where):
        inside = part.nonzero()[:, 0]
        yield part[inside], beside[place][inside]


def _run_starts(flat: Tensor) -> Tensor:
    """Where runs of equal labels begin."""
    begins = torch.ones(flat.numel(), dtype=torch.bool, device=flat.device)
    torch.ne(flat[1:], flat[:-1], out=begins[1:])
    return begins.nonzero()[:, 0]


def _add(table: Tensor, names: Tensor, numbers: Tensor) -> None:
    """Add numbers to their labels' entries."""
    if not names.numel():
        return
    starts, running = _run_starts(names), numbers.cumsum(0)
    ends = torch.cat([starts[1:], starts.new_tensor([names.numel()])]) - 1
    totals = running[ends]
    table.index_add_(0, names[starts], torch.diff(totals, prepend=totals.new_zeros(1)))
