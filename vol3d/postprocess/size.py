"""Keep components by how large they are."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vol3d.postprocess.blocks import BlockStep, Region
from vol3d.postprocess.scene import Locality
from vol3d.regions.blocks import FIRST, VOXELS
from vol3d.regions.components import Connectivity
from vol3d.shapes import Spacing


def voxels_in(volume_mm3: float, spacing: Spacing) -> int:
    """The fewest voxels that fill a volume: 0.3 mm^3 are 3 voxels of 0.1 mm^3, whatever the rounding."""
    return math.ceil(volume_mm3 / spacing.voxel_mm3 - 1e-6)


@dataclass(frozen=True, kw_only=True)
class SizeFilter(BlockStep):
    """Remove components smaller than a volume (inclusive, to a millionth of a voxel)."""

    name: ClassVar[str] = "size_filter"
    locality: ClassVar[Locality] = "components"
    tensors: ClassVar[bool] = True

    min_volume_mm3: float
    connectivity: Connectivity = 26

    def __post_init__(self) -> None:
        self.require("min_volume_mm3", 0 <= self.min_volume_mm3 < math.inf, "zero or more cubic millimetres")

    def run(self, region: Region) -> str:
        """Remove the small components."""
        needed = voxels_in(self.min_volume_mm3, region.scene.spacing)
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
        # Components are numbered in no promised order, so ties are settled by place; the first entry is the background.
        ranked = np.lexsort((first[1:], -voxels[1:])) + 1
        kept = np.zeros(voxels.shape, dtype=np.bool_)
        kept[ranked[: self.count]] = True
        region.keep(found, kept)
        return ""
