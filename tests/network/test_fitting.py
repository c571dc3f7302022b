"""Weights in a network that differs at its ends, and the channels of a first convolution."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from vol3d.network.build import NetworkSettings, build_network
from vol3d.network.fitting import Ends, ends_of, fit, other_channels, same_heads
from vol3d.network.stages import unet_settings_for
from vol3d.shapes import Shape3, Spacing

STAGES = unet_settings_for(Shape3(16, 32, 24), Spacing(3.0, 1.0, 0.8), base_features=4)
SETTINGS = [
    NetworkSettings("unet", stages=STAGES, options={"stems": 1}),
    NetworkSettings("residual_unet", stages=STAGES),
    NetworkSettings("dynunet", stages=STAGES),
    NetworkSettings("mednext", options={"init_filters": 4, "blocks_down": (1, 1), "blocks_up": (1, 1)}),
]


def state(settings: NetworkSettings, inputs: int, outputs: int) -> dict[str, Tensor]:
    return build_network(settings, inputs, outputs).state_dict()


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda one: one.name)
def test_only_the_ends_differ_with_channels_and_classes(settings: NetworkSettings) -> None:
    ours, theirs = state(settings, 2, 3), state(settings, 1, 4)
    before = torch.get_rng_state()
    ends = ends_of(ours, settings, 2, 3)
    assert torch.equal(torch.get_rng_state(), before)
    found = fit(ours, theirs, ends)
    assert found.wrong == ()
    assert set(found.adapted) == ends.looking.keys() != set()
    assert set(found.fresh) == set(ends.answering) != set()
    assert all(found.weights[name].shape == ours[name].shape for name in found.weights)
    assert found.weights.keys() == ours.keys() - set(found.fresh)


def test_what_differs_elsewhere_is_told() -> None:
    ours = {"a.weight": torch.zeros(2, 3), "b.0.weight": torch.zeros(4), "head.weight": torch.zeros(5)}
    theirs = {"a.weight": torch.zeros(2, 4), "b.1.weight": torch.zeros(4), "head.weight": torch.zeros(6)}
    found = fit(ours, theirs, Ends({}, {"head.weight"}))
    assert found.wrong == (
        "a.weight has shape (2, 4), not (2, 3)",
        "b.0.weight is missing",
        "b.1.weight is not in this network",
    )
    assert (found.weights, found.fresh) == ({}, ("head.weight",))
    # an axis beside that of the channels
    assert (
        fit(ours, {**theirs, "a.weight": torch.zeros(3, 4)}, Ends({"a.weight": 1}, ())).wrong[0].startswith("a.weight")
    )


def test_a_part_must_be_filled_and_may_have_company() -> None:
    ours = {
        name: torch.zeros(2) for name in ("enc.1.weight", "enc.1.num_batches_tracked", "enc.1.squeeze.weight", "dec.w")
    }
    theirs = {"enc.1.weight": torch.ones(2), "enc.fc.weight": torch.ones(9)}
    found = fit(ours, theirs, Ends({}, ()), part="enc.")
    assert found.wrong == ()
    assert found.unused == ("enc.fc.weight",)
    assert set(found.fresh) == ours.keys() - {"enc.1.weight"}
    longer = fit(ours, {**theirs, "enc.2.weight": torch.ones(2)}, Ends({}, ()), part="enc.")
    assert longer.wrong == ("enc.2.weight is not in this network",)
    assert fit(ours, {}, Ends({}, ()), part="enc.").wrong == ("enc.1.weight is missing",)


@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 3), (3, 4)])
def test_equal_channels_are_answered_as_before_whatever_their_number(before: int, after: int) -> None:
    generator = torch.Generator().manual_seed(0)
    conv = nn.Conv3d(before, 5, 3, bias=False)
    grey = torch.randn(1, 1, 4, 5, 6, generator=generator)
    with torch.no_grad():
        kernel = other_channels(conv.weight, after, 1)
        found = nn.functional.conv3d(grey.expand(1, after, -1, -1, -1), kernel)
        torch.testing.assert_close(found, conv(grey.expand(1, before, -1, -1, -1)))


def test_channels_by_name_keep_their_weights_and_new_ones_have_none() -> None:
    kernel = torch.arange(6.0).view(2, 3, 1, 1, 1)
    found = other_channels(kernel, 4, 1, (2, None, 0, None)).view(2, 4)
    assert found.tolist() == [[2.0, 0.0, 0.0, 0.0], [5.0, 0.0, 3.0, 0.0]]


def test_heads_are_counted_from_the_full_resolution() -> None:
    many = state(NetworkSettings("unet", stages=STAGES), 1, 2)
    one = state(NetworkSettings("unet", stages=replace(STAGES, deep_supervision=False)), 1, 2)
    heads = sum(name.startswith("decoder.heads") and name.endswith("weight") for name in many)
    assert torch.equal(same_heads(many, one)["decoder.heads.0.weight"], many[f"decoder.heads.{heads - 1}.weight"])
    assert torch.equal(same_heads(one, many)[f"decoder.heads.{heads - 1}.weight"], one["decoder.heads.0.weight"])
    assert same_heads(many, many).keys() == many.keys()
