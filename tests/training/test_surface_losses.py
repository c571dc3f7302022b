"""Surface losses: the metric on masks, expectations in between, and distances."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torch import Tensor

from vol3d.metrics import surface
from vol3d.regions.cubes import area_table, cube_codes
from vol3d.regions.distance import distance_mm
from vol3d.shapes import Spacing
from vol3d.training.reference import Reference, Sums
from vol3d.training.surface_losses import boundary_distance, distance_from_boundary, surface_dice, surface_recall

SPACING = Spacing(3.0, 0.8, 1.0)
SUMS = Sums(smooth=1e-7)
steps = st.floats(0.05, 5.0)
spacings = st.builds(Spacing, steps, steps, steps)


def sure(mask: NDArray[np.bool_]) -> Tensor:
    return torch.where(torch.from_numpy(mask), 60.0, -60.0)[None, None]


def truth(mask: NDArray[np.bool_], spacing: Spacing = SPACING) -> Reference:
    return Reference(torch.from_numpy(mask)[None, None], "sigmoid", spacing=spacing)


def loss_of_masks(ours: NDArray[np.bool_], theirs: NDArray[np.bool_], spacing: Spacing) -> float:
    return surface_dice(sure(ours), truth(theirs, spacing), SUMS, temperature=0.5).item()


@st.composite
def pairs_inside(draw: st.DrawFn) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Two masks of one shape whose outermost voxels are background; also pictures, whose only slice has no edge."""
    shape = draw(st.tuples(*[st.integers(1, 5)] * 3))
    picture = draw(st.sampled_from([None, 0, 1, 2]))
    border = [(1, 1) if axis != picture else (0, 0) for axis in range(3)]
    inner = tuple(1 if axis == picture else n for axis, n in enumerate(shape))
    one, other = (np.pad(draw(hnp.arrays(bool, inner)), border) for _ in range(2))
    return one, other


@given(pairs_inside(), spacings)
def test_it_is_the_metric_on_every_mask(masks: tuple[NDArray[np.bool_], NDArray[np.bool_]], spacing: Spacing) -> None:
    metric = surface.surface_dice(*masks, spacing=spacing)
    assert loss_of_masks(*masks, spacing) == pytest.approx(0 if metric is None else 1 - metric, abs=2e-6)


