"""What is told of labels, as NumPy tables (count + 1,) by label, wherever the labels lie.

labels is (Z, Y, X), 0 for background and 1 to count for the rest: a NumPy array, or a torch tensor on any
device. values and where have its shape and lie where it lies; only voxels with a true where count (None:
all). Integers alone are added, so a table is the same whatever the order of the voxels, and on any device.
The background's entry is that of a label without voxels.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Array: TypeAlias = Union[NDArray[Any], "Tensor"]

VOXELS_AT_ONCE = 1 << 22
_PLACES_AT_ONCE = 1 << 20
PROBABILITY_UNITS = 1 << 24
"""How many units of probability_sums a probability of one is."""


def counts(labels: Array, count: int, *, where: Array | None = None) -> NDArray[np.int64]:
    """How many voxels each label has."""
    if not isinstance(labels, np.ndarray):
        return _tensors().counts(labels, count, where)  # type: ignore[no-any-return]
    table = np.zeros(count + 1, dtype=np.int64)
    flat, chosen = labels.reshape(-1), None if where is None else where.reshape(-1)
    # In pieces, because bincount widens what it counts to int64; large enough that the tables do not dominate.
    step = max(VOXELS_AT_ONCE, count)
    for start in range(0, flat.size, step):
        part = flat[start : start + step]
        table += np.bincount(part if chosen is None else part[chosen[start : start + step]], minlength=count + 1)
    table[0] = 0
    return table


def probability_sums(labels: Array, count: int, probability: Array) -> NDArray[np.int64]:
    """The sum of each label's probabilities, each rounded to whole PROBABILITY_UNITS; a NaN adds nothing."""
    if not isinstance(labels, np.ndarray):
        return _tensors().probability_sums(labels, count, probability, PROBABILITY_UNITS)  # type: ignore[no-any-return]
    table = np.zeros(count + 1, dtype=np.int64)
    for part, p in _inside(labels, probability, None):
        # float32 holds the product of a float16 or float32 exactly, as the units are a power of two.
        wide = np.nan_to_num(p.astype(np.result_type(p, np.float32)), nan=0.0)
        np.add.at(table, part, np.rint(wide * PROBABILITY_UNITS).astype(np.int64))
    return table


def highest(labels: Array, count: int, values: Array, *, where: Array | None = None) -> NDArray[Any]:
    """The highest of each label's values, NaN if one is; for a label without voxels the lowest there can be.

    The table has the values' type, but at least float32 or int32.
    """
    if not isinstance(labels, np.ndarray):
        return _tensors().highest(labels, count, values, where)  # type: ignore[no-any-return]
    floating = values.dtype.kind == "f"  # type: ignore[union-attr]
    kind = np.result_type(values, np.float32 if floating else np.int32)
    table = np.full(count + 1, -np.inf if floating else np.iinfo(kind).min, dtype=kind)
    with np.errstate(invalid="ignore"):  # a NaN is passed on
        for part, numbers in _inside(labels, values, where):
            np.maximum.at(table, part, numbers.astype(kind))
    return table


def first_places(labels: Array, count: int) -> NDArray[np.int64]:
    """The index of each label's first voxel in the flat volume; for a label without voxels 2^63 - 1."""
    none = np.iinfo(np.int64).max
    if not isinstance(labels, np.ndarray):
        return _tensors().first_places(labels, count, none)  # type: ignore[no-any-return]
    flat, table = labels.reshape(-1), np.full(count + 1, none)
    # Backwards, as of several values for one entry the last stays.
    inside = np.flatnonzero(flat)[::-1]
    table[flat[inside]] = inside
    return table


def moments(labels: Array, count: int, start: int) -> NDArray[np.int64]:
    """The sums of z, y, x, z², y², x², zy, zx and yx over each label's voxels, (count + 1, 9); z begins at start."""
    if not isinstance(labels, np.ndarray):
        return _tensors().moments(labels, count, start)  # type: ignore[no-any-return]
    table = np.zeros((count + 1, 9), dtype=np.int64)
    flat, step = labels.reshape(-1), max(_PLACES_AT_ONCE, count)  # so that the tables do not dominate
    for first in range(0, flat.size, step):
        inside = np.flatnonzero(flat[first : first + step]) + first
        z, y, x = np.unravel_index(inside, labels.shape)
        z = z + start
        for column, values in zip(table.T, (z, y, x, z * z, y * y, x * x, z * y, z * x, y * x), strict=True):
            # In float64, exact up to 2^53: a piece has 2^20 voxels, or as many as there are labels.
            column += np.bincount(flat[inside], weights=values, minlength=count + 1).astype(np.int64)
    return table


def occurs(labels: Array, count: int) -> NDArray[np.bool_]:
    """Whether there is a voxel of each label."""
    if not isinstance(labels, np.ndarray):
        return _tensors().occurs(labels, count)  # type: ignore[no-any-return]
    table = np.zeros(count + 1, dtype=np.bool_)
    table[labels] = True
    table[0] = False
    return table


def _inside(labels: NDArray[Any], values: Any, where: Any) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """The labels and values of the voxels that have a label and a true where, some at a time."""
    flat, beside, chosen = labels.reshape(-1), values.reshape(-1), None if where is None else where.reshape(-1)
    for start in range(0, flat.size, VOXELS_AT_ONCE):
        place = slice(start, start + VOXELS_AT_ONCE)
        inside = flat[place] > 0
        if chosen is not None:
            inside &= chosen[place]
        yield flat[place][inside], beside[place][inside]


def _tensors() -> Any:
    # Only who has a tensor has loaded torch.
    from vol3d.regions import tensor_tables

    return tensor_tables
