import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from vol3d.metrics import hd95_mm, surface_dice
from vol3d.shapes import Spacing

SPACING = Spacing(0.8, 1.0, 3.0)
PAIRS = array_shapes(min_dims=3, max_dims=3, min_side=2, max_side=8).flatmap(
    lambda shape: st.tuples(arrays(np.bool_, shape), arrays(np.bool_, shape))
)


def slab(thickness: int, size: int = 100) -> np.ndarray:
    mask = np.zeros((size, size, size), dtype=np.bool_)
    mask[:thickness] = True
    return mask


def test_slabs_of_50_and_51_slices() -> None:
    assert surface_dice(slab(51), slab(50), spacing=Spacing(1, 1, 1)) == pytest.approx(0.750877, abs=1e-6)


@given(pair=PAIRS)
def test_laws_of_surface_dice(pair: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = pair
    score = surface_dice(one, other, spacing=SPACING)
    assert score == surface_dice(other, one, spacing=SPACING)
    if not one.any() and not other.any():
        assert score is None
        assert surface_dice(one, other, spacing=SPACING, tolerance_mm=1.0) is None
        return
    scores = [surface_dice(one, other, spacing=SPACING, tolerance_mm=t) for t in (0.0, 0.8, 1.0, 2.0, 100.0)]
    assert scores[0] == pytest.approx(score)
    assert scores == sorted(scores, key=float)  # type: ignore[arg-type]
    assert scores[-1] == (1.0 if one.any() and other.any() else 0.0)


@given(pair=PAIRS)
def test_a_mask_agrees_with_itself_and_an_empty_one_with_none(pair: tuple[np.ndarray, np.ndarray]) -> None:
    one, empty = pair[0], np.zeros_like(pair[0])
    if one.any():
        assert surface_dice(one, one, spacing=SPACING) == 1.0  # not a bit more
        assert hd95_mm(one, one, spacing=SPACING) == 0.0
        assert surface_dice(empty, one, spacing=SPACING) == 0.0
        assert surface_dice(empty, one, spacing=SPACING, tolerance_mm=5.0) == 0.0
    assert hd95_mm(one, empty, spacing=SPACING) is None
    assert hd95_mm(empty, one, spacing=SPACING) is None


@given(pair=PAIRS)
def test_empty_surroundings_change_nothing(pair: tuple[np.ndarray, np.ndarray]) -> None:
    padded = [np.pad(mask, ((2, 1), (0, 3), (4, 1))) for mask in pair]
    assert surface_dice(*pair, spacing=SPACING) == surface_dice(padded[0], padded[1], spacing=SPACING)
    assert hd95_mm(*pair, spacing=SPACING) == hd95_mm(padded[0], padded[1], spacing=SPACING)


def test_tolerance_is_millimetres_along_each_axis() -> None:
    block = np.zeros((20, 31, 17), dtype=np.bool_)
    block[5:12, 8:20, 4:10] = True
    for axis, step in enumerate(SPACING):
        moved = np.roll(block, 1, axis=axis)
        assert surface_dice(moved, block, spacing=SPACING, tolerance_mm=step) == 1.0
        below = surface_dice(moved, block, spacing=SPACING, tolerance_mm=step * 0.99)
        assert below is not None
        assert below < 1.0
        assert hd95_mm(moved, block, spacing=SPACING) == pytest.approx(step)


def test_refusals() -> None:
    mask = np.ones((3, 4, 5), dtype=np.bool_)
    with pytest.raises(ValueError, match=r"one shape, got \(3, 4, 5\) and \(3, 4, 4\)"):
        surface_dice(mask, mask[..., 1:], spacing=SPACING)
    for tolerance_mm in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="zero or more millimetres"):
            surface_dice(mask, mask, spacing=SPACING, tolerance_mm=tolerance_mm)
