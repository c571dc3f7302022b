"""Whose weights a state dict holds is told by its names."""

import pytest
import torch
from torch import Tensor
from torchvision_resnets import KINDS, state_dict

from vol3d.network.build import NetworkSettings
from vol3d.network.pretrained import recognised


def swin(prefix: str, width: int = 48, *more: str) -> dict[str, Tensor]:
    names = ("patch_embed.proj.bias", "layers1.0.blocks.0.mlp.fc1.weight", *more)
    small = {f"{prefix}{name}": torch.zeros(1) for name in names}
    return {**small, f"{prefix}patch_embed.proj.weight": torch.zeros(width, 1, 2, 2, 2)}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
@pytest.mark.parametrize("kind", KINDS)
def test_a_resnet_is_told_by_its_blocks(kind: str, prefix: str) -> None:
    found = recognised({prefix + name: value for name, value in state_dict(kind).items()})
    assert found is not None
    assert (found.network.name, found.part) == (f"{kind}_unet", "encoder.")
    assert found.weights["encoder.conv1.weight"].shape == (64, 3, 1, 7, 7)


def test_a_swin_encoder_of_pretraining_gets_the_names_of_the_network() -> None:
    found = recognised(swin("module."))
    assert found is not None
    assert (found.network, found.part) == (NetworkSettings("swinunetr"), "swinViT.")
    assert "swinViT.layers1.0.blocks.0.mlp.linear1.weight" in found.weights


def test_a_whole_swinunetr_tells_its_width_and_version() -> None:
    stored = swin("swinViT.", 24, "layers1c.0.conv1.conv.weight")
    found = recognised({**stored, "encoder1.layer.conv1.conv.weight": torch.zeros(1)})
    assert found is not None
    assert (found.network.options, found.part) == ({"feature_size": 24, "use_v2": True}, "")
    alone = recognised(stored)
    assert alone is not None
    assert alone.part == "swinViT."


def test_other_names_are_nobodys() -> None:
    assert recognised({"encoder.weight": torch.zeros(1)}) is None
