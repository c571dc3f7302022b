"""Where a training is on its way: steps and seconds, the stage that runs, and what its validations said."""

from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

from vol3d.training.schedule import Stage, TrainingSettings, learning_rate


@dataclass(frozen=True)
class Part:
    """A stage as it runs: from its first step on for at most so many, from begin to end of the whole in [0, 1]."""

    number: int
    stage: Stage
    first: int
    steps: int
    begin: float
    end: float

    def progress(self, step: float) -> float:
        """How much of the whole training is done at a step of this stage, if no time runs out."""
        return self.begin + (self.end - self.begin) * ((step - self.first) / self.steps)


def part_of(settings: TrainingSettings, number: int, first: int) -> Part:
    """The stage of a number, begun at a step: whole epochs, one at least. No stages are one, the whole."""
    stages = settings.stages or (Stage(),)
    sums = list(accumulate((stage.share for stage in stages), initial=0.0))
    begin, end = sums[number] / sums[-1], sums[number + 1] / sums[-1]
    whole = settings.steps // settings.steps_per_epoch
    epochs = max(1, round(whole * end) - round(whole * begin))
    return Part(number, stages[number], first, epochs * settings.steps_per_epoch, begin, end)


@dataclass(frozen=True)
class Watch:
    """A stage's validations: the best score, how many came since, and how often a plateau made the rate fall.

    waited counts those since the best or the last fall.
    """

    best: float | None = None
    stale: int = 0
    waited: int = 0
    falls: int = 0

    def seen(self, score: float, patience: int) -> "Watch":
        """With one more validation."""
        if self.best is None or score > self.best:
            return Watch(score, falls=self.falls)
        fallen = self.waited + 1 >= patience
        return Watch(self.best, self.stale + 1, 0 if fallen else self.waited + 1, self.falls + fallen)


class Course:
    """Counts what a training has done, and says from it how far it is.

    reserve is how many seconds the end will take, as far as is known: a validation and saving.
    """

    def __init__(self, settings: TrainingSettings) -> None:
        self.settings = settings
        self.step, self.seconds, self.reserve = 0, 0.0, 0.0
        self.part, self.watch = part_of(settings, 0, 0), Watch()
        self._began, self._ended = 0.0, False  # the stage: at how many seconds, and whether before its time

    @property
    def within(self) -> float:
        """How much of the stage is done, by steps or by time, whichever is further. It has one step at least."""
        if self.step == self.part.first:
            return 0.0
        if self._ended:
            return 1.0
        by_step = (self.step - self.part.first) / self.part.steps
        if self.settings.max_minutes is None:
            return by_step
        seconds = 60 * self.settings.max_minutes
        end = (seconds - min(self.reserve, seconds / 2)) * self.part.end
        by_time = (self.seconds - self._began) / (end - self._began) if end > self._began else 1.0
        return min(1.0, max(by_step, by_time))

    @property
    def progress(self) -> float:
        """How much of the training is done."""
        return self.part.begin + (self.part.end - self.part.begin) * self.within

    @property
    def last(self) -> bool:
        """Whether no other stage follows."""
        return self.part.number + 1 >= len(self.settings.stages)

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return learning_rate(self.settings.of(self.part.stage), self.within, falls=self.watch.falls)

    def follows_best(self) -> bool:
        """Whether the next stage begins with the best weights of this one."""
        return not self.last and self.settings.stages[self.part.number + 1].begin == "best"

    def went(self, seconds: float) -> None:
        """One step was made, and these seconds passed since the one before."""
        self.step, self.seconds = self.step + 1, self.seconds + seconds

    def validated(self, score: float) -> bool:
        """Whether this score is the best of the stage; one that has not risen for too long ends the stage."""
        self.watch = self.watch.seen(score, self.settings.plateau_patience)
        patience = self.settings.stop_patience
        self._ended = patience is not None and self.watch.stale >= patience
        return self.watch.stale == 0

    def next_stage(self) -> None:
        """Begin the next stage here."""
        self.part, self.watch = part_of(self.settings, self.part.number + 1, self.step), Watch()
        self._began, self._ended = self.seconds, False

    def state(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "reserve": self.reserve,
            "stage": [self.part.number, self.part.first, self._began, self._ended],
            "watch": asdict(self.watch),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue where state() was taken. What states did not have before there were stages is as it begins."""
        self.step, self.seconds = state["step"], state["seconds"]
        self.reserve, self.watch = state.get("reserve", 0.0), Watch(**state.get("watch", {}))
        number, first, self._began, self._ended = state.get("stage", [0, 0, 0.0, False])
        if number >= max(1, len(self.settings.stages)):
            raise ValueError(f"it is in stage {number + 1}, and there are {len(self.settings.stages)}")
        self.part = part_of(self.settings, number, first)
