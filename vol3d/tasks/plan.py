"""Look at a data set and plan a training on it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vol3d.datasets.cases import Case, case_sources
from vol3d.datasets.details import CaseDetails, case_details
from vol3d.datasets.fingerprint import CaseFacts
from vol3d.datasets.given import PathLike
from vol3d.errors import InputError, some
from vol3d.files.atomic import write_text
from vol3d.tasks.assemble import choose_device
from vol3d.tasks.budget import Budget
from vol3d.tasks.dataset_plan import found_in, planned_from
from vol3d.tasks.dataset_report import Looked, report_page
from vol3d.tasks.planning import Planned, ignored_value
from vol3d.tasks.preparation import measure
from vol3d.tasks.reporter import Reporter, Silent
from vol3d.tasks.settings import config_of
from vol3d.tasks.workers import of_each

PLAN, REPORT = "plan.yaml", "report.html"
MUCH_COARSER = 4.0
"""How many times as coarse, or as fine, as the median a case is told to be."""
MUCH_ON_PADDING = 0.05
"""The share of a label's foreground on an image's padding from which it is told."""


@dataclass(frozen=True)
class PlanResult:
    """The plan, the files that were written (None: none was), what to check, and the cases that cannot be used."""

    planned: Planned
    plan_file: Path | None
    report_file: Path | None
    warnings: tuple[str, ...]
    failed: dict[str, str]

    def record(self) -> dict[str, Any]:
        """The same for JSON."""
        planned = self.planned
        return {
            "plan": None if self.plan_file is None else str(self.plan_file),
            "report": None if self.report_file is None else str(self.report_file),
            "cases": len(planned.found.cases),
            "decisions": [{"setting": key, "value": value, "why": why} for key, value, why in planned.decisions()],
            "step_gb": round(planned.step_gb, 3),
            "memory_gb": planned.budget.memory_gb,
            "covered": round(planned.covered, 4),
            "coarse_spacing": None if planned.coarse is None else list(planned.coarse),
            "warnings": list(self.warnings),
            **({"failed": self.failed} if self.failed else {}),
        }


def plan(
    dataset: PathLike | Sequence[Mapping[str, Any]],
    *,
    out: PathLike | None = None,
    config_file: PathLike | None = None,
    overrides: Sequence[str] = (),
    memory_gb: float | None = None,
    device: str = "auto",
    reporter: Reporter | None = None,
) -> PlanResult:
    """Look at a data set and plan a training on it, as vol3d plan does.

    dataset, config_file, overrides and device are those of train. memory_gb plans for a GPU with so much memory,
    wherever it is, unless device is cpu. With out that folder gets plan.yaml, for config_file of train, and
    report.html, which tells what the cases, their regions and their oddities are. A case that cannot be read, or
    whose label lies on another grid, is left out and told.

    Raises:
        UsageError: the settings do not fit the data, or the place cannot be written to.
        InputError: there is no case to learn from.
    """
    heard = _Heard(reporter or Silent())
    config = config_of(config_file, overrides)
    chosen = choose_device(device)
    budget = Budget.of(chosen, memory_gb, kind="cuda" if memory_gb is not None and device != "cpu" else None)
    found, cases = found_in(dataset, config.data, heard)
    cases, facts, failed = _measured(cases, heard, ignored_value(config.data, found.label_names))
    planned = planned_from(facts, config, found, cases, heard, budget=budget, device=chosen)
    if out is None:
        return PlanResult(planned, None, None, tuple(heard.warnings), failed)
    looked = _looked(cases, facts, planned, heard)
    for warning in _oddities(looked):
        heard.warn(warning)
    plan_file, report_file = Path(out) / PLAN, Path(out) / REPORT
    write_text(plan_file, planned.text())
    write_text(report_file, report_page(found, looked, planned, heard.warnings, failed))
    return PlanResult(planned, plan_file, report_file, tuple(heard.warnings), failed)


class _Heard:
    """A reporter that passes on what it hears, and remembers the warnings."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter, self.warnings = reporter, list[str]()
        self.note, self.progress = reporter.note, reporter.progress

    def warn(self, sentence: str) -> None:
        """Something the user should check."""
        self.warnings.append(sentence)
        self.reporter.warn(sentence)


def _measured(
    cases: Sequence[Case], reporter: Reporter, ignore: int | None
) -> tuple[list[Case], list[CaseFacts], dict[str, str]]:
    """The cases that can be used, their facts, and why others cannot."""
    try:
        return list(cases), measure(cases, reporter, ignore=ignore), {}
    except InputError:
        failed: dict[str, str] = {}
        errors: list[InputError] = []
        for case in cases:
            try:
                measure([case], Silent(), ignore=ignore)
            except InputError as error:
                failed[case.name] = str(error)
                errors.append(error)
        good = [case for case in cases if case.name not in failed]
        if not good or not failed:
            raise
        return good, measure(good, reporter, ignore=ignore), failed


def _looked(cases: Sequence[Case], facts: Sequence[CaseFacts], planned: Planned, reporter: Reporter) -> list[Looked]:
    """What the regions of every case are made of."""
    schema = planned.config.data.schema()

    def details(case: Case) -> CaseDetails:
        image, labels = case_sources(case)
        assert labels is not None
        return case_details(case.name, image, labels, schema, labelled_box=case.labelled_box)

    looked = []
    with reporter.progress("looking at regions", total=len(cases), unit="cases") as advance:
        found = of_each(cases, details, doing="looked at")
        for case, measured, one in zip(cases, facts, found, strict=True):
            looked.append(Looked(case, measured, one))
            advance(1)
    return looked


def _oddities(looked: Sequence[Looked]) -> Iterator[str]:
    """What a user should check, beside what reading the cases told."""
    same: dict[str, list[Looked]] = {}
    for one in looked:
        same.setdefault(one.details.sha256, []).append(one)
        if one.details.on_padding > MUCH_ON_PADDING:
            yield (
                f"case {one.case.name}: {100 * one.details.on_padding:.0f} % of its foreground lies where the image "
                "holds nothing (its lowest value): does the label belong to it?"
            )
    for them in same.values():
        if len(them) > 1:
            groups = len({one.case.group for one in them})
            leak = ", in different groups, so that folds would leak: give them one group" if groups > 1 else ""
            yield f"one image in several cases: {some([one.case.name for one in them])}{leak}"
    median = np.median([one.facts.spacing for one in looked], axis=0)
    for one in looked:
        ratio = np.array(one.facts.spacing) / median
        if max(ratio.max(), 1 / ratio.min()) > MUCH_COARSER:
            told = ", ".join(f"{step:.3g}" for step in one.facts.spacing)
            yield f"case {one.case.name} has a spacing of {told} mm, far from the others': is it in another unit?"
    partly = [one for one in looked if one.details.looked_at < 1]
    if partly:
        yield (
            f"the regions of {some([one.case.name for one in partly])} were looked at in the middle planes only, for "
            "they are large"
        )
