import numpy as np
import pytest

from vol3d.metrics.average_precision import instance_average_precision, instance_case
from vol3d.metrics.details import Details, average_precisions, detail_case, radius_records
from vol3d.metrics.radius import RadiusBin, recall_by_radius
from vol3d.shapes import Spacing
from vol3d.volume.labels import LabelSchema, Region

SPACING = Spacing(0.8, 1.0, 3.0)
SCHEMA = LabelSchema((Region("vessel", (1, 2)), Region("lesion", (2,))), ignore=9)


def case(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two vessels along x with a lesion; the prediction has one of them, and a speck; some of it is not known."""
    truth = np.zeros((20, 31, 17), dtype=np.uint8)
    truth[2:5, 3:7, :], truth[12:14, 20:22, 2:15], truth[12, 20, 5:9] = 1, 1, 2
    truth[18:, :5] = 9
    prediction = np.zeros_like(truth)
    prediction[2:5, 3:7, 1:], prediction[8, 15, 3:6], prediction[18:, :4] = 1, 1, 1
    probability = np.random.default_rng(seed).random((2, *truth.shape)).astype(np.float16)
    return prediction, truth, probability


def test_details_are_those_of_each_region_of_the_whole_volume() -> None:
    prediction, truth, probability = case(0)
    found = detail_case(
        prediction, truth, schema=SCHEMA, spacing=SPACING, probability=probability, instances=True, radii=True
    )
    assert [one.label for one in found] == ["vessel", "lesion"]
    for place, (one, values) in enumerate(zip(found, ((1, 2), (2,)), strict=True)):
        masks = [np.isin(labels, values) & (truth != 9) for labels in (prediction, truth)]
        own = probability[place].astype(np.float32)
        expected = instance_case(*masks, probability=own)
        assert one.instances is not None
        for name in ("confidence", "iou", "partner"):
            np.testing.assert_allclose(getattr(one.instances, name), getattr(expected, name), rtol=1e-6)
        for got, bin_ in zip(one.radii, recall_by_radius(*masks, spacing=SPACING, probability=own), strict=True):
            assert (got.from_mm, got.to_mm, got.points, got.hits) == (bin_.from_mm, bin_.to_mm, bin_.points, bin_.hits)
            assert got.probability_sum == pytest.approx(bin_.probability_sum, rel=1e-5)


def test_cases_are_put_together_by_label() -> None:
    details = [
        one
        for seed in (0, 1)
        for one in detail_case(
            *case(seed)[:2], schema=SCHEMA, spacing=SPACING, probability=case(seed)[2], instances=True, radii=True
        )
    ]
    found = average_precisions(details)
    assert list(found) == ["vessel", "lesion"] and found["lesion"] == {"iou_50": 0.0, "iou_60": 0.0}
    vessels = [one.instances for one in details if one.label == "vessel" and one.instances]
    assert found["vessel"]["iou_60"] == instance_average_precision(vessels, iou=0.6)
    rows = radius_records(details)["vessel"]
    alone = radius_records(details[:2])["vessel"]
    assert [row["points"] for row in rows] == [2 * int(row["points"] or 0) for row in alone]
    assert [row["recall"] for row in rows] == [row["recall"] for row in alone]
    assert rows[0]["confidence"] != alone[0]["confidence"]
    assert [row["from_mm"] for row in rows] == sorted(float(row["from_mm"] or 0) for row in rows)


def test_what_is_not_asked_for_is_not_there_and_empty_masks_have_nothing() -> None:
    prediction, truth, probability = case(0)
    (one, _) = detail_case(
        prediction, truth, schema=SCHEMA, spacing=SPACING, probability=None, instances=True, radii=True
    )
    assert one.instances is None and {found.confidence for found in one.radii} == {None}
    empty = 0 * truth
    found = detail_case(
        empty, empty, schema=SCHEMA, spacing=SPACING, probability=probability, instances=True, radii=False
    )
    assert average_precisions(found) == {label: {"iou_50": None, "iou_60": None} for label in ("vessel", "lesion")}
    assert radius_records(found) == {}


def test_radii_without_an_end_are_one_bin() -> None:
    endless = [RadiusBin(2.0, np.inf, 3, 1), RadiusBin(8.0, np.inf, 1, 1)]
    details = [Details("a", None, (RadiusBin(1.0, 2.0, 4, 2), endless[0])), Details("a", None, (endless[1],))]
    assert radius_records(details)["a"] == [
        {"from_mm": 1.0, "to_mm": 2.0, "points": 4, "recall": 0.5, "confidence": None},
        {"from_mm": 8.0, "to_mm": None, "points": 4, "recall": 0.5, "confidence": None},
    ]
