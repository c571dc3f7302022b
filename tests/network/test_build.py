"""Every network by name keeps the same contract."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vol3d.network.build import (
    _NETWORKS,
    NetworkSettings,
    build_network,
    encoder_parameters,
    network_multiple,
    register_network,
    with_stages,
)
from vol3d.network.stages import unet_settings_for
from vol3d.shapes import Shape3, Spacing

STAGES = unet_settings_for(Shape3(16, 32, 24), Spacing(3.0, 1.0, 0.8), base_features=4)
NETWORKS = [
    NetworkSettings("unet", stages=STAGES),
    NetworkSettings("residual_unet", stages=STAGES),
    NetworkSettings("dynunet", stages=STAGES),
    NetworkSettings("dynunet", stages=replace(STAGES, encoder="residual")),
    NetworkSettings("unet", stages=STAGES, options={"decoder_attention": "scse", "stems": 2, "norm": "batch"}),
    NetworkSettings("residual_unet", stages=STAGES, options={"encoder_attention": "se", "upsampling": "overlapping"}),
    with_stages(NetworkSettings("resnet34_unet"), Shape3(4, 64, 32), Spacing(1.0, 1.0, 1.0), 4),
    with_stages(NetworkSettings("fcn", base_features=4), Shape3(1, 16, 16), Spacing(1.0, 1.0, 1.0), 9),
    with_stages(NetworkSettings("unet_5x5", base_features=4), Shape3(1, 16, 16), Spacing(1.0, 1.0, 1.0), 9),
    NetworkSettings("mednext", options={"init_filters": 4, "blocks_down": (1, 1), "blocks_up": (1, 1)}),
    NetworkSettings(
        "mednext",
        options={"init_filters": 4, "blocks_down": (1, 1), "blocks_up": (1, 1), "deep_supervision": True},
    ),
    NetworkSettings("segresnet", options={"init_filters": 8, "blocks_down": (1, 1, 1), "blocks_up": (1, 1)}),
    NetworkSettings("swinunetr", options={"feature_size": 12, "num_heads": (1, 1, 1, 1), "depths": (1, 1, 1, 1)}),
]
BY_NAME = pytest.mark.parametrize("settings", NETWORKS, ids=lambda s: s.name)


def patch_for(settings: NetworkSettings) -> tuple[int, ...]:
    """An anisotropic patch of odd multiples, large enough for a norm at the bottom."""
    return tuple(m * n for m, n in zip(network_multiple(settings), (1, 3, 1), strict=True))


@BY_NAME
def test_an_image_becomes_logits_and_every_parameter_learns(settings: NetworkSettings) -> None:
    torch.manual_seed(5)
    network = build_network(settings, 2, 3)
    for name, parameter in network.named_parameters():
        if name.endswith("conv2.norm.weight"):  # residual blocks start as their skip
            nn.init.ones_(parameter)
    shape = patch_for(settings)
    image = torch.randn(1, 2, *shape)
    outputs = network(image)
    outputs = [outputs] if isinstance(outputs, Tensor) else outputs
    sum(o.square().mean() for o in outputs).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    assert outputs[0].shape == (1, 3, *shape)
    with torch.no_grad():
        network.eval()
        first, second = network(image), network(image)
    assert isinstance(first, Tensor)
    assert first.shape == (1, 3, *shape)
    assert torch.equal(first, second)


@BY_NAME
def test_the_encoder_is_a_part_of_every_network(settings: NetworkSettings) -> None:
    network = build_network(settings, 2, 3)
    encoder, everything = {id(p) for p in encoder_parameters(network)}, {id(p) for p in network.parameters()}
    assert encoder < everything
    answering = [p for name, p in network.named_parameters() if len(p) == 3 and name.endswith("bias")]
    assert answering
    assert encoder.isdisjoint(map(id, answering))


def test_a_network_without_an_encoder_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a network with an encoder, a Conv3d has none"):
        encoder_parameters(nn.Conv3d(1, 1, 1))


@pytest.mark.parametrize(("name", "trainable", "with_statistics"), [
    ("fcn", 7_858_305, 7_864_065),
    ("unet_5x5", 19_815_025, 19_818_673),
])  # fmt: skip
def test_the_presets_for_slices_have_the_parameters_of_their_models(
    name: str, trainable: int, with_statistics: int
) -> None:
    settings = with_stages(NetworkSettings(name), Shape3(1, 512, 512), Spacing(1.0, 1.0, 1.0), 32)
    network = build_network(settings, 3, 1)
    statistics = sum(b.numel() for _, b in network.named_buffers() if b.ndim)
    count = sum(p.numel() for p in network.parameters())
    assert (count, count + statistics) == (trainable, with_statistics)
    assert network_multiple(settings)[0] == 1


def test_options_change_what_the_plan_leaves_to_them_and_stay() -> None:
    given = NetworkSettings("unet", options={"decoder_features": (4, 4, 4), "stems": 1})
    planned = with_stages(given, Shape3(16, 32, 24), Spacing(3.0, 1.0, 0.8), 4)
    assert planned.stages == replace(STAGES, decoder_features=(4, 4, 4), stems=1)
    assert planned.options == given.options
    assert with_stages(planned, Shape3(8, 8, 8), Spacing(1.0, 1.0, 1.0), 9) == planned


def test_a_slice_goes_through_the_networks_made_of_stages() -> None:
    flat = unet_settings_for(Shape3(1, 32, 24), Spacing(1.0, 1.0, 1.0), base_features=4)
    for name in ("unet", "residual_unet", "dynunet"):
        network = build_network(NetworkSettings(name, stages=flat), 1, 2).eval()
        assert network(torch.zeros(1, 1, 1, 32, 24)).shape == (1, 2, 1, 32, 24)


def test_the_residual_unet_is_the_unet_with_a_residual_encoder() -> None:
    names = [
        set(build_network(replace(NETWORKS[i], name=name, stages=stages), 1, 2).state_dict())
        for i, name, stages in [
            (0, "residual_unet", STAGES),
            (0, "unet", replace(STAGES, encoder="residual")),
        ]
    ]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "swinuntr"}, "unknown network 'swinuntr', did you mean 'swinunetr'"),
        ({"name": "zzz"}, "known are dynunet"),
        ({"base_features": 0}, "base_features must be 1 or more"),
        ({"name": "unet"}, "needs its stages"),
        ({"name": "unet", "stages": STAGES, "options": {"stem": 3}}, "no option 'stem', did you mean 'stems'"),
        ({"name": "unet", "stages": STAGES, "options": {"stems": 9}}, "options: stems must be 0 to 3"),
        ({"name": "unet", "stages": STAGES, "options": {"norm": "layer"}}, "options: norm: expected instance or batch"),
        ({"name": "dynunet", "stages": STAGES, "options": {"stems": 1}}, "'dynunet' has no stems 1: unet has it"),
        ({"name": "fcn", "stages": STAGES, "options": {"decoder_attention": "se"}}, "'fcn' has no decoder_attention"),
        ({"name": "unet", "stages": STAGES, "options": {"encoder": "resnet34"}}, "features of the encoder resnet34"),
        ({"name": "segresnet", "options": {"init_filter": 8}}, "did you mean 'init_filters'"),
    ],
    ids=["near", "far", "features", "unplanned", "option", "stems", "norm", "dynunet", "fcn", "resnet", "monai"],
)
def test_what_cannot_be_built_is_refused_with_a_sentence(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_network(NetworkSettings(**settings), 1, 1)


def test_a_registered_network_is_built_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vol3d.network.build._NETWORKS", dict(_NETWORKS))
    register_network("linear", lambda _, inputs, outputs: nn.Conv3d(inputs, outputs, 1))
    assert network_multiple(NetworkSettings("linear")) == (1, 1, 1)
    assert build_network(NetworkSettings("linear"), 2, 3)(torch.zeros(1, 2, 3, 4, 5)).shape == (1, 3, 3, 4, 5)
    with pytest.raises(TypeError, match="'own': expected a function that builds a module, got a Conv3d"):
        register_network("own", nn.Conv3d(1, 1, 1))
    register_network("nothing", lambda *_: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match=r"builder of 'nothing' to give an nn\.Module, got None"):
        build_network(NetworkSettings("nothing"), 2, 3)
    with pytest.raises(ValueError, match="exists already"):
        register_network("linear", lambda _, inputs, outputs: nn.Conv3d(inputs, outputs, 1))
