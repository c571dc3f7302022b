"""Every network trains by its name and predicts the volumes held out."""

from pathlib import Path

import pytest
import torch
from tiny import TINY_TRAINING

from vol3d.config.load import load
from vol3d.config.tree import Plan
from vol3d.files.runs import load_checkpoint
from vol3d.network.build import _NETWORKS, encoder_parameters
from vol3d.tasks.assemble import network_of
from vol3d.tasks.train import train

TWO_STEPS = (
    *(word for word in TINY_TRAINING if not word.startswith("sampling.patch")),
    "training.epochs=1",
    "training.steps_per_epoch=2",
    "inference.mirror_axes=[]",
)
PATCH = "sampling.patch={z: 8, y: 16, x: 16}"
SLICE = "sampling.patch={z: 1, y: 32, x: 32}"
SMALL = {
    "unet": [PATCH, "network.options={decoder_attention: scse, stems: 2}"],
    "residual_unet": [PATCH],
    "fcn": [SLICE],
    "unet_5x5": [SLICE],
    "dynunet": [PATCH],
    "segresnet": [PATCH, "network.options={init_filters: 8, blocks_down: [1, 1, 1], blocks_up: [1, 1]}"],
    "mednext": [
        PATCH,
        "network.options={init_filters: 4, blocks_down: [1, 1], blocks_up: [1, 1], deep_supervision: true}",
    ],
}
LARGE = {
    "resnet34_unet": ["sampling.patch={z: 2, y: 32, x: 32}"],
    "resnet50_unet": ["sampling.patch={z: 2, y: 32, x: 32}"],
    "swinunetr": ["sampling.patch={z: 32, y: 64, x: 32}", "network.options={feature_size: 12}"],
}


def test_no_network_is_left_out() -> None:
    assert SMALL.keys() | LARGE.keys() == _NETWORKS.keys()


def trained(name: str, settings: list[str], data: Path, out: Path) -> dict[str, float]:
    (result,) = train(data, out=out, overrides=[*TWO_STEPS, *settings, f"network.name={name}"])
    return result.best


@pytest.mark.parametrize("name", SMALL)
def test_a_small_network_trains_by_its_name(name: str, tiny_data: Path, tmp_path: Path) -> None:
    assert "dice" in trained(name, SMALL[name], tiny_data, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_a_large_network_trains_by_its_name(name: str, tiny_data: Path, tmp_path: Path) -> None:
    assert "dice" in trained(name, LARGE[name], tiny_data, tmp_path)


@pytest.mark.parametrize("name", ["mednext", "dynunet", "fcn"])
def test_a_frozen_encoder_stays_as_it_was(name: str, tiny_data: Path, tmp_path: Path) -> None:
    words = [*TWO_STEPS, *SMALL[name], f"network.name={name}"]
    (first,) = train(tiny_data, out=tmp_path / "first", overrides=words)
    frozen = [*words, "training.stages=[{frozen: [encoder]}]"]
    (second,) = train(tiny_data, out=tmp_path / "second", overrides=frozen, init=first.run)
    before, after = (load_checkpoint(one.run / "weights_last.pt")["weights"] for one in (first, second))
    plan = load(Plan, text=(second.run / "plan.yaml").read_text(), name="plan")
    network = network_of(plan)
    encoder = {id(parameter) for parameter in encoder_parameters(network)}
    stay = {name for name, parameter in network.named_parameters() if id(parameter) in encoder}
    changed = {name for name in dict(network.named_parameters()) if not torch.equal(before[name], after[name])}
    assert stay
    assert changed
    assert changed.isdisjoint(stay)
