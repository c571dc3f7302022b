import numpy as np
import pytest

from vol3d.metrics.registry import DEFAULT
from vol3d.metrics.report import Scores, Statistics, case_record, score_case, summarise, table
from vol3d.shapes import Spacing
from vol3d.volume.labels import LabelSchema, Region

SPACING = Spacing(0.8, 1.0, 3.0)
LIVER = LabelSchema((Region("liver", (1, 2)), Region("lesion", (2,))), ignore=9)


def organ(shift: int = 0) -> np.ndarray:
    """A liver with a lesion at the border, and a band to ignore."""
    labels = np.zeros((20, 31, 17), dtype=np.uint8)
    labels[4:15, 5 + shift : 20 + shift, 2:12] = 1
    labels[12:15, 8:12, 2:6] = 2
    labels[18:, :, 15:] = 9
    return labels


def values(prediction: np.ndarray, reference: np.ndarray, **options: object) -> dict[str, dict[str, float | None]]:
    scores = score_case(prediction, reference, schema=LIVER, spacing=SPACING, **options)  # type: ignore[arg-type]
    return {s.label: dict(s.values) for s in scores}


def test_a_perfect_prediction() -> None:
    for scores in values(organ(), organ(), tolerance_mm=1.0).values():
        zeros = {"fp", "miss", "hd95_mm", "assd_mm", "volume_difference_mm3", "volume_difference_relative"}
        assert scores == {name: float(name not in zeros) for name in DEFAULT}


def test_regions_may_overlap_and_the_ratios_are_those_of_the_issue() -> None:
    prediction, reference = organ(shift=3), organ()
    prediction[prediction == 2] = 1
    scores = values(prediction, reference)
    p, r = prediction > 0, np.isin(reference, (1, 2))
    p &= reference != 9
    hits = (p & r).sum()
    assert scores["liver"]["hit"] == hits / r.sum()
    assert scores["liver"]["fp"] == pytest.approx((p & ~r).sum() / p.sum())
    assert scores["liver"]["miss"] == pytest.approx((r & ~p).sum() / r.sum())
    assert scores["liver"]["volume_difference_mm3"] == pytest.approx((int(p.sum()) - int(r.sum())) * 2.4)
    assert scores["lesion"]["dice"] == 0
    assert scores["lesion"]["precision"] is None


def test_empty_masks_follow_the_policy() -> None:
    empty = np.zeros_like(organ())
    both = values(empty, empty, tolerance_mm=2.0)["liver"]
    assert both == {**dict.fromkeys(DEFAULT), "volume_difference_mm3": 0.0}
    missed = values(empty, organ(), tolerance_mm=2.0)["liver"]
    undefined = {"fp", "precision", "hd95_mm", "assd_mm", "component_precision"}
    assert {name for name, value in missed.items() if value is None} == undefined
    assert missed["dice"] == missed["surface_dice"] == missed["surface_dice_at_tolerance"] == 0.0
    invented = values(organ(), empty, tolerance_mm=2.0)["liver"]
    undefined = {"hit", "miss", "recall", "hd95_mm", "assd_mm", "volume_difference_relative", "component_recall"}
    assert {name for name, value in invented.items() if value is None} == undefined


def test_ignored_voxels_count_nowhere() -> None:
    noisy = organ()
    noisy[18:, :, 15:] = 1
    assert values(noisy, organ()) == values(organ(), organ())


def test_only_what_is_named_is_computed() -> None:
    assert list(values(organ(1), organ(), metrics=("surface_dice", "dice"))["liver"]) == ["dice", "surface_dice"]
    assert "surface_dice_at_tolerance" not in values(organ(1), organ())["liver"]
    with pytest.raises(ValueError, match=r"unknown metrics \['dcie'\]; known are dice,"):
        values(organ(), organ(), metrics=("dcie",))
    with pytest.raises(ValueError, match="one shape"):
        values(organ(), organ()[1:])


def test_the_summary_counts_what_is_undefined() -> None:
    cases = [
        ("a", Scores("liver", {"dice": 0.9})),
        ("a", Scores("lesion", {"dice": 0.5})),
        ("b", Scores("liver", {"dice": 0.7})),
        ("b", Scores("lesion", {"dice": None})),
        ("c", Scores("liver", {"dice": None})),
        ("c", Scores("lesion", {"dice": None})),
    ]
    summary = summarise(cases)
    assert list(summary) == ["liver", "lesion", "mean"]
    assert summary["liver"]["dice"] == Statistics(pytest.approx(0.8), pytest.approx(0.1), n=2, undefined=1)
    assert summary["lesion"]["dice"] == Statistics(0.5, 0.0, n=1, undefined=2)
    assert summary["mean"]["dice"] == Statistics(pytest.approx(0.7), pytest.approx(0.0), n=2, undefined=3)
    assert summarise([("c", Scores("lesion", {"dice": None}))])["mean"]["dice"] == Statistics(None, None, 0, 1)


def test_a_record_has_every_metric() -> None:
    assert list(case_record("a", Scores("x", {"dice": 1.0}))) == ["case", "label", *DEFAULT]


def test_the_table_is_aligned() -> None:
    rows = [{"case": "a", "dice": 0.5, "n": 3}, {"case": "longer", "dice": None, "n": 12}]
    assert table(rows).splitlines() == ["case      dice   n", "a       0.5000   3", "longer       -  12"]
    assert table([]) == ""
