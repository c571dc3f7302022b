"""Centre lines: inside their mask, thin, connected as it is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from vol3d.regions.skeleton import skeleton

masks = hnp.arrays(bool, st.tuples(*[st.integers(1, 7)] * 3))


@given(masks)
def test_it_lies_in_the_mask_and_in_each_of_its_components(mask: NDArray[np.bool_]) -> None:
    lines = skeleton(mask)
    assert lines.dtype == np.bool_
    assert not (lines & ~mask).any()
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    assert set(labels[lines]) == set(range(1, count + 1))


@pytest.mark.parametrize(("width", "core"), [((2, 2), (2, 2)), ((1, 2), (1, 2)), ((4, 4), (2, 2)), ((5, 5), (1, 1))])
def test_a_tube_of_even_thickness_keeps_its_core(width: tuple[int, int], core: tuple[int, int]) -> None:
    tube = np.zeros((30, 9, 9), dtype=np.bool_)
    tube[3:27, 2 : 2 + width[0], 3 : 3 + width[1]] = True
    lines = skeleton(tube)
    assert lines.any(axis=(1, 2)).sum() >= 18
    for plane in lines[7:23]:
        assert (plane.any(axis=1).sum(), plane.any(axis=0).sum()) == core


def test_a_bent_tube_becomes_its_centre_line() -> None:
    tube = np.zeros((9, 24, 20), dtype=np.bool_)
    tube[2:7, 3:20, 4:9], tube[2:7, 15:20, 4:18] = True, True
    before = tube.copy()
    lines = skeleton(tube)
    assert np.array_equal(tube, before)
    assert lines.sum(axis=(1, 2)).argmax() == 4
    assert 15 < lines.sum() < 30
    assert lines[4, 8, 6]
    assert lines[4, 17, 12]


def test_it_does_not_matter_where_the_mask_lies() -> None:
    mask = np.random.default_rng(2).random((6, 5, 7)) > 0.4
    moved = np.pad(mask, ((2, 1), (0, 3), (4, 0)))
    assert np.array_equal(np.pad(skeleton(mask), ((2, 1), (0, 3), (4, 0))), skeleton(moved))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_picture_has_lines_in_its_plane(axis: int) -> None:
    picture = np.zeros((12, 30), dtype=np.bool_)
    picture[3:8, 2:27] = True
    lines = np.moveaxis(skeleton(np.moveaxis(picture[None], 0, axis)), axis, 0)[0]
    assert 18 <= lines.sum() <= 25
    assert lines[5, 6:23].all()
