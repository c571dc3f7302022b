"""NumPy's .npy and .npz: (Z, Y, X) or (C, Z, Y, X), never pickled."""

import io
import math
import os
import shutil
import zipfile
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError
from vol3d.files.decoding import decoding
from vol3d.files.gzipped import MAX_RATIO
from vol3d.files.names import file_and_inside
from vol3d.files.place import spacing_alone
from vol3d.files.raw import RawVoxels, StagedSink
from vol3d.files.temporary import temporary_file
from vol3d.files.voxels import channels_and_shape, check_type, chosen
from vol3d.geometry.box import Box
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.source import Access

_HEADER_BYTES = 1 << 14
MAX_MEMBERS = 1000  # arrays in one .npz


class NpySource:
    """An open .npy file as a volume. It knows no place: 1 mm voxels unless the spacing is given.

    name is what messages speak of.
    """

    access: Access = "random"
    header: object = None

    def __init__(self, name: Path, stream: IO[bytes], *, spacing: Spacing | None = None) -> None:
        shape, fortran, dtype, offset = read_npy_header(name, stream)
        check_type(name, dtype)
        self.channels, self.shape = channels_and_shape(name, shape)
        expected, actual = offset + math.prod(shape) * dtype.itemsize, os.fstat(stream.fileno()).st_size
        if actual < expected:
            raise InputError(f"{name} is truncated: expected {expected} bytes, got {actual}")
        self.dtype = dtype.newbyteorder("=")
        self.affine, self.says, self.warnings = spacing_alone(name, spacing)
        self._map: NDArray[Any] | RawVoxels
        if fortran:
            self._map = np.memmap(stream, mode="r", dtype=dtype, offset=offset, shape=shape, order="F")
        else:
            size = (self.channels, *self.shape)
            self._map = RawVoxels(os.dup(stream.fileno()), name=name, shape=size, dtype=dtype, offset=offset)

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
    with Path(path).open("rb") as stream:
        return NpySource(Path(path), stream, spacing=spacing)


def open_npz(path: Path, *, spacing: Spacing | None = None) -> NpySource:
    """Open the only volume of a .npz, or FILE.npz/NAME, decompressed into a temporary file.

    Raises:
        InputError: it is damaged, holds no volume or several, or says a size that it cannot have.
        ResourceError: the temporary folder has not the room.
    """
    file, name = file_and_inside(Path(path))
    with decoding(str(path)), zipfile.ZipFile(file) as members:
        found = members.infolist()
        if len(found) > MAX_MEMBERS:
            raise InputError(f"{file} holds {len(found)} arrays, more than {MAX_MEMBERS}: it is no volume")
        shapes = {info.filename.removesuffix(".npy"): _member_shape(members, info) for info in found}
        info = found[list(shapes).index(chosen(file, name, shapes))]
        size, kinds = info.file_size, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if size > info.compress_size * MAX_RATIO or info.compress_type not in kinds:
            raise InputError(
                f"{path}: {info.compress_size} bytes, deflated, cannot hold {size}; it is damaged or forged"
            )
        with temporary_file(Path(path), size=size) as stream:
            with members.open(info) as packed:  # zipfile compares its checksum
                shutil.copyfileobj(packed, stream, 1 << 20)
            stream.flush()
            stream.seek(0)
            return NpySource(Path(path), stream, spacing=spacing)


def create_npy(path: Path, *, shape: Shape3, channels: int = 1, dtype: Any, **_: object) -> StagedSink:
    """Begin a .npy of (Z, Y, X), or (C, Z, Y, X) for several channels. It keeps no affine."""
    dtype, size = np.dtype(dtype), (channels, *shape)
    return StagedSink(Path(path), shape=size, dtype=dtype, header=npy_header(size if channels > 1 else size[1:], dtype))


def npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """What stands before the voxels of an array in C order."""
    header = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue()


def read_npy_header(name: Path, stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """An array's shape, whether it is in Fortran order, its type, and where its voxels begin.

    Raises:
        InputError: it is no array.
    """
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
        return shape, fortran, dtype, stream.tell()
    except (ValueError, TypeError, SyntaxError, TokenError) as error:  # the header is a line of Python
        raise InputError(f"{name} is not a .npy array: {error}") from error


def _member_shape(members: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[int, ...]:
    """The shape that a member's header says; () for what is no array of numbers."""
    with members.open(info) as stream:
        start = io.BytesIO(stream.read(_HEADER_BYTES))
    try:
        shape, _, dtype, _ = read_npy_header(Path(info.filename), start)
    except InputError:
        return ()
    return shape if dtype.kind in "biuf" else ()
