import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from vol3d.metrics.overlap import Overlap, overlap, rest

PAIRS = array_shapes(min_dims=3, max_dims=3, max_side=5).flatmap(
    lambda shape: st.tuples(arrays(np.bool_, shape), arrays(np.bool_, shape))
)


@given(pair=PAIRS)
def test_laws(pair: tuple[np.ndarray, np.ndarray]) -> None:
    score, swapped = overlap(*pair), overlap(pair[1], pair[0])
    assert (score.dice, score.iou, score.recall) == (swapped.dice, swapped.iou, swapped.precision)
    assert (score.predicted, score.referenced) == (pair[0].sum(), pair[1].sum())
    if score.dice is not None and score.iou is not None:
        assert score.dice == pytest.approx(2 * score.iou / (1 + score.iou))
    whole = overlap(pair[0][:1], pair[1][:1]) + overlap(pair[0][1:], pair[1][1:])
    assert whole == score


def test_a_hand_counted_case() -> None:
    score = Overlap(hits=6, false_positives=2, misses=4)
    assert (score.dice, score.iou, score.precision, score.recall) == (12 / 18, 0.5, 0.75, 0.6)
    assert rest(score.recall) == pytest.approx(0.4)


def test_over_nothing_is_undefined() -> None:
    both, no_prediction, no_reference = Overlap(0, 0, 0), Overlap(0, 0, 5), Overlap(0, 5, 0)
    assert (both.dice, both.iou, both.precision, both.recall) == (None, None, None, None)
    assert (no_prediction.dice, no_prediction.iou, no_prediction.precision, no_prediction.recall) == (0, 0, None, 0)
    assert (no_reference.dice, no_reference.iou, no_reference.precision, no_reference.recall) == (0, 0, 0, None)
    assert rest(None) is None


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        overlap(np.ones((2, 3, 4), dtype=np.bool_), np.ones((2, 3, 1), dtype=np.bool_))
