"""A setting is worth what its neighbourhood is: a narrow peak loses to a broad plateau."""

import numpy as np
import pytest

from vol3d.postprocess.plateau import WITHIN, best, most, plateau_of, shortlist, smoothed, widths
from vol3d.postprocess.search import Family

TENTHS, SIZES = tuple(n / 10 for n in range(8)), (1.0, 2.0, 3.0, 4.0, 5.0)
TWO = Family({"hysteresis.grow_threshold": TENTHS, "size_filter.min_volume_mm3": SIZES})


def hilly() -> np.ndarray:
    """A peak of one cell, a broad plateau that is a little lower, and cells that are no settings."""
    scores = np.full((8, 5), 0.5)
    scores[6, 3] = 0.9
    scores[1:4, 0:4] = 0.8
    scores[2, 1] = 0.8015
    scores[7, :2] = np.nan
    return scores


def test_a_narrow_peak_loses_to_a_broad_plateau() -> None:
    found = best([TWO], [hilly()])
    assert found.place == (2, 1)
    assert (found.score, found.plateau) == (0.8015, pytest.approx(0.8 + 0.0015 / 9))
    assert hilly().max() != found.score  # the highest cell is another
    on = plateau_of(found, hilly())
    assert on[2, 1] and on[2, 2] and not on[6, 3] and not on[0, 0]


def test_a_neighbourhood_goes_on_beyond_the_grid_but_not_to_what_is_no_setting() -> None:
    scores = np.array([[1.0, 2.0, np.nan], [3.0, 4.0, 5.0]])
    assert smoothed(scores)[0, 0] == pytest.approx((4 * 1 + 2 * 2 + 2 * 3 + 4) / 9)  # as if its edges went on
    assert smoothed(scores)[1, 2] == pytest.approx((2 + 2 * 4 + 4 * 5) / 7)
    assert np.isnan(smoothed(scores)[0, 2])
    assert smoothed(np.array(0.7)) == 0.7


def test_of_equal_cells_the_middle_is_chosen() -> None:
    scores = np.zeros((8, 5))
    scores[2:7, :] = 1.0
    assert best([TWO], [scores]).place == (4, 2)


def test_the_simplest_family_wins_unless_another_is_clearly_better() -> None:
    none = Family({})
    flat = np.full((8, 5), 0.8)
    assert best([none, TWO], [np.array(0.8 - 0.9 * WITHIN), flat]).family is none
    assert best([none, TWO], [np.array(0.8 - 1.1 * WITHIN), flat]).family is TWO
    assert best([none, TWO], [np.array(np.nan), flat]).family is TWO


def test_a_width_is_how_far_one_setting_can_move() -> None:
    found = best([TWO], [hilly()])
    assert widths(found, hilly()) == {"hysteresis.grow_threshold": (0.1, 0.3), "size_filter.min_volume_mm3": (1.0, 4.0)}
    island = hilly()
    island[2, 4] = 0.1
    island[5, 1] = 0.8  # as good, but not without passing what is worse
    assert widths(found, island)["hysteresis.grow_threshold"] == (0.1, 0.3)


def test_operating_points_stay_on_the_plateau() -> None:
    scores = hilly()
    found, precision = best([TWO], [scores]), np.linspace(0, 1, 40).reshape(8, 5)
    on = plateau_of(found, scores)
    strict, weak = most(found, on, precision, scores), most(found, on, -precision, scores)
    inside = np.argwhere(on).tolist()
    assert list(strict.place) == inside[-1] and list(weak.place) == inside[0]
    assert scores[strict.place] >= 0.8 and scores[weak.place] >= 0.8


def test_a_shortlist_is_the_best_cell_with_those_beside_it() -> None:
    three = [Family({}), Family({"threshold.threshold": (0.2, 0.4, 0.6)}), TWO, TWO, TWO]
    scores = [np.array(0.7), np.array([0.1, 0.7, 0.2]), hilly() - 0.2, hilly(), hilly() - 0.1]
    found = shortlist(three, scores)
    assert [place for number, place in found if number == 1] == [(0,), (1,), (2,)]
    assert [place for number, place in found if number == 3] == [(1, 1), (2, 0), (2, 1), (2, 2), (3, 1)]
    assert {number for number, _ in found} == {0, 1, 3, 4}
