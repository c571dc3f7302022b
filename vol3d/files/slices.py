"""Which files of a folder are the slices of one volume."""

from pathlib import Path

from vol3d.errors import UsageError
from vol3d.files import tiff_pages
from vol3d.files.dicom import dicom_slices_of
from vol3d.files.names import PNG, natural_key


def slices_of(folder: Path) -> list[Path]:
    """The single-page TIFF files of a folder, or its PNG files, in natural order; [] where it holds neither.

    Raises:
        UsageError: it holds both, or cannot be read.
    """
    tiffs, pictures = tiff_pages.slices_of(folder), pictures_of(folder)
    if tiffs and pictures:
        raise UsageError(
            f"{folder} can be read in two ways: as {len(tiffs)} TIFF slices ({tiffs[0].name} ...) or as "
            f"{len(pictures)} PNG slices ({pictures[0].name} ...); keep one kind in a folder"
        )
    return tiffs or pictures


def scans_of(folder: Path) -> list[Path]:
    """The single-page TIFF files of a folder, or its DICOM slices, in natural order; [] where it holds neither.

    Raises:
        UsageError: it holds both, or cannot be read.
    """
    tiffs = tiff_pages.slices_of(folder)
    try:
        scans = dicom_slices_of(folder)
    except OSError as error:
        raise UsageError(f"cannot read {error.filename or folder}: {error.strerror}") from error
    if tiffs and scans:
        raise UsageError(
            f"{folder} can be read in two ways: as {len(tiffs)} TIFF slices ({tiffs[0].name} ...) or as "
            f"{len(scans)} DICOM slices ({scans[0].name} ...); keep one kind in a folder"
        )
    return tiffs or scans


def pictures_of(folder: Path) -> list[Path]:
    """The PNG files of a folder in natural order."""
    found = (p for p in folder.iterdir() if p.suffix.lower() in PNG and not p.name.startswith(".") and p.is_file())
    return sorted(found, key=natural_key)
