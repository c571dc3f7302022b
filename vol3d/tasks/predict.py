"""Predict a batch of volumes with trained runs: each output whole or not at all, finished ones not redone."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from vol3d.datasets.cases import oddities, open_image, open_label
from vol3d.errors import InputError, ResourceError, StoppedError, UsageError
from vol3d.files.atomic import read_text, write_json
from vol3d.files.identity import content_sha256, stat_identity
from vol3d.files.lock import lock
from vol3d.files.names import suffix_of
from vol3d.files.volumes import FoundVolume, find_volumes
from vol3d.geometry.affine import spacing_of
from vol3d.preprocess.pipeline import network_shape
from vol3d.shapes import Spacing
from vol3d.tasks.assemble import choose_device
from vol3d.tasks.models import Weights, check_ensemble, load_run
from vol3d.tasks.plugins import differing, loaded_plugins
from vol3d.tasks.reporter import Reporter, Silent
from vol3d.tasks.signals import StopFlag, stop_flag
from vol3d.tasks.volume_prediction import Predictor
from vol3d.training.schedule import Precision
from vol3d.version import __version__
from vol3d.volume.source import VolumeSource

MAX_ENLARGEMENT = 1000  # times as many voxels on the network's grid
Format = Literal["auto", "nii.gz", "nii", "tif", "npy"]


@dataclass(frozen=True)
class PredictResult:
    """A row per volume that is done (see docs/cli.md), and the volumes that failed with the reason."""

    volumes: list[dict[str, Any]]
    failed: dict[str, str]


def predict(
    volume_dir: Path,
    *,
    models: Sequence[Path],
    out: Path,
    organ_mask: Path | None = None,
    spacing: Spacing | None = None,
    format: Format = "auto",  # noqa: A002
    weights: Weights = "last",
    save_probability: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    precision: Precision | Literal["auto"] = "auto",
    overrides: Sequence[str] = (),
    dry_run: bool = False,
    reporter: Reporter | None = None,
) -> PredictResult:
    """Predict every volume of a folder (or one volume) to out.

    spacing (mm) overrides what the files say. A volume whose output is there, made from the same input,
    models and settings, and undamaged, is not predicted again.

    Raises:
        UsageError, InputError, CheckpointError, ResourceError: see their classes. Of several volumes
            those that fail are told in the result, and the others are done.
        StoppedError: a signal came; finished volumes stay.
    """
    reporter = reporter or Silent()
    chosen = choose_device(device)
    opened = [model for run in models for model in load_run(run, weights=weights, overrides=overrides)]
    check_ensemble(opened)
    for told in filter(None, dict.fromkeys(differing(model.folder) for model in opened)):
        reporter.warn(told)
    predictor = Predictor(opened, _precision(precision, chosen), chosen)
    predictor.steps(organ_mask is not None)
    channels = opened[0].plan.data.channels
    found = find_volumes(volume_dir, channel_suffix=len(channels) > 1)
    batch = _Batch(predictor, out, organ_mask, spacing, format, save_probability, overwrite, list(overrides), reporter)
    jobs = batch.jobs(found)
    reporter.note(f"{volume_dir}: {len(found)} volume{'s' if len(found) > 1 else ''}, {len(opened)} model(s), {chosen}")
    if dry_run:
        for job in jobs:
            source = batch.source_of(job.volume)
            reporter.note(
                f"{job.volume.name} {tuple(source.shape)}: {predictor.windows(source)} windows -> {job.target}"
            )
        return PredictResult([], {})
    with lock(out), stop_flag() as stop:
        return batch.run(jobs, stop)


def _precision(precision: Precision | Literal["auto"], device: torch.device) -> Precision:
    """bfloat16 where the machine computes it natively: the same choice every time on one machine."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"


@dataclass(frozen=True)
class _Job:
    """One volume: where its mask comes to lie, and what it is made from, as JSON gives it back."""

    volume: FoundVolume
    target: Path
    organ_mask: Path | None
    made_from: dict[str, Any]


