"""What of two masks adds up, over the slabs of a volume and over the cases of a batch, and the scores that follow."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vol3d.metrics.overlap import Overlap, ratio, rest
from vol3d.regions.cubes import area_table
from vol3d.shapes import Spacing


@dataclass(frozen=True)
class SurfaceArea:
    """The area of two masks' surfaces together, in mm2, and of it what lies in cubes where both have surface."""

    matched_mm2: float
    total_mm2: float

    def __add__(self, other: "SurfaceArea") -> "SurfaceArea":
        """The areas of two pairs of masks together."""
        return SurfaceArea(self.matched_mm2 + other.matched_mm2, self.total_mm2 + other.total_mm2)

    @property
    def dice(self) -> float | None:
        """Surface Dice at tolerance 0; None where neither mask has a surface."""
        return ratio(self.matched_mm2, self.total_mm2)

    @classmethod
    def of_codes(cls, counts: NDArray[np.int64], spacing: Spacing) -> "SurfaceArea":
        """The areas of two masks' paired_codes, (256, 256)."""
        matched = counts.copy()
        matched[[0, 255]] = matched[:, [0, 255]] = 0
        table = area_table(spacing)
        # Both sums run over the same codes in the same order, so that equal masks score 1 exactly.
        return cls(*(float(table @ (c.sum(axis=0) + c.sum(axis=1))) for c in (matched, counts)))


@dataclass(frozen=True)
class Counts:
    """Voxels of two masks, the prediction's volume minus the reference's, and their surfaces (None: not asked for)."""

    overlap: Overlap
    difference_mm3: float
    surface: SurfaceArea | None = None

    def __add__(self, other: "Counts") -> "Counts":
        """The counts of two cases together; without a surface where one has none."""
        surface = self.surface + other.surface if self.surface and other.surface else None
        return Counts(self.overlap + other.overlap, self.difference_mm3 + other.difference_mm3, surface)


COUNTED: dict[str, Callable[[Counts], float | None]] = {
    "dice": lambda c: c.overlap.dice,
    "iou": lambda c: c.overlap.iou,
    "hit": lambda c: c.overlap.recall,
    "fp": lambda c: rest(c.overlap.precision),
    "miss": lambda c: rest(c.overlap.recall),
    "precision": lambda c: c.overlap.precision,
    "recall": lambda c: c.overlap.recall,
    "surface_dice": lambda c: c.surface.dice if c.surface else None,
    "volume_difference_mm3": lambda c: c.difference_mm3,
    "volume_difference_relative": lambda c: ratio(c.overlap.predicted - c.overlap.referenced, c.overlap.referenced),
}
"""The metrics that need no more than counts: of a volume slab by slab, and of all cases together (pooled)."""
