"""Fill the lumens of hollow tubes: a tube that is open at its ends encloses nothing, but a cut across it does."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from vol3d.postprocess.blocks import BlockStep, Part, Region
from vol3d.postprocess.scene import Locality, Mask
from vol3d.regions.blocks import VOXELS, Joined, LabelledSlab, at_edge, join_slabs
from vol3d.regions.components import Components, keep, label_planes
from vol3d.shapes import Shape3

_Kept = Callable[[Part], NDArray[np.bool_]]


@dataclass(frozen=True, kw_only=True)
class CloseLumens(BlockStep):
    """Fill the holes of every xy, xz and yz plane up to an area (inclusive, to a millionth of a pixel).

    A hole is a piece of a plane's background, joined by the sides of its pixels, that does not reach the
    plane's edge. All are those of the mask as the step finds it. A tube's lumen is filled where one of the
    planes cuts it in a ring; so is the space inside a loop of tubes that lies in a plane, up to the area.
    """

    name: ClassVar[str] = "close_lumens"
    locality: ClassVar[Locality] = "components"

    max_area_mm2: float

    def __post_init__(self) -> None:
        self.require("max_area_mm2", 0 < self.max_area_mm2 < math.inf, "more than zero square millimetres")

    def run(self, region: Region) -> str:
        """Add the holes."""
        shape = region.store.shape
        across = [axis for axis in range(3) if min(n for a, n in enumerate(shape) if a != axis) > 1]
        kept = {axis: self._holes(region, axis) for axis in across}

        def filled(part: Part) -> Mask:
            result = part.mask.copy()
            for axis, of in kept.items():
                result |= keep(_background(part, axis), of(part))
            return result

        region.rewrite(filled)
        return ""

    def _holes(self, region: Region, axis: int) -> _Kept:
        """Which pieces of a part's planes across an axis are holes, (count + 1,)."""
        shape, spacing = region.store.shape, region.scene.spacing
        pixel_mm2 = spacing.voxel_mm3 / spacing[axis]
        measures = VOXELS, at_edge(tuple(a for a in range(3) if a != axis))

        def small(joined: Joined) -> NDArray[np.bool_]:
            pixels, edge = joined.measured
            fine: NDArray[np.bool_] = (pixels * pixel_mm2 <= self.max_area_mm2 + 1e-6 * pixel_mm2) & ~edge
            return fine

        if axis == 0:  # a part holds such planes whole

            def of_part(part: Part) -> NDArray[np.bool_]:
                return small(join_slabs([_slab(part, 0, shape)], measures))

            return of_part
        joined = join_slabs((_slab(part, axis, shape) for part in region.parts()), measures, connectivity=6)
        fine = small(joined)
        return lambda part: fine[joined.numbers[part.number]]


def _slab(part: Part, axis: int, shape: Shape3) -> LabelledSlab:
    return LabelledSlab(_background(part, axis), part.mask, part.box.start.z, shape)


def _background(part: Part, axis: int) -> Components:
    return label_planes(~part.mask, axis)
