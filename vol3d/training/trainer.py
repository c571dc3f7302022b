"""The loop: batches in, events out. It knows no files, no data sets and no clock but its own."""

import copy
import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vol3d.errors import DivergedError, UsageError
from vol3d.training.course import Course, Part
from vol3d.training.frozen import freeze, trainable
from vol3d.training.losses import resolutions
from vol3d.training.pace import Pace
from vol3d.training.recorded import Recorded
from vol3d.training.schedule import Precision, Stage, TrainingSettings, make_optimiser
from vol3d.training.team import ALONE, Team

MAX_BAD_STEPS = 3
FIRST_BY = 0.2
"""Progress by which a training against time validates first, to know how long the last one will take."""
SLOWER = 0.5
"""What the learning rate is multiplied by once the training has left the finite numbers and was brought back."""


@dataclass(frozen=True)
class PatchBatch:
    """images (B, C, z, y, x) float32 and labels (B, L, z, y, x) on the device, and the names of their cases."""

    images: Tensor
    labels: Tensor
    cases: tuple[str, ...]


@dataclass(frozen=True)
class Event:
    """Something that happened, and the cases it is about.

    An epoch ended, a validation was made, another stage began, the weights went back to earlier ones, or a stop was
    asked for. values are numbers by name; those of a validation hold whatever else validate gave back, too.
    """

    kind: Literal["epoch", "validation", "stage", "back", "stop"]
    step: int
    values: dict[str, Any]
    cases: tuple[str, ...] = ()


Batches = Callable[[int, Part], Iterator[PatchBatch]]
Loss = Callable[[Sequence[Tensor], Tensor, float], Tensor]
Validate = Callable[[nn.Module], dict[str, Any]]
OnEvent = Callable[[Event], None]
Parts = Mapping[str, Callable[[nn.Module], Sequence[nn.Parameter]]]


