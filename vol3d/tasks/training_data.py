"""From prepared cases to cubes: augmented batches, and validation on whole volumes."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Generator, nn

from vol3d.config.tree import Config
from vol3d.errors import InputError
from vol3d.metrics.report import score_case, summarise
from vol3d.patches.augment import Augmenter
from vol3d.patches.loader import ahead
from vol3d.patches.sampling import CubeSampler
from vol3d.postprocess.threshold import decide
from vol3d.shapes import Shape3, Spacing
from vol3d.tasks.assemble import inferencer_of
from vol3d.tasks.forward import BATCH, ready
from vol3d.tasks.preparation import PreparedCase
from vol3d.tasks.reporter import Reporter
from vol3d.tasks.symmetries import mirror_swap
from vol3d.training.schedule import Precision
from vol3d.training.trainer import PatchBatch
from vol3d.volume.source import read_all

VALIDATION_METRICS = ("dice", "surface_dice", "hit", "fp", "miss")


def batches_of(
    cases: Sequence[PreparedCase], config: Config, device: torch.device, progress: Callable[[], float]
) -> Callable[[int], Iterator[PatchBatch]]:
    """The function that yields augmented batches from a step on."""
    sampling, training = config.sampling, config.training
    assert sampling.patch != "auto" and sampling.batch != "auto"
    spacing = Spacing(*(float(v) for v in np.median([c.spacing for c in cases], axis=0)))
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
    sampler = CubeSampler(known, sampling, augmenter.cube, sampling.batch, training.random_seed, beyond)

    def make(step: int) -> PatchBatch:
        # Batches are made ahead: what is done by then is the step's, unless time is what counts.
        batch = sampler.sample(step, max(step / training.steps, progress()))
        generator = Generator().manual_seed(
            int(np.random.SeedSequence([training.random_seed, step]).generate_state(1)[0])
        )
        images, labels = augmenter(
            torch.from_numpy(batch.images).to(device), torch.from_numpy(batch.labels).to(device), generator
        )
        return PatchBatch(images, labels, batch.cases)

    def batches(first: int) -> Iterator[PatchBatch]:
        ahead_by = training.batches_ahead
        return ahead(make, first, training.steps, threads=ahead_by, depth=2 * ahead_by)

    return batches


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
