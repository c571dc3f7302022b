"""Score predictions against their truths, file by file."""

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vol3d.datasets.given import Given, Millimetres, PathLike, is_path, millimetres, name_of
from vol3d.datasets.layouts import detect, is_told
from vol3d.datasets.sources import read_sources
from vol3d.errors import InputError, UsageError, some
from vol3d.files.names import stem_of
from vol3d.files.volumes import INNER_OF_MASKS, Slices, find_volumes
from vol3d.geometry.box import Box
from vol3d.metrics.compare import MIN_CASES
from vol3d.metrics.details import Details, detail_case
from vol3d.metrics.registry import GROUPS, METRICS
from vol3d.metrics.report import MEAN, Empty, Scores, with_empty_as_one
from vol3d.tasks.evaluation import NO_SOURCE, Evaluation
from vol3d.tasks.label_pair import LabelPair, Truth, open_pair
from vol3d.tasks.reporter import Reporter, Silent
from vol3d.tasks.score_pair import BINARY, labels_in, score_pair
from vol3d.tasks.stored_probability import find_probabilities, read_probability
from vol3d.volume.labels import MAX_LABEL, LabelSchema, Region

TOLERANT = "surface_dice_at_tolerance"


@dataclass(frozen=True, eq=False)  # an array has no hash
class _Case:
    prediction: Given
    truth: Truth


