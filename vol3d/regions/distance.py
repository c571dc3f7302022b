"""Euclidean distances in millimetres between voxel centres, and masks grown and shrunk by them.

The volume's edge is no border: a mask is neither taken to end nor to go on there.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import product
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from vol3d.geometry.box import Box
from vol3d.shapes import Index3, Shape3, Spacing

if TYPE_CHECKING:
    from torch import Tensor

    from vol3d.regions.tensor_distance import Ball

Mask = TypeVar("Mask", NDArray[np.bool_], "Tensor")

# A part of a voxel, so that three steps of 0.1 mm lie within 0.3 mm.
ROUNDING = 1e-6
TILE_VOXELS = 1 << 22


def distance_mm(mask: NDArray[np.bool_], spacing: Spacing) -> NDArray[np.float32]:
    """How far each voxel is from the nearest true voxel of a (Z, Y, X) mask, in mm; infinite if there is none."""
    if not mask.any():
        return np.full(mask.shape, np.inf, dtype=np.float32)
    # SciPy's own distances take 60 bytes per voxel; the indices of the nearest voxels alone take 12.
    nearest = ndimage.distance_transform_edt(~mask, sampling=spacing, return_distances=False, return_indices=True)
    y, x = np.ogrid[: mask.shape[1], : mask.shape[2]]
    result = np.empty(mask.shape, dtype=np.float32)
    for z in range(mask.shape[0]):
        away = [(n - i) * step for n, i, step in zip(nearest[:, z], (z, y, x), spacing, strict=True)]
        result[z] = np.sqrt(away[0] ** 2 + away[1] ** 2 + away[2] ** 2)
    return result


def dilate_mm(mask: Mask, radius_mm: float, spacing: Spacing) -> Mask:
    """The voxels within radius_mm (inclusive) of a true voxel: a (Z, Y, X) mask of the same shape.

    A tensor's is made on its device.

    Raises:
        ValueError: the radius is negative or not finite.
    """
    if not isinstance(mask, np.ndarray):
        return _ball(mask.shape, radius_mm, spacing).dilated(mask)
    box = _reach(mask, radius_mm, spacing)
    result = mask.copy()
    if box is not None and radius_mm > 0:
        result[box.slices] = _near(mask[box.slices], radius_mm, spacing)
    return result


def erode_mm(mask: Mask, radius_mm: float, spacing: Spacing) -> Mask:
    """The voxels farther than radius_mm from every false voxel: ``~dilate_mm(~mask, ...)``.

    A tensor's are found on its device.

    Raises:
        ValueError: the radius is negative or not finite.
    """
    if not isinstance(mask, np.ndarray):
        return _ball(mask.shape, radius_mm, spacing).eroded(mask)
    box = _reach(mask, radius_mm, spacing, margin=1)
    result = mask.copy()
    if box is not None and radius_mm > 0:
        result[box.slices] = ~_near(~mask[box.slices], radius_mm, spacing)
    return result


def offset_mm(mask: Mask, margin_mm: float, spacing: Spacing) -> Mask:
    """A (Z, Y, X) mask dilated by a margin above zero, eroded by one below.

    Raises:
        ValueError: the margin is not finite.
    """
    return dilate_mm(mask, margin_mm, spacing) if margin_mm >= 0 else erode_mm(mask, -margin_mm, spacing)


def reach_voxels(radius_mm: float, spacing: Spacing) -> tuple[int, int, int]:
    """How many voxels along z, y, x a change within a radius can come from."""
    z, y, x = (math.ceil(radius_mm / step) for step in spacing)
    return z, y, x


def nearest_mm(
    points: NDArray[np.bool_], targets: NDArray[np.bool_], spacing: Spacing, *, limit_mm: float = math.inf
) -> NDArray[np.float64]:
    """How far each true voxel of points is from the nearest true voxel of targets, in mm.

    Both masks are (Z, Y, X); the result is (n,) in the order of ``np.argwhere(points)``. A distance
    above limit_mm, or to an empty mask, is infinite. Time and memory follow the number of true voxels.
    """
    if not targets.any():
        return np.full(np.count_nonzero(points), np.inf)
    result = np.zeros(np.count_nonzero(points))
    where = np.argwhere(points & ~targets) * np.asarray(spacing)
    # Unbalanced: the median splits of a balanced tree are slow on the ties of a grid.
    tree = cKDTree(np.argwhere(targets) * np.asarray(spacing), balanced_tree=False, compact_nodes=False)
    limit = limit_mm if math.isinf(limit_mm) else _inclusive(limit_mm, spacing)
    result[~targets[points]] = tree.query(where, distance_upper_bound=limit)[0]
    return result


def _ball(shape: Iterable[int], radius_mm: float, spacing: Spacing) -> "Ball":
    from vol3d.regions.tensor_distance import Ball  # who has a tensor has loaded torch

    _check(radius_mm)
    z, y, x = (min(r, n) for r, n in zip(reach_voxels(radius_mm, spacing), shape, strict=True))
    return Ball.of(_inclusive(radius_mm, spacing), (z, y, x), spacing)


def _near(mask: NDArray[np.bool_], radius_mm: float, spacing: Spacing) -> NDArray[np.bool_]:
    """The voxels within the radius of a true one, tile by tile: distances take 20 bytes per voxel."""
    shape, reach = Shape3(*mask.shape), reach_voxels(radius_mm, spacing)
    result = np.empty(mask.shape, dtype=np.bool_)
    for tile in _tiles(shape, reach):
        around = tile.grown(reach).intersection(Box.whole(shape))
        seen = mask[around.slices]
        if seen.all() or not seen.any():  # far inside, and far away
            result[tile.slices] = seen[0, 0, 0]
            continue
        own = tile.seen_from(around.start)
        result[tile.slices] = (distance_mm(seen, spacing) <= _inclusive(radius_mm, spacing))[own.slices]
    return result


def _tiles(shape: Shape3, reach: tuple[int, int, int]) -> Iterator[Box]:
    """Boxes that make up the volume, small enough to be looked at with their reach, yet none smaller than it."""
    tile = list(shape)

    def seen() -> int:
        return math.prod(min(n, t + 2 * r) for n, t, r in zip(shape, tile, reach, strict=True))

    while seen() > TILE_VOXELS:
        axis = max(range(3), key=lambda a: tile[a] / (reach[a] + 1))
        if tile[axis] <= max(1, reach[axis]):
            break
        tile[axis] = (tile[axis] + 1) // 2
    for start in product(*(range(0, n, t) for n, t in zip(shape, tile, strict=True))):
        yield Box.at(Index3(*start), Shape3(*tile)).intersection(Box.whole(shape))


def _check(radius_mm: float) -> None:
    if not 0 <= radius_mm < math.inf:
        raise ValueError(f"a radius must be zero or more millimetres, got {radius_mm}")


def _inclusive(radius_mm: float, spacing: Spacing) -> float:
    return radius_mm + ROUNDING * min(spacing)


def _reach(mask: NDArray[np.bool_], radius_mm: float, spacing: Spacing, margin: int | None = None) -> Box | None:
    """The box that a change of the mask within the radius stays in; None for an empty mask."""
    _check(radius_mm)
    box = Box.around(mask)
    if box is None:
        return None
    z, y, x = (margin or min(r, n) for r, n in zip(reach_voxels(radius_mm, spacing), mask.shape, strict=True))
    return box.grown((z, y, x)).intersection(Box.whole(Shape3(*mask.shape)))
