"""Losses: named terms, their weighted sum, and deep supervision.

Everything is computed in float32, also under autocast. The terms stand in overlap_losses, entropy_losses,
surface_losses and skeleton_losses.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite

import torch
from torch import Tensor

from vol3d.errors import UsageError, unknown_name
from vol3d.training.entropy_losses import balanced_cross_entropy, cross_entropy, focal, top_k_cross_entropy
from vol3d.training.overlap_losses import boundary_dou, dice, generalised_dice, jaccard, tversky
from vol3d.training.reference import Activation, Reference, Sums
from vol3d.training.skeleton_losses import cldice, skeleton_recall
from vol3d.training.surface_losses import boundary_distance, surface_dice, surface_recall

BACKGROUND = "background"
"""The name of what is in no region, among region_weights."""


@dataclass(frozen=True)
class TermSettings:
    """A term's weight, and from which to which share of the training it comes in: linearly, from nothing."""

    weight: float
    ramp: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if not 0 <= self.ramp[0] <= self.ramp[1] <= 1:
            raise ValueError(f"ramp must be two shares of the training in order, 0 to 1, got {list(self.ramp)}")

    def weight_at(self, progress: float) -> float:
        """The weight when this share of the training is done."""
        start, end = self.ramp
        if progress >= end:
            return self.weight
        return 0.0 if progress <= start else self.weight * (progress - start) / (end - start)


