"""Where a volume is looked at: all of it, or the box around an organ."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vol3d.errors import UsageError
from vol3d.geometry.affine import spacing_of
from vol3d.geometry.box import Box
from vol3d.geometry.grid import around, slabs
from vol3d.preprocess.orient import Turn
from vol3d.regions.extent import Extent, extent, grown_mm
from vol3d.shapes import Index3
from vol3d.volume.source import VolumeSource

EMPTY_ORGAN = "the organ is empty, so nothing was looked for in it"
SLAB_PLANES = 16


def check_organ(mask: object, model: object, margin_mm: float | None) -> None:
    """Refuse what is said of an organ where it contradicts itself.

    Raises:
        UsageError: a mask and a model are given, or a margin without either, or none of millimetres.
    """
    if mask is not None and model is not None:
        raise UsageError("the organ is told twice: give --organ-mask or --organ-model, not both")
    if margin_mm is not None and mask is None and model is None:
        raise UsageError("--organ-margin is around an organ: give --organ-mask or --organ-model, too")
    if margin_mm is not None and not 0 <= margin_mm < math.inf:
        raise UsageError(f"--organ-margin: expected millimetres, 0 or more, got {margin_mm}")


@dataclass(frozen=True)
class Focus:
    """The box that is looked at, on the turned grid, and the organ, as stored, where there is one."""

    turn: Turn
    box: Box
    organ: Extent | None = None

    @classmethod
    def on(cls, organ: VolumeSource | None, *, turn: Turn, margin_mm: float | None) -> "Focus":
        """The box around an organ with a margin, nowhere if it is empty; everywhere without a margin."""
        found = None if organ is None else extent(organ)
        if organ is None or found is None or margin_mm is None:
            return cls(turn, Box.whole(turn.shape), found)
        if found.box is None:
            return cls(turn, Box(Index3(0, 0, 0), Index3(0, 0, 0)), found)
        stored = grown_mm(found.box, margin_mm, spacing=spacing_of(organ.affine), shape=organ.shape)
        return cls(turn, turn.turned_box(stored), found)

    @property
    def on_nothing(self) -> bool:
        """Whether there is an organ, of no voxel."""
        return self.organ is not None and self.organ.box is None

    def beyond(self) -> Iterator[Box]:
        """Where is not looked, as stored, in boxes of few planes."""
        for rest in around(self.box, Box.whole(self.turn.shape)):
            for slab in slabs(rest.shape, SLAB_PLANES):
                yield self.turn.stored_box(slab.shifted(rest.start))

    def row(self) -> dict[str, Any]:
        """What the report says of the organ and of where was looked, as stored; nothing without one."""
        if self.organ is None:
            return {}
        looked = self.turn.stored_box(self.box) if self.box.shape.voxels else self.box
        return {"organ": {"voxels": self.organ.voxels, "start": list(looked.start), "stop": list(looked.stop)}}
