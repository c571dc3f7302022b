"""Post-processing settings for a run, searched in the probabilities that its folds give to what they held out."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from vol3d.config.dump import comments_of, dump
from vol3d.config.load import load
from vol3d.config.tree import Plan
from vol3d.datasets.dataset import Dataset
from vol3d.datasets.given import PathLike
from vol3d.datasets.manifest import MANIFEST, read_manifest
from vol3d.errors import InputError, UsageError
from vol3d.files.atomic import read_text, write_json, write_text
from vol3d.files.pictures import write_png
from vol3d.files.runs import fold_folders
from vol3d.files.volumes import open_volume
from vol3d.geometry.affine import spacing_of
from vol3d.postprocess.search import AREAS, Family, Table, families, table
from vol3d.postprocess.settings import BEST, Plain, PostprocessSettings
from vol3d.postprocess.steps import steps_to
from vol3d.tasks.out_of_fold import by_models, folds_of, refuse_failed, root_of, those_of
from vol3d.tasks.plugins import differing
from vol3d.tasks.predict import predict_volumes
from vol3d.tasks.prediction_jobs import OrganWish, organ_masks
from vol3d.tasks.reporter import Advance, Reporter, Silent
from vol3d.tasks.run import Run, load_run
from vol3d.tasks.tuning import EXACT, METRICS, POINTS, Pick, Search, Steps, judged, merged
from vol3d.tasks.tuning_case import TuningCase
from vol3d.tasks.tuning_report import Point, Tuning, heat_of, write_settings
from vol3d.viewer.heat_map import heat_maps

TUNING = "tuning"
Margins = tuple[float | None, ...]
MARGINS_MM: Margins = (0.0, 1.0, 2.0, 5.0, 10.0, None)
"""Of the organ gate; None is no gate."""


def tune(
    run: PathLike,
    *,
    folds: Sequence[str] = (),
    metric: str = "dice",
    organ_mask: PathLike | None = None,
    growth: bool = False,
    accept: bool = False,
    out: PathLike | None = None,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    device: str = "auto",
    reporter: Reporter | None = None,
) -> Tuning:
    """Search thresholds, hysteresis and component rules on a run's held-out cases, as vol3d tune does.

    run is what vol3d-train wrote, folds the names of those that count (none: all that are trained). Probabilities are
    predicted once, by the last weights, and kept in out (None: RUN/tuning), with the tables; overwrite replaces those
    made otherwise. metric is dice, iou or surface_dice. organ_mask names masks, or a table of cases, for an organ
    gate; growth tries growth along grey values behind the best. Settings of a region that helps on held-out folds are
    written into the folds' plans; accept writes them in any case. overrides are words like inference.overlap=0.25,
    device is auto, cpu, cuda or cuda:N.

    Raises:
        UsageError: another metric, no fold held anything out, or a fold is not there.
        InputError: the data set is not where it was, or no case has a label.
        CheckpointError, ResourceError, StoppedError: as predict's.
    """
    reporter, run = reporter or Silent(), Path(run)
    if metric not in METRICS:
        raise UsageError(f"--metric {metric}: expected {', '.join(METRICS[:-1])} or {METRICS[-1]}")
    root = root_of(run)
    out = root / TUNING if out is None else Path(out)
    organs, margins = (None, ()) if organ_mask is None else (Path(organ_mask), MARGINS_MM)
    predicted = _Predicted(root / MANIFEST, out, organs, overrides, overwrite, device, reporter)
    model, cases = predicted.cases(_picked(run, folds))
    plan, before = model.models[0].plan, model.steps(organs is not None)
    scorer, tried = _Scorer(cases, plan, margins, metric), families(_volumes_mm3(cases), margins)
    search = Search(model.schema.names, tried, _tables(scorer, tried, reporter), metric, scorer, growth)
    tuned = _tuned(search, scorer, before, out, accept=accept, reporter=reporter)
    tuned = replace(tuned, plans=tuple(f / "plan.yaml" for f in fold_folders(run)) if tuned.accepted else ())
    write_json(out / "tuning.json", tuned.record())
    write_settings(out / "tuning.csv", search)
    write_text(out / "tuning.txt", tuned.table() + "\n")
    write_png(out / "tuning.png", heat_maps([heat_of(pick, search) for pick in tuned.picks]))
    for path in tuned.plans:
        _write(path, plan.postprocess, tuned)
    return tuned


def _tuned(search: Search, scorer: "_Scorer", before: Steps, out: Path, *, accept: bool, reporter: Reporter) -> Tuning:
    """Judge by the folds, choose by all cases, and score the operating points."""
    cases = scorer.cases
    folds, every = [case.fold for case in cases], range(len(cases))
    with scorer.told(reporter, search, folds=len(set(folds))):
        told = judged(search, folds, before) if len(set(folds)) > 1 else None
        picks = [search.pick(region, every) for region in range(len(search.regions))]
        accepted = search.regions if accept else told.accepted if told else ()
        proposed = accepted or search.regions  # what is refused is told with its scores, too
        points = {name: _point(name, picks, proposed, before, search) for name in POINTS}
    names = tuple(case.case.name for case in cases)
    return Tuning(out, search.metric, names, tuple(folds), tuple(picks), told, accepted, points)


def _picked(run: Path, folds: Sequence[str]) -> dict[Path, list[str]]:
    found = folds_of(run)
    names = {folder.resolve().name.removeprefix("fold_"): folder for folder in found}
    if strange := [fold for fold in folds if fold not in names]:
        raise UsageError(f"--fold {strange[0]}: expected some of {', '.join(names)}, which held cases out")
    return {folder: found[folder] for name, folder in names.items() if not folds or name in folds}


@dataclass(frozen=True)
class _Predicted:
    """The probabilities of all held-out cases, predicted where they are not there yet."""

    table: Path
    out: Path
    organs: Path | None
    overrides: Sequence[str]
    overwrite: bool
    device: str
    reporter: Reporter

    def cases(self, folds: Mapping[Path, list[str]]) -> tuple[Run, list[TuningCase]]:
        """The model of the first fold, and the cases of all."""
        try:
            found = read_manifest(self.table)
        except InputError as error:
            raise InputError(f"{error}; where the data set was moved, correct the paths in that table") from error
        runs: list[Run] = []
        cases: list[TuningCase] = []
        for number, (folder, names) in enumerate(folds.items()):
            if told := differing(folder):
                self.reporter.warn(told)
            runs.append(load_run(folder, overrides=self.overrides, device=self.device))
            runs[-1].steps(self.organs is not None)  # what cannot run is told before the work
            held_out = those_of(found, names, folder)
            held_out = replace(held_out, cases=tuple(case for case in held_out.cases if case.label))
            cases += self._of_fold(number, folder.resolve().name, runs[-1], held_out)
        if not cases:
            raise InputError(f"{self.table}: no case that was held out has a label, so there is nothing to tune on")
        return runs[0], cases

    def _of_fold(self, number: int, name: str, run: Run, held_out: Dataset) -> Iterator[TuningCase]:
        models = tuple(replace(m, plan=replace(m.plan, postprocess=PostprocessSettings())) for m in run.models)
        plain = replace(run, models=models)  # what is predicted does not hang on the steps that the plan has now
        organ = OrganWish(self.organs if any(m.plan.preprocess.needs_organ for m in models) else None)
        self.reporter.note(f"{name}: {len(held_out.cases)} cases were held out")
        by_name = {case.name: case for case in held_out.cases}
        for one, volumes in by_models(plain, held_out):
            masks = {} if self.organs is None else organ_masks(volumes, self.organs, run.slices)
            done = predict_volumes(volumes, one, out=self.out / name, organ=organ, save_probability=True,
                                   overwrite=self.overwrite, reporter=self.reporter)  # fmt: skip
            refuse_failed(done.failed, name)
            for volume, row in zip(volumes, done.volumes, strict=True):
                yield TuningCase(by_name[volume.name], number, Path(row["probability"]), masks.get(volume.name))


def _volumes_mm3(cases: Sequence[TuningCase]) -> list[float]:
    """The sizes that are tried: AREAS of the median case's voxels."""
    voxels_mm3 = [spacing_of(open_volume(case.probability).affine).voxel_mm3 for case in cases]
    return [float(f"{area * np.median(voxels_mm3):.3g}") for area in AREAS[1:]]


