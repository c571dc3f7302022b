"""The U-Net's shapes, its rule for stages, and what training and prediction ask of it."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn

from vol3d.network.blocks import ConcurrentGate, InstanceNorm, gates
from vol3d.network.stages import UNetSettings, required_multiple, unet_settings_for
from vol3d.network.unet import UNet
from vol3d.shapes import Shape3, Spacing

LOPSIDED = UNetSettings(
    features=(4, 6, 7, 9),
    kernels=(Shape3(1, 3, 3), Shape3(1, 3, 3), Shape3(3, 3, 3), Shape3(3, 3, 5)),
    strides=(Shape3(1, 1, 1), Shape3(1, 2, 2), Shape3(2, 3, 1), Shape3(1, 1, 2)),
)
SETTINGS = pytest.mark.parametrize(
    "settings",
    [LOPSIDED, replace(LOPSIDED, encoder="residual", convs_per_stage=(1, 2, 1, 3), decoder_convs=1)],
    ids=["plain", "residual"],
)


ADDED = [
    {"stems": 2},
    {"encoder_attention": "scse", "decoder_attention": "se"},
    {"norm": "batch", "upsampling": "overlapping"},
    {"decoder_features": (3, 5, 4), "deep_supervision": False},
]


def image(batch: int = 2, channels: int = 2, shape: tuple[int, int, int] = (6, 12, 8)) -> Tensor:
    return torch.randn(batch, channels, *shape, generator=torch.Generator().manual_seed(3))


def awake(network: nn.Module) -> nn.Module:
    """A residual block starts as its skip; give its last norm a weight so that all of it counts."""
    for module in network.modules():
        if isinstance(module, InstanceNorm | nn.BatchNorm3d):
            nn.init.ones_(module.weight)
    return network


@SETTINGS
def test_training_answers_every_resolution_but_the_lowest_and_prediction_the_full_one(settings: UNetSettings) -> None:
    network = UNet(settings, 2, 3)
    assert [tuple(o.shape) for o in network(image())] == [(2, 3, 6, 12, 8), (2, 3, 6, 6, 4)]
    full = network.eval()(image())
    assert isinstance(full, Tensor)
    assert full.shape == (2, 3, 6, 12, 8)
    torch.testing.assert_close(full, network.train()(image())[0])


@SETTINGS
def test_gradients_reach_every_parameter(settings: UNetSettings) -> None:
    network = awake(UNet(settings, 2, 3))
    sum((logits**2).mean() for logits in network(image())).backward()
    dead = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert dead == []


@SETTINGS
def test_no_head_is_idle_without_deep_supervision(settings: UNetSettings) -> None:
    network = awake(UNet(replace(settings, deep_supervision=False), 2, 3))
    logits = network(image())
    logits.square().mean().backward()
    assert logits.shape == (2, 3, 6, 12, 8)
    assert all(p.grad is not None for p in network.parameters())


@SETTINGS
def test_prediction_is_the_same_whatever_the_norm_kernel_and_the_run(settings: UNetSettings) -> None:
    network = awake(UNet(settings, 2, 3)).eval()
    with torch.no_grad():
        first, second = network(image()), network(image())
    assert torch.equal(first, second)
    torch.testing.assert_close(first, network(image()), atol=1e-5, rtol=1e-4)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """One alone computes small convolutions by kernels that know no channels_last_3d."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@SETTINGS
