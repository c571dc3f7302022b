"""DICOM: a folder of slices, an enhanced multi-frame file, or a single image as one volume.

Headers are read first, without pixels and without the tags that name a patient; slices are decoded
when they are read.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError, some
from vol3d.files.dicom_grid import Frame, sorted_on_grid
from vol3d.files.dicom_headers import DicomFile, header_of
from vol3d.files.dicom_pixels import stored_range, stored_values
from vol3d.files.names import HDF5, IN_ONE_FILE, META, NIFTI, NPY, NPZ, NRRD, PNG, TIFF, natural_key, suffix_of
from vol3d.files.planes import PlaneSource
from vol3d.shapes import Shape3, Spacing

_LOOKED_INTO = 64
# Files of other formats are not worth a look inside.
_OTHERS = {*NIFTI, *TIFF, *NPY, *NPZ, *PNG, *HDF5, *NRRD, *META, *IN_ONE_FILE, ".json", ".csv", ".txt"}
_SHOWN_SERIES = 20
# Radiology's modalities; microscopes, endoscopes and cameras are held in any way.
_UPRIGHT = {"CR", "DX", "MG", "RF", "XA", "RG", "PX", "IO", "CT", "MR", "PT", "NM", "US"}


@dataclass(frozen=True)
class DicomSlices:
    """File and frame number of each slice in the order of z, for a segmentation to refer to."""

    slices: tuple[tuple[Path, int], ...]


def is_dicom(start: bytes) -> bool:
    """Whether a file that begins so is DICOM: by its mark, or without one by a plausible first tag."""
    if start[128:132] == b"DICM":
        return True
    if len(start) < 132 or start[:2] not in (b"\x08\0", b"\x02\0") or start[3]:
        return False
    return (start[4:6].isalpha() and start[4:6].isupper()) or start[6:8] == b"\0\0"


def holds_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its content, or a folder holds such files."""
    return bool(dicom_files(path)) if path.is_dir() else path.is_file() and is_dicom(_start_of(path))


def dicom_files(folder: Path) -> list[Path]:
    """The files of a folder that are DICOM by content, in natural order.

    Hidden files, those named as another format, and links out of the folder are passed over.
    """
    found = [p for p in folder.iterdir() if _may_be_dicom(p) and not _leads_out(p) and p.is_file()]
    return [p for p in sorted(found, key=natural_key) if is_dicom(_start_of(p))]


