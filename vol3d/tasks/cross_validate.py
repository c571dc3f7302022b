"""Out-of-fold predictions of a run: each case by the fold that held it out, scored as one table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from vol3d.datasets.dataset import Dataset
from vol3d.datasets.given import PathLike
from vol3d.datasets.manifest import MANIFEST, read_manifest, write_manifest
from vol3d.errors import some
from vol3d.files.runs import load_checkpoint
from vol3d.metrics.report import MEAN, Statistics, table
from vol3d.postprocess.steps import needs
from vol3d.tasks.evaluate import evaluate
from vol3d.tasks.evaluation import Evaluation
from vol3d.tasks.out_of_fold import by_models, folds_of, refuse_failed, root_of, those_of
from vol3d.tasks.plugins import differing
from vol3d.tasks.predict import predict_volumes
from vol3d.tasks.prediction_jobs import OrganWish
from vol3d.tasks.reporter import Reporter, Silent
from vol3d.tasks.run import Run, load_run

OUT_OF_FOLD = "out_of_fold"
SHOWN = ("dice", "surface_dice", "hit", "fp", "hd95_mm")
OneOf = Literal["last", "best"]


@dataclass(frozen=True)
class FoldScores:
    """One fold's weights, the step (update) they are of, and their scores on the cases that it held out."""

    fold: str
    step: int
    scores: Evaluation


@dataclass(frozen=True)
class CrossValidation:
    """The scores of every fold with its last weights, and with those of its best validation where it has some.

    The best ones were chosen on the cases that are scored: they flatter.
    """

    out: Path
    weights: Mapping[OneOf, tuple[FoldScores, ...]]

    def all(self, weights: OneOf) -> Evaluation:
        """All cases as one table."""
        return _joined(self.weights[weights])

    def record(self) -> dict[str, Any]:
        """Everything for JSON but the single cases, which the files have."""
        return {name: self._record(name, folds) for name, folds in self.weights.items()}

    def _record(self, name: OneOf, folds: Sequence[FoldScores]) -> dict[str, Any]:
        every = [{"fold": f.fold, "step": f.step, **_summary(f.scores)} for f in folds]
        return {"metrics": str(self.out / name / "metrics.json"), **_summary(self.all(name)), "folds": every}

    def table(self) -> str:
        """The means of each fold and of all cases, for people."""
        rows = []
        for name, folds in self.weights.items():
            rows += [row for f in folds for row in _rows(name, f.fold, str(f.step), f.scores)]
            rows += _rows(name, "all", "", self.all(name)) if len(folds) > 1 else []
        return table(rows)


def cross_validate(
    run: PathLike,
    *,
    out: PathLike | None = None,
    weights: Sequence[OneOf] = ("last", "best"),
    overrides: Sequence[str] = (),
    tolerance_mm: float | None = None,
    device: str = "auto",
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> CrossValidation:
    """Predict every case of a run by the fold that held it out, and score it, as vol3d cross-validate does.

    run is what vol3d-train wrote, with its cases.csv and as many folds as are trained. Masks and scores lie in out
    (None: RUN/out_of_fold), for each of weights; a mask that is there, made by the same weights and settings, is not
    made again, and overwrite replaces one made otherwise. overrides are words like inference.overlap=0.25, device is
    auto, cpu, cuda or cuda:N. tolerance_mm adds surface Dice at so many millimetres. Where the steps look at an
    organ, it is the mask that cases.csv names.

    Raises:
        UsageError: no fold held anything out, or the table lacks what one did.
        InputError, CheckpointError, ResourceError, StoppedError: as predict's and evaluate's.
    """
    reporter, run = reporter or Silent(), Path(run)
    root = root_of(run)
    out = root / OUT_OF_FOLD if out is None else Path(out)
    folds, found = folds_of(run), read_manifest(root / MANIFEST)
    missed = sorted({c.name for c in found.cases} - {name for names in folds.values() for name in names})
    if missed:
        reporter.note(f"held out by no fold that is trained: {some(missed)}")
    scored: dict[OneOf, tuple[FoldScores, ...]] = {}
    for name in weights:
        rows = []
        for folder, names in folds.items():
            if not (folder / f"weights_{name}.pt").is_file():
                reporter.note(f"{folder} has no {name} weights")
                continue
            if told := differing(folder):
                reporter.warn(told)
            model = load_run(folder, weights=name, overrides=overrides, device=device)
            work = _Fold(folder, model, those_of(found, names, folder), out / name, tolerance_mm, reporter)
            rows.append(work.scored(overwrite))
        if rows:
            scored[name] = tuple(rows)
            _joined(rows).write(out / name)
    return CrossValidation(out, scored)


@dataclass(frozen=True)
class _Fold:
    """A fold's model, what it held out, and where its masks come to lie."""

    folder: Path
    run: Run
    held_out: Dataset
    out: Path
    tolerance_mm: float | None
    reporter: Reporter

    def scored(self, overwrite: bool) -> FoldScores:
        """Predict what is not predicted yet, and score all of it."""
        name, masks = self.folder.resolve().name, self.out / self.folder.resolve().name
        cases = masks.with_suffix(".csv")
        write_manifest(cases, self.held_out.cases, channel_names=self.held_out.channel_names)
        organ = OrganWish(cases if self._wants_organ else None)
        self.reporter.note(f"{name}, {self.out.name} weights: {len(self.held_out.cases)} cases were held out")
        for run, volumes in by_models(self.run, self.held_out):
            done = predict_volumes(volumes, run, out=masks, organ=organ, overwrite=overwrite, reporter=self.reporter)
            refuse_failed(done.failed, name)
        scores = evaluate(
            masks,
            cases,
            labels=self.run.schema,
            tolerance_mm=self.tolerance_mm,
            slices=self.run.slices,
            reporter=self.reporter,
        )
        step = load_checkpoint(self.folder / f"weights_{self.out.name}.pt")["step"]
        return FoldScores(name.removeprefix("fold_"), int(step), scores)

    @property
    def _wants_organ(self) -> bool:
        return needs(self.run.models[0].plan.postprocess.chosen()).organ


def _joined(folds: Sequence[FoldScores]) -> Evaluation:
    cases = tuple(case for fold in folds for case in fold.scores.cases)
    sources = {case: source for fold in folds for case, source in fold.scores.sources.items()}
    return Evaluation(cases, folds[0].scores.tolerance_mm, sources)


def _summary(scores: Evaluation) -> dict[str, Any]:
    summary = {label: {k: asdict(v) for k, v in stats.items()} for label, stats in scores.summary.items()}
    return {"cases": len({case for case, _ in scores.cases}), "summary": summary}


def _rows(weights: str, fold: str, step: str, scores: Evaluation) -> list[dict[str, object]]:
    count, summary = len({case for case, _ in scores.cases}), scores.summary
    return [
        {"weights": weights, "fold": fold, "step": step, "cases": count, "label": label, **_shown(stats)}
        for label, stats in summary.items()
        if label != MEAN or len(summary) > 2
    ]


def _shown(stats: Mapping[str, Statistics]) -> dict[str, float | None]:
    return {name: stats[name].mean for name in SHOWN}
