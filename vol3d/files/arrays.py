"""NumPy's .npy: (Z, Y, X) or (C, Z, Y, X), never pickled."""

import io
import math
import os
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError
from vol3d.files.raw import RawVoxels, StagedSink
from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.source import Access, Says


class NpySource:
    """A .npy file as a volume. It knows no place: 1 mm voxels unless the spacing is given."""

    access: Access = "random"
    header: object = None

    def __init__(self, path: Path, *, spacing: Spacing | None = None) -> None:
        self.path = path
        shape, fortran, dtype, offset = _header(path)
        if dtype.hasobject or dtype.kind not in "biuf" or dtype.itemsize > 8:
            raise InputError(f"{path}: voxels of type {dtype} cannot be read; expected integers or real floats")
        if len(shape) not in (3, 4) or min(shape) < 1:
            raise InputError(f"{path}: expected a (Z, Y, X) or (C, Z, Y, X) array, got shape {shape}")
        expected, actual = offset + math.prod(shape) * dtype.itemsize, path.stat().st_size
        if actual < expected:
            raise InputError(f"{path} is truncated: expected {expected} bytes, got {actual}")
        self.channels, *extent = (1, *shape) if len(shape) == 3 else shape
        self.shape = Shape3(*extent)
        self.dtype = dtype.newbyteorder("=")
        self.affine = from_spacing(spacing or Spacing(1.0, 1.0, 1.0))
        self.warnings = () if spacing else (f"{path} says no spacing; 1 mm is assumed",)
        self.says: Says = "spacing" if spacing else "nothing"
        self._map: NDArray[Any] | RawVoxels
        if fortran:
            self._map = np.memmap(path, mode="r", dtype=dtype, offset=offset, shape=shape, order="F")
        else:
            descriptor = os.open(path, os.O_RDONLY)
            size = (self.channels, *self.shape)
            self._map = RawVoxels(descriptor, name=path, shape=size, dtype=dtype, offset=offset)

    def read(self, box: Box) -> NDArray[Any]:
        """The box's voxels, (C, Z, Y, X)."""
        if isinstance(self._map, RawVoxels):
            return self._map.read(box)
        cut = np.array(self._map[(..., *box.slices)], dtype=self.dtype, order="C")
        return cut.reshape(self.channels, *box.shape)


def open_npy(path: Path, *, spacing: Spacing | None = None) -> NpySource:
    """Open a .npy file.

    Raises:
        InputError: it is damaged, or no (C, Z, Y, X) array of numbers.
    """
    return NpySource(Path(path), spacing=spacing)


def create_npy(path: Path, *, shape: Shape3, channels: int = 1, dtype: Any, **_: object) -> StagedSink:
    """Begin a .npy of (Z, Y, X), or (C, Z, Y, X) for several channels. It keeps no affine."""
    dtype, size = np.dtype(dtype), (channels, *shape)
    header = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
    np.lib.format.write_array_header_1_0(header, {**description, "shape": size if channels > 1 else size[1:]})
    return StagedSink(Path(path), shape=size, dtype=dtype, header=header.getvalue())


def _header(path: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    try:
        with path.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(stream)
            return shape, fortran, dtype, stream.tell()
    except (ValueError, TypeError, SyntaxError, TokenError) as error:  # the header is a line of Python
        raise InputError(f"{path} is not a .npy array: {error}") from error
