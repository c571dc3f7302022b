"""A triplet's score is that of the hysteresis step with the same numbers."""

import numpy as np
import pytest
from scipy import ndimage

from vol3d.metrics.overlap import overlap
from vol3d.metrics.sweep import THRESHOLDS
from vol3d.metrics.triplets import AREAS, BOTTOM_LEVELS, TOP_LEVELS, best_triplet, triplet_dice
from vol3d.postprocess.scene import Scene
from vol3d.postprocess.steps import apply_steps, steps_from
from vol3d.shapes import Spacing


def test_every_triplet_scores_as_hysteresis_does(rng: np.random.Generator) -> None:
    smooth = ndimage.gaussian_filter(rng.standard_normal((20, 31, 17)), 1.5)
    probability = (1 / (1 + np.exp(-2 * (smooth / smooth.std() - 1)))).astype(np.float32)
    reference = ndimage.gaussian_filter(rng.standard_normal(probability.shape), 1.0) + smooth > 0.3
    levels = sum((probability >= t).astype(np.uint8) for t in THRESHOLDS)
    found = triplet_dice(levels, reference)  # type: ignore[arg-type]
    assert len(np.unique(found[~np.isnan(found)])) > 20
    for row, bottom in enumerate(BOTTOM_LEVELS):
        for column, top in enumerate(TOP_LEVELS):
            for place, area in enumerate(AREAS[:3]):
                score = found[row, column, place]
                if top < bottom:
                    assert np.isnan(score)
                    continue
                step = {"seed_threshold": THRESHOLDS[top - 1], "grow_threshold": THRESHOLDS[bottom - 1]}
                steps = steps_from([{"hysteresis": {**step, "min_seed_voxels": area}}])
                scene = Scene(Spacing(0.8, 1.0, 3.0), regions=("vessel",), probability=probability[None])
                mask = apply_steps(np.zeros((1, *reference.shape), np.bool_), steps, scene).masks[0]
                assert score == pytest.approx(overlap(mask, reference).dice, abs=1e-12)


def test_the_best_triplet_is_that_of_the_mean_over_cases() -> None:
    shape = (len(BOTTOM_LEVELS), len(TOP_LEVELS), len(AREAS))
    one, other = np.full(shape, 0.2), np.full(shape, np.nan)
    one[1, 7, 2], one[0, 5, 0], other[0, 5, 0] = 0.8, 0.9, 0.1
    found = best_triplet([one, other])
    assert found is not None
    assert (found.seed_threshold, found.min_seed_voxels, found.grow_threshold) == (0.8, 64, 0.3)
    assert found.dice == pytest.approx(0.8)
    assert best_triplet([np.full(shape, np.nan)]) is None


def test_an_empty_truth_and_nothing_found_are_undefined() -> None:
    empty = np.zeros((3, 4, 5), np.uint8)
    assert np.isnan(triplet_dice(empty, empty > 0)).all()
    assert np.nanmax(triplet_dice(empty, empty == 0)) == 0.0
