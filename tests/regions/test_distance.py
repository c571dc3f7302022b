import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from vol3d.regions import distance, tensor_distance
from vol3d.regions.distance import dilate_mm, distance_mm, erode_mm, nearest_mm, offset_mm
from vol3d.shapes import Spacing

SHAPES = array_shapes(min_dims=3, max_dims=3, max_side=6)
MASKS = arrays(np.bool_, SHAPES)
STEPS = st.sampled_from((0.1, 0.3, 0.8, 1.0, 3.0))
SPACINGS = st.builds(Spacing, STEPS, STEPS, STEPS)
RADII = st.sampled_from((0.0, 0.1, 0.3, 1.0, 2.5, 100.0))


def brute_distance(mask: np.ndarray, spacing: Spacing) -> np.ndarray:
    everywhere = np.stack(np.indices(mask.shape), axis=-1).reshape(-1, 1, 3)
    away = (everywhere - np.argwhere(mask)) * np.asarray(spacing)
    return np.sqrt((away**2).sum(axis=-1)).min(axis=1, initial=np.inf).reshape(mask.shape)


@given(mask=MASKS, spacing=SPACINGS)
def test_distance_is_the_minimum_over_all_true_voxels(mask: np.ndarray, spacing: Spacing) -> None:
    np.testing.assert_allclose(distance_mm(mask, spacing), brute_distance(mask, spacing), rtol=1e-6)


@given(mask=MASKS, spacing=SPACINGS, radius_mm=RADII)
def test_dilation_is_the_ball_around_the_mask(mask: np.ndarray, spacing: Spacing, radius_mm: float) -> None:
    before = mask.copy()
    grown = dilate_mm(mask, radius_mm, spacing)
    np.testing.assert_array_equal(grown, brute_distance(mask, spacing) <= radius_mm + 1e-9)
    np.testing.assert_array_equal(mask, before)


@given(mask=MASKS, spacing=SPACINGS, radius_mm=RADII)
def test_erosion_is_the_dilation_of_the_rest(mask: np.ndarray, spacing: Spacing, radius_mm: float) -> None:
    np.testing.assert_array_equal(erode_mm(mask, radius_mm, spacing), ~dilate_mm(~mask, radius_mm, spacing))


@given(mask=MASKS, spacing=SPACINGS, radius_mm=RADII, at_once=st.integers(1, 90))
def test_a_tensor_is_moved_as_its_array(mask: np.ndarray, spacing: Spacing, radius_mm: float, at_once: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_distance, "VOXELS_AT_ONCE", at_once)
        for margin_mm in (radius_mm, -radius_mm):
            moved = offset_mm(torch.from_numpy(mask), margin_mm, spacing)
            np.testing.assert_array_equal(moved.numpy(), offset_mm(mask, margin_mm, spacing))


@pytest.mark.parametrize("spacing", [Spacing(0.1, 0.1, 0.1), Spacing(0.3, 0.1, 0.2), Spacing(3.0, 0.7, 0.8)])
def test_offsets_on_the_sphere_are_within_for_tensors_too(spacing: Spacing) -> None:
    """Radii that are themselves distances of the grid, far enough for float32 to be short of digits."""
    mask = np.zeros((15, 41, 43), dtype=np.bool_)
    mask[7, 20, 21] = True
    away = np.unique(brute_distance(mask, spacing))
    for radius_mm in away[:: len(away) // 12]:
        grown = dilate_mm(torch.from_numpy(mask), float(radius_mm), spacing)
        np.testing.assert_array_equal(grown.numpy(), dilate_mm(mask, float(radius_mm), spacing))


@given(data=st.data(), shape=SHAPES, spacing=SPACINGS)
def test_nearest_reads_the_distance_map(data: st.DataObject, shape: tuple[int, ...], spacing: Spacing) -> None:
    points, targets = data.draw(arrays(np.bool_, shape)), data.draw(arrays(np.bool_, shape))
    expected = brute_distance(targets, spacing)[points]
    np.testing.assert_allclose(nearest_mm(points, targets, spacing), expected)
    near = nearest_mm(points, targets, spacing, limit_mm=1.0)
    np.testing.assert_allclose(near, np.where(expected <= 1.0 + 1e-9, expected, np.inf))


def test_the_axis_of_a_spacing_matters() -> None:
    mask = np.zeros((9, 9, 9), dtype=np.bool_)
    mask[4, 4, 4] = True
    grown = dilate_mm(mask, 3.0, Spacing(0.8, 1.0, 3.0))
    assert [int(n) for n in (grown[:, 4, 4].sum(), grown[4, :, 4].sum(), grown[4, 4].sum())] == [7, 7, 3]


def test_a_negative_radius_is_refused() -> None:
    with pytest.raises(ValueError, match="got -1"):
        dilate_mm(np.ones((2, 2, 2), dtype=np.bool_), -1.0, Spacing(1, 1, 1))


@pytest.mark.parametrize("radius_mm", [0.9, 2.5, 6.0])
def test_tiles_are_not_seen(radius_mm: float, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    mask, spacing = rng.random((20, 31, 17)) < 0.01, Spacing(0.8, 1.0, 3.0)
    mask[3:18, 4:21, 6:15] = True
    whole = dilate_mm(mask, radius_mm, spacing), erode_mm(mask, radius_mm, spacing)
    seen: list[int] = []
    measured = distance.distance_mm
    monkeypatch.setattr(distance, "distance_mm", lambda m, s: seen.append(m.size) or measured(m, s))
    monkeypatch.setattr(distance, "TILE_VOXELS", 1000)
    cut = dilate_mm(mask, radius_mm, spacing), erode_mm(mask, radius_mm, spacing)
    np.testing.assert_array_equal(np.stack(cut), np.stack(whole))
    assert len(seen) > 2
    assert max(seen) < mask.size / 2


def test_offset_dilates_above_zero_and_erodes_below() -> None:
    mask = np.zeros((9, 9, 9), dtype=np.bool_)
    mask[3:6, 3:6, 3:6] = True
    spacing = Spacing(0.8, 1.0, 3.0)
    assert [int(offset_mm(mask, mm, spacing).sum()) for mm in (1.0, 0.0, -1.0)] == [63, 27, 3]
    with pytest.raises(ValueError, match="got nan"):
        offset_mm(mask, math.nan, spacing)
