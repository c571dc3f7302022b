"""Trainings that begin with weights of our runs, of nnU-Net, of torchvision and of MONAI."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nnunet_results
import pytest
import torch
from monai.networks.nets import SwinUNETR
from tiny import TINY_TRAINING
from torch import Tensor
from torchvision_resnets import KINDS, state_dict

from vol3d.commands.main import main_train
from vol3d.config.load import load
from vol3d.config.tree import Config, Plan
from vol3d.errors import CheckpointError, UsageError
from vol3d.files.pickled import load_pickled
from vol3d.files.runs import load_checkpoint
from vol3d.network.build import NetworkSettings, build_network, with_stages
from vol3d.shapes import Shape3, Spacing
from vol3d.tasks.assemble import network_of
from vol3d.tasks.initial_weights import begin_with, read_initial_weights, with_network_of
from vol3d.tasks.reporter import Silent
from vol3d.tasks.train import train

STILL = (
    *(word for word in TINY_TRAINING if not word.startswith(("network.", "sampling.patch"))),
    "sampling.patch={z: 8, y: 16, x: 16}",
    "training.epochs=1",
    "training.steps_per_epoch=1",
    "training.learning_rate=1e-12",
    "training.weight_decay=0",
    "inference.mirror_axes=[]",
)
"""One step that changes nothing of what it begins with."""


class Told(Silent):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    @property
    def beginning(self) -> str:
        """The sentence about the weights."""
        (sentence,) = [note for note in self.notes if note.startswith("begins with")]
        return sentence


def weights(run: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_checkpoint(run / "weights_last.pt")["weights"]
    return found


def plan(run: Path) -> Plan:
    return load(Plan, text=(run / "plan.yaml").read_text(), name="plan")


def kept(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> set[str]:
    """The names under which both have the same values."""
    return {
        name
        for name, value in ours.items()
        if name in theirs and value.shape == theirs[name].shape and torch.allclose(value, theirs[name], atol=1e-6)
    }


def two_channels(data: Path) -> list[dict[str, Any]]:
    """The tiny data with every image as two channels."""
    return [
        {"image": [image, image], "label": data / "labels" / image.name}
        for image in sorted((data / "images").iterdir())
    ]


def test_a_run_gives_its_network_too_where_nothing_is_said(tiny_data: Path, tiny_run: Path, tmp_path: Path) -> None:
    told = Told()
    (result,) = train(tiny_data, out=tmp_path, overrides=STILL, init=tiny_run, reporter=told)
    assert plan(result.run).network == plan(tiny_run / "fold_0").network
    assert kept(weights(result.run), weights(tiny_run / "fold_0")) == weights(result.run).keys()
    assert f"the network is that of {tiny_run / 'fold_0' / 'weights_last.pt'}: unet" in told.notes
    assert f"{len(weights(result.run))} tensors" in told.beginning
    assert "fresh" not in told.beginning


def test_a_resumed_training_needs_its_beginning_no_more(tiny_data: Path, tiny_run: Path, tmp_path: Path) -> None:
    stopped = tmp_path / "gone"
    shutil.copytree(tiny_run, stopped)
    (first,) = train(tiny_data, out=tmp_path / "run", overrides=STILL, init=stopped)
    shutil.rmtree(stopped)
    longer = [*(word for word in STILL if "epochs=" not in word), "training.epochs=2"]
    (second,) = train(tiny_data, out=tmp_path / "run", overrides=longer, init=stopped, resume=True)
    assert kept(weights(second.run), weights(tiny_run / "fold_0")) == weights(first.run).keys()
    with pytest.raises(CheckpointError, match="no checkpoint"):
        train(tiny_data, out=tmp_path / "other", overrides=STILL, init=stopped)


def test_other_classes_get_a_head_of_their_own_and_all_else_is_kept(
    tiny_data: Path, tiny_run: Path, tmp_path: Path
) -> None:
    told = Told()
    overrides = [*STILL, "data.labels={tube: [1]}"]
    (result,) = train(tiny_data, out=tmp_path, overrides=overrides, init=tiny_run, reporter=told)
    ours = weights(result.run)
    fresh = ours.keys() - kept(ours, weights(tiny_run / "fold_0"))
    assert fresh == {name for name in ours if name.startswith("decoder.heads.")}
    assert "left fresh: decoder.heads (2)" in told.beginning


def test_another_channel_begins_without_weight_and_the_known_one_keeps_its_own(
    tiny_data: Path, tiny_run: Path, tmp_path: Path
) -> None:
    told = Told()
    known = plan(tiny_run / "fold_0").data.channels[0]
    overrides = [*STILL, f"data.channels=[new, {known}]"]
    (result,) = train(two_channels(tiny_data), out=tmp_path, overrides=overrides, init=tiny_run, reporter=told)
    ours, theirs = weights(result.run), weights(tiny_run / "fold_0")
    (adapted,) = ours.keys() - kept(ours, theirs)
    torch.testing.assert_close(ours[adapted][:, 1:], theirs[adapted], atol=1e-6, rtol=0)
    assert ours[adapted][:, 0].abs().max() < 1e-6
    assert "with other channels: encoder.stages (1)" in told.beginning


def test_fewer_heads_are_those_of_the_finer_resolutions(tiny_data: Path, tmp_path: Path) -> None:
    sizes = ["network.base_features=4", "sampling.patch={z: 16, y: 16, x: 16}"]
    (first,) = train(tiny_data, out=tmp_path / "first", overrides=[*STILL, *sizes])
    overrides = [*STILL, *sizes, "network.options={deep_supervision: false}"]
    (result,) = train(tiny_data, out=tmp_path / "second", overrides=overrides, init=first.run)
    ours, theirs = weights(result.run), weights(first.run)
    last = max(name for name in theirs if name.endswith("weight") and "heads" in name)
    torch.testing.assert_close(ours["decoder.heads.0.weight"], theirs[last], atol=1e-6, rtol=0)


@pytest.mark.parametrize("place", ["", "fold_0", "fold_0/checkpoint_final.pth"])
def test_nnunet_gives_its_network_and_weights(place: str, tiny_data: Path, tmp_path: Path) -> None:
    results = nnunet_results.write_results(tmp_path / "results")
    command = [str(tiny_data), *STILL, "--out", str(tmp_path / "run"), "--init", str(results / place)]
    assert main_train(command) == 0
    run = tmp_path / "run" / "fold_0"
    ours = weights(run)
    theirs = nnunet_results.random_unet(nnunet_results.PLAIN).state_dict()
    assert ours.keys() == theirs.keys()
    # its axes are x, z, y
    convolution = "encoder.stages.1.0.conv.weight"
    torch.testing.assert_close(ours[convolution], theirs[convolution].permute(0, 1, 3, 4, 2), atol=1e-6, rtol=0)
    assert plan(run).network.stages.strides[1] == (2, 2, 1)  # type: ignore[union-attr]


def test_two_classes_of_nnunet_become_one_region(tiny_data: Path, tmp_path: Path) -> None:
    labels = {"background": 0, "tube": 1}
    results = nnunet_results.write_results(tmp_path / "results", labels=labels, answers=2)
    told = Told()
    overrides = [*STILL, "data.labels={tube: [1]}"]
    (result,) = train(tiny_data, out=tmp_path / "run", overrides=overrides, init=results, reporter=told)
    theirs = nnunet_results.random_unet(nnunet_results.PLAIN, answers=2).state_dict()["decoder.heads.1.weight"]
    ours = weights(result.run)["decoder.heads.1.weight"]
    torch.testing.assert_close(ours, theirs[1:] - theirs[:1], atol=1e-6, rtol=0)
    assert "fresh" not in told.beginning


class Harm:
    """What runs when it is opened."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("opened",)


