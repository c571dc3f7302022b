"""Keep what lies in the organ."""

import math
from dataclasses import dataclass
from typing import ClassVar

from vol3d.postprocess.blocks import LocalStep
from vol3d.postprocess.scene import Applied, Locality, Mask, Needs, RegionScene


@dataclass(frozen=True, kw_only=True)
class OrganGate(LocalStep):
    """Remove what lies outside the organ mask, dilated (margin above zero, inclusive) or eroded (below)."""

    name: ClassVar[str] = "organ_gate"
    locality: ClassVar[Locality] = "halo"
    tensors: ClassVar[bool] = True

    margin_mm: float = 0.0

    def __post_init__(self) -> None:
        self.require("margin_mm", math.isfinite(self.margin_mm), "a finite number of millimetres")

    def needs(self) -> Needs:
        """The organ mask."""
        return Needs(organ=True)

    def apply(self, mask: Mask, scene: RegionScene) -> Applied:
        """The mask inside the organ."""
        return Applied(mask & scene.organ_moved(self.margin_mm))
