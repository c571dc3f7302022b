"""Predict a batch of volumes with trained runs: each output whole or not at all, finished ones not redone."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from vol3d.datasets.cases import oddities, open_image, open_label
from vol3d.datasets.given import Millimetres, PathLike, millimetres
from vol3d.datasets.to_predict import volumes_to_predict
from vol3d.errors import InputError, UsageError
from vol3d.files.legends import write_legends
from vol3d.files.lock import lock
from vol3d.files.volumes import FoundVolume, format_of
from vol3d.preprocess.pipeline import turn_of
from vol3d.shapes import Spacing
from vol3d.tasks.focus import EMPTY_ORGAN, check_organ
from vol3d.tasks.models import Weights
from vol3d.tasks.plugins import differing
from vol3d.tasks.prediction_jobs import Format, Job, OrganWish, Row, each_job, jobs_of
from vol3d.tasks.reporter import Reporter, Silent, WarnOf, alike
from vol3d.tasks.run import Run, load_run
from vol3d.tasks.signals import StopFlag, stop_flag
from vol3d.training.schedule import Precision
from vol3d.volume.source import VolumeSource


@dataclass(frozen=True)
class PredictResult:
    """A row per volume that is done (see docs/cli.md), and the volumes that failed with the reason."""

    volumes: list[Row]
    failed: dict[str, str]


def predict(
    volume_dir: PathLike,
    *,
    models: PathLike | Sequence[PathLike],
    out: PathLike,
    organ_mask: PathLike | None = None,
    organ_model: PathLike | None = None,
    organ_margin: float | None = None,
    spacing: Millimetres | None = None,
    channels: Sequence[int] = (),
    format: Format = "auto",  # noqa: A002
    weights: Weights = "last",
    model_weights: Sequence[float] = (),
    save_probability: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    precision: Precision | Literal["auto"] = "auto",
    trust_pickle: bool = False,
    overrides: Sequence[str] = (),
    dry_run: bool = False,
    reporter: Reporter | None = None,
) -> PredictResult:
    """Predict every volume of a folder (or one volume) to out, as vol3d-predict does.

    volume_dir is that folder, or the volume. models are runs, or results of nnU-Net, that are averaged, by
    model_weights; weights and trust_pickle are those of load_run. organ_mask names masks of equal names, outside
    of which nothing is kept; organ_model is a run that finds them first. With an organ_margin only the box so many
    mm around the organ is looked at instead. spacing (z, y, x in mm) overrides what the files say; channels are
    the places, from 0 on, of the model's channels in files that hold more of them; format is the masks', auto that
    of each volume. overrides are words like inference.overlap=0.25. device is auto, cpu, cuda, cuda:N or several
    with commas, precision auto, float32 or bfloat16. dry_run only tells the reporter what would be done.
    save_probability keeps each region's, as float16.

    A volume whose output is there, made from the same input, models and settings, and undamaged, is not
    predicted again; overwrite replaces one made otherwise.

    Raises:
        UsageError, InputError, CheckpointError, ResourceError: see their classes. Of several volumes
            those that fail are told in the result, and the others are done; where none is, the first error.
        StoppedError: a signal came; finished volumes stay.
    """
    reporter = reporter or Silent()
    volume_dir, out = Path(volume_dir), Path(out)
    organs, spacing = None if organ_mask is None else Path(organ_mask), millimetres(spacing)
    runs = [models] if isinstance(models, str | os.PathLike) else models
    if not runs:
        raise UsageError("expected models, one run or several, got none")
    run = load_run(
        *runs,
        weights=weights,
        model_weights=model_weights,
        overrides=overrides,
        device=device,
        precision=precision,
        trust_pickle=trust_pickle,
    )
    for told in filter(None, dict.fromkeys(differing(model.folder) for model in run.models)):
        reporter.warn(told)
    check_organ(organs, organ_model, organ_margin)
    settings = run.models[0].plan.postprocess
    if settings.operating_points:
        reporter.note(f"operating point {settings.operating_point} of {', '.join(settings.points())}")
    organ_run = None
    if organ_model is not None:
        exact = ["inference.deterministic=true"] if run.is_deterministic else []
        organ_run = load_run(organ_model, overrides=exact, device=device, precision=precision)
    run.steps(organs is not None or organ_run is not None)
    if channels and len(channels) != len(run.channels):
        raise UsageError(
            f"--channels wants a place for each channel of the model, {len(run.channels)} "
            f"({', '.join(run.channels)}), got {len(channels)}"
        )
    found = volumes_to_predict(volume_dir, run.channels, slices=run.slices)
    reporter.note(f"{volume_dir}: {_told(found, run.channels)}; {len(run.models)} model(s), {run.device}")
    return predict_volumes(
        [replace(volume, picked=tuple(channels)) for volume in found],
        run,
        out=out,
        organ=OrganWish(organs, organ_run, organ_margin),
        spacing=spacing,
        format=format,
        save_probability=save_probability,
        overwrite=overwrite,
        dry_run=dry_run,
        reporter=reporter,
    )


def predict_volumes(
    found: Sequence[FoundVolume],
    run: Run,
    *,
    out: Path,
    organ: OrganWish = OrganWish(),  # noqa: B008  # frozen
    spacing: Spacing | None = None,
    format: Format = "auto",  # noqa: A002
    save_probability: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    reporter: Reporter,
) -> PredictResult:
    """Predict volumes that were found with a run that is loaded; arguments and errors are those of predict."""
    jobs = jobs_of(found, run, out=out, organ=organ, spacing=spacing, format=format)
    with alike(reporter) as warn:
        batch = _Batch(run.for_volumes(len(jobs)), organ, jobs, spacing, save_probability, overwrite, reporter, warn)
        if dry_run:
            batch.tell()
            return PredictResult([], {})
        with lock(out), stop_flag() as stop:
            return batch.run_all(stop)


def _told(found: Sequence[FoundVolume], channels: Sequence[str]) -> str:
    """What was found: how many volumes, of what formats, and which file is which channel."""
    kinds = Counter(_kind(volume.paths[0]) for volume in found)
    only = len(kinds) == 1
    formats = ", ".join(name if only else f"{count} {name}" for name, count in kinds.most_common())
    told, first = f"{len(found)} volume{'s' if len(found) > 1 else ''} ({formats})", found[0]
    if len(first.paths) == 1:
        return told
    files = ", ".join(f"{path.name} ({channel})" for path, channel in zip(first.paths, channels, strict=False))
    return f"{told} of {len(first.paths)} files each, such as {files}"


def _kind(path: Path) -> str:
    try:
        return format_of(path).name
    except (UsageError, InputError):  # it is told when its turn comes
        return "unreadable"


@dataclass(frozen=True)
class _Batch:
    run: Run
    organ: OrganWish
    jobs: Sequence[Job]
    spacing: Spacing | None
    save_probability: bool
    overwrite: bool
    reporter: Reporter
    warn: WarnOf

    def _spacing(self, volume: FoundVolume) -> Spacing | None:
        return self.spacing or volume.spacing

    def tell(self) -> None:
        """What would be done."""
        for job in self.jobs:
            source = self._opened(job.volume)
            windows = self._windows(source)
            self.reporter.note(f"{job.volume.name} {tuple(source.shape)}: {windows} windows -> {job.target}")

    def run_all(self, stop: StopFlag) -> PredictResult:
        """All volumes, one after the other."""
        return PredictResult(*each_job(self.jobs, self._finished, self._one, stop=stop, reporter=self.reporter))

    def _finished(self, job: Job) -> Row | None:
        row = None if self.overwrite else job.finished(probability=self.save_probability)
        if row is not None:
            self.reporter.note(f"{job.target} is done already")
        return row

    def _one(self, job: Job, check_stop: Callable[[], None]) -> Row:
        source = self._opened(job.volume)
        with self.reporter.progress(job.volume.name, total=self._windows(source), unit="windows") as show:

            def advance(windows: int) -> None:
                show(windows)
                check_stop()

            row = self.run.write(
                source,
                job.target,
                organ=self._organ(job, source, advance),
                organ_margin=self.organ.margin_mm,
                probability_target=job.probability if self.save_probability else None,
                advance=advance,
                before_commit=job.begin,
            )
        inputs = [str(p) for p in job.volume.paths]
        row = {"input": inputs[0] if len(inputs) == 1 else inputs, "output": str(job.target), **row}
        if self.save_probability:
            row["probability"] = str(job.probability)
        if "organ" in row and not row["organ"]["voxels"]:
            self.warn(f"{job.volume.name}: {EMPTY_ORGAN}", [job.volume.name])
        write_legends(job.target.parent, self.run.schema)
        job.finish(row)
        for step in row["postprocess"]:
            note = f" ({step['note']})" if step["note"] else ""
            self.reporter.note(
                f"  {step['step']} {step['region']}: {step['removed']} voxels removed, {step['added']} added{note}"
            )
        return row

    def _windows(self, source: VolumeSource) -> int:
        """How many windows the run and, before it, the organ run look at."""
        own = self.run.windows(source)
        return own if self.organ.run is None else own + self.organ.run.windows(source)

    def _organ(self, job: Job, source: VolumeSource, advance: Callable[[int], None]) -> VolumeSource | None:
        if self.organ.run is not None:
            folder = job.target.parent
            return self.organ.run.organ_in(source, self.run.channels, advance=advance, scratch=folder)
        return open_label(job.organ_mask, image=source, spacing=self._spacing(job.volume)) if job.organ_mask else None

    def _opened(self, volume: FoundVolume) -> VolumeSource:
        """The volume's channels as one source; files that say no spacing are taken to have the model's."""
        source = open_image(volume.paths, spacing=self._spacing(volume), picked=volume.picked)
        if self.run.spacing and source.says == "nothing":
            self.warn(
                f"{volume.name} says no spacing and is taken to have the model's, {tuple(self.run.spacing)} mm along "
                "z, y, x; --spacing gives another",
                [volume.name],
            )
            source = open_image(volume.paths, spacing=self.run.spacing, picked=volume.picked)
        for oddity in oddities(source):
            self.warn(oddity, [str(path) for path in volume.paths])
        self.run.check(source, str(volume.paths[0]))
        if _too_flat(source, self.run):
            self.warn(
                f"{volume.name} is a single slice and the model learned from volumes: it sees nothing above and below",
                [volume.name],
            )
        return source


def _too_flat(source: VolumeSource, run: Run) -> bool:
    """Whether a source is one voxel thick along an axis where a model learned to see more."""
    return any(
        plan.inference.window != "auto" and n == 1 < plan.inference.window[axis]
        for plan in (model.plan for model in run.models)
        for axis, n in enumerate(turn_of(source, plan.preprocess).shape)
    )
