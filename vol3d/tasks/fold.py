"""One fold of a training, and what it leaves in its folder."""

import json
import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vol3d.config.dump import dump
from vol3d.config.tree import Config, plan_of
from vol3d.datasets.cases import Case
from vol3d.datasets.splits import Fold, folds_of
from vol3d.errors import CheckpointError, StoppedError, UsageError
from vol3d.files.atomic import append_line, read_text, write_json, write_text
from vol3d.files.machine import cpu_name
from vol3d.files.pictures import write_png
from vol3d.files.runs import (
    CASCADE,
    copy_models,
    load_checkpoint,
    read_records,
    save_checkpoint,
    truncate_records,
)
from vol3d.network.build import encoder_parameters
from vol3d.tasks.assemble import loss_of, network_of
from vol3d.tasks.cascade import Cascade
from vol3d.tasks.initial_weights import InitialWeights, begin_with
from vol3d.tasks.plugins import ENVIRONMENT, loaded_plugins
from vol3d.tasks.preparation import PreparedCase, prepare
from vol3d.tasks.reporter import Reporter
from vol3d.tasks.run import Run
from vol3d.tasks.signals import StopFlag
from vol3d.tasks.training_data import batches_of, median_spacing
from vol3d.tasks.training_precision import chosen_precision
from vol3d.tasks.validation import SWEEP, validation_of
from vol3d.training.checkpoints import BestK, Kept
from vol3d.training.schedule import Precision
from vol3d.training.team import ALONE, Team
from vol3d.training.trainer import MAX_BAD_STEPS, Event, Trainer
from vol3d.version import __version__
from vol3d.viewer.curve import learning_curve

SECONDS_BETWEEN_SAVES = 60.0
STARVED = 0.05
"""Share of waiting above which it is told."""


@dataclass(frozen=True)
class TrainResult:
    """The run's folder, the best validation (metric values and step; empty without one), seconds of wall time."""

    run: Path
    best: dict[str, float]
    seconds: float


