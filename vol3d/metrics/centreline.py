"""How the centre lines of two masks agree, for what is thin: vessels, nerves, airways.

Masks are (Z, Y, X) and of one shape. Their lines are those of vol3d.regions.skeleton, one voxel thin, of 26
neighbours; a mask that is not empty has some.
"""

from dataclasses import dataclass

import numpy as np

from vol3d.metrics.masks import AnyMask, Mask, two_arrays
from vol3d.metrics.overlap import ratio
from vol3d.regions.components import Components, label
from vol3d.regions.skeleton import skeleton


@dataclass(frozen=True)
class CentrelineOverlap:
    """Voxels of the centre lines of prediction and reference, and how many of each lie in the other mask."""

    predicted: int
    predicted_inside: int
    referenced: int
    referenced_inside: int

    @property
    def topology_precision(self) -> float | None:
        """The part of the prediction's lines that lies in the reference; None where the prediction is empty."""
        return ratio(self.predicted_inside, self.predicted)

    @property
    def topology_sensitivity(self) -> float | None:
        """The part of the reference's lines that lies in the prediction; None where the reference is empty."""
        return ratio(self.referenced_inside, self.referenced)

    @property
    def cl_dice(self) -> float | None:
        """The harmonic mean of both: 0 where one mask is empty, None where both are."""
        precision, sensitivity = self.topology_precision or 0.0, self.topology_sensitivity or 0.0
        if not self.predicted and not self.referenced:
            return None
        return ratio(2 * precision * sensitivity, precision + sensitivity) or 0.0


@dataclass(frozen=True)
class Breaks:
    """How often components of the reference are split by the prediction, and merged by it."""

    splits: int
    merges: int


def cl_dice(prediction: AnyMask, reference: AnyMask) -> float | None:
    """The centreline Dice of two (Z, Y, X) masks (clDice, Shit et al. 2021); in [0, 1].

    0 where one mask is empty, None where both are.

    Raises:
        ValueError: the masks are not three-dimensional bool arrays of one shape.
    """
    return centreline_overlap(prediction, reference).cl_dice


def centreline_overlap(prediction: AnyMask, reference: AnyMask) -> CentrelineOverlap:
    """How much of each centre line of two (Z, Y, X) masks lies in the other mask.

    Raises:
        ValueError: the masks are not three-dimensional bool arrays of one shape.
    """
    one, other = two_arrays(prediction, reference)
    return overlap_of_lines(one, other, lines=(skeleton(one), skeleton(other)))


def vessel_breaks(prediction: AnyMask, reference: AnyMask) -> Breaks | None:
    """How often two (Z, Y, X) masks break each other's vessels; None where either is empty.

    A component of the reference whose centre line runs through n > 1 components of the prediction is split n - 1
    times; a component of the prediction whose centre line runs through n > 1 components of the reference
    merges n - 1 times (26 neighbours). What is missed altogether is no split, and a gap that the prediction goes around
    is none either.

    Raises:
        ValueError: the masks are not three-dimensional bool arrays of one shape.
    """
    one, other = two_arrays(prediction, reference)
    return breaks_of_lines(label(one), label(other), lines=(skeleton(one), skeleton(other)))


def overlap_of_lines(prediction: Mask, reference: Mask, *, lines: tuple[Mask, Mask]) -> CentrelineOverlap:
    """The centreline_overlap of masks whose lines (the prediction's, the reference's) are known."""
    ours, theirs = lines
    counts = (np.count_nonzero(mask) for mask in (ours, ours & reference, theirs, theirs & prediction))
    return CentrelineOverlap(*(int(count) for count in counts))


def breaks_of_lines(predicted: Components, referenced: Components, *, lines: tuple[Mask, Mask]) -> Breaks | None:
    """The vessel_breaks of components whose lines (the prediction's, the reference's) are known."""
    if not predicted.count or not referenced.count:
        return None
    return Breaks(_more_than_one(referenced, predicted, lines[1]), _more_than_one(predicted, referenced, lines[0]))


def _more_than_one(components: Components, pieces: Components, lines: Mask) -> int:
    """Over components, how many pieces beyond the first their lines run through."""
    there = lines & (pieces.labels > 0)
    pairs = np.unique(np.stack([components.labels[there], pieces.labels[there]]), axis=1)
    return int(pairs.shape[1] - np.unique(pairs[0]).size)
