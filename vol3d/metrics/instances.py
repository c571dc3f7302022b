"""How many of the components were found, and average precision over instances."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vol3d.metrics.overlap import ratio
from vol3d.regions.components import Components, Connectivity, component_sizes, label


@dataclass(frozen=True)
class Detection:
    """Components of the reference that were found, and of the prediction that found something."""

    referenced: int
    found: int
    predicted: int
    matched: int

    @property
    def recall(self) -> float | None:
        """Found components of the reference; None where it has none."""
        return ratio(self.found, self.referenced)

    @property
    def precision(self) -> float | None:
        """Matched components of the prediction; None where it has none."""
        return ratio(self.matched, self.predicted)


@dataclass(frozen=True)
class Candidate:
    """A predicted instance: how sure the model is of it, and whether it is one of the reference's."""

    confidence: float
    matched: bool


def detection(
    prediction: NDArray[np.bool_], reference: NDArray[np.bool_], *, connectivity: Connectivity = 26
) -> Detection:
    """Count the components of two (Z, Y, X) masks that share at least one voxel with the other mask."""
    predicted, referenced = (label(mask, connectivity=connectivity) for mask in (prediction, reference))
    return Detection(
        referenced.count, _touched(referenced, prediction), predicted.count, _touched(predicted, reference)
    )


def match_instances(
    prediction: Components, confidence: NDArray[np.floating], reference: Components, *, iou_threshold: float = 0.5
) -> list[Candidate]:
    """Each predicted component with its confidence and whether it matches a component of the reference.

    confidence is (count + 1,), indexed by label; the background's entry is not read. The surest
    component chooses first, among those not yet taken, the one of largest IoU; it matches where that is
    at least iou_threshold, in (0, 1].

    Raises:
        ValueError: the shapes or the number of confidences do not fit, or the threshold is out of range.
    """
    if prediction.labels.shape != reference.labels.shape:
        raise ValueError(f"expected one shape, got {prediction.labels.shape} and {reference.labels.shape}")
    if confidence.shape != (prediction.count + 1,):
        raise ValueError(f"expected {prediction.count + 1} confidences (background first), got {confidence.shape}")
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold must be in (0, 1], got {iou_threshold}")
    meeting = (prediction.labels > 0) & (reference.labels > 0)
    pairs = np.stack([prediction.labels[meeting], reference.labels[meeting]])
    (ours, theirs), shared = np.unique(pairs, axis=1, return_counts=True)
    iou = shared / (component_sizes(prediction)[ours] + component_sizes(reference)[theirs] - shared)
    taken: set[int] = set()
    candidates = []
    for number in np.argsort(-confidence[1:], kind="stable") + 1:
        own = ours == number
        free = [(float(i), int(t)) for i, t in zip(iou[own], theirs[own], strict=True) if t not in taken]
        best, partner = max(free, default=(0.0, 0))
        matched = best >= iou_threshold
        taken |= {partner} if matched else set()
        candidates.append(Candidate(float(confidence[number]), matched))
    return candidates


def average_precision(candidates: Sequence[Candidate], referenced: int) -> float | None:
    """The area under the curve of precision over recall of a whole data set's candidates.

    Precision at a recall is the best reached there or beyond (PASCAL VOC 2010, every point).
    candidates may come from many volumes; referenced is the number of instances in all references:
    None where there are none.
    """
    if referenced == 0:
        return None
    matched = np.array([c.matched for c in sorted(candidates, key=lambda c: -c.confidence)], dtype=np.bool_)
    precision = np.cumsum(matched) / np.arange(1, matched.size + 1)
    reached = np.maximum.accumulate(precision[::-1])[::-1]
    return float(reached[matched].sum() / referenced)


def _touched(components: Components, other: NDArray[np.bool_]) -> int:
    found: NDArray[np.bool_] = np.zeros(components.count + 1, dtype=np.bool_)
    found[components.labels[other]] = True
    return int(np.count_nonzero(found[1:]))
