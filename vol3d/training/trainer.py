"""The loop: batches in, events out. It knows no files, no data sets and no clock but its own."""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vol3d.errors import DivergedError
from vol3d.training.losses import resolutions
from vol3d.training.schedule import Precision, TrainingSettings, learning_rate, make_optimiser

MAX_BAD_STEPS = 3


@dataclass(frozen=True)
class PatchBatch:
    """images (B, C, z, y, x) float32 and labels (B, z, y, x) on the device, and the names of their cases."""

    images: Tensor
    labels: Tensor
    cases: tuple[str, ...]


@dataclass(frozen=True)
class Event:
    """Something that happened: an epoch ended, a validation was made, a stop was asked for.

    values are numbers by name; those of a validation hold whatever else validate gave back, too.
    """

    kind: Literal["epoch", "validation", "stop"]
    step: int
    values: dict[str, Any]


Batches = Callable[[int], Iterator[PatchBatch]]
Loss = Callable[[Sequence[Tensor], Tensor], Tensor]
Validate = Callable[[nn.Module], dict[str, Any]]


class Trainer:
    """Trains a network and its averaged copy.

    batches(first) yields the batches of steps first, first + 1, ...; each is a function of its step
    alone, so that a resumed training sees the same ones. loss takes the outputs (full resolution
    first) and the labels. averaged is the network to validate and to keep.
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
    ) -> None:
        self.network, self.loss, self.batches = network.train(), loss, batches
        self.settings, self.precision, self.device = settings, precision, device
        self.averaged = copy.deepcopy(network).eval().requires_grad_(False)
        self.optimiser = make_optimiser(network, settings)
        self.step = 0
        self.seconds = 0.0
        self.validation_seconds = 0.0
        self.skipped_steps = 0
        self._bad_in_a_row = 0
        self._epoch_losses: list[float] = []

    @property
    def progress(self) -> float:
        """How much of the training is done, by steps or by time, whichever is further."""
        by_step = self.step / self.settings.steps
        limit = self.settings.max_minutes
        return min(1.0, max(by_step, self.seconds / (60 * limit))) if limit else by_step

    def state(self) -> dict[str, Any]:
        """Everything that a resume needs, as tensors and plain values."""
        return {
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "random": torch.get_rng_state(),
            "step": self.step,
            "seconds": self.seconds,
            "validation_seconds": self.validation_seconds,
            "skipped_steps": self.skipped_steps,
            "epoch_losses": list(self._epoch_losses),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue where state() was taken."""
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"].cpu())
        self.step, self.seconds = state["step"], state["seconds"]
        self.validation_seconds, self.skipped_steps = state["validation_seconds"], state["skipped_steps"]
        self._epoch_losses = list(state["epoch_losses"])

    def run(
        self,
        *,
        validate: Validate | None,
        on_event: Callable[[Event], None],
        advance: Callable[[float], None] = lambda progress: None,
        stop_asked: Callable[[], bool] = lambda: False,
    ) -> None:
        """Train to the end, or until a stop is asked for (then the last event says so).

        advance is called after each step with the progress in [0, 1].

        Raises:
            DivergedError: the loss or its gradient was not finite three times in a row.
        """
        if self.progress >= 1.0:
            return
        last = time.monotonic()
        for batch in self.batches(self.step):
            self._update(batch)
            self.step += 1
            # From step to step, so that waiting for batches, validating and saving count too.
            self.seconds, last = self.seconds + time.monotonic() - last, time.monotonic()
            finished = self.progress >= 1.0
            if self.step % self.settings.steps_per_epoch == 0 or finished:
                self._end_epoch(validate, on_event, finished)
            advance(self.progress)
            if finished:
                return
            if stop_asked():
                on_event(Event("stop", self.step, {}))
                return

    def _update(self, batch: PatchBatch) -> None:
        rate = learning_rate(self.settings, self.progress)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        images = batch.images.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"):
            outputs = self.network(images)
        loss = self.loss(resolutions(outputs), batch.labels)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip_norm)
        if not torch.isfinite(loss + norm):
            self._skip(batch)
            return
        self._bad_in_a_row = 0
        self.optimiser.step()
        self._average()
        self._epoch_losses.append(float(loss.detach()))

    def _skip(self, batch: PatchBatch) -> None:
        self.skipped_steps += 1
        self._bad_in_a_row += 1
        if self._bad_in_a_row >= MAX_BAD_STEPS:
            raise DivergedError(
                f"the loss was not finite {MAX_BAD_STEPS} times in a row, last at step {self.step} on "
                f"{', '.join(sorted(set(batch.cases)))}; check these cases, or lower training.learning_rate "
                f"(now {self.settings.learning_rate:g})"
            )

    @torch.no_grad()
    def _average(self) -> None:
        # Early on the average follows closely, so that short trainings do not drag their random start along.
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        ours: list[Tensor] = list(self.averaged.parameters())
        theirs: list[Tensor] = list(self.network.parameters())
        torch._foreach_lerp_(ours, theirs, 1.0 - decay)
        for kept, new in zip(self.averaged.buffers(), self.network.buffers(), strict=True):
            kept.copy_(new)

    def _end_epoch(self, validate: Validate | None, on_event: Callable[[Event], None], finished: bool) -> None:
        losses, self._epoch_losses = self._epoch_losses, []
        mean = sum(losses) / len(losses) if losses else float("nan")
        rate = self.optimiser.param_groups[0]["lr"]
        epoch = -(-self.step // self.settings.steps_per_epoch)
        if validate is not None and (finished or (epoch % self.settings.validate_every == 0 and self._time_allows())):
            start = time.monotonic()
            values = validate(self.averaged)
            self.validation_seconds += time.monotonic() - start
            on_event(Event("validation", self.step, {**values, "seconds": self.seconds}))
        on_event(Event("epoch", self.step, {"epoch": epoch, "loss": mean, "rate": rate, "seconds": self.seconds}))

    def _time_allows(self) -> bool:
        """Whether one more validation like the ones before keeps within its share."""
        allowed = self.settings.validation_share * self.seconds
        return self.validation_seconds == 0 or self.validation_seconds < allowed
