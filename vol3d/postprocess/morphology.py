"""Fill what a mask encloses and close what it nearly encloses."""

import math
from dataclasses import dataclass
from typing import ClassVar

from vol3d.postprocess.blocks import BlockStep, LocalStep, Region
from vol3d.postprocess.scene import Applied, Locality, Mask, RegionScene
from vol3d.regions.blocks import AT_EDGE, VOXELS
from vol3d.regions.distance import dilate_mm, erode_mm, reach_voxels
from vol3d.shapes import Spacing


def close_gaps(mask: Mask, *, radius_mm: float, spacing: Spacing) -> Mask:
    """A (Z, Y, X) mask and the voxels that no ball of radius_mm outside it can reach (a closing in mm).

    It joins the pieces of a broken wall, so that a lumen can be filled. The volume's edge is no wall.
    """
    return erode_mm(dilate_mm(mask, radius_mm, spacing), radius_mm, spacing)


@dataclass(frozen=True, kw_only=True)
class FillHoles(BlockStep):
    """Fill enclosed background, all of it or small pieces only (inclusive, to a millionth of a voxel).

    A hole is a component of the background that does not reach the volume's edge; background voxels
    join by their faces (6), the partner of 26-connected foreground. A tube that is open at the edge
    has no hole. A volume one voxel thick has no edge along that axis: its holes lie in its plane.
    """

    name: ClassVar[str] = "fill_holes"
    locality: ClassVar[Locality] = "components"
    tensors: ClassVar[bool] = True

    max_volume_mm3: float | None = None

    def __post_init__(self) -> None:
        fine = self.max_volume_mm3 is None or self.max_volume_mm3 > 0
        self.require("max_volume_mm3", fine, "more than zero cubic millimetres, or null for any hole")

    def run(self, region: Region) -> str:
        """Add the holes."""
        voxel_mm3 = region.scene.spacing.voxel_mm3
        limit_mm3 = math.inf if self.max_volume_mm3 is None else self.max_volume_mm3
        found = region.components((VOXELS, AT_EDGE), connectivity=6, of=lambda part: ~part.mask)
        voxels, at_edge = found.measured
        region.add(found, (voxels * voxel_mm3 <= limit_mm3 + 1e-6 * voxel_mm3) & ~at_edge)
        return ""


@dataclass(frozen=True, kw_only=True)
class CloseGaps(LocalStep):
    """Close gaps up to twice a radius wide."""

    name: ClassVar[str] = "close_gaps"
    locality: ClassVar[Locality] = "halo"
    tensors: ClassVar[bool] = True

    radius_mm: float

    def __post_init__(self) -> None:
        self.require("radius_mm", 0 <= self.radius_mm < math.inf, "zero or more millimetres")

    def reach(self, spacing: Spacing) -> int:
        """Twice the radius: dilated, then eroded."""
        return 2 * reach_voxels(self.radius_mm, spacing)[0]

    def apply(self, mask: Mask, scene: RegionScene) -> Applied:
        """The closed mask."""
        return Applied(close_gaps(mask, radius_mm=self.radius_mm, spacing=scene.spacing))
