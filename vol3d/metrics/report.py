"""The scores of a case, their summary over cases, and the table that a person reads.

What is not defined (vol3d.metrics.registry tells when) is None and is counted; it is never averaged in.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vol3d.geometry.box import Box
from vol3d.metrics.compare import bootstrap_mean
from vol3d.metrics.counts import COUNTED, OF_SURFACE, Counts
from vol3d.metrics.masks import Mask
from vol3d.metrics.overlap import Overlap
from vol3d.metrics.registry import DEFAULT, METRICS, Pair
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.labels import LabelSchema

MEAN = "mean"

Empty = Literal["undefined", "one"]
EMPTY: dict[Empty, str] = {
    "undefined": "where both masks are empty Dice, IoU and surface Dice are undefined",
    "one": "where both masks are empty Dice, IoU and surface Dice are 1",
}
"""What two empty masks count as: nothing was said, or rightly nothing was found."""


@dataclass(frozen=True)
class Scores:
    """A case's scores in one label: a number, or None where it is undefined. Not asked for is not in there.

    counts are what is pooled over cases.
    """

    label: str
    values: Mapping[str, float | None]
    counts: Counts | None = None


@dataclass(frozen=True)
class Statistics:
    """A metric over cases: mean and population std of the n that are defined (None where n is 0).

    low and high bound the mean (None: too few cases, or not asked for); pooled is the metric of all cases together.
    """

    mean: float | None
    std: float | None
    n: int
    undefined: int
    low: float | None = None
    high: float | None = None
    pooled: float | None = None


def score_case(
    prediction: NDArray[Any],
    reference: NDArray[Any],
    *,
    schema: LabelSchema,
    spacing: Spacing,
    tolerance_mm: float | None = None,
    metrics: Collection[str] | None = None,
) -> list[Scores]:
    """Score label values (Z, Y, X) against a reference of the same shape: one Scores for each region.

    metrics names what to compute (of METRICS; None is the DEFAULT ones); surface_dice_at_tolerance also wants a
    tolerance_mm. Voxels where the reference has the schema's ignore value are in no mask, as if the volume
    ended there: surfaces and components are cut.

    Raises:
        ValueError: the shapes differ, or a metric is not known.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"expected label arrays of one shape, got {prediction.shape} and {reference.shape}")
    unknown = set(metrics or ()) - set(METRICS)
    if unknown:
        raise ValueError(f"unknown metrics {sorted(unknown)}; known are {', '.join(METRICS)}")
    wanted = [name for name in METRICS if name in (DEFAULT if metrics is None else metrics)]
    if tolerance_mm is None:
        wanted = [name for name in wanted if name != "surface_dice_at_tolerance"]
    box = Box.around((prediction != 0) | (reference != 0))
    inside = with_margin(box, Shape3(*reference.shape)).slices if box else (slice(1),) * 3
    prediction, reference = prediction[inside], reference[inside]
    seen = None if schema.ignore is None else reference != schema.ignore
    scores = []
    for region in schema.regions:
        masks = [region_mask(labels, region.values, seen) for labels in (prediction, reference)]
        pair = Pair(masks[0], masks[1], spacing, tolerance_mm or 0.0)
        values = {name: METRICS[name].score(pair) for name in wanted}
        scores.append(Scores(region.name, values, pair.counts(surface=bool(OF_SURFACE.intersection(wanted)))))
    return scores


def summarise(
    cases: Iterable[tuple[str, Scores]], *, random_seed: int | None = None
) -> dict[str, dict[str, Statistics]]:
    """Statistics of each label and metric over cases, given as (case, scores), and of their "mean".

    "mean" is first the mean of a case's defined labels, then over cases; its undefined counts the labels
    of cases that were left out, and nothing of it is pooled. random_seed is the chance of the intervals; None
    leaves them out.
    """
    cases = list(cases)
    summary = {label: _per_metric(list(rows.values()), random_seed) for label, rows in by_label(cases).items()}
    for name, stat in summary[MEAN].items():
        undefined = sum(stats[name].undefined for label, stats in summary.items() if label != MEAN and name in stats)
        summary[MEAN][name] = replace(stat, undefined=undefined)
    for label, counts in _pooled(cases).items():
        for name in COUNTED.keys() & summary[label].keys():
            summary[label][name] = replace(summary[label][name], pooled=COUNTED[name](counts))
    return summary


