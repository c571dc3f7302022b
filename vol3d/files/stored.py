"""Voxels behind a header or beside it, bare or compressed; what is compressed is unpacked at the first read."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError
from vol3d.files import gzipped
from vol3d.files.raw import RawVoxels
from vol3d.geometry.box import Box
from vol3d.volume.source import Access

FROM_THE_END = -1


class StoredVoxels:
    """A (C, Z, Y, X) array in a file, or (C, Z, Y, X, samples), whose samples become channels.

    They begin at the byte start, or end with the file (FROM_THE_END); where they are packed, their stream
    begins there. skip_within bytes of it are left out. dtype is a sample's, in the file's byte order;
    warnings are about what follows the voxels.
    """

    def __init__(
        self,
        path: Path,
        *,
        shape: tuple[int, int, int, int],
        samples: int = 1,
        dtype: np.dtype[Any],
        start: int = 0,
        skip_within: int = 0,
        packed: bool,
    ) -> None:
        self.path, self.warnings = path, tuple[str, ...]()
        self.access: Access = "sequential" if packed else "random"
        self._shape, self._samples, self._dtype, self._skip, self._packed = shape, samples, dtype, skip_within, packed
        self._bytes = skip_within + math.prod(shape) * samples * dtype.itemsize
        self._start = start
        self._voxels: RawVoxels | None = None
        if packed:
            gzipped.check_ratio(path, expected_bytes=self._bytes)
        else:
            self._check_size(path.stat().st_size)

    def read(self, box: Box) -> NDArray[Any]:
        """The box as a (C * samples, Z, Y, X) array in the machine's byte order.

        Raises:
            InputError: the file is damaged or changed since it was opened.
        """
        if self._voxels is None:
            self._voxels = self._opened()
        values = self._voxels.read(box)
        if self._samples > 1:
            apart = np.moveaxis(values.view(self._dtype).reshape(*values.shape, self._samples), -1, 1)
            values = apart.reshape(len(values) * self._samples, *box.shape)
        return values.astype(self._dtype.newbyteorder("="), copy=False)

    def _check_size(self, actual: int) -> None:
        if self._start == FROM_THE_END:
            self._start = actual - self._bytes
        expected = max(self._start, 0) + self._bytes
        if actual < expected:
            raise InputError(f"{self.path} is truncated: expected {expected} bytes, got {actual}")
        if actual > expected:
            self.warnings += (f"{self.path}: {actual - expected} bytes follow the voxels and are ignored",)

    def _opened(self) -> RawVoxels:
        if self._packed:
            descriptor, warning = gzipped.spool(self.path, expected_bytes=self._bytes, start=self._start)
            self.warnings += (warning,) if warning else ()
            offset = self._skip
        else:
            descriptor, offset = os.open(self.path, os.O_RDONLY), self._start + self._skip
        size = self._samples * self._dtype.itemsize
        dtype = np.dtype((np.void, size)) if self._samples > 1 else self._dtype
        return RawVoxels(descriptor, name=self.path, shape=self._shape, dtype=dtype, offset=offset)
