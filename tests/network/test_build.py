"""Every network by name keeps the same contract."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vol3d.network.build import _NETWORKS, NetworkSettings, build_network, network_multiple, register_network
from vol3d.network.unet import unet_settings_for
from vol3d.shapes import Shape3, Spacing

STAGES = unet_settings_for(Shape3(16, 32, 24), Spacing(3.0, 1.0, 0.8), base_features=4)
NETWORKS = [
    NetworkSettings("unet", stages=STAGES),
    NetworkSettings("residual_unet", stages=STAGES),
    NetworkSettings("dynunet", stages=STAGES),
    NetworkSettings("dynunet", stages=replace(STAGES, encoder="residual")),
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
    outputs = outputs if isinstance(outputs, list) else [outputs]
    sum(o.square().mean() for o in outputs).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    assert outputs[0].shape == (1, 3, *shape)
    with torch.no_grad():
        network.eval()
        first, second = network(image), network(image)
    assert isinstance(first, Tensor)
    assert first.shape == (1, 3, *shape)
    assert torch.equal(first, second)


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
        ({"name": "unet", "stages": STAGES, "options": {"feature_size": 3}}, "takes no options"),
        ({"name": "segresnet", "options": {"init_filter": 8}}, "did you mean 'init_filters'"),
    ],
    ids=["near", "far", "features", "unplanned", "options", "option"],
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
