"""Grow a mask through a range of grey values around its own median.

The range is fixed, so what comes out does not hang on an order.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vol3d.postprocess.blocks import BlockStep, Part, Region
from vol3d.postprocess.growth import Grow
from vol3d.postprocess.median import streamed_median
from vol3d.postprocess.scene import Locality, Mask
from vol3d.regions.blocks import SEEDS, VOXELS
from vol3d.regions.components import Connectivity
from vol3d.regions.distance import reach_voxels
from vol3d.regions.library import as_numpy


@dataclass(frozen=True, kw_only=True)
class GrowRange(Grow, BlockStep):
    """Flood from the mask through the grey values within tolerance of its own median."""

    name: ClassVar[str] = "grow_range"
    locality: ClassVar[Locality] = "components"
    tensors: ClassVar[bool] = True

    connectivity: Connectivity = 26

    def run(self, region: Region) -> str:
        """Add what is joined to the mask by grey values in range; an empty mask stays empty."""
        low, high = self._range(region)
        if math.isnan(low):
            region.rewrite(lambda part: part.mask)
            return "no voxels to grow from"

        def within(part: Part) -> Mask:
            image = part.scene.image
            reached = (image >= low) & (image <= high)
            if (allowed := self.allowed(part.mask, part.scene)) is not None:
                reached &= allowed
            return reached | part.mask

        reach = 0 if self.max_distance_mm is None else reach_voxels(self.max_distance_mm, region.scene.spacing)[0]
        found = region.components((VOXELS, SEEDS), connectivity=self.connectivity, of=within, reach=reach)
        voxels, before = found.measured
        fine = (before > 0) & (voxels <= self.most * before if self.most < math.inf else True)
        region.add(found, fine)
        refused = int(np.count_nonzero(before[1:]) - np.count_nonzero(fine[1:]))
        return "; ".join(filter(None, (f"grey values {low:g} to {high:g}", self.told(refused))))

    def _range(self, region: Region) -> tuple[float, float]:
        """The grey values within tolerance of the median inside the mask; (nan, nan) if that is empty."""

        def inside() -> Iterator[NDArray[Any]]:
            return (as_numpy(part.scene.image[part.mask]) for part in region.parts() if part.mask.any())

        middle = streamed_median(inside, region.scene.image_dtype)
        return middle - self.tolerance, middle + self.tolerance
