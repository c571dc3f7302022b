"""One folder per case, as BraTS and TotalSegmentator have it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vol3d.datasets.cases import Case
from vol3d.datasets.dataset import Dataset, arranged
from vol3d.datasets.manifest import with_structures
from vol3d.errors import InputError, UsageError
from vol3d.files.channels import SEPARATORS, TRUTHS
from vol3d.files.folders import entries
from vol3d.files.names import stem_of
from vol3d.files.volumes import volume_files, volume_paths

SEGMENTATIONS = "segmentations"
_ORGAN_MASKS = ("organ_mask", "kidney_mask")
_NO_CASES = (SEGMENTATIONS, *(f"{side}{part}" for side in ("images", "labels") for part in ("", "Tr", "Ts")))
"""What folders are called that hold many cases, or parts of one."""


@dataclass(frozen=True)
class _Folder:
    """A case's folder: its files by what they are. More than one of a kind is an error, told when all are read."""

    path: Path
    images: dict[str, list[Path]]
    labels: list[Path]
    masks: list[Path]

    @property
    def wrong(self) -> list[str]:
        kinds = [*self.images.values(), self.labels, self.masks]
        told = [f"{' and '.join(f.name for f in files)} of {self.path.name}" for files in kinds if len(files) > 1]
        return told if self.images or not self.labels else [*told, f"{self.path.name} without an image"]


def first_case(dataset: Path, *, labelled: bool = True) -> Path | None:
    """A file of the first folder that holds images, and a label unless that is not asked for; None without one."""
    fitting = (f for f in _folders(dataset) if f.images and (f.labels or not labelled))
    return next((next(iter(f.images.values()))[0] for f in fitting), None)


def read_case_folders(dataset: Path, layout: str, wanted: Sequence[str] | None) -> Dataset:
    """Folders CASE/ (or SOURCE/CASE/) with a file per channel and a label, or a folder of one mask per structure.

    CASE/CASE_t1.nii.gz and CASE/t1.nii.gz are both channel t1; a single image is no matter how called.
    """
    folders = list(_folders(dataset))
    wrong = [sentence for folder in folders for sentence in folder.wrong]
    if wrong:
        raise InputError(
            f"{dataset}: expected one file for each channel and one label in a folder, got {'; '.join(wrong)}"
        )
    cases = {f.path.name: f for f in folders if f.images}
    found = {name: {role: files[0] for role, files in f.images.items()} for name, f in cases.items()}
    if all(len(images) == 1 for images in found.values()) and len({r for images in found.values() for r in images}) > 1:
        found = {name: {"": next(iter(images.values()))} for name, images in found.items()}
    channels, images_of = arranged(found, path=dataset, wanted=wanted)
    made = tuple(
        Case(
            f.path.name,
            images_of[f.path.name],
            next(iter(f.labels), None),
            next(iter(f.masks), None),
            source=f.path.resolve().parent.name,
        )
        for f in folders
        if f.images
    )
    return with_structures(Dataset(dataset, layout, made, channels))


def _folders(dataset: Path) -> Iterator[_Folder]:
    """The folders with volumes in them, of a data set or of a folder in it that has none itself (HGG/CASE)."""
    for child in _subfolders(dataset):
        for folder in [child] if volume_files(child) else _subfolders(child):
            roles = _roles(folder)
            images = {r: files for r, files in roles.items() if r not in _ORGAN_MASKS and not _is_label(r)}
            labels = [f for role, files in roles.items() if role not in _ORGAN_MASKS and _is_label(role) for f in files]
            labels += [folder / SEGMENTATIONS] if roles and (folder / SEGMENTATIONS).is_dir() else []
            if roles:
                yield _Folder(folder, images, labels, [f for r in _ORGAN_MASKS for f in roles.get(r, ())])


def _subfolders(folder: Path) -> list[Path]:
    return [p for p in entries(folder) if p.is_dir() and p.name not in _NO_CASES]


def _roles(folder: Path) -> dict[str, list[Path]]:
    """A case's files by what they are: their names without the case's; {} where they are slices of one volume."""
    files = volume_files(folder)
    try:
        if not files or volume_paths(folder) == [folder]:
            return {}
    except UsageError:
        return {}
    stems = [stem_of(path) for path in files]
    start = folder.name
    if not all(stem.lower().startswith(start.lower()) for stem in stems):
        low, high = min(stems), max(stems)  # what these two begin with all begin with
        start = low[: next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))]
    if any(len(stem) > len(start) and stem[len(start)] not in SEPARATORS for stem in stems):
        start = start[: max(start.rfind(separator) + 1 for separator in SEPARATORS)]
    roles: dict[str, list[Path]] = {}
    for path, stem in zip(files, stems, strict=True):
        roles.setdefault((stem[len(start) :].strip(SEPARATORS) or stem).lower(), []).append(path)
    return roles


def _is_label(role: str) -> bool:
    return re.split(f"[{re.escape(SEPARATORS)}]", role)[-1] in TRUTHS
