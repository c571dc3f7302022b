"""What settings the cases of a run choose, and whether what some choose helps the others: nested cross-validation.

Nothing here opens a file: scores of steps that tables do not have are asked of a Scorer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from vol3d.metrics.compare import PairedDifference, paired_difference
from vol3d.metrics.report import MEAN
from vol3d.postprocess.plateau import SCORES, Choice, best, dice, means, most, plateau_of, precision, recall, shortlist
from vol3d.postprocess.scene import Step
from vol3d.postprocess.search import Family, Scores, Table
from vol3d.postprocess.steps import ALL

POINTS = ("best", "strict", "weak")
EXACT = ("surface_dice",)
METRICS = (*SCORES, *EXACT)
GROWTH = tuple(
    Family({f"{step}.tolerance": (0.02, 0.05, 0.1, 0.2, 0.4), f"{step}.min_probability": (0.1, 0.3)})
    for step in ("grow_slices", "grow_range")
)

Steps = tuple[Step, ...]


class Scorer(Protocol):
    """Scores of steps that are run."""

    def own(self, case: int, region: int, settings: Sequence[Steps]) -> list[float]:
        """The score of one region's own mask after each of several lists of steps."""
        ...

    def together(self, case: int, steps: Steps) -> Sequence[Mapping[str, float]]:
        """The scores, by metric, of every region after the steps of all, as they are written."""
        ...


@dataclass(frozen=True)
class Pick:
    """What some cases choose for a region: for each of POINTS a cell of one family, and growth behind the best.

    scores are that family's, means over the cases; NaN where it was not looked.
    """

    region: str
    points: Mapping[str, Choice]
    scores: Scores
    growth: Choice | None = None

    @property
    def best(self) -> Choice:
        """What is proposed."""
        return self.points["best"]

    def steps(self, point: str = "best") -> Steps:
        """The steps of an operating point."""
        choice = self.points[point]
        more = self.growth.family.at(self.growth.place, self.region) if self.growth and point == "best" else ()
        return (*choice.family.at(choice.place, self.region), *more)


@dataclass(frozen=True)
class Search:
    """The tables of all cases, by case and region, and what is looked for in them."""

    regions: tuple[str, ...]
    families: tuple[Family, ...]
    tables: Sequence[Sequence[Table]]
    metric: str
    scorer: Scorer
    growth: bool = False

    def pick(self, region: int, cases: Sequence[int]) -> Pick:
        """What these cases choose for a region.

        strict has the highest precision, weak the highest recall, of the cells on the plateau of the best one.
        """
        name, tables = self.regions[region], [self.tables[case][region] for case in cases]
        scores = means(tables, SCORES.get(self.metric, dice))
        if self.metric not in SCORES:
            scores = self._run(region, cases, shortlist(self.families, scores), self.families)
        choice = best(self.families, scores)
        at = self.families.index(choice.family)
        points, on = {"best": choice}, plateau_of(choice, scores[at])
        for point, wanted in (("strict", precision), ("weak", recall)):
            points[point] = most(choice, on, means(tables, wanted)[at], scores[at])
        growth = self._growth(region, cases, choice) if self.growth else None
        return Pick(name, points, scores[at], growth)

    def _growth(self, region: int, cases: Sequence[int], choice: Choice) -> Choice | None:
        """What growth behind a choice is better by more than the plateaus tell apart, if any is."""
        before = choice.family.at(choice.place, self.regions[region])
        places = [(number, place) for number, family in enumerate(GROWTH) for place in family.places()]
        grown = best((Family({}), *GROWTH), [np.array(choice.score), *self._run(region, cases, places, GROWTH, before)])
        return grown if grown.family.axes else None

    def _run(
        self,
        region: int,
        cases: Sequence[int],
        places: Sequence[tuple[int, tuple[int, ...]]],
        families: Sequence[Family],
        before: Steps = (),
    ) -> list[Scores]:
        """The families' mean scores at some places, by running the steps."""
        settings = [(*before, *families[number].at(place, self.regions[region])) for number, place in places]
        mean = np.mean([self.scorer.own(case, region, settings) for case in cases], axis=0)
        scores = [np.full(family.shape, np.nan) for family in families]
        for (number, place), value in zip(places, mean, strict=True):
            scores[number][place] = value
        return scores


