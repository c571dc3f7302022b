"""Post-process a batch of stored probabilities: what a prediction does after the network, as often as one likes."""

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vol3d.config.tree import Config, Plan
from vol3d.datasets.cases import check_grid, open_image, open_label
from vol3d.datasets.given import PathLike
from vol3d.datasets.to_predict import volumes_to_predict
from vol3d.errors import InputError, UsageError, some
from vol3d.files.atomic import read_text
from vol3d.files.dicom import files_of_series
from vol3d.files.identity import stat_identity
from vol3d.files.legends import write_legends
from vol3d.files.lock import lock
from vol3d.files.names import fitting_name
from vol3d.files.nnunet import is_nnunet
from vol3d.files.probabilities import probability_names
from vol3d.files.runs import fold_folders
from vol3d.files.volumes import FoundVolume, create_volume, find_volumes, open_volume
from vol3d.postprocess.scene import StepReport
from vol3d.postprocess.steps import gated, needs, runs_of
from vol3d.preprocess.orient import turned_onto
from vol3d.tasks.assemble import check_step_regions, choose_device
from vol3d.tasks.models import check_overrides, overridden
from vol3d.tasks.nnunet import load_nnunet_models
from vol3d.tasks.plugins import loaded_plugins
from vol3d.tasks.postprocess_volume import Recipe, VolumePostprocessing
from vol3d.tasks.prediction_jobs import Format, Job, Row, each_job, organ_masks, targets_of
from vol3d.tasks.reporter import Reporter, Silent
from vol3d.tasks.settings import config_of
from vol3d.tasks.signals import stop_flag
from vol3d.tasks.stopwatch import peak_rss_mb
from vol3d.version import __version__
from vol3d.volume.source import VolumeSource, filling

PROBABILITIES = "probabilities"
"""Where a prediction's folder keeps them."""


@dataclass(frozen=True)
class PostprocessResult:
    """A row per volume that is done (see docs/cli.md), and the volumes that failed with the reason."""

    volumes: list[Row]
    failed: dict[str, str]


def postprocess_volumes(
    probability: PathLike,
    *,
    out: PathLike,
    model: PathLike | None = None,
    config_file: PathLike | None = None,
    organ_mask: PathLike | None = None,
    image: PathLike | None = None,
    components: bool = False,
    format: Format = "nii.gz",  # noqa: A002
    overwrite: bool = False,
    device: str = "auto",
    overrides: Sequence[str] = (),
    reporter: Reporter | None = None,
) -> PostprocessResult:
    """Turn the probability volumes of a folder (or one) into masks in out, as vol3d postprocess does.

    probability is what vol3d-predict --save-probability kept, its folder, or any float volumes with a channel per
    region. model is the run whose plan says the regions, the grey values and the steps, config_file a
    configuration that says them; without either there is one region, 1 in the masks. organ_mask and image are
    volumes of equal names. components adds NAME.components.csv. device is auto, cpu, cuda or cuda:N: where the steps
    run that can and find room there; the masks are the same. overrides are words like postprocess.threshold=0.4.

    Raises:
        UsageError, InputError, CheckpointError, ResourceError: see their classes. Of several volumes
            those that fail are told in the result, and the others are done; where none is, the first error.
        StoppedError: a signal came; finished volumes stay.
    """
    reporter, out, probability = reporter or Silent(), Path(out), Path(probability)
    if (probability / PROBABILITIES).is_dir():
        probability = probability / PROBABILITIES
    found = find_volumes(probability)
    settings = _settings(found[0], model, config_file, overrides)
    recipe = _recipe(settings, organ_given=organ_mask is not None, image_given=image is not None)
    channels = () if settings.data.channels == "auto" else settings.data.channels
    organs = {} if organ_mask is None else organ_masks(found, Path(organ_mask), "volume")
    images = {} if image is None else _images(found, Path(image), channels)
    batch = _Batch(recipe, images, components, overwrite, choose_device(device), reporter)
    targets = targets_of(found, out, format)
    jobs = [batch.job(*pair, organs) for pair in zip(found, targets, strict=True)]
    reporter.note(f"{probability}: {len(found)} volume(s), probabilities of {', '.join(recipe.schema.names)}")
    with lock(out), stop_flag() as stop:
        return PostprocessResult(*each_job(jobs, batch.finished, batch.one, stop=stop, reporter=reporter))


def _settings(
    first: FoundVolume, model: PathLike | None, config_file: PathLike | None, overrides: Sequence[str]
) -> Plan | Config:
    """What a run's plan says, or a configuration; the regions of neither are the one of the first probability."""
    if model is not None and config_file is not None:
        raise UsageError("the settings are told twice: give --model or --config, not both")
    if model is not None:
        check_overrides(overrides)
        if is_nnunet(Path(model)):
            return load_nnunet_models(Path(model), weights="last", overrides=overrides, trust_pickle=False)[0].plan
        path = fold_folders(Path(model))[0] / "plan.yaml"
        return overridden(read_text(path), str(path), overrides)
    config = config_of(config_file, overrides)
    if config.data.labels == "auto":
        path = first.paths[0]
        if (count := open_volume(path).channels) != 1:
            raise UsageError(
                f"{path} holds {count} regions, and nothing says which label values they have: give --model, --config "
                "or data.labels={NAME: [VALUE], ...}"
            )
        names = probability_names(path) or ("foreground",)
        config = replace(config, data=replace(config.data, labels={names[0]: (1,)}))
    check_step_regions(config)
    return config


