"""Losses: what they must say of perfect, empty, masked and coarser answers."""

from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vol3d.config.dump import dump
from vol3d.config.load import load
from vol3d.errors import UsageError
from vol3d.shapes import Spacing
from vol3d.training.losses import (
    _FULL_RESOLUTION,
    _TERMS,
    LossSettings,
    TermSettings,
    _balanced,
    register_loss,
    segmentation_loss,
)
from vol3d.training.reference import Activation, Reference
from vol3d.volume.labels import LabelSchema, Region

SHAPE = (5, 7, 4)
SCHEMAS: dict[Activation, LabelSchema] = {
    "softmax": LabelSchema((Region("anterior", (1,)), Region("posterior", (2,))), ignore=9),
    "sigmoid": LabelSchema((Region("liver", (1, 2)), Region("lesion", (2,))), ignore=9),
}
NAMES = sorted(_TERMS)
SPACING = Spacing(3.0, 0.8, 1.0)
# What an answer that is wrong costs, where it is not most of 1: in noise every voxel lies near the boundary, and no
# cube is all foreground.
LEAST = {"boundary_distance": 0.1, "surface_recall": 0.3}
activations = pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
terms = pytest.mark.parametrize("name", NAMES)


def batch(activation: Activation, *, random_seed: int = 1) -> tuple[Tensor, Reference]:
    """Logits, and what they are compared with: two samples, one of which lacks class 2."""
    rng = np.random.default_rng(random_seed)
    labels = rng.choice([0, 1, 2, 9], size=(2, *SHAPE), p=[0.6, 0.2, 0.1, 0.1])
    labels[1][labels[1] == 2] = 0
    target = torch.from_numpy(SCHEMAS[activation].encoding()[:, labels]).movedim(0, 1)
    logits = torch.from_numpy(rng.normal(size=target.shape).astype(np.float32))
    skeleton = torch.from_numpy(rng.random((2, 1, *SHAPE)) < 0.3)
    valid = torch.from_numpy(labels != 9)[:, None]
    return logits, Reference(target, activation, valid, skeleton, spacing=SPACING)


def only(name: str) -> LossSettings:
    return LossSettings(terms={name: 1.0})


@activations
@terms
def test_a_sure_and_right_answer_costs_nothing_and_a_sure_wrong_one_much(name: str, activation: Activation) -> None:
    _, reference = batch(activation)
    right = (reference.target.float() * 2 - 1) * 50
    empty = torch.full_like(right, -50.0)
    if activation == "softmax":
        empty[:, 0] = 50.0
    # The complement of a mask has its surface, so that it is only wrong for other terms.
    good, *bad = (segmentation_loss(x, reference, settings=only(name)) for x in (right, -right, empty))
    assert good == pytest.approx(0, abs=1e-6)
    assert max(bad) > LEAST.get(name, 0.7)


@activations
@terms
def test_voxels_that_are_not_valid_do_not_count(name: str, activation: Activation) -> None:
    logits, reference = batch(activation)
    assert reference.valid is not None
    other_logits = torch.where(reference.valid, logits, 7.0)
    other = replace(
        reference,
        target=torch.where(reference.valid, reference.target, True),
        skeleton=torch.where(reference.valid, reference.skeleton, True),  # type: ignore[call-overload]
    )
    first = segmentation_loss(logits, reference, settings=only(name))
    torch.testing.assert_close(first, segmentation_loss(other_logits, other, settings=only(name)))
    everything = segmentation_loss(other_logits, replace(other, valid=None), settings=only(name))
    assert abs(everything - first) > 1e-5


@activations
@terms
def test_all_valid_is_no_mask(name: str, activation: Activation) -> None:
    logits, reference = batch(activation)
    assert reference.valid is not None
    reference = replace(reference, target=reference.target & reference.valid)
    masked = replace(reference, valid=torch.ones_like(reference.valid))
    torch.testing.assert_close(
        segmentation_loss(logits, masked, settings=only(name)),
        segmentation_loss(logits, replace(reference, valid=None), settings=only(name)),
        rtol=1e-5,
        atol=0,
    )


