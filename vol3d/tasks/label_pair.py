"""A prediction and its truth, opened on one grid: their labels are read together, box by box."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.datasets.cases import open_truth
from vol3d.datasets.given import Given, given_volume, name_of
from vol3d.errors import InputError
from vol3d.geometry.affine import agree, spacing_of
from vol3d.geometry.box import Box
from vol3d.geometry.grid import planes_in, slabs
from vol3d.preprocess.orient import turned_onto
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.labels import MAX_LABEL
from vol3d.volume.source import VolumeSource, told_grid

NEAR_INTEGER = 0.01
WHOLE_VOXELS = 1 << 28
"""The largest box of labels that is looked at in one go."""

SLAB_VOXELS = 1 << 25
"""What is read of a larger volume in one go, or one plane."""

Labels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)  # an array has no hash
class Truth:
    """A case's truth, and what a table of cases says of it."""

    name: str
    volume: Given
    spacing: Spacing | None = None
    labelled_box: Box | None = None
    structures: tuple[str, ...] = ()
    source: str = ""


@dataclass(frozen=True, eq=False)
class LabelPair:
    """Two label volumes of one shape; what the truth says to ignore, or lies outside the drawn box, is 0 in both."""

    sources: tuple[VolumeSource, VolumeSource]
    names: tuple[str, str]
    spacing: Spacing
    ignore: int | None
    drawn: Box | None

    @property
    def shape(self) -> Shape3:
        """Voxels along z, y, x."""
        return self.sources[1].shape

    @property
    def fits(self) -> bool:
        """Whether it is looked at in one go; a picture always is, as it has no slabs."""
        return self.shape.voxels <= WHOLE_VOXELS or 1 in self.shape

    @cached_property
    def whole(self) -> tuple[Labels, Labels]:
        """All of both, kept."""
        return self.read(Box.whole(self.shape))

    def read(self, box: Box) -> tuple[Labels, Labels]:
        """The labels of prediction and truth in a box, (Z, Y, X) each.

        Raises:
            InputError: one holds no labels.
        """
        pairs = zip(self.names, self.sources, strict=True)
        predicted, true = (_labels(name, source.read(box)[0]) for name, source in pairs)
        if self.ignore is not None:
            known = true != self.ignore
            predicted, true = predicted * known, true * known
        if self.drawn is not None and not self.drawn.contains(box):
            drawn = np.zeros(true.shape, dtype=np.bool_)
            drawn[box.intersection(self.drawn).seen_from(box.start).slices] = True
            predicted, true = predicted * drawn, true * drawn
        return predicted, true

    def slabs(self) -> Iterator[tuple[Labels, Labels]]:
        """The labels slab by slab along z, or all of them at once where they fit."""
        if self.fits:
            yield self.whole
            return
        for box in slabs(self.shape, planes_in(self.shape, SLAB_VOXELS)):
            yield self.read(box)


def open_pair(prediction: Given, truth: Truth, *, spacing: Spacing | None, ignore: int | None) -> LabelPair:
    """Open both, the prediction turned as the truth is stored, which its box counts in.

    Raises:
        InputError: their grids differ, one has several channels, or a file is damaged.
        UsageError: a file is missing.
    """
    spacing = spacing or truth.spacing
    if truth.structures and isinstance(truth.volume, Path):
        true = open_truth(truth.volume, structures=truth.structures, spacing=spacing)
    else:
        true = given_volume(truth.volume, spacing=spacing)
    sources = turned_onto(given_volume(prediction, spacing=spacing), true), true
    names = name_of(prediction), name_of(truth.volume)
    for name, source in zip(names, sources, strict=True):
        if source.channels != 1:
            raise InputError(f"{name} has {source.channels} channels; expected one of integer labels")
    step = _common_spacing(names, *sources, trusted=spacing is None)
    return LabelPair(sources, names, step, ignore, truth.labelled_box)


def _common_spacing(names: tuple[str, str], predicted: VolumeSource, true: VolumeSource, *, trusted: bool) -> Spacing:
    """The spacing of two volumes on one grid: of equal shape and, where the headers are trusted, in one place.

    A format that only says a spacing (it keeps no header) is where the other volume is, and one that says
    nothing has the other's spacing, too.
    """
    grids = " and ".join(f"{name} ({told_grid(s)})" for name, s in zip(names, (predicted, true), strict=True))
    if predicted.shape != true.shape:
        raise InputError(f"{grids} lie on different grids; predict at the truth's grid, or resample one of them")
    known = {predicted.says, true.says}
    comparable = "nothing" not in known and known != {"place", "spacing"}
    if trusted and comparable and not agree(predicted.affine, true.affine, true.shape):
        raise InputError(f"{grids} lie in different places; if only the headers are wrong, give --spacing")
    return spacing_of(max((true, predicted), key=lambda s: ("nothing", "spacing", "place").index(s.says)).affine)


def _labels(name: str, values: NDArray[Any]) -> Labels:
    values = values.view(np.uint8) if values.dtype == np.bool_ else values
    whole = values if values.dtype.kind in "ui" else np.rint(values)
    with np.errstate(invalid="ignore"):
        wrong = not (whole.min() >= 0 and whole.max() <= MAX_LABEL) or bool(np.any(abs(values - whole) > NEAR_INTEGER))
    if wrong:
        raise InputError(
            f"{name} holds no labels: expected integers from 0 to {MAX_LABEL}, got {values.dtype} values from "
            f"{values.min():g} to {values.max():g}; give a mask, not an image or a probability"
        )
    return whole.astype(np.uint8)
