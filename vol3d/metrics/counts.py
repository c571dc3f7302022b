"""What of two masks adds up, over the slabs of a volume and over the cases of a batch, and the scores that follow."""

from collections.abc import Callable
from dataclasses import dataclass

from vol3d.metrics.overlap import Overlap, ratio, rest
from vol3d.metrics.surface import SurfaceOverlap
from vol3d.shapes import Spacing


@dataclass(frozen=True)
class Counts:
    """Voxels of two masks, the prediction's volume minus the reference's, and their surfaces (None: not asked for)."""

    overlap: Overlap
    difference_mm3: float
    surface: SurfaceOverlap | None = None

    @classmethod
    def of(cls, overlap: Overlap, spacing: Spacing, surface: SurfaceOverlap | None) -> "Counts":
        """Those of one case, whose spacing is in mm."""
        return cls(overlap, (overlap.predicted - overlap.referenced) * spacing.voxel_mm3, surface)

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
    "surface_hit": lambda c: c.surface.hit if c.surface else None,
    "surface_fp": lambda c: c.surface.fp if c.surface else None,
    "surface_miss": lambda c: c.surface.miss if c.surface else None,
}
"""The metrics that need no more than counts: of a volume slab by slab, and of all cases together (pooled)."""

OF_SURFACE = frozenset(name for name in COUNTED if name.startswith("surface"))
"""Those that want the areas of surfaces."""
