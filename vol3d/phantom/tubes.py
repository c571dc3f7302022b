"""Draw many tubes into a volume: each piece touches only the voxels of its own bounding box."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vol3d.phantom.tree import Points
from vol3d.shapes import Shape3

ROUND = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Tube:
    """A tube along points (N, 3), N >= 2, lengths in voxels, contrasts relative to what surrounds it.

    wall_contrast has one value per piece, (N - 1,). lumen_contrast is None where the tube is solid.
    A squash (z, y, x) of length s flattens the tube along that direction to 1 / sqrt(1 + s^2).
    """

    points: Points
    radius: float
    wall_contrast: NDArray[np.float64]
    lumen_contrast: float | None = None
    wall: float = 1.0
    squash: tuple[float, float, float] = ROUND


@dataclass(frozen=True)
class Drawing:
    """Where tubes lie: mask (Z, Y, X), and what they add to the image there: contrast, zero elsewhere."""

    mask: NDArray[np.bool_]
    contrast: NDArray[np.float32]


def draw(shape: Shape3, tubes: Sequence[Tube]) -> Drawing:
    """The union of the tubes, capped with half balls; where tubes meet, their lumens join."""
    depth = np.full(shape, -1.0, dtype=np.float32)  # how far under the nearest outer surface, in voxels
    piece = np.zeros(shape, dtype=np.int32)
    walls, bright, dark = [0.0], [0.0], [0.0]
    for tube in tubes:
        for start, end, contrast in zip(tube.points[:-1], tube.points[1:], tube.wall_contrast, strict=True):
            _stamp(depth, piece, start, end, tube.radius, tube.squash, len(walls))
            walls.append(np.inf if tube.lumen_contrast is None else tube.wall)
            bright.append(float(contrast))
            dark.append(tube.lumen_contrast or 0.0)
    mask = depth >= 0
    inside = piece[mask]
    is_wall = depth[mask] < np.asarray(walls, dtype=np.float32)[inside]
    contrast_ = np.zeros(shape, dtype=np.float32)
    contrast_[mask] = np.where(is_wall, np.asarray(bright)[inside], np.asarray(dark)[inside])
    return Drawing(mask, contrast_)


def _stamp(
    depth: NDArray[np.float32],
    piece: NDArray[np.int32],
    start: Points,
    end: Points,
    radius: float,
    squash: tuple[float, float, float],
    number: int,
) -> None:
    """Raise depth to radius minus the distance from the line start-end, and name the piece where it rose."""
    low = np.maximum(np.floor(np.minimum(start, end) - radius), 0).astype(int)
    high = np.minimum(np.ceil(np.maximum(start, end) + radius) + 1, depth.shape).astype(int)
    if (low >= high).any():
        return
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    offset = [np.arange(a, b, dtype=np.float64) - s for a, b, s in zip(low, high, start, strict=True)]
    z, y, x = offset[0][:, None, None], offset[1][:, None], offset[2]
    along = end - start
    t = np.clip((z * along[0] + y * along[1] + x * along[2]) / max(float(along @ along), 1e-12), 0.0, 1.0)
    dz, dy, dx = z - t * along[0], y - t * along[1], x - t * along[2]
    square = dz * dz + dy * dy + dx * dx
    if squash != ROUND:
        square += (dz * squash[0] + dy * squash[1] + dx * squash[2]) ** 2
    rise = radius - np.sqrt(square)
    higher = rise > depth[box]
    depth[box][higher] = rise[higher]
    piece[box][higher] = number
