"""What there is to predict in a folder, a table or a list of cases."""

from collections.abc import Sequence
from pathlib import Path

from vol3d.datasets.bids import first_of_bids
from vol3d.datasets.case_folders import first_case, read_case_folders
from vol3d.datasets.layouts import detect, is_told
from vol3d.errors import UsageError
from vol3d.files.volumes import FoundVolume, Slices, find_volumes, volume_files

IMAGE_FOLDERS = ("images", "imagesTr", "imagesTs")
"""Where a data set has its images, beside their labels."""


def volumes_to_predict(path: Path, channels: Sequence[str], *, slices: Slices = "volume") -> list[FoundVolume]:
    """The volumes of a table or list of cases, of BIDS, of folders CASE/ each, of images/, or of a plain folder.

    The first three say by name which file is what channel: those of the model are taken. A folder of
    volumes has no others than them. Labels are passed over. slices are one volume, or cases of a model
    that looks at slices.

    Raises:
        UsageError, InputError: as detect's and find_volumes's.
    """
    path = Path(path)
    images = [path / name for name in IMAGE_FOLDERS if (path / name).is_dir()]
    if is_told(path) or (path.is_dir() and first_of_bids(path)):
        found = detect(path, channels=channels)
    elif len(images) > 1:
        raise UsageError(f"{path} can be read in two ways: give {' or '.join(map(str, images))}")
    elif images:
        return find_volumes(images[0], channels=channels, slices=slices)
    elif path.is_dir() and not volume_files(path) and first_case(path, labelled=False):
        found = read_case_folders(path, "", channels).of_channels(channels)
    else:
        return find_volumes(path, channels=channels, slices=slices)
    return [FoundVolume(case.name, case.images, case.spacing) for case in found.cases]
