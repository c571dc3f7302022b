"""Train a run on a data set."""

import json
import math
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vol3d.config.dump import dump
from vol3d.config.load import load
from vol3d.config.tree import Config, plan_of
from vol3d.datasets.cases import Case
from vol3d.datasets.fingerprint import fingerprint
from vol3d.datasets.layouts import Dataset, detect
from vol3d.datasets.manifest import MANIFEST, write_manifest
from vol3d.datasets.splits import kfold
from vol3d.errors import CheckpointError, InputError, StoppedError, UsageError
from vol3d.files.atomic import append_line, read_text, write_json, write_text
from vol3d.files.lock import lock
from vol3d.files.pictures import write_png
from vol3d.files.runs import load_checkpoint, read_records, save_checkpoint, truncate_records
from vol3d.tasks.assemble import choose_device, fill, load_weights, loss_of, network_of
from vol3d.tasks.reporter import Reporter, Silent
from vol3d.tasks.signals import StopFlag, stop_flag
from vol3d.tasks.training_data import batches_of, measure, prepare, validation_of
from vol3d.training.checkpoints import BestK, Kept
from vol3d.training.precision import fastest_precision
from vol3d.training.schedule import Precision
from vol3d.training.trainer import Event, Trainer
from vol3d.version import __version__
from vol3d.viewer.curve import learning_curve

SECONDS_BETWEEN_SAVES = 60.0


@dataclass(frozen=True)
class TrainResult:
    """The run's folder, the best validation (metric values and step; empty without one), seconds of wall time."""

    run: Path
    best: dict[str, float]
    seconds: float


def train(
    dataset: Path,
    *,
    out: Path,
    config_file: Path | None = None,
    overrides: Sequence[str] = (),
    fold: str = "0",
    resume: bool = False,
    init: Path | None = None,
    device: str = "auto",
    dry_run: bool = False,
    reporter: Reporter | None = None,
) -> list[TrainResult]:
    """Train one fold, each fold, or on all cases ("full"); the folders are out/fold_K.

    Raises:
        UsageError, InputError, CheckpointError, DivergedError, ResourceError: see their classes.
        StoppedError: a signal came; the state was saved and resume=True continues.
    """
    reporter = reporter or Silent()
    text = read_text(config_file) if config_file else None
    config = load(Config, text=text, name=str(config_file or "defaults"), overrides=overrides)
    chosen = choose_device(device)
    found = detect(dataset)
    reporter.note(found.note)
    cases = [c for c in found.cases if c.label is not None]
    folds = _folds(fold, config, cases)
    if not resume or not all((_folder(out, f) / "config.yaml").is_file() for f in folds):
        config = _planned(config, found, cases, chosen, reporter)
    if dry_run:
        reporter.note(dump(config))
        return []
    write_manifest(out / MANIFEST, cases, channel_names=found.channel_names)
    results = []
    for name in folds:
        folder = _folder(out, name)
        started = (folder / "config.yaml").is_file()
        if started and not resume:
            raise UsageError(f"{folder} holds a run already: give --resume to continue it, or another --out")
        if started:
            stored = read_text(folder / "config.yaml")
            config = load(Config, text=stored, name=str(folder / "config.yaml"), overrides=overrides)
        with lock(folder), stop_flag() as stop:
            results.append(_Run(folder, config, cases, chosen, reporter, stop).train(name, init))
    return results


def _folds(fold: str, config: Config, cases: Sequence[Case]) -> list[str]:
    count = min(config.data.folds, len({c.group for c in cases}))
    known = [str(k) for k in range(count)]
    if fold == "each":
        return known
    if fold != "full" and fold not in known:
        raise UsageError(f"--fold {fold}: expected {', '.join(known)}, each or full")
    return [fold]


def _folder(out: Path, fold: str) -> Path:
    return out / f"fold_{fold}"


def _planned(config: Config, found: Dataset, cases: Sequence[Case], device: torch.device, reporter: Reporter) -> Config:
    try:
        facts = fingerprint(measure(cases, reporter))
    except ValueError as error:
        raise InputError(str(error)) from error
    anatomical = any(".nii" in path.name for case in cases for path in case.images)
    return fill(
        config,
        facts,
        label_names={n: (v,) for n, v in found.label_names.items()} if found.label_names else None,
        channel_names=found.channel_names,
        anatomical=anatomical,
        device=device,
    )


