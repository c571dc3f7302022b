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