def test_files_that_can_run_code_are_opened_on_request_alone(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "swin.pt"
    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}, "made_by": Harm()}, path)
    command = [str(tiny_data), *STILL, "--out", str(tmp_path / "run"), "--init", str(path)]
    assert main_train(command) == 6
    told = capsys.readouterr()
    assert "opened" not in told.out
    assert "--trust-pickle" in told.err
    assert main_train([*command, "--trust-pickle"]) == 6  # and then its names are those of nothing
    told = capsys.readouterr()
    assert "opened" in told.out
    assert f"{path}: its names are those of no network" in " ".join(told.err.split())


def test_a_resnet_of_pictures_fits_an_encoder_of_volumes(tmp_path: Path) -> None:
    theirs = state_dict("resnet34")
    torch.save({"state_dict": {f"module.{name}": value for name, value in theirs.items()}}, tmp_path / "resnet.pth")
    initial = read_initial_weights(tmp_path / "resnet.pth")
    told = ["data.channels=[ct]", "data.labels={tube: [1]}"]
    config = with_network_of(load(Config, text=None, name="", overrides=told), initial, Silent())
    assert config.network == NetworkSettings("resnet34_unet")
    config = replace(config, network=with_stages(config.network, Shape3(2, 32, 32), Spacing(1.0, 1.0, 1.0), 4))
    network = network_of(config)
    sentence = begin_with(network, config, initial)
    ours = network.state_dict()
    first = theirs["conv1.weight"].sum(dim=1)[:, None, None]
    torch.testing.assert_close(ours["encoder.conv1.weight"], first)
    deep = "layer4.2.conv2.weight"
    assert torch.equal(ours[f"encoder.{deep}"], theirs[deep][:, :, None])
    assert "with other channels: encoder.conv1 (1)" in sentence
    assert "not used of it: encoder.fc (2)" in sentence
    assert "left fresh: stems.conv, stems.norm, decoder.ups" in sentence


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_begins_with_a_resnet_of_pictures(kind: str, tiny_data: Path, tmp_path: Path) -> None:
    theirs = state_dict(kind)
    torch.save(theirs, tmp_path / "resnet.pth")
    command = [*STILL, "sampling.patch={z: 2, y: 32, x: 32}"]
    command = [str(tiny_data), *command, "--out", str(tmp_path / "run"), "--init", str(tmp_path / "resnet.pth")]
    assert main_train(command) == 0
    deep = "layer4.2.conv2.weight"
    ours = weights(tmp_path / "run" / "fold_0")
    torch.testing.assert_close(ours[f"encoder.{deep}"], theirs[deep][:, :, None], atol=1e-6, rtol=0)
    assert plan(tmp_path / "run" / "fold_0").network.name == f"{kind}_unet"