@dataclass(frozen=True)
class Verdict:
    """What nested cross-validation says of a region: its scores case by case, the plan's, and their difference.

    nested is what each case's score is with the settings that the other folds' cases chose.
    """

    region: str
    baseline: tuple[float, ...]
    nested: tuple[float, ...]
    difference: PairedDifference

    @property
    def accepted(self) -> bool:
        """Better on the mean over cases, and in its interval; where cases are too few for one, worse in none."""
        told = self.difference
        if told.mean is None or told.mean <= 0:
            return False
        return told.worse == 0 if told.interval is None else told.interval.low > 0

    @property
    def rule(self) -> str:
        """Why it is accepted or not, for people."""
        told = self.difference
        if told.mean is None or told.mean <= 0:
            return "the held-out folds are not better by it"
        if told.interval is None:
            few = f"of only {told.n} cases {told.worse} are worse by it"
            return few if told.worse else f"none of {told.n} cases is worse by it, too few for an interval"
        return f"the interval of the difference {'excludes' if self.accepted else 'holds'} zero"


@dataclass(frozen=True)
class Judgement:
    """A verdict for each region, and one of the mean over regions, with the settings of those that are accepted."""

    regions: tuple[Verdict, ...]
    mean: Verdict

    @property
    def accepted(self) -> tuple[str, ...]:
        """The regions whose settings are: where regions meet, what helps one may harm the others more."""
        return tuple(one.region for one in self.regions if one.accepted) if self.mean.accepted else ()


def judged(search: Search, folds: Sequence[int], plan: Steps) -> Judgement:
    """Score each fold's cases with what the cases of the other folds choose, against the plan's steps.

    folds has the fold of each case, of two or more. Regions whose settings are not accepted stay as the plan has them,
    and the others are scored again beside these.
    """
    picks: dict[int, list[Pick]] = {}
    for fold in sorted(set(folds)):
        others = [case for case, own in enumerate(folds) if own != fold]
        picks[fold] = [search.pick(region, others) for region in range(len(search.regions))]
    proposed = set(search.regions)
    told: dict[str, Verdict] = {}
    while True:
        chosen = {fold: {p.region: p.steps() for p in own if p.region in proposed} for fold, own in picks.items()}
        steps = [merged(chosen[fold], plan, search.regions) for fold in folds]
        *found, mean = _compared(search, steps, merged({}, plan, search.regions))
        told |= {verdict.region: verdict for verdict in found if verdict.region in proposed}
        kept = {region for region in proposed if told[region].accepted}
        if kept in (proposed, set()):
            return Judgement(tuple(told[region] for region in search.regions), mean)
        proposed = kept


def _compared(search: Search, steps: Sequence[Steps], plan: Steps) -> list[Verdict]:
    """Each case's steps against the plan's: in every region, and in the mean over them."""
    scored = np.array([
        [[region[search.metric] for region in search.scorer.together(case, one)] for one in (own, plan)]
        for case, own in enumerate(steps)
    ])  # fmt: skip
    with_mean = np.concatenate([scored, scored.mean(axis=2, keepdims=True)], axis=2)
    found = []
    for number, region in enumerate((*search.regions, MEAN)):
        nested, baseline = (tuple(map(float, with_mean[:, which, number])) for which in (0, 1))
        difference = paired_difference(nested, baseline, generator=np.random.default_rng(0))
        found.append(Verdict(region, baseline, nested, difference))
    return found


def merged(chosen: Mapping[str, Steps], plan: Steps, regions: Sequence[str]) -> Steps:
    """The steps of all regions: what is chosen for one, or what the plan has for it."""
    found: list[Step] = []
    for region in regions:
        own = [replace(step, region=region) for step in plan if step.region in (ALL, region)]
        found += chosen.get(region, own)
    return tuple(found)
