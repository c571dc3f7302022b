"""From prepared cases to cubes: augmented batches."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from vol3d.config.tree import Config
from vol3d.errors import InputError
from vol3d.patches.augment import Augmenter
from vol3d.patches.components import component_places
from vol3d.patches.loader import ahead
from vol3d.patches.sampling import CubeSampler, SamplingSettings, TrainingCase
from vol3d.shapes import Shape3, Spacing
from vol3d.tasks.preparation import PreparedCase, chance_of
from vol3d.tasks.symmetries import mirror_swap
from vol3d.training.course import Part, part_of
from vol3d.training.schedule import Stage
from vol3d.training.team import ALONE, Team
from vol3d.training.trainer import Batches, PatchBatch


def median_spacing(cases: Sequence[PreparedCase]) -> Spacing:
    """What patches are taken to have, in mm: axis by axis the median of the cases."""
    return Spacing(*(float(v) for v in np.median([c.spacing for c in cases], axis=0)))


def batches_of(
    cases: Sequence[PreparedCase],
    config: Config,
    device: torch.device,
    progress: Callable[[], float],
    team: Team = ALONE,
) -> Batches:
    """The function that yields augmented batches from a step of a stage on, by default of the first.

    Of a team each process makes its own share of a batch, from chance of its own.
    """
    stages = config.training.stages or (Stage(),)
    if config.sampling.components_wanted:
        cases = [replace(case, training=_with_components(case.training, config)) for case in cases]
    makers = [_batch_of(cases, config, _sampling(config.sampling, stage, team), device) for stage in stages]
    whole = part_of(config.training, 0, 0)

    def batches(first: int, part: Part = whole) -> Iterator[PatchBatch]:
        def make(step: int) -> PatchBatch:
            # Batches are made ahead: what is done by then is the step's, unless time is what counts.
            number = step * team.size + team.rank
            return makers[part.number](number, max(part.progress(number / team.size), progress()))

        threads = config.training.batches_ahead
        return ahead(make, first, part.first + part.steps, threads=threads, depth=2 * threads)

    return batches


def _sampling(sampling: SamplingSettings, stage: Stage, team: Team) -> SamplingSettings:
    """The settings with what a stage has of its own, and a process's share of the batch."""
    if stage.foreground is not None:
        sampling = replace(sampling, foreground=stage.foreground, foreground_end=None)
    batch = stage.batch or sampling.batch
    assert batch != "auto"
    return replace(sampling, patch=stage.patch or sampling.patch, batch=batch // team.size)


def _batch_of(
    cases: Sequence[PreparedCase], config: Config, sampling: SamplingSettings, device: torch.device
) -> Callable[[int, float], PatchBatch]:
    """The function that makes the batch of a number, when so much of the training is done."""
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
    # In the stream that is learned in, all that augmentation copies to a GPU would wait for the step under way.
    own = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def make(number: int, progress: float) -> PatchBatch:
        batch = sampler.sample(number, progress)
        generator = Generator().manual_seed(int(np.random.SeedSequence([random_seed, number]).generate_state(1)[0]))
        with torch.cuda.stream(own):
            images, labels = (_onto(device, array) for array in (batch.images, batch.labels))
            images, labels = augmenter(images, labels, generator)
            if own is not None:
                for tensor in (images, labels):
                    tensor.record_stream(torch.cuda.default_stream(device))
                own.synchronize()
        return PatchBatch(images, labels, batch.cases)

    return make


def _with_components(case: TrainingCase, config: Config) -> TrainingCase:
    """The case with some voxels of each component of its regions."""
    schema = config.data.schema()
    rng = chance_of(case.name, config)
    tables = zip(schema.names, schema.tables(), strict=True)
    return replace(case, components={name: component_places(case.labels, table, rng) for name, table in tables})


def _onto(device: torch.device, array: NDArray[Any]) -> Tensor:
    """An array on the device; a GPU takes it out of pinned memory while this thread goes on."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