def small_swin(answers: int = 3) -> SwinUNETR:
    torch.manual_seed(4)
    return SwinUNETR(in_channels=1, out_channels=answers, feature_size=12, spatial_dims=3)


def self_supervised(network: SwinUNETR) -> dict[str, Tensor]:
    """Its encoder as MONAI's pretraining stores it, with heads that nobody needs later."""
    renamed = {
        f"module.{name.removeprefix('swinViT.').replace('.linear', '.fc')}": value
        for name, value in network.state_dict().items()
        if name.startswith("swinViT.")
    }
    return {**renamed, "module.rotation_head.weight": torch.zeros(4, 3), "module.norm.weight": torch.zeros(96)}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["whole", "encoder"])
def test_swinunetr_of_monai_begins_the_whole_or_the_encoder(form: str, tiny_data: Path, tmp_path: Path) -> None:
    network = small_swin(answers=5)
    stored = network.state_dict() if form == "whole" else self_supervised(network)
    torch.save({"state_dict": stored, "epoch": 3}, tmp_path / "swin.pt")
    told = Told()
    overrides = [*STILL, "sampling.patch={z: 32, y: 64, x: 32}", "sampling.batch=1"]
    (result,) = train(tiny_data, out=tmp_path / "run", overrides=overrides, init=tmp_path / "swin.pt", reporter=told)
    assert plan(result.run).network.options == {"feature_size": 12}
    ours, theirs = weights(result.run), network.state_dict()
    fresh = ours.keys() - kept(ours, theirs)
    if form == "whole":
        assert fresh == {"out.conv.conv.weight", "out.conv.conv.bias"}
        assert "left fresh: out.conv (2)" in told.beginning
    else:
        assert {name for name in ours if name.startswith("swinViT.")}.isdisjoint(fresh)
        assert "not used of it: swinViT.rotation_head, swinViT.norm (2)" in told.beginning


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["network.base_features=3"], r"weights_last\.pt \(weights of vol3d\) does not fit the network unet: 1 tensors "
         r"fit; .* has shape .*, not .* and \d+ more; without network settings"),
        (["network.name=fcn"], "does not fit the network fcn: .* is missing"),
        (["network.options={stems: 1}", "network.base_features=4"], r"stems\.0\.0\.conv\.weight is missing"),
    ],
)  # fmt: skip
def test_what_fits_another_network_is_refused(
    overrides: list[str], sentence: str, tiny_data: Path, tiny_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        train(tiny_data, out=tmp_path, overrides=[*STILL, *overrides], init=tiny_run)
    assert not (tmp_path / "fold_0" / "config.yaml").exists()


def test_a_resnet_begins_no_other_network_and_no_shorter_one(tiny_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "resnet.pth"
    torch.save(state_dict("resnet34"), path)
    with pytest.raises(CheckpointError, match=r"torchvision's ResNet\) does not fit the network unet: 0 tensors fit"):
        train(tiny_data, out=tmp_path / "run", overrides=[*STILL, "network.base_features=4"], init=path)
    longer = {**state_dict("resnet34"), "layer3.6.conv1.weight": torch.zeros(256, 256, 3, 3)}
    torch.save(longer, path)
    overrides = [*STILL, "sampling.patch={z: 2, y: 32, x: 32}"]
    with pytest.raises(CheckpointError, match=r"encoder\.layer3\.6\.conv1\.weight is not in this network"):
        train(tiny_data, out=tmp_path / "run", overrides=overrides, init=path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"epoch": 3}, "holds no weights: expected tensors by name, at its top or under state_dict or"),
        ({"a.weight": torch.zeros(2)}, "its names are those of no network"),
        ({"network_weights": {}, "init_args": {"configuration": "3d_fullres"}}, "neither the plans beside"),
    ],
)
def test_files_without_weights_that_are_known_are_refused(
    content: dict[str, Any], sentence: str, tiny_data: Path, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "some.pth")
    with pytest.raises(CheckpointError, match=sentence):
        train(tiny_data, out=tmp_path / "run", overrides=STILL, init=tmp_path / "some.pth")


