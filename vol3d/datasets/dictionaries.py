"""A list of dictionaries, as MONAI's data sets take it, as a data set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vol3d.datasets.cases import Case
from vol3d.datasets.dataset import UNNAMED, Dataset
from vol3d.datasets.given import is_path, millimetres
from vol3d.datasets.manifest import checked_files
from vol3d.errors import UsageError
from vol3d.files.names import stem_of

KEYS = ("image", "label", "organ_mask", "name", "group", "source", "spacing")


def dataset_of(items: Sequence[Mapping[str, Any]]) -> Dataset:
    """Cases from ``[{"image": path or [path per channel], "label": path}, ...]``.

    organ_mask (a path), name (else the first image's), group, source and spacing (z, y, x in mm) may be there too.

    Raises:
        UsageError: an item is no such dictionary, or items differ in their number of channels.
        InputError: files are missing, or two cases have one name: all are listed.
    """
    cases = tuple(_case(number, item) for number, item in enumerate(items))
    counts = {len(case.images) for case in cases}
    if len(counts) != 1:
        told = ", ".join(f"{case.name} has {len(case.images)}" for case in cases) or "got no item"
        raise UsageError(f"expected items with as many image files each: {told}")
    count = counts.pop()
    channels = UNNAMED if count == 1 else tuple(f"{number:04d}" for number in range(count))
    return checked_files(Dataset(Path("the list"), "dictionaries of image and label", cases, channels))


def _case(number: int, item: Mapping[str, Any]) -> Case:
    if not isinstance(item, Mapping) or "image" not in item or not item.keys() <= set(KEYS):
        got = ", ".join(map(str, item)) if isinstance(item, Mapping) else f"a {type(item).__name__}"
        raise UsageError(f"item {number}: expected a dictionary of image and some of {', '.join(KEYS[1:])}; got {got}")
    images = item["image"] if isinstance(item["image"], list | tuple) else [item["image"]]
    paths = tuple(_path(number, image) for image in images)
    if not paths:
        raise UsageError(f"item {number}: expected the path of an image, or one per channel, got an empty list")
    label, organ_mask = (_path(number, item[key]) if item.get(key) is not None else None for key in KEYS[1:3])
    name, group, source = (str(item.get(key) or "") for key in KEYS[3:6])
    try:
        name = name or stem_of(paths[0])
        return Case(name, paths, label, organ_mask, group, source, millimetres(item.get("spacing")))
    except (ValueError, UsageError) as error:
        raise UsageError(f"item {number}: {error}") from error


def _path(number: int, given: object) -> Path:
    if not is_path(given):
        raise UsageError(
            f"item {number}: expected the path of a file, got a {type(given).__name__}; vol3d.save_volume(vol3d.Volume."
            "from_monai(x), path) makes a tensor one"
        )
    return Path(given)
