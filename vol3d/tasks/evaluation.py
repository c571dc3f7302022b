"""What an evaluation found: cases, their summary in all and by source, and the difference from a baseline."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vol3d.files.atomic import write_json, write_text
from vol3d.files.tables import write_csv
from vol3d.metrics.compare import MIN_CASES, PairedDifference, paired_difference
from vol3d.metrics.details import Details, average_precisions, radius_records
from vol3d.metrics.registry import DEFINITIONS, METRICS
from vol3d.metrics.report import (
    EMPTY,
    MEAN,
    Empty,
    Scores,
    Statistics,
    by_label,
    case_record,
    summarise,
    table,
)

HIDDEN = ("precision", "recall", "volume_difference_relative")
"""What the tables for people leave out: another column says it."""

NO_SOURCE = "(none)"
_SEED = 0

Cases = tuple[tuple[str, Scores], ...]


@dataclass(frozen=True)
class Evaluation:
    """The scores of every case and label, in the order of the truths.

    sources are those of the cases, where they are known; baseline are another prediction's scores of the same cases,
    where there is one. empty is what two empty masks count as. details are of each case and label, where asked for.
    """

    cases: Cases
    tolerance_mm: float | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    empty: Empty = "undefined"
    baseline: Cases = ()
    details: tuple[Details, ...] = ()

    @property
    def _count(self) -> int:
        return len({case for case, _ in self.cases})

    @cached_property
    def summary(self) -> dict[str, dict[str, Statistics]]:
        """Statistics by label and metric; "mean" is over labels, then over cases."""
        return summarise(self.cases, random_seed=_SEED)

    @cached_property
    def by_source(self) -> dict[str, dict[str, dict[str, Statistics]]]:
        """The summary of each source's cases alone; empty where no source is known."""
        found: dict[str, list[tuple[str, Scores]]] = {}
        for case, scores in self.cases if self.sources else ():
            found.setdefault(self.sources.get(case, NO_SOURCE), []).append((case, scores))
        return {source: summarise(cases, random_seed=_SEED) for source, cases in found.items()}

    @cached_property
    def comparison(self) -> dict[str, dict[str, PairedDifference]]:
        """The differences from the baseline by label and metric, case by case; empty without one."""
        return _compared(self.cases, self.baseline) if self.baseline else {}

    def record(self) -> dict[str, Any]:
        """Everything for JSON; None is undefined or not asked for."""
        return {
            "cases": [case_record(case, scores) for case, scores in self.cases],
            "summary": _plain(self.summary),
            "sources": {source: _plain(summary) for source, summary in self.by_source.items()},
            "comparison": _told(self.comparison),
            "average_precision": average_precisions(self.details),
            "radius": radius_records(self.details),
            "tolerance_mm": self.tolerance_mm,
            "empty": self.empty,
            "definitions": {**DEFINITIONS, "empty": EMPTY[self.empty]},
        }

    def table(self) -> str:
        """The cases, the summaries and the comparison for people."""
        rows = [{"case": case, "label": s.label, **self._shown(s.values)} for case, s in self.cases]
        hidden = () if self._count >= MIN_CASES else ("low", "high")
        summary = [
            {"label": label, "metric": name, **{k: v for k, v in asdict(stat).items() if k not in hidden}}
            for label, stats in _labels(self.summary)
            for name, stat in stats.items()
        ]
        parts = [table(rows), table(summary), self._by_source(), self._compared(), *self._detailed()]
        parts.append("\n".join(self._remarks()))
        return "\n\n".join(part for part in parts if part)

    def _by_source(self) -> str:
        return table(
            [
                {"source": source, "cases": len({c for c, _ in self._of(source)}), "label": label, **self._means(stats)}
                for source, summary in self.by_source.items()
                for label, stats in _labels(summary)
            ]
        )

    def _of(self, source: str) -> Iterable[tuple[str, Scores]]:
        return (pair for pair in self.cases if self.sources.get(pair[0], NO_SOURCE) == source)

    def _detailed(self) -> list[str]:
        precisions, radii = average_precisions(self.details), radius_records(self.details)
        return [
            table([{"average precision": label, **row} for label, row in precisions.items()]),
            table([{"by radius": label, **row} for label, rows in radii.items() for row in rows]),
        ]

    def _compared(self) -> str:
        return table(
            [
                {"against the baseline": label, "metric": name, **row}
                for label, rows in _told(dict(_labels(self.comparison))).items()
                for name, row in rows.items()
                if name not in HIDDEN
            ]
        )

    def _means(self, stats: Mapping[str, Statistics]) -> dict[str, float | None]:
        return self._shown({name: stat.mean for name, stat in stats.items()})

    def _shown(self, values: Mapping[str, float | None]) -> dict[str, float | None]:
        """A row of the metrics that any case has, for people."""
        found = {name for _, scores in self.cases for name in scores.values}
        return {name: values.get(name) for name in METRICS if name in found and name not in HIDDEN}

    def _remarks(self) -> Iterable[str]:
        if self._count < MIN_CASES:
            yield f"no intervals of the means: fewer than {MIN_CASES} cases cannot tell their spread"
        if self.empty != "undefined":
            yield EMPTY[self.empty]

    def write(self, folder: Path) -> None:
        """Write metrics.json, metrics.csv (undefined is an empty field) and summary.txt.

        And sources.csv and comparison.json, where sources are known and where there is a baseline.
        """
        record = self.record()
        write_json(folder / "metrics.json", record)
        _write_rows(folder / "metrics.csv", record["cases"])
        write_text(folder / "summary.txt", self.table() + "\n")
        if self.by_source:
            rows = [
                {"source": source, "label": label, "metric": name, **stat}
                for source, summary in record["sources"].items()
                for label, stats in summary.items()
                for name, stat in stats.items()
            ]
            _write_rows(folder / "sources.csv", rows)
        if self.baseline:
            write_json(folder / "comparison.json", record["comparison"])


def _compared(cases: Cases, baseline: Cases) -> dict[str, dict[str, PairedDifference]]:
    labels, others = by_label(cases), by_label(baseline)
    found: dict[str, dict[str, PairedDifference]] = {}
    for label, rows in labels.items():
        found[label] = {}
        for name in next(iter(rows.values())):
            ours, theirs = ([by_case[case].get(name) for case in rows] for by_case in (rows, others[label]))
            found[label][name] = paired_difference(
                ours,
                theirs,
                generator=np.random.default_rng(_SEED),  # the same resamples of cases for every metric
                better=METRICS[name].better,
            )
    return found


def _told(comparison: Mapping[str, Mapping[str, PairedDifference]]) -> dict[str, dict[str, dict[str, Any]]]:
    return {label: {name: found.record() for name, found in rows.items()} for label, rows in comparison.items()}


def _plain(summary: Mapping[str, Mapping[str, Statistics]]) -> dict[str, dict[str, dict[str, Any]]]:
    return {label: {name: asdict(stat) for name, stat in stats.items()} for label, stats in summary.items()}


def _labels(summary: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The labels of a summary for people: the mean of one label says it twice."""
    return [(label, found) for label, found in summary.items() if label != MEAN or len(summary) > 2]


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    write_csv(path, list(rows[0]), (row.values() for row in rows))
