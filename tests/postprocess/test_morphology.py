import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from plain_steps import SPACING, applied

from vol3d.postprocess.lumens import CloseLumens
from vol3d.postprocess.morphology import FillHoles, close_gaps, open_mm, smooth_mm
from vol3d.shapes import Spacing

MASKS = arrays(np.bool_, array_shapes(min_dims=3, max_dims=3, max_side=6))


def shell_with_holes() -> np.ndarray:
    mask = np.zeros((20, 31, 17), dtype=np.bool_)
    mask[2:18, 3:28, 4:17] = True  # touches the last x
    mask[4, 5, 6] = False  # one voxel, 2.4 mm^3
    mask[8:10, 10, 8] = False  # two voxels
    mask[12, 20, 16] = False  # open at the edge
    mask[2, 15, 10] = False  # a dent in the surface
    return mask


def test_holes_are_filled_by_volume() -> None:
    mask = shell_with_holes()
    volume = int(mask.sum())
    filled = [int(applied(FillHoles(max_volume_mm3=v), mask).sum()) for v in (2.3, 2.4, 4.7, 4.8)]
    assert filled == [volume, volume + 1, volume + 1, volume + 3]
    assert applied(FillHoles(), mask).sum() == volume + 3


def test_background_joins_by_faces_only() -> None:
    mask = np.ones((3, 4, 5), dtype=np.bool_)
    mask[1, 1, 1] = mask[0, 0, 1] = False  # the pit touches the outside by an edge
    assert (~applied(FillHoles(), mask)).sum() == 1


@given(mask=MASKS, limit=st.sampled_from((1.0, 2.4, 5.0, 1e9)))
def test_a_tighter_limit_fills_less(mask: np.ndarray, limit: float) -> None:
    some, every = applied(FillHoles(max_volume_mm3=limit), mask), applied(FillHoles(), mask)
    assert not (mask & ~some).any()
    assert not (some & ~every).any()


@given(mask=MASKS, radius_mm=st.sampled_from((0.0, 0.8, 1.0, 1.3, 3.0)))
def test_closing_adds_and_closes_once(mask: np.ndarray, radius_mm: float) -> None:
    closed = close_gaps(mask, radius_mm=radius_mm, spacing=SPACING)
    assert not (mask & ~closed).any()
    np.testing.assert_array_equal(close_gaps(closed, radius_mm=radius_mm, spacing=SPACING), closed)


def test_a_broken_wall_is_closed_then_its_lumen_filled() -> None:
    mask = np.zeros((20, 31, 17), dtype=np.bool_)
    mask[5:12, 8:18, 4:9] = True
    mask[7:10, 10:16, 5:8] = False
    mask[9, 12, 8] = False  # the break in the wall
    assert applied(FillHoles(), mask).sum() == mask.sum()
    closed = close_gaps(mask, radius_mm=1.0, spacing=SPACING)
    assert applied(FillHoles(), closed)[5:12, 8:18, 4:9].all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_picture_has_holes_and_gaps_in_its_plane(axis: int) -> None:
    picture = np.zeros((1, 9, 11), dtype=np.bool_)
    picture[0, 1:8, 1:10] = True
    picture[0, 3:5, 3:6] = False  # a hole of 6 pixels
    picture[0, 5, 8:10] = False  # open to the outside
    filled = picture.copy()
    filled[0, 3:5, 3:6] = True
    mask, expected = np.moveaxis(picture, 0, axis), np.moveaxis(filled, 0, axis)
    spacing = Spacing(0.8, 1.0, 3.0)
    assert np.array_equal(applied(FillHoles(), mask), expected)
    assert np.array_equal(applied(FillHoles(max_volume_mm3=6 * spacing.voxel_mm3), mask), expected)
    assert np.array_equal(applied(FillHoles(max_volume_mm3=5 * spacing.voxel_mm3), mask), mask)
    closed = close_gaps(np.moveaxis(picture, 0, 0), radius_mm=1.0, spacing=Spacing(100.0, 1.0, 1.0))
    assert closed[0, 5, 8] and closed.sum() > picture.sum()


@given(mask=MASKS, radius_mm=st.sampled_from((0.0, 0.8, 1.0, 1.3, 3.0)))
def test_opening_removes_and_opens_once(mask: np.ndarray, radius_mm: float) -> None:
    opened = open_mm(mask, radius_mm=radius_mm, spacing=SPACING)
    assert not (opened & ~mask).any()
    np.testing.assert_array_equal(open_mm(opened, radius_mm=radius_mm, spacing=SPACING), opened)


