"""Losses over one-hot targets: named terms, their weighted sum, and deep supervision.

A target (B, K, Z, Y, X) has one channel per logit, as the label schema encodes it: under softmax
the classes with the background first, under sigmoid the regions one by one. valid (B, 1, Z, Y, X)
is False where a voxel is to be ignored. Everything is computed in float32, also under autocast.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from vol3d.errors import UsageError, unknown_name

Activation = Literal["softmax", "sigmoid"]


@dataclass(frozen=True)
class LossSettings:
    """Which terms with which weights, and what they depend on.

    Terms: dice, jaccard, cross_entropy (binary under sigmoid), focal, balanced_cross_entropy, and
    registered ones.
    """

    terms: dict[str, float] = field(default_factory=lambda: {"dice": 1.0, "cross_entropy": 1.0})
    batch_dice: bool = True  # Dice and Jaccard over the whole batch as one volume, or per sample
    smooth: float = 1e-5  # voxels added to numerator and denominator of Dice and Jaccard
    focal_gamma: float = 2.0  # 0 is cross-entropy
    negative_weight: float = 3.0  # of the background's mean in balanced_cross_entropy

    def __post_init__(self) -> None:
        for name in self.terms:
            if name not in _TERMS:
                raise ValueError(f"terms: {unknown_name('loss', name, _TERMS)}")
        weights = list(self.terms.values())
        if not all(isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
            raise ValueError(f"terms: weights must be 0 or more and not all 0, got {weights}")
        if not self.smooth > 0:
            raise ValueError(f"smooth must be more than 0, got {self.smooth}")
        if not (self.focal_gamma == 0 or self.focal_gamma >= 1):
            raise ValueError(f"focal_gamma must be 0, or 1 or more, got {self.focal_gamma}")
        if not self.negative_weight >= 0:
            raise ValueError(f"negative_weight must be 0 or more, got {self.negative_weight}")


Term = Callable[[Tensor, Tensor, Tensor | None, Activation, LossSettings], Tensor]
"""Logits (float32), target, valid, activation and settings to a scalar."""


def register_loss(name: str, term: Term) -> None:
    """Make a term known by name, to be weighted in loss.terms.

    term takes logits (B, K, Z, Y, X) float32, the one-hot target of that shape (bool), valid (B, 1, Z, Y, X) bool or
    None where every voxel is known, the activation (softmax or sigmoid) and the settings, and gives a scalar.

    Raises:
        ValueError: if the name is taken.
        TypeError: term is no function.
    """
    if not callable(term):
        raise TypeError(f"loss {name!r}: expected a function, got a {type(term).__name__}")
    if name in _TERMS:
        raise ValueError(f"a loss named {name!r} exists already; choose another name")
    _TERMS[name] = term


def resolutions(answer: object) -> list[Tensor]:
    """A network's answer as logits, full resolution first: it is one tensor, or a list or tuple of several.

    Raises:
        UsageError: it is neither.
    """
    answers = list(answer) if isinstance(answer, list | tuple) else [answer]
    logits = [one for one in answers if isinstance(one, Tensor)]
    if not logits or len(logits) < len(answers):
        raise UsageError(
            "expected a network that answers with logits (B, K, Z, Y, X), or a list with full resolution first; "
            f"got a {type(answer).__name__}"
        )
    return logits


def deep_supervision_loss(
    outputs: Tensor | Sequence[Tensor],
    target: Tensor,
    valid: Tensor | None = None,
    *,
    activation: Activation,
    settings: LossSettings,
) -> Tensor:
    """The loss of a network's answer: one tensor of logits, or several, full resolution first.

    Each further resolution counts half of the one before; the weights sum to one. The target is
    brought to each by its nearest voxel. (nnU-Net also computes logits at the lowest resolution
    and gives them weight 0; our U-Net leaves them out.)

    Raises:
        ValueError: if the first logits and the target differ in shape.
    """
    outputs = [outputs] if isinstance(outputs, Tensor) else outputs
    if outputs[0].shape != target.shape:
        raise ValueError(f"expected a target of the logits' shape {tuple(outputs[0].shape)}, got {tuple(target.shape)}")
    weights = [0.5**level for level in range(len(outputs))]
    total = torch.zeros((), device=target.device)
    for weight, logits in zip(weights, outputs, strict=True):
        here = _nearest(target, logits.shape[2:])
        voxels = None if valid is None else _nearest(valid, logits.shape[2:])
        loss = segmentation_loss(logits, here, voxels, activation=activation, settings=settings)
        total = total + weight / sum(weights) * loss
    return total


def segmentation_loss(
    logits: Tensor,
    target: Tensor,
    valid: Tensor | None = None,
    *,
    activation: Activation,
    settings: LossSettings,
) -> Tensor:
    """The weighted sum of the settings' terms: a float32 scalar, finite for empty targets and masks too."""
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.float()
        total = torch.zeros((), device=logits.device)
        for name, weight in settings.terms.items():
            if weight:
                total = total + weight * _TERMS[name](logits, target, valid, activation, settings)
    return total


