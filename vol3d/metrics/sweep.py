"""Scores of a mask over a ladder of thresholds, from one look at the probability.

A voxel's level is how many thresholds its probability reaches. Of levels and reference a histogram gives Dice
at every threshold, and the 2x2x2 cubes whose corners differ give surface Dice: a volume passes by once, slab by
slab, and nothing of it is kept but counts and its last plane.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vol3d.metrics.overlap import Overlap, ratio
from vol3d.regions.cubes import area_table, codes_of_corners, slab_depth, uneven_corners
from vol3d.shapes import Shape3, Spacing

Curve = NDArray[np.float64]
"""A score for each threshold; NaN where it is undefined."""

THRESHOLDS = tuple(step / 20 for step in range(1, 20))
"""Inclusive bounds of the probability, at which Dice is found."""

SURFACE_LEVELS = tuple(range(2, 20, 2))
SURFACE_THRESHOLDS = tuple(THRESHOLDS[level - 1] for level in SURFACE_LEVELS)
"""Every other one of them, at which surface Dice is found."""

WITHIN = 0.01
"""How far below the best a score may lie on the plateau."""

_REFERENCE = np.uint8(128)


class ThresholdSweep:
    """What the slabs of one region of one volume come to at every threshold.

    The scores are those of vol3d.metrics at each threshold: in a volume one voxel thick outlines stand for surfaces.
    """

    def __init__(self, shape: Shape3, spacing: Spacing) -> None:
        self.shape, self.spacing = shape, spacing
        self._thin = shape.index(1) if 1 in shape else None
        self._voxels = np.zeros(256, dtype=np.int64)
        self._matched = np.zeros((len(SURFACE_LEVELS), 256), dtype=np.int64)
        self._all = np.zeros_like(self._matched)
        self._last: NDArray[np.uint8] | None = None
        self._planes = 0

    def add(self, levels: NDArray[np.uint8], reference: NDArray[np.bool_]) -> None:
        """The next planes, (planes, Y, X) each, along z. Voxels that are not known are 0 and false."""
        depth = slab_depth(self.shape)
        for first in range(0, len(levels), depth):
            part = slice(first, first + depth)
            self._add(levels[part] | reference[part] * _REFERENCE)

    def _add(self, planes: NDArray[np.uint8]) -> None:
        self._planes += len(planes)
        self._voxels += np.bincount(planes.reshape(-1), minlength=256)
        empty = np.zeros_like(planes[:1])
        # A volume ends before its first plane and after its last; a picture goes on as it is beyond its only one.
        start = (planes if self._thin == 0 else empty) if self._last is None else self._last
        stop = [empty] if self._planes == self.shape.z and self._thin != 0 else []
        self._last = planes[-1:]
        joined = np.concatenate([start, planes, *stop])
        if not joined.any():
            return
        for axis in (1, 2):
            beyond = (0, 1) if self._thin == axis else (1, 1)
            widths = [beyond if a == axis else (0, 0) for a in range(3)]
            joined = np.pad(joined, widths, mode="edge" if self._thin == axis else "constant")
        self._count(uneven_corners(joined))

    def _count(self, corners: NDArray[np.uint8]) -> None:
        true = codes_of_corners(corners >= _REFERENCE).astype(np.uint16) << np.uint16(8)
        corners = corners & ~_REFERENCE
        for row, level in enumerate(SURFACE_LEVELS):
            pairs = np.bincount(true | codes_of_corners(corners >= level), minlength=1 << 16).reshape(256, 256)
            matched = pairs[1:255, 1:255]  # 0 and 255 are no surface
            self._all[row] += pairs.sum(axis=0) + pairs.sum(axis=1)
            self._matched[row, 1:255] += matched.sum(axis=0) + matched.sum(axis=1)

    def dice(self) -> Curve:
        """Dice at each of THRESHOLDS."""
        out, within = self._voxels[:128], self._voxels[128:]
        found = []
        for level in range(1, len(THRESHOLDS) + 1):
            hits, wrong = int(within[level:].sum()), int(out[level:].sum())
            found.append(Overlap(hits, wrong, int(within.sum()) - hits).dice)
        return np.array(found, dtype=np.float64)

    def surface_dice(self) -> Curve:
        """Surface Dice at tolerance 0 at each of SURFACE_THRESHOLDS."""
        table = area_table(self.spacing)
        rows = zip(self._matched, self._all, strict=True)
        return np.array(
            [ratio(float(table @ matched), float(table @ whole)) for matched, whole in rows], dtype=np.float64
        )


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean at each threshold over the curves that are defined there: NaN where none is."""
    found = np.stack(curves)
    defined = (~np.isnan(found)).sum(axis=0)
    return np.where(defined > 0, np.nansum(found, axis=0) / np.maximum(defined, 1), np.nan)


@dataclass(frozen=True)
class Plateau:
    """The best threshold with its score, and the thresholds around it whose scores lie WITHIN of that."""

    threshold: float
    score: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """From the first of these thresholds to the last."""
        return self.high - self.low


def plateau(thresholds: Sequence[float], curve: Curve) -> Plateau | None:
    """The plateau of a curve; of equal scores the middle one is the best. None where nothing is defined."""
    if np.isnan(curve).all():
        return None
    score = float(np.nanmax(curve))
    tied = np.flatnonzero(curve == score)
    best = first = last = int(tied[len(tied) // 2])
    high = curve >= score - WITHIN
    while first > 0 and high[first - 1]:
        first -= 1
    while last + 1 < len(curve) and high[last + 1]:
        last += 1
    return Plateau(thresholds[best], score, thresholds[first], thresholds[last])


def area_under(curve: Curve) -> float | None:
    """The mean score over the ladder: high where a high plateau is wide. None where nothing is defined."""
    return None if np.isnan(curve).all() else float(np.nanmean(curve))