@given(pairs_inside(), spacings)
def test_it_is_the_metric_of_each_class(masks: tuple[NDArray[np.bool_], NDArray[np.bool_]], spacing: Spacing) -> None:
    # Two classes under softmax: what one mask has alone, and what the other has.
    def one_hot(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.stack([~(mask | other), mask & ~other, other])[None]

    ours, theirs = one_hot(*masks), one_hot(masks[1], np.roll(masks[0], 0, axis=1))
    scores = [surface.surface_dice(ours[0, k], theirs[0, k], spacing=spacing) for k in (1, 2)]
    expected = np.mean([0 if score is None else 1 - score for score in scores])
    reference = Reference(torch.from_numpy(theirs), "softmax", spacing=spacing)
    logits = torch.where(torch.from_numpy(ours), 60.0, -60.0)
    assert surface_dice(logits, reference, SUMS, temperature=0.5).item() == pytest.approx(expected, abs=2e-6)


def test_two_slabs_that_differ_by_a_slice() -> None:
    # Without its outermost slices, which the metric would close: the top faces do not meet, the bottom ones do.
    ours, theirs = (np.zeros((10, 6, 6), dtype=np.bool_) for _ in range(2))
    ours[3:7], theirs[3:8] = True, True
    assert loss_of_masks(ours, theirs, Spacing(1.0, 1.0, 1.0)) == pytest.approx(0.5, abs=1e-6)


def test_where_a_patch_ends_there_is_no_surface() -> None:
    full, empty = np.ones((4, 5, 6), dtype=np.bool_), np.zeros((4, 5, 6), dtype=np.bool_)
    assert loss_of_masks(full, full, SPACING) == pytest.approx(0, abs=1e-6)
    assert loss_of_masks(empty, full, SPACING) == pytest.approx(0, abs=1e-6)
    half = full.copy()
    half[:, 2:] = False
    assert loss_of_masks(half, full, SPACING) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("shape", [(2, 3, 2), (1, 3, 2), (2, 1, 3)])
def test_area_and_surface_are_expectations_over_all_masks(shape: tuple[int, int, int]) -> None:
    # Drawing every mask of the patch with its probability: the numerator and the denominator are the means.
    rng = np.random.default_rng(3)
    p = rng.random(shape)
    theirs = rng.random(shape) > 0.5
    thin = 1 in shape
    if thin:
        axis = shape.index(1)
        spacing = Spacing(*(SPACING[a] for a in (axis, *(a for a in range(3) if a != axis))))
    table = area_table(spacing if thin else SPACING)

    def codes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
        if thin:
            return cube_codes(np.moveaxis(mask, axis, 0))[1:, 1:-1, 1:-1] * np.uint8(17)
        return cube_codes(mask)[1:-1, 1:-1, 1:-1]

    true = codes(theirs)
    surface = (true > 0) & (true < 255)
    top = bottom = 0.0
    for bits in product((False, True), repeat=p.size):
        drawn = np.array(bits).reshape(shape)
        chance = np.where(drawn, p, 1 - p).prod()
        code = codes(drawn)
        matched = surface & (code > 0) & (code < 255)
        top += chance * (table[code] + table[true])[matched].sum()
        bottom += chance * (table[code] + table[true]).sum()
    logits = torch.from_numpy(np.log(p / (1 - p)))[None, None]
    found = surface_dice(logits, truth(theirs), Sums(smooth=1e-12), temperature=1.0)
    assert found.item() == pytest.approx(1 - top / bottom, rel=1e-9)


def test_a_mask_that_is_right_but_unsure_is_surer_at_a_lower_temperature() -> None:
    mask = np.zeros((10, 12, 11), dtype=np.bool_)
    mask[3:7, 4:9, 2:8] = True
    unsure = sure(mask).sign() * np.log(9)  # 0.9 and 0.1
    loss = [surface_dice(unsure, truth(mask), SUMS, temperature=t).item() for t in (1.0, 0.5, 0.25)]
    assert loss[0] > 0.4
    assert loss[0] > 3 * loss[1] > 9 * loss[2]


def test_false_blobs_cost_nothing_in_the_surface_part_of_the_winners_form() -> None:
    mask = np.zeros((20, 20, 20), dtype=np.bool_)
    mask[4:14, 4:14, 4:14] = True
    more = mask.copy()
    more[16:18, 16:18, 16:18] = True  # 8 voxels away from it
    exact = surface_dice(sure(more), truth(mask), SUMS, temperature=1.0).item()
    assert exact == pytest.approx(1 - surface.surface_dice(more, mask, spacing=SPACING), abs=1e-6)  # type: ignore[operator]
    assert exact > 0.01
    # The blob is one voxel thick in cubes, so none of them is full; the 27 it touches are no longer empty.
    full, outside = 9**3, 19**3 - 11**3
    empty = 2 * (outside - 27) / (2 * outside - 27)
    found = surface_recall(sure(more), truth(mask), SUMS, temperature=1.0).item()
    full_dice = 2 * full / (2 * full + 1)  # the one in the blob's middle
    assert found == pytest.approx(1 - (full_dice + empty + 1) / 3, abs=1e-6)


def test_the_winners_form_is_the_mean_of_three_dices_counted_by_hand() -> None:
    theirs, ours = (np.zeros((6, 6, 6), dtype=np.bool_) for _ in range(2))
    theirs[:, :, :3], ours[:, :, :4] = True, True
    # Of 5 columns of cubes 2 are full and 2 empty; of the prediction 3 and 1; the surfaces do not meet.
    expected = 1 - (4 / 5 + 2 / 3 + 0) / 3
    assert surface_recall(sure(ours), truth(theirs), SUMS, temperature=0.5).item() == pytest.approx(expected, abs=1e-6)


@given(hnp.arrays(bool, (6, 7, 5)), spacings)
def test_distances_are_the_exact_ones_as_far_as_they_reach(mask: NDArray[np.bool_], spacing: Spacing) -> None:
    reach = 8 * min(spacing)
    to_other = np.where(mask, distance_mm(~mask, spacing), distance_mm(mask, spacing))
    found = distance_from_boundary(torch.from_numpy(mask)[None, None], None, spacing)[0, 0].numpy()
    np.testing.assert_allclose(found, np.minimum(to_other / reach, 1), rtol=1e-5)


def test_boundary_distance_weighs_errors_by_how_far_out_they_are() -> None:
    mask = np.zeros((1, 1, 10), dtype=np.bool_)
    mask[..., :4] = True
    wrong = mask.copy()
    wrong[..., [0, 5]] = False, True
    # In steps of the finest axis that is more than one voxel long: 4 and 2 of 8, over 10 voxels.
    assert boundary_distance(sure(wrong), truth(mask)) == pytest.approx((4 + 2) / 8 / 10)


def test_distances_go_to_voxels_that_are_known() -> None:
    mask = torch.zeros(1, 1, 1, 1, 9, dtype=torch.bool)
    mask[..., 2:5] = True
    valid = torch.ones_like(mask)
    valid[..., 2:4] = False
    found = distance_from_boundary(mask, valid, Spacing(1.0, 1.0, 1.0))[0, 0, 0, 0] * 8
    torch.testing.assert_close(found, torch.tensor([4.0, 3, 1, 2, 1, 1, 2, 3, 4]))


def test_surface_terms_count_known_cubes_alone() -> None:
    rng = np.random.default_rng(5)
    theirs, ours = rng.random((2, 7, 6, 5)) > 0.6
    valid = torch.ones(1, 1, 7, 6, 5, dtype=torch.bool)
    valid[:, :, 4] = False
    for loss in (surface_dice, surface_recall):
        cut = loss(sure(ours)[:, :, :4], truth(theirs[:4]), Sums(over_batch=False, smooth=1e-7), temperature=0.5)
        both = Reference(truth(theirs).target, "sigmoid", valid & (torch.arange(7) < 5)[:, None, None], spacing=SPACING)
        torch.testing.assert_close(loss(sure(ours), both, SUMS, temperature=0.5), cut)
