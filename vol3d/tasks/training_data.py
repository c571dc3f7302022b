"""From prepared cases to cubes: augmented batches, and validation on whole volumes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Generator, nn

from vol3d.config.tree import Config
from vol3d.errors import InputError
from vol3d.metrics.report import score_case, summarise
from vol3d.patches.augment import Augmenter
from vol3d.patches.loader import ahead
from vol3d.patches.sampling import CubeSampler, SamplingSettings
from vol3d.postprocess.threshold import decide
from vol3d.shapes import Shape3, Spacing
from vol3d.tasks.assemble import inferencer_of
from vol3d.tasks.forward import BATCH, ready
from vol3d.tasks.preparation import PreparedCase
from vol3d.tasks.reporter import Reporter
from vol3d.tasks.symmetries import mirror_swap
from vol3d.training.course import Part, part_of
from vol3d.training.schedule import Precision, Stage
from vol3d.training.trainer import Batches, PatchBatch
from vol3d.volume.source import read_all

VALIDATION_METRICS = ("dice", "surface_dice", "hit", "fp", "miss")


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
