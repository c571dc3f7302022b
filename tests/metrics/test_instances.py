import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from vol3d.metrics.instances import Candidate, Detection, average_precision, detection, match_instances
from vol3d.regions.components import label

PAIRS = array_shapes(min_dims=3, max_dims=3, max_side=6).flatmap(
    lambda shape: st.tuples(arrays(np.bool_, shape), arrays(np.bool_, shape))
)


def bars(*spans: tuple[int, int], length: int = 30) -> np.ndarray:
    mask = np.zeros((3, 4, length), dtype=np.bool_)
    for start, stop in spans:
        mask[1, 2, start:stop] = True
    return mask


@given(pair=PAIRS)
def test_detection_is_symmetric_and_a_mask_finds_itself(pair: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = detection(*pair), detection(pair[1], pair[0])
    assert (one.referenced, one.found, one.predicted, one.matched) == (
        other.predicted,
        other.matched,
        other.referenced,
        other.found,
    )
    own = detection(pair[0], pair[0])
    assert own.found == own.referenced == own.matched == own.predicted


def test_one_shared_voxel_is_enough() -> None:
    found = detection(bars((0, 4), (10, 12), (20, 22)), bars((3, 8), (14, 18)))
    assert found == Detection(referenced=2, found=1, predicted=3, matched=1)
    assert (found.recall, found.precision) == (0.5, 1 / 3)
    nothing = detection(bars(), bars())
    assert (nothing.recall, nothing.precision) == (None, None)


def test_the_surest_instance_chooses_first_and_each_reference_is_taken_once() -> None:
    reference = label(bars((0, 10)))
    prediction = label(bars((0, 4), (5, 10)))  # IoU 0.4 and 0.5
    long, short = (int(prediction.labels[1, 2, x]) for x in (5, 0))
    confidence = np.zeros(3)
    confidence[long], confidence[short] = 0.6, 0.9
    for threshold, expected in ((0.4, [True, False]), (0.5, [False, True])):
        candidates = match_instances(prediction, confidence, reference, iou_threshold=threshold)
        assert [c.confidence for c in candidates] == [0.9, 0.6]
        assert [c.matched for c in candidates] == expected


def test_average_precision_by_hand() -> None:
    candidates = [Candidate(c, m) for c, m in ((0.5, False), (0.9, True), (0.8, False), (0.7, True))]
    assert average_precision(candidates, 4) == pytest.approx((1 + 2 / 3) / 4)
    assert average_precision([], 2) == 0.0
    assert average_precision(candidates, 0) is None


def test_refusals() -> None:
    one = label(bars((0, 2)))
    with pytest.raises(ValueError, match="expected 2 confidences"):
        match_instances(one, np.zeros(1), one)
    with pytest.raises(ValueError, match=r"in \(0, 1\], got 0"):
        match_instances(one, np.zeros(2), one, iou_threshold=0)
    with pytest.raises(ValueError, match="one shape"):
        match_instances(one, np.zeros(2), label(bars(length=9)))
