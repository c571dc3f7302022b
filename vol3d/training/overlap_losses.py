"""Losses that compare volumes: how much of both lies in both. Logits are (B, K, Z, Y, X)."""

import torch
from torch import Tensor

from vol3d.training.neighbours import dilated
from vol3d.training.reference import Reference, Sums

THICKEST = 0.8
"""The largest alpha of Boundary DoU, above which its gradient concentrates on few voxels."""


def dice(logits: Tensor, reference: Reference, sums: Sums) -> Tensor:
    """One minus soft Dice (Milletari et al. 2016), the mean over regions (and samples)."""
    both, ours, theirs = _volumes(logits, reference, sums)
    return 1 - reference.mean(sums.ratio(2 * both, ours + theirs))


def jaccard(logits: Tensor, reference: Reference, sums: Sums) -> Tensor:
    """One minus soft Jaccard, the mean over regions (and samples)."""
    both, ours, theirs = _volumes(logits, reference, sums)
    return 1 - reference.mean(sums.ratio(both, ours + theirs - both))


def tversky(logits: Tensor, reference: Reference, sums: Sums, *, miss_weight: float) -> Tensor:
    """One minus the Tversky index TP / (TP + (1 - m) FP + m FN) with m = miss_weight (Salehi et al. 2017).

    0.5 is Dice; with more, misses cost more and false positives less.
    """
    both, ours, theirs = _volumes(logits, reference, sums)
    wrong = (1 - miss_weight) * (ours - both) + miss_weight * (theirs - both)
    return 1 - reference.mean(sums.ratio(both, both + wrong))


def generalised_dice(logits: Tensor, reference: Reference, sums: Sums) -> Tensor:
    """One minus the Dice of all classes together, each weighted by one over its squared volume (Sudre et al. 2017).

    Under softmax the background is one of the classes. A class that is absent counts as much as the
    smallest that is there.
    """
    probability = logits.softmax(dim=1) if reference.activation == "softmax" else logits.sigmoid()
    target = reference.known(reference.target)
    both, ours, theirs = sums(probability * target), sums(reference.known(probability)), sums(target)
    # Relative to the smallest class, as one over a million voxels squared drowns in smooth.
    smallest = torch.where(theirs > 0, theirs, torch.inf).amin(dim=-1, keepdim=True)
    weights = torch.where(theirs > 0, (smallest / theirs.clamp(min=1)) ** 2, 1.0).to(both.dtype)
    if reference.weights is not None:
        weights = weights * reference.weights[-both.shape[-1] :]
    return 1 - sums.ratio(2 * (weights * both).sum(-1), (weights * (ours + theirs)).sum(-1)).mean()


def boundary_dou(logits: Tensor, reference: Reference, sums: Sums) -> Tensor:
    """Difference over union, from which a share alpha of the intersection is left out (Sun et al. 2023, in 3D).

    alpha = 1 - 2 C / S for a region with C of its S voxels on its boundary, at most 0.8: the inside of a large region
    hardly counts, which leaves its boundary. A thin one has alpha = -1, which is Dice (of squared probabilities). A
    voxel is on the boundary if one of its six neighbours in the patch is known and outside.
    """
    probability, target = reference.known(reference.probability(logits)), reference.known_regions
    outside = ~reference.regions if reference.valid is None else ~reference.regions & reference.valid
    size, boundary = sums(target), sums(target & dilated(outside))
    alpha = (1 - 2 * sums.ratio(boundary, size)).clamp(max=THICKEST)
    both, squares = sums(probability * target), sums(probability.square()) + size
    return reference.mean((squares - 2 * both) / (squares - (1 + alpha) * both + sums.smooth))


def _volumes(logits: Tensor, reference: Reference, sums: Sums) -> tuple[Tensor, Tensor, Tensor]:
    """Voxels of the intersection, of the prediction and of the reference."""
    probability, target = reference.known(reference.probability(logits)), reference.known_regions
    return sums(probability * target), sums(probability), sums(target)
