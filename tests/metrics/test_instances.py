import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from vol3d.metrics.instances import Detection, Matching, detection, matched_components

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


@settings(max_examples=40)
@given(pair=PAIRS, iou=st.sampled_from((0.1, 0.5, 0.6, 1.0)))
def test_matching_is_one_to_one(pair: tuple[np.ndarray, np.ndarray], iou: float) -> None:
    found, back = matched_components(*pair, iou=iou), matched_components(pair[1], pair[0], iou=iou)
    assert found.matched <= min(found.predicted, found.referenced)
    assert found.matched * iou <= found.iou_sum <= found.matched
    if iou >= 0.5:
        assert (back.matched, back.iou_sum) == (found.matched, pytest.approx(found.iou_sum))
    own = matched_components(pair[0], pair[0], iou=iou)
    assert own.matched == own.predicted == own.referenced == own.iou_sum


def test_matching_by_hand() -> None:
    reference, prediction = bars((0, 10), (12, 16), (20, 24)), bars((0, 8), (12, 13), (15, 16), (20, 28))
    found = matched_components(prediction, reference)
    assert found == Matching(matched=2, predicted=4, referenced=3, iou_sum=8 / 10 + 4 / 8)
    assert (found.recall, found.precision, found.f1) == (2 / 3, 2 / 4, 4 / 7)
    assert found.segmentation_quality == pytest.approx(0.65)
    assert found.panoptic_quality == pytest.approx(0.65 * 4 / 7)
    assert matched_components(prediction, reference, iou=0.6).matched == 1
    nothing = matched_components(bars(), bars())
    assert (nothing.recall, nothing.precision, nothing.f1, nothing.panoptic_quality) == (None,) * 4
    missed = matched_components(bars(), reference)
    assert (missed.recall, missed.precision, missed.f1, missed.panoptic_quality) == (0.0, None, 0.0, 0.0)
    assert missed.segmentation_quality is None


def test_the_largest_overlap_is_matched_first() -> None:
    # The first predicted bar overlaps both; it goes to the one it fits best, and the other is left to nobody.
    reference, prediction = bars((0, 4), (5, 12)), bars((0, 12), (20, 22))
    found = matched_components(prediction, reference, iou=0.1)
    assert (found.matched, found.iou_sum) == (1, 7 / 12)
    # What is taken is not matched again, though a second best is free.
    reference, prediction = bars((0, 6)), bars((0, 2), (3, 6))
    found = matched_components(prediction, reference, iou=0.1)
    assert (found.matched, found.iou_sum) == (1, 3 / 6)


@pytest.mark.parametrize("iou", [0.0, -0.5, 1.01])
def test_nothing_is_matched_at_no_overlap(iou: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        matched_components(bars((0, 2)), bars((0, 2)), iou=iou)