def evaluate(
    prediction: Given,
    truth: Given,
    *,
    labels: LabelSchema | None = None,
    ignore: int | None = None,
    metrics: Sequence[str] | None = None,
    tolerance_mm: float | None = None,
    empty: Empty = "undefined",
    baseline: PathLike | None = None,
    probability: PathLike | None = None,
    sources: PathLike | None = None,
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
    what the TIFF or PNG slices of a folder are: one volume, or cases. metrics names what to compute, or groups of it
    (None: the default group). tolerance_mm adds surface Dice at so many millimetres. empty is what Dice, IoU and
    surface Dice of two empty masks are. baseline is another prediction of the same truths, from which the differences
    are told; it takes six cases. probability is what vol3d-predict kept beside the prediction: with the group
    "instances" it gives average precisions, with the group "centreline" (which tells the recall by radius) the
    confidence by radius. sources is a table of the cases' sources (columns case and source), over that of
    truth. out is the folder for metrics.json, metrics.csv and summary.txt, sources.csv and comparison.json.

    Volumes of more than 2**28 voxels are read slab by slab; metrics that look at all of a volume are left out, with a
    warning, where its labels fill a larger box.

    Raises:
        UsageError: a path holds no volumes, out, a metric, the tolerance or ignore cannot be, there is a baseline
            for less than six cases, or a probability that no group looks at or that has other labels.
        InputError: a truth has no prediction, or none in the baseline, or no source, or no probability; two grids
            differ, a volume holds no labels, or is too large for a metric that was named.
    """
    folder, spacing = None if out is None else Path(out), millimetres(spacing)
    if folder is not None and folder.exists() and not folder.is_dir():
        raise UsageError(f"cannot write the scores to {folder}: it is a file; name a folder")
    ignore = _ignored(labels, ignore)
    wanted = _wanted(metrics, tolerance_mm)
    cases = _paired(prediction, truth, slices, reporter)
    others = [] if baseline is None else _paired(baseline, truth, slices, reporter)
    if baseline is not None and len(cases) < MIN_CASES:
        raise UsageError(
            f"a comparison with a baseline takes {MIN_CASES} cases or more to show anything, got {len(cases)}"
        )
    told = _sources(cases, sources, reporter)
    groups = {"instances", "centreline"} & set(metrics or ())
    if probability is not None and not groups:
        raise UsageError("a probability is looked at by the groups instances and centreline: name one with --metrics")
    kept = {} if probability is None else find_probabilities(Path(probability), [case.truth.name for case in cases])
    opened = lru_cache(maxsize=1)(lambda case: open_pair(case.prediction, case.truth, spacing=spacing, ignore=ignore))
    schema = labels or _schema_of((opened(case) for case in (*cases, *others)), name_of(truth))
    ours: list[tuple[str, Scores]] = []
    theirs: list[tuple[str, Scores]] = []
    details: list[Details] = []
    with reporter.progress("evaluate", total=len(cases) + len(others), unit="volumes") as advance:
        for case, rows in (*((case, ours) for case in cases), *((case, theirs) for case in others)):
            found = score_pair(opened(case), schema=schema, metrics=wanted, tolerance_mm=tolerance_mm)
            if found.lacking and metrics is not None:
                raise InputError(found.lacking)
            if found.lacking:
                reporter.warn(f"left out: {found.lacking}")
            rows += [(case.truth.name, with_empty_as_one(s) if empty == "one" else s) for s in found.rows]
            if groups and rows is ours:
                details += _details(opened(case), found.box, schema, kept.get(case.truth.name), groups)
            advance(1)
    evaluation = Evaluation(tuple(ours), tolerance_mm, told, empty, tuple(theirs), tuple(details))
    if folder is not None:
        evaluation.write(folder)
    return evaluation


def _ignored(labels: LabelSchema | None, ignore: int | None) -> int | None:
    """The value that is not looked at, of the argument or else of the labels."""
    ignore = labels.ignore if labels and ignore is None else ignore
    scored = {v for region in labels.regions for v in region.values} if labels else set()
    if ignore is not None and (ignore in scored or not 1 <= ignore <= MAX_LABEL):
        raise UsageError(f"the value to ignore must be 1 to {MAX_LABEL} and in no label that is scored, got {ignore}")
    return ignore


def _details(
    pair: LabelPair, box: Box, schema: LabelSchema, probability: Path | None, groups: Set[str]
) -> list[Details]:
    own = None if probability is None else read_probability(probability, box, pair=pair, labels=schema.names)
    return detail_case(
        *labels_in(pair, box, schema),
        schema=schema,
        spacing=pair.spacing,
        probability=own,
        instances="instances" in groups,
        radii="centreline" in groups,
    )


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
    return [_Case(prediction, Truth(name, truth))]


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


def _truths(truth: Path, slices: Slices) -> list[Truth]:
    """The labelled cases of a table, or the volumes of a path."""
    if not is_told(truth):
        return [Truth(v.name, v.paths[0]) for v in find_volumes(truth, slices=slices, inner=INNER_OF_MASKS)]
    cases = [
        Truth(c.name, c.label, c.spacing, c.labelled_box, c.structures, c.source)
        for c in detect(truth).cases
        if c.label
    ]
    if not cases:
        raise InputError(f"{truth}: no case has a label, so there is nothing to score against")
    return cases


def _sources(cases: Sequence[_Case], table: PathLike | None, reporter: Reporter) -> dict[str, str]:
    """The source of each case, of a table or else of the truths; empty where nobody says any."""
    names = [case.truth.name for case in cases]
    if table is None:
        known = {case.truth.name: case.truth.source for case in cases if case.truth.source}
        return {name: known.get(name, NO_SOURCE) for name in names} if known else {}
    found = read_sources(Path(table))
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(f"{table} tells no source of {len(missing)} of {len(names)} cases: {some(missing)}")
    extra = sorted(found.keys() - set(names))
    if extra:
        reporter.warn(f"{table}: {len(extra)} cases are not scored: {some(extra)}")
    return {name: found[name] for name in names}


def _wanted(metrics: Sequence[str] | None, tolerance_mm: float | None) -> list[str]:
    """The metrics of these names, and of groups of these names, in their own order."""
    if tolerance_mm is not None and not 0 <= tolerance_mm < float("inf"):
        raise UsageError(f"the tolerance must be zero or more millimetres, got {tolerance_mm}")
    asked = ["default"] if metrics is None else metrics
    unknown = [name for name in asked if name not in METRICS and name not in GROUPS]
    if unknown:
        raise UsageError(
            f"unknown metrics {', '.join(unknown)}: known are the groups {', '.join(GROUPS)}, and {', '.join(METRICS)}"
        )
    if TOLERANT in asked and tolerance_mm is None:
        raise UsageError(f"{TOLERANT} is at a tolerance: say which with --tolerance-mm")
    found = [name for name, metric in METRICS.items() if name in asked or metric.group in asked]
    return [name for name in found if name != TOLERANT or tolerance_mm is not None]


def _schema_of(pairs: Iterable[LabelPair], truth: str) -> LabelSchema:
    """What the values of a batch mean when nobody says it."""
    values: set[int] = set()
    binary = True
    for pair in pairs:
        occurring = np.zeros((2, MAX_LABEL + 1), dtype=np.bool_)
        for slab in pair.slabs():
            occurring |= [_occurring(labels) for labels in slab]
        for one in occurring:
            own = {int(value) for value in np.flatnonzero(one) if value}
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
