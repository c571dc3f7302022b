"""Training on a GPU: batches made beside the network, and steps that are played from a record."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vol3d.config.tree import Config
from vol3d.shapes import Shape3
from vol3d.tasks.assemble import loss_of, network_of
from vol3d.tasks.benchmark_training import _noise
from vol3d.tasks.training_data import batches_of, median_spacing
from vol3d.training.trainer import PatchBatch, Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda")
STEPS = 6


@pytest.fixture(scope="module")
def given() -> tuple[list[object], Config]:
    cases, config = _noise(Shape3(16, 24, 16), CUDA)
    training = replace(config.training, epochs=1, steps_per_epoch=STEPS, precision="float32")
    return cases, replace(config, training=training, sampling=replace(config.sampling, batch=2))


def trained(given: tuple[list[object], Config], *, record: bool) -> tuple[Trainer, list[Tensor]]:
    """A training of some steps, and the images of its batches."""
    cases, config = given
    torch.manual_seed(3)
    network = network_of(config).to(CUDA)
    seen: list[Tensor] = []

    def batches(first: int, _: object) -> Iterator[PatchBatch]:
        for batch in batches_of(cases, config, CUDA, lambda: 0.0)(first):
            seen.append(batch.images.clone())
            yield batch

    trainer = Trainer(
        network,
        loss_of(config, CUDA, median_spacing(cases)),
        batches,
        settings=config.training,
        precision="float32",
        device=CUDA,
        steady=config.loss.weights_at,
    )
    if not record:
        trainer._recorded = None
    with torch.backends.cudnn.flags(deterministic=True, allow_tf32=False):
        trainer.run(validate=None, on_event=lambda event: None)
    return trainer, seen


def test_a_recorded_training_learns_what_one_without_a_record_does(given: tuple[list[object], Config]) -> None:
    (plain, seen), (recorded, again) = trained(given, record=False), trained(given, record=True)
    assert all(torch.equal(one, other) for one, other in zip(seen, again, strict=True))
    assert recorded._recorded is not None and not recorded._recorded.refused
    assert recorded._recorded._play is not None
    for name, value in plain.network.state_dict().items():
        torch.testing.assert_close(recorded.network.state_dict()[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_batches_on_a_gpu_are_those_of_the_cpu(given: tuple[list[object], Config]) -> None:
    cases, config = given
    plain = replace(config.augmentation, noise=replace(config.augmentation.noise, chance=0.0))
    config = replace(config, augmentation=plain)
    there, here = (next(batches_of(cases, config, device, lambda: 0.0)(0)) for device in (CUDA, torch.device("cpu")))
    assert there.cases == here.cases
    torch.testing.assert_close(there.images.cpu(), here.images, rtol=1e-3, atol=1e-3)
    assert (there.labels.cpu() == here.labels).float().mean() > 0.999
