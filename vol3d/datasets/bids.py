"""The Brain Imaging Data Structure: anatomical images of subjects, and labels among the derivatives."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from vol3d.datasets.cases import Case
from vol3d.datasets.dataset import Dataset, arranged
from vol3d.errors import InputError, UsageError
from vol3d.files.names import stem_of
from vol3d.files.volumes import volume_files

DERIVATIVES = "derivatives"
_CASE = re.compile(r"(sub-[^_]+)(_ses-[^_]+)?_.*")
_LABELS = ("dseg", "mask")
"""Suffixes of labels; where there are such as the first, the second are something else, such as brains."""


def first_of_bids(dataset: Path) -> Path | None:
    """The first image of a subject; None where there is none."""
    return next((image for image in _anatomy(dataset) if _suffix(image) not in _LABELS), None)


def read_bids(dataset: Path, layout: str, wanted: Sequence[str] | None) -> Dataset:
    """sub-*/[ses-*/]anat/*_T1w.nii.gz with derivatives/*/sub-*/[ses-*/]anat/*_dseg.nii.gz, or _mask.

    Each session of a subject, or the subject, is a case; the suffix names the channel; a subject is a group.

    Raises:
        UsageError: a case has several labels.
        InputError: a channel of a case has several files, or channels differ: all are listed.
    """
    found = _by_case(image for image in _anatomy(dataset) if _suffix(image) not in _LABELS)
    derived = sorted((dataset / DERIVATIVES).glob("*/")) if (dataset / DERIVATIVES).is_dir() else []
    labels = _by_case(f for folder in (dataset, *derived) for f in _anatomy(folder) if _suffix(f) in _LABELS)
    twice = [
        f"{' and '.join(f.name for f in files)} of {case}"
        for case, images in found.items()
        for files in images.values()
        if len(files) > 1
    ]
    if twice:
        raise InputError(f"{dataset}: expected one file for each channel, got {'; '.join(twice)}; write a cases.csv")
    kind = next((suffix for suffix in _LABELS if any(suffix in files for files in labels.values())), "")
    label = {case: files[kind] for case, files in sorted(labels.items()) if kind in files}
    several = [case for case, files in label.items() if len(files) > 1]
    if several:
        one, other = (file.relative_to(dataset) for file in label[several[0]][:2])
        raise UsageError(
            f"{dataset} can be read in two ways: with labels such as {one}, or {other}; so for "
            f"{', '.join(several)}. Keep one of them, or write a cases.csv"
        )
    strangers = sorted(label.keys() - found.keys())
    if strangers:
        raise InputError(f"{dataset}: {len(strangers)} labels without an image: {', '.join(strangers)}")
    images = {case: {suffix: files[0] for suffix, files in suffixes.items()} for case, suffixes in found.items()}
    channels, images_of = arranged(images, path=dataset, wanted=wanted)
    source = dataset.resolve().name
    cases = tuple(
        Case(name, files, label[name][0] if name in label else None, group=name.split("_")[0], source=source)
        for name, files in images_of.items()
    )
    return Dataset(dataset, layout, cases, channels)


def _anatomy(folder: Path) -> list[Path]:
    """The anatomical images below a folder of subjects."""
    anatomical = [f for pattern in ("sub-*/anat", "sub-*/ses-*/anat") for f in sorted(folder.glob(pattern))]
    return [path for anat in anatomical for path in volume_files(anat) if _CASE.fullmatch(stem_of(path))]


def _by_case(files: Iterable[Path]) -> dict[str, dict[str, list[Path]]]:
    """Files by case (sub-01, or sub-01_ses-2) and suffix."""
    found: dict[str, dict[str, list[Path]]] = {}
    for path in files:
        match = _CASE.fullmatch(stem_of(path))
        assert match is not None  # _anatomy gives no other
        found.setdefault(match[1] + (match[2] or ""), {}).setdefault(_suffix(path), []).append(path)
    return found


def _suffix(path: Path) -> str:
    return stem_of(path).rpartition("_")[2]
