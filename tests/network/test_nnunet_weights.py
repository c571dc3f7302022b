"""nnU-Net's weights under our names, and which of its networks are ours."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from nnunet_results import PLAIN, RESIDUAL, architecture, nnunet_names, random_unet

from vol3d.network.nnunet import in_our_axes, one_answer, unet_settings_of, unet_weights_of
from vol3d.network.stages import UNetSettings
from vol3d.network.unet import UNet
from vol3d.shapes import Shape3

BOTH = pytest.mark.parametrize("settings", [PLAIN, RESIDUAL], ids=["plain", "residual"])


@BOTH
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_every_weight_finds_its_layer(settings: UNetSettings, prefix: str) -> None:
    network = random_unet(settings)
    theirs = {prefix + name: value for name, value in nnunet_names(network, settings).items()}
    found = unet_weights_of(theirs, settings)
    assert found.keys() == network.state_dict().keys()
    assert all(torch.equal(found[name], value) for name, value in network.state_dict().items())


def test_a_bias_before_an_instance_norm_says_nothing() -> None:
    # so that it can be left out
    network = random_unet(PLAIN)
    image = torch.randn(1, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = network(image)
        conv = network.encoder.stages[1][0].conv
        conv.bias = torch.nn.Parameter(torch.full((6,), 7.0))
        torch.testing.assert_close(network(image), before, atol=1e-4, rtol=1e-4)


def test_a_network_without_biases_gets_none() -> None:
    theirs = {
        n: v for n, v in nnunet_names(random_unet(PLAIN), PLAIN).items() if "transpconvs" not in n or "weight" in n
    }
    found = unet_weights_of(theirs, PLAIN)
    assert all(not found[f"decoder.ups.{stage}.bias"].any() for stage in range(3))
    UNet(PLAIN, 1, 3).load_state_dict(found)


def test_what_has_no_counterpart_keeps_its_name() -> None:
    assert unet_weights_of({"encoder.attention.weight": torch.zeros(1)}, PLAIN).keys() == {"encoder.attention.weight"}


@BOTH
def test_kernels_of_turned_axes_are_turned_back(settings: UNetSettings) -> None:
    network = random_unet(settings)
    stages, weights = in_our_axes(settings, network.state_dict(), (2, 0, 1))  # their z, y, x are our x, z, y
    ours = UNet(stages, 1, 3).eval()
    ours.load_state_dict(weights)
    image = torch.randn(1, 1, 4, 16, 8, generator=torch.Generator().manual_seed(1))  # x, z, y
    with torch.no_grad():
        theirs = network(image)
        turned = ours(image.permute(0, 1, 3, 4, 2))
    torch.testing.assert_close(turned, theirs.permute(0, 1, 3, 4, 2), atol=1e-4, rtol=1e-3)


def test_two_classes_are_one_region() -> None:
    two = random_unet(PLAIN, answers=2).eval()
    one = UNet(PLAIN, 1, 1).eval()
    one.load_state_dict(one_answer(two.state_dict()))
    image = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(one(image).sigmoid(), two(image).softmax(dim=1)[:, 1:], atol=1e-5, rtol=1e-5)


@BOTH
def test_plans_of_both_generations_tell_the_same_network(settings: UNetSettings) -> None:
    new = architecture(settings)
    flat = {
        "UNet_class_name": new["network_class_name"].split(".")[-1],
        "UNet_base_num_features": 4,
        "unet_max_num_features": 9,
        "n_conv_per_stage_encoder": list(settings.convs),
        "n_conv_per_stage_decoder": [settings.decoder_convs] * 3,
        "conv_kernel_sizes": [list(k) for k in settings.kernels],
        "pool_op_kernel_sizes": [list(s) for s in settings.strides],
    }
    assert unet_settings_of({"architecture": new}) == settings
    assert unet_settings_of(flat) == UNetSettings(
        (4, 8, 9, 9), settings.kernels, settings.strides, settings.convs, settings.decoder_convs, settings.encoder
    )


def test_one_number_stands_for_every_stage() -> None:
    new = architecture(PLAIN)
    new["arch_kwargs"] |= {"kernel_sizes": 3, "n_conv_per_stage": 2, "n_conv_per_stage_decoder": 1}
    settings = unet_settings_of({"architecture": new})
    assert settings.kernels == (Shape3(3, 3, 3),) * 4
    assert (settings.convs, settings.decoder_convs) == ((2, 2, 2, 2), 1)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"conv_op": "torch.nn.modules.conv.Conv2d"}, "conv_op: expected Conv3d"),
        ({"norm_op": "torch.nn.BatchNorm3d"}, "norm_op: expected InstanceNorm3d"),
        ({"norm_op_kwargs": {"eps": 1e-3, "affine": True}}, "eps 1e-5"),
        ({"norm_op_kwargs": None}, "affine"),
        ({"nonlin": "torch.nn.ReLU"}, "nonlin: expected LeakyReLU"),
        ({"nonlin_kwargs": {"negative_slope": 0.2}}, "slope of 0.01"),
        ({"stem_channels": 5}, "stem_channels: 5"),
        ({"n_conv_per_stage_decoder": [1, 2, 2]}, "every decoder stage"),
    ],
)
def test_layers_that_ours_has_not_are_refused(changed: dict[str, Any], sentence: str) -> None:
    other = deepcopy(architecture(PLAIN))
    other["arch_kwargs"] |= changed
    with pytest.raises(ValueError, match=sentence):
        unet_settings_of({"architecture": other})


def test_another_network_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match="got primus"):
        unet_settings_of({"architecture": architecture(PLAIN) | {"network_class_name": "primus"}})
