import numpy as np
import pytest

from vol3d.metrics.counts import COUNTED, Counts
from vol3d.metrics.overlap import Overlap
from vol3d.metrics.report import Scores, score_case, summarise
from vol3d.metrics.surface import SurfaceOverlap
from vol3d.shapes import Spacing
from vol3d.volume.labels import LabelSchema, Region

LIVER = LabelSchema((Region("liver", (1, 2)), Region("lesion", (2,))))


def test_a_large_case_outweighs_a_small_one_when_voxels_are_pooled() -> None:
    """By hand: Dice 180/200 = 0.9 of 100 voxels and 0/4 of two; pooled 180/204."""
    large, small = Counts(Overlap(90, 10, 10), 0.0), Counts(Overlap(0, 2, 2), 0.0)
    assert COUNTED["dice"](large) == pytest.approx(0.9)
    assert COUNTED["dice"](small) == 0.0
    together = large + small
    assert COUNTED["dice"](together) == pytest.approx(180 / 204)
    assert COUNTED["hit"](together) == pytest.approx(90 / 102)
    assert COUNTED["fp"](together) == COUNTED["miss"](together) == pytest.approx(12 / 102)
    assert COUNTED["surface_dice"](together) is None  # nobody asked for it


def test_surfaces_are_pooled_by_their_area() -> None:
    one, other = SurfaceOverlap(16.0, 14.0, 24.0, 16.0), SurfaceOverlap(20.0, 0.0, 40.0, 0.0)
    together = Counts(Overlap(1, 1, 1), -2.0, one) + Counts(Overlap(1, 1, 1), 6.0, other)
    assert COUNTED["surface_dice"](together) == pytest.approx(30 / 100)
    assert COUNTED["surface_hit"](together) == pytest.approx(16 / 64)
    assert COUNTED["surface_fp"](together) == pytest.approx(22 / 36)
    assert COUNTED["volume_difference_mm3"](together) == 4.0
    lacking = together + Counts(Overlap(0, 0, 1), 0.0)
    assert (lacking.overlap.misses, lacking.surface) == (3, None)


def test_the_summary_has_the_mean_of_cases_and_what_is_pooled() -> None:
    """Two rows of voxels in volumes of unlike spacing: areas are mm2, voxels are voxels."""
    cases = []
    for name, length, found, spacing in (("a", 10, 5, Spacing(1, 1, 1)), ("b", 20, 20, Spacing(2, 3, 4))):
        true = np.zeros((20, 31, 27), dtype=np.uint8)
        true[4, 5, 2 : 2 + length] = 1
        predicted = true.copy()
        predicted[4, 5, 2 + found :] = 0
        cases += [(name, s) for s in score_case(predicted, true, schema=LIVER, spacing=spacing)]
    summary = summarise(cases)
    assert summary["liver"]["dice"].mean == pytest.approx((10 / 15 + 1) / 2)
    assert summary["liver"]["dice"].pooled == pytest.approx(2 * 25 / (25 + 30))
    assert summary["liver"]["miss"].pooled == pytest.approx(5 / 30)
    one, other = (s.counts.surface for _, s in cases if s.label == "liver" and s.counts and s.counts.surface)
    assert other.dice == 1.0 and other.referenced_mm2 > 5 * one.referenced_mm2
    matched = one.predicted_matched_mm2 + one.referenced_matched_mm2 + 2 * other.referenced_mm2
    whole = one.predicted_mm2 + one.referenced_mm2 + 2 * other.referenced_mm2
    assert summary["liver"]["surface_dice"].pooled == pytest.approx(matched / whole)
    assert summary["lesion"]["dice"].pooled is None  # in no case
    assert {stat.pooled for stat in summary["mean"].values()} == {None}
    assert summary["liver"]["hd95_mm"].pooled is None


def test_nothing_is_pooled_where_a_case_has_no_counts() -> None:
    known = Scores("liver", {"dice": 0.9}, Counts(Overlap(90, 10, 10), 0.0))
    assert summarise([("a", known)])["liver"]["dice"].pooled == pytest.approx(0.9)
    assert summarise([("a", known), ("b", Scores("liver", {"dice": 0.5}))])["liver"]["dice"].pooled is None