@pytest.mark.usefixtures("two_threads")
def test_channels_last_and_bfloat16_change_little(settings: UNetSettings) -> None:
    network = awake(UNet(settings, 2, 3)).eval()
    with torch.no_grad():
        plain = network(image())
        network = network.to(memory_format=torch.channels_last_3d)
        fast_image = image().to(memory_format=torch.channels_last_3d)
        torch.testing.assert_close(network(fast_image), plain, atol=1e-4, rtol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(fast_image)
    assert half.dtype == torch.float32  # the last layer rounds no more
    assert half.is_contiguous(memory_format=torch.channels_last_3d)
    assert 0 < (half - plain).abs().mean() < 0.03 * plain.abs().mean()


@pytest.mark.parametrize("shape", [(2, 5, 7, 9, 3), (3, 8, 1, 6, 6)])
def test_instance_norm_and_its_gradients_are_torchs(shape: tuple[int, ...]) -> None:
    ours, torchs = InstanceNorm(shape[1], affine=True), nn.InstanceNorm3d(shape[1], affine=True)
    with torch.no_grad():
        ours.weight.uniform_(0.5, 2.0)
        ours.bias.uniform_()
    torchs.load_state_dict(ours.state_dict())
    images = [torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_() for _ in range(2)]
    answers = [norm(one) for norm, one in zip((ours, torchs), images, strict=True)]
    for answer in answers:
        answer.square().sum().backward()
    torch.testing.assert_close(*answers)
    torch.testing.assert_close(images[0].grad, images[1].grad)
    torch.testing.assert_close(ours.weight.grad, torchs.weight.grad)
    turned = images[0].detach().to(memory_format=torch.channels_last_3d)
    assert ours(turned).is_contiguous(memory_format=torch.channels_last_3d)


def test_the_skips_carry_the_image_past_the_deeper_stages() -> None:
    network = UNet(LOPSIDED, 2, 1).eval()
    nn.init.zeros_(network.decoder.ups[-1].weight)
    with torch.no_grad():
        assert network(image()).std() > 0.1


def test_every_voxel_sees_the_whole_image() -> None:
    network = UNet(LOPSIDED, 1, 1).eval()
    probe = image(1, 1).requires_grad_()
    network(probe)[0, 0, 3, 4, 5].backward()
    assert probe.grad is not None
    assert (probe.grad != 0).all()


def test_a_volume_of_one_slice_is_learned_in_its_plane() -> None:
    settings = unet_settings_for(Shape3(1, 48, 32), Spacing(0.1, 0.7, 0.7), base_features=4)
    assert set(settings.kernels) == {Shape3(1, 3, 3)}
    assert required_multiple(settings)[0] == 1
    network = awake(UNet(settings, 1, 2))
    full = network(image(2, 1, (1, 48, 32)))[0]
    full.mean().backward()
    assert full.shape == (2, 2, 1, 48, 32)


def test_the_parameters_are_those_of_the_formula() -> None:
    # convolutions without bias, two numbers per normed channel, transposed convolutions and heads with bias
    kernel, features = 27, (32, 64, 128, 256, 320, 320)
    convs = sum(kernel * a * b for a, b in zip((1, *features[:-1]), features, strict=True))
    convs += sum(kernel * f * f for f in features) + sum(3 * kernel * f * f for f in features[:-1])
    ups = sum(8 * a * b + a for a, b in pairwise(features))
    norms = 4 * sum(features) + 4 * sum(features[:-1])
    heads = sum(3 * f + 3 for f in features[:-2])
    settings = unet_settings_for(Shape3(128, 128, 128), Spacing(1, 1, 1))
    assert settings.features == features
    with torch.device("meta"):
        network = UNet(settings, 1, 3)
    assert sum(p.numel() for p in network.parameters()) == convs + ups + norms + heads


# nnU-Net's own answers for hippocampus, brain tumour, heart and prostate of the Decathlon
@pytest.mark.parametrize(
    ("patch", "spacing", "poolings", "flat_stages"),
    [
        ((40, 56, 40), (1.0, 1.0, 1.0), (3, 3, 3), 0),
        ((128, 128, 128), (1.0, 1.0, 1.0), (5, 5, 5), 0),
        ((80, 192, 160), (1.37, 1.25, 1.25), (4, 5, 5), 0),
        ((20, 320, 256), (3.6, 0.62, 0.62), (2, 6, 6), 2),
    ],
)
def test_the_rule_pools_where_nnunet_pools(
    patch: tuple[int, ...], spacing: tuple[float, ...], poolings: tuple[int, ...], flat_stages: int
) -> None:
    settings = unet_settings_for(Shape3(*patch), Spacing(*spacing))
    assert required_multiple(settings) == tuple(2**n for n in poolings)
    assert [k.z for k in settings.kernels].count(1) == flat_stages


edges = st.integers(1, 200)
sizes = st.floats(0.01, 20)


@example((8, 12, 12), (1.0, 2.0, 2.0), "plain")
@given(
    st.tuples(edges, st.integers(12, 200), st.integers(12, 200)),
    st.tuples(sizes, sizes, sizes),
    st.sampled_from(["plain", "residual"]),
)
def test_the_deepest_map_keeps_four_voxels_wherever_an_axis_was_halved(
    patch: tuple[int, int, int], spacing: tuple[float, float, float], encoder: str
) -> None:
    settings = unet_settings_for(Shape3(*patch), Spacing(*spacing), encoder=encoder, base_features=8, max_features=20)
    multiple = required_multiple(settings)
    assert all(m == 1 or -(-edge // m) >= 4 for edge, m in zip(patch, multiple, strict=True))
    assert max(settings.features) <= 20
    for before, after in pairwise(settings.kernels):
        assert all(a <= b for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("patch", [(7, 7, 7), (7, 11, 7)])
def test_a_patch_too_small_to_halve_is_refused(patch: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"no axis of a patch"):
        unet_settings_for(Shape3(*patch), Spacing(1, 1, 1))


def test_an_axis_alone_is_halved_from_twelve_on() -> None:
    assert required_multiple(unet_settings_for(Shape3(7, 12, 7), Spacing(1, 1, 1))) == (1, 2, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"features": (4, 6)},
        {"features": (4, 0, 9)},
        {"convs_per_stage": (1, 2)},
        {"convs_per_stage": 0},
        {"decoder_convs": 0},
        {"kernels": (Shape3(1, 2, 3), *LOPSIDED.kernels[1:])},
        {"strides": (Shape3(2, 2, 2), *LOPSIDED.strides[1:])},
        {"strides": (*LOPSIDED.strides[:3], Shape3(0, 1, 1))},
    ],
    ids=lambda c: next(iter(c)),
)
def test_impossible_settings_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must be|need"):
        replace(LOPSIDED, **change)  # type: ignore[arg-type]


def test_an_image_that_does_not_divide_is_refused_with_the_multiple() -> None:
    with pytest.raises(ValueError, match=r"multiples of \(2, 6, 4\), got \(6, 12, 9\)"):
        UNet(LOPSIDED, 2, 1)(image(shape=(6, 12, 9)))


@pytest.mark.parametrize("added", ADDED, ids=lambda added: min(added))
@SETTINGS
def test_what_is_added_keeps_shapes_and_learns(settings: UNetSettings, added: dict[str, Any]) -> None:
    network = awake(UNet(replace(settings, **added), 2, 3))
    outputs = network(image())
    outputs = [outputs] if isinstance(outputs, Tensor) else outputs
    assert outputs[0].shape == (2, 3, 6, 12, 8)
    sum(one.square().mean() for one in outputs).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


def test_a_stem_carries_the_image_past_the_encoder() -> None:
    for stems, carried in ((0, False), (1, True)):
        network = UNet(replace(LOPSIDED, stems=stems), 2, 1).eval()
        for parameter in network.encoder.parameters():
            nn.init.zeros_(parameter)
        with torch.no_grad():
            assert (network(image()).std() > 0.01) == carried


def test_a_gate_opened_everywhere_leaves_the_maps_alone() -> None:
    maps = image(2, 5)
    for kind, factor in (("se", 0.5), ("scse", 1.0)):
        (gate,) = gates(kind, 5)  # type: ignore[arg-type]
        for parameter in gate.parameters():
            nn.init.zeros_(parameter)
        torch.testing.assert_close(gate(maps), factor * maps)
    assert gates("none", 5) == []


def test_a_channel_gate_depends_on_means_and_a_voxel_gate_on_the_voxel() -> None:
    gate = ConcurrentGate(3)
    maps = image(1, 3)
    with torch.no_grad():
        means = maps.mean(dim=(2, 3, 4))
        hidden = (means @ gate.channels.squeeze.weight.view(-1, 3).T + gate.channels.squeeze.bias).relu()
        channels = (hidden @ gate.channels.excite.weight.view(3, -1).T + gate.channels.excite.bias).sigmoid()
        voxels = torch.einsum("bczyx,c->bzyx", maps, gate.voxels.weight.view(3)) + gate.voxels.bias
        expected = maps * (channels.view(1, 3, 1, 1, 1) + voxels.sigmoid()[:, None])
        torch.testing.assert_close(gate(maps), expected)


@pytest.mark.parametrize(("stride", "kernel"), [((1, 2, 3), (1, 4, 5)), ((2, 1, 4), (4, 1, 8))])
def test_overlapping_patches_undo_any_stride(stride: tuple[int, int, int], kernel: tuple[int, int, int]) -> None:
    settings = UNetSettings(
        (2, 3), (Shape3(1, 3, 3),) * 2, (Shape3(1, 1, 1), Shape3(*stride)), upsampling="overlapping"
    )
    network = UNet(settings, 1, 1)
    assert tuple(network.decoder.ups[0].kernel_size) == kernel
    edges = [3 * step for step in stride]
    assert network(torch.randn(2, 1, *edges)).shape == (2, 1, *edges)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"stems": 4}, "stems must be 0 to 3"),
        ({"decoder_features": (4, 5)}, r"decoder_features must be 3 channels, one fewer than features.*got \[4, 5\]"),
        ({"decoder_attention": "scse3"}, "decoder_attention: expected none or se or scse, got 'scse3'"),
        ({"encoder": "resnet50"}, r"features of the encoder resnet50 are \[64, 256, 512, 1024, 2048\]"),
    ],
)
def test_settings_that_fit_nothing_are_refused(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(LOPSIDED, **changed)
