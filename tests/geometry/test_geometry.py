"""Laws of the grid and the shares, and of affines read by name."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vol3d.geometry import affine as aff
from vol3d.geometry.box import Box
from vol3d.geometry.gaussian import axis_curve, axis_shares
from vol3d.geometry.grid import around, padded_shape, slabs, window_starts
from vol3d.shapes import Index3, Shape3, Spacing

STEPS = st.sampled_from(["fixed", "even"])


@given(st.integers(1, 90), st.integers(1, 40), st.floats(0, 0.9), st.sampled_from(["gaussian", "constant"]), STEPS)
def test_shares_sum_to_one(extra: int, window: int, overlap: float, blend: str, steps: str) -> None:
    size = window + extra - 1
    starts = window_starts(size, window, overlap, steps)
    total = np.zeros(size, dtype=np.float32)
    for start, share in zip(starts, axis_shares(starts, window, size, blend=blend), strict=True):
        total[start : start + window] += share
    np.testing.assert_allclose(total, 1.0, atol=2e-6)


@given(st.integers(1, 200), st.integers(1, 64), st.floats(0, 0.9), STEPS)
def test_windows_cover_the_axis_in_order_and_stay_inside(extra: int, window: int, overlap: float, steps: str) -> None:
    size = window + extra - 1
    starts = window_starts(size, window, overlap, steps)
    assert starts[0] == 0 and starts[-1] == size - window
    assert all(0 < b - a <= window for a, b in itertools.pairwise(starts))


@given(st.integers(1, 200), st.integers(1, 64), st.floats(0, 0.9))
def test_even_steps_are_no_more_and_no_longer_than_needed_and_differ_by_a_voxel(
    extra: int, window: int, overlap: float
) -> None:
    starts = window_starts(window + extra - 1, window, overlap, "even")
    gaps = [b - a for a, b in itertools.pairwise(starts)]
    assert max(gaps, default=0) - min(gaps, default=0) <= 1
    assert max(gaps, default=0) < max(1, window * (1 - overlap)) + 1
    assert len(starts) <= len(window_starts(window + extra - 1, window, overlap))


def test_curve_is_symmetric_about_the_middle_of_an_even_window() -> None:
    curve = axis_curve(8, blend="gaussian")
    np.testing.assert_array_equal(curve, curve[::-1])


@pytest.mark.parametrize("bad", [(3, 4, 0.5), (4, 0, 0.5), (4, 4, 1.0), (4, 4, -0.1)])
def test_impossible_windows_are_refused(bad: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match=r"overlap|window"):
        window_starts(*bad)


def test_padding_puts_the_odd_voxel_behind() -> None:
    assert padded_shape(Shape3(5, 20, 7), Shape3(8, 16, 8)) == (Shape3(8, 20, 8), Index3(1, 0, 0))


def test_slabs_cut_the_volume_without_rest() -> None:
    boxes = list(slabs(Shape3(20, 31, 17), 6))
    assert [b.shape.z for b in boxes] == [6, 6, 6, 2]
    assert boxes[-1].stop == Index3(20, 31, 17)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", list(itertools.product([False, True], repeat=3)))
def test_ras_axes_undo_all_48_orientations(order: tuple[int, ...], flips: tuple[bool, ...]) -> None:
    # Build the affine of an array that was RAS before it was flipped and transposed.
    straight = aff.from_spacing(Spacing(0.8, 1.0, 3.0))
    stored = straight.copy()
    for axis, flip in enumerate(flips):
        if flip:
            stored[:3, axis] *= -1
    stored[:, :3] = stored[:, [order.index(a) for a in range(3)]]
    found_order, found_flips = aff.ras_axes(stored)
    back = stored[:, [*found_order, 3]] * np.array([*np.where(found_flips, -1, 1), 1])
    np.testing.assert_array_equal(back[:, :3], straight[:, :3])


def test_oblique_affine_is_read_by_name(oblique_affine: np.ndarray) -> None:
    assert aff.spacing_of(oblique_affine) == pytest.approx((0.8, 1.0, 3.0))
    assert aff.is_orthogonal(oblique_affine)
    assert aff.ras_axes(oblique_affine) == ((0, 1, 2), (False, False, False))
    sheared = oblique_affine.copy()
    sheared[:3, 0] += 0.1 * sheared[:3, 1]
    assert not aff.is_orthogonal(sheared)


def test_affines_agree_within_a_part_of_a_voxel(oblique_affine: np.ndarray) -> None:
    shape = (20, 31, 17)
    near, far = oblique_affine.copy(), oblique_affine.copy()
    near[0, 3] += 0.0005
    far[0, 3] += 0.01
    assert aff.agree(oblique_affine, near, shape) and not aff.agree(oblique_affine, far, shape)


def test_moved_keeps_every_point(oblique_affine: np.ndarray) -> None:
    start = Index3(2, 3, 5)
    np.testing.assert_allclose(
        aff.moved(oblique_affine, start) @ [1, 1, 1, 1], oblique_affine @ [3, 4, 6, 1], rtol=0, atol=1e-12
    )


def test_boxes() -> None:
    box = Box.at(Index3(2, 3, 4), Shape3(5, 6, 7))
    assert Box.whole(Shape3(20, 31, 17)).contains(box)
    assert box.grown((1, 1, 1)).shape == (7, 8, 9)
    assert box.shifted(Index3(-2, -3, -4)) == Box.whole(box.shape)
    assert box.intersection(Box.at(Index3(100, 0, 0), Shape3(1, 1, 1))).shape.voxels == 0
    mask = np.zeros((20, 31, 17), dtype=bool)
    assert Box.around(mask) is None
    mask[box.slices] = True
    assert Box.around(mask) == box


@given(st.tuples(*[st.lists(st.integers(0, 6), min_size=4, max_size=4).map(sorted)] * 3))
def test_what_is_around_a_box_is_the_rest_once(bounds: tuple[list[int], ...]) -> None:
    whole = Box(Index3(*(b[0] for b in bounds)), Index3(*(b[3] for b in bounds)))
    box = Box(Index3(*(b[1] for b in bounds)), Index3(*(b[2] for b in bounds)))
    counts = np.zeros((6, 6, 6), dtype=int)
    for part in (box, *around(box, whole)):
        counts[part.slices] += 1
    expected = np.zeros_like(counts)
    expected[whole.slices] = 1
    np.testing.assert_array_equal(counts, expected)
