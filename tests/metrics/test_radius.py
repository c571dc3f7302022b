import numpy as np
import pytest

from vol3d.metrics import recall_by_radius
from vol3d.metrics.radius import RadiusBin

SPACING = (3.0, 0.5, 0.5)


def vessels() -> tuple[np.ndarray, np.ndarray]:
    """A thin and a thick tube along z, through the whole volume; of the thin one half was found."""
    reference = np.zeros((20, 17, 31), dtype=np.bool_)
    reference[:, 4, 5] = True
    reference[:, 5:12, 15:22] = True
    prediction = reference.copy()
    prediction[10:, 4, 5] = False
    return prediction, reference


def test_the_thin_vessel_is_told_from_the_thick_one() -> None:
    prediction, reference = vessels()
    probability = np.where(reference, np.float32(0.75), np.float32(0.0))
    probability[10:, 4, 5] = 0.25
    found = recall_by_radius(prediction, reference, spacing=SPACING, probability=probability)
    thin, *between, thick = found
    # One step of 0.5 mm to the outside, four of the thick one's middle, less a quarter.
    assert (thin.from_mm, thin.to_mm, thick.from_mm, thick.to_mm) == (0.25, 0.5, 1.0, 2.0)
    assert [one.points for one in between] == [0]
    assert (between[0].recall, between[0].confidence) == (None, None)
    assert (thin.points, thin.hits, thin.recall, thin.confidence) == (20, 10, 0.5, 0.5)
    assert thick.points == thick.hits >= 14
    assert (thick.recall, thick.confidence) == (1.0, 0.75)


def test_a_vessel_that_fills_the_box_around_it_ends_there() -> None:
    _, reference = vessels()
    reference[:, 5:12, 15:22] = False
    (only,) = recall_by_radius(reference, reference, spacing=SPACING)
    assert (only.from_mm, only.to_mm, only.points) == (0.25, 0.5, 20)


def test_given_edges_are_lower_limits() -> None:
    prediction, reference = vessels()
    found = recall_by_radius(prediction, reference, spacing=SPACING, edges_mm=(0.25, 1.75, 4.0))
    assert [(one.from_mm, one.to_mm) for one in found] == [(0.0, 0.25), (0.25, 1.75), (1.75, 4.0), (4.0, np.inf)]
    total = sum(one.points for one in recall_by_radius(prediction, reference, spacing=SPACING))
    assert [one.points for one in found] == [0, 20, total - 20, 0]
    assert [one.confidence for one in found] == [None] * 4


def test_where_nothing_is_outside_the_radius_has_no_end() -> None:
    full = np.ones((5, 6, 7), dtype=np.bool_)
    (only,) = recall_by_radius(full, full, spacing=SPACING)
    assert (only.from_mm, only.to_mm, only.recall) == (0.0, np.inf, 1.0)
    *_, last = recall_by_radius(full, full, spacing=SPACING, edges_mm=(1.0,))
    assert last.points == only.points > 0
    assert recall_by_radius(full, ~full, spacing=SPACING) == ()
    assert recall_by_radius(full, ~full, spacing=SPACING, edges_mm=(1.0,)) == (
        RadiusBin(0.0, 1.0, 0, 0),
        RadiusBin(1.0, np.inf, 0, 0),
    )


def test_refusals() -> None:
    mask = np.ones((3, 4, 5), dtype=np.bool_)
    for edges in ((1.0, 1.0), (0.0, 1.0), (2.0, 1.0), (1.0, np.inf)):
        with pytest.raises(ValueError, match="edges that ascend from above 0 mm"):
            recall_by_radius(mask, mask, spacing=SPACING, edges_mm=edges)
    with pytest.raises(ValueError, match=r"shape \(3, 4, 5\), got \(3, 4\)"):
        recall_by_radius(mask, mask, spacing=SPACING, probability=np.ones((3, 4), dtype=np.float32))
