import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from vol3d.metrics import betti_errors
from vol3d.regions.cubes import paired_codes
from vol3d.regions.topology import Betti, betti_numbers, euler_number

MASKS = arrays(np.bool_, array_shapes(min_dims=3, max_dims=3, max_side=6))


def euler_of(mask: np.ndarray, cuts: list[int]) -> int:
    parts = np.split(mask, cuts)
    return euler_number(paired_codes(zip(parts, parts, strict=True)).sum(axis=0))


def betti(mask: np.ndarray) -> Betti:
    return betti_numbers(mask, euler=euler_of(mask, []))


def solid() -> np.ndarray:
    mask = np.zeros((9, 12, 10), dtype=np.bool_)
    mask[1:8, 1:11, 1:9] = True
    return mask


def test_shapes_have_the_numbers_that_topology_gives_them() -> None:
    ball, ring, shell, both = solid(), solid(), solid(), solid()
    ring[:, 4:7, 4:6] = False
    shell[3:5, 4:7, 4:6] = False
    both[3, 2:4, 2:4] = both[6, 8, 2:4] = both[:, 6, 6] = False
    torus = np.zeros((9, 12, 10), dtype=np.bool_)
    torus[1:6, 0:11, 0:9] = True
    torus[:, 4:7, 4:5] = False
    inside = np.zeros_like(torus)
    inside[2:5, 1:10, 1:8] = True
    inside[:, 3:8, 3:6] = False
    torus &= ~inside  # hollow: its skin has two tunnels around one cavity
    assert betti(ball) == (1, 0, 0)
    assert betti(ring) == (1, 1, 0)
    assert betti(shell) == (1, 0, 1)
    assert betti(both) == (1, 1, 2)
    assert betti(torus) == (1, 2, 1)
    assert betti(np.zeros_like(ball)) == (0, 0, 0)
    assert betti(np.ones_like(ball)) == (1, 0, 0)
    assert betti_errors(both, shell) == (0, 1, 1)
    assert betti_errors(np.zeros_like(ball), torus) == (1, 2, 1)


def test_corners_join_the_foreground_and_only_faces_the_background() -> None:
    mask = np.zeros((4, 5, 6), dtype=np.bool_)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = True
    assert betti(mask) == (1, 0, 0)
    shell = np.ones((3, 4, 5), dtype=np.bool_)
    shell[1, 1, 1] = shell[1, 2, 2] = False  # an edge joins these two
    shell[0, 0, 1] = False  # and one of them to the outside
    assert betti(shell) == (1, 0, 2)
    shell[0, 1, 1] = False  # now a face
    assert betti(shell) == (1, 0, 1)


def test_a_picture_has_holes_and_no_cavities() -> None:
    picture = np.ones((1, 9, 12), dtype=np.bool_)
    picture[0, 2:4, 2:5] = picture[0, 6, 8] = picture[0, 0, 11] = False
    assert betti(picture) == (1, 2, 0)


@settings(max_examples=40)
@given(mask=MASKS, data=st.data())
def test_any_cut_gives_the_euler_number_that_holds_the_parts_together(mask: np.ndarray, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(mask)))))
    euler = euler_of(mask, cuts)
    found = betti(mask)
    assert euler == found.components - found.tunnels + found.cavities
    assert min(found) >= 0


@settings(max_examples=40)
@given(masks=array_shapes(min_dims=3, max_dims=3, max_side=5).flatmap(lambda s: st.tuples(*[arrays(np.bool_, s)] * 2)))
def test_numbers_of_masks_that_stand_apart_add_up(masks: tuple[np.ndarray, np.ndarray]) -> None:
    beside = np.concatenate([masks[0], np.zeros((1, *masks[0].shape[1:]), dtype=np.bool_), masks[1]])
    assert betti(beside) == tuple(a + b for a, b in zip(betti(masks[0]), betti(masks[1]), strict=True))
    assert betti_errors(*masks) == tuple(abs(a - b) for a, b in zip(betti(masks[0]), betti(masks[1]), strict=True))


def test_shapes_must_be_equal() -> None:
    with pytest.raises(ValueError, match="one shape"):
        betti_errors(solid(), solid()[1:])
