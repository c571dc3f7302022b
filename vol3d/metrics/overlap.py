"""How two masks share their voxels.

A ratio over nothing is undefined (None), never 0, 1 or NaN.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vol3d.metrics.masks import AnyMask, two_masks


@dataclass(frozen=True)
class Overlap:
    """Voxel counts of two masks: hits lie in both, false positives and misses in one alone."""

    hits: int
    false_positives: int
    misses: int

    def __add__(self, other: "Overlap") -> "Overlap":
        """The counts of two separate parts of a volume together."""
        return Overlap(self.hits + other.hits, self.false_positives + other.false_positives, self.misses + other.misses)

    @property
    def predicted(self) -> int:
        """Voxels of the prediction."""
        return self.hits + self.false_positives

    @property
    def referenced(self) -> int:
        """Voxels of the reference."""
        return self.hits + self.misses

    @property
    def dice(self) -> float | None:
        """2 hits / (predicted + referenced): 0 where one mask is empty, None where both are."""
        return ratio(2 * self.hits, self.predicted + self.referenced)

    @property
    def iou(self) -> float | None:
        """Hits / union: 0 where one mask is empty, None where both are."""
        return ratio(self.hits, self.hits + self.false_positives + self.misses)

    @property
    def precision(self) -> float | None:
        """The part of the prediction that is right; None where it is empty."""
        return ratio(self.hits, self.predicted)

    @property
    def recall(self) -> float | None:
        """The part of the reference that was found; None where it is empty."""
        return ratio(self.hits, self.referenced)


def overlap(prediction: AnyMask, reference: AnyMask) -> Overlap:
    """Count hits, false positives and misses of two bool masks of one shape, where they lie: arrays or tensors.

    Raises:
        ValueError: the masks are not bool, of one shape and on one device.
    """
    one, other = two_masks(prediction, reference)
    hits, predicted, referenced = (_true(mask) for mask in (one & other, one, other))
    return Overlap(hits, predicted - hits, referenced - hits)


def dice(prediction: AnyMask, reference: AnyMask) -> float | None:
    """Dice of two bool masks of one shape, arrays or tensors: 2 hits / (predicted + referenced).

    0 where one mask is empty, None where both are.

    Raises:
        ValueError: the masks are not bool, of one shape and on one device.
    """
    return overlap(prediction, reference).dice


def iou(prediction: AnyMask, reference: AnyMask) -> float | None:
    """Intersection over union of two bool masks of one shape, arrays or tensors.

    0 where one mask is empty, None where both are.

    Raises:
        ValueError: the masks are not bool, of one shape and on one device.
    """
    return overlap(prediction, reference).iou


def precision(prediction: AnyMask, reference: AnyMask) -> float | None:
    """The part of the prediction that is right, of two bool masks of one shape, arrays or tensors; None if it is empty.

    Raises:
        ValueError: the masks are not bool, of one shape and on one device.
    """
    return overlap(prediction, reference).precision


def recall(prediction: AnyMask, reference: AnyMask) -> float | None:
    """The part of the reference that was found, of two bool masks of one shape, arrays or tensors; None if it is empty.

    Raises:
        ValueError: the masks are not bool, of one shape and on one device.
    """
    return overlap(prediction, reference).recall


def _true(mask: Any) -> int:
    return int(np.count_nonzero(mask) if isinstance(mask, np.ndarray) else mask.count_nonzero())


def ratio(part: float, whole: float) -> float | None:
    """The quotient; None where whole is zero."""
    return part / whole if whole else None


def rest(part: float | None) -> float | None:
    """One minus a ratio; None stays None."""
    return None if part is None else 1.0 - part