@activations
@terms
@pytest.mark.parametrize("case", ["no foreground", "nothing", "nothing valid", "all foreground"])
@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_gradients_are_finite_when_something_is_empty(
    name: str, activation: Activation, case: str, scale: float
) -> None:
    logits, reference = batch(activation)
    logits = (logits * scale).requires_grad_()
    if case == "nothing valid":
        reference = replace(reference, valid=torch.zeros_like(reference.target[:, :1]))
    else:
        target = torch.full_like(reference.target, case == "all foreground")
        if activation == "softmax" and case != "nothing":
            target[:, 0], target[:, 2] = case == "no foreground", False
        reference = replace(reference, target=target)
    loss = segmentation_loss(logits, reference, settings=only(name))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    if case == "nothing valid":
        assert loss == 0
        assert not logits.grad.any()


@activations
@terms
def test_the_gradient_is_the_derivative(name: str, activation: Activation) -> None:
    logits, reference = batch(activation)
    cut = (slice(None), slice(None), slice(0, 3), slice(0, 3), slice(0, 2))
    reference = replace(
        reference,
        target=reference.target[cut],
        valid=None if reference.valid is None else reference.valid[cut],
        skeleton=None if reference.skeleton is None else reference.skeleton[cut],
    )

    def loss(x: Tensor) -> Tensor:
        return _TERMS[name](x, reference, LossSettings(surface_temperature=0.7))

    assert torch.autograd.gradcheck(loss, (logits[cut].double().requires_grad_(),), fast_mode=True)


@activations
@pytest.mark.parametrize("resolutions", [1, 2])
def test_the_terms_add_up_with_their_weights(activation: Activation, resolutions: int) -> None:
    logits, reference = batch(activation)
    outputs = [logits, logits[:, :, ::2, ::2, ::2]][:resolutions]
    single = {n: segmentation_loss(outputs, reference, settings=only(n)) for n in NAMES}
    together = LossSettings(terms={name: 0.5 + i for i, name in enumerate(NAMES)})
    total = segmentation_loss(outputs, reference, settings=together)
    torch.testing.assert_close(total, sum((0.5 + i) * single[n] for i, n in enumerate(NAMES)))


@activations
@terms
def test_weights_of_one_change_nothing_and_a_heavy_region_counts_more(name: str, activation: Activation) -> None:
    logits, reference = batch(activation)
    # The second region is answered well, the first is never found.
    logits[:, -2], logits[:, -1] = -4.0, 4 * (2.0 * reference.target[:, -1] - 1)
    settings = LossSettings(terms={name: 1.0}, hardest_share=0.5)
    plain = segmentation_loss(logits, reference, settings=settings)
    ones = segmentation_loss(logits, replace(reference, weights=torch.ones(3)), settings=settings)
    torch.testing.assert_close(ones, plain)
    heavy, light = (
        segmentation_loss(logits, replace(reference, weights=torch.tensor([1.0, weight, 1.0])), settings=settings)
        for weight in (5.0, 0.2)
    )
    assert light < plain < heavy


def test_a_ramp_brings_a_term_in() -> None:
    logits, reference = batch("softmax")
    late = LossSettings(terms={"dice": 1.0, "focal": TermSettings(0.5, ramp=(0.2, 0.6))})
    dice, focal = (segmentation_loss(logits, reference, settings=only(name)) for name in ("dice", "focal"))
    for progress, weight in ((0.0, 0.0), (0.2, 0.0), (0.3, 0.125), (0.6, 0.5), (1.0, 0.5)):
        loss = segmentation_loss(logits, reference, settings=late, progress=progress)
        torch.testing.assert_close(loss, dice + weight * focal)


def test_a_term_of_weight_zero_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Tensor:
        raise AssertionError

    monkeypatch.setitem(_TERMS, "focal", refuse)
    logits, reference = batch("softmax")
    settings = LossSettings(terms={"dice": 1.0, "focal": TermSettings(1.0, ramp=(0.5, 0.5))})
    segmentation_loss(logits, reference, settings=settings, progress=0.4)
    with pytest.raises(AssertionError):
        segmentation_loss(logits, reference, settings=settings, progress=0.5)