class FoldTraining:
    """One fold's training and what it leaves in its folder."""

    def __init__(
        self,
        folder: Path,
        config: Config,
        cases: Sequence[Case],
        device: torch.device,
        reporter: Reporter,
        stop: StopFlag,
        cascade: Run | None = None,
        team: Team = ALONE,
        why: Mapping[str, str] = {},
    ) -> None:
        self.why = why
        self.folder, self.config, self.cases = folder, config, cases
        self.device, self.reporter, self.stop, self.team = device, reporter, stop, team
        self.cascade = Cascade(cascade, cases, self._refuse_to_go_on) if cascade else None
        self.best = BestK(config.training.keep_best)
        self.validations: dict[int, dict[str, float]] = {}
        self.saved_at = time.monotonic()
        self.starved = False

    def train(self, fold: str, init: InitialWeights | None) -> TrainResult:
        """Train to the end, or raise StoppedError once the state is saved."""
        start = time.monotonic()
        split = self._split(fold)
        if not split["validation"]:
            self.config.training.check_without_validations()
        training, validating = self._prepared(split)
        trainer = self._trainer(training, init)
        validate = None
        if validating:
            validate = validation_of(validating, self.config, trainer.precision, self.device, self.reporter, self.team)
        self._begin(trainer, split)
        limit = self.config.training.max_minutes
        total, unit = (round(60 * limit), "s") if limit else (self.config.training.steps, "steps")
        with self.reporter.progress(f"training fold {fold}", total=total, unit=unit) as bar:
            shown = 0

            def advance(done: float) -> None:
                nonlocal shown
                bar(int(total * done) - shown)
                shown = int(total * done)

            trainer.run(
                validate=validate,
                on_event=lambda event: self._on_event(trainer, event),
                advance=advance,
                stop_asked=self.stop,
            )
        if trainer.progress < 1.0:
            raise StoppedError(
                f"stopped at step {trainer.step}; the state is saved, continue with --resume", signal=self.stop.signal
            )
        best = self.best.best
        values = {} if best is None else {**self.validations.get(best.step, {}), "step": best.step}
        return TrainResult(self.folder, values, time.monotonic() - start)

    def _prepared(self, split: dict[str, list[str]]) -> list[list[PreparedCase]]:
        """The cases to learn from and those held out."""
        used = [c for c in self.cases if any(c.name in names for names in split.values())]
        begin = len(used) * self.team.rank // self.team.size  # elsewhere than the others, so that the work is shared
        given = self.config.cache.folder
        folder = Path(given) if given else self.folder.parent / "cache"
        found = prepare(
            [*used[begin:], *used[:begin]],
            self.config,
            folder,
            self.reporter,
            self.cascade,
            asked=self._refuse_to_go_on,
        )
        prepared = {one.training.name: one for one in found}
        return [[prepared[c.name] for c in used if c.name in names] for names in split.values()]

    def _refuse_to_go_on(self, _: int = 0) -> None:
        """End what comes before the training where a stop is asked for."""
        if self.stop():
            told = "stopped while the cases were prepared; the same command goes on from there"
            raise StoppedError(told, signal=self.stop.signal)

    def _split(self, fold: str) -> dict[str, list[str]]:
        """The names of the cases to learn from and of those held out."""
        if fold == "full":
            names = Fold(tuple(case.name for case in self.cases), ())
        else:
            names = folds_of(self.cases, split=self.config.data.split, folds=self.config.data.folds)[int(fold)]
        split = {"training": list(names.training), "validation": list(names.validation)}
        stored = self.folder / "split.json"
        if stored.is_file() and _told_by(stored) != split:
            raise UsageError(f"the data set has other cases than {self.folder} was begun with: give another --out")
        return split

    def _begin(self, trainer: Trainer, split: dict[str, list[str]]) -> None:
        """Write what the training is; not before all of it fits, so that what is refused leaves nothing behind."""
        if not self.team.first:
            return
        if self.cascade and not (self.folder / "config.yaml").is_file():
            copy_models([model.folder for model in self.cascade.run.models], self.folder / CASCADE)
        write_text(self.folder / "plan.yaml", dump(plan_of(self.config), comments=self.why))
        write_text(self.folder / "config.yaml", dump(self.config, comments=self.why))
        write_json(self.folder / "split.json", split)
        self._write_environment(trainer.precision, trainer.network)
        log = self.folder / "metrics.jsonl"
        if log.is_file():  # also of a training that was killed before its first save
            truncate_records(log, trainer.step)
        self.validations = {r["step"]: r["metrics"] for r in read_records(log) if r["kind"] == "validation"}
        self._rank_again()

    def _rank_again(self) -> None:
        """Rank the best weights by what selects now, which a resume may have changed."""
        by = self.config.training.select_by
        ranked = BestK(self.config.training.keep_best)
        for kept in self.best.kept:
            told = self.validations.get(kept.step)
            ranked = ranked.offered(kept.step, kept.score if told is None else told.get(by, 0.0))
        self.best = ranked
        if ranked.best and (path := self._top(ranked.best.step)).is_file():
            save_checkpoint(self.folder / "weights_best.pt", load_checkpoint(path))

    def _trainer(self, cases: Sequence[PreparedCase], init: InitialWeights | None) -> Trainer:
        """The trainer with fresh or given weights, or where the stored state left off."""
        torch.manual_seed(self.config.training.random_seed)
        network = network_of(self.config).to(self.device)
        state = self._state()
        if init is not None and state is None:
            self.reporter.note(begin_with(network, self.config, init))
        trainer = Trainer(
            network,
            loss_of(self.config, self.device, median_spacing(cases)),
            batches_of(cases, self.config, self.device, lambda: trainer.progress, self.team),
            settings=self.config.training,
            precision=self._precision(network, state),
            device=self.device,
            parts={"encoder": encoder_parameters},
            team=self.team,
            steady=self.config.loss.weights_at,
        )
        if state is not None:
            self._restore(trainer, state)
        if not self.team.first:  # whose dropout must not be that of the first
            torch.manual_seed(hash((self.config.training.random_seed, self.team.rank, trainer.step)) % 2**63)
        return trainer

    def _state(self) -> dict[str, Any] | None:
        path = self.folder / "state.pt"
        return load_checkpoint(path) if path.is_file() else None

    def _precision(self, network: torch.nn.Module, state: dict[str, Any] | None) -> Precision:
        if state is not None:
            kept: Precision = state["precision"]
            return kept
        best, seconds = chosen_precision(network, self.config, self.device, self.team)
        if not seconds:
            return best
        tried = ", ".join(f"{name} {value:.3f} s" for name, value in seconds.items())
        self.reporter.note(f"precision {best} is the faster one here ({tried} per step)")
        training = self.config.training
        if training.max_minutes is None:
            told = f"{training.steps:,} steps take about {duration(training.steps * seconds[best])} here"
            self.reporter.note(f"{told}, validations apart; training.max_minutes ends a training sooner")
        return best

    def _restore(self, trainer: Trainer, state: dict[str, Any]) -> None:
        try:
            trainer.load_state(state["trainer"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{self.folder / 'state.pt'} does not fit this run's plan: {error}") from error
        self.best = BestK(self.config.training.keep_best, tuple(Kept(s, v) for s, v in state["best"]))
        self.reporter.note(f"resumed at step {trainer.step}")

    def _write_environment(self, precision: Precision, network: torch.nn.Module) -> None:
        write_json(
            self.folder / ENVIRONMENT,
            {
                "vol3d": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "numpy": np.__version__,
                "device": str(self.device),
                "device_name": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else cpu_name(),
                "threads": torch.get_num_threads(),
                "precision": precision,
                "parameters": sum(p.numel() for p in network.parameters()),
                "plugins": [asdict(plugin) for plugin in loaded_plugins()],
            },
        )

    def _on_event(self, trainer: Trainer, event: Event) -> None:
        if not self.team.first:
            return
        if event.kind == "validation":
            rest = {k: event.values[k] for k in ("seconds", SWEEP)}
            metrics = {k: v for k, v in event.values.items() if k not in rest}
            self._log({"kind": "validation", "step": event.step, "metrics": metrics, **rest})
            self.validations[event.step] = metrics
            told = ", ".join(f"{k.replace('_', ' ')} {v:.4f}" for k, v in metrics.items())
            self.reporter.note(f"step {event.step}: {told}")
            self._keep(trainer, event.step, metrics)
        elif event.kind == "stage":
            number, stages = int(event.values["stage"]), self.config.training.stages
            start = f" with the {stages[number].begin} weights of the one before"
            self.reporter.note(f"step {event.step}: stage {number + 1} of {len(stages)} begins{start}")
        elif event.kind == "back":
            self.reporter.warn(
                f"step {event.step}: the loss was not finite {MAX_BAD_STEPS} times in a row, on "
                f"{', '.join(event.cases)}; the weights are those of step {int(event.values['to'])} again, and the "
                "learning rate is halved"
            )
        elif event.kind == "epoch":
            values = {k: (v if math.isfinite(v) else None) for k, v in event.values.items()}
            self._log({"kind": "epoch", "step": event.step, **values})
            self._tell_waiting(event.values["wait_share"])
        due = trainer.progress >= 1.0 or time.monotonic() - self.saved_at > SECONDS_BETWEEN_SAVES
        # A validation comes just before its epoch's end: the state is saved once both are told.
        if event.kind == "stop" or (event.kind == "epoch" and due):
            self._save(trainer)

    def _tell_waiting(self, share: float) -> None:
        """Say once that the network waits for its batches; every epoch's share is in the log."""
        if share > STARVED and not self.starved:
            self.starved = True
            more = self.config.training.batches_ahead + 1
            self.reporter.note(
                f"starved: {share:.0%} of the time went into waiting for batches; where cores are free, "
                f"training.batches_ahead={more} prepares more of them at once"
            )

    def _log(self, record: dict[str, Any]) -> None:
        append_line(self.folder / "metrics.jsonl", json.dumps(record, allow_nan=False))

    def _keep(self, trainer: Trainer, step: int, metrics: dict[str, float]) -> None:
        """Store the averaged weights if they are among the best, and forget those that no longer are."""
        before = set(self.best.kept)
        self.best = self.best.offered(step, metrics.get(self.config.training.select_by, 0.0))
        weights = {"weights": trainer.averaged.state_dict(), "step": step, "metrics": metrics}
        if any(k.step == step for k in self.best.kept):
            save_checkpoint(self._top(step), weights)
        if self.best.best and self.best.best.step == step:
            save_checkpoint(self.folder / "weights_best.pt", weights)
        for kept in before - set(self.best.kept):
            self._top(kept.step).unlink(missing_ok=True)

    def _top(self, step: int) -> Path:
        return self.folder / f"weights_step_{step:07d}.pt"

    def _save(self, trainer: Trainer) -> None:
        best = [(k.step, k.score) for k in self.best.kept]
        save_checkpoint(
            self.folder / "state.pt", {"trainer": trainer.state(), "best": best, "precision": trainer.precision}
        )
        weights = {"weights": trainer.averaged.state_dict(), "step": trainer.step, "metrics": {}}
        save_checkpoint(self.folder / "weights_last.pt", weights)
        records = list(read_records(self.folder / "metrics.jsonl"))
        flat = [{**r, **r.get("metrics", {})} for r in records]
        write_png(self.folder / "learning_curve.png", learning_curve(flat, metric=self.config.training.select_by))
        self.saved_at = time.monotonic()


def _told_by(split: Path) -> Any:
    try:
        return json.loads(read_text(split))
    except ValueError as error:
        raise CheckpointError(
            f"{split} is damaged, expected the names of cases as JSON ({error}): delete it, and --resume writes it "
            "anew, if the data set is the one it was begun with"
        ) from error


def duration(seconds: float) -> str:
    """A time for people.

    >>> duration(47.2), duration(4000), duration(200_000)
    ('47 seconds', '67 minutes', '56 hours')
    """
    for most, unit, name in ((120, 1, "seconds"), (7200, 60, "minutes")):
        if seconds < most:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 3600:.0f} hours"
