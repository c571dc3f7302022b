"""ITK's own formats, NRRD and MetaImage: a header of text, and raw or compressed voxels behind or beside it.

They are read without SimpleITK, which hands out a damaged MetaImage as whatever its memory holds, and
NaN spacings as 1; the tests compare the two on sound files.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError
from vol3d.files import gzipped, metaimage_header, nrrd_header
from vol3d.files.kept_header import KeptHeader, kept_words
from vol3d.files.raw import RawVoxels, StagedSink
from vol3d.files.raw_header import RawHeader
from vol3d.files.stored import FROM_THE_END, StoredVoxels
from vol3d.files.voxels import without_half
from vol3d.geometry.affine import Affine
from vol3d.geometry.box import Box
from vol3d.geometry.grid import slabs
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.labels import LabelSchema
from vol3d.volume.source import VolumeSource

_MAX_HEADER = 4 << 20
_SLAB = 8


class ItkSource:
    """A NRRD or MetaImage as a (C, Z, Y, X) volume in RAS+ millimetres; a gzip is unpacked at the first read.

    Where the header names no place, it is ITK's: the spacing along left, posterior, superior from 0.
    """

    def __init__(self, path: Path, kind: str, header: RawHeader, end: int, *, spacing: Spacing | None) -> None:
        self.path = path
        self.shape, self.channels, self.dtype = header.shape, header.channels, header.dtype.newbyteorder("=")
        self.affine, self.says, self._odd = header.place(path, spacing)
        self.header = None if spacing else KeptHeader(kind, header.fields, self.shape, self.affine)
        start = end if header.data_file is None else 0
        self._voxels = StoredVoxels(
            path if header.data_file is None else _beside(path, header.data_file),
            shape=(1 if header.interleaved else self.channels, *self.shape),
            samples=self.channels if header.interleaved else 1,
            dtype=header.dtype,
            start=header.skip if header.skip == FROM_THE_END else start + header.skip,
            skip_within=header.skip_within,
            packed=header.compressed,
        )
        self.data, self.access = self._voxels.path, self._voxels.access

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about the header, and what follows the voxels."""
        return self._odd + self._voxels.warnings

    def read(self, box: Box) -> NDArray[Any]:
        """The box's voxels, (C, Z, Y, X).

        Raises:
            InputError: the file is damaged or changed since it was opened.
        """
        return self._voxels.read(box)


def is_nrrd(_path: Path, start: bytes) -> bool:
    """Whether a file begins as a NRRD does."""
    return start.startswith(nrrd_header.MAGIC)


def is_metaimage(path: Path, start: bytes) -> bool:
    """Whether a file begins as a MetaImage mostly does, or is named so: it need not begin in any way."""
    return start.startswith(metaimage_header.MAGIC) or path.suffix.lower() in (".mha", ".mhd")


def open_nrrd(path: Path, *, spacing: Spacing | None = None) -> ItkSource:
    """Open a .nrrd or .nhdr; spacing (mm) overrides the header's.

    Raises:
        InputError: the file is damaged, holds what a volume cannot be, or names data outside its folder.
    """
    text, end = _header(path, nrrd_header.END)
    return ItkSource(path, "NRRD", nrrd_header.parse(path, text), end, spacing=spacing)


def open_metaimage(path: Path, *, spacing: Spacing | None = None) -> ItkSource:
    """Open a .mha or .mhd; spacing (mm) overrides the header's.

    Raises:
        InputError: the file is damaged, holds what a volume cannot be, or names data outside its folder.
    """
    text, end = _header(path, metaimage_header.END)
    return ItkSource(path, "MetaImage", metaimage_header.parse(path, text), end, spacing=spacing)


def voxels_beside(path: Path) -> Path | None:
    """The file with the voxels of a .nhdr or .mhd; None for any other, or where opening it would be refused."""
    opened = {".nhdr": open_nrrd, ".mhd": open_metaimage}.get(path.suffix.lower())
    try:
        return opened(path).data if opened else None
    except InputError:
        return None


