"""Any volume by its content, then its suffix; and what is a volume in a folder."""

import stat
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vol3d.errors import InputError, UsageError, some
from vol3d.files.arrays import create_npy, open_npy, open_npz
from vol3d.files.channels import grouped
from vol3d.files.dicom import dicom_files, holds_dicom, open_dicom
from vol3d.files.dicom_seg import create_dicom_seg
from vol3d.files.folders import entries
from vol3d.files.hdf5 import HDF5_MAGIC, create_hdf5, open_hdf5
from vol3d.files.itk import create_metaimage, create_nrrd, is_metaimage, is_nrrd, open_metaimage, open_nrrd
from vol3d.files.names import (
    DICOM,
    HDF5,
    META,
    NIFTI,
    NPY,
    NPZ,
    NRRD,
    PNG,
    TIFF,
    ZARR,
    file_and_inside,
    natural_key,
    stem_of,
    suffix_of,
)
from vol3d.files.nifti import create_nifti, open_nifti
from vol3d.files.ome_zarr import create_ome_zarr, open_ome_zarr
from vol3d.files.pictures import SIGNATURE
from vol3d.files.png import create_png, open_png, open_png_slices
from vol3d.files.slices import pictures_of, scans_of
from vol3d.files.tiff import create_slices, create_stack, open_slices, open_stack
from vol3d.files.tiff_pages import MAGIC
from vol3d.files.zarr_array import is_zarr
from vol3d.geometry.affine import Affine
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.labels import LabelSchema
from vol3d.volume.source import VolumeSink, VolumeSource

INNER = ("images",)
INNER_OF_MASKS = ("labels", "images")
"""Folders of slices that are named as the case CASE/ they lie in: the first of them that is there is its volume."""
Slices = Literal["volume", "cases"]
"""What the TIFF or PNG slices of a folder are together: one volume, or as many cases of one slice each."""


@dataclass(frozen=True)
class FoundVolume:
    """A case to predict: its name and one file (or slice folder) per channel.

    spacing (mm) is what a table of cases says of it, over what the files say. picked are the channels to
    take of what the files hold, by their places from 0 on; none takes all.
    """

    name: str
    paths: tuple[Path, ...]
    spacing: Spacing | None = None
    picked: tuple[int, ...] = ()


@dataclass(frozen=True)
class Format:
    """One format: how it is told, opened and begun.

    A file is of the first format that recognises its path and first bytes (none for a folder). open
    takes a path and a spacing; create, missing where nothing is written, also takes what the format
    cannot keep, and leaves it out. endings are those of its files, "" a folder without one.
    """

    name: str
    endings: tuple[str, ...]
    recognises: Callable[[Path, bytes], bool]
    open: Callable[..., VolumeSource]
    create: Callable[..., VolumeSink] | None = None


FORMATS = (
    Format("OME-Zarr", ZARR, lambda path, _: is_zarr(path), open_ome_zarr, create_ome_zarr),
    Format("DICOM", DICOM, lambda path, _: holds_dicom(path), open_dicom, create_dicom_seg),
    Format("folders of PNG slices", ("",), lambda path, _: path.is_dir() and bool(pictures_of(path)), open_png_slices),
    Format("PNG", PNG, lambda _, start: start.startswith(SIGNATURE), open_png, create_png),
    Format("folders of TIFF slices", ("",), lambda path, _: path.is_dir(), open_slices, create_slices),
    Format("TIFF stacks", TIFF, lambda _, start: start[:4] in MAGIC, open_stack, create_stack),
    Format("NRRD", NRRD, is_nrrd, open_nrrd, create_nrrd),
    Format("NRRD with voxels beside", (".nhdr",), is_nrrd, open_nrrd),
    Format("MetaImage", META, is_metaimage, open_metaimage, create_metaimage),
    Format("MetaImage with voxels beside", (".mhd",), is_metaimage, open_metaimage),
    Format("NumPy", NPY, lambda _, start: start.startswith(b"\x93NUMPY"), open_npy, create_npy),
    Format("NumPy archives", NPZ, lambda _, start: start.startswith(b"PK"), open_npz),
    Format("HDF5", HDF5, lambda _, start: start.startswith(HDF5_MAGIC), open_hdf5, create_hdf5),
    Format("NIfTI", NIFTI, lambda _path, _start: True, open_nifti, create_nifti),
)
_ENDINGS = {ending for f in FORMATS for ending in f.endings} - {"", *PNG}  # of files that are volumes by themselves
_START_BYTES = 256  # DICOM says its name after 128


def looked_for() -> str:
    """The formats with their endings, for people."""
    return ", ".join(f.name + (f" ({', '.join(e for e in f.endings)})" if any(f.endings) else "") for f in FORMATS)


def format_of(path: Path) -> Format:
    """The format of a file, or of a folder that is one volume, by what it holds.

    Raises:
        UsageError: it is missing or cannot be read.
        InputError: it is empty.
    """
    start, file = b"", file_and_inside(path)[0]
    try:
        if not file.is_dir():
            if not stat.S_ISREG(file.stat().st_mode):  # nobody may ever write into a pipe
                raise UsageError(f"{path} is neither a file nor a folder")
            with file.open("rb") as stream:
                start = stream.read(_START_BYTES)
            if not start:
                raise InputError(f"{path} is empty (zero bytes)")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    return next(f for f in FORMATS if f.recognises(path, start))


