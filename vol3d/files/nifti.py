"""NIfTI-1 and NIfTI-2, headers through nibabel alone, with the checks that nibabel leaves out.

A NIfTI file is a Fortran array (x, y, z, channel), which is a C array (channel, z, y, x) for free.
"""

import os
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError
from vol3d.files import gzipped
from vol3d.files.nifti_header import (
    REVERSED,
    NiftiHeader,
    dims_of,
    offset_of,
    parse,
    place_of,
    scale_of,
    stored_type,
)
from vol3d.files.raw import RawVoxels, StagedSink
from vol3d.geometry.affine import Affine
from vol3d.geometry.box import Box
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.source import Access, Says, VolumeSource


class NiftiSource:
    """A NIfTI file as a (C, Z, Y, X) volume in RAS+ millimetres; a gzip is unpacked at the first read.

    Values are scaled as nibabel scales them (float32); without a scale they keep their stored type.
    warnings holds sentences about what is odd.
    """

    says: Says
    warnings: tuple[str, ...]

    def __init__(self, path: Path, *, spacing: Spacing | None = None) -> None:
        self.path = path
        self._zipped, header = _header(path)
        self.access: Access = "sequential" if self._zipped else "random"
        self._stored, self._samples = stored_type(path, header)
        self._file_channels, *extent = dims_of(path, header)
        self.shape, self.channels = Shape3(*extent), self._samples * self._file_channels
        self.affine, self.says, self.warnings = place_of(path, header, self.shape, spacing)
        self.header = None if spacing else NiftiHeader(header.binaryblock, self.shape, self.affine)
        self._slope, self._inter = scale_of(path, header)
        scaled = (self._slope, self._inter) != (1.0, 0.0)
        self.dtype = np.dtype(np.float32) if scaled else self._stored.newbyteorder("=")
        self._offset = offset_of(path, header)
        self._bytes = self._offset + self.channels * self.shape.voxels * self._stored.itemsize
        self._check_size()
        self._voxels: RawVoxels | None = None

    def read(self, box: Box) -> NDArray[Any]:
        """The box's voxels, (C, Z, Y, X).

        Raises:
            InputError: the file is damaged or changed since it was opened.
        """
        if self._voxels is None:
            self._voxels = self._unpack()
        values = self._voxels.read(box)
        if self._samples > 1:  # RGB: the samples of a voxel lie side by side
            values = values.reshape(values.shape[1:])
            values = np.moveaxis(values.view(self.dtype).reshape(*values.shape, self._samples), -1, 0)
        if self.dtype == self._stored.newbyteorder("="):
            return values
        return (values * np.float64(self._slope) + np.float64(self._inter)).astype(np.float32)

    def _check_size(self) -> None:
        if self._zipped:
            gzipped.check_ratio(self.path, expected_bytes=self._bytes)
        else:
            actual = self.path.stat().st_size
            if actual < self._bytes:
                raise InputError(f"{self.path} is truncated: expected {self._bytes} bytes, got {actual}")
            if actual > self._bytes:
                extra = actual - self._bytes
                self.warnings += (f"{self.path}: {extra} bytes follow the voxels and are ignored",)
        if self._zipped != (self.path.suffix.lower() == ".gz"):
            content = "compressed" if self._zipped else "not compressed"
            self.warnings += (f"{self.path} is {content}, unlike its name says; it was read by its content",)

    def _unpack(self) -> RawVoxels:
        if self._zipped:
            descriptor, warning = gzipped.spool(self.path, expected_bytes=self._bytes)
            self.warnings += (warning,) if warning else ()
        else:
            descriptor = os.open(self.path, os.O_RDONLY)
        dtype = np.dtype((np.void, self._samples)) if self._samples > 1 else self._stored
        shape = (self._file_channels, *self.shape)
        return RawVoxels(descriptor, name=self.path, shape=shape, dtype=dtype, offset=self._offset)


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
    import nibabel

    path = Path(path)
    stored = np.dtype({"bool": np.uint8, "float16": np.float32}.get(np.dtype(dtype).name, dtype)).newbyteorder("<")
    given = like.header if like is not None and isinstance(like.header, NiftiHeader) else None
    dims = (*shape[::-1], channels) if channels > 1 else shape[::-1]
    if given is not None and given.describes(shape, affine):
        header = parse(path, given.raw).as_byteswapped("<")
        if np.prod(header["dim"][1 : header["dim"][0] + 1]) != channels * shape.voxels:
            header.set_data_shape(dims)
        for text in ("descrip", "aux_file", "db_name"):  # may name a person
            if text in header.keys():  # noqa: SIM118
                header[text] = b""
        header["cal_min"] = header["cal_max"] = 0
    else:
        large = max(*shape, channels) > np.iinfo(np.int16).max
        header = nibabel.Nifti2Header() if large else nibabel.Nifti1Header()
        header.set_data_shape(dims)
        world = np.asarray(affine)[:, REVERSED]
        header.set_qform(world, code=1)
        header.set_sform(world, code=2)
        header.set_xyzt_units("mm", "sec")
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
