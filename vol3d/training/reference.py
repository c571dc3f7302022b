"""What logits are compared with, and how voxels become a score per region, and these one number."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from vol3d.shapes import Spacing

Activation = Literal["softmax", "sigmoid"]
UNIT = Spacing(1.0, 1.0, 1.0)


@dataclass(frozen=True, eq=False)
class Reference:
    """What is known of a batch of patches.

    target (B, K, Z, Y, X) bool has one channel per logit, as the label schema encodes it: under softmax
    the classes with the background first, under sigmoid the regions one by one. valid (B, 1, Z, Y, X) bool
    is False where a voxel is to be ignored; None where all are known. skeleton (B, 1, Z, Y, X) bool holds
    the centre lines of all regions. weights (1 + regions,) are those of the background and of each region;
    None: all 1. spacing is the distance of the patch's voxels in mm.
    """

    target: Tensor
    activation: Activation
    valid: Tensor | None = None
    skeleton: Tensor | None = None
    weights: Tensor | None = None
    spacing: Spacing = UNIT

    @property
    def regions(self) -> Tensor:
        """The target without the background, (B, R, Z, Y, X) bool."""
        return self.target[:, 1:] if self.activation == "softmax" else self.target

    @property
    def known_regions(self) -> Tensor:
        """The regions' known voxels."""
        return self.regions if self.valid is None else self.regions & self.valid

    def probability(self, logits: Tensor) -> Tensor:
        """What logits say of the regions, (B, R, Z, Y, X) in [0, 1]."""
        return logits.softmax(dim=1)[:, 1:] if self.activation == "softmax" else logits.sigmoid()

    def known(self, values: Tensor) -> Tensor:
        """The values, and 0 where a voxel is to be ignored."""
        return values if self.valid is None else values * self.valid

    def mean(self, scores: Tensor) -> Tensor:
        """The mean of scores (R,) or (B, R), each region with its weight."""
        if self.weights is None:
            return scores.mean()
        weights = self.weights[1:].to(scores.dtype).expand_as(scores)
        return (scores * weights).sum() / weights.sum()

    def at(self, shape: Sequence[int]) -> "Reference":
        """The same, seen in fewer voxels (z, y, x): at each one's centre. Centre lines are thinner than that."""
        old = self.target.shape[2:]
        if tuple(shape) == tuple(old):
            return self
        spacing = Spacing(*(step * n / m for step, n, m in zip(self.spacing, old, shape, strict=True)))
        valid = None if self.valid is None else nearest(self.valid, shape)
        return replace(self, target=nearest(self.target, shape), valid=valid, skeleton=None, spacing=spacing)


@dataclass(frozen=True)
class Sums:
    """Sums over the voxels of (B, R, Z, Y, X): of the batch as one volume (R,), or of every sample (B, R).

    smooth is added above and below in ratios of such sums: nothing found of nothing is 1.
    """

    over_batch: bool = True
    smooth: float = 1e-5

    def __call__(self, volume: Tensor) -> Tensor:
        """The sums of a volume."""
        return volume.sum((0, 2, 3, 4) if self.over_batch else (2, 3, 4))

    def ratio(self, part: Tensor, whole: Tensor) -> Tensor:
        """One sum by another."""
        return (part + self.smooth) / (whole + self.smooth)


def nearest(volume: Tensor, shape: Sequence[int]) -> Tensor:
    """The voxel at each new voxel's centre (torch's nearest-exact, for any dtype)."""
    for axis, (size, edge) in enumerate(zip(volume.shape[2:], shape, strict=True), start=2):
        if size != edge:
            centres = (torch.arange(edge, device=volume.device) * 2 + 1) * size // (2 * edge)
            volume = volume.index_select(axis, centres)
    return volume