def dicom_slices_of(folder: Path) -> list[Path]:
    """The DICOM files of a folder that is one volume; [] where it holds none, or each is a volume.

    Where several lie together, 64 spread over them are looked into: images without a position, files
    of many frames, and files that are each of another series are volumes by themselves.

    Raises:
        OSError: the folder cannot be read.
    """
    files = dicom_files(folder)
    if len(files) < 2:
        return files
    looked: list[DicomFile] = []
    for file in files[:: max(1, len(files) // _LOOKED_INTO)]:
        try:
            if (header := header_of(file)) is not None:
                looked.append(header)
        except InputError:  # to be refused by name when the folder is opened
            return files
    series = {header.frames[0].series for header in looked}
    if all(header.alone for header in looked) or 1 < len(series) == len(looked):
        return []
    return files


def shows_upright_body(path: Path) -> bool:
    """Whether a file, or the first of a folder, is DICOM of radiology: a body lies in it one way, said or not.

    Raises:
        InputError: it is damaged.
    """
    file = next(iter(dicom_files(path)), None) if path.is_dir() else path if holds_dicom(path) else None
    header = header_of(file) if file else None
    return header is not None and header.modality in _UPRIGHT


def files_of_series(path: Path) -> Path:
    """Where the files of a volume lie: beside a slice, which stands for its series, else at path itself."""
    try:
        header = header_of(path) if path.is_file() and holds_dicom(path) else None
    except InputError:  # to be refused by name when it is opened
        return path
    return path if header is None or header.alone else path.parent


def open_dicom(path: Path, *, spacing: Spacing | None = None) -> PlaneSource:
    """Open a folder of slices, a file of many frames, or an image; spacing (mm) goes before theirs.

    A slice stands for its series: its path opens all files beside it that belong to the series.
    Values are rescaled as each slice says, to integers where that keeps them exact, else float32. An
    image that says no position and is MONOCHROME1 (larger is darker) is inverted.

    Raises:
        InputError: it is damaged, holds several series or no image, or its slices are no volume.
    """
    headers = _headers_of(path)
    frames, affine, says, odd = sorted_on_grid(
        path, [frame for header in headers for frame in header.frames], spacing=spacing
    )
    first, dtype = frames[0], _type_of(path, frames)
    inverted = first.photometric == "MONOCHROME1" and first.position is None
    if inverted:
        odd += (f"{path} is MONOCHROME1 and read inverted, so that larger is brighter",)

    def plane(channel: int, z: int) -> NDArray[Any]:  # noqa: ARG001
        frame = frames[z]
        values = stored_values(frame)
        if inverted:
            low, high = stored_range(frame)
            values = (low + high - values.astype(np.int64)).astype(values.dtype)
        if dtype.kind == "f":
            return (values * np.float64(frame.slope) + np.float64(frame.intercept)).astype(np.float32)
        if (frame.slope, frame.intercept) == (1.0, 0.0):
            return values.astype(dtype, copy=False)
        return (values.astype(np.int64) * int(frame.slope) + int(frame.intercept)).astype(dtype)

    return PlaneSource(
        shape=Shape3(len(frames), first.rows, first.columns),
        channels=first.samples,
        dtype=dtype,
        affine=affine,
        plane=plane,
        warnings=odd,
        header=DicomSlices(tuple((frame.file, frame.number) for frame in frames)),
        access="random",
        says=says,
    )


def _may_be_dicom(path: Path) -> bool:
    hidden = path.name.startswith(".") or path.name.upper() == "DICOMDIR"
    return not hidden and suffix_of(path) not in _OTHERS


def _leads_out(path: Path) -> bool:
    return path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(path.parent))


def _start_of(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(132)
    except OSError:  # to be refused when it is opened
        return b""


def _headers_of(path: Path) -> list[DicomFile]:
    """The headers of the files that make the volume at path."""
    if not path.is_dir():
        header = header_of(path)
        if header is None:
            raise InputError(f"{path} is DICOM, but no image that a volume could be made of; give its slices")
        if header.alone:
            return [header]
        series = header.frames[0].series
        beside = [h for p in dicom_files(path.parent) if p.name != path.name and (h := header_of(p)) is not None]
        return [header, *(h for h in beside if not h.alone and h.frames[0].series == series)]
    for link in sorted(path.iterdir(), key=natural_key):
        if _may_be_dicom(link) and _leads_out(link):
            raise InputError(f"{link} is a link out of its folder; put the file itself there")
    headers = [h for p in dicom_files(path) if (h := header_of(p)) is not None]
    if not headers:
        raise InputError(f"{path} holds DICOM files, but no image")
    _check_one_series(path, headers)
    return headers


def _check_one_series(path: Path, headers: Sequence[DicomFile]) -> None:
    of_series: dict[str, list[DicomFile]] = {}
    for header in headers:
        of_series.setdefault(header.frames[0].series, []).append(header)
    if len(of_series) == 1:
        return
    told = [
        f"{files[0].described}, {sum(len(f.frames) for f in files)} images: {files[0].frames[0].file.name}"
        for files in of_series.values()
    ]
    raise InputError(
        f"{path} holds {len(told)} DICOM series. Give the path of a file in it instead of the folder's to choose one: "
        + some(told, _SHOWN_SERIES, between="; ")
    )


def _type_of(path: Path, frames: Sequence[Frame]) -> np.dtype[Any]:
    """The smallest integer type that holds every rescaled value, or float32 where they are no integers."""
    scales = {(frame.slope, frame.intercept) for frame in frames}
    if all(slope.is_integer() and intercept.is_integer() for slope, intercept in scales):
        ends = [int(v * s + i) for v in stored_range(frames[0]) for s, i in scales]
        for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32"):
            limits = np.iinfo(name)
            if limits.min <= min(ends) and max(ends) <= limits.max:
                return np.dtype(name)
    if max(abs(v) for scale in scales for v in scale) > 1e30:
        raise InputError(f"{path}: its rescale slope and intercept {sorted(scales)[0]} are out of bounds")
    return np.dtype(np.float32)