def create_nrrd(
    path: Path,
    *,
    shape: Shape3,
    channels: int = 1,
    dtype: Any,
    affine: Affine,
    like: VolumeSource | None = None,
    labels: LabelSchema | None = None,
    **_: object,
) -> StagedSink:
    """Begin a gzipped .nrrd of (channels, *shape) voxels at affine, in which 3D Slicer finds the labels.

    Where like came from a NRRD with this very grid, its geometry is carried over word by word, and
    nothing else of it. bool becomes uint8, float16 float32.
    """
    stored = without_half(dtype).newbyteorder("<")
    text = nrrd_header.header_text(
        shape=shape,
        channels=channels,
        dtype=stored,
        affine=affine,
        fields=kept_words(like, "NRRD", shape=shape, affine=affine),
        labels=labels,
    )

    def encode(voxels: RawVoxels, to: Path) -> None:
        gzipped.deflate(voxels.stream(), to, header=text.encode())

    return StagedSink(Path(path), shape=(channels, *shape), dtype=stored, encode=encode)


def create_metaimage(
    path: Path,
    *,
    shape: Shape3,
    channels: int = 1,
    dtype: Any,
    affine: Affine,
    like: VolumeSource | None = None,
    **_: object,
) -> StagedSink:
    """Begin a compressed .mha of (channels, *shape) voxels at affine.

    Where like came from a MetaImage with this very grid, its geometry is carried over word by word, and
    nothing else of it. bool becomes uint8, float16 float32.
    """
    stored = without_half(dtype).newbyteorder("<")
    fields = kept_words(like, "MetaImage", shape=shape, affine=affine)
    text = metaimage_header.header_text(shape=shape, channels=channels, dtype=stored, affine=affine, fields=fields)
    header = text.encode()

    def encode(voxels: RawVoxels, to: Path) -> None:
        gzipped.deflate(_interleaved(voxels), to, header=header, wrapper=gzipped.ZLIB)
        digits, place = metaimage_header.SIZE_DIGITS, text.index(metaimage_header.SIZE_FIELD)
        with to.open("r+b") as stream:
            stream.seek(place + len(metaimage_header.SIZE_FIELD))
            stream.write(b"%0*d" % (digits, to.stat().st_size - len(header)))

    return StagedSink(Path(path), shape=(channels, *shape), dtype=stored, encode=encode)


def _header(path: Path, end: re.Pattern[bytes]) -> tuple[str, int]:
    """The text of a header, and the byte behind it."""
    with path.open("rb") as stream:
        start = stream.read(_MAX_HEADER)
    match = end.search(start)
    if match is None and len(start) == _MAX_HEADER:
        raise InputError(f"{path}: its header has no end within {_MAX_HEADER} bytes")
    stop = match.end() if match else len(start)
    return os.fsdecode(start[:stop]), stop


def _beside(path: Path, name: str) -> Path:
    """The file of voxels that a header names, which may not lead out of the header's folder."""
    try:
        folder, found = path.parent.resolve(), (path.parent / name).resolve()
        inside, there = found.is_relative_to(folder), found.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, a NUL
        raise InputError(f"{path} names the data file {name[:80]!r}, which cannot be: {error}") from error
    if not inside:
        raise InputError(f"{path} names the data file {name!r}, which lies outside its folder; it was not read")
    if not there:
        raise InputError(f"{path} names the data file {name!r}, which is missing in {folder}")
    return path.parent / name


def _interleaved(voxels: RawVoxels) -> Iterator[bytes]:
    """The voxels' bytes with a voxel's channels side by side."""
    for box in slabs(Shape3(*voxels.shape[1:]), _SLAB):
        yield np.moveaxis(voxels.read(box), 0, -1).astype(voxels.dtype).tobytes()