def test_a_bridge_is_cut_and_a_block_stays() -> None:
    blocks = np.zeros((20, 31, 17), dtype=np.bool_)
    blocks[:, :12] = blocks[:, 20:] = True  # up to the volume's edge, where they go on
    bridged = blocks.copy()
    bridged[9:11, 12:20, 8] = True
    opened = open_mm(bridged, radius_mm=3.0, spacing=SPACING)
    assert not (blocks & ~opened).any()
    assert not opened[:, 13:19].any()  # where it begins, a ball's tip fits in
    np.testing.assert_array_equal(open_mm(bridged, radius_mm=0.0, spacing=SPACING), bridged)


@given(mask=MASKS, sigma_mm=st.sampled_from((0.0, 0.4, 1.0, 2.5)))
def test_smoothing_has_no_side(mask: np.ndarray, sigma_mm: float) -> None:
    smooth = smooth_mm(mask, sigma_mm=sigma_mm, spacing=SPACING)
    assert (smooth.dtype, smooth.shape) == (np.bool_, mask.shape)
    for axis in range(3):
        flipped = smooth_mm(np.flip(mask, axis), sigma_mm=sigma_mm, spacing=SPACING)
        np.testing.assert_array_equal(np.flip(flipped, axis), smooth)
    if sigma_mm == 0:
        np.testing.assert_array_equal(smooth, mask)
    one_half = smooth | smooth_mm(~mask, sigma_mm=sigma_mm, spacing=SPACING)
    assert one_half.all()


@pytest.mark.parametrize(("radius", "stays"), [(1.25, True), (1.1, False)])  # in sigmas; 1.18 is the bound
def test_a_tube_stays_or_vanishes_as_it_is_said(radius: float, stays: bool) -> None:
    spacing, sigma_mm = Spacing(0.5, 0.25, 2.0), 3.0
    z, y = np.ogrid[-15:15.1:0.5, -15:15.1:0.25]
    tube = np.broadcast_to((np.hypot(z, y) <= radius * sigma_mm)[..., None], (61, 121, 3))
    smooth = smooth_mm(tube, sigma_mm=sigma_mm, spacing=spacing)
    assert smooth[30, 60].all() == smooth.any() == stays


def test_flat_faces_stay_where_they_are_and_a_step_goes() -> None:
    mask = np.zeros((20, 31, 17), dtype=np.bool_)
    mask[:9] = True
    np.testing.assert_array_equal(smooth_mm(mask, sigma_mm=2.0, spacing=SPACING), mask)
    rough = mask.copy()
    rough[9, 4, 5] = True
    rough[8, 20, 9] = False
    np.testing.assert_array_equal(smooth_mm(rough, sigma_mm=2.0, spacing=SPACING), mask)


def hollow_tubes() -> tuple[np.ndarray, np.ndarray]:
    """Walls of a tube along each axis, open at both edges of the volume, and the same tubes solid."""
    solid, lumen = np.zeros((2, 20, 31, 17), dtype=np.bool_)
    solid[:, 2:7, 2:7], lumen[:, 3:6, 3:6] = True, True  # 9 pixels of 3 mm^2
    solid[2:7, :, 11:15], lumen[3:6, :, 12:14] = True, True  # 6 pixels of 2.4 mm^2
    solid[12:17, 22:27, :], lumen[13:16, 23:26, :] = True, True  # 9 pixels of 0.8 mm^2
    return solid & ~lumen, solid


def test_lumens_are_filled_up_to_an_area() -> None:
    walls, solid = hollow_tubes()
    assert applied(FillHoles(), walls).sum() == walls.sum()  # none of them is a hole
    np.testing.assert_array_equal(applied(CloseLumens(max_area_mm2=27.0), walls), solid)
    some = applied(CloseLumens(max_area_mm2=14.4), walls)
    np.testing.assert_array_equal(some[:, :, 8:], solid[:, :, 8:])
    np.testing.assert_array_equal(some[:, 2:7, 2:7], walls[:, 2:7, 2:7])
    assert (applied(CloseLumens(max_area_mm2=7.1), walls) == walls).all()


@given(mask=MASKS, area=st.sampled_from((0.8, 2.4, 5.0, 1e9)))
def test_lumens_are_those_that_planes_have(mask: np.ndarray, area: float) -> None:
    filled = applied(CloseLumens(max_area_mm2=area), mask)
    assert not (mask & ~filled).any()
    assert not (filled & ~applied(CloseLumens(max_area_mm2=1e9), mask)).any()
    if min(mask.shape) > 1:
        assert not (applied(FillHoles(), mask) & ~applied(CloseLumens(max_area_mm2=1e9), mask)).any()
    for axis in range(3):
        back = applied(CloseLumens(max_area_mm2=area), np.flip(mask, axis))
        np.testing.assert_array_equal(np.flip(back, axis), filled)
