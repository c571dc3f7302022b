"""What a tuning found: for JSON, as tables for people, as one row for every setting, and as a picture."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vol3d.files.tables import write_csv
from vol3d.metrics.report import MEAN, table
from vol3d.postprocess.plateau import SCORES, best, dice, means, plateau_of, precision, recall, smoothed, widths
from vol3d.postprocess.scene import Step
from vol3d.postprocess.steps import steps_to
from vol3d.tasks.tuning import Judgement, Pick, Search, Steps, Verdict
from vol3d.viewer.heat_map import HeatMap

LEAK = "chosen and scored on the same cases, which flatters"


@dataclass(frozen=True)
class Point:
    """An operating point: the steps of all regions, and their mean scores by region and metric over all cases."""

    steps: Steps
    scores: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Tuning:
    """What all cases choose, what the folds say of it, and what was written into which plans.

    judgement is None where there is one fold. points are of the accepted regions; without any, of what was proposed.
    """

    out: Path
    metric: str
    cases: tuple[str, ...]
    folds: tuple[int, ...]
    picks: tuple[Pick, ...]
    judgement: Judgement | None
    accepted: tuple[str, ...]
    points: Mapping[str, Point]
    plans: tuple[Path, ...] = ()

    def record(self) -> dict[str, Any]:
        """Everything for JSON."""
        points = {
            name: {"steps": steps_to(point.steps), "scores": {k: dict(v) for k, v in point.scores.items()}}
            for name, point in self.points.items()
        }
        return {
            "out": str(self.out),
            "metric": self.metric,
            "cases": len(self.cases),
            "folds": len(set(self.folds)),
            "regions": {pick.region: {**_chosen(pick), **self._judged(pick.region)} for pick in self.picks},
            "mean": self._judged(MEAN),
            "operating_points": points,
            "plans": [str(path) for path in self.plans],
        }

    def table(self) -> str:
        """The same for people, with a sentence for each region."""
        regions = [pick.region for pick in self.picks]
        shown = [*regions, *([MEAN] if len(regions) > 1 else [])]
        judged = [{"region": region, **_row(self._judged(region))} for region in shown]
        points = [
            {"point": name, "region": region, **scores, "steps": told(s for s in point.steps if s.region == region)}
            for name, point in self.points.items()
            for region, scores in point.scores.items()
        ]
        title = f"{len(self.cases)} cases of {len(set(self.folds))} fold(s), {self.metric}"
        flattering = f"operating points, {LEAK}:"
        return "\n\n".join([title, table(judged), flattering, table(points), "\n".join(self.sentences())])

    def sentences(self) -> list[str]:
        """What became of each region's settings, and why."""
        found = []
        for pick in self.picks:
            verdict = self._verdict(pick.region)
            why = "one fold alone cannot tell whether they help" if verdict is None else verdict.rule
            if verdict is not None and verdict.accepted and pick.region not in self.accepted:
                why = "it helps this region, but not the mean over regions"
            if pick.region not in self.accepted:
                found.append(f"{pick.region}: not accepted, {why}; the plan stays as it was (--accept writes them)")
                continue
            asked = "" if self.judgement and pick.region in self.judgement.accepted else " because of --accept"
            found.append(f"{pick.region}: accepted{asked}, {why}; written into {len(self.plans)} plan(s)")
        return found

    def told(self) -> str:
        """Where the steps come from, in a line for the plan."""
        found = [
            f"{v.region} {np.mean(v.baseline):.4f} to {np.mean(v.nested):.4f}"
            for v in (self.judgement.regions if self.judgement else ())
            if v.region in self.accepted
        ]
        gain = f"{', '.join(found)} on held-out folds" if found else LEAK
        return f"vol3d tune, {len(self.cases)} cases, {self.metric}: {gain}"

    def _verdict(self, region: str) -> Verdict | None:
        told = self.judgement
        return None if told is None else next(one for one in (*told.regions, told.mean) if one.region == region)

    def _judged(self, region: str) -> dict[str, Any]:
        verdict = self._verdict(region)
        names = ("baseline", "held_out", "difference", "low", "high", "better", "worse", "equal")
        accepted = bool(self.accepted) if region == MEAN else region in self.accepted
        if verdict is None:
            return {**dict.fromkeys(names), "accepted": accepted}
        own, ends = verdict.difference, verdict.difference.interval
        values = (
            *(float(np.mean(scores)) for scores in (verdict.baseline, verdict.nested)),
            own.mean,
            *((None, None) if ends is None else (ends.low, ends.high)),
            own.better,
            own.worse,
            own.equal,
        )
        return {**dict(zip(names, values, strict=True)), "accepted": accepted}


