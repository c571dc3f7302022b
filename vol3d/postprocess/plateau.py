"""Choose among the settings of families by plateau: a setting is worth the mean over its neighbourhood in the grid."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vol3d.postprocess.search import Family, Place, Scores, Table
from vol3d.regions.tally import Counts, Kept

WITHIN = 0.002
"""How far below the best a score may lie on the plateau; smaller differences are none."""


def dice(kept: Kept, true: int) -> Scores:
    """2 hits / (predicted + true); 1 where both are empty, so that no case is ever left out."""
    return _ratio(2 * kept.hits, kept.predicted + true, kept, empty=1.0)


def iou(kept: Kept, true: int) -> Scores:
    """Hits / union; 1 where both are empty."""
    return _ratio(kept.hits, kept.predicted + true - kept.hits, kept, empty=1.0)


def precision(kept: Kept, true: int) -> Scores:  # noqa: ARG001
    """Hits / predicted; 1 where nothing is predicted: nothing is wrong then."""
    return _ratio(kept.hits, kept.predicted, kept, empty=1.0)


def recall(kept: Kept, true: int) -> Scores:
    """Hits / true; 1 where nothing is true: nothing is missed then."""
    return _ratio(kept.hits, np.full_like(kept.hits, true), kept, empty=1.0)


def _ratio(part: Counts, whole: Counts, kept: Kept, *, empty: float) -> Scores:
    found = np.where(whole > 0, part / np.maximum(whole, 1), empty)
    return np.where(kept.predicted < 0, np.nan, found)


Score = Callable[[Kept, int], Scores]
SCORES: Mapping[str, Score] = {"dice": dice, "iou": iou}
"""What tables can be searched by."""


def means(tables: Sequence[Table], score: Score) -> list[Scores]:
    """The mean over volumes of every family's cells; NaN for cells that are no settings."""
    sums = [np.zeros(kept.predicted.shape) for kept in tables[0].kept]
    for one in tables:
        for total, kept in zip(sums, one.kept, strict=True):
            total += score(kept, one.true)
    return [total / len(tables) for total in sums]


def smoothed(scores: Scores) -> Scores:
    """The mean of each cell and its neighbours, one step along any of the axes, diagonals too; NaN stays NaN.

    The grid goes on beyond its edges as it is there; where there is no setting is no neighbour.
    """
    fine = ~np.isnan(scores)
    if scores.ndim == 0:
        return scores
    box = np.ones((3,) * scores.ndim)
    total = ndimage.convolve(np.where(fine, scores, 0.0), box, mode="nearest")
    count = ndimage.convolve(fine.astype(np.float64), box, mode="nearest")
    return np.where(fine, total / np.maximum(count, 1), np.nan)


@dataclass(frozen=True)
class Choice:
    """A cell of a family: its own score, and the plateau's: the mean over its neighbourhood."""

    family: Family
    place: Place
    score: float
    plateau: float

    @property
    def values(self) -> dict[str, float | None]:
        """Its settings by their axes."""
        return self.family.values(self.place)


def best(tried: Sequence[Family], scores: Sequence[Scores]) -> Choice:
    """The cell with the best plateau of the simplest family that has one WITHIN of the best of all.

    NaN are cells that are no settings, or were not looked at; families without any other are passed over.
    """
    found = [_best_of(family, own) for family, own in zip(tried, scores, strict=True) if not np.isnan(own).all()]
    least = max(choice.plateau for choice in found) - WITHIN
    return next(choice for choice in found if choice.plateau >= least)


def _best_of(family: Family, scores: Scores) -> Choice:
    if not scores.ndim:
        return Choice(family, (), float(scores), float(scores))
    plateau = smoothed(scores)
    equal = np.argwhere(plateau >= np.nanmax(plateau) - 1e-12)  # rounding makes no difference
    away = ((equal - equal.mean(axis=0)) ** 2).sum(axis=1)
    place = tuple(int(n) for n in equal[np.argmin(away)])
    return Choice(family, place, float(scores[place]), float(plateau[place]))


def plateau_of(choice: Choice, scores: Scores) -> NDArray[np.bool_]:
    """The cells that hang together with the chosen one and whose plateaus' scores lie WITHIN of its own."""
    if not scores.ndim:
        return np.ones((), dtype=np.bool_)
    with np.errstate(invalid="ignore"):
        high = smoothed(scores) >= choice.plateau - WITHIN
    labels, _ = ndimage.label(high)
    found: NDArray[np.bool_] = labels == labels[choice.place]
    return found


def widths(choice: Choice, scores: Scores) -> dict[str, tuple[float | None, float | None]]:
    """How far each setting can be moved by itself, from and to, while the score stays WITHIN of the chosen cell's."""
    found = {}
    for number, (axis, ladder) in enumerate(choice.family.axes.items()):
        line = scores[tuple(slice(None) if n == number else at for n, at in enumerate(choice.place))]
        fine = line >= choice.score - WITHIN  # false where it is NaN
        low = high = choice.place[number]
        while low > 0 and fine[low - 1]:
            low -= 1
        while high + 1 < len(ladder) and fine[high + 1]:
            high += 1
        found[axis] = (ladder[low], ladder[high])
    return found


def most(choice: Choice, on: NDArray[np.bool_], wanted: Scores, scores: Scores) -> Choice:
    """The cell of a plateau where another score is highest; of equal ones that with the best plateau."""
    plateau = smoothed(scores)
    places = [tuple(int(n) for n in place) for place in np.argwhere(on)] if on.ndim else [()]
    place = max(places, key=lambda at: (round(float(wanted[at]), 9), float(plateau[at])))
    return Choice(choice.family, place, float(scores[place]), float(plateau[place]))


def shortlist(tried: Sequence[Family], scores: Sequence[Scores]) -> list[tuple[int, Place]]:
    """The cells that are worth a score that costs a run of the steps, as the family's number and the place.

    Of the first two families, no step and a plain threshold, and of the two best others by these scores: the best
    plateau's cell, those beside it along each axis, and of the plain threshold its whole ladder.
    """
    found = [_best_of(family, own) for family, own in zip(tried, scores, strict=True)]
    others = sorted(range(2, len(found)), key=lambda number: -found[number].plateau)[:2]
    places = []
    for number in (0, 1, *sorted(others)):
        place, shape = found[number].place, tried[number].shape
        reach = [max(shape) if number == 1 and axis == 0 else 1 for axis in range(len(shape))]
        near = {place}
        for axis, n in enumerate(shape):
            row = range(max(0, place[axis] - reach[axis]), min(n, place[axis] + reach[axis] + 1))
            near |= {(*place[:axis], at, *place[axis + 1 :]) for at in row}
        places += [(number, at) for at in sorted(near) if not np.isnan(scores[number][at])]
    return places
