"""How far a mask reaches, found slab by slab."""

import math
from dataclasses import dataclass

import numpy as np

from vol3d.geometry.box import Box
from vol3d.geometry.grid import slabs
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.volume.source import VolumeSource

SLAB_PLANES = 32


@dataclass(frozen=True)
class Extent:
    """The voxels of a mask, and the smallest box around them; None where there are none."""

    voxels: int
    box: Box | None


def extent(mask: VolumeSource) -> Extent:
    """The extent of what is not zero in a volume of one channel."""
    voxels, around = 0, None
    for slab in slabs(mask.shape, SLAB_PLANES):
        found = mask.read(slab)[0] != 0
        inner = Box.around(found)
        if inner is not None:
            voxels += int(np.count_nonzero(found))
            inner = inner.shifted(slab.start)
            around = inner if around is None else _both(around, inner)
    return Extent(voxels, around)


def grown_mm(box: Box, margin_mm: float, *, spacing: Spacing, shape: Shape3) -> Box:
    """The box with every voxel of a volume of this shape that is no further than margin_mm from it along an axis."""
    margin = (math.floor(margin_mm / step + 1e-6) for step in spacing)
    z, y, x = (min(m, n) for m, n in zip(margin, shape, strict=True))
    return box.grown((z, y, x)).intersection(Box.whole(shape))


def _both(one: Box, other: Box) -> Box:
    return Box(
        Index3(*(min(a, b) for a, b in zip(one.start, other.start, strict=True))),
        Index3(*(max(a, b) for a, b in zip(one.stop, other.stop, strict=True))),
    )
