"""Which files of a folder are the slices of one volume."""

from pathlib import Path

from vol3d.errors import UsageError
from vol3d.files.dicom import dicom_slices_of
from vol3d.files.folders import entries
from vol3d.files.names import PNG
from vol3d.files.tiff_pages import tiff_slices_of


def slices_of(folder: Path) -> list[Path]:
    """The single-page TIFF files of a folder, or its PNG files, in natural order; [] where it holds neither.

    Raises:
        UsageError: it holds both, or cannot be read.
    """
    return _of_one_kind(folder, TIFF=tiff_slices_of(folder), PNG=pictures_of(folder))


def scans_of(folder: Path) -> list[Path]:
    """The single-page TIFF files of a folder, or its DICOM slices, in natural order; [] where it holds neither.

    Raises:
        UsageError: it holds both, or cannot be read.
    """
    tiffs = tiff_slices_of(folder)
    try:
        scans = dicom_slices_of(folder)
    except OSError as error:
        raise UsageError(f"cannot read {error.filename or folder}: {error.strerror}") from error
    return _of_one_kind(folder, TIFF=tiffs, DICOM=scans)


def pictures_of(folder: Path) -> list[Path]:
    """The PNG files of a folder in natural order.

    Raises:
        UsageError: the folder cannot be read.
    """
    return [p for p in entries(folder) if p.suffix.lower() in PNG and p.is_file()]


def _of_one_kind(folder: Path, **kinds: list[Path]) -> list[Path]:
    there = {kind: files for kind, files in kinds.items() if files}
    if len(there) > 1:
        ways = " or ".join(f"as {len(files)} {kind} slices ({files[0].name} ...)" for kind, files in there.items())
        raise UsageError(f"{folder} can be read in two ways: {ways}; keep one kind in a folder")
    return next(iter(there.values()), [])