def _tables(opened: "_Scorer", tried: Sequence[Family], reporter: Reporter) -> list[list[Table]]:
    found = []
    with reporter.progress("counting components", total=len(opened.cases), unit="cases") as advance:
        for case in range(len(opened.cases)):
            found.append([table(volume, tried) for volume in opened.case(case).volumes()])
            advance(1)
    return found


class _Scorer:
    """Runs steps on cases; no score is computed twice, and one case at a time is in memory."""

    def __init__(self, cases: Sequence[TuningCase], plan: Plan, margins_mm: Margins, metric: str) -> None:
        self.cases, self.metrics = cases, (metric, "precision", "recall")
        self.case = lru_cache(maxsize=1)(lambda case: cases[case].opened(plan, margins_mm))
        self.advance: Advance = lambda _: None
        self._own: dict[tuple[int, int, Steps], float] = {}
        self._together: dict[tuple[int, Steps], list[dict[str, float]]] = {}

    @contextmanager
    def told(self, reporter: Reporter, search: Search, *, folds: int) -> Iterator[None]:
        """Show how far the work is: runs for the plan, the folds' choices and the operating points, and for scores."""
        runs = len(search.regions) * folds * ((search.metric in EXACT) + search.growth)
        with reporter.progress("running steps", total=len(self.cases) * (5 + runs), unit="cases") as self.advance:
            yield

    def own(self, case: int, region: int, settings: Sequence[Steps]) -> list[float]:
        """The scores of one region's own mask after each of several lists of steps."""
        self.advance(1)
        for steps in settings:
            if (key := (case, region, steps)) not in self._own:
                self._own[key] = self.case(case).score_of(steps, region, self.metrics[0])
        return [self._own[case, region, steps] for steps in settings]

    def together(self, case: int, steps: Steps) -> list[dict[str, float]]:
        """The scores, by metric, of every region after the steps of all."""
        self.advance(1)
        if (key := (case, steps)) not in self._together:
            self._together[key] = self.case(case).scores_of(steps, self.metrics)
        return self._together[key]


def _point(name: str, picks: Sequence[Pick], accepted: Sequence[str], plan: Steps, search: Search) -> Point:
    """An operating point: its steps, and its mean scores over all cases, which chose it."""
    steps = merged({p.region: p.steps(name) for p in picks if p.region in accepted}, plan, search.regions)
    scores = [search.scorer.together(case, steps) for case in range(len(search.tables))]
    means = {
        region: {key: float(np.mean([case[number][key] for case in scores])) for key in scores[0][number]}
        for number, region in enumerate(search.regions)
    }
    return Point(steps, means)


def _write(path: Path, settings: PostprocessSettings, tuned: Tuning) -> None:
    """Put the operating points in a plan's place for steps; everything else in it stays."""
    text = read_text(path)
    plan, told = load(Plan, text=text, name=str(path)), {"postprocess.steps": tuned.told()}
    plain: dict[str, Plain] = {name: tuple(steps_to(point.steps)) for name, point in tuned.points.items()}
    best = plain.pop(BEST)
    chosen = replace(settings, steps=best, operating_point=BEST, operating_points=plain)
    write_text(path, dump(replace(plan, postprocess=chosen), comments={**comments_of(text), **told}))