@pytest.mark.parametrize(
    "content", [b"data:\n  labels: auto\n", b"", b"\x80\x02", b"0" * 64, b"\xff" * 64, b"S'a\n", b"h"]
)
def test_what_is_no_file_of_torch_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"some\.yaml (cannot be read|holds what is no checkpoint)"):
        load_pickled(tmp_path / "some.yaml")


def test_several_folds_want_a_choice(tiny_data: Path, tmp_path: Path) -> None:
    results = nnunet_results.write_results(tmp_path / "results", folds=("0", "1"))
    with pytest.raises(UsageError, match="has 2 folds: give one of them"):
        train(tiny_data, out=tmp_path / "run", overrides=STILL, init=results)


def test_weights_that_are_not_finite_are_refused(tiny_data: Path, tmp_path: Path) -> None:
    results = nnunet_results.write_results(tmp_path / "results")
    path = results / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    content["network_weights"]["decoder.seg_layers.2.weight"][0] = torch.nan
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="not finite"):
        train(tiny_data, out=tmp_path / "run", overrides=STILL, init=path)


def test_the_plans_in_a_checkpoint_stand_in_for_those_beside_it(tiny_data: Path, tmp_path: Path) -> None:
    network = nnunet_results.random_unet(nnunet_results.PLAIN)
    told = nnunet_results.checkpoint(network, nnunet_results.PLAIN)
    told["init_args"] |= {"plans": nnunet_results.plans(), "dataset_json": nnunet_results.dataset()}
    torch.save(told, tmp_path / "alone.pth")
    (result,) = train(tiny_data, out=tmp_path / "run", overrides=STILL, init=tmp_path / "alone.pth")
    assert "decoder.heads.0.weight" in kept(weights(result.run), network.state_dict())


def test_a_network_by_a_plan_is_that_of_the_plan(tiny_run: Path) -> None:
    # what with_network_of takes over builds what the weights fit
    stored = plan(tiny_run / "fold_0")
    network = build_network(stored.network, stored.data.inputs, stored.data.schema().channels)
    network.load_state_dict(weights(tiny_run / "fold_0"))
