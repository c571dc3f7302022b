"""Keep components by how large they are."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from vol3d.postprocess.blocks import BlockStep, Region
from vol3d.postprocess.scene import Locality
from vol3d.regions.blocks import FIRST, VOXELS
from vol3d.regions.components import Connectivity
from vol3d.shapes import Spacing


def voxels_in(volume_mm3: float, spacing: Spacing) -> int:
    """The fewest voxels that fill a volume: 0.3 mm^3 are 3 voxels of 0.1 mm^3, whatever the rounding."""
    return math.ceil(volume_mm3 / spacing.voxel_mm3 - 1e-6)


def largest(voxels: NDArray[np.int64], first: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """Which are the count largest components, (components + 1,), by their tables of VOXELS and FIRST."""
    # Components are numbered in no promised order, so ties are settled by place; the first entry is the background.
    ranked = np.lexsort((first[1:], -voxels[1:])) + 1
    kept = np.zeros(voxels.shape, dtype=np.bool_)
    kept[ranked[:count]] = True
    return kept


@dataclass(frozen=True, kw_only=True)
class SizeFilter(BlockStep):
    """Remove components smaller than a volume (inclusive, to a millionth of a voxel), or of fewer voxels."""

    name: ClassVar[str] = "size_filter"
    locality: ClassVar[Locality] = "components"
    tensors: ClassVar[bool] = True

    min_volume_mm3: float | None = None
    min_voxels: int | None = None
    connectivity: Connectivity = 26

    def __post_init__(self) -> None:
        if (self.min_volume_mm3 is None) == (self.min_voxels is None):
            raise ValueError("size_filter needs one of min_volume_mm3 and min_voxels")
        volume, voxels = self.min_volume_mm3, self.min_voxels
        self.require("min_volume_mm3", volume is None or 0 <= volume < math.inf, "zero or more cubic millimetres")
        self.require("min_voxels", voxels is None or voxels >= 0, "zero or more voxels")

    def run(self, region: Region) -> str:
        """Remove the small components."""
        volume, needed = self.min_volume_mm3, self.min_voxels or 0
        needed = needed if volume is None else voxels_in(volume, region.scene.spacing)
        found = region.components((VOXELS,), connectivity=self.connectivity)
        (voxels,) = found.measured
        region.keep(found, voxels >= needed)
        return f"components of fewer than {needed} voxels"


@dataclass(frozen=True, kw_only=True)
class Largest(BlockStep):
    """Keep the largest components; of equal ones those whose first voxel comes first."""

    name: ClassVar[str] = "largest"
    locality: ClassVar[Locality] = "components"
    tensors: ClassVar[bool] = True

    count: int = 1
    connectivity: Connectivity = 26

    def __post_init__(self) -> None:
        self.require("count", self.count >= 1, "1 or more")

    def run(self, region: Region) -> str:
        """Keep the largest components."""
        found = region.components((VOXELS, FIRST), connectivity=self.connectivity)
        voxels, first = found.measured
        region.keep(found, largest(voxels, first, self.count))
        return ""
