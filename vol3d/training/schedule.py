"""How the training runs: its settings and stages, optimisers, and the learning rate over its course."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from vol3d.errors import UsageError
from vol3d.shapes import Shape3

Precision = Literal["float32", "bfloat16"]
Schedule = Literal["cosine", "poly", "constant", "restarts", "plateau"]


@dataclass(frozen=True)
class Stage:
    """A part of a training; what is None is as in the sections training and sampling.

    share is its part of the training's steps and minutes, relative to the other stages'. foreground is the share of
    cubes centred on foreground, throughout the stage. The parts named in frozen do not learn. It begins with the
    last weights of the stage before, whose optimiser goes on, or with the best averaged ones that were validated in
    it and a fresh optimiser.
    """

    share: float = 1.0
    learning_rate: float | None = None
    schedule: Schedule | None = None
    foreground: float | None = None
    patch: Shape3 | None = None
    batch: int | None = None
    frozen: tuple[Literal["encoder"], ...] = ()
    begin: Literal["last", "best"] = "last"

    def __post_init__(self) -> None:
        for name in ("share", "learning_rate"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if self.foreground is not None and not 0 <= self.foreground <= 1:
            raise ValueError(f"foreground must be between 0 and 1, got {self.foreground}")
        for name, values in (("patch", self.patch or ()), ("batch", () if self.batch is None else (self.batch,))):
            if any(value < 1 for value in values):
                raise ValueError(f"{name} must be at least 1, got {min(values)}")


@dataclass(frozen=True)
class TrainingSettings:
    """Length, optimiser and housekeeping of a training.

    An epoch is steps_per_epoch steps; auto epochs are for the plan to fill. With max_minutes the learning rate reaches
    its end in time for what comes at the end, one more validation and saving, if the epochs do not end before.
    learning_rate is the peak. weight_decay acts on weights, not on norms and biases. The schedule and its warm_up, a
    share, are a stage's: cosine and poly (power 0.9) fall to zero, restarts does so in cycles equal cosines, constant
    stays, plateau is multiplied by plateau_factor whenever plateau_patience validations in a row brought no better
    score. A stage ends early after stop_patience of them.

    clip_norm bounds the gradient's norm. ema is the decay of the averaged weights, which are the ones that are
    validated and kept; over the last even_average of the training they are the plain mean of every step's.
    Validation runs every validate_every epochs as long as it takes no more than validation_share of
    the time, and at the end. select_by is the score in which the best weights are best: Dice or surface
    Dice of the decided masks, the area under one of their curves over thresholds, or Dice of the best
    hysteresis triplet. batches_ahead threads prepare batches while the network works.
    No stages are one.
    """

    epochs: int | Literal["auto"] = "auto"
    steps_per_epoch: int = 100
    max_minutes: float | None = None
    optimiser: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    schedule: Schedule = "cosine"
    warm_up: float = 0.02
    cycles: int = 3
    plateau_patience: int = 3
    plateau_factor: float = 0.3
    stop_patience: int | None = None
    clip_norm: float = 12.0
    ema: float = 0.999
    even_average: float = 0.0
    precision: Precision | Literal["auto"] = "auto"
    validate_every: int = 5
    validation_share: float = 0.1
    select_by: Literal["dice", "surface_dice", "dice_area", "surface_dice_area", "triplet"] = "dice"
    keep_best: int = 3
    batches_ahead: int = 1
    random_seed: int = 12345
    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        for name in ("epochs", "steps_per_epoch", "cycles", "plateau_patience", "validate_every", "keep_best"):
            if getattr(self, name) != "auto" and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.stop_patience is not None and self.stop_patience < 1:
            raise ValueError(f"stop_patience must be at least 1, got {self.stop_patience}")
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
        if not 0 < self.plateau_factor < 1:
            raise ValueError(f"plateau_factor must be above 0 and below 1, got {self.plateau_factor}")
        if not 0 <= self.even_average <= 1:
            raise ValueError(f"even_average must be between 0 and 1, got {self.even_average}")
        if self.stages and self.stages[0].begin == "best":
            raise ValueError("stages: the first has none before it whose best weights it could begin with")

    @property
    def steps(self) -> int:
        """Number of updates when no time runs out. Raises ValueError while epochs says auto."""
        if self.epochs == "auto":
            raise ValueError("epochs are not planned yet")
        return self.epochs * self.steps_per_epoch

    def of(self, stage: Stage) -> "TrainingSettings":
        """The settings while a stage runs."""
        rate, schedule = stage.learning_rate or self.learning_rate, stage.schedule or self.schedule
        return replace(self, learning_rate=rate, schedule=schedule)

    @property
    def patches(self) -> dict[str, Shape3]:
        """The patches that stages have of their own, by the settings' names."""
        found = ((f"training.stages[{n}].patch", stage.patch) for n, stage in enumerate(self.stages))
        return {name: patch for name, patch in found if patch is not None}

    def check_without_validations(self) -> None:
        """Refuse settings that make no sense where nothing is validated.

        Raises:
            UsageError: there is one.
        """
        if wants := self._wants_validations():
            raise UsageError(f"{wants} needs validations, and no case is held out: leave it out, or train a fold")

    def _wants_validations(self) -> str | None:
        for number, stage in enumerate(self.stages):
            if stage.begin == "best":
                return f"training.stages[{number}].begin: best"
        if "plateau" in {stage.schedule or self.schedule for stage in self.stages or (Stage(),)}:
            return "training.schedule: plateau"
        return None if self.stop_patience is None else "training.stop_patience"


def make_optimiser(network: nn.Module, settings: TrainingSettings) -> Optimizer:
    """The optimiser with weight decay on matrices and kernels only."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    if settings.optimiser == "sgd":
        return SGD(groups, lr=settings.learning_rate, momentum=0.99, nesterov=True)
    return AdamW(groups, lr=settings.learning_rate)


def learning_rate(settings: TrainingSettings, progress: float, *, falls: int = 0) -> float:
    """The rate at a stage's progress in [0, 1]: linear warm-up, then the schedule; falls are those of a plateau."""
    if progress < settings.warm_up:
        return settings.learning_rate * max(progress, 1e-3) / settings.warm_up
    rest = min(1.0, (progress - settings.warm_up) / (1.0 - settings.warm_up))
    match settings.schedule:
        case "cosine":
            shape = 0.5 * (1 + math.cos(math.pi * rest))
        case "poly":
            shape = (1.0 - rest) ** 0.9
        case "constant":
            shape = 1.0
        case "restarts":
            cycle = math.fmod(rest * settings.cycles, 1.0) if rest < 1.0 else 1.0
            shape = 0.5 * (1 + math.cos(math.pi * cycle))
        case "plateau":
            shape = settings.plateau_factor**falls
    return settings.learning_rate * shape
