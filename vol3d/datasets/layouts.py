"""How a folder is a data set: known layouts become a list of cases."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from vol3d.datasets.bids import first_of_bids, read_bids
from vol3d.datasets.case_folders import first_case, read_case_folders
from vol3d.datasets.case_list import read_list
from vol3d.datasets.cases import Case
from vol3d.datasets.dataset import Dataset, arranged
from vol3d.datasets.description import described
from vol3d.datasets.manifest import MANIFEST, is_table, read_manifest
from vol3d.errors import InputError, UsageError
from vol3d.files.channels import parted
from vol3d.files.folders import entries
from vol3d.files.names import stem_of, suffix_of
from vol3d.files.tiff_pages import tiff_slices_of
from vol3d.files.volumes import Slices, volume_paths

ORGAN_MASKS = ("organ_masks", "kidney_mask")
TABLES = (".csv", ".tsv", ".txt")
_SIDES = ("images", "labels")
_PAIRS = (_SIDES, ("imagesTr", "labelsTr"))
_KIDNEY = re.compile(r"kidney_\d+")

Reader = Callable[[Path, str, Sequence[str] | None], Dataset]
Finder = Callable[[Path], Path | None]
"""An example of a layout in a folder; None where it is not of that layout."""


def detect(dataset: Path, *, channels: Sequence[str] | None = None, slices: Slices = "volume") -> Dataset:
    """Recognise the layout of a folder, or read a table or a list of cases.

    channels are those wanted, chosen and ordered by name; None takes all. slices says what TIFF or PNG
    slices in images/ and labels/ are.

    Raises:
        UsageError: no known layout, or two at once.
        InputError: images without labels, labels without images, missing channels: all are listed.
    """
    dataset = Path(dataset)
    if not dataset.exists():
        raise UsageError(f"{dataset} does not exist; expected a data set's folder or its {MANIFEST}")
    try:
        return _detected(dataset, channels, slices)
    except OSError as error:
        raise UsageError(f"cannot read {error.filename or dataset}: {error.strerror or error}") from error


def _detected(dataset: Path, channels: Sequence[str] | None, slices: Slices) -> Dataset:
    found = _told(dataset) if is_told(dataset) else _recognised(dataset, channels, slices)
    if found.label_names is None:
        found = replace(found, label_names=described(dataset if dataset.is_dir() else dataset.parent).labels)
    return found if channels is None else found.of_channels(channels)


def is_told(dataset: Path) -> bool:
    """Whether a path is a table or a list of cases, or a folder with a cases.csv."""
    return (dataset / MANIFEST).is_file() or (dataset.is_file() and dataset.suffix.lower() in TABLES)


def _told(dataset: Path) -> Dataset:
    table = dataset / MANIFEST if dataset.is_dir() else dataset
    return read_manifest(table) if table.name == MANIFEST or is_table(table) else read_list(table)


def _recognised(dataset: Path, channels: Sequence[str] | None, slices: Slices) -> Dataset:
    if not dataset.is_dir():
        raise UsageError(f"{dataset} is no data set: expected a folder, or a table or list ({', '.join(TABLES)})")
    layouts = _layouts(slices)
    readings = {name: (first, read) for name, (find, read) in layouts.items() if (first := find(dataset)) is not None}
    if not readings:
        raise UsageError(f"{dataset} is no data set: looked for {MANIFEST}, {', '.join(layouts)}")
    if len(readings) > 1:
        ways = (f"as {name} (such as {first.relative_to(dataset)})" for name, (first, _) in readings.items())
        raise UsageError(f"{dataset} can be read in two ways: {', or '.join(ways)}; keep one, or write a {MANIFEST}")
    name, (_, read) = next(iter(readings.items()))
    return read(dataset, name, channels)


def _layouts(slices: Slices) -> dict[str, tuple[Finder, Reader]]:
    """The known layouts by their names: how each is found, and read."""
    return {
        **{f"{images}/ and {labels}/": _pairs_of(images, labels, slices) for images, labels in _PAIRS},
        "folders of TIFF slices NAME/images/ and NAME/labels/": (
            lambda dataset: next((tiff_slices_of(f / "images")[0] for f in _slice_pairs(dataset)), None),
            _read_sennet,
        ),
        "BIDS's sub-*/anat/ and derivatives/": (first_of_bids, read_bids),
        "one folder CASE/ each with images and a label": (
            lambda dataset: None if first_of_bids(dataset) else first_case(dataset),
            read_case_folders,
        ),
    }


def _pairs_of(images: str, labels: str, slices: Slices) -> tuple[Finder, Reader]:
    return (
        lambda dataset: _first(dataset, images, labels),
        lambda dataset, layout, wanted: _read_pairs(dataset, layout, wanted, images, labels, slices),
    )


def _first(dataset: Path, images: str, labels: str) -> Path | None:
    if not (dataset / images).is_dir() or not (dataset / labels).is_dir():
        return None
    return next(iter(entries(dataset / images)), dataset / images)


def _read_pairs(
    dataset: Path, layout: str, wanted: Sequence[str] | None, images: str, labels: str, slices: Slices
) -> Dataset:
    """Two folders with equal names, or labels/CASE and images/CASE_CHANNEL by name or number."""
    told = described(dataset)
    pictures, truths = (_by_name(dataset / side, told.file_ending, slices) for side in (images, labels))
    if pictures.keys() == {images} and truths.keys() == {labels}:
        layout = f"{layout}: the slices of one volume (data.slices=cases takes each as a case)"
        return Dataset(dataset, layout, (_slices_case(dataset),))
    found: dict[str, dict[str, Path]] = {}
    strangers = []
    for name, (case, channel) in _matched(pictures, truths).items():
        if case in truths:
            found.setdefault(case, {})[channel] = pictures[name]
        else:
            strangers.append(name)
    _check_pairs(dataset, strangers, truths.keys() - found.keys())
    channels, images_of = arranged(found, path=dataset, described=told.channels, wanted=wanted)
    masks = _organ_masks(dataset, slices)
    source = dataset.resolve().name
    cases = tuple(Case(n, files, truths[n], masks.get(n), source=source) for n, files in images_of.items())
    if images == "imagesTr":
        numbered = any("" not in files for files in found.values())
        layout = "nnU-Net's imagesTr/CASE_0000 and labelsTr/CASE" if numbered else f"the Decathlon's {layout}"
    return Dataset(dataset, layout, cases, channels)


def _matched(images: Iterable[str], labels: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Every image's case and channel: by equal names, or where more labels begin an image's name, by that."""
    known = set(labels)
    equal = {name: (name, "") for name in images}
    begun = {name: parted(name, known) for name in images}
    cases = {case for case, channel in begun.values() if channel}
    return begun if len(cases) > len(known & set(images)) else equal