class Trainer:
    """Trains a network and its averaged copy.

    batches(first, part) yields the batches of steps first, first + 1, ... of a stage; each is a function of its step
    and the stage alone, so that a resumed training sees the same ones. loss takes the outputs (full resolution
    first), the labels and the progress in [0, 1]. averaged is the network to validate and to keep. parts gives
    the parameters of what stages may freeze, by name. A team are processes that each yield their share of every
    batch; networks, steps and decisions are the same in all of them. steady tells what of the loss hangs on the
    progress: while that stays the same, a GPU plays a record of the step.

    Raises:
        UsageError: a stage freezes a part that the network does not have.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Loss,
        batches: Batches,
        *,
        settings: TrainingSettings,
        precision: Precision,
        device: torch.device,
        parts: Parts | None = None,
        team: Team = ALONE,
        steady: Callable[[float], Hashable] = float,
    ) -> None:
        self.network, self.loss, self.batches = network, loss, batches
        self.settings, self.precision, self.device = settings, precision, device
        self.parts, self.team, self.steady = parts or {}, team, steady
        self.averaged = copy.deepcopy(network).eval().requires_grad_(False)
        self.optimiser = make_optimiser(network, settings)
        self.course = Course(settings)
        self.validation_seconds = 0.0
        self.skipped_steps = 0
        self._averaged_evenly = 0  # how many steps' weights are in the plain mean
        self._slower = 1.0
        self._bad_cases: list[list[str]] = []  # of the steps since the last good one
        self._epoch_losses: list[float] = []
        self._pace = Pace()
        alone_on_gpu = device.type == "cuda" and team.size == 1
        self._recorded = Recorded(self._computed, network.buffers) if alone_on_gpu else None
        self._longest_event = 0.0  # seconds that telling of an epoch took, which may save
        self._best: dict[str, Tensor] | None = None  # of the stage, if the next one begins with it
        self._trainable = trainable(network)
        for stage in settings.stages:
            self._frozen(stage)  # that the network has no such part is told before the first step
        self._freeze()
        self._good = self._snapshot()

    @property
    def step(self) -> int:
        """How many updates were made."""
        return self.course.step

    @property
    def seconds(self) -> float:
        """Wall time from the first batch to the last update."""
        return self.course.seconds

    @property
    def progress(self) -> float:
        """How much of the training is done, by steps or by time, whichever is further."""
        return self.course.progress

    def state(self) -> dict[str, Any]:
        """Everything that a resume needs, as tensors and plain values."""
        return {
            **self._learned(),
            **self.course.state(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "validation_seconds": self.validation_seconds,
            "skipped_steps": self.skipped_steps,
            "epoch_losses": list(self._epoch_losses),
            "slower": self._slower,
            "bad_cases": list(self._bad_cases),
            "best": self._best,
            # at an epoch's end the weights are what they would go back to
            "good": None if self._good["step"] == self.step else self._good,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue where state() was taken.

        Raises:
            KeyError, RuntimeError, ValueError: it is that of another network or other stages.
        """
        self._learn_again(state)
        self.course.load_state(state)
        torch.set_rng_state(state["random"].cpu())
        if self.device.type == "cuda" and (there := state.get("random_cuda")) is not None:
            torch.cuda.set_rng_state(there.cpu(), self.device)
        self.validation_seconds, self.skipped_steps = state["validation_seconds"], state["skipped_steps"]
        self._epoch_losses = list(state["epoch_losses"])
        self._slower, self._bad_cases = state.get("slower", 1.0), list(state.get("bad_cases", []))
        self._best, self._good = state.get("best"), state.get("good") or self._snapshot()
        self._freeze()

    def run(
        self,
        *,
        validate: Validate | None,
        on_event: OnEvent,
        advance: Callable[[float], None] = lambda progress: None,
        stop_asked: Callable[[], bool] = lambda: False,
    ) -> None:
        """Train to the end, or until a stop is asked for (then the last event says so).

        advance is called after each step with the progress in [0, 1].

        Raises:
            DivergedError: the loss or its gradient was not finite three times in a row, and again after the weights
                went back to those of an epoch's end and the learning rate was halved.
            UsageError: a stage needs validations, and there are none.
        """
        if validate is None:
            self.settings.check_without_validations()
        for network in (self.network, self.averaged):
            self.team.equalise(network.state_dict().values())
        while self.progress < 1.0:
            if self.course.within >= 1.0:
                self._begin_stage(on_event)
            if not self._run_stage(validate, on_event, advance, stop_asked):
                on_event(Event("stop", self.step, {}))
                return

    def _run_stage(
        self,
        validate: Validate | None,
        on_event: OnEvent,
        advance: Callable[[float], None],
        stop_asked: Callable[[], bool],
    ) -> bool:
        """Train to the stage's end; False if a stop was asked for before."""
        last = time.monotonic()
        with closing(self._pace.timed(self.batches(self.step, self.course.part))) as batches:
            for batch in batches:
                self._update(batch, on_event)
                self._pace.learned(len(batch.cases) * self.team.size)
                # From step to step, so that waiting for batches, validating and saving count too.
                self.course.went(self.team.seconds(time.monotonic() - last))
                last = time.monotonic()
                if self.step % self.settings.steps_per_epoch == 0 or self.course.within >= 1.0:
                    self._end_epoch(validate, on_event)
                advance(self.progress)
                if self.course.within >= 1.0:
                    return True
                if self.team.any(stop_asked()):
                    return False
        raise RuntimeError(f"expected batches to the end of the stage, got the last one at step {self.step}")

    def _update(self, batch: PatchBatch, on_event: OnEvent) -> None:
        rate = self.course.rate * self._slower
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        found = self._gradients(batch.images, batch.labels)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip_norm)
        # Both are waited for here alone, so that a GPU updates while the next step is prepared.
        loss, length = torch.stack((found, norm)).tolist()
        if self.team.any(not math.isfinite(loss + length)):
            self._skip(batch, on_event)
            return
        self._bad_cases.clear()
        self.optimiser.step()
        self._average()
        self._epoch_losses.append(loss)

    def _gradients(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch, with its gradients left at the parameters."""
        if self._recorded is None:
            return self._computed(images, labels)
        return self._recorded(images, labels, (self.course.part.number, self.steady(self.progress)))

    def _computed(self, images: Tensor, labels: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"):
            outputs = self.network(images)
        answers = [self.team.gathered(answer) for answer in resolutions(outputs)]
        loss = self.loss(answers, self.team.gathered(labels), self.progress)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.team.sum_gradients(self.network.parameters())
        self.team.equalise(self.network.buffers())
        return loss.detach()

    @torch.no_grad()
    def _average(self) -> None:
        # Early on the average follows closely, so that short trainings do not drag their random start along.
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        if self.settings.even_average and self.progress >= 1.0 - self.settings.even_average:
            self._averaged_evenly += 1
            decay = 1.0 - 1.0 / self._averaged_evenly
        ours: list[Tensor] = list(self.averaged.parameters())
        theirs: list[Tensor] = list(self.network.parameters())
        torch._foreach_lerp_(ours, theirs, 1.0 - decay)
        for kept, new in zip(self.averaged.buffers(), self.network.buffers(), strict=True):
            kept.copy_(new)

    def _skip(self, batch: PatchBatch, on_event: OnEvent) -> None:
        """Leave a step out. After some in a row go back to the last good weights, once, and learn more slowly."""
        self.skipped_steps += 1
        self._bad_cases.append([name for names in self.team.all_of(batch.cases) for name in names])
        for running, kept in zip(self.network.buffers(), self.averaged.buffers(), strict=True):
            running.copy_(kept)  # statistics that the forward pass has spoilt
        if len(self._bad_cases) < MAX_BAD_STEPS:
            return
        cases = tuple(sorted({name for names in self._bad_cases for name in names}))
        if self._slower < 1.0:
            rate = self.settings.of(self.course.part.stage).learning_rate
            raise DivergedError(
                f"the loss was not finite {MAX_BAD_STEPS} times in a row, last at step {self.step}, though the weights "
                f"went back to good ones before and the learning rate was halved; the cases were {', '.join(cases)}: "
                f"check these, or lower training.learning_rate (now {rate:g})"
            )
        self._slower = SLOWER
        self._bad_cases.clear()
        self._learn_again(self._good)
        on_event(Event("back", self.step, {"to": self._good["step"]}, cases))

    def _end_epoch(self, validate: Validate | None, on_event: OnEvent) -> None:
        losses, self._epoch_losses = self._epoch_losses, []
        values = {
            "epoch": -(-self.step // self.settings.steps_per_epoch),
            "loss": sum(losses) / len(losses) if losses else float("nan"),
            "rate": self.optimiser.param_groups[0]["lr"],
            "seconds": self.seconds,
            "skipped_steps": self.skipped_steps,
            **({"stage": self.course.part.number + 1} if self.settings.stages else {}),
            **self._pace.told(),
        }
        if validate is not None and self.team.any(self._validation_is_due()):
            self._validate(validate, on_event)
        if not self._bad_cases and all(bool(torch.isfinite(value).all()) for value in self.network.parameters()):
            self._good = self._snapshot()
        start = time.monotonic()
        on_event(Event("epoch", self.step, values))
        self._longest_event = max(self._longest_event, time.monotonic() - start)

    def _validation_is_due(self) -> bool:
        """At the end, for a stage that begins with the best, and now and then within its share of the time."""
        if self.course.within >= 1.0 and (self.course.last or self.course.follows_best()):
            return True
        if self.settings.max_minutes is not None and self.validation_seconds == 0 and self.progress >= FIRST_BY:
            return True
        allowed = self.settings.validation_share * self.seconds
        affordable = self.validation_seconds == 0 or self.validation_seconds < allowed
        return affordable and self.step % (self.settings.validate_every * self.settings.steps_per_epoch) == 0

    def _validate(self, validate: Validate, on_event: OnEvent) -> None:
        start = time.monotonic()
        values = validate(self.averaged)
        took = time.monotonic() - start
        self.validation_seconds += took
        # Before the epoch is told: if this leaves no time for more steps, it is the last.
        self.course.reserve = max(self.course.reserve, self.team.seconds(took + self._longest_event))
        best = self.course.validated(values.get(self.settings.select_by, 0.0))
        if best and self.course.follows_best():
            self._best = _copied(self.averaged.state_dict())
        on_event(Event("validation", self.step, {**values, "seconds": self.seconds}))

    def _begin_stage(self, on_event: OnEvent) -> None:
        self.course.next_stage()
        if self._best is not None:
            for network in (self.network, self.averaged):
                network.load_state_dict(self._best)
            self.optimiser = make_optimiser(self.network, self.settings)
            self._best, self._averaged_evenly = None, 0
        self._freeze()
        self._good = self._snapshot()
        on_event(Event("stage", self.step, {"stage": self.course.part.number}))

    def _freeze(self) -> None:
        freeze(self.network, self._trainable, self._frozen(self.course.part.stage))

    def _frozen(self, stage: Stage) -> list[nn.Parameter]:
        try:
            return [parameter for name in stage.frozen for parameter in self.parts[name](self.network)]
        except ValueError as error:
            raise UsageError(f"training.stages: frozen: {error}") from error

    def _learned(self) -> dict[str, Any]:
        """What learning changes."""
        return {
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "averaged_evenly": self._averaged_evenly,
        }

    def _snapshot(self) -> dict[str, Any]:
        """A copy of what was learned, to go back to."""
        return {**_copied(self._learned()), "step": self.step}

    def _learn_again(self, learned: dict[str, Any]) -> None:
        self.network.load_state_dict(learned["network"])
        self.averaged.load_state_dict(learned["averaged"])
        decays = [group["weight_decay"] for group in self.optimiser.param_groups]
        self.optimiser.load_state_dict(_copied(learned["optimiser"]))  # which would learn in the tensors it is given
        for group, decay in zip(self.optimiser.param_groups, decays, strict=True):
            group["weight_decay"] = decay  # what is set now, which a resume may have changed
        self._averaged_evenly = learned.get("averaged_evenly", 0)


def _copied(value: Any) -> Any:
    """The same tree with its tensors copied to the CPU's memory."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    return [_copied(one) for one in value] if isinstance(value, list) else value
