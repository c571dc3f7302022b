"""Which of the components were found, by touch and one to one."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vol3d.metrics.masks import AnyMask, two_arrays
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
class Matching:
    """Components of two masks that were matched one to one: how many, and the sum of their intersections over union."""

    matched: int
    predicted: int
    referenced: int
    iou_sum: float

    @property
    def recall(self) -> float | None:
        """Matched / components of the reference; None where it has none."""
        return ratio(self.matched, self.referenced)

    @property
    def precision(self) -> float | None:
        """Matched / components of the prediction; None where it has none."""
        return ratio(self.matched, self.predicted)

    @property
    def f1(self) -> float | None:
        """2 matched / components of both (recognition quality): 0 where one mask is empty, None where both are."""
        return ratio(2 * self.matched, self.predicted + self.referenced)

    @property
    def segmentation_quality(self) -> float | None:
        """The mean intersection over union of what was matched; None where nothing was."""
        return ratio(self.iou_sum, self.matched)

    @property
    def panoptic_quality(self) -> float | None:
        """f1 times segmentation_quality (Kirillov et al. 2019): 0 where nothing was matched, None if both are empty."""
        return ratio(2 * self.iou_sum, self.predicted + self.referenced)


@dataclass(frozen=True, eq=False)  # an array has no hash
class Shared:
    """Pairs of components that share voxels: their numbers, from 1, and their intersection over union, (n,) each."""

    predicted: NDArray[np.int64]
    referenced: NDArray[np.int64]
    iou: NDArray[np.float64]


def detection(prediction: AnyMask, reference: AnyMask, *, connectivity: Connectivity = 26) -> Detection:
    """Count the components of two (Z, Y, X) masks that share at least one voxel with the other mask.

    connectivity is 6, 18 or 26.

    Raises:
        ValueError: the masks are not three-dimensional bool arrays of one shape, or connectivity is another.
    """
    one, other = (label(mask, connectivity=connectivity) for mask in two_arrays(prediction, reference))
    return detected(one, other)


def matched_components(
    prediction: AnyMask, reference: AnyMask, *, iou: float = 0.5, connectivity: Connectivity = 26
) -> Matching:
    """Match the components of two (Z, Y, X) masks one to one, where their intersection over union is at least iou.

    Above 0.5 none has a second partner. At or below, the pair of the largest intersection over union comes first, and
    what it takes is no longer free. connectivity is 6, 18 or 26.

    Raises:
        ValueError: iou is not in (0, 1], the masks are not three-dimensional bool arrays of one shape, or
            connectivity is another.
    """
    one, other = (label(mask, connectivity=connectivity) for mask in two_arrays(prediction, reference))
    return matched(one, other, iou=iou)


def detected(predicted: Components, referenced: Components) -> Detection:
    """The detection of components that were labelled already."""
    return Detection(
        referenced.count, _touched(referenced, predicted), predicted.count, _touched(predicted, referenced)
    )


def matched(predicted: Components, referenced: Components, *, iou: float) -> Matching:
    """The matched_components of components that were labelled already.

    Raises:
        ValueError: iou is not in (0, 1].
    """
    if not 0 < iou <= 1:
        raise ValueError(f"an intersection over union to match at must be above 0 and at most 1, got {iou}")
    pairs = shared(predicted, referenced)
    chosen, taken = [], (set[int](), set[int]())
    for pair in np.argsort(-pairs.iou, kind="stable"):
        one, other = int(pairs.predicted[pair]), int(pairs.referenced[pair])
        if pairs.iou[pair] < iou:
            break
        if one not in taken[0] and other not in taken[1]:
            chosen.append(float(pairs.iou[pair]))
            taken[0].add(one)
            taken[1].add(other)
    return Matching(len(chosen), predicted.count, referenced.count, sum(chosen))


def shared(predicted: Components, referenced: Components) -> Shared:
    """The pairs of components of two masks of one shape that share voxels."""
    both = (predicted.labels > 0) & (referenced.labels > 0)
    base = referenced.count + 1
    codes, voxels = np.unique(
        predicted.labels[both].astype(np.int64) * base + referenced.labels[both], return_counts=True
    )
    one, other = np.divmod(codes, base)
    union = component_sizes(predicted)[one] + component_sizes(referenced)[other] - voxels
    return Shared(one, other, voxels / union)


def _touched(components: Components, other: Components) -> int:
    found: NDArray[np.bool_] = np.zeros(components.count + 1, dtype=np.bool_)
    found[components.labels[other.labels > 0]] = True
    return int(np.count_nonzero(found[1:]))
