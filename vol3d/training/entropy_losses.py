"""Losses that compare voxel by voxel: cross-entropies, under sigmoid those of each region against the rest.

Means are weighted: a voxel has the weight of its true class (under sigmoid of the region, or of the
background where it is outside). Voxels to be ignored count nowhere; a mean over nothing is 0.
"""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from vol3d.training.reference import Reference


def cross_entropy(logits: Tensor, reference: Reference) -> Tensor:
    """The mean cross-entropy; under sigmoid the binary one, over regions too."""
    return _mean(_entropy(logits, reference), reference)


def focal(logits: Tensor, reference: Reference, *, gamma: float) -> Tensor:
    """Cross-entropy times (1 - p)^gamma with p the probability of the truth (Lin et al. 2017).

    Their alpha are the weights of region (alpha) and background (1 - alpha).
    """
    # without a true class (an ignored voxel) the entropy can be negative, and exp would overflow
    entropy = _entropy(logits, reference).clamp(min=0)
    return _mean(entropy * (-torch.expm1(-entropy)) ** gamma, reference)


def balanced_cross_entropy(logits: Tensor, reference: Reference, *, negative_weight: float) -> Tensor:
    """The mean over foreground voxels plus negative_weight times the mean over background voxels.

    A half without voxels counts 0.
    """
    entropy = _entropy(logits, reference)
    positive = ~reference.target[:, :1] if reference.activation == "softmax" else reference.target
    return _mean(entropy, reference, positive) + negative_weight * _mean(entropy, reference, ~positive)


def top_k_cross_entropy(logits: Tensor, reference: Reference, *, share: float) -> Tensor:
    """The mean cross-entropy of the share of known voxels where it is largest in the batch (Wu et al. 2016)."""
    entropy = _entropy(logits, reference)
    known = torch.ones_like(entropy, dtype=torch.bool)
    if reference.valid is not None:
        known = reference.valid.expand_as(entropy)
    order = torch.where(known, entropy.detach(), -torch.inf).flatten()
    hardest = order.topk(max(1, round(share * order.numel()))).indices
    # How many of them count hangs on how many are known; as a mask, so that no GPU has to be asked.
    count = (share * known.sum()).round().clamp(min=1)
    taken = (torch.arange(len(hardest), device=hardest.device) < count) & known.flatten()[hardest]
    weights = taken if reference.weights is None else taken * _weights(reference).flatten()[hardest]
    return _weighted(entropy.flatten()[hardest], weights)


def _entropy(logits: Tensor, reference: Reference) -> Tensor:
    """Cross-entropy per voxel: (B, 1, Z, Y, X) under softmax, binary (B, K, Z, Y, X) under sigmoid."""
    target = reference.target
    if reference.activation == "softmax":
        return logits.logsumexp(dim=1, keepdim=True) - (logits * target).sum(dim=1, keepdim=True)
    return softplus(logits) - logits * target


def _weights(reference: Reference) -> Tensor:
    """The weight of each voxel's true class, in the entropy's shape."""
    assert reference.weights is not None
    weights = reference.weights[:, None, None, None]
    if reference.activation == "softmax":
        return (reference.target * weights).sum(dim=1, keepdim=True)
    return torch.where(reference.target, weights[1:], weights[0])


def _mean(values: Tensor, reference: Reference, part: Tensor | None = None) -> Tensor:
    """The weighted mean over the known voxels (of a part of the volume)."""
    masks = [mask for mask in (reference.valid, part) if mask is not None]
    if not masks and reference.weights is None:
        return values.mean()
    mask = masks[0] & masks[-1] if masks else torch.ones_like(values, dtype=torch.bool)
    return _weighted(values, (mask if reference.weights is None else mask * _weights(reference)).expand_as(values))


def _weighted(values: Tensor, weights: Tensor) -> Tensor:
    total = weights.sum()
    return torch.where(weights > 0, values * weights, 0).sum() / torch.where(total > 0, total, 1)
