"""Score predictions against their truths, file by file."""

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.datasets.cases import open_truth
from vol3d.datasets.given import Given, Millimetres, PathLike, given_volume, is_path, millimetres, name_of
from vol3d.datasets.layouts import detect, is_told
from vol3d.errors import InputError, UsageError
from vol3d.files.atomic import write_json, write_text
from vol3d.files.names import stem_of
from vol3d.files.volumes import Slices, find_volumes
from vol3d.geometry.affine import agree, spacing_of
from vol3d.geometry.box import Box
from vol3d.metrics.registry import DEFAULT, DEFINITIONS
from vol3d.metrics.report import (
    MEAN,
    Scores,
    Statistics,
    case_record,
    score_case,
    summarise,
    table,
)
from vol3d.preprocess.orient import turned_onto
from vol3d.shapes import Spacing
from vol3d.tasks.reporter import Reporter, Silent
from vol3d.volume.labels import MAX_LABEL, LabelSchema, Region
from vol3d.volume.source import VolumeSource, read_all, told_grid

BINARY = LabelSchema((Region("foreground", (1,)),))
NEAR_INTEGER = 0.01
SHOWN = tuple(name for name in DEFAULT if name not in ("precision", "recall", "volume_difference_relative"))
"""The columns of the table for people: what is not said by another column."""


@dataclass(frozen=True)
class Evaluation:
    """The scores of every case and label, in the order of the truths."""

    cases: tuple[tuple[str, Scores], ...]
    tolerance_mm: float | None = None

    @property
    def summary(self) -> dict[str, dict[str, Statistics]]:
        """Statistics by label and metric; "mean" is over labels, then over cases."""
        return summarise(self.cases)

    def record(self) -> dict[str, Any]:
        """Everything for JSON; None is undefined or not asked for."""
        summary = {label: {name: asdict(stat) for name, stat in stats.items()} for label, stats in self.summary.items()}
        return {
            "cases": [case_record(case, scores) for case, scores in self.cases],
            "summary": summary,
            "tolerance_mm": self.tolerance_mm,
            "definitions": DEFINITIONS,
        }

    def table(self) -> str:
        """The cases and the summary for people."""
        rows = [
            {"case": case, "label": s.label, **{name: s.values[name] for name in SHOWN if name in s.values}}
            for case, s in self.cases
        ]
        summary = [
            {"label": label, "metric": name, **asdict(stat)}
            for label, stats in self.summary.items()
            if label != MEAN or len(self.summary) > 2  # the mean of one label says it twice
            for name, stat in stats.items()
        ]
        return f"{table(rows)}\n\n{table(summary)}"

    def write(self, folder: Path) -> None:
        """Write metrics.json, metrics.csv (undefined is an empty field) and summary.txt."""
        record = self.record()
        text = io.StringIO(newline="")
        rows = csv.DictWriter(text, record["cases"][0], lineterminator="\n")
        rows.writeheader()
        rows.writerows(record["cases"])
        write_json(folder / "metrics.json", record)
        write_text(folder / "metrics.csv", text.getvalue())
        write_text(folder / "summary.txt", self.table() + "\n")


@dataclass(frozen=True, eq=False)  # an array has no hash
class _Truth:
    name: str
    volume: Given
    spacing: Spacing | None = None
    labelled_box: Box | None = None
    structures: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Case:
    prediction: Given
    truth: _Truth


