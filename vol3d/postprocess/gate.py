"""Keep what lies in the organ."""

import math
from dataclasses import dataclass
from typing import ClassVar

from vol3d.postprocess.blocks import LocalStep
from vol3d.postprocess.scene import Applied, Locality, Mask, Needs, RegionScene


@dataclass(frozen=True, kw_only=True)
class OrganGate(LocalStep):
    """Remove what lies outside the organ mask, dilated (margin above zero, inclusive) or eroded (below).

    With a falloff the end is soft: a voxel whose centre lies e mm from the nearest one of that moved mask
    stays where p * (1 - e / falloff_mm) >= threshold, compared in float32; inside, all stay.
    """

    name: ClassVar[str] = "organ_gate"
    locality: ClassVar[Locality] = "halo"
    tensors: ClassVar[bool] = True

    margin_mm: float = 0.0
    falloff_mm: float = 0.0
    threshold: float = 0.5

    def __post_init__(self) -> None:
        self.require("margin_mm", math.isfinite(self.margin_mm), "a finite number of millimetres")
        self.require("falloff_mm", 0 <= self.falloff_mm < math.inf, "zero or more millimetres")
        self.require("threshold", 0 < self.threshold <= 1, "more than 0 and at most 1")

    def needs(self) -> Needs:
        """The organ mask, and with a falloff the probability."""
        return Needs(organ=True, probability=self.falloff_mm > 0)

    def takes_tensors(self) -> bool:
        """A hard gate does: how far voxels are from the organ is found in the computer's memory."""
        return super().takes_tensors() and not self.falloff_mm

    def apply(self, mask: Mask, scene: RegionScene) -> Applied:
        """The mask inside the organ, and near it where it is sure enough."""
        if not self.falloff_mm:
            return Applied(mask & scene.organ_moved(self.margin_mm))
        share = scene.organ_falloff(self.margin_mm, self.falloff_mm)
        return Applied(mask & ((share >= 1) | (scene.probability * share >= self.threshold)))
