"""A case: which files are its channels, its label and its organ mask, and how they are opened."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vol3d.datasets.views import FiniteSource, LabelSource, PickedView, StackedSource
from vol3d.errors import InputError, UsageError
from vol3d.files.structures import MergedMasks
from vol3d.files.volumes import open_volume
from vol3d.geometry.affine import agree, spacing_of
from vol3d.geometry.box import Box
from vol3d.preprocess.orient import turned_onto
from vol3d.shapes import Spacing
from vol3d.volume.source import VolumeSource, told_grid


@dataclass(frozen=True)
class Case:
    """One volume of a data set.

    images has one file (or slice folder) per channel, or one for all. Cases of one group (a patient, an
    organ) stay together in every split. spacing (mm) overrides what the files say. labelled_box is where
    the label was drawn, as stored (z, y, x): what lies outside is unknown, not background. Where the
    label is a folder of one mask per structure, structures names them all, in the order of their values.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None = None
    organ_mask: Path | None = None
    group: str = ""
    source: str = ""
    spacing: Spacing | None = None
    labelled_box: Box | None = None
    structures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ValueError(f"a case's name becomes a file's name, got {self.name!r}")
        if not self.images:
            raise ValueError(f"case {self.name} has no image")
        if not self.group:
            object.__setattr__(self, "group", self.name)


def case_sources(case: Case) -> tuple[VolumeSource, VolumeSource | None]:
    """The image with all channels, finite, and the label as uint8 on its grid; None without a label.

    Files of one grid may store its axes in different ways: all are turned as the first channel is stored.

    Raises:
        InputError: a file is damaged, a channel or the label lies on another grid, or the labelled box beyond it;
            or there is such a box and the label would be turned.
        UsageError: a file is missing.
    """
    image = open_image(case.images, spacing=case.spacing)
    if case.label is None:
        return image, None
    box, whole = case.labelled_box, Box.whole(image.shape)
    if box is not None and not whole.contains(box):
        raise InputError(
            f"{case.label}: its labelled box from (z, y, x) {tuple(box.start)} to {tuple(box.stop)} reaches beyond "
            f"its volume of {tuple(image.shape)} voxels"
        )
    label = open_truth(case.label, structures=case.structures, spacing=case.spacing)
    if box is not None and turned_onto(label, image) is not label:
        raise InputError(
            f"{case.label}: its labelled box counts voxels as they are stored, which is in other directions than its "
            "image's; store both alike"
        )
    return image, label_on(label, name=str(case.label), image=image)


def open_image(paths: Sequence[Path], *, spacing: Spacing | None = None, picked: Sequence[int] = ()) -> VolumeSource:
    """The files of a case's channels as one volume; NaN and infinite voxels read as zero.

    picked are the channels to take, by their places from 0 on; none takes all.

    Raises:
        UsageError: a file is missing, or has no channel that is picked.
        InputError: a file is damaged, or the channels lie on different grids.
    """
    first, *others = (open_volume(path, spacing=spacing) for path in paths)
    sources = [first, *(turned_onto(other, first) for other in others)]
    grids = [_difference(path, source, paths[0], sources[0]) for path, source in zip(paths, sources, strict=True)]
    if any(grids):
        raise InputError("; ".join(filter(None, grids)))
    image = sources[0] if len(sources) == 1 else StackedSource(tuple(sources))
    if picked and not all(0 <= place < image.channels for place in picked):
        raise UsageError(
            f"{paths[0]}: expected channels from 0 to {image.channels - 1}, got {', '.join(map(str, picked))}"
        )
    image = PickedView(image, tuple(picked)) if picked else image
    return FiniteSource(image, name=str(paths[0])) if image.dtype.kind == "f" else image


def oddities(image: VolumeSource) -> tuple[str, ...]:
    """What a user should know of an opened image, one sentence each; reads a float image once.

    Raises:
        InputError: no voxel is a finite number.
    """
    if isinstance(image, FiniteSource) and (filled := image.count_filled()):
        return (*image.warnings, f"{image.name}: {filled} voxels are not finite and read as zero")
    return image.warnings


def open_label(path: Path, *, image: VolumeSource, spacing: Spacing | None = None) -> VolumeSource:
    """A label, or an organ mask, as uint8 on the grid of image.

    Raises:
        InputError: it is damaged, has several channels, or lies on another grid. Reading it raises the
            same where values are no integers in 0 to 255.
    """
    return label_on(open_volume(path, spacing=spacing), name=str(path), image=image)


def label_on(label: VolumeSource, *, name: str, image: VolumeSource) -> VolumeSource:
    """An opened label as uint8 on the grid of image; errors as open_label's, name is what they call it."""
    if label.channels != 1:
        raise InputError(f"{name}: expected one channel of label values, got {label.channels}")
    label = turned_onto(label, image)
    difference = _difference(name, label, "its image", image)
    if difference:
        raise InputError(difference)
    return LabelSource(label, name=name, place=image.affine)


def check_grid(path: Path | str, source: VolumeSource, other_path: Path | str, other: VolumeSource) -> None:
    """Refuse two volumes that are not on one grid.

    Raises:
        InputError: they are not; it says both grids.
    """
    if difference := _difference(path, source, other_path, other):
        raise InputError(difference)


def open_truth(path: Path, *, structures: Sequence[str] = (), spacing: Spacing | None = None) -> VolumeSource:
    """A case's label as it is stored: a volume, or a folder with a mask of each structure."""
    return (
        MergedMasks(path, structures=structures, spacing=spacing) if structures else open_volume(path, spacing=spacing)
    )


def _difference(path: Path | str, source: VolumeSource, other_path: Path | str, other: VolumeSource) -> str:
    """Why two volumes are not on one grid, or ""; where one says no place, spacing or shape must do."""
    same = source.shape == other.shape
    if same and source.says == other.says == "place":
        same = agree(source.affine, other.affine, source.shape)
    elif same and "nothing" not in (source.says, other.says):
        same = bool(np.allclose(spacing_of(source.affine), spacing_of(other.affine), rtol=1e-3))
    return (
        "" if same else f"{path} lies on another grid than {other_path}: {told_grid(source)} against {told_grid(other)}"
    )
