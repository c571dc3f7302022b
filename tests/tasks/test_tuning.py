"""Settings are judged by cases that did not choose them: what helps by chance is refused, what helps is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from vol3d.metrics.compare import paired_difference
from vol3d.postprocess.plateau import dice
from vol3d.postprocess.search import LADDER, Family, Table
from vol3d.postprocess.size import Largest
from vol3d.postprocess.threshold import Threshold
from vol3d.regions.tally import Kept
from vol3d.tasks.tuning import Search, Steps, Verdict, judged, merged

PLAIN = Family({"threshold.threshold": LADDER})
TRUE = 1000
FOLDS = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


@dataclass
class FromTables:
    """Steps are looked up in the tables: what runs them has tests of its own. No step scores as 0.5 does."""

    tables: Sequence[Sequence[Table]]
    asked: list[tuple[int, Steps]] = field(default_factory=list)

    def own(self, case: int, region: int, settings: Sequence[Steps]) -> list[float]:
        return [self._score(case, region, steps) for steps in settings]

    def together(self, case: int, steps: Steps) -> list[Mapping[str, float]]:
        self.asked.append((case, steps))
        names = ("a", "b")[: len(self.tables[case])]
        each = [tuple(step for step in steps if step.region == name) for name in names]
        return [{"dice": self._score(case, region, own)} for region, own in enumerate(each)]

    def _score(self, case: int, region: int, steps: Steps) -> float:
        (threshold,) = [step.threshold for step in steps if isinstance(step, Threshold)] or [0.5]
        table = self.tables[case][region]
        return float(dice(table.kept[0], table.true)[LADDER.index(threshold)])


def searched(gains: Sequence[np.ndarray], seed: int, folds: Sequence[int] = FOLDS) -> Search:
    """Hits that differ by chance, cell by cell and case by case, and by a gain for each region's cells."""
    rng = np.random.default_rng(seed)
    tables = []
    for _ in folds:
        ease = rng.normal(0, 60)
        row = []
        for gain in gains:
            hits = np.clip(600 + ease + gain + rng.normal(0, 40, len(LADDER)), 0, TRUE).astype(np.int64)
            row.append(Table((Kept(np.full(len(LADDER), TRUE), hits),), TRUE))
        tables.append(row)
    return Search(("a", "b")[: len(gains)], (PLAIN,), tables, "dice", FromTables(tables))


NOTHING = np.zeros(len(LADDER))
HIGHER = np.where(np.array(LADDER) > 0.7, 60.0, 0.0)


def test_what_helps_by_chance_is_refused_and_what_helps_is_accepted() -> None:
    by_chance = [judged(searched([NOTHING], seed), FOLDS, ()).mean for seed in range(40)]
    assert sum(one.accepted for one in by_chance) <= 2
    # It would have looked well on the cases that chose it.
    flattering = [searched([NOTHING], seed) for seed in range(40)]
    gains = [
        s.pick(0, range(12)).best.score - np.mean([s.scorer.together(c, ())[0]["dice"] for c in range(12)])
        for s in flattering
    ]
    assert np.mean(gains) > 0.006
    assert np.mean([one.difference.mean for one in by_chance]) < 0.003  # type: ignore[misc]
    real = [judged(searched([HIGHER], seed), FOLDS, ()).regions[0] for seed in range(10)]
    assert sum(one.accepted for one in real) >= 9


def test_a_fold_is_scored_with_what_the_others_chose() -> None:
    search = searched([HIGHER], 5)
    scorer = search.scorer
    judged(search, FOLDS, ())
    assert isinstance(scorer, FromTables)
    for case, fold in enumerate(FOLDS):
        others = [n for n, own in enumerate(FOLDS) if own != fold]
        assert (case, search.pick(0, others).steps()) in scorer.asked
    # What a fold's own truth says changes nothing in what it is scored with.
    changed = searched([HIGHER], 5)
    for case in range(3):
        (table,) = changed.tables[case]
        table.kept[0].hits[:] = table.kept[0].hits[::-1].copy()
    assert changed.pick(0, range(3, 12)).steps() == search.pick(0, range(3, 12)).steps()
    first = [steps for case, steps in scorer.asked if case == 0]
    judged(changed, FOLDS, ())
    assert isinstance(changed.scorer, FromTables)
    assert [steps for case, steps in changed.scorer.asked if case == 0] == first


def test_a_region_that_is_refused_stays_as_the_plan_has_it() -> None:
    search = searched([HIGHER, -HIGHER], 8)
    plan = (Threshold(threshold=0.35, region="b"), Largest(count=2))
    told = judged(search, FOLDS, plan)
    assert [one.accepted for one in told.regions] == [True, False]
    assert told.accepted == ("a",)
    # The mean is that of the settings which come out: b is as it was.
    assert told.mean.difference.mean == pytest.approx(told.regions[0].difference.mean / 2)  # type: ignore[operator]
    assert isinstance(search.scorer, FromTables)
    last = search.scorer.asked[-2][1]  # of the accepted settings beside the plan's
    assert [step for step in last if step.region == "b"] == [plan[0], Largest(count=2, region="b")]
    assert merged({}, plan, ("a", "b")) == (Largest(count=2, region="a"), plan[0], Largest(count=2, region="b"))


def test_what_helps_one_region_and_harms_the_mean_is_refused() -> None:
    class Stealing(FromTables):
        """Whatever a takes, b loses twice."""

        def together(self, case: int, steps: Steps) -> list[Mapping[str, float]]:
            a, b = (row["dice"] for row in super().together(case, steps))
            lost = 2 * (a - self._score(case, 0, ())) if any(step.region == "a" for step in steps) else 0.0
            return [{"dice": a}, {"dice": b - lost}]

    search = searched([HIGHER, NOTHING], 8)
    told = judged(replace(search, scorer=Stealing(search.tables)), FOLDS, ())
    assert told.regions[0].accepted and not told.mean.accepted
    assert told.accepted == ()


@pytest.mark.parametrize(
    ("gains", "accepted"),
    [
        ([0.1, 0.2, 0.1], True),
        ([0.3, 0.2, -0.01], False),  # one of too few is worse
        ([0.0, 0.0, 0.0], False),
        ([0.1, 0.2, 0.1, 0.1, 0.3, 0.1, 0.2], True),
        ([0.1, 0.2, 0.1, 0.1, 0.3, -0.01, 0.2], True),  # one of many may be
        ([0.5, -0.2, 0.3, -0.1, 0.1, -0.1, 0.0], False),  # better on the mean, but not surely
    ],
)
def test_the_rule(gains: list[float], accepted: bool) -> None:
    baseline = [0.5] * len(gains)
    nested = [0.5 + gain for gain in gains]
    difference = paired_difference(nested, baseline, generator=np.random.default_rng(0))
    verdict = Verdict("a", tuple(baseline), tuple(nested), difference)
    assert verdict.accepted is accepted
    assert verdict.rule