def evaluate(
    prediction: Given,
    truth: Given,
    *,
    labels: LabelSchema | None = None,
    ignore: int | None = None,
    tolerance_mm: float | None = None,
    spacing: Millimetres | None = None,
    slices: Slices = "volume",
    out: PathLike | None = None,
    reporter: Reporter = Silent(),  # noqa: B008  # has no state
) -> Evaluation:
    """Score two volumes (paths, Volumes or arrays (Z, Y, X)) or two folders of volumes that are matched by name.

    truth may also be a table of cases (cases.csv). labels None scores every value that occurs in the
    batch, or, where no file has more than one value besides zero, all of them as masks. Voxels where the
    truth is ignore (or that of labels), or lies outside its case's labelled box, are in no mask. spacing
    (z, y, x in mm) overrides what the files say of their place, and says what arrays cannot. slices says
    what the TIFF or PNG slices of a folder are: one volume, or cases. tolerance_mm
    adds surface Dice at so many millimetres. out is the folder for metrics.json, metrics.csv and summary.txt.

    Raises:
        UsageError: a path holds no volumes, or out, the tolerance or ignore cannot be.
        InputError: a truth has no prediction, two grids differ, or a volume holds no labels.
    """
    if tolerance_mm is not None and not 0 <= tolerance_mm < float("inf"):
        raise UsageError(f"the tolerance must be zero or more millimetres, got {tolerance_mm}")
    folder, spacing = None if out is None else Path(out), millimetres(spacing)
    if folder is not None and folder.exists() and not folder.is_dir():
        raise UsageError(f"cannot write the scores to {folder}: it is a file; name a folder")
    ignore = labels.ignore if labels and ignore is None else ignore
    scored_values = {v for region in labels.regions for v in region.values} if labels else set()
    if ignore is not None and (ignore in scored_values or not 1 <= ignore <= MAX_LABEL):
        raise UsageError(f"the value to ignore must be 1 to {MAX_LABEL} and in no label that is scored, got {ignore}")
    cases = _paired(prediction, truth, slices, reporter)
    read = lru_cache(maxsize=1)(lambda case: _read(case, spacing, ignore))  # a single case is read once
    schema = labels or _schema_of((labels for case in cases for labels in read(case)[:2]), name_of(truth))
    scored: list[tuple[str, Scores]] = []
    with reporter.progress("evaluate", total=len(cases), unit="volumes") as advance:
        for case in cases:
            predicted, true, step = read(case)
            if schema is BINARY:
                predicted, true = ((array != 0).view(np.uint8) for array in (predicted, true))
            scores = score_case(predicted, true, schema=schema, spacing=step, tolerance_mm=tolerance_mm)
            scored += [(case.truth.name, s) for s in scores]
            advance(1)
    evaluation = Evaluation(tuple(scored), tolerance_mm)
    if folder is not None:
        evaluation.write(folder)
    return evaluation


def regions(definitions: Iterable[str]) -> LabelSchema:
    """A schema from words like ``liver=1+2 lesion=2``.

    Raises:
        UsageError: a word is not NAME=VALUE[+VALUE...], or the regions make no schema.
    """
    found = []
    for definition in definitions:
        name, _, values = definition.partition("=")
        numbers = values.split("+")
        if not name or name == MEAN or not all(n.isdecimal() for n in numbers):
            raise UsageError(f"--labels wants NAME=VALUE[+VALUE...] (and not the name {MEAN}), got {definition!r}")
        found.append(Region(name, tuple(int(n) for n in numbers)))
    try:
        return LabelSchema(tuple(found))
    except ValueError as error:
        raise UsageError(f"--labels: {error}") from error


def _paired(prediction: Given, truth: Given, slices: Slices, reporter: Reporter) -> list[_Case]:
    if is_path(prediction) and is_path(truth):
        return _paired_files(Path(prediction), Path(truth), slices, reporter)
    name = next((stem_of(Path(one)) for one in (truth, prediction) if is_path(one)), "volume")
    return [_Case(prediction, _Truth(name, truth))]


def _paired_files(prediction: Path, truth: Path, slices: Slices, reporter: Reporter) -> list[_Case]:
    predicted, true = find_volumes(prediction, slices=slices), _truths(truth, slices)
    if predicted[0].paths[0] == prediction or true[0].volume == truth:
        if len(predicted) != 1 or len(true) != 1:
            raise UsageError(
                f"expected two volumes or two folders of volumes; {prediction} holds {len(predicted)}, "
                f"{truth} holds {len(true)}"
            )
        return [_Case(predicted[0].paths[0], true[0])]
    by_name = {volume.name: volume.paths[0] for volume in predicted}
    missing = [volume.name for volume in true if volume.name not in by_name]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(true)} truths in {truth} have no prediction of the same name in {prediction}: "
            f"{', '.join(missing)}"
        )
    extra = sorted(by_name.keys() - {volume.name for volume in true})
    if extra:
        reporter.warn(f"{len(extra)} predictions have no truth and are not scored: {', '.join(extra)}")
    return [_Case(by_name[one.name], one) for one in true]


