import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from plain_steps import applied

from vol3d.postprocess.size import Largest, SizeFilter, voxels_in
from vol3d.regions.components import component_sizes, label
from vol3d.shapes import Spacing

MASKS = arrays(np.bool_, array_shapes(min_dims=3, max_dims=3, max_side=6))


def three_pieces() -> np.ndarray:
    mask = np.zeros((20, 31, 17), dtype=np.bool_)
    mask[2:4, 5, 6] = True  # 2 voxels, 4.8 mm^3
    mask[10:13, 20, 9] = True  # 3 voxels, 7.2 mm^3
    mask[17:20, 28:, 14:] = True  # 27 voxels at the corner
    return mask


@pytest.mark.parametrize(("min_volume_mm3", "left"), [(0.0, 32), (4.8, 32), (4.9, 30), (7.2, 30), (7.3, 27), (70, 0)])
def test_the_bound_is_a_volume_and_inclusive(min_volume_mm3: float, left: int) -> None:
    assert applied(SizeFilter(min_volume_mm3=min_volume_mm3), three_pieces()).sum() == left


def test_the_bound_may_be_voxels_and_is_one_of_both() -> None:
    assert [applied(SizeFilter(min_voxels=n), three_pieces()).sum() for n in (0, 2, 3, 4, 28)] == [32, 32, 30, 27, 0]
    for fields in ({}, {"min_voxels": 2, "min_volume_mm3": 2.0}):
        with pytest.raises(ValueError, match="size_filter needs one of min_volume_mm3 and min_voxels"):
            SizeFilter(**fields)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="min_voxels must be zero or more voxels, got -1"):
        SizeFilter(min_voxels=-1)


@pytest.mark.parametrize(("step", "voxel_mm3"), [(0.1, 0.001), (0.3, 0.027), (0.7, 0.343), (0.05, 0.000125)])
def test_rounding_of_the_spacing_costs_no_voxel(step: float, voxel_mm3: float) -> None:
    for n in range(1, 1000):
        assert voxels_in(n * voxel_mm3, Spacing(step, step, step)) == n


@given(mask=MASKS, count=st.integers(1, 4), connectivity=st.sampled_from((6, 18, 26)))
def test_the_largest_are_as_many_and_none_left_is_larger(mask: np.ndarray, count: int, connectivity: int) -> None:
    kept = applied(Largest(count=count, connectivity=connectivity), mask)  # type: ignore[arg-type]
    found = label(kept, connectivity=connectivity)  # type: ignore[arg-type]
    rest = component_sizes(label(mask & ~kept, connectivity=connectivity))  # type: ignore[arg-type]
    assert not (kept & ~mask).any()
    assert found.count == min(count, label(mask, connectivity=connectivity).count)  # type: ignore[arg-type]
    if rest.max():
        assert component_sizes(found)[1:].min() >= rest.max()


def test_of_equal_components_the_first_stays() -> None:
    mask = np.zeros((20, 31, 17), dtype=np.bool_)
    mask[15, 3, 1:3] = mask[4, 20, 5:7] = mask[9, 30, 15:] = True
    assert np.argwhere(applied(Largest(count=2), mask))[:, 0].tolist() == [4, 4, 9, 9]
