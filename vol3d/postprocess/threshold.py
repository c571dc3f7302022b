"""From probabilities to masks: fixed thresholds, the largest class, hysteresis, and SIIM's presence rule.

All bounds are inclusive and act in the probability's own precision: a float16 volume is compared
with the float16 nearest to the threshold. A NaN is never foreground.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vol3d.postprocess.scene import Applied, Locality, Mask, Needs, RegionScene, Step
from vol3d.regions.components import Components, Connectivity, keep, label


def decide(
    probability: Tensor, activation: Literal["sigmoid", "softmax"], threshold: float | Sequence[float] = 0.5
) -> Tensor:
    """The first masks, (R, Z, Y, X) bool, from all channels of a probability (C, Z, Y, X), where it lies.

    sigmoid: R = C, and a region holds the voxels of p >= threshold (one for all, or one per region).
    softmax: R = C - 1, and a region holds the voxels where its channel is the largest; the
    background (channel 0), then the earlier region, wins a tie, and threshold does not act.

    Raises:
        ValueError: not four axes, another activation, or thresholds that are not one per region in [0, 1].
    """
    if probability.ndim != 4:
        raise ValueError(f"expected a probability (C, Z, Y, X), got shape {tuple(probability.shape)}")
    if activation == "softmax":
        winner = _winner(probability)
        return torch.stack([winner == region for region in range(1, len(probability))])
    if activation != "sigmoid":
        raise ValueError(f"activation must be sigmoid or softmax, got {activation!r}")
    thresholds = [threshold] * len(probability) if isinstance(threshold, float | int) else list(threshold)
    if len(thresholds) != len(probability) or not all(0 <= t <= 1 for t in thresholds):
        raise ValueError(f"expected a threshold in [0, 1] for each of {len(probability)} regions, got {threshold}")
    return torch.stack([p >= t for p, t in zip(probability, thresholds, strict=True)])


def label_values(
    probability: Tensor,
    activation: Literal["sigmoid", "softmax"],
    threshold: float | Sequence[float],
    values: Sequence[int],
) -> Tensor:
    """The label values (Z, Y, X) uint8 of what decide decides; values has one per region, and inner regions win."""
    if activation == "softmax":
        return torch.tensor([0, *values], dtype=torch.uint8, device=probability.device)[_winner(probability).long()]
    masks = decide(probability, activation, threshold)
    labels = torch.zeros(masks.shape[1:], dtype=torch.uint8, device=masks.device)
    for mask, value in zip(masks, values, strict=True):
        labels.masked_fill_(mask, value)
    return labels


def _winner(probability: Tensor) -> Tensor:
    """The number of the largest channel, (Z, Y, X) uint8; the first of equal ones."""
    # A running maximum: argmax along the first axis takes longer, and gives its integers in 8 bytes a voxel.
    best = probability[0].clone()
    winner = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for number, p in enumerate(probability[1:], start=1):
        winner.masked_fill_(p > best, number)
        torch.maximum(best, p, out=best)
    return winner


@dataclass(frozen=True)
class SeedCounts:
    """One labelling that answers every (seed_threshold, min_seed_voxels) above a grow_threshold.

    components are those of p >= grow_threshold; counts is (len(seed_thresholds), count + 1): the
    voxels of p >= seed_threshold in each component, indexed by label.
    """

    components: Components
    seed_thresholds: tuple[float, ...]
    counts: NDArray[np.int64]

    def mask(self, seed_threshold: float, min_seed_voxels: int = 1) -> Mask:
        """The hysteresis mask (Z, Y, X) for one of the seed_thresholds."""
        counts = self.counts[self.seed_thresholds.index(seed_threshold)]
        return keep(self.components, counts >= min_seed_voxels)


def seed_counts(
    probability: NDArray[Any],
    *,
    grow_threshold: float,
    seed_thresholds: Sequence[float],
    connectivity: Connectivity = 26,
) -> SeedCounts:
    """Label p >= grow_threshold once and count each component's voxels at every seed threshold.

    Raises:
        ValueError: if grow_threshold is above a seed threshold.
    """
    if not seed_thresholds or not grow_threshold <= min(seed_thresholds):
        raise ValueError(f"grow_threshold {grow_threshold} must not be above a seed_threshold {list(seed_thresholds)}")
    foreground = probability >= grow_threshold
    components = label(foreground, connectivity=connectivity)
    labels, p = components.labels[foreground], probability[foreground]
    counts = [np.bincount(labels[p >= t], minlength=components.count + 1) for t in seed_thresholds]
    return SeedCounts(components, tuple(seed_thresholds), np.stack(counts))


def hysteresis(
    probability: NDArray[Any],
    *,
    seed_threshold: float,
    grow_threshold: float,
    min_seed_voxels: int = 1,
    connectivity: Connectivity = 26,
) -> Mask:
    """Keep every region of p >= grow_threshold that holds min_seed_voxels voxels of p >= seed_threshold.

    probability is (Z, Y, X) in [0, 1]; the mask has its shape. Both bounds are inclusive.
    Equal thresholds and min_seed_voxels=1 are a plain threshold. No seeds give an empty mask.
    Followed by a size filter it is the triplet of SIIM-ACR's first place, per component.

    >>> hysteresis(np.array([[[0.4, 0.8, 0.2, 0.4]]]), seed_threshold=0.7, grow_threshold=0.3).tolist()
    [[[True, True, False, False]]]

    Raises:
        ValueError: if grow_threshold > seed_threshold, or min_seed_voxels < 1.
    """
    if min_seed_voxels < 1:
        raise ValueError(f"min_seed_voxels must be 1 or more, got {min_seed_voxels}")
    found = seed_counts(
        probability, grow_threshold=grow_threshold, seed_thresholds=(seed_threshold,), connectivity=connectivity
    )
    return found.mask(seed_threshold, min_seed_voxels)


@dataclass(frozen=True, kw_only=True)
class Threshold(Step):
    """Replace the mask by p >= threshold."""

    name: ClassVar[str] = "threshold"
    locality: ClassVar[Locality] = "voxel"

    threshold: float = 0.5

    def __post_init__(self) -> None:
        self.require("threshold", 0 <= self.threshold <= 1, "in [0, 1]")

    def needs(self) -> Needs:
        """The probability."""
        return Needs(probability=True)

    def apply(self, mask: Mask, scene: RegionScene) -> Applied:  # noqa: ARG002
        """The new mask hangs on the probability alone."""
        return Applied(scene.probability >= self.threshold)


@dataclass(frozen=True, kw_only=True)
class Hysteresis(Step):
    """Replace the mask by the hysteresis of its probability."""

    name: ClassVar[str] = "hysteresis"
    locality: ClassVar[Locality] = "components"

    seed_threshold: float
    grow_threshold: float
    min_seed_voxels: int = 1
    connectivity: Connectivity = 26

    def __post_init__(self) -> None:
        self.require("seed_threshold", 0 <= self.seed_threshold <= 1, "in [0, 1]")
        self.require(
            "grow_threshold",
            0 <= self.grow_threshold <= self.seed_threshold,
            f"in [0, seed_threshold {self.seed_threshold}]",
        )
        self.require("min_seed_voxels", self.min_seed_voxels >= 1, "1 or more")

    def needs(self) -> Needs:
        """The probability."""
        return Needs(probability=True)

    def apply(self, mask: Mask, scene: RegionScene) -> Applied:  # noqa: ARG002
        """The new mask hangs on the probability alone."""
        return Applied(
            hysteresis(
                scene.probability,
                seed_threshold=self.seed_threshold,
                grow_threshold=self.grow_threshold,
                min_seed_voxels=self.min_seed_voxels,
                connectivity=self.connectivity,
            )
        )


@dataclass(frozen=True, kw_only=True)
class Presence(Step):
    """Empty the mask unless the whole volume holds min_seed_voxels voxels of p >= seed_threshold.

    After a threshold it is SIIM-ACR's triplet (top score, min area, bottom score) per volume.
    """

    name: ClassVar[str] = "presence"
    locality: ClassVar[Locality] = "whole"

    seed_threshold: float
    min_seed_voxels: int

    def __post_init__(self) -> None:
        self.require("seed_threshold", 0 <= self.seed_threshold <= 1, "in [0, 1]")
        self.require("min_seed_voxels", self.min_seed_voxels >= 1, "1 or more")

    def needs(self) -> Needs:
        """The probability."""
        return Needs(probability=True)

    def apply(self, mask: Mask, scene: RegionScene) -> Applied:
        """The mask as it is, or an empty one."""
        found = int(np.count_nonzero(scene.probability >= self.seed_threshold))
        note = f"{found} voxels at or above {self.seed_threshold}"
        return Applied(mask if found >= self.min_seed_voxels else np.zeros_like(mask), note)
