"""Predict a batch of volumes with trained runs: each output whole or not at all, finished ones not redone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
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
from vol3d.shapes import Spacing
from vol3d.tasks.assemble import choose_device
from vol3d.tasks.models import Weights, check_ensemble, load_run
from vol3d.tasks.reporter import Reporter, Silent
from vol3d.tasks.signals import StopFlag, stop_flag
from vol3d.tasks.volume_prediction import Predictor
from vol3d.training.schedule import Precision
from vol3d.version import __version__
from vol3d.volume.source import VolumeSource

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
    predictor = Predictor(opened, _precision(precision, chosen), chosen)
    predictor.steps(organ_mask is not None)
    channels = opened[0].plan.data.channels
    found = find_volumes(volume_dir, channel_suffix=len(channels) > 1)
    batch = _Batch(predictor, out, organ_mask, spacing, format, save_probability, overwrite, list(overrides), reporter)
    targets = batch.targets(found)
    reporter.note(f"{volume_dir}: {len(found)} volume{'s' if len(found) > 1 else ''}, {len(opened)} model(s), {chosen}")
    if dry_run:
        for volume, target in zip(found, targets, strict=True):
            source = batch.source_of(volume)
            reporter.note(f"{volume.name} {tuple(source.shape)}: {predictor.windows(source)} windows -> {target}")
        return PredictResult([], {})
    with lock(out), stop_flag() as stop:
        return batch.run(found, targets, stop)


def _precision(precision: Precision | Literal["auto"], device: torch.device) -> Precision:
    """bfloat16 where the machine computes it natively: the same choice every time on one machine."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"


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

    def targets(self, found: Sequence[FoundVolume]) -> list[Path]:
        """The output path of each volume.

        Raises:
            UsageError: two are the same, or one would overwrite its input.
        """
        targets = [self.out / (v.name + _ending(v.paths[0], self.format)) for v in found]
        for volume, target in zip(found, targets, strict=True):
            if targets.count(target) > 1:
                raise UsageError(f"several volumes would be written to {target}: rename one of them")
            if any(target.resolve() == p.resolve() for p in volume.paths):
                raise UsageError(f"{target} is an input: give another --out")
        return targets

    def source_of(self, volume: FoundVolume) -> VolumeSource:
        """The volume's channels as one source.

        Raises:
            InputError: they are not as many as the model's.
        """
        channels = self.predictor.models[0].plan.data.channels
        source = open_image(volume.paths, spacing=self.spacing)
        for oddity in oddities(source):
            self.reporter.warn(oddity)
        if source.channels != len(channels):
            raise InputError(
                f"{volume.paths[0]}: expected {len(channels)} channel(s) ({', '.join(channels)}), got {source.channels}"
            )
        return source

    def run(self, found: Sequence[FoundVolume], targets: Sequence[Path], stop: StopFlag) -> PredictResult:
        """All volumes, one after the other."""
        rows: list[dict[str, Any]] = []
        failed: dict[str, str] = {}
        for volume, target in zip(found, targets, strict=True):
            if stop():
                raise StoppedError(
                    f"stopped; {len(rows)} of {len(found)} volumes are done, the same command does the rest",
                    signal=stop.signal,
                )
            try:
                rows.append(self._one(volume, target))
            except (InputError, ResourceError) as error:
                if len(found) == 1:
                    raise
                failed[volume.name] = str(error)
                self.reporter.warn(str(error))
        return PredictResult(rows, failed)

    def _one(self, volume: FoundVolume, target: Path) -> dict[str, Any]:
        organ_path = self._organ_path(volume)
        made_from = {
            "input": stat_identity(volume.paths),
            "organ_mask": stat_identity([organ_path]) if organ_path else None,
            "models": [m.sha256 for m in self.predictor.models],
            "settings": [repr((m.plan.inference, m.plan.postprocess)) for m in self.predictor.models],
            "precision": self.predictor.precision,
            "spacing": self.spacing,
            "vol3d": __version__,
        }
        record_path = self.out / "records" / f"{volume.name}.json"
        probability = self.out / "probabilities" / f"{volume.name}.zarr" if self.save_probability else None
        done = self._done(target, record_path, made_from, probability)
        if done is not None:
            self.reporter.note(f"{target} is done already")
            return done
        source = self.source_of(volume)
        organ = open_label(organ_path, image=source, spacing=self.spacing) if organ_path else None
        with self.reporter.progress(volume.name, total=self.predictor.windows(source), unit="windows") as advance:
            row = self.predictor.predict(source, target, organ=organ, probability_target=probability, advance=advance)
        inputs = [str(p) for p in volume.paths]
        row = {"input": inputs[0] if len(inputs) == 1 else inputs, "output": str(target), **row}
        if probability is not None:
            row["probability"] = str(probability)
        write_json(record_path, {"made_from": made_from, "sha256": content_sha256(target), "row": row})
        for step in row["postprocess"]:
            note = f" ({step['note']})" if step["note"] else ""
            self.reporter.note(
                f"  {step['step']} {step['region']}: {step['removed']} voxels removed, {step['added']} added{note}"
            )
        return row

    def _organ_path(self, volume: FoundVolume) -> Path | None:
        if self.organ_mask is None:
            return None
        masks = {m.name: m.paths[0] for m in find_volumes(self.organ_mask, channel_suffix=False)}
        if volume.name in masks:
            return masks[volume.name]
        if len(masks) == 1 and self.organ_mask.resolve() == next(iter(masks.values())).resolve():
            return self.organ_mask  # one volume, one mask: their names need not agree
        raise InputError(
            f"no organ mask named {volume.name} in {self.organ_mask}, which has {', '.join(sorted(masks))}"
        )

    def _done(
        self, target: Path, record_path: Path, made_from: dict[str, Any], probability: Path | None
    ) -> dict[str, Any] | None:
        """The row of an earlier prediction whose output is still what it wrote.

        Raises:
            UsageError: the output is there but was made otherwise, and overwrite was not asked for.
        """
        if self.overwrite or not target.exists():
            return None
        record = json.loads(read_text(record_path)) if record_path.is_file() else None
        if record and record["made_from"] == _plain(made_from) and record["sha256"] == content_sha256(target):
            if probability is None or probability.is_dir():
                row: dict[str, Any] = record["row"]
                return row
            return None
        raise UsageError(
            f"{target} exists but was not made from this input with these models and settings: "
            "give --overwrite or another --out"
        )


def _plain(value: Any) -> Any:
    """As JSON gives it back: tuples are lists."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _ending(path: Path, format: Format) -> str:  # noqa: A002
    """The output's suffix: as asked for, or that of the input (.nii is not compressed, a folder stays one)."""
    if format != "auto":
        return f".{format}"
    return "" if path.is_dir() else suffix_of(path)
