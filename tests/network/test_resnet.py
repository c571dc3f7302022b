"""The ResNet encoders see each slice as torchvision's networks see a picture."""

import pytest
import torch
from torchvision_resnets import KINDS, features, state_dict

from vol3d.network.build import NetworkSettings, build_network, with_stages
from vol3d.network.resnet import MAPS, ResNet, ResNetEncoder
from vol3d.shapes import Shape3, Spacing

IN_PLANE = (Shape3(1, 2, 2),) * 5


@pytest.mark.parametrize("kind", KINDS)
def test_the_maps_of_a_slice_are_those_of_the_picture(kind: ResNet) -> None:
    weights = state_dict(kind)
    encoder = ResNetEncoder(kind, 3, IN_PLANE, "none").eval()
    ours = {name: v.unsqueeze(2) if v.ndim == 4 else v for name, v in weights.items() if not name.startswith("fc.")}
    encoder.load_state_dict(ours)
    slices = torch.randn(1, 3, 2, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        nothing, *maps = encoder(slices)
        for z in range(2):
            for found, expected in zip(maps, features(weights, slices[:, :, z]), strict=True):
                torch.testing.assert_close(found[:, :, z], expected, atol=1e-5 * expected.max().item(), rtol=1e-3)
    assert nothing.shape == (1, 0, 2, 64, 96)
    assert tuple(one.shape[1] for one in maps) == MAPS[kind]


def test_strides_along_z_are_settings() -> None:
    strides = (Shape3(1, 2, 2), Shape3(2, 2, 2), Shape3(1, 2, 2), Shape3(2, 2, 2), Shape3(1, 1, 1))
    maps = ResNetEncoder("resnet34", 1, strides, "se").eval()(torch.zeros(1, 1, 8, 32, 32))
    assert [tuple(one.shape[2:]) for one in maps[1:]] == [(8, 16, 16), (4, 8, 8), (4, 4, 4), (2, 2, 2), (2, 2, 2)]


def test_a_map_without_channels_does_not_undo_channels_last() -> None:
    settings = with_stages(NetworkSettings("resnet34_unet"), Shape3(2, 32, 32), Spacing(1.0, 1.0, 1.0), 8)
    network = build_network(settings, 1, 2).eval().to(memory_format=torch.channels_last_3d)
    joined: list[torch.Tensor] = []
    network.decoder.stages[-1].register_forward_pre_hook(lambda _, inputs: joined.append(inputs[0]))
    image = torch.zeros(1, 1, 2, 32, 32).contiguous(memory_format=torch.channels_last_3d)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        network(image)
    assert joined[0].is_contiguous(memory_format=torch.channels_last_3d)
