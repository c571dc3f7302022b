"""Fill what a mask encloses and close what it nearly encloses."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vol3d.geometry.box import Box
from vol3d.postprocess.scene import Applied, Locality, Mask, RegionScene, Step
from vol3d.regions.components import component_sizes, keep, label
from vol3d.regions.distance import dilate_mm, erode_mm
from vol3d.shapes import Spacing


def fill_holes(mask: Mask, *, spacing: Spacing, max_volume_mm3: float = math.inf) -> Mask:
    """A (Z, Y, X) mask and its holes of at most max_volume_mm3 (inclusive, to a millionth of a voxel).

    A hole is a component of the background that does not reach the volume's edge; background voxels
    join by their faces (6), the partner of 26-connected foreground. A tube that is open at the edge
    has no hole. A volume one voxel thick has no edge along that axis: its holes lie in its plane.
    """
    result = mask.copy()
    box = Box.around(mask)  # every hole lies inside it, and what reaches its faces reaches the edge
    if box is None:
        return result
    background = label(~mask[box.slices], connectivity=6)
    sizes = component_sizes(background)
    holes = sizes * spacing.voxel_mm3 <= max_volume_mm3 + 1e-6 * spacing.voxel_mm3
    for axis in (a for a in range(3) if mask.shape[a] > 1):
        for end in (0, -1):
            holes[np.unique(background.labels.take(end, axis=axis))] = False
    result[box.slices] |= keep(background, holes)
    return result


def close_gaps(mask: Mask, *, radius_mm: float, spacing: Spacing) -> Mask:
    """A (Z, Y, X) mask and the voxels that no ball of radius_mm outside it can reach (a closing in mm).

    It joins the pieces of a broken wall, so that a lumen can be filled. The volume's edge is no wall.
    """
    return erode_mm(dilate_mm(mask, radius_mm, spacing), radius_mm, spacing)


@dataclass(frozen=True, kw_only=True)
class FillHoles(Step):
    """Fill enclosed background, all of it or small pieces only."""

    name: ClassVar[str] = "fill_holes"
    locality: ClassVar[Locality] = "components"

    max_volume_mm3: float | None = None

    def __post_init__(self) -> None:
        fine = self.max_volume_mm3 is None or self.max_volume_mm3 > 0
        self.require("max_volume_mm3", fine, "more than zero cubic millimetres, or null for any hole")

    def apply(self, mask: Mask, scene: RegionScene) -> Applied:
        """The mask and its holes."""
        limit = math.inf if self.max_volume_mm3 is None else self.max_volume_mm3
        return Applied(fill_holes(mask, spacing=scene.spacing, max_volume_mm3=limit))


@dataclass(frozen=True, kw_only=True)
class CloseGaps(Step):
    """Close gaps up to twice a radius wide."""

    name: ClassVar[str] = "close_gaps"
    locality: ClassVar[Locality] = "halo"

    radius_mm: float

    def __post_init__(self) -> None:
        self.require("radius_mm", 0 <= self.radius_mm < math.inf, "zero or more millimetres")

    def apply(self, mask: Mask, scene: RegionScene) -> Applied:
        """The closed mask."""
        return Applied(close_gaps(mask, radius_mm=self.radius_mm, spacing=scene.spacing))