def test_balanced_terms_have_the_same_value_and_their_weights_as_shares() -> None:
    logits, reference = batch("softmax")
    terms = {"dice": 3.0, "cross_entropy": 1.0, "focal": 4.0}
    leaf = logits.requires_grad_()

    def gradient(settings: LossSettings) -> tuple[Tensor, Tensor]:
        loss = segmentation_loss(leaf, reference, settings=settings)
        return loss.detach(), torch.autograd.grad(loss, leaf)[0]

    plain, _ = gradient(LossSettings(terms=dict(terms)))
    balanced, found = gradient(LossSettings(terms=dict(terms), balance=True))
    torch.testing.assert_close(balanced, plain)
    expected = torch.zeros_like(found)
    for name, weight in terms.items():
        value, alone = gradient(only(name))
        expected += weight * plain / 8 / value * alone
    torch.testing.assert_close(found, expected)


def test_balance_leaves_a_term_that_is_zero_finite() -> None:
    target = torch.ones(1, 1, 3, 3, 3, dtype=torch.bool)
    settings = LossSettings(terms={"dice": 1.0, "surface_dice": 1.0, "skeleton_recall": 1.0}, balance=True)
    nothing = Reference(target, "sigmoid", skeleton=torch.zeros_like(target))
    assert torch.isfinite(segmentation_loss(torch.full(target.shape, 60.0), nothing, settings=settings))


@activations
def test_bfloat16_logits_are_summed_in_float32_under_autocast(activation: Activation) -> None:
    logits, reference = batch(activation)
    half = logits.bfloat16()
    everything = LossSettings(terms=dict.fromkeys(NAMES, 1.0))
    with torch.autocast("cpu", torch.bfloat16):
        loss = segmentation_loss(half, reference, settings=everything)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, segmentation_loss(half.float(), reference, settings=everything))


@activations
@terms
def test_nothing_leaves_the_device_nor_is_it_waited_for(name: str, activation: Activation) -> None:
    # Tensors without values: what asks for one, or mixes them with the CPU's, raises.
    logits, reference = batch(activation)
    given = {f.name: getattr(reference, f.name) for f in fields(reference)} | {"weights": torch.ones(3)}
    away = Reference(**{key: x.to("meta") if isinstance(x, Tensor) else x for key, x in given.items()})
    leaf = logits.to("meta").requires_grad_()
    loss = _TERMS[name](leaf, away, LossSettings())
    if name not in _FULL_RESOLUTION:
        coarse = leaf[..., ::2]
        loss = loss + _TERMS[name](coarse, away.at(coarse.shape[2:]), LossSettings())
    loss = _balanced([(1.0, loss), (0.5, loss)])
    loss.backward()
    assert loss.device.type == "meta"


