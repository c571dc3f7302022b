"""NIfTI-1 and NIfTI-2, headers through nibabel alone, with the checks that nibabel leaves out.

A NIfTI file is a Fortran array (x, y, z, channel), which is a C array (channel, z, y, x) for free.
"""

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.files import gzipped
from vol3d.files.kept_header import KeptHeader, kept_words
from vol3d.files.nifti_header import (
    REVERSED,
    dims_of,
    offset_of,
    parse,
    place_of,
    scale_of,
    stored_type,
)
from vol3d.files.raw import StagedSink
from vol3d.files.stored import StoredVoxels
from vol3d.files.voxels import without_half
from vol3d.geometry.affine import Affine
from vol3d.geometry.box import Box
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.source import Says, VolumeSource


class NiftiSource:
    """A NIfTI file as a (C, Z, Y, X) volume in RAS+ millimetres; a gzip is unpacked at the first read.

    Values are scaled as nibabel scales them (float32); without a scale they keep their stored type.
    """

    def __init__(self, path: Path, *, spacing: Spacing | None = None) -> None:
        self.path = path
        zipped, header = _header(path)
        stored, samples = stored_type(path, header)
        channels, *extent = dims_of(path, header)
        self.shape, self.channels = Shape3(*extent), samples * channels
        self.affine, says, odd = place_of(path, header, self.shape, spacing)
        self.says: Says = says
        self.header = None if spacing else KeptHeader("NIfTI", header.binaryblock, self.shape, self.affine)
        self._scale = scale_of(path, header)
        self.dtype = np.dtype(np.float32) if self._scale != (1.0, 0.0) else stored.newbyteorder("=")
        offset = offset_of(path, header)
        size = (channels, *self.shape)
        self._voxels = StoredVoxels(path, shape=size, samples=samples, dtype=stored, skip_within=offset, packed=zipped)
        self.access = self._voxels.access
        if zipped != (path.suffix.lower() == ".gz"):
            content = "compressed" if zipped else "not compressed"
            odd += (f"{path} is {content}, unlike its name says; it was read by its content",)
        self._odd = odd

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about the header and the name, and what follows the voxels."""
        return self._odd + self._voxels.warnings

    def read(self, box: Box) -> NDArray[Any]:
        """The box's voxels, (C, Z, Y, X).

        Raises:
            InputError: the file is damaged or changed since it was opened.
        """
        values = self._voxels.read(box)
        slope, inter = self._scale
        if (slope, inter) == (1.0, 0.0):
            return values
        return (values * np.float64(slope) + np.float64(inter)).astype(np.float32)


def open_nifti(path: Path, *, spacing: Spacing | None = None) -> NiftiSource:
    """Open a .nii or .nii.gz, told apart by content; spacing (mm) overrides the header's.

    Raises:
        InputError: the file is damaged, or holds what a volume cannot be.
    """
    return NiftiSource(Path(path), spacing=spacing)


def create_nifti(
    path: Path,
    *,
    shape: Shape3,
    channels: int = 1,
    dtype: Any,
    affine: Affine,
    like: VolumeSource | None = None,
    **_: object,
) -> StagedSink:
    """Begin a .nii or .nii.gz (by suffix) of (channels, *shape) voxels at affine.

    Where like came from a NIfTI file with this very grid, its header is carried over: geometry bit for
    bit, only type, scale, display range and free text are new. bool becomes uint8, float16 float32.
    """
    path = Path(path)
    stored = without_half(dtype).newbyteorder("<")
    kept = kept_words(like, "NIfTI", shape=shape, affine=affine)
    dims = (*shape[::-1], channels) if channels > 1 else shape[::-1]
    header = _made(dims, affine) if kept is None else _carried_over(path, kept, dims)
    header.set_data_dtype(stored)
    header["scl_slope"], header["scl_inter"] = 1, 0
    start = header.sizeof_hdr + 4  # four zeros: no extensions follow
    header["vox_offset"] = start
    block, size = header.binaryblock.ljust(start, b"\0"), (channels, *shape)
    if path.suffix.lower() != ".gz":
        return StagedSink(path, shape=size, dtype=stored, header=block)
    return StagedSink(
        path, shape=size, dtype=stored, encode=lambda voxels, to: gzipped.deflate(chain([block], voxels.stream()), to)
    )


def _header(path: Path) -> tuple[bool, Any]:
    """Whether the file is a gzip, and its parsed header."""
    with path.open("rb") as stream:
        zipped = stream.read(2) == gzipped.MAGIC
    return zipped, parse(path, gzipped.beginning(path, 540))


def _made(dims: tuple[int, ...], affine: Affine) -> Any:
    """A new header of a grid."""
    import nibabel

    header = nibabel.Nifti2Header() if max(dims) > np.iinfo(np.int16).max else nibabel.Nifti1Header()
    header.set_data_shape(dims)
    world = np.asarray(affine)[:, REVERSED]
    header.set_qform(world, code=1)
    header.set_sform(world, code=2)
    header.set_xyzt_units("mm", "sec")
    return header


def _carried_over(path: Path, kept: bytes, dims: tuple[int, ...]) -> Any:
    """An input's header without what is said of its grey values and, perhaps, of a person."""
    header = parse(path, kept).as_byteswapped("<")
    if np.prod(header["dim"][1 : header["dim"][0] + 1]) != np.prod(dims):
        header.set_data_shape(dims)
    for text in ("descrip", "aux_file", "db_name"):  # may name a person
        if text in header.keys():  # noqa: SIM118
            header[text] = b""
    header["cal_min"] = header["cal_max"] = 0
    return header
