import numpy as np
import pytest
from plain_steps import applied

from vol3d.postprocess.gate import OrganGate


def organ() -> np.ndarray:
    mask = np.zeros((20, 31, 17), dtype=np.bool_)
    mask[8:13, 10:20, 5:10] = True
    return mask


@pytest.mark.parametrize(
    ("margin_mm", "extent"),
    [(0.0, (5, 10, 5)), (1.0, (7, 12, 5)), (3.0, (11, 16, 7)), (-0.9, (3, 10, 5)), (-3, (0,) * 3)],
)
def test_the_margin_is_in_millimetres_along_every_axis(margin_mm: float, extent: tuple[int, ...]) -> None:
    left = applied(OrganGate(margin_mm=margin_mm), np.ones((20, 31, 17), dtype=np.bool_), organ=organ())
    assert tuple(int(left.any(axis=tuple({0, 1, 2} - {axis})).sum()) for axis in range(3)) == extent


def test_nothing_is_added_and_nothing_modified() -> None:
    mask, place = np.zeros((20, 31, 17), dtype=np.bool_), organ()
    mask[10, 12, :] = True
    mask.flags.writeable = place.flags.writeable = False
    assert applied(OrganGate(), mask, organ=place).sum() == 5
    assert applied(OrganGate(margin_mm=100.0), mask, organ=place).sum() == mask.sum()


def test_beyond_the_margin_the_probability_falls_linearly_and_the_bound_is_inclusive() -> None:
    row = np.ones((1, 1, 9), dtype=np.bool_)
    place = np.zeros_like(row)
    place[..., 0] = True  # voxels 3 mm apart: with a margin of 3 mm the shares are 1, 1, 3/4, 1/2, 1/4, 0 ...
    step = OrganGate(margin_mm=3.0, falloff_mm=12.0, threshold=0.5)
    p = np.array([0.1, 0.1, 0.66, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], dtype=np.float32).reshape(row.shape)
    assert np.flatnonzero(applied(step, row, organ=place, probability=p)).tolist() == [0, 1, 3]
    p[..., 2] = 0.67
    assert np.flatnonzero(applied(step, row, organ=place, probability=p)).tolist() == [0, 1, 2, 3]
    p[:] = np.nan
    assert np.flatnonzero(applied(step, row, organ=place, probability=p)).tolist() == [0, 1]


def test_a_soft_gate_lies_between_the_hard_ones(rng: np.random.Generator) -> None:
    mask, p = rng.random((2, 20, 31, 17)) < 0.5, rng.random((20, 31, 17), dtype=np.float32)
    soft = applied(OrganGate(falloff_mm=4.0, threshold=0.2), mask[0], organ=organ(), probability=p)
    tight, wide = (applied(OrganGate(margin_mm=mm), mask[0], organ=organ()) for mm in (0.0, 4.0))
    assert tight.sum() < soft.sum() < wide.sum()
    assert not (tight & ~soft).any() and not (soft & ~wide).any()
    assert not applied(OrganGate(falloff_mm=4.0), mask[0], organ=np.zeros_like(mask[0]), probability=p).any()