def _truths(truth: Path, slices: Slices) -> list[_Truth]:
    """The labelled cases of a table, or the volumes of a path."""
    if not is_told(truth):
        return [_Truth(volume.name, volume.paths[0]) for volume in find_volumes(truth, slices=slices)]
    cases = [_Truth(c.name, c.label, c.spacing, c.labelled_box, c.structures) for c in detect(truth).cases if c.label]
    if not cases:
        raise InputError(f"{truth}: no case has a label, so there is nothing to score against")
    return cases


def _schema_of(volumes: Iterable[NDArray[np.uint8]], truth: str) -> LabelSchema:
    """What the values of a batch mean when nobody says it."""
    values: set[int] = set()
    binary = True
    for labels in volumes:
        own = {int(value) for value in np.flatnonzero(_occurring(labels)) if value}
        binary &= len(own) <= 1
        values |= own
    if not values:
        raise InputError(f"no label occurs in {truth} or its predictions; name what to score with --labels NAME=VALUE")
    return BINARY if binary else LabelSchema(tuple(Region(str(value), (value,)) for value in sorted(values)))


def _occurring(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.zeros(MAX_LABEL + 1, dtype=np.bool_)
    for plane in labels:  # bincount widens what it counts to eight bytes
        found |= np.bincount(plane.reshape(-1), minlength=MAX_LABEL + 1) > 0
    return found


def _read(
    case: _Case, spacing: Spacing | None, ignore: int | None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Spacing]:
    """The labels of prediction and truth, both 0 where the truth is not known, and their spacing."""
    spacing, box = spacing or case.truth.spacing, case.truth.labelled_box
    pair = (case.prediction, case.truth.volume)
    sources = [given_volume(one, spacing=spacing) for one in pair[: 1 if case.truth.structures else 2]]
    if case.truth.structures and isinstance(case.truth.volume, Path):
        sources.append(open_truth(case.truth.volume, structures=case.truth.structures, spacing=spacing))
    sources[0] = turned_onto(sources[0], sources[1])  # as the truth is stored, which its box counts in
    step = _common_spacing(case, *sources, trusted=spacing is None)
    predicted, true = (_labels(name_of(one), source) for one, source in zip(pair, sources, strict=True))
    if ignore is not None:
        known = true != ignore
        predicted, true = predicted * known, true * known
    if box is not None:
        drawn = np.zeros(true.shape, dtype=np.bool_)
        drawn[box.slices] = True
        predicted, true = predicted * drawn, true * drawn
    return predicted, true, step


def _common_spacing(case: _Case, predicted: VolumeSource, true: VolumeSource, *, trusted: bool) -> Spacing:
    """The spacing of two volumes on one grid: of equal shape and, where the headers are trusted, in one place.

    A format that only says a spacing (it keeps no header) is where the other volume is, and one that says
    nothing has the other's spacing, too.
    """
    grids = " and ".join(
        f"{name_of(one)} ({told_grid(s)})" for one, s in ((case.prediction, predicted), (case.truth.volume, true))
    )
    if predicted.shape != true.shape:
        raise InputError(f"{grids} lie on different grids; predict at the truth's grid, or resample one of them")
    known = {predicted.says, true.says}
    comparable = "nothing" not in known and known != {"place", "spacing"}
    if trusted and comparable and not agree(predicted.affine, true.affine, true.shape):
        raise InputError(f"{grids} lie in different places; if only the headers are wrong, give --spacing")
    return spacing_of(max((true, predicted), key=lambda s: ("nothing", "spacing", "place").index(s.says)).affine)


def _labels(name: str, source: VolumeSource) -> NDArray[np.uint8]:
    if source.channels != 1:
        raise InputError(f"{name} has {source.channels} channels; expected one of integer labels")
    values: NDArray[Any] = read_all(source)[0]
    values = values.view(np.uint8) if values.dtype == np.bool_ else values
    whole = values if values.dtype.kind in "ui" else np.rint(values)
    with np.errstate(invalid="ignore"):
        wrong = not (whole.min() >= 0 and whole.max() <= MAX_LABEL) or bool(np.any(abs(values - whole) > NEAR_INTEGER))
    if wrong:
        raise InputError(
            f"{name} holds no labels: expected integers from 0 to {MAX_LABEL}, got {values.dtype} values from "
            f"{values.min():g} to {values.max():g}; give a mask, not an image or a probability"
        )
    return whole.astype(np.uint8)
