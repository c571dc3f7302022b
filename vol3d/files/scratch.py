"""Voxels that are kept on the disk while a volume is worked on, and are gone when it is done."""

import math
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import ResourceError
from vol3d.files.atomic import writing
from vol3d.files.raw import RawVoxels
from vol3d.geometry.affine import Affine
from vol3d.geometry.box import Box
from vol3d.shapes import Shape3, shape3
from vol3d.volume.source import Access, Says


@dataclass(frozen=True, eq=False)
class Scratch:
    """A VolumeStore in a file without a name; only is the one channel that is looked at, None for all."""

    voxels: RawVoxels
    affine: Affine
    only: int | None = None

    access: Access = "random"
    says: Says = "place"
    header: object = None
    warnings: tuple[str, ...] = ()

    @property
    def shape(self) -> Shape3:
        """Voxels along z, y, x."""
        return shape3(self.voxels.shape)

    @property
    def channels(self) -> int:
        """How many there are to look at."""
        return self.voxels.shape[0] if self.only is None else 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """The stored type."""
        return self.voxels.dtype

    def read(self, box: Box) -> NDArray[Any]:
        """The box's voxels, (C, Z, Y, X)."""
        return self.voxels.read(box, channel=self.only)

    def write(self, box: Box, voxels: NDArray[Any]) -> None:
        """Store a (C, Z, Y, X) array at the box.

        Raises:
            ResourceError: the disk is full.
        """
        self.voxels.write(box, voxels, channel=self.only)

    def channel(self, number: int) -> "Scratch":
        """One channel, in the same file."""
        return Scratch(self.voxels, self.affine, number)


def create_scratch(
    folder: Path | None, *, shape: tuple[int, int, int, int], dtype: np.dtype[Any], affine: Affine
) -> Scratch:
    """Zeros of the shape (C, Z, Y, X) in a file in the folder, or in the system's for temporary files.

    No name leads to it, so that nothing of it can be left; it goes with the last object that looks at it.

    Raises:
        ResourceError: the folder has not the room for all of it.
        UsageError: the folder cannot be written to.
    """
    place, size = folder or Path(tempfile.gettempdir()), math.prod(shape) * dtype.itemsize
    with writing(place):
        free = shutil.disk_usage(place).free
        if size > free:
            raise ResourceError(
                f"a prediction keeps {size} bytes in {place} until it is done, {free} are free; free some and repeat"
            )
        with tempfile.TemporaryFile(dir=place) as stream:
            stream.truncate(size)
            descriptor = os.dup(stream.fileno())
    return Scratch(RawVoxels(descriptor, name=place, shape=shape, dtype=dtype), affine)
