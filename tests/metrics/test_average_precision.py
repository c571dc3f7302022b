import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vol3d.metrics import instance_average_precision, instance_case
from vol3d.metrics.average_precision import InstanceCase


def case(*found: tuple[float, float, int], referenced: int) -> InstanceCase:
    """Predicted components as (confidence, intersection over union, number of the component it overlaps most)."""
    confidence, iou, partner = np.array(found, dtype=np.float64).reshape(-1, 3).T
    return InstanceCase(confidence, iou, partner.astype(np.int64), referenced)


TWO = (
    case((0.9, 0.7, 1), (0.8, 0.65, 1), (0.7, 0.0, 0), referenced=2),
    case((0.85, 0.55, 1), (0.6, 0.9, 2), referenced=2),
)


def test_the_area_under_the_monotone_curve_over_all_images() -> None:
    # At 0.6, by confidence: right, wrong, wrong (its component is taken), wrong, right; four to find.
    assert instance_average_precision(TWO, iou=0.6) == pytest.approx((1 / 1 + 2 / 5) / 4)
    assert instance_average_precision(TWO, iou=0.7) == pytest.approx((1 / 1 + 2 / 5) / 4)  # reached is enough
    # At 0.5 the second is right as well: precisions 1, 1, 2/3, 2/4, 3/5.
    assert instance_average_precision(TWO, iou=0.5) == pytest.approx((1 + 1 + 3 / 5) / 4)


def test_a_later_better_precision_counts_for_less_recall() -> None:
    found = case((0.9, 0.0, 0), (0.8, 0.9, 1), (0.7, 0.9, 2), (0.6, 0.0, 0), referenced=3)
    assert instance_average_precision([found], iou=0.6) == pytest.approx((2 / 3 + 2 / 3) / 3)  # 1/2 is raised to 2/3


def test_equal_confidences_enter_together_whatever_their_order() -> None:
    found = [(0.5, 0.0, 0), (0.5, 0.9, 1), (0.5, 0.0, 0), (0.4, 0.8, 2)]
    for order in ([0, 1, 2, 3], [1, 3, 0, 2], [3, 2, 1, 0]):
        score = instance_average_precision([case(*(found[i] for i in order), referenced=2)], iou=0.6)
        assert score == pytest.approx((2 / 4 + 2 / 4) / 2)


def test_what_is_empty() -> None:
    assert instance_average_precision([], iou=0.6) is None
    assert instance_average_precision([case((0.9, 0.0, 0), referenced=0)], iou=0.6) is None
    assert instance_average_precision([case(referenced=2)], iou=0.6) == 0.0
    # An image without a reference has its false alarms in the curve.
    alarm = case((0.95, 0.0, 0), referenced=0)
    assert instance_average_precision([case((0.9, 1.0, 1), referenced=1), alarm], iou=0.6) == 0.5
    for iou in (0.0, 1.1):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            instance_average_precision(TWO, iou=iou)


@settings(max_examples=50)
@given(
    found=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 3)), max_size=12),
    order=st.randoms(use_true_random=False),
)
def test_laws(found: list[tuple[int, int, int]], order: st.DataObject) -> None:
    rows = [(c / 10, i / 10, p) for c, i, p in found]
    score = instance_average_precision([case(*rows, referenced=3)], iou=0.6)
    assert score is not None
    assert 0 <= score <= 1
    assert instance_average_precision([case(*rows, referenced=3), case(referenced=0)], iou=0.6) == score
    assert (instance_average_precision([case(*rows, referenced=3)], iou=0.5) or 0) >= score - 1e-12
    twice = [case(*rows, referenced=3)] * 2
    assert instance_average_precision(twice, iou=0.6) == pytest.approx(score)
    order.shuffle(rows)  # type: ignore[attr-defined]
    assert instance_average_precision([case(*rows, referenced=3)], iou=0.6) == pytest.approx(score)


def test_confidence_is_the_mean_probability_of_a_component() -> None:
    reference, prediction = np.zeros((3, 4, 30), dtype=np.bool_), np.zeros((3, 4, 30), dtype=np.bool_)
    reference[1, 2, 0:10] = reference[1, 2, 14:20] = True
    prediction[1, 2, 0:8] = prediction[1, 2, 18:22] = prediction[1, 2, 25:29] = True
    probability = np.zeros(reference.shape, dtype=np.float32)
    probability[1, 2, 0:4], probability[1, 2, 4:8], probability[1, 2, 18:29] = 1.0, 0.5, 0.25
    found = instance_case(prediction, reference, probability=probability)
    assert sorted(found.confidence) == [0.25, 0.25, 0.75]
    assert sorted(found.iou) == [0.0, 2 / 8, 8 / 10]
    assert np.unique(found.partner).size == 3
    assert found.referenced == 2
    assert instance_average_precision([found], iou=0.6) == 0.5
    nothing = instance_case(reference & False, reference, probability=probability)
    assert (nothing.confidence.size, nothing.referenced) == (0, 2)
    with pytest.raises(ValueError, match=r"masks' shape \(3, 4, 30\), got \(3, 4\)"):
        instance_case(prediction, reference, probability=probability[..., 0])