def _recipe(settings: Plan | Config, *, organ_given: bool, image_given: bool) -> Recipe:
    """The settings with the steps to run, once all that these look at is there."""
    steps = settings.postprocess.chosen()
    if organ_given:
        steps = gated(steps)
    for step in steps:
        if step.needs().organ and not organ_given:
            raise UsageError(f"the step {step.name} needs an organ mask: give --organ-mask")
        if step.needs().image and not image_given:
            raise UsageError(f"the step {step.name} looks at grey values: give --image")
    if needs(steps).image and not isinstance(settings.preprocess.normalisation, tuple):
        raise UsageError("steps see grey values as a plan normalises them: give --model or preprocess.normalisation")
    if needs(steps).image and settings.preprocess.needs_organ and not organ_given:
        raise UsageError("grey values are normalised by those of the organ: give --organ-mask")
    return Recipe(settings.data.schema(), settings.preprocess, settings.postprocess, steps)


def _images(found: Sequence[FoundVolume], path: Path, channels: Sequence[str]) -> dict[str, FoundVolume]:
    """Each volume's image, by the volume's name."""
    images = volumes_to_predict(path, channels)
    if len(found) == len(images) == 1:
        return {found[0].name: images[0]}  # one volume, one image: their names need not agree
    named = {image.name: image for image in images}
    if missing := [volume.name for volume in found if volume.name not in named]:
        raise InputError(f"no image named {some(missing)} in {path}, which has {some(sorted(named))}")
    return named


@dataclass(frozen=True)
class _Batch:
    recipe: Recipe
    images: dict[str, FoundVolume]
    components: bool
    overwrite: bool
    device: torch.device
    reporter: Reporter

    def job(self, volume: FoundVolume, target: Path, organs: dict[str, Path]) -> Job:
        organ, image = organs.get(volume.name), self.images.get(volume.name)
        made_from = {
            "probability": stat_identity(volume.paths),
            "organ_mask": stat_identity([organ]) if organ else None,
            "image": stat_identity([files_of_series(path) for path in image.paths]) if image else None,
            "settings": repr(self.recipe),
            "plugins": [asdict(plugin) for plugin in loaded_plugins()],
            "vol3d": __version__,
        }
        return Job(volume, target, organ, json.loads(json.dumps(made_from)))

    def finished(self, job: Job) -> Row | None:
        row = None if self.overwrite else job.finished(probability=False)
        if row is None or (self.components and not _table_of(job).is_file()):
            return None
        self.reporter.note(f"{job.target} is done already")
        return row

    def one(self, job: Job, check_stop: Callable[[], None]) -> Row:
        source = self._opened(job.volume.paths[0])
        image = self._image(job, source)
        work = VolumePostprocessing(
            self.recipe,
            source,
            name=str(job.volume.paths[0]),
            organ=open_label(job.organ_mask, image=source) if job.organ_mask else None,
            image=image,
            scratch=job.target.parent,
            device=self.device,
        )
        schema, total = self.recipe.schema, 1 + len(runs_of(self.recipe.steps, self.recipe.schema.names))
        with self.reporter.progress(job.volume.name, total=total, unit="steps") as advance:

            def told(_: StepReport) -> None:
                advance(1)
                check_stop()

            labels = create_volume(
                job.target,
                shape=source.shape,
                dtype=np.uint8,
                affine=source.affine,
                like=image or source,
                labels=schema,
            )
            with ExitStack() as file:
                file.enter_context(filling(labels))
                reports = work.run(told)
                work.write(labels)
                if self.components:
                    work.write_components(_table_of(job))
                with work.clock("write"):
                    job.begin()
                    file.close()
            advance(1)
        write_legends(job.target.parent, schema)
        row = self._row(job, work, reports)
        job.finish(row)
        return row

    def _row(self, job: Job, work: VolumePostprocessing, reports: list[dict[str, Any]]) -> Row:
        names = ("read", "postprocess", "components", "write")
        seconds = {name: round(work.clock.seconds.get(name, 0.0), 3) for name in names}
        return {
            "input": str(job.volume.paths[0]),
            "output": str(job.target),
            "shape": list(work.probability.shape),
            "seconds": {**seconds, "total": round(work.clock.total(), 3)},
            "peak_rss_mb": peak_rss_mb(),
            "postprocess": reports,
            **({"components": str(_table_of(job))} if self.components else {}),
        }

    def _opened(self, path: Path) -> VolumeSource:
        source, names = open_volume(path), self.recipe.schema.names
        if source.channels != len(names) or probability_names(path) not in ((), names):
            held = ", ".join(probability_names(path)) or f"{source.channels} channel(s)"
            raise InputError(f"{path}: expected the probabilities of {', '.join(names)}, got {held}")
        return source

    def _image(self, job: Job, source: VolumeSource) -> VolumeSource | None:
        found = self.images.get(job.volume.name)
        if found is None:
            return None
        image = turned_onto(open_image(found.paths, spacing=found.spacing), source)
        check_grid(found.paths[0], image, job.volume.paths[0], source)
        wanted = self.recipe.preprocess.normalisation
        if needs(self.recipe.steps).image and len(wanted) != image.channels:
            raise InputError(f"{found.paths[0]}: expected {len(wanted)} channel(s), got {image.channels}")
        return image


def _table_of(job: Job) -> Path:
    return job.target.parent / fitting_name(job.volume.name, ".components.csv")