def _chosen(pick: Pick) -> dict[str, Any]:
    reach = widths(pick.best, pick.scores)
    return {
        "steps": told(pick.steps()),
        "score": pick.best.score,
        "plateau": pick.best.plateau,
        "settings": pick.best.values,
        "from": {axis: low for axis, (low, _) in reach.items()},
        "to": {axis: high for axis, (_, high) in reach.items()},
    }


def _row(judged: Mapping[str, Any]) -> dict[str, Any]:
    return {**judged, "accepted": "yes" if judged["accepted"] else "no"}


def told(steps: Any) -> str:
    """Steps in a line, without what is as it always is.

    >>> from vol3d.postprocess.threshold import Hysteresis
    >>> told([Hysteresis(seed_threshold=0.8, grow_threshold=0.3, region="vessel")])
    'hysteresis seed_threshold=0.8 grow_threshold=0.3'
    """
    return ", ".join(_told(step) for step in steps) or "no step"


def _told(step: Step) -> str:
    ((name, values),) = steps_to([step])[0].items()
    usual = {field.name: field.default for field in type(step).__dataclass_fields__.values()}
    own = [f"{key}={value:g}" for key, value in values.items() if key != "region" and value != usual[key]]
    return " ".join([name, *own])


def write_settings(path: Path, search: Search) -> None:
    """A row for each region, family and setting: its mean score over all cases, its plateau's, precision and recall.

    Scores that need a run of the steps are not there for all; the tables' Dice stands for them.
    """
    score = search.metric if search.metric in SCORES else "dice"
    header = ["region", "steps", "settings", score, "plateau", "precision", "recall"]
    write_csv(path, header, _setting_rows(search, score))


def _setting_rows(search: Search, score: str) -> Iterator[list[str]]:
    for number, region in enumerate(search.regions):
        tables = [case[number] for case in search.tables]
        found = [means(tables, one) for one in (SCORES[score], precision, recall)]
        for family, scores, *rest in zip(search.families, *found, strict=True):
            plateau = smoothed(scores)
            for place in family.places():
                if np.isnan(scores[place]):
                    continue
                settings = " ".join(f"{k}={'none' if v is None else v}" for k, v in family.values(place).items())
                values = [f"{array[place]:.6f}" for array in (scores, plateau, *rest)]
                yield [region, family.name, settings, *values]


def heat_of(pick: Pick, search: Search) -> HeatMap:
    """Top against bottom at the best area: of the chosen triplet, or of the best one where another rule is chosen."""
    number = search.regions.index(pick.region)
    hysteresis = [family for family in search.families if family.rules == ("hysteresis",)]
    at = search.families.index(hysteresis[0])
    metric = search.metric if search.metric in SCORES else "dice"
    scores = means([case[number] for case in search.tables], SCORES.get(metric, dice))[at]
    chosen = pick.best.family is hysteresis[0]
    choice = pick.best if chosen else best(hysteresis, [scores])
    plane = (slice(None), slice(None), *(slice(at, at + 1) for at in choice.place[2:]))
    shape = scores.shape[:2]
    bottoms, tops, areas = list(hysteresis[0].axes.values())[:3]
    title = f"{pick.region}: {metric} with min_seed_voxels={areas[choice.place[2]]:g}"
    return HeatMap(
        values=scores[plane].reshape(shape),
        outlined=plateau_of(choice, scores)[plane].reshape(shape),
        place=(choice.place[0], choice.place[1]),
        rows=("grow_threshold", _ladder(bottoms)),
        columns=("seed_threshold", _ladder(tops)),
        title=title if chosen else f"{title}\nchosen: {told(pick.steps())}",
    )


def _ladder(values: Sequence[float | None]) -> tuple[str, ...]:
    return tuple(f"{value:g}" for value in values)
