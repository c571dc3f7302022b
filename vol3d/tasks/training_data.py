"""From a data set's files to cubes: fingerprint, cached cases, batches, and validation on whole volumes."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Generator, nn

from vol3d.config.tree import Config
from vol3d.datasets.cache import cache_key, cached
from vol3d.datasets.cases import Case, case_sources, oddities, open_label
from vol3d.datasets.fingerprint import CaseFacts, case_facts
from vol3d.datasets.views import BoxedView, PickedView, StackedSource
from vol3d.errors import InputError, UsageError
from vol3d.geometry.affine import spacing_of
from vol3d.metrics.report import score_case, summarise
from vol3d.patches.augment import Augmenter
from vol3d.patches.loader import ahead
from vol3d.patches.sampling import CubeSampler, SamplingSettings, TrainingCase, places_of
from vol3d.postprocess.threshold import decide
from vol3d.preprocess.pipeline import image_view, label_view, network_grid
from vol3d.shapes import Shape3, Spacing
from vol3d.tasks.assemble import inferencer_of
from vol3d.tasks.cascade import Cascade
from vol3d.tasks.earlier import cascade_view, picked_channels
from vol3d.tasks.forward import BATCH, ready
from vol3d.tasks.probabilities import Probabilities
from vol3d.tasks.reporter import Reporter, alike
from vol3d.tasks.symmetries import mirror_swap
from vol3d.training.course import Part, part_of
from vol3d.training.schedule import Precision, Stage
from vol3d.training.trainer import Batches, PatchBatch
from vol3d.volume.source import VolumeSource, read_all

VALIDATION_METRICS = ("dice", "surface_dice", "hit", "fp", "miss")


def measure(cases: Sequence[Case], reporter: Reporter, *, ignore: int | None = None) -> list[CaseFacts]:
    """The facts of every case, for the fingerprint. ignore is the label value of what is not known."""
    facts = []
    with alike(reporter) as warn, reporter.progress("reading cases", total=len(cases), unit="cases") as advance:
        for case in cases:
            image, labels = _labelled(case)
            names = [case.name, *map(str, case.images), str(case.label)]
            for oddity in oddities(image):
                warn(oddity, names)
            told = len(labels.warnings)
            found = case_facts(case.name, image, labels, labelled_box=case.labelled_box, ignore=ignore)
            facts.append(found)
            for oddity in labels.warnings[told:]:  # what reading found, such as masks that overlap
                warn(oddity, names)
            if not found.label_voxels:
                warn(f"case {case.name} has no voxel whose label is known: nothing is learned from it", names)
            elif set(found.label_voxels) <= {0}:
                warn(f"the label of case {case.name} is empty", names)
            advance(1)
    return facts


def _labelled(case: Case) -> tuple[VolumeSource, VolumeSource]:
    image, labels = case_sources(case)
    if labels is None:
        raise InputError(f"case {case.name} has no label file: training needs one")
    return image, labels


@dataclass(frozen=True)
class PreparedCase:
    """A case on the network's grid, with its spacing in mm."""

    training: TrainingCase
    spacing: Spacing


def prepare(
    cases: Sequence[Case], config: Config, cache: Path, reporter: Reporter, cascade: Cascade | None = None
) -> list[PreparedCase]:
    """Preprocess the cases into the cache, or find them there; with what an earlier run says of them."""
    prepared = []
    with reporter.progress("preprocessing", total=len(cases), unit="cases") as advance:
        for case in cases:
            prepared.append(_prepared(case, config, cache, cascade))
            advance(1)
    return prepared


def _prepared(case: Case, config: Config, cache: Path, cascade: Cascade | None) -> PreparedCase:
    image, labels = _labelled(case)
    organ = _organ(case, image, config)
    paths = [*case.images, *(file for file in (case.label, case.organ_mask if organ else None) if file)]
    name = case.name[:50]  # for people; a file's name can be no longer than 255 bytes, and the key tells cases apart
    key = cache_key(paths, (config.preprocess, case.spacing, *_unknown(case, config)))
    if case.labelled_box is not None:
        if config.data.ignore_label is None:  # a plan gives one where a box is
            raise UsageError(f"case {case.name} has a labelled box, unlike when the run was begun: give another --out")
        labels = BoxedView(labels, case.labelled_box, config.data.ignore_label)
    view = label_view(labels, config.preprocess, image=image)
    spacing = spacing_of(view.affine)
    stored_labels = cached(cache / f"{name}-{key}-labels.npy", lambda: view, np.uint8, spacing)
    stored_image: VolumeSource = cached(
        # Half precision holds normalised grey values to a thousandth, in half the space.
        cache / f"{name}-{key}-image.npy",
        lambda: image_view(image, config.preprocess, organ=organ),
        np.float16,
        spacing,
    )
    if cascade is not None:
        stored_image = StackedSource((stored_image, _from_earlier(case, image, config, cache, cascade)))
    rng = np.random.default_rng([config.training.random_seed, *os.fsencode(case.name)])
    schema, values = config.data.schema(), read_all(stored_labels)[0]
    places = {name: places_of(mask, rng) for name, mask in zip(schema.names, schema.masks(values), strict=True)}
    known = None if schema.ignore is None else values != schema.ignore
    some = None if known is None or known.all() else places_of(known, rng)
    return PreparedCase(TrainingCase(case.name, stored_image, stored_labels, places, some), spacing)


def _organ(case: Case, image: VolumeSource, config: Config) -> VolumeSource | None:
    """The case's organ mask, where grey values are normalised by those inside."""
    if not config.preprocess.needs_organ:
        return None
    if case.organ_mask is None:
        raise InputError(
            f"case {case.name} has no organ mask, and preprocess.normalisation looks at the organ's voxels: give one "
            "for each case, or say voxels all"
        )
    return open_label(case.organ_mask, image=image, spacing=case.spacing)