def open_volume(path: Path, *, spacing: Spacing | None = None) -> VolumeSource:
    """Open a file or a folder of slices; spacing (mm) overrides what it says.

    Raises:
        UsageError: it is missing or cannot be read.
        InputError: it is damaged, or of no known format.
    """
    path = Path(path)
    try:
        return format_of(path).open(path, spacing=spacing)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error


def create_volume(
    path: Path,
    *,
    shape: Shape3,
    channels: int = 1,
    dtype: Any,
    affine: Affine,
    like: VolumeSource | None = None,
    labels: LabelSchema | None = None,
) -> VolumeSink:
    """Begin a volume whose format is its suffix, none for a folder of slices; see FORMATS.

    like lends its header where it came from the same format and has this grid. labels says what the
    values of a label volume mean, for formats that keep names and colours.

    Raises:
        UsageError: no such format, or the place is not writable.
    """
    path = Path(path)
    ending = suffix_of(path)
    create = next((f.create for f in FORMATS if ending in f.endings and f.create), None)
    if create is None:
        known = ", ".join(e for f in FORMATS if f.create for e in f.endings if e)
        raise UsageError(f"cannot write {path}: expected one of {known}, or a folder's name")
    return create(path, shape=shape, channels=channels, dtype=dtype, affine=affine, like=like, labels=labels)


def find_volumes(
    folder: Path, *, channels: Sequence[str] = (), slices: Slices = "volume", inner: Sequence[str] = INNER
) -> list[FoundVolume]:
    """The volumes of a folder, in natural order: of slices one, of files or slice folders each of them.

    A single file is a batch of one. channels are those that each volume must have: files are told
    together as vol3d.files.channels.grouped says, unless pictures hold all of them (RGB). Other files lie
    beside the volumes and are ignored. inner are INNER, or INNER_OF_MASKS where masks are looked for.

    Raises:
        UsageError: nothing to find, or slices lie beside volumes, or two volumes share a name.
        InputError: channels of cases are missing, or there are others.
    """
    folder = Path(folder)
    file, _ = file_and_inside(folder)
    if not file.exists():
        raise UsageError(f"{folder} does not exist; expected a folder of volumes, of slices, or a volume")
    if file.is_file():
        return [FoundVolume(stem_of(folder), (folder,))]
    volumes = volume_paths(folder, slices=slices, inner=inner)
    if volumes == [folder]:
        return [FoundVolume(_case_name(folder, inner), (folder,))]
    stems = {path: _case_name(path, inner) for path in volumes}
    if slices == "cases" and len(channels) > 1 and open_volume(volumes[0]).channels == len(channels):
        channels = ()
    found = [FoundVolume(name, paths) for name, paths in grouped(stems, channels, folder=folder)]
    twice = sorted(name for name, count in Counter(f.name for f in found).items() if count > 1)
    if twice:
        raise UsageError(f"{folder}: several volumes are named {', '.join(twice)}; their results would overwrite")
    return found


def volume_paths(folder: Path, *, slices: Slices = "volume", inner: Sequence[str] = INNER) -> list[Path]:
    """What is a volume in a folder, in natural order: files, slice folders, or, of slices, the folder itself.

    Where slices are cases, each TIFF or PNG file is a volume.

    Raises:
        UsageError: nothing to find, or slices lie beside volumes.
    """
    there = entries(folder)
    if is_zarr(folder):
        return [folder]
    # PNG files are slices only where nothing else is a volume: beside others they are pictures of them. A folder
    # of them is a volume beside others.
    for slices_in in (scans_of, pictures_of):
        together = slices_in(folder)
        alone = {p for p in together if slices == "cases" and suffix_of(p) in (*TIFF, *PNG)}
        together = [p for p in together if p not in alone]
        formats = _ENDINGS - ({*TIFF, *DICOM} if together else set())
        images = alone if together else alone | {*dicom_files(folder)}  # with any ending
        # CASE/images holds a case's slices in SenNet's layout, CASE/labels its mask.
        held = [next((p / n for n in inner if (p / n).is_dir() and not slices_in(p)), p) for p in there]
        volumes = [
            p for p in held if ((is_zarr(p) or slices_in(p)) if p.is_dir() else suffix_of(p) in formats or p in images)
        ]
        if volumes and not together:
            volumes += [p for p in held if p.is_dir() and p not in volumes and pictures_of(p)]
        if together and volumes:
            raise UsageError(
                f"{folder} can be read in two ways: as one volume of {len(together)} slices ({together[0].name} ...), "
                f"or as {len(volumes)} volumes ({volumes[0].name} ...); keep slices in a folder of their own"
            )
        if together or volumes:
            return sorted(volumes, key=natural_key) or [folder]
    seen = some([p.name for p in there], 5)
    raise UsageError(f"no volume in {folder}: looked for {looked_for()}; found {seen}")


def volume_files(folder: Path) -> list[Path]:
    """The files of a folder whose endings are a format's, in natural order; [] where it is no folder.

    Raises:
        UsageError: the folder cannot be read.
    """
    files = entries(folder) if folder.is_dir() else []
    return [p for p in files if suffix_of(p) in _ENDINGS and p.is_file()]


def _case_name(path: Path, inner: Sequence[str]) -> str:
    folder = path.resolve()
    return folder.parent.name if folder.name in inner and path.is_dir() else stem_of(folder)