@dataclass(frozen=True)
class _Batch:
    predictor: Predictor
    out: Path
    organ_mask: Path | None
    spacing: Spacing | None
    format: Format
    save_probability: bool
    overwrite: bool
    overrides: list[str]
    reporter: Reporter

    def jobs(self, found: Sequence[FoundVolume]) -> list[_Job]:
        """What there is to do.

        Raises:
            UsageError: two outputs are the same, or one would overwrite an input.
            InputError: volumes have no organ mask where masks are given.
        """
        targets = [self.out / (v.name + _ending(v.paths[0], self.format)) for v in found]
        inputs = {p.resolve() for v in found for p in v.paths}
        for target in targets:
            if targets.count(target) > 1:
                raise UsageError(f"several volumes would be written to {target}: rename one of them")
            if target.resolve() in inputs:
                raise UsageError(f"{target} is an input: give another --out")
        masks = self._organ_masks(found)
        return [
            _Job(volume, target, masks.get(volume.name), self._made_from(volume, masks.get(volume.name)))
            for volume, target in zip(found, targets, strict=True)
        ]

    def _made_from(self, volume: FoundVolume, organ_mask: Path | None) -> dict[str, Any]:
        made_from = {
            "input": stat_identity(volume.paths),
            "organ_mask": stat_identity([organ_mask]) if organ_mask else None,
            "models": [m.sha256 for m in self.predictor.models],
            "settings": [repr((m.plan.inference, m.plan.postprocess)) for m in self.predictor.models],
            "precision": self.predictor.precision,
            "spacing": self.spacing,
            "plugins": [asdict(plugin) for plugin in loaded_plugins()],
            "vol3d": __version__,
        }
        plain: dict[str, Any] = json.loads(json.dumps(made_from))
        return plain

    def source_of(self, volume: FoundVolume) -> VolumeSource:
        """The volume's channels as one source; files that say no spacing are taken to have the model's.

        Raises:
            InputError: they are not as many as the model's, or the spacing cannot be meant.
        """
        plan = self.predictor.models[0].plan
        channels, target = plan.data.channels, plan.preprocess.target
        source = open_image(volume.paths, spacing=self.spacing)
        if target and source.says == "nothing":
            self.reporter.warn(
                f"{volume.name} says no spacing and is taken to have the model's, {tuple(target)} mm along z, y, x; "
                "--spacing gives another"
            )
            source = open_image(volume.paths, spacing=target)
        for oddity in oddities(source):
            self.reporter.warn(oddity)
        if source.channels != len(channels):
            raise InputError(
                f"{volume.paths[0]}: expected {len(channels)} channel(s) ({', '.join(channels)}), got {source.channels}"
            )
        if target and network_shape(source, plan.preprocess).voxels > MAX_ENLARGEMENT * source.shape.voxels:
            raise InputError(
                f"{volume.paths[0]}: its spacing is {_told(spacing_of(source.affine))} mm, "
                f"the model's {_told(target)} mm (z, y, x); is it in another unit? Give the right one with --spacing"
            )
        return source

    def run(self, jobs: Sequence[_Job], stop: StopFlag) -> PredictResult:
        """All volumes, one after the other. A stop ends the one at hand, too: half a volume is no result."""
        done = [self._done(job) for job in jobs]
        rows: list[dict[str, Any]] = []
        failed: dict[str, str] = {}

        def check_stop() -> None:
            if stop():
                told = f"stopped; {len(rows)} of {len(jobs)} volumes are done, the same command does the rest"
                raise StoppedError(told, signal=stop.signal)

        for job, row in zip(jobs, done, strict=True):
            check_stop()
            try:
                rows.append(row or self._one(job, check_stop))
            except (UsageError, InputError, ResourceError) as error:
                if len(jobs) == 1:
                    raise
                failed[job.volume.name] = str(error)
                self.reporter.warn(str(error))
        return PredictResult(rows, failed)

    def _one(self, job: _Job, check_stop: Callable[[], None]) -> dict[str, Any]:
        volume, target = job.volume, job.target
        source = self.source_of(volume)
        organ = open_label(job.organ_mask, image=source, spacing=self.spacing) if job.organ_mask else None
        probability = self._probability(job) if self.save_probability else None
        with self.reporter.progress(volume.name, total=self.predictor.windows(source), unit="windows") as show:

            def advance(windows: int) -> None:
                show(windows)
                check_stop()

            def before_commit() -> None:
                # Whatever a kill leaves at the target from here on is ours to make again.
                write_json(self._record(job), {"made_from": job.made_from, "sha256": None, "row": None})

            row = self.predictor.predict(
                source,
                target,
                organ=organ,
                probability_target=probability,
                advance=advance,
                before_commit=before_commit,
            )
        inputs = [str(p) for p in volume.paths]
        row = {"input": inputs[0] if len(inputs) == 1 else inputs, "output": str(target), **row}
        if probability is not None:
            row["probability"] = str(probability)
        write_json(self._record(job), {"made_from": job.made_from, "sha256": content_sha256(target), "row": row})
        for step in row["postprocess"]:
            note = f" ({step['note']})" if step["note"] else ""
            self.reporter.note(
                f"  {step['step']} {step['region']}: {step['removed']} voxels removed, {step['added']} added{note}"
            )
        return row

    def _organ_masks(self, found: Sequence[FoundVolume]) -> dict[str, Path]:
        """Each volume's organ mask; empty where none are given."""
        if self.organ_mask is None:
            return {}
        masks = {m.name: m.paths[0] for m in find_volumes(self.organ_mask, channel_suffix=False)}
        if len(found) == len(masks) == 1 and self.organ_mask.resolve() == next(iter(masks.values())).resolve():
            return {found[0].name: self.organ_mask}  # one volume, one mask: their names need not agree
        missing = [v.name for v in found if v.name not in masks]
        if missing:
            raise InputError(
                f"no organ mask named {', '.join(missing)} in {self.organ_mask}, which has {', '.join(sorted(masks))}"
            )
        return masks

    def _record(self, job: _Job) -> Path:
        return self.out / "records" / f"{job.volume.name}.json"

    def _probability(self, job: _Job) -> Path:
        return self.out / "probabilities" / f"{job.volume.name}.zarr"

    def _done(self, job: _Job) -> dict[str, Any] | None:
        """The row of an earlier prediction whose output is still what it wrote.

        Raises:
            UsageError: the output is there but was made otherwise, or changed since, and overwrite was
                not asked for.
        """
        if self.overwrite or not job.target.exists():
            return None
        record = _read_record(self._record(job))
        if record.get("made_from") != job.made_from:
            raise UsageError(
                f"{job.target} exists but was not made from this input with these models and settings: "
                "give --overwrite or another --out"
            )
        if record["sha256"] is None:
            return None
        if record["sha256"] != content_sha256(job.target):
            raise UsageError(f"{job.target} was changed after it was predicted: give --overwrite or another --out")
        if self.save_probability and not self._probability(job).is_dir():
            return None
        self.reporter.note(f"{job.target} is done already")
        row: dict[str, Any] = record["row"]
        return row


def _read_record(path: Path) -> dict[str, Any]:
    """What a prediction noted beside its output; empty where there is nothing, or something else."""
    try:
        record = json.loads(read_text(path)) if path.is_file() else {}
    except (InputError, json.JSONDecodeError):
        return {}
    return record if isinstance(record, dict) and {"made_from", "sha256", "row"} <= record.keys() else {}


def _told(spacing: Spacing) -> str:
    return "(" + ", ".join(f"{step:.4g}" for step in spacing) + ")"


def _ending(path: Path, format: Format) -> str:  # noqa: A002
    """The output's suffix: as asked for, or that of the input (.nii is not compressed, a folder stays one)."""
    if format != "auto":
        return f".{format}"
    return "" if path.is_dir() else suffix_of(path)
