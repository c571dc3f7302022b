import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from plain_steps import SPACING, applied

from vol3d.postprocess.morphology import FillHoles, close_gaps
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
