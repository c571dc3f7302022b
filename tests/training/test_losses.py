"""Losses: what they must say of perfect, empty, masked and coarser answers."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vol3d.training.losses import (
    _TERMS,
    Activation,
    LossSettings,
    deep_supervision_loss,
    register_loss,
    segmentation_loss,
)
from vol3d.volume.labels import LabelSchema, Region

SHAPE = (5, 7, 4)
SCHEMAS: dict[Activation, LabelSchema] = {
    "softmax": LabelSchema((Region("anterior", (1,)), Region("posterior", (2,))), ignore=9),
    "sigmoid": LabelSchema((Region("liver", (1, 2)), Region("lesion", (2,))), ignore=9),
}
NAMES = sorted(_TERMS)
activations = pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
terms = pytest.mark.parametrize("name", NAMES)


def batch(activation: Activation, *, random_seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, target and valid of two samples, one of which lacks class 2."""
    rng = np.random.default_rng(random_seed)
    labels = rng.choice([0, 1, 2, 9], size=(2, *SHAPE), p=[0.6, 0.2, 0.1, 0.1])
    labels[1][labels[1] == 2] = 0
    target = torch.from_numpy(SCHEMAS[activation].encoding()[:, labels]).movedim(0, 1)
    logits = torch.from_numpy(rng.normal(size=target.shape).astype(np.float32))
    return logits, target, torch.from_numpy(labels != 9)[:, None]


def only(name: str) -> LossSettings:
    return LossSettings(terms={name: 1.0})


@activations
@terms
def test_a_sure_and_right_answer_costs_nothing_and_a_sure_wrong_one_much(name: str, activation: Activation) -> None:
    _, target, valid = batch(activation)
    right = (target.float() * 2 - 1) * 50
    score = [
        segmentation_loss(sign * right, target, valid, activation=activation, settings=only(name)) for sign in (1, -1)
    ]
    assert score[0] == pytest.approx(0, abs=1e-6)
    assert score[1] > 0.7


@activations
@terms
def test_voxels_that_are_not_valid_do_not_count(name: str, activation: Activation) -> None:
    logits, target, valid = batch(activation)
    other_logits = torch.where(valid, logits, 7.0)
    other_target = torch.where(valid, target, True)
    first = segmentation_loss(logits, target, valid, activation=activation, settings=only(name))
    second = segmentation_loss(other_logits, other_target, valid, activation=activation, settings=only(name))
    torch.testing.assert_close(first, second)
    everything = segmentation_loss(other_logits, other_target, activation=activation, settings=only(name))
    assert abs(everything - first) > 1e-3


@activations
@terms
def test_all_valid_is_no_mask(name: str, activation: Activation) -> None:
    logits, target, valid = batch(activation)
    masked = segmentation_loss(logits, target, torch.ones_like(valid), activation=activation, settings=only(name))
    torch.testing.assert_close(
        masked, segmentation_loss(logits, target, activation=activation, settings=only(name)), rtol=1e-5, atol=0
    )


@activations
@terms
@pytest.mark.parametrize("case", ["no foreground", "nothing", "nothing valid", "all foreground"])
@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_gradients_are_finite_when_something_is_empty(
    name: str, activation: Activation, case: str, scale: float
) -> None:
    logits, target, valid = batch(activation)
    logits = (logits * scale).requires_grad_()
    if case == "nothing valid":
        valid = torch.zeros_like(valid)
    else:
        target = torch.full_like(target, case == "all foreground")
        if activation == "softmax" and case != "nothing":
            target[:, 0], target[:, 2] = case == "no foreground", False
    loss = segmentation_loss(logits, target, valid, activation=activation, settings=only(name))
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
    logits, target, valid = batch(activation)
    logits.requires_grad_()
    step = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2)) * 1e-2

    def loss(x: Tensor) -> Tensor:
        return segmentation_loss(x, target, valid, activation=activation, settings=only(name))

    loss(logits).backward()
    assert logits.grad is not None
    assert (logits.grad * step).sum().item() == pytest.approx(
        (loss(logits + step) - loss(logits - step)).item() / 2, rel=0.03, abs=2e-6
    )


@activations
def test_the_terms_add_up_with_their_weights(activation: Activation) -> None:
    logits, target, valid = batch(activation)
    single = {n: segmentation_loss(logits, target, valid, activation=activation, settings=only(n)) for n in NAMES}
    together = LossSettings(terms={name: 0.5 + i for i, name in enumerate(NAMES)})
    total = segmentation_loss(logits, target, valid, activation=activation, settings=together)
    torch.testing.assert_close(total, sum((0.5 + i) * single[n] for i, n in enumerate(NAMES)))


def test_focal_with_gamma_zero_is_cross_entropy() -> None:
    logits, target, valid = batch("softmax")
    focal = LossSettings(terms={"focal": 1.0}, focal_gamma=0.0)
    torch.testing.assert_close(
        segmentation_loss(logits, target, valid, activation="softmax", settings=focal),
        segmentation_loss(logits, target, valid, activation="softmax", settings=only("cross_entropy")),
    )


def test_dice_over_the_batch_is_dice_of_the_samples_side_by_side() -> None:
    logits, target, valid = batch("sigmoid")
    rows = [torch.cat(list(t), dim=1)[None] for t in (logits, target, valid)]
    per_sample = LossSettings(terms={"dice": 1.0}, batch_dice=False)
    over_batch = segmentation_loss(logits, target, valid, activation="sigmoid", settings=only("dice"))
    torch.testing.assert_close(over_batch, segmentation_loss(*rows, activation="sigmoid", settings=per_sample))
    other = segmentation_loss(logits, target, valid, activation="sigmoid", settings=per_sample)
    assert abs(over_batch - other) > 1e-3


