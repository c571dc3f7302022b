"""A plain list of files, one case a line, as a data set.

A line is an image, or an image and its label, parted by tab, comma, semicolon or spaces (names with
spaces in double quotes); lines that begin with # are left out. Paths are relative to the list. A case
is called as its image, or as its folder where images of several are called alike (CASE/ct.nii.gz).
"""

from pathlib import Path

from vol3d.datasets.cases import Case
from vol3d.datasets.dataset import Dataset
from vol3d.datasets.manifest import MANIFEST, checked_files, rows_of
from vol3d.errors import InputError, some
from vol3d.files.names import stem_of


def read_list(path: Path) -> Dataset:
    """The cases of a list.

    Raises:
        InputError: a line has more than two files, files are missing, or cases are called alike: all are listed.
    """
    rows = rows_of(path)
    wrong = [str(line) for line, cells in rows if not 1 <= len(cells) <= 2 or not cells[0]]
    if wrong:
        raise InputError(
            f"{path}: expected an image, or an image and its label, in each line; not so in line "
            f"{some(wrong)}. A table with the columns case, image, label ({MANIFEST}) says more"
        )
    images = [path.parent / cells[0] for _, cells in rows]
    stems = [stem_of(image) for image in images]
    names = stems if len(set(stems)) == len(stems) else [image.resolve().parent.name for image in images]
    cases = tuple(
        Case(name, (image,), path.parent / cells[1] if len(cells) > 1 and cells[1] else None)
        for name, image, (_, cells) in zip(names, images, rows, strict=True)
    )
    return checked_files(Dataset(path, "a list of images and labels", cases))
