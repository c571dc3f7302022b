"""Overlap losses: their formulas on volumes that can be counted by hand."""

import pytest
import torch
from torch import Tensor

from vol3d.training.overlap_losses import boundary_dou, dice, generalised_dice, jaccard, tversky
from vol3d.training.reference import Activation, Reference, Sums

SHAPE = (5, 7, 4)
SUMS = Sums(smooth=1e-5)


def two_boxes() -> tuple[Tensor, Reference]:
    """A prediction (sure) and a reference of one region: 12 and 24 voxels, 8 of them shared."""
    ours, theirs = (torch.zeros(1, 1, *SHAPE, dtype=torch.bool) for _ in range(2))
    theirs[..., 1:4, 1:5, 1:3] = True
    ours[..., 2:4, 3:6, 1:3] = True
    assert (ours.sum(), theirs.sum(), (ours & theirs).sum()) == (12, 24, 8)
    return torch.where(ours, 60.0, -60.0), Reference(theirs, "sigmoid")


def test_each_is_its_formula_of_voxels_counted_by_hand() -> None:
    answer = two_boxes()
    assert dice(*answer, SUMS) == pytest.approx(1 - 16 / 36)
    assert jaccard(*answer, SUMS) == pytest.approx(1 - 8 / 28)
    assert tversky(*answer, SUMS, miss_weight=0.7) == pytest.approx(1 - 8 / (8 + 0.3 * 4 + 0.7 * 16))
    # Every voxel of the 3x4x2 box has a neighbour outside along x: alpha is -1, and this Dice.
    assert boundary_dou(*answer, SUMS) == pytest.approx(20 / 36)


def test_tversky_of_one_half_is_dice() -> None:
    logits, reference = torch.randn(2, 3, *SHAPE), Reference(torch.rand(2, 3, *SHAPE) > 0.7, "softmax")
    torch.testing.assert_close(tversky(logits, reference, SUMS, miss_weight=0.5), dice(logits, reference, SUMS))


def test_dice_over_the_batch_is_dice_of_the_samples_side_by_side() -> None:
    logits, target = (
        torch.randn(2, 3, *SHAPE),
        torch.rand(2, 3, *SHAPE) > torch.tensor([0.4, 0.9])[:, None, None, None, None],
    )
    rows = [torch.cat(list(t), dim=1)[None] for t in (logits, target)]
    over_batch = dice(logits, Reference(target, "sigmoid"), Sums(over_batch=True))
    apart = Sums(over_batch=False)
    torch.testing.assert_close(over_batch, dice(rows[0], Reference(rows[1], "sigmoid"), apart))
    assert abs(over_batch - dice(logits, Reference(target, "sigmoid"), apart)) > 1e-3


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_generalised_dice_weights_each_class_by_its_squared_volume(activation: Activation) -> None:
    target = torch.zeros(1, 2, 1, 2, 50, dtype=torch.bool)
    target[:, 1, ..., :2] = True  # 4 voxels of 100
    target[:, 0] = ~target[:, 1]
    ours = target.clone()
    ours[:, 1, 0, 0, 0], ours[:, 0, 0, 0, 0] = False, True  # one of them is missed
    weights = 1 / 96**2, 1 / 4**2
    both = weights[0] * 96 + weights[1] * 3
    either = weights[0] * (97 + 96) + weights[1] * (3 + 4)
    found = generalised_dice(torch.where(ours, 60.0, -60.0), Reference(target, activation), SUMS)
    assert found == pytest.approx(1 - 2 * both / either, rel=1e-4)


def test_generalised_dice_punishes_what_is_found_of_an_absent_class() -> None:
    target = torch.zeros(1, 2, 3, 3, 3, dtype=torch.bool)
    target[:, 0, 0, 0] = True
    right = torch.where(target, 60.0, -60.0)
    assert generalised_dice(right, Reference(target, "sigmoid"), SUMS) == pytest.approx(0)
    # As much as of a class of the 3 voxels that the other has.
    found = right.clone()
    found[:, 1, 1, 1] = 60.0
    assert generalised_dice(found, Reference(target, "sigmoid"), SUMS) == pytest.approx(1 - 6 / 9, rel=1e-4)


def test_boundary_dou_leaves_out_most_of_a_large_regions_inside() -> None:
    target = torch.zeros(1, 1, 40, 40, 40, dtype=torch.bool)
    target[..., 2:38, 2:38, 2:38] = True
    ours = target.clone()
    ours[..., 2, :, :] = False
    size, inner = 36**3, 34**3
    alpha = 1 - 2 * (size - inner) / size
    assert 0 < alpha < 0.8
    missed = 36**2
    found = boundary_dou(torch.where(ours, 60.0, -60.0), Reference(target, "sigmoid"), SUMS)
    both = size - missed
    assert found == pytest.approx(missed / (size + both - (1 + alpha) * both))
    assert found > 1.1 * jaccard(torch.where(ours, 60.0, -60.0), Reference(target, "sigmoid"), SUMS)


def test_boundary_dou_takes_no_more_than_four_fifths() -> None:
    # Where the patch ends is no boundary: a full patch has none.
    target = torch.ones(1, 1, 4, 4, 4, dtype=torch.bool)
    ours = target.clone()
    ours[..., 0] = False
    found = boundary_dou(torch.where(ours, 60.0, -60.0), Reference(target, "sigmoid"), SUMS)
    assert found == pytest.approx(16 / (64 + 48 - 1.8 * 48))


def test_a_voxel_beside_what_is_not_known_is_no_boundary() -> None:
    target = torch.ones(1, 1, 4, 4, 4, dtype=torch.bool)
    target[..., 0] = False
    valid = torch.ones_like(target)
    valid[..., 0] = False
    ours = target.clone()
    ours[..., 1] = False
    found = boundary_dou(torch.where(ours, 60.0, -60.0), Reference(target, "sigmoid", valid), SUMS)
    assert found == pytest.approx(16 / (48 + 32 - 1.8 * 32))
