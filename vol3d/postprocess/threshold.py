"""From probabilities to masks: fixed thresholds, shares, the largest class, hysteresis, and SIIM's presence rule.

All bounds are inclusive and act in the probability's own precision: a float16 volume is compared
with the float16 nearest to the threshold. A NaN is never foreground.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from vol3d.postprocess.blocks import BlockStep, LocalStep, Part, Region
from vol3d.postprocess.quantile import streamed_ranks
from vol3d.postprocess.scene import Applied, Locality, Mask, Needs, RegionScene
from vol3d.regions.blocks import SEEDS
from vol3d.regions.components import Connectivity
from vol3d.regions.library import chosen, library


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


def decide_stored(
    probability: Tensor, activation: Literal["sigmoid", "softmax"], threshold: float | Sequence[float]
) -> Tensor:
    """decide, of a probability as it is stored, (R, Z, Y, X): the background's is what the others leave."""
    if activation == "softmax":
        given = probability.float()
        probability = torch.cat([1 - given.sum(dim=0, keepdim=True), given])
    return decide(probability, activation, threshold)


def label_values(
    probability: Tensor,
    activation: Literal["sigmoid", "softmax"],
    threshold: float | Sequence[float],
    values: Sequence[int],
) -> Tensor:
    """The label values (Z, Y, X) uint8 of what decide decides; values has one per region, and inner regions win."""
    if activation == "softmax":
        return torch.tensor([0, *values], dtype=torch.uint8, device=probability.device)[_winner(probability).long()]
    return decoded(decide(probability, activation, threshold), values)


def decoded(masks: Tensor, values: Sequence[int]) -> Tensor:
    """Label values (Z, Y, X) uint8 from one mask per region, (R, Z, Y, X), where they lie: inner regions win."""
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


@dataclass(frozen=True, kw_only=True)
class Threshold(LocalStep):
    """Replace the mask by p >= threshold."""

    name: ClassVar[str] = "threshold"
    locality: ClassVar[Locality] = "voxel"
    tensors: ClassVar[bool] = True

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
class TopShare(BlockStep):
    """Replace the mask by the most probable voxels: share of all of the volume's, or of the organ's, rounded up.

    That is p >= the n-th largest p, so all voxels that tie with it are in. A voxel of p = 0 never is: where
    fewer than n are above 0, these are all. Source: SenNet 2023, second place, the top 0.2 %.
    """

    name: ClassVar[str] = "top_share"
    locality: ClassVar[Locality] = "whole"
    tensors: ClassVar[bool] = True

    share: float
    within: Literal["volume", "organ"] = "volume"

    def __post_init__(self) -> None:
        self.require("share", 0 < self.share <= 1, "more than 0 and at most 1")

    def needs(self) -> Needs:
        """The probability, and the organ mask where it counts in that alone."""
        return Needs(probability=True, organ=self.within == "organ")

    def run(self, region: Region) -> str:
        """The new mask hangs on the probability, and the organ, alone."""

        def possible(part: Part) -> Mask:
            p = part.scene.probability
            return (p > 0) & part.scene.organ if self.within == "organ" else p > 0

        def values() -> Iterator[Any]:
            for part in region.parts():
                yield from chosen(part.scene.probability, possible(part))

        total = region.store.shape.voxels
        if self.within == "organ":
            total = sum(int(part.scene.organ.sum()) for part in region.parts())
        wanted = math.ceil(self.share * total - 1e-6)
        dtype = region.scene.probability_dtype
        (bound,) = streamed_ranks(values, dtype, lambda count: (max(0, count - wanted),))
        region.rewrite(lambda part: possible(part) & (part.scene.probability >= bound))
        return "no voxel above 0" if math.isnan(bound) else f"probability at or above {bound:g}"


@dataclass(frozen=True, kw_only=True)
class Hysteresis(BlockStep):
    """Replace the mask by every component of p >= grow_threshold with min_seed_voxels voxels of p >= seed_threshold.

    Both bounds are inclusive. Equal thresholds and min_seed_voxels=1 are a plain threshold. No seeds give
    an empty mask. Followed by a size filter it is the triplet of SIIM-ACR's first place, per component.
    """

    name: ClassVar[str] = "hysteresis"
    locality: ClassVar[Locality] = "components"
    tensors: ClassVar[bool] = True

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

    def run(self, region: Region) -> str:
        """The new mask hangs on the probability alone."""
        found = region.components(
            (SEEDS,),
            connectivity=self.connectivity,
            of=lambda part: part.scene.probability >= self.grow_threshold,
            seeds=lambda part: part.scene.probability >= self.seed_threshold,
        )
        (seeds,) = found.measured
        region.keep(found, seeds >= self.min_seed_voxels)
        return ""


@dataclass(frozen=True, kw_only=True)
class Presence(BlockStep):
    """Empty the mask unless the whole volume holds min_seed_voxels voxels of p >= seed_threshold.

    After a threshold it is SIIM-ACR's triplet (top score, min area, bottom score) per volume.
    """

    name: ClassVar[str] = "presence"
    locality: ClassVar[Locality] = "whole"
    tensors: ClassVar[bool] = True

    seed_threshold: float
    min_seed_voxels: int

    def __post_init__(self) -> None:
        self.require("seed_threshold", 0 <= self.seed_threshold <= 1, "in [0, 1]")
        self.require("min_seed_voxels", self.min_seed_voxels >= 1, "1 or more")

    def needs(self) -> Needs:
        """The probability."""
        return Needs(probability=True)

    def run(self, region: Region) -> str:
        """Leave the mask as it is, or empty it."""
        seeds = (part.scene.probability >= self.seed_threshold for part in region.parts())
        found = sum(int(library(mask).count_nonzero(mask)) for mask in seeds)
        enough = found >= self.min_seed_voxels
        region.rewrite(lambda part: part.mask & enough)
        return f"{found} voxels at or above {self.seed_threshold}"