def _nearest(volume: Tensor, shape: Sequence[int]) -> Tensor:
    """The voxel at each new voxel's centre (torch's nearest-exact, for any dtype)."""
    for axis, (size, edge) in enumerate(zip(volume.shape[2:], shape, strict=True), start=2):
        if size != edge:
            centres = (torch.arange(edge, device=volume.device) * 2 + 1) * size // (2 * edge)
            volume = volume.index_select(axis, centres)
    return volume


def _overlap(
    logits: Tensor, target: Tensor, valid: Tensor | None, activation: Activation, settings: LossSettings
) -> tuple[Tensor, Tensor]:
    """Soft intersection and sum of both volumes in voxels, per foreground channel (and sample)."""
    if activation == "softmax":
        probability, target = logits.softmax(dim=1)[:, 1:], target[:, 1:]
    else:
        probability = logits.sigmoid()
    both = probability * target
    if valid is not None:
        probability, both, target = probability * valid, both * valid, target * valid
    axes = (0, 2, 3, 4) if settings.batch_dice else (2, 3, 4)
    return both.sum(axes), probability.sum(axes) + target.sum(axes)


def _dice(
    logits: Tensor, target: Tensor, valid: Tensor | None, activation: Activation, settings: LossSettings
) -> Tensor:
    """One minus soft Dice (Milletari et al. 2016), the mean over foreground channels and samples."""
    both, total = _overlap(logits, target, valid, activation, settings)
    return 1 - ((2 * both + settings.smooth) / (total + settings.smooth)).mean()


def _jaccard(
    logits: Tensor, target: Tensor, valid: Tensor | None, activation: Activation, settings: LossSettings
) -> Tensor:
    """One minus soft Jaccard, the mean over foreground channels and samples."""
    both, total = _overlap(logits, target, valid, activation, settings)
    return 1 - ((both + settings.smooth) / (total - both + settings.smooth)).mean()


def _entropy(logits: Tensor, target: Tensor, activation: Activation) -> Tensor:
    """Cross-entropy per voxel: (B, 1, Z, Y, X) under softmax, binary (B, K, Z, Y, X) under sigmoid."""
    if activation == "softmax":
        return logits.logsumexp(dim=1, keepdim=True) - (logits * target).sum(dim=1, keepdim=True)
    return softplus(logits) - logits * target


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """The mean where the mask is; 0 where it is nowhere."""
    if mask is None:
        return values.mean()
    mask = mask.expand_as(values)
    return torch.where(mask > 0, values, 0).sum() / mask.sum().clamp(min=1)


def _cross_entropy(
    logits: Tensor, target: Tensor, valid: Tensor | None, activation: Activation, _: LossSettings
) -> Tensor:
    return _mean(_entropy(logits, target, activation), valid)


def _focal(
    logits: Tensor, target: Tensor, valid: Tensor | None, activation: Activation, settings: LossSettings
) -> Tensor:
    """Cross-entropy times (1 - p)^gamma with p the probability of the truth (Lin et al. 2017)."""
    # without a true class (an ignored voxel) the entropy can be negative, and exp would overflow
    entropy = _entropy(logits, target, activation).clamp(min=0)
    return _mean(entropy * (-torch.expm1(-entropy)) ** settings.focal_gamma, valid)


def _balanced_cross_entropy(
    logits: Tensor, target: Tensor, valid: Tensor | None, activation: Activation, settings: LossSettings
) -> Tensor:
    """The mean over foreground voxels plus negative_weight times the mean over background voxels.

    A half without voxels counts 0.
    """
    entropy = _entropy(logits, target, activation)
    positive = (target[:, :1] == 0) if activation == "softmax" else (target > 0)
    within = torch.ones_like(positive) if valid is None else valid > 0
    return _mean(entropy, positive & within) + settings.negative_weight * _mean(entropy, ~positive & within)


_TERMS: dict[str, Term] = {
    "dice": _dice,
    "jaccard": _jaccard,
    "cross_entropy": _cross_entropy,
    "focal": _focal,
    "balanced_cross_entropy": _balanced_cross_entropy,
}
