"""What a data set is like: one pass over its cases."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.geometry.affine import spacing_of
from vol3d.geometry.box import Box
from vol3d.geometry.grid import slabs
from vol3d.preprocess.orient import TurnedView, ras_turn
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.source import VolumeSource

MAX_GREY_VALUES = 10_000


@dataclass(frozen=True)
class CaseFacts:
    """One case, its axes in RAS order: label_voxels counts per value; foreground samples (channels, n)."""

    name: str
    shape: Shape3
    spacing: Spacing
    dtype: str
    minimum: tuple[float, ...]
    label_voxels: dict[int, int]
    foreground: NDArray[np.float32]


@dataclass(frozen=True)
class Fingerprint:
    """The facts of all cases."""

    cases: tuple[CaseFacts, ...]

    @property
    def median_spacing(self) -> Spacing:
        """Per axis, mm."""
        return Spacing(*(float(v) for v in np.median([c.spacing for c in self.cases], axis=0)))

    @property
    def label_values(self) -> tuple[int, ...]:
        """All values but 0 that occur, in order."""
        return tuple(sorted({v for c in self.cases for v in c.label_voxels if v}))


def case_facts(name: str, image: VolumeSource, labels: VolumeSource) -> CaseFacts:
    """Measure one case. image (C, Z, Y, X), labels (1, Z, Y, X) with integers 0 to 255."""
    turn = ras_turn(image)
    turned, turned_labels = TurnedView(image, turn), TurnedView(labels, turn)
    counts = np.zeros(256, dtype=np.int64)
    minimum = np.full(image.channels, np.inf)
    samples: list[NDArray[Any]] = []
    for box in slabs(turned.shape, 16):
        values, found = turned.read(box), turned_labels.read(box)[0]
        counts += np.bincount(found.ravel(), minlength=256)
        minimum = np.minimum(minimum, values.min(axis=(1, 2, 3)))
        samples.append(_thinned(values[:, found > 0], box))
    return CaseFacts(
        name,
        turned.shape,
        spacing_of(turned.affine),
        str(image.dtype),
        tuple(float(m) for m in minimum),
        {int(v): int(counts[v]) for v in np.flatnonzero(counts)},
        np.concatenate(samples, axis=1).astype(np.float32),
    )


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
        raise ValueError(f"all labels of the {len(found.cases)} cases are empty: nothing to learn")
    return found