@dataclass(frozen=True)
class LossSettings:
    """Which terms with which weights, and what they depend on. A registered term may be one, too."""

    terms: dict[str, float | TermSettings] = field(default_factory=lambda: {"dice": 1.0, "cross_entropy": 1.0})
    balance: bool = False  # every term is as large as their weighted mean before its weight counts
    region_weights: dict[str, float] = field(default_factory=dict)  # of regions and background, 1 where not named
    batch_dice: bool = True  # Dice and all that sums over voxels: over the batch as one volume, or per sample
    smooth: float = 1e-5  # voxels added to numerator and denominator of these
    focal_gamma: float = 2.0  # 0 is cross-entropy
    negative_weight: float = 3.0  # of the background's mean in balanced_cross_entropy
    hardest_share: float = 0.1  # of the voxels, in top_k_cross_entropy
    miss_weight: float = 0.7  # of misses in tversky; of false positives the rest to 1
    surface_temperature: float = 0.5  # by which surface terms divide logits
    cldice_iterations: int = 3  # the radius of the thickest tube in voxels

    def __post_init__(self) -> None:
        for name in self.terms:
            if name not in _TERMS:
                raise ValueError(f"terms: {unknown_name('loss', name, _TERMS)}")
        terms = [self.term(name) for name in self.terms]
        weights = [term.weight for term in terms]
        if not all(isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
            raise ValueError(f"terms: weights must be 0 or more and not all 0, got {weights}")
        if not any(term.weight and term.ramp[1] == 0 for term in terms):
            raise ValueError("terms: one must count from the start, give it no ramp")
        for name, weight in self.region_weights.items():
            if not (isfinite(weight) and weight > 0):
                raise ValueError(f"region_weights: {name} must be more than 0, got {weight}")
        for key, fits, expected in (
            ("smooth", self.smooth > 0, "more than 0"),
            ("focal_gamma", self.focal_gamma == 0 or self.focal_gamma >= 1, "0, or 1 or more"),
            ("negative_weight", self.negative_weight >= 0, "0 or more"),
            ("hardest_share", 0 < self.hardest_share <= 1, "more than 0 and at most 1"),
            ("miss_weight", 0 <= self.miss_weight <= 1, "between 0 and 1"),
            ("surface_temperature", self.surface_temperature > 0, "more than 0"),
            ("cldice_iterations", self.cldice_iterations >= 0, "0 or more"),
        ):
            if not fits:
                raise ValueError(f"{key} must be {expected}, got {getattr(self, key)}")

    def term(self, name: str) -> TermSettings:
        """What is said of a term: a number alone is its weight."""
        said = self.terms[name]
        return said if isinstance(said, TermSettings) else TermSettings(said)

    def weights_at(self, progress: float) -> tuple[float, ...]:
        """Each term's weight when this share of the training is done."""
        return tuple(self.term(name).weight_at(progress) for name in self.terms)

    @property
    def sums(self) -> Sums:
        """How voxels are added up."""
        return Sums(self.batch_dice, self.smooth)

    @property
    def needs_skeleton(self) -> bool:
        """Whether a term looks at the reference's centre lines."""
        return any(name in _SKELETON and self.term(name).weight for name in self.terms)


Term = Callable[[Tensor, Reference, LossSettings], Tensor]
"""Logits (float32) and what they are compared with, to a scalar."""

PlainTerm = Callable[[Tensor, Tensor, Tensor | None, Activation, LossSettings], Tensor]
"""Logits (float32), target, valid, activation and settings to a scalar."""


def register_loss(name: str, term: PlainTerm) -> None:
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
    _TERMS[name] = lambda logits, reference, settings: term(
        logits, reference.target, reference.valid, reference.activation, settings
    )


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


def segmentation_loss(
    outputs: Tensor | Sequence[Tensor], reference: Reference, *, settings: LossSettings, progress: float = 1.0
) -> Tensor:
    """The weighted sum of the settings' terms: a float32 scalar, finite for empty targets and masks too.

    outputs are logits (B, K, Z, Y, X), or those of a network with deep supervision, full resolution first. Of these
    each further one counts half of the one before, and the target is brought to it by its nearest voxel; their
    shares sum to one. (nnU-Net also computes logits at the lowest resolution and gives them weight 0; our U-Net leaves
    them out.) Surfaces and centre lines are compared at full resolution alone. progress in [0, 1] is how much of
    the training is done.

    Raises:
        ValueError: if the first logits and the target differ in shape.
    """
    outputs = [outputs] if isinstance(outputs, Tensor) else outputs
    target = reference.target
    if outputs[0].shape != target.shape:
        raise ValueError(f"expected a target of the logits' shape {tuple(outputs[0].shape)}, got {tuple(target.shape)}")
    weights = zip(settings.terms, settings.weights_at(progress), strict=True)
    with torch.autocast(target.device.type, enabled=False):
        levels = [(logits.float(), reference.at(logits.shape[2:])) for logits in outputs]
        values = [
            (weight, _over_levels(_TERMS[name], levels[:1] if name in _FULL_RESOLUTION else levels, settings))
            for name, weight in weights
            if weight
        ]
    return _balanced(values) if settings.balance else _sum(values)


def _over_levels(term: Term, levels: Sequence[tuple[Tensor, Reference]], settings: LossSettings) -> Tensor:
    """The mean over the resolutions, each further one of half the weight."""
    shares = [0.5**level for level in range(len(levels))]
    values = [term(logits, reference, settings) for logits, reference in levels]
    return _sum([(share / sum(shares), value) for share, value in zip(shares, values, strict=True)])


def _sum(weighted: Sequence[tuple[float, Tensor]]) -> Tensor:
    total = torch.zeros((), device=weighted[0][1].device)
    for weight, value in weighted:
        total = total + weight * value
    return total


def _balanced(weighted: Sequence[tuple[float, Tensor]]) -> Tensor:
    """The same sum, in which every term is first scaled to the terms' weighted mean, at most a hundredfold.

    The scale is that of the batch at hand and has no gradient. So weights say what share of the
    gradient's size each term has whatever its unit, and there is no state that a resume would have to restore.
    """
    sizes = [(weight, value.detach().abs()) for weight, value in weighted]
    mean = _sum(sizes) / sum(weight for weight, _ in weighted)
    scales = [(mean / size.clamp(min=1e-30)).clamp(max=100) for _, size in sizes]
    return _sum([(weight, scale * value) for (weight, value), scale in zip(weighted, scales, strict=True)])


_TERMS: dict[str, Term] = {  # of logits x, reference r and settings s
    "dice": lambda x, r, s: dice(x, r, s.sums),
    "generalised_dice": lambda x, r, s: generalised_dice(x, r, s.sums),
    "jaccard": lambda x, r, s: jaccard(x, r, s.sums),
    "tversky": lambda x, r, s: tversky(x, r, s.sums, miss_weight=s.miss_weight),
    "cross_entropy": lambda x, r, s: cross_entropy(x, r),
    "balanced_cross_entropy": lambda x, r, s: balanced_cross_entropy(x, r, negative_weight=s.negative_weight),
    "top_k_cross_entropy": lambda x, r, s: top_k_cross_entropy(x, r, share=s.hardest_share),
    "focal": lambda x, r, s: focal(x, r, gamma=s.focal_gamma),
    "boundary_dou": lambda x, r, s: boundary_dou(x, r, s.sums),
    "boundary_distance": lambda x, r, s: boundary_distance(x, r),
    "surface_dice": lambda x, r, s: surface_dice(x, r, s.sums, temperature=s.surface_temperature),
    "surface_recall": lambda x, r, s: surface_recall(x, r, s.sums, temperature=s.surface_temperature),
    "skeleton_recall": lambda x, r, s: skeleton_recall(x, r, s.sums),
    "cldice": lambda x, r, s: cldice(x, r, s.sums, iterations=s.cldice_iterations),
}
_SKELETON = frozenset({"skeleton_recall"})
_FULL_RESOLUTION = frozenset({"boundary_distance", "surface_dice", "surface_recall", "skeleton_recall", "cldice"})