def with_empty_as_one(scores: Scores) -> Scores:
    """Dice, IoU and surface Dice as 1 where both masks are empty."""
    if scores.counts is None or scores.counts.overlap != Overlap(0, 0, 0):
        return scores
    right = dict.fromkeys(scores.values.keys() & {"dice", "iou", "surface_dice", "surface_dice_at_tolerance"}, 1.0)
    return replace(scores, values={**scores.values, **right})


def by_label(cases: Iterable[tuple[str, Scores]]) -> dict[str, dict[str, Mapping[str, float | None]]]:
    """The scores of every case by label; under "mean" the mean of each case's defined labels."""
    labels: dict[str, dict[str, Mapping[str, float | None]]] = {}
    own: dict[str, list[Mapping[str, float | None]]] = {}
    for case, scores in cases:
        labels.setdefault(scores.label, {})[case] = scores.values
        own.setdefault(case, []).append(scores.values)
    labels[MEAN] = {case: {name: stat.mean for name, stat in _per_metric(rows).items()} for case, rows in own.items()}
    return labels


def case_record(case: str, scores: Scores) -> dict[str, Any]:
    """A flat row for JSON and CSV with every default metric; those that were not asked for are None too."""
    return {"case": case, "label": scores.label, **dict.fromkeys(DEFAULT), **scores.values}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as aligned text: four decimals, words to the left, "-" for None."""
    if not rows:
        return ""
    cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    words = [isinstance(value, str) for value in rows[0].values()]
    lines = (
        "  ".join(c.ljust(w) if left else c.rjust(w) for c, w, left in zip(line, widths, words, strict=True))
        for line in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def region_mask(labels: NDArray[Any], values: tuple[int, ...], seen: Mask | None) -> Mask:
    """Where labels has one of the values, of what is seen (None: all of it)."""
    mask: Mask = reduce(np.logical_or, (labels == value for value in values))
    return mask if seen is None else mask & seen


def with_margin(box: Box, shape: Shape3) -> Box:
    """The box and a voxel around it, so that what lies in one slice of a volume is not taken for a picture."""
    return box.grown((1, 1, 1)).intersection(Box.whole(shape))


def _pooled(cases: Sequence[tuple[str, Scores]]) -> dict[str, Counts]:
    """The counts of all cases together by label, where every case has them."""
    found: dict[str, list[Counts | None]] = {}
    for _, scores in cases:
        found.setdefault(scores.label, []).append(scores.counts)
    known = {label: [one for one in counts if one] for label, counts in found.items()}
    return {label: reduce(add, counts) for label, counts in known.items() if len(counts) == len(found[label])}


def _per_metric(rows: Sequence[Mapping[str, float | None]], random_seed: int | None = None) -> dict[str, Statistics]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: _statistics([row[name] for row in rows if name in row], random_seed) for name in names}


def _statistics(values: Sequence[float | None], random_seed: int | None) -> Statistics:
    defined = [value for value in values if value is not None]
    if not defined:
        return Statistics(None, None, 0, len(values))
    mean = math.fsum(defined) / len(defined)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in defined) / len(defined))
    # The same resamples of cases for every metric.
    chance = None if random_seed is None else np.random.default_rng(random_seed)
    interval = bootstrap_mean(defined, generator=chance) if chance else None
    low, high = (interval.low, interval.high) if interval else (None, None)
    return Statistics(mean, std, len(defined), len(values) - len(defined), low, high)
