"""The sweep's law: at every threshold it gives what the metrics give for that threshold's mask."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vol3d.metrics.overlap import overlap
from vol3d.metrics.surface import surface_dice
from vol3d.metrics.sweep import (
    SURFACE_THRESHOLDS,
    THRESHOLDS,
    ThresholdSweep,
    area_under,
    mean_curve,
    plateau,
)
from vol3d.shapes import Shape3, Spacing

SPACING = Spacing(0.8, 1.0, 3.0)


def levels_of(probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    return sum((probability >= t).astype(np.uint8) for t in THRESHOLDS)  # type: ignore[return-value]


def swept(probability: NDArray[np.float32], reference: NDArray[np.bool_], cuts: list[int]) -> ThresholdSweep:
    sweep = ThresholdSweep(Shape3(*probability.shape), SPACING)
    edges = [0, *sorted({c for c in cuts if 0 < c < len(probability)}), len(probability)]
    for first, stop in pairwise(edges):
        sweep.add(levels_of(probability[first:stop]), reference[first:stop])
    return sweep


def or_nan(value: float | None) -> float:
    return np.nan if value is None else value


@given(
    shape=st.sampled_from([(7, 11, 5), (1, 9, 12), (6, 1, 9), (6, 9, 1), (3, 2, 2), (1, 1, 8)]),
    cuts=st.lists(st.integers(1, 6)),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_at_every_threshold_it_is_the_metric_of_that_mask(
    shape: tuple[int, int, int], cuts: list[int], share: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    reference = rng.random(shape) < share
    probability = np.clip(0.4 * reference + 0.6 * rng.random(shape), 0, 1).astype(np.float32)
    probability[rng.random(shape) < 0.2] = rng.choice(np.array(THRESHOLDS, np.float32))  # bounds are inclusive
    sweep = swept(probability, reference, cuts)
    for threshold, found in zip(THRESHOLDS, sweep.dice(), strict=True):
        assert found == pytest.approx(or_nan(overlap(probability >= threshold, reference).dice), abs=1e-12, nan_ok=True)
    for threshold, found in zip(SURFACE_THRESHOLDS, sweep.surface_dice(), strict=True):
        expected = or_nan(surface_dice(probability >= threshold, reference, spacing=SPACING))
        assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_a_volume_of_many_pieces_is_the_same(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    reference = rng.random((20, 31, 17)) < 0.2
    probability = rng.random(reference.shape, dtype=np.float32)
    whole = swept(probability, reference, [])
    monkeypatch.setattr("vol3d.regions.cubes.CUBES_AT_ONCE", 3 * 32 * 18)
    pieces = swept(probability, reference, [7])
    assert np.array_equal(whole.dice(), pieces.dice())
    assert np.array_equal(whole.surface_dice(), pieces.surface_dice())


def test_undefined_scores_are_left_out_of_the_mean() -> None:
    nan = np.nan
    mean = mean_curve([np.array([0.5, nan, nan]), np.array([0.7, 0.2, nan])])
    assert mean == pytest.approx([0.6, 0.2, nan], nan_ok=True)


def test_a_plateau_is_what_lies_within_a_hundredth_around_the_best() -> None:
    thresholds = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    found = plateau(thresholds, np.array([0.895, 0.5, 0.891, 0.9, 0.9, 0.88]))
    assert found is not None
    assert (found.threshold, found.score, found.low, found.high) == (0.5, 0.9, 0.3, 0.5)
    assert found.width == pytest.approx(0.2)
    flat = plateau(thresholds, np.full(6, 0.7))
    assert flat is not None and (flat.threshold, flat.width) == (0.4, pytest.approx(0.5))
    some = plateau(thresholds, np.array([np.nan, 0.3, np.nan, 0.4, 0.395, np.nan]))
    assert some is not None and (some.low, some.high) == (0.4, 0.5)
    assert plateau(thresholds, np.full(6, np.nan)) is None


def test_the_area_rewards_a_wide_and_a_high_plateau() -> None:
    wide, narrow, low = (np.array(c) for c in ([0.8, 0.9, 0.8], [0.3, 0.9, 0.3], [0.5, 0.5, 0.5]))
    areas = [area_under(c) for c in (wide, narrow, low)]
    assert areas == pytest.approx([2.5 / 3, 0.5, 0.5])
    assert area_under(np.full(3, np.nan)) is None
