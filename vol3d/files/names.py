"""What a file's name says: its format, its stem, its place in natural order."""

import re
from pathlib import Path

NIFTI, TIFF, NPY = (".nii", ".nii.gz"), (".tif", ".tiff"), (".npy",)
DICOM = (".dcm",)  # or none: DICOM is told by content
NPZ, HDF5, PNG, ZARR = (".npz",), (".h5", ".hdf5"), (".png",), (".ome.zarr", ".zarr")
_ENDINGS = (*NIFTI, *TIFF, *NPY, *NPZ, *HDF5, *PNG, *ZARR)


def suffix_of(path: Path) -> str:
    """The ending that says the format, in lower case; "" where it is none of ours (1.5mm is a name)."""
    name = path.name.lower()
    known = next((ending for ending in _ENDINGS if name.endswith(ending)), None)
    if known is not None:
        return known
    unknown = path.suffix.lower()
    return unknown if re.fullmatch(r"\.[a-z]\w*", unknown) and not path.is_dir() else ""


def stem_of(path: Path) -> str:
    """The name without that ending."""
    ending = suffix_of(path)
    return path.name[: len(path.name) - len(ending)] if ending else path.name


def natural_key(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Sorts 2 before 10."""
    parts = re.split(r"(\d+)", path.name)
    return tuple((1, int(part), part) if part.isdigit() else (0, 0, part) for part in parts)
