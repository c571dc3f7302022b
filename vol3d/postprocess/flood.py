"""Grow a mask through a range of grey values that is told by its own: around the median, or most of them.

The range is fixed, so what comes out does not hang on an order.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from vol3d.postprocess.blocks import BlockStep, Part, Region
from vol3d.postprocess.growth import Grow
from vol3d.postprocess.quantile import streamed_median, streamed_quantiles
from vol3d.postprocess.scene import Locality, Mask
from vol3d.regions.blocks import SEEDS, VOXELS
from vol3d.regions.components import Connectivity
from vol3d.regions.library import chosen


@dataclass(frozen=True, kw_only=True)
class GrowRange(Grow, BlockStep):
    """Flood from the mask through the grey values within tolerance of its own median, or of its central share.

    A central share of 0.9 is those from the mask's quantile 0.05 to its quantile 0.95: what is uniform gives
    a narrow range, and nobody needs to know a number.
    """

    name: ClassVar[str] = "grow_range"
    locality: ClassVar[Locality] = "components"
    tensors: ClassVar[bool] = True

    tolerance: float | None = None  # normalised grey values
    central_share: float | None = None
    connectivity: Connectivity = 26

    def __post_init__(self) -> None:
        super().__post_init__()
        tolerance, share = self.tolerance, self.central_share
        self.require("tolerance", (tolerance is None) != (share is None), "given, or central_share, and not both")
        self.require("tolerance", tolerance is None or 0 <= tolerance < math.inf, "zero or more grey values")
        self.require("central_share", share is None or 0 < share <= 1, "above 0 and at most 1")

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

        reach = self.reach(region.scene.spacing)
        found = region.components((VOXELS, SEEDS), connectivity=self.connectivity, of=within, reach=reach)
        voxels, before = found.measured
        fine = (before > 0) & (voxels <= self.most * before if self.most < math.inf else True)
        region.add(found, fine)
        refused = int(np.count_nonzero(before[1:]) - np.count_nonzero(fine[1:]))
        return "; ".join(filter(None, (f"grey values {low:g} to {high:g}", self.told(refused))))

    def _range(self, region: Region) -> tuple[float, float]:
        """The lowest and the highest grey value to flood through; (nan, nan) if the mask is empty."""

        def inside() -> Iterator[Any]:
            for part in region.parts():
                if part.mask.any():
                    yield from chosen(part.scene.image, part.mask)

        dtype = region.scene.image_dtype
        if self.tolerance is not None:
            middle = streamed_median(inside, dtype)
            return middle - self.tolerance, middle + self.tolerance
        tail = (1 - (self.central_share or 1)) / 2
        low, high = streamed_quantiles(inside, dtype, (tail, 1 - tail))
        return low, high