class _Run:
    """One fold's training and what it leaves in its folder."""

    def __init__(
        self,
        folder: Path,
        config: Config,
        cases: Sequence[Case],
        device: torch.device,
        reporter: Reporter,
        stop: StopFlag,
    ) -> None:
        self.folder, self.config, self.cases = folder, config, cases
        self.device, self.reporter, self.stop = device, reporter, stop
        self.best = BestK(config.training.keep_best)
        self.validations: dict[int, dict[str, float]] = {}
        self.saved_at = time.monotonic()

    def train(self, fold: str, init: Path | None) -> TrainResult:
        """Train to the end, or raise StoppedError once the state is saved."""
        start = time.monotonic()
        held_out = self._held_out(fold)
        training = [c for c in self.cases if c.name not in held_out]
        validating = [c for c in self.cases if c.name in held_out]
        prepared = prepare(training, self.config, self.folder.parent / "cache", self.reporter)
        to_validate = prepare(validating, self.config, self.folder.parent / "cache", self.reporter)
        write_text(self.folder / "plan.yaml", dump(plan_of(self.config)))
        write_text(self.folder / "config.yaml", dump(self.config))
        write_json(self.folder / "split.json", {"training": [c.name for c in training], "validation": sorted(held_out)})

        torch.manual_seed(self.config.training.random_seed)
        network = network_of(self.config).to(self.device)
        state = self._state()
        if init is not None and state is None:
            load_weights(network, load_checkpoint(_weights_file(init))["weights"], str(init))
        precision = self._precision(network, state)
        progress = [0.0]
        trainer = Trainer(
            network,
            loss_of(self.config, self.device),
            batches_of(prepared, self.config, self.device, lambda: progress[0]),
            settings=self.config.training,
            precision=precision,
            device=self.device,
        )
        if state is not None:
            self._restore(trainer, state)
        self._write_environment(precision, network)
        validate = None
        if to_validate:
            validate = validation_of(to_validate, self.config, precision, self.device, self.reporter)
        limit = self.config.training.max_minutes
        total, unit = (round(60 * limit), "s") if limit else (self.config.training.steps, "steps")
        with self.reporter.progress(f"training fold {fold}", total=total, unit=unit) as bar:
            shown = 0

            def advance(done: float) -> None:
                nonlocal shown
                progress[0] = done
                now = int(total * done)
                bar(now - shown)
                shown = now

            trainer.run(
                validate=validate,
                on_event=lambda event: self._on_event(trainer, precision, event),
                advance=advance,
                stop_asked=self.stop,
            )
        if self.stop():
            raise StoppedError(
                f"stopped at step {trainer.step}; the state is saved, continue with --resume", signal=self.stop.signal
            )
        best = self.best.best
        values = {} if best is None else {**self.validations.get(best.step, {}), "step": best.step}
        return TrainResult(self.folder, values, time.monotonic() - start)

    def _held_out(self, fold: str) -> set[str]:
        if fold == "full":
            return set()
        parts = kfold(self.cases, folds=self.config.data.folds)
        return set(parts[int(fold)])

    def _state(self) -> dict[str, Any] | None:
        path = self.folder / "state.pt"
        return load_checkpoint(path) if path.is_file() else None

    def _precision(self, network: torch.nn.Module, state: dict[str, Any] | None) -> Precision:
        if state is not None:
            kept: Precision = state["precision"]
            return kept
        wanted = self.config.training.precision
        if wanted != "auto":
            return wanted
        sampling = self.config.sampling
        assert sampling.patch != "auto" and sampling.batch != "auto" and self.config.data.channels != "auto"
        batch = torch.zeros((sampling.batch, len(self.config.data.channels), *sampling.patch), device=self.device)
        best, seconds = fastest_precision(network, batch.contiguous(memory_format=torch.channels_last_3d))
        tried = ", ".join(f"{name} {value:.3f} s" for name, value in seconds.items())
        self.reporter.note(f"precision {best} is the faster one here ({tried} per step)")
        return best

    def _restore(self, trainer: Trainer, state: dict[str, Any]) -> None:
        try:
            trainer.load_state(state["trainer"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{self.folder / 'state.pt'} does not fit this run's plan: {error}") from error
        self.best = BestK(self.config.training.keep_best, tuple(Kept(s, v) for s, v in state["best"]))
        log = self.folder / "metrics.jsonl"
        truncate_records(log, trainer.step)
        self.validations = {r["step"]: r["metrics"] for r in read_records(log) if r["kind"] == "validation"}
        self.reporter.note(f"resumed at step {trainer.step}")

    def _write_environment(self, precision: Precision, network: torch.nn.Module) -> None:
        write_json(
            self.folder / "environment.json",
            {
                "vol3d": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "numpy": np.__version__,
                "device": str(self.device),
                "device_name": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else _cpu_name(),
                "threads": torch.get_num_threads(),
                "precision": precision,
                "parameters": sum(p.numel() for p in network.parameters()),
            },
        )

    def _on_event(self, trainer: Trainer, precision: Precision, event: Event) -> None:
        if event.kind == "validation":
            metrics = {k: v for k, v in event.values.items() if k != "seconds"}
            self._log(
                {"kind": "validation", "step": event.step, "seconds": event.values["seconds"], "metrics": metrics}
            )
            self.validations[event.step] = metrics
            told = ", ".join(f"{k.replace('_', ' ')} {v:.4f}" for k, v in metrics.items())
            self.reporter.note(f"step {event.step}: {told}")
            self._keep(trainer, event.step, metrics)
        elif event.kind == "epoch":
            values = {k: (v if math.isfinite(v) else None) for k, v in event.values.items()}
            self._log({"kind": "epoch", "step": event.step, **values})
        finished = trainer.progress >= 1.0
        if event.kind == "stop" or finished or time.monotonic() - self.saved_at > SECONDS_BETWEEN_SAVES:
            self._save(trainer, precision)

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

    def _save(self, trainer: Trainer, precision: Precision) -> None:
        best = [(k.step, k.score) for k in self.best.kept]
        save_checkpoint(self.folder / "state.pt", {"trainer": trainer.state(), "best": best, "precision": precision})
        weights = {"weights": trainer.averaged.state_dict(), "step": trainer.step, "metrics": {}}
        save_checkpoint(self.folder / "weights_last.pt", weights)
        records = list(read_records(self.folder / "metrics.jsonl"))
        flat = [{**r, **r.get("metrics", {})} for r in records]
        write_png(self.folder / "learning_curve.png", learning_curve(flat, metric=self.config.training.select_by))
        self.saved_at = time.monotonic()


def _weights_file(path: Path) -> Path:
    return path / "weights_last.pt" if path.is_dir() else path


def _cpu_name() -> str:
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
