"""Where a volume's masks, probabilities and organ lie while it is predicted: in memory, or in scratch files."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vol3d.files.scratch import create_scratch
from vol3d.geometry.affine import Affine
from vol3d.geometry.box import Box
from vol3d.geometry.grid import slabs
from vol3d.shapes import Shape3
from vol3d.volume.source import ArrayStore, VolumeSource, VolumeStore

IN_MEMORY = 128 * 2**20  # bytes of masks and probabilities; what comes in float32 beside them is not counted
SLAB_VOXELS = 1 << 25


@dataclass(frozen=True)
class Storage:
    """Room for volumes of one grid; all of them lie in the folder (None: the system's for temporary files), or none."""

    shape: Shape3
    affine: Affine
    on_disk: bool
    folder: Path | None = None

    @classmethod
    def for_bytes(cls, size: int, grid: VolumeSource, folder: Path | None) -> "Storage":
        """In memory where all that is kept takes no more than IN_MEMORY."""
        return cls(grid.shape, grid.affine, size > IN_MEMORY, folder)

    def zeros(self, channels: int, dtype: type[np.generic] | np.dtype[Any]) -> VolumeStore:
        """A store of zeros.

        Raises:
            ResourceError: the folder has not the room.
        """
        shape = (channels, *self.shape)
        if self.on_disk:
            return create_scratch(self.folder, shape=shape, dtype=np.dtype(dtype), affine=self.affine)
        return ArrayStore(np.zeros(shape, dtype), self.affine)

    def copy(self, source: VolumeSource) -> VolumeStore:
        """What a source on this grid holds."""
        store = self.zeros(source.channels, source.dtype)
        for box in self.slabs(source.channels):
            store.write(box, source.read(box))
        return store

    def slabs(self, channels: int) -> Iterator[Box]:
        """Boxes to go over a volume of so many channels in: what is in memory is one."""
        planes = max(1, SLAB_VOXELS // (channels * self.shape.y * self.shape.x))
        return slabs(self.shape, planes if self.on_disk else self.shape.z)
