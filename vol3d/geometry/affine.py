"""A 4x4 affine read by name.

An affine here maps an index (z, y, x, 1) to a world point (x, y, z, 1) in millimetres, RAS+
(x grows to the right, y to the front, z upwards). Its columns are in array order, its rows in
world order.
"""

import numpy as np
from numpy.typing import NDArray

from vol3d.shapes import Index3, Spacing

Affine = NDArray[np.float64]


def from_spacing(spacing: Spacing) -> Affine:
    """The affine of an axis-aligned grid at the origin whose axes z, y, x run along world z, y, x."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = spacing
    affine[3, 3] = 1.0
    return affine


def spacing_of(affine: Affine) -> Spacing:
    """Millimetres between voxel centres along z, y, x: the lengths of the columns."""
    return Spacing(*(float(v) for v in np.linalg.norm(affine[:3, :3], axis=0)))


def is_orthogonal(affine: Affine, *, tolerance: float = 1e-3) -> bool:
    """Whether no two grid axes lean towards each other (cosine within tolerance): no shear."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.all(np.abs(directions.T @ directions - np.eye(3)) <= tolerance))


def moved(affine: Affine, start: Index3) -> Affine:
    """The affine of the grid whose first voxel is the voxel start of this one."""
    result = affine.copy()
    result[:3, 3] = affine[:3, :3] @ np.asarray(start, dtype=np.float64) + affine[:3, 3]
    return result


def agree(one: Affine, other: Affine, shape: tuple[int, ...], *, tolerance_voxels: float = 1e-3) -> bool:
    """Whether both place every corner of a (z, y, x) grid at the same points, within a part of a voxel."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape[-3:]], [1], indexing="ij")).reshape(4, -1)
    distance = np.linalg.norm(((one - other) @ corners)[:3], axis=0)
    return bool(np.all(distance <= tolerance_voxels * min(spacing_of(one))))


def ras_axes(affine: Affine) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Which stored axis runs closest along world z, y, x, and whether it runs backwards.

    The result (order, flipped) turns a stored (Z, Y, X) array into RAS order:
    ``flip(transpose(array, order), axes where flipped)``.
    """
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = directions[::-1]  # rows now world z, y, x
    best: tuple[float, tuple[int, int, int]] = (-1.0, (0, 1, 2))
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        score = float(sum(abs(cosines[row, axis]) for row, axis in enumerate(order)))
        if score > best[0] + 1e-9:
            best = (score, order)
    order = best[1]
    z, y, x = (bool(cosines[row, axis] < 0) for row, axis in enumerate(order))
    return order, (z, y, x)


def axis_codes(affine: Affine) -> str:
    """Where the stored axes x, y, z (in this order, as in NIfTI and ITK) run closest to: RAS, LPS, PIR ...

    The letters are right, left, anterior, posterior, superior, inferior.

    >>> axis_codes(from_spacing(Spacing(3.0, 1.0, 0.8)))
    'RAS'
    """
    order, flipped = ras_axes(affine)
    ends = dict(zip(order, (pair[flip] for pair, flip in zip(("SI", "AP", "RL"), flipped, strict=True)), strict=True))
    return "".join(ends[axis] for axis in (2, 1, 0))


def oblique_degrees(affine: Affine) -> float:
    """The largest angle between a grid axis and the world axis that it runs closest to."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    nearest = [abs(directions[2 - row, axis]) for row, axis in enumerate(ras_axes(affine)[0])]
    return float(np.degrees(np.arccos(min(1.0, *nearest))))
