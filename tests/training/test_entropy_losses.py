"""Cross-entropies: their formulas on values that can be reckoned by hand."""

import math

import numpy as np
import pytest
import torch

from vol3d.training.entropy_losses import balanced_cross_entropy, cross_entropy, focal, top_k_cross_entropy
from vol3d.training.reference import Activation, Reference

SHAPE = (5, 7, 4)


def test_cross_entropy_of_one_voxel_of_three_classes() -> None:
    logits = torch.tensor([1.0, 2.0, 0.5]).reshape(1, 3, 1, 1, 1)
    target = torch.tensor([False, False, True]).reshape(logits.shape)
    expected = math.log(math.exp(1) + math.exp(2) + math.exp(0.5)) - 0.5
    assert cross_entropy(logits, Reference(target, "softmax")) == pytest.approx(expected)


def test_focal_is_cross_entropy_times_the_squared_error() -> None:
    logits = torch.tensor([0.7, -1.3]).reshape(1, 1, 1, 1, 2)
    target = torch.tensor([True, False]).reshape(logits.shape)
    p = [1 / (1 + math.exp(-0.7)), 1 - 1 / (1 + math.exp(1.3))]
    expected = sum(-math.log(q) * (1 - q) ** 2 for q in p) / 2
    assert focal(logits, Reference(target, "sigmoid"), gamma=2.0) == pytest.approx(expected)


def test_focal_with_the_winners_alpha_are_weights_of_region_and_background() -> None:
    logits = torch.tensor([0.7, -1.3]).reshape(1, 1, 1, 1, 2)
    target = torch.tensor([True, False]).reshape(logits.shape)
    p = [1 / (1 + math.exp(-0.7)), 1 - 1 / (1 + math.exp(1.3))]
    expected = sum(a * -math.log(q) * (1 - q) ** 2 for a, q in zip((0.25, 0.75), p, strict=True))
    reference = Reference(target, "sigmoid", weights=torch.tensor([0.75, 0.25]))
    assert focal(logits, reference, gamma=2.0) == pytest.approx(expected)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_focal_with_gamma_zero_is_cross_entropy(activation: Activation) -> None:
    target = torch.zeros(2, 3, *SHAPE, dtype=torch.bool).index_fill(1, torch.tensor(1), True)
    logits, reference = torch.randn(2, 3, *SHAPE), Reference(target, activation)
    torch.testing.assert_close(focal(logits, reference, gamma=0.0), cross_entropy(logits, reference))


def test_balanced_cross_entropy_adds_the_means_of_both_halves() -> None:
    target = torch.zeros(1, 1, *SHAPE, dtype=torch.bool)
    target[..., :2, 0, 0] = True
    logits = torch.where(target, -1.0, 0.5)
    expected = np.log1p(np.exp(1.0)) + 3 * np.log1p(np.exp(0.5))
    found = balanced_cross_entropy(logits, Reference(target, "sigmoid"), negative_weight=3.0)
    assert found == pytest.approx(expected)


def test_top_k_is_the_mean_of_the_hardest_known_voxels() -> None:
    logits = torch.linspace(-3, 3, 20).reshape(1, 1, 1, 4, 5)
    target = torch.zeros_like(logits, dtype=torch.bool)
    hardness = torch.nn.functional.softplus(logits).flatten()
    reference = Reference(target, "sigmoid")
    assert top_k_cross_entropy(logits, reference, share=0.1) == pytest.approx(hardness[-2:].mean().item())
    assert top_k_cross_entropy(logits, reference, share=1e-3) == pytest.approx(hardness[-1].item())
    assert top_k_cross_entropy(logits, reference, share=1.0) == pytest.approx(hardness.mean().item())
    # A fifth of ten that are known are two, whatever the others are.
    valid = torch.zeros_like(target)
    valid.view(-1)[:10] = True
    known = Reference(target, "sigmoid", valid)
    assert top_k_cross_entropy(logits, known, share=0.2) == pytest.approx(hardness[8:10].mean().item())


def test_a_weighted_mean_over_regions_is_by_the_true_class() -> None:
    logits = torch.tensor([[1.0, -2.0], [0.5, 0.3], [-1.0, 0.0]]).reshape(1, 3, 1, 1, 2)
    target = torch.zeros(1, 3, 1, 1, 2, dtype=torch.bool)
    target[0, 0, ..., 0] = target[0, 2, ..., 1] = True
    weights = torch.tensor([0.5, 7.0, 2.0])
    e = logits.logsumexp(dim=1).flatten() - torch.tensor([1.0, 0.0])
    expected = (0.5 * e[0] + 2 * e[1]) / 2.5
    assert cross_entropy(logits, Reference(target, "softmax", weights=weights)) == pytest.approx(expected.item())
