"""Centre-line losses: their formulas on lines that can be counted by hand."""

import pytest
import torch
from torch import Tensor

from vol3d.training.overlap_losses import dice
from vol3d.training.reference import Reference, Sums
from vol3d.training.skeleton_losses import cldice, skeleton_recall

SUMS = Sums(smooth=1e-5)


def sure(mask: Tensor) -> Tensor:
    return torch.where(mask, 60.0, -60.0)


def tube() -> tuple[Tensor, Tensor]:
    """A tube of 5x5 voxels along z through 9 slices, and its centre line."""
    tube, line = (torch.zeros(1, 1, 9, 9, 9, dtype=torch.bool) for _ in range(2))
    tube[..., 2:7, 2:7] = True
    line[..., 4, 4] = True
    return tube, line


def test_recall_counts_the_line_widened_twice() -> None:
    mask, line = tube()
    reference = Reference(mask, "sigmoid", skeleton=line)
    # 13 voxels within two steps of a line, in each of 9 slices.
    missing = mask.clone()
    missing[:, :, :, 2, 4] = False
    assert skeleton_recall(sure(missing), reference, SUMS) == pytest.approx(1 / 13)
    corners = mask.clone()
    corners[:, :, :, [2, 2, 6, 6], [2, 6, 2, 6]] = False  # three and more steps away
    assert skeleton_recall(sure(corners), reference, SUMS) == pytest.approx(0, abs=1e-6)


def test_recall_widens_no_further_than_the_region() -> None:
    mask, line = tube()
    thin = mask.clone()
    thin[..., 2:4], thin[..., 6:] = False, False  # 5 x 2 voxels, 5 + 3 of them within two steps
    answer = thin.clone()
    answer[..., 4, 4] = False
    assert skeleton_recall(sure(answer), Reference(thin, "sigmoid", skeleton=line), SUMS) == pytest.approx(1 / 8)


def test_each_regions_lines_are_its_own() -> None:
    mask, line = tube()
    target = torch.cat([mask & (torch.arange(9) < 5), mask & (torch.arange(9) >= 5)], dim=1)
    other = line.roll(1, 4)  # in the second region
    reference = Reference(target, "sigmoid", skeleton=line | other)
    logits = sure(target)
    logits[:, 1] = -60.0
    assert skeleton_recall(logits, reference, SUMS) == pytest.approx(0.5)


def test_recall_without_a_skeleton_says_so() -> None:
    mask, _ = tube()
    with pytest.raises(ValueError, match="skeleton_recall needs the skeleton"):
        skeleton_recall(sure(mask), Reference(mask, "sigmoid"), SUMS)


def test_cldice_of_a_line_that_is_cut() -> None:
    line = torch.zeros(1, 1, 12, 5, 5, dtype=torch.bool)
    line[..., 2, 2] = True
    cut = line.clone()
    cut[:, :, :3] = False
    # A line is its own centre line: precision 1, recall 3/4.
    reference = Reference(line, "sigmoid")
    assert cldice(sure(cut), reference, SUMS, iterations=2) == pytest.approx(1 - 2 * 0.75 / 1.75)


def test_cldice_cares_for_lines_and_not_for_width() -> None:
    mask, _ = tube()
    wide = torch.zeros_like(mask)
    wide[..., 1:8, 1:8] = True
    cut = mask.clone()
    cut[:, :, 3:5] = False
    reference = Reference(mask, "sigmoid")
    assert cldice(sure(wide), reference, SUMS, iterations=3) < 0.01 < cldice(sure(cut), reference, SUMS, iterations=3)
    assert dice(sure(wide), reference, SUMS) > dice(sure(cut), reference, SUMS)


def test_cldice_of_one_region_alone_is_no_constant() -> None:
    mask, _ = tube()
    logits = torch.zeros(mask.shape, requires_grad=True)
    cldice(logits, Reference(mask, "sigmoid"), SUMS, iterations=2).backward()
    assert logits.grad is not None
    assert logits.grad.any()
