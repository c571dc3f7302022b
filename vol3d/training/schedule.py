"""How the training runs: its settings, optimisers, and the learning rate over its course."""

import math
from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class TrainingSettings:
    """Length, optimiser and housekeeping of a training.

    An epoch is steps_per_epoch steps; auto epochs are for the plan to fill. With max_minutes the learning rate
    reaches its end when the time is up, if the epochs do not end before. learning_rate is the peak. weight_decay
    acts on weights, not on norms and biases. warm_up is a share of the whole. clip_norm bounds the gradient's
    norm. ema is the decay of the averaged weights, which are the ones that are validated and kept.
    Validation runs every validate_every epochs as long as it takes no more than validation_share of
    the time, and at the end. batches_ahead threads prepare batches while the network works.
    """

    epochs: int | Literal["auto"] = "auto"
    steps_per_epoch: int = 100
    max_minutes: float | None = None
    optimiser: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    schedule: Literal["cosine", "poly"] = "cosine"
    warm_up: float = 0.02
    clip_norm: float = 12.0
    ema: float = 0.999
    precision: Precision | Literal["auto"] = "auto"
    validate_every: int = 5
    validation_share: float = 0.1
    select_by: Literal["dice", "surface_dice"] = "dice"
    keep_best: int = 3
    batches_ahead: int = 1
    random_seed: int = 12345

    def __post_init__(self) -> None:
        for name in ("epochs", "steps_per_epoch", "validate_every", "keep_best"):
            if getattr(self, name) != "auto" and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.max_minutes is not None and self.max_minutes <= 0:
            raise ValueError(f"max_minutes must be positive, got {self.max_minutes}")
        for name in ("weight_decay", "validation_share", "batches_ahead", "random_seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.ema < 1 or not 0 <= self.warm_up < 1:
            raise ValueError(f"ema and warm_up must be in [0, 1), got {self.ema} and {self.warm_up}")

    @property
    def steps(self) -> int:
        """Number of updates when no time runs out. Raises ValueError while epochs says auto."""
        if self.epochs == "auto":
            raise ValueError("epochs are not planned yet")
        return self.epochs * self.steps_per_epoch


def make_optimiser(network: nn.Module, settings: TrainingSettings) -> Optimizer:
    """The optimiser with weight decay on matrices and kernels only."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    if settings.optimiser == "sgd":
        return SGD(groups, lr=settings.learning_rate, momentum=0.99, nesterov=True)
    return AdamW(groups, lr=settings.learning_rate)


def learning_rate(settings: TrainingSettings, progress: float) -> float:
    """The rate at progress in [0, 1]: linear warm-up, then cosine or polynomial (power 0.9) decay to zero."""
    if progress < settings.warm_up:
        return settings.learning_rate * max(progress, 1e-3) / settings.warm_up
    rest = min(1.0, (progress - settings.warm_up) / (1.0 - settings.warm_up))
    shape = 0.5 * (1 + math.cos(math.pi * rest)) if settings.schedule == "cosine" else (1.0 - rest) ** 0.9
    return settings.learning_rate * shape