def _read_sennet(dataset: Path, layout: str, _: Sequence[str] | None) -> Dataset:
    """kidney_1_dense/images/*.tif and labels/*.tif; parts of one kidney are one group."""
    sides = {f: [side for side in _SIDES if (f / side).is_dir()] for f in sorted(dataset.iterdir())}
    half = [f"{folder.name} has only {there[0]}" for folder, there in sides.items() if len(there) == 1]
    if half:
        raise InputError(f"{dataset}: {'; '.join(half)}; complete or remove them")
    return Dataset(dataset, layout, tuple(_slices_case(folder) for folder in _slice_pairs(dataset)))


def _by_name(folder: Path, ending: str = "", slices: Slices = "volume") -> dict[str, Path]:
    """The volumes of a folder by their names; with an ending, the files that have it."""
    found: dict[str, Path] = {}
    twice = []
    told = [p for p in entries(folder) if ending and suffix_of(p) == ending]
    for path in told or volume_paths(folder, slices=slices):
        name = stem_of(path)
        if name in found:
            twice.append(f"{found[name].name} and {path.name}")
        found[name] = path
    if twice:
        raise InputError(f"{folder}: several files for one case: {', '.join(twice)}")
    return found


def _check_pairs(dataset: Path, images: Iterable[str], labels: Iterable[str]) -> None:
    sentences = [
        f"{len(names)} {what}: {', '.join(names)}"
        for what, names in (
            ("images without a label", sorted(images)),
            ("labels without an image", sorted(labels)),
        )
        if names
    ]
    if sentences:
        raise InputError(f"{dataset}: {'; '.join(sentences)}")


def _organ_masks(dataset: Path, slices: Slices) -> dict[str, Path]:
    folder = next((dataset / name for name in ORGAN_MASKS if (dataset / name).is_dir()), None)
    return {} if folder is None else _by_name(folder, slices=slices)


def _slice_pairs(dataset: Path) -> list[Path]:
    """The subfolders that hold images/ and labels/ of slices."""
    pairs = [f for f in entries(dataset) if all((f / side).is_dir() for side in _SIDES)]
    return [f for f in pairs if all(tiff_slices_of(f / side) for side in _SIDES)]


def _slices_case(folder: Path) -> Case:
    """A folder with images/, labels/ and perhaps an organ mask, all slices, as one case."""
    images, labels = ({stem_of(p) for p in tiff_slices_of(folder / side)} for side in _SIDES)
    _check_pairs(folder, images - labels, labels - images)
    mask = next((folder / name for name in ORGAN_MASKS if (folder / name).is_dir()), None)
    name = folder.resolve().name
    kidney = _KIDNEY.match(name)
    return Case(name, (folder / "images",), folder / "labels", mask, kidney[0] if kidney else name, name)
