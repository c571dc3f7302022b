"""The scores of a case, their summary over cases, and the table that a person reads.

What is not defined is None and is counted; it is never averaged in and never dropped unseen:

- both masks empty: the volume difference is 0 mm3, everything else is undefined
- the prediction alone is empty: Dice, IoU, recall and both surface Dice are 0; precision is undefined
- the reference alone is empty: Dice, IoU, precision and both surface Dice are 0; recall is undefined
- one is empty: HD95 is undefined (there is no distance to nothing)
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import add
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vol3d.geometry.box import Box
from vol3d.metrics.compare import bootstrap_mean
from vol3d.metrics.counts import COUNTED, Counts, SurfaceArea
from vol3d.metrics.instances import Detection, detection
from vol3d.metrics.overlap import Overlap, overlap, ratio, rest
from vol3d.metrics.surface import hd95_mm, surface_area, surface_dice
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.labels import LabelSchema

Mask = NDArray[np.bool_]

DEFINITIONS = {
    "undefined": "a ratio over nothing or a distance to nothing is null and counted, not averaged",
    "hit": "true positives / reference (recall)",
    "fp": "false positives / prediction (1 - precision)",
    "miss": "misses / reference (1 - recall)",
    "surface_dice": "tolerance 0: area of the 2x2x2 cubes where both masks have surface / area of both surfaces",
    "surface_dice_at_tolerance": "area within tolerance_mm of the other surface / area of both surfaces",
    "hd95_mm": "larger of the two directed 95th percentiles of the distances between border voxels (6-neighbours)",
    "one_slice": "in a volume one voxel thick outlines stand for surfaces: lengths by 2x2 squares, borders by "
    "4-neighbours; its volume is its area times the spacing across",
    "volume_difference": "prediction minus reference; relative: divided by the reference",
    "ignored": "voxels whose truth is not known are in no mask, as if the volume ended there",
    "component": "a component (26-connectivity) is found where it shares a voxel with the other mask",
    "summary": "mean and population standard deviation over the n cases where defined; 'mean' first averages a "
    "case's defined labels, and its undefined counts single labels of cases",
    "interval": "low to high: 95 % interval of the mean by 5000 bootstrap resamples of the n cases, percentiles "
    "expanded for small n; null below 6 cases, which are too few to tell their spread",
    "pooled": "the metric of the voxels, or the surface, of all cases together; null where it does not add up",
}
MEAN = "mean"

Empty = Literal["undefined", "one"]
EMPTY: dict[Empty, str] = {
    "undefined": "where both masks are empty Dice, IoU and surface Dice are undefined",
    "one": "where both masks are empty Dice, IoU and surface Dice are 1",
}
"""What two empty masks count as: nothing was said, or rightly nothing was found."""

BETTER: dict[str, Literal["lower", "nearest zero"]] = {
    "fp": "lower",
    "miss": "lower",
    "hd95_mm": "lower",
    "volume_difference_mm3": "nearest zero",
    "volume_difference_relative": "nearest zero",
}
"""Which way a metric is good; all others are better the higher they are."""


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

    metrics names what to compute (METRICS; None is all of them); surface_dice_at_tolerance also wants a
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
    wanted = [name for name in METRICS if metrics is None or name in metrics]
    if tolerance_mm is None:
        wanted = [name for name in wanted if name != "surface_dice_at_tolerance"]
    box = Box.around((prediction != 0) | (reference != 0))
    # With a margin, so that what lies in one slice of a volume is not taken for a picture.
    inside = box.grown((1, 1, 1)).intersection(Box.whole(Shape3(*reference.shape))).slices if box else (slice(1),) * 3
    prediction, reference = prediction[inside], reference[inside]
    seen = None if schema.ignore is None else reference != schema.ignore
    scores = []
    for region in schema.regions:
        masks = [region_mask(labels, region.values, seen) for labels in (prediction, reference)]
        pair = _Pair(masks[0], masks[1], spacing, tolerance_mm or 0.0)
        values = {name: METRICS[name](pair) for name in wanted}
        scores.append(Scores(region.name, values, pair.counts(surface="surface_dice" in wanted)))
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
    """A flat row for JSON and CSV with every metric; those that were not asked for are None too."""
    return {"case": case, "label": scores.label, **dict.fromkeys(METRICS), **scores.values}


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


@dataclass(frozen=True)
class _Pair:
    """Two masks, and what several metrics read from them."""

    prediction: Mask
    reference: Mask
    spacing: Spacing
    tolerance_mm: float

    @cached_property
    def overlap(self) -> Overlap:
        return overlap(self.prediction, self.reference)

    @cached_property
    def detection(self) -> Detection:
        return detection(self.prediction, self.reference)

    @property
    def volume_difference(self) -> int:
        return self.overlap.predicted - self.overlap.referenced

    @cached_property
    def surface(self) -> SurfaceArea:
        return surface_area(self.prediction, self.reference, self.spacing)

    def counts(self, *, surface: bool) -> Counts:
        difference_mm3 = self.volume_difference * self.spacing.voxel_mm3
        return Counts(self.overlap, difference_mm3, self.surface if surface else None)


METRICS: dict[str, Callable[[_Pair], float | None]] = {
    "dice": lambda p: p.overlap.dice,
    "iou": lambda p: p.overlap.iou,
    "hit": lambda p: p.overlap.recall,
    "fp": lambda p: rest(p.overlap.precision),
    "miss": lambda p: rest(p.overlap.recall),
    "precision": lambda p: p.overlap.precision,
    "recall": lambda p: p.overlap.recall,
    "surface_dice": lambda p: p.surface.dice,
    "surface_dice_at_tolerance": lambda p: surface_dice(
        p.prediction, p.reference, p.spacing, tolerance_mm=p.tolerance_mm
    ),
    "hd95_mm": lambda p: hd95_mm(p.prediction, p.reference, p.spacing),
    "volume_difference_mm3": lambda p: p.volume_difference * p.spacing.voxel_mm3,
    "volume_difference_relative": lambda p: ratio(p.volume_difference, p.overlap.referenced),
    "component_recall": lambda p: p.detection.recall,
    "component_precision": lambda p: p.detection.precision,
}
