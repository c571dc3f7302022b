"""Average precision of components that a network is more or less sure of, over several images."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vol3d.metrics.instances import shared
from vol3d.metrics.masks import AnyMask, two_arrays
from vol3d.regions.components import Connectivity, label


@dataclass(frozen=True, eq=False)  # an array has no hash
class InstanceCase:
    """The predicted components of one image, and how they overlap those of the reference.

    (n,) each, by predicted component: its confidence, its largest intersection over union with a component
    of the reference, and the number of that component; 0 and 0 where it overlaps none.
    """

    confidence: NDArray[np.float64]
    iou: NDArray[np.float64]
    partner: NDArray[np.int64]
    referenced: int


def instance_case(
    prediction: AnyMask,
    reference: AnyMask,
    *,
    probability: NDArray[np.float32],
    connectivity: Connectivity = 26,
) -> InstanceCase:
    """The components of two (Z, Y, X) masks; the confidence of one is the mean probability (Z, Y, X) in it.

    connectivity is 6, 18 or 26.

    Raises:
        ValueError: the masks are not three-dimensional and bool, the probability is not of their shape, or
            connectivity is another.
    """
    one, other = two_arrays(prediction, reference)
    if probability.shape != one.shape:
        raise ValueError(f"expected a probability of the masks' shape {one.shape}, got {probability.shape}")
    predicted, referenced = (label(mask, connectivity=connectivity) for mask in (one, other))
    numbers = predicted.labels[one] - 1
    sums = np.bincount(numbers, weights=probability[one], minlength=predicted.count)
    confidence = sums / np.bincount(numbers, minlength=predicted.count)
    best, partner = np.zeros(predicted.count), np.zeros(predicted.count, dtype=np.int64)
    pairs = shared(predicted, referenced)
    for pair in np.argsort(pairs.iou, kind="stable"):  # of several the best comes last, and stays
        best[pairs.predicted[pair] - 1], partner[pairs.predicted[pair] - 1] = pairs.iou[pair], pairs.referenced[pair]
    return InstanceCase(confidence, best, partner, referenced.count)


def instance_average_precision(cases: Iterable[InstanceCase], *, iou: float) -> float | None:
    """The average precision of the components of all images together: in [0, 1], None where no image has a reference.

    In each image, by descending confidence, a predicted component is right if its largest intersection over union
    reaches iou and no other took that component of the reference before. Over all images this is a curve of
    precision by recall, which is made monotone (each precision the best at its recall or above), and its exact area:
    the rule of Open Images and of PASCAL VOC since 2010, not COCO's 101 points. At iou 0.6 it is the metric of the
    competition "HuBMAP - Hacking the Human Vasculature" (2023). Equal confidences enter the curve together.

    Raises:
        ValueError: iou is not in (0, 1].
    """
    if not 0 < iou <= 1:
        raise ValueError(f"an intersection over union to match at must be above 0 and at most 1, got {iou}")
    found = list(cases)
    referenced = sum(case.referenced for case in found)
    if not referenced:
        return None
    confidence = np.concatenate([case.confidence for case in found])
    right = np.concatenate([_right(case, iou) for case in found])
    order = np.argsort(-confidence, kind="stable")
    last = np.flatnonzero(np.append(np.diff(confidence[order]) != 0, True)) if order.size else order
    hits = np.cumsum(right[order])[last]
    precision = np.maximum.accumulate((hits / (last + 1))[::-1])[::-1]
    return float(np.diff(hits, prepend=0) @ precision / referenced)


def _right(case: InstanceCase, iou: float) -> NDArray[np.bool_]:
    """Which predicted components are the first to reach their partner."""
    order = np.lexsort((-case.iou, -case.confidence))
    order = order[case.iou[order] >= iou]
    first = np.unique(case.partner[order], return_index=True)[1]
    right: NDArray[np.bool_] = np.zeros(case.iou.size, dtype=np.bool_)
    right[order[first]] = True
    return right
