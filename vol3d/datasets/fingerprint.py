"""What a data set is like: one pass over its cases."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.datasets.views import BoxedView
from vol3d.geometry.affine import spacing_of
from vol3d.geometry.box import Box
from vol3d.geometry.grid import slabs
from vol3d.preprocess.orient import TurnedView, ras_turn
from vol3d.preprocess.resample import resized_shape
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.labels import MAX_LABEL
from vol3d.volume.source import VolumeSource

MAX_GREY_VALUES = 10_000
UNKNOWN = MAX_LABEL + 1


@dataclass(frozen=True)
class CaseFacts:
    """One case, its axes in RAS order: label_voxels counts per value; foreground samples (channels, n).

    Both leave out the unknown_voxels: those ignored, and those outside the labelled box. minimum is
    the whole image's, which tells what it was taken with. placed says whether its axes are known, filled which
    share of the volume the box around what is not zero takes.
    """

    name: str
    shape: Shape3
    spacing: Spacing
    dtype: str
    minimum: tuple[float, ...]
    label_voxels: dict[int, int]
    foreground: NDArray[np.float32]
    unknown_voxels: int = 0
    placed: bool = True
    filled: float = 1.0


@dataclass(frozen=True)
class Fingerprint:
    """The facts of all cases."""

    cases: tuple[CaseFacts, ...]

    @property
    def median_spacing(self) -> Spacing:
        """Per axis, mm."""
        return Spacing(*(float(v) for v in np.median([c.spacing for c in self.cases], axis=0)))

    @property
    def thin(self) -> tuple[int, ...]:
        """The axes along which the median case is one voxel: its volumes are single slices."""
        return tuple(axis for axis in range(3) if np.median([c.shape[axis] for c in self.cases]) == 1)

    @property
    def label_values(self) -> tuple[int, ...]:
        """All values but 0 that occur, in order."""
        return tuple(sorted({v for c in self.cases for v in c.label_voxels if v}))

    @property
    def foreground_share(self) -> float:
        """Which share of the voxels whose label is known has one."""
        known = sum(n for c in self.cases for n in c.label_voxels.values())
        return sum(n for c in self.cases for v, n in c.label_voxels.items() if v) / max(1, known)

    def shapes_at(self, spacing: Spacing) -> NDArray[np.int64]:
        """The cases' voxels along z, y, x, (cases, 3), once resampled to a spacing in mm."""
        return np.array([resized_shape(c.shape, c.spacing, spacing) for c in self.cases])


def case_facts(
    name: str,
    image: VolumeSource,
    labels: VolumeSource,
    *,
    labelled_box: Box | None = None,
    ignore: int | None = None,
) -> CaseFacts:
    """Measure one case. image (C, Z, Y, X), labels (1, Z, Y, X) with integers 0 to 255.

    Where labels are ignore, or lie outside labelled_box (as stored), they are unknown.
    """
    known = labels if labelled_box is None else BoxedView(labels, labelled_box, UNKNOWN)
    turn = ras_turn(image)
    turned, turned_labels = TurnedView(image, turn), TurnedView(known, turn)
    counts = np.zeros(UNKNOWN + 1, dtype=np.int64)
    minimum = np.full(image.channels, np.inf)
    held = [np.zeros(n, dtype=np.bool_) for n in turned.shape]
    samples: list[NDArray[Any]] = []
    for box in slabs(turned.shape, 16):
        values, found = turned.read(box), turned_labels.read(box)[0]
        if ignore is not None:
            found = np.where(found == ignore, np.uint16(UNKNOWN), found)
        counts += np.bincount(found.ravel(), minlength=257)
        minimum = np.minimum(minimum, values.min(axis=(1, 2, 3)))
        anything = (values != 0).any(axis=0)
        for axis, along in enumerate(held):
            along[box.slices[axis]] |= anything.any(axis=tuple(a for a in range(3) if a != axis))
        samples.append(_thinned(values[:, (found > 0) & (found != UNKNOWN)], box))
    return CaseFacts(
        name,
        turned.shape,
        spacing_of(turned.affine),
        str(image.dtype),
        tuple(float(m) for m in minimum),
        {int(v): int(counts[v]) for v in np.flatnonzero(counts[:UNKNOWN])},
        np.concatenate(samples, axis=1).astype(np.float32),
        int(counts[UNKNOWN]),
        image.says == "place",
        math.prod(_length(along) / len(along) for along in held),
    )


def _length(along: NDArray[np.bool_]) -> int:
    """From the first true place to the last."""
    places = np.flatnonzero(along)
    return int(places[-1] - places[0]) + 1 if len(places) else 0


def _thinned(values: NDArray[Any], box: Box) -> NDArray[Any]:
    """At most so many of a slab's foreground values that a whole case stays small."""
    most = max(1, MAX_GREY_VALUES * box.shape.z // 256)
    return values[:, :: max(1, -(-values.shape[1] // most))]


def fingerprint(cases: Iterable[CaseFacts]) -> Fingerprint:
    """All cases together.

    Raises:
        ValueError: no case, or no label but background anywhere.
    """
    found = Fingerprint(tuple(cases))
    if not found.cases:
        raise ValueError("expected labelled cases, got none")
    if not found.label_values:
        unknown = sum(c.unknown_voxels for c in found.cases)
        told = f" where they are known ({unknown} voxels are not)" if unknown else ""
        raise ValueError(f"all labels of the {len(found.cases)} cases are empty{told}: nothing to learn")
    return found
