"""What a file's name says: its format, its stem, its place in natural order."""

import hashlib
import os
import re
from pathlib import Path

MAX_NAME_BYTES = 255
NIFTI, TIFF, NPY = (".nii", ".nii.gz"), (".tif", ".tiff"), (".npy",)
DICOM = (".dcm",)  # or none: DICOM is told by content
NPZ, HDF5, PNG, ZARR = (".npz",), (".h5", ".hdf5"), (".png",), (".ome.zarr", ".zarr")
NRRD, META = (".seg.nrrd", ".nrrd"), (".mha",)
IN_ONE_FILE = {".nhdr": ".nrrd", ".mhd": ".mha", ".npz": ".npy"}  # what is only read, and what is written instead
_ENDINGS = (*NRRD, *META, *IN_ONE_FILE, *NIFTI, *TIFF, *NPY, *HDF5, *PNG, *ZARR)


def suffix_of(path: Path) -> str:
    """The ending that says the format, in lower case; "" where it is none of ours (1.5mm is a name)."""
    path = file_and_inside(path)[0]
    name = path.name.lower()
    known = next((ending for ending in _ENDINGS if name.endswith(ending)), None)
    if known is not None:
        return known
    unknown = path.suffix.lower()
    return unknown if re.fullmatch(r"\.[a-z]\w*", unknown) and not path.is_dir() else ""


def stem_of(path: Path) -> str:
    """The name without that ending."""
    path, ending = file_and_inside(path)[0], suffix_of(path)
    return path.name[: len(path.name) - len(ending)] if ending else path.name


def file_and_inside(path: Path) -> tuple[Path, str]:
    """A file, and what is named in it: scan.h5 and raw/ct of scan.h5/raw/ct; "" where the path is not such."""
    for file in path.parents:
        if file.name.lower().endswith((*HDF5, *NPZ)) and file.is_file():
            return file, path.relative_to(file).as_posix()
    return path, ""


def fitting_name(name: str, ending: str) -> str:
    """The name with an ending; where no disk would take so long a one, its SHA-256 with it."""
    if len(os.fsencode(name + ending)) > MAX_NAME_BYTES:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return name + ending


def natural_key(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Sorts 2 before 10."""
    parts = re.split(r"(\d+)", path.name)
    return tuple((1, int(part), part) if part.isdigit() else (0, 0, part) for part in parts)