def test_balanced_cross_entropy_adds_the_means_of_both_halves() -> None:
    target = torch.zeros(1, 1, *SHAPE, dtype=torch.bool)
    target[..., :2, 0, 0] = True
    logits = torch.where(target, -1.0, 0.5)
    settings = LossSettings(terms={"balanced_cross_entropy": 1.0}, negative_weight=3.0)
    expected = np.log1p(np.exp(1.0)) + 3 * np.log1p(np.exp(0.5))
    assert segmentation_loss(logits, target, activation="sigmoid", settings=settings) == pytest.approx(expected)


@activations
def test_bfloat16_logits_are_summed_in_float32_under_autocast(activation: Activation) -> None:
    logits, target, valid = batch(activation)
    half = logits.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = segmentation_loss(half, target, valid, activation=activation, settings=LossSettings())
    exact = segmentation_loss(half.float(), target, valid, activation=activation, settings=LossSettings())
    assert loss.dtype == torch.float32
    assert torch.equal(loss, exact)


@given(st.lists(st.sampled_from([(1, 2, 1), (2, 2, 2), (1, 3, 2)]), max_size=3))
def test_resolutions_of_one_answer_give_its_loss(strides: list[tuple[int, int, int]]) -> None:
    # the target constant over the coarsest voxels: every resolution then has the same loss
    coarse = batch("softmax")
    sizes = [np.ones(3, int)]
    for stride in strides:
        sizes.append(sizes[-1] * stride)

    def grown(t: Tensor, factor: np.ndarray) -> Tensor:
        for axis, n in enumerate(factor, start=2):
            t = t.repeat_interleave(int(n), axis)
        return t

    full = sizes[-1]
    outputs = [grown(coarse[0], full // size) for size in sizes]
    loss = deep_supervision_loss(
        outputs, grown(coarse[1], full), grown(coarse[2], full), activation="softmax", settings=LossSettings()
    )
    expected = segmentation_loss(*coarse, activation="softmax", settings=LossSettings())
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)


def test_each_further_resolution_counts_half() -> None:
    target = torch.ones(1, 1, 8, 8, 8, dtype=torch.bool)
    levels = [torch.zeros(1, 1, n, n, n, requires_grad=True) for n in (8, 4, 2)]
    deep_supervision_loss(levels, target, activation="sigmoid", settings=only("cross_entropy")).backward()
    shares = [level.grad.sum().item() for level in levels if level.grad is not None]
    assert all(a == pytest.approx(2 * b) for a, b in pairwise(shares))
    assert sum(shares) == pytest.approx(-0.5)


@terms
@activations
def test_no_resolution_learns_from_what_is_ignored(name: str, activation: Activation) -> None:
    logits, target, valid = batch(activation)
    valid = valid & (torch.arange(SHAPE[0]) % 3 == 1)[:, None, None]
    levels = [logits, logits[:, :, ::2, ::2, ::2].clone()]
    for level in levels:
        level.requires_grad_()
    loss = deep_supervision_loss(levels, target, valid, activation=activation, settings=only(name))
    loss.backward()
    # The voxels at the centres of three of five, four of seven and two of four.
    coarse = valid[:, :, [0, 2, 4]][:, :, :, [0, 2, 4, 6]][..., [1, 3]]
    for level, known in zip(levels, (valid, coarse), strict=True):
        assert level.grad is not None
        assert not level.grad[~known.expand_as(level.grad)].any()
        assert level.grad[known.expand_as(level.grad)].any()


def test_one_output_is_a_list_of_one() -> None:
    logits, target, valid = batch("softmax")
    one = deep_supervision_loss(logits, target, valid, activation="softmax", settings=LossSettings())
    many = deep_supervision_loss([logits], target, valid, activation="softmax", settings=LossSettings())
    assert torch.equal(one, many)


def test_a_target_of_another_shape_is_refused() -> None:
    logits, target, _ = batch("softmax")
    with pytest.raises(ValueError, match="expected a target of the logits' shape"):
        deep_supervision_loss(logits, target[:, :2], activation="softmax", settings=LossSettings())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"terms": {"dise": 1.0}}, "unknown loss 'dise', did you mean 'dice'"),
        ({"terms": {"zzzzz": 1.0}}, "known are balanced"),
        ({"terms": {}}, "weights must be"),
        ({"terms": {"dice": -1.0}}, "weights must be"),
        ({"smooth": 0.0}, "smooth"),
        ({"focal_gamma": 0.5}, "focal_gamma"),
        ({"negative_weight": -1.0}, "negative_weight"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossSettings(**change)  # type: ignore[arg-type]


def test_a_registered_loss_counts_with_its_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vol3d.training.losses._TERMS", dict(_TERMS))
    register_loss("sum", lambda logits, *_: logits.sum())
    logits, target, _ = batch("softmax")
    loss = segmentation_loss(logits, target, activation="softmax", settings=LossSettings(terms={"sum": 2.0}))
    torch.testing.assert_close(loss, 2 * logits.sum())
    with pytest.raises(ValueError, match="exists already"):
        register_loss("sum", lambda logits, *_: logits.sum())