def _from_earlier(case: Case, image: VolumeSource, config: Config, cache: Path, cascade: Cascade) -> VolumeSource:
    """The probabilities of an earlier run's models that did not learn from the case, on the network's grid."""
    run, models, regions, preprocess = cascade.run, cascade.models_for(case), config.data.cascade, config.preprocess
    channels = config.data.channels
    assert channels != "auto"
    picked = picked_channels(models[0], channels)
    answers = [(model.identity, model.plan.inference) for model in models]
    settings = (preprocess.orientation, preprocess.crop, preprocess.spacing, case.spacing)
    key = cache_key(case.images, (answers, run.precision, picked, regions, settings))

    def make() -> VolumeSource:
        earlier = Probabilities(
            models,
            PickedView(image, picked),
            precision=run.precision,
            forwards=run.forwards,
            organ=open_label(case.organ_mask, image=image, spacing=case.spacing) if case.organ_mask else None,
            advance=cascade.advance,
        )
        said = earlier.kept(cache)
        return cascade_view(said, models, regions, preprocess, network_grid(image, preprocess))

    spacing = spacing_of(label_view(image, preprocess, image=image).affine)
    return cached(cache / f"{case.name[:50]}-{key}-cascade.npy", make, np.float16, spacing)


def _unknown(case: Case, config: Config) -> tuple[object, ...]:
    """What the cached labels hold beyond the box where they were drawn, and what order masks have."""
    box = () if case.labelled_box is None else (case.labelled_box, config.data.ignore_label)
    return (*box, *case.structures)


def median_spacing(cases: Sequence[PreparedCase]) -> Spacing:
    """What patches are taken to have, in mm: axis by axis the median of the cases."""
    return Spacing(*(float(v) for v in np.median([c.spacing for c in cases], axis=0)))


def batches_of(
    cases: Sequence[PreparedCase], config: Config, device: torch.device, progress: Callable[[], float]
) -> Batches:
    """The function that yields augmented batches from a step of a stage on, by default of the first."""
    stages = config.training.stages or (Stage(),)
    makers = [_batch_of(cases, config, _sampling(config.sampling, stage), device) for stage in stages]
    whole = part_of(config.training, 0, 0)

    def batches(first: int, part: Part = whole) -> Iterator[PatchBatch]:
        def make(step: int) -> PatchBatch:
            # Batches are made ahead: what is done by then is the step's, unless time is what counts.
            return makers[part.number](step, max(part.progress(step), progress()))

        threads = config.training.batches_ahead
        return ahead(make, first, part.first + part.steps, threads=threads, depth=2 * threads)

    return batches


def _sampling(sampling: SamplingSettings, stage: Stage) -> SamplingSettings:
    """The settings with what a stage has of its own."""
    if stage.foreground is not None:
        sampling = replace(sampling, foreground=stage.foreground, foreground_end=None)
    return replace(sampling, patch=stage.patch or sampling.patch, batch=stage.batch or sampling.batch)


def _batch_of(
    cases: Sequence[PreparedCase], config: Config, sampling: SamplingSettings, device: torch.device
) -> Callable[[int, float], PatchBatch]:
    """The function that makes the batch of a step, when so much of the training is done."""
    assert sampling.patch != "auto" and sampling.batch != "auto"
    random_seed = config.training.random_seed
    spacing = median_spacing(cases)
    swap = mirror_swap(config)
    augmenter = Augmenter(
        config.augmentation,
        Shape3(*sampling.patch),
        spacing,
        swap.values if swap else None,
        grey=None if config.data.channels == "auto" else len(config.data.channels),
    )
    known = [c.training for c in cases if c.training.known is None or len(c.training.known)]
    if not known:
        raise InputError(f"no voxel of the {len(cases)} cases to learn from has a label that is known")
    beyond = config.data.ignore_label or 0
    sampler = CubeSampler(known, sampling, augmenter.cube, sampling.batch, random_seed, beyond)

    def make(step: int, progress: float) -> PatchBatch:
        batch = sampler.sample(step, progress)
        generator = Generator().manual_seed(int(np.random.SeedSequence([random_seed, step]).generate_state(1)[0]))
        images, labels = augmenter(
            torch.from_numpy(batch.images).to(device), torch.from_numpy(batch.labels).to(device), generator
        )
        return PatchBatch(images, labels, batch.cases)

    return make


def validation_of(
    cases: Sequence[PreparedCase], config: Config, precision: Precision, device: torch.device, reporter: Reporter
) -> Callable[[nn.Module], dict[str, float]]:
    """The function that scores a network on whole volumes, on the network's grid: means over cases and regions."""
    schema = config.data.schema()

    def validate(network: nn.Module) -> dict[str, float]:
        inferencer = inferencer_of(ready(network, precision, device), config, batch=BATCH, device=device)
        scores = []
        with reporter.progress("validating", total=len(cases), unit="cases") as advance, torch.inference_mode():
            for case in cases:
                regions = np.concatenate(
                    [
                        decide(slab, schema.activation, config.postprocess.threshold).cpu().numpy()
                        for _, slab in inferencer.slabs(case.training.image)
                    ],
                    axis=1,
                )
                reference = read_all(case.training.labels)[0]
                rows = score_case(
                    schema.decode(regions), reference, schema=schema, spacing=case.spacing, metrics=VALIDATION_METRICS
                )
                scores += [(case.training.name, row) for row in rows]
                advance(1)
        means = {name: found.mean for name, found in summarise(scores)["mean"].items()}
        return {name: mean for name, mean in means.items() if mean is not None}

    return validate
