"""Keep what lies in the organ."""

import math
from dataclasses import dataclass
from typing import ClassVar

from vol3d.postprocess.scene import Applied, Locality, Mask, Needs, RegionScene, Step
from vol3d.regions.distance import dilate_mm, erode_mm
from vol3d.shapes import Spacing


def gate(mask: Mask, organ: Mask, *, spacing: Spacing, margin_mm: float = 0.0) -> Mask:
    """The voxels of a (Z, Y, X) mask inside the organ mask of the same shape.

    A positive margin_mm dilates the organ first (the distance is inclusive), a negative one erodes it.

    Raises:
        ValueError: the shapes differ, or the margin is not finite.
    """
    if mask.shape != organ.shape:
        raise ValueError(f"expected an organ mask of shape {mask.shape}, got {organ.shape}")
    moved = dilate_mm if margin_mm >= 0 else erode_mm
    return mask & (moved(organ, abs(margin_mm), spacing) if margin_mm else organ)


@dataclass(frozen=True, kw_only=True)
class OrganGate(Step):
    """Remove what lies outside the organ mask, dilated (margin above zero) or eroded (below)."""

    name: ClassVar[str] = "organ_gate"
    locality: ClassVar[Locality] = "halo"

    margin_mm: float = 0.0

    def __post_init__(self) -> None:
        self.require("margin_mm", math.isfinite(self.margin_mm), "a finite number of millimetres")

    def needs(self) -> Needs:
        """The organ mask."""
        return Needs(organ=True)

    def apply(self, mask: Mask, scene: RegionScene) -> Applied:
        """The mask inside the organ."""
        return Applied(gate(mask, scene.organ, spacing=scene.spacing, margin_mm=self.margin_mm))