@given(st.lists(st.sampled_from([(1, 2, 1), (2, 2, 2), (1, 3, 2)]), max_size=3))
def test_resolutions_of_one_answer_give_its_loss(strides: list[tuple[int, int, int]]) -> None:
    # the target constant over the coarsest voxels: every resolution then has the same loss
    logits, reference = batch("softmax")
    assert reference.valid is not None
    sizes = [np.ones(3, int)]
    for stride in strides:
        sizes.append(sizes[-1] * stride)

    def grown(t: Tensor, factor: np.ndarray) -> Tensor:
        for axis, n in enumerate(factor, start=2):
            t = t.repeat_interleave(int(n), axis)
        return t

    full = sizes[-1]
    outputs = [grown(logits, full // size) for size in sizes]
    fine = Reference(grown(reference.target, full), "softmax", grown(reference.valid, full))
    loss = segmentation_loss(outputs, fine, settings=LossSettings())
    expected = segmentation_loss(logits, reference, settings=LossSettings())
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)


def test_each_further_resolution_counts_half() -> None:
    reference = Reference(torch.ones(1, 1, 8, 8, 8, dtype=torch.bool), "sigmoid")
    levels = [torch.zeros(1, 1, n, n, n, requires_grad=True) for n in (8, 4, 2)]
    segmentation_loss(levels, reference, settings=only("cross_entropy")).backward()
    shares = [level.grad.sum().item() for level in levels if level.grad is not None]
    assert all(a == pytest.approx(2 * b) for a, b in pairwise(shares))
    assert sum(shares) == pytest.approx(-0.5)


@terms
@activations
def test_no_resolution_learns_from_what_is_ignored(name: str, activation: Activation) -> None:
    logits, reference = batch(activation)
    valid = torch.ones(2, 1, *SHAPE, dtype=torch.bool)
    valid[:, :, ::3, 3:] = False
    reference = replace(reference, valid=valid)
    levels = [logits, logits[:, :, ::2, ::2, ::2].clone()]
    for level in levels:
        level.requires_grad_()
    segmentation_loss(levels, reference, settings=only(name)).backward()
    # The voxels at the centres of three of five, four of seven and two of four.
    coarse = valid[:, :, [0, 2, 4]][:, :, :, [0, 2, 4, 6]][..., [1, 3]]
    assert (levels[1].grad is None) == (name in _FULL_RESOLUTION)
    for level, known in zip(levels, (valid, coarse), strict=True):
        if level.grad is not None:
            assert not level.grad[~known.expand_as(level.grad)].any()
            assert level.grad[known.expand_as(level.grad)].any()


def test_one_output_is_a_list_of_one() -> None:
    logits, reference = batch("softmax")
    one = segmentation_loss(logits, reference, settings=LossSettings())
    assert torch.equal(one, segmentation_loss([logits], reference, settings=LossSettings()))


def test_a_target_of_another_shape_is_refused() -> None:
    logits, reference = batch("softmax")
    with pytest.raises(ValueError, match="expected a target of the logits' shape"):
        segmentation_loss(logits[:, :2], reference, settings=LossSettings())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"terms": {"dise": 1.0}}, "unknown loss 'dise', did you mean 'dice'"),
        ({"terms": {"zzzzz": 1.0}}, "known are balanced"),
        ({"terms": {}}, "weights must be"),
        ({"terms": {"dice": -1.0}}, "weights must be"),
        ({"terms": {"dice": 0.0, "focal": TermSettings(0.0)}}, "weights must be"),
        ({"terms": {"dice": TermSettings(1.0, ramp=(0.0, 0.1))}}, "terms: one must count from the start"),
        ({"region_weights": {"vessel": 0.0}}, "region_weights: vessel must be more than 0, got 0"),
        ({"smooth": 0.0}, "smooth"),
        ({"focal_gamma": 0.5}, "focal_gamma"),
        ({"negative_weight": -1.0}, "negative_weight"),
        ({"hardest_share": 0.0}, "hardest_share must be more than 0 and at most 1"),
        ({"miss_weight": 1.5}, "miss_weight must be between 0 and 1"),
        ({"surface_temperature": 0.0}, "surface_temperature"),
        ({"cldice_iterations": -1}, "cldice_iterations"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossSettings(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize("ramp", [(-0.1, 0.5), (0.5, 0.4), (0.5, 1.1)])
def test_an_impossible_ramp_is_refused(ramp: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="ramp must be two shares of the training in order"):
        TermSettings(1.0, ramp=ramp)


def test_terms_are_read_as_numbers_and_as_sections() -> None:
    text = "terms: {dice: 1, surface_dice: {weight: 0.5, ramp: [0.2, 0.5]}}"
    settings = load(LossSettings, text=text, name="a.yaml", overrides=["terms.surface_dice.weight=2"])
    late = TermSettings(2.0, ramp=(0.2, 0.5))
    assert settings.terms == {"dice": 1.0, "surface_dice": late}
    assert load(LossSettings, text=dump(settings), name="b.yaml") == settings
    with pytest.raises(UsageError, match=r"terms\.dice: missing: weight"):  # that of the file is not known there
        load(LossSettings, text="terms: {dice: 0.5, focal: 1}", name="c.yaml", overrides=["terms.dice.ramp=[0.1, 0.2]"])
    with pytest.raises(UsageError, match=r"terms\.surface_dice\.wieght: unknown key, did you mean 'weight'"):
        load(LossSettings, text="terms: {surface_dice: {wieght: 0.5}}", name="c.yaml")


def test_a_registered_loss_counts_with_its_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vol3d.training.losses._TERMS", dict(_TERMS))

    def right(
        logits: Tensor, target: Tensor, valid: Tensor | None, activation: Activation, settings: LossSettings
    ) -> Tensor:
        assert (activation, settings.smooth) == ("softmax", 1e-3)
        assert valid is not None
        return (logits * target * valid).sum()

    register_loss("right", right)
    logits, reference = batch("softmax")
    loss = segmentation_loss(logits, reference, settings=LossSettings(terms={"right": 2.0}, smooth=1e-3))
    torch.testing.assert_close(loss, 2 * reference.known(logits * reference.target).sum())
    with pytest.raises(ValueError, match="exists already"):
        register_loss("right", right)
