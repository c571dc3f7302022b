"""How a folder is a data set: known layouts become a list of cases."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vol3d.datasets.cases import Case
from vol3d.datasets.manifest import MANIFEST, read_manifest
from vol3d.errors import InputError, UsageError
from vol3d.files.atomic import read_text
from vol3d.files.names import stem_of
from vol3d.files.tiff_pages import slices_of
from vol3d.files.volumes import volume_paths

ORGAN_MASKS = ("organ_masks", "kidney_mask")
_CHANNEL = re.compile(r"(.+)_(\d{4})")
_KIDNEY = re.compile(r"kidney_\d+")


@dataclass(frozen=True)
class Dataset:
    """The cases of a data set. label_names maps a name to its value, background left out; None if unsaid."""

    cases: tuple[Case, ...]
    layout: str
    channel_names: tuple[str, ...]
    label_names: dict[str, int] | None
    note: str


def detect(dataset: Path) -> Dataset:
    """Recognise the layout of a folder, or read a table of cases.

    Raises:
        UsageError: no known layout, or two at once.
        InputError: images without labels, labels without images, missing channels: all are listed.
    """
    dataset = Path(dataset)
    if not dataset.exists():
        raise UsageError(f"{dataset} does not exist; expected a data set's folder or its {MANIFEST}")
    table = dataset / MANIFEST if dataset.is_dir() else dataset
    if table.is_file():
        cases, channels = read_manifest(table)
        return _dataset(cases, f"the table {table.name}", channels, None, dataset)
    readings = {name: read for name, (fits, read) in LAYOUTS.items() if fits(dataset)}
    if not readings:
        raise UsageError(f"{dataset} is no data set: looked for {MANIFEST}, {', '.join(LAYOUTS)}")
    if len(readings) > 1:
        raise UsageError(f"{dataset} can be read as {' or as '.join(readings)}; write a {MANIFEST}")
    name, read = next(iter(readings.items()))
    return read(dataset, name)


def _tr_reading(dataset: Path) -> str:
    """Whether names of imagesTr carry a channel number that those of labelsTr lack: "nnunet", "equal" or ""."""
    images, labels = dataset / "imagesTr", dataset / "labelsTr"
    if not (images.is_dir() and labels.is_dir()):
        return ""
    stems = {stem_of(p) for p in volume_paths(images)}
    labelled = {stem_of(p) for p in volume_paths(labels)}
    channels = {m[1] for m in map(_CHANNEL.fullmatch, stems) if m}
    return "nnunet" if len(channels & labelled) > len(stems & labelled) else "equal"


def _read_pairs(dataset: Path, layout: str, images: str = "images", labels: str = "labels") -> Dataset:
    """Two folders with equal names."""
    pictures, truths = _by_name(dataset / images), _by_name(dataset / labels)
    if pictures.keys() == {images} and truths.keys() == {labels}:  # both are the slices of one volume
        case = _slices_case(dataset)
        return _dataset((case,), layout, ("image",), None, dataset)
    _check_pairs(dataset, pictures.keys(), truths.keys())
    masks = _organ_masks(dataset)
    cases = tuple(
        Case(name, (path,), truths[name], masks.get(name), source=dataset.resolve().name)
        for name, path in pictures.items()
    )
    names, values = _described(dataset)
    return _dataset(cases, layout, names if len(names) == 1 else ("image",), values, dataset)


def _read_nnunet(dataset: Path, layout: str) -> Dataset:
    """imagesTr/CASE_0000, CASE_0001, ... are channels; labelsTr/CASE."""
    found: dict[str, dict[int, Path]] = {}
    strangers = []
    for name, path in _by_name(dataset / "imagesTr").items():
        match = _CHANNEL.fullmatch(name)
        if match is None:
            strangers.append(path.name)
        else:
            found.setdefault(match[1], {})[int(match[2])] = path
    if strangers:
        raise InputError(f"{dataset / 'imagesTr'}: names without a channel number (_0000): {', '.join(strangers)}")
    truths = _by_name(dataset / "labelsTr")
    _check_pairs(dataset, found.keys(), truths.keys())
    names, values = _described(dataset)
    count = max(len(names), *(max(channels) + 1 for channels in found.values()))
    missing = [f"{name}_{c:04d}" for name, channels in found.items() for c in range(count) if c not in channels]
    if missing:
        raise InputError(f"{dataset / 'imagesTr'}: missing channels: {', '.join(missing)}")
    masks = _organ_masks(dataset)
    cases = tuple(
        Case(n, tuple(c[i] for i in range(count)), truths[n], masks.get(n), source=dataset.resolve().name)
        for n, c in found.items()
    )
    given = names if len(names) == count else tuple(f"{c:04d}" for c in range(count))
    return _dataset(cases, layout, given if count > 1 or names else ("image",), values, dataset)


def _read_sennet(dataset: Path, layout: str) -> Dataset:
    """kidney_1_dense/images/*.tif and labels/*.tif; parts of one kidney are one group."""
    folders = _slice_pairs(dataset)
    half = [f"{f.name} has only {side}" for f in sorted(p for p in dataset.iterdir() if p.is_dir())
            for side, other in (("images", "labels"), ("labels", "images"))
            if (f / side).is_dir() and not (f / other).is_dir()]  # fmt: skip
    if half:
        raise InputError(f"{dataset}: {'; '.join(half)}; complete or remove them")
    return _dataset(tuple(_slices_case(folder) for folder in folders), layout, ("image",), None, dataset)


LAYOUTS: dict[str, tuple[Callable[[Path], bool], Callable[[Path, str], Dataset]]] = {
    "images/ and labels/ with equal names": (
        lambda d: (d / "images").is_dir() and (d / "labels").is_dir(),
        _read_pairs,
    ),
    "nnU-Net's imagesTr/CASE_0000 and labelsTr/CASE": (lambda d: _tr_reading(d) == "nnunet", _read_nnunet),
    "the Decathlon's imagesTr/ and labelsTr/ with equal names": (
        lambda d: _tr_reading(d) == "equal",
        lambda d, layout: _read_pairs(d, layout, "imagesTr", "labelsTr"),
    ),
    "folders of TIFF slices NAME/images/ and NAME/labels/": (lambda d: bool(_slice_pairs(d)), _read_sennet),
}


def _dataset(
    cases: Sequence[Case], layout: str, channels: Sequence[str], labels: dict[str, int] | None, path: Path
) -> Dataset:
    groups = len({case.group for case in cases})
    told = f" in {groups} groups" if groups < len(cases) else ""
    note = f"{path}: {len(cases)} cases{told}, {len(channels)} channel(s), read as {layout}"
    return Dataset(tuple(sorted(cases, key=lambda c: c.name)), layout, tuple(channels), labels, note)


def _by_name(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    twice = []
    for path in volume_paths(folder):
        name = stem_of(path)
        if name in found:
            twice.append(f"{found[name].name} and {path.name}")
        found[name] = path
    if twice:
        raise InputError(f"{folder}: several files for one case: {', '.join(twice)}")
    return found


def _check_pairs(dataset: Path, images: Any, labels: Any) -> None:
    sentences = [
        f"{len(names)} {what}: {', '.join(sorted(names))}"
        for what, names in (("images without a label", images - labels), ("labels without an image", labels - images))
        if names
    ]
    if sentences:
        raise InputError(f"{dataset}: {'; '.join(sentences)}")


def _organ_masks(dataset: Path) -> dict[str, Path]:
    folder = next((dataset / name for name in ORGAN_MASKS if (dataset / name).is_dir()), None)
    return {} if folder is None else _by_name(folder)


def _slice_pairs(dataset: Path) -> list[Path]:
    """The subfolders that hold images/ and labels/ of slices."""
    folders = sorted(p for p in dataset.iterdir() if p.is_dir() and not p.name.startswith("."))
    pairs = [f for f in folders if all((f / side).is_dir() for side in ("images", "labels"))]
    return [f for f in pairs if all(slices_of(f / side) for side in ("images", "labels"))]


def _slices_case(folder: Path) -> Case:
    """A folder with images/, labels/ and perhaps an organ mask, all slices, as one case."""
    images, labels = ({stem_of(p) for p in slices_of(folder / side)} for side in ("images", "labels"))
    _check_pairs(folder, images, labels)
    mask = next((folder / name for name in ORGAN_MASKS if (folder / name).is_dir()), None)
    name = folder.resolve().name
    kidney = _KIDNEY.match(name)
    return Case(name, (folder / "images",), folder / "labels", mask, kidney[0] if kidney else name, name)


def _described(dataset: Path) -> tuple[tuple[str, ...], dict[str, int] | None]:
    """Channel and label names of a dataset.json, nnU-Net's ({"liver": 1}) or the Decathlon's ({"1": "liver"})."""
    path = dataset / "dataset.json"
    if not path.is_file():
        return (), None
    try:
        data = json.loads(read_text(path))
        channels = data.get("channel_names") or data.get("modality") or {}
        names = tuple(str(channels[key]) for key in sorted(channels, key=int))
        labels = data.get("labels") or {}
        if any(isinstance(value, list) for value in labels.values()):
            return names, None  # nested regions have no single value; the config says them
        swapped = all(str(key).isdigit() for key in labels)
        pairs = [(str(v), int(k)) if swapped else (str(k), int(v)) for k, v in labels.items()]
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path} is no dataset.json ({error})") from error
    return names, {name: value for name, value in pairs if value} or None
