"""Keep components by how large they are."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vol3d.postprocess.scene import Applied, Locality, Mask, RegionScene, Step
from vol3d.regions.components import Connectivity, component_sizes, keep, label
from vol3d.shapes import Spacing


def voxels_in(volume_mm3: float, spacing: Spacing) -> int:
    """The fewest voxels that fill a volume: 0.3 mm^3 are 3 voxels of 0.1 mm^3, whatever the rounding."""
    return math.ceil(volume_mm3 / spacing.voxel_mm3 - 1e-6)


def remove_small(mask: Mask, *, min_volume_mm3: float, spacing: Spacing, connectivity: Connectivity = 26) -> Mask:
    """The components of a (Z, Y, X) mask of at least min_volume_mm3 (inclusive, to a millionth of a voxel)."""
    components = label(mask, connectivity=connectivity)
    return keep(components, component_sizes(components) >= voxels_in(min_volume_mm3, spacing))


def keep_largest(mask: Mask, *, count: int = 1, connectivity: Connectivity = 26) -> Mask:
    """The count largest components of a (Z, Y, X) mask; of equal ones that whose first voxel comes first."""
    components = label(mask, connectivity=connectivity)
    if components.count <= count:
        return mask.copy()
    sizes = component_sizes(components)
    # Labels are numbered in no promised order, so ties are settled by place.
    labels, first = np.unique(components.labels[mask], return_index=True)
    ranked = labels[np.lexsort((first, -sizes[labels]))]
    kept = np.zeros(components.count + 1, dtype=np.bool_)
    kept[ranked[:count]] = True
    return keep(components, kept)


@dataclass(frozen=True, kw_only=True)
class SizeFilter(Step):
    """Remove components smaller than a volume."""

    name: ClassVar[str] = "size_filter"
    locality: ClassVar[Locality] = "components"

    min_volume_mm3: float
    connectivity: Connectivity = 26

    def __post_init__(self) -> None:
        self.require("min_volume_mm3", 0 <= self.min_volume_mm3 < math.inf, "zero or more cubic millimetres")

    def apply(self, mask: Mask, scene: RegionScene) -> Applied:
        """The mask without its small components."""
        needed = voxels_in(self.min_volume_mm3, scene.spacing)
        result = remove_small(
            mask, min_volume_mm3=self.min_volume_mm3, spacing=scene.spacing, connectivity=self.connectivity
        )
        return Applied(result, f"components of fewer than {needed} voxels")


@dataclass(frozen=True, kw_only=True)
class Largest(Step):
    """Keep the largest components."""

    name: ClassVar[str] = "largest"
    locality: ClassVar[Locality] = "whole"

    count: int = 1
    connectivity: Connectivity = 26

    def __post_init__(self) -> None:
        self.require("count", self.count >= 1, "1 or more")

    def apply(self, mask: Mask, scene: RegionScene) -> Applied:  # noqa: ARG002
        """The mask's largest components."""
        return Applied(keep_largest(mask, count=self.count, connectivity=self.connectivity))
