"""Score one prediction, in one go or, where it is large, slab by slab."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from vol3d.geometry.box import Box
from vol3d.metrics.counts import COUNTED
from vol3d.metrics.registry import METRICS
from vol3d.metrics.report import Scores, score_case, with_margin
from vol3d.metrics.slabs import SlabScores
from vol3d.shapes import Index3, Shape3
from vol3d.tasks.label_pair import WHOLE_VOXELS, LabelPair, Labels
from vol3d.volume.labels import LabelSchema, Region

Both = tuple[Labels, Labels]


BINARY = LabelSchema((Region("foreground", (1,)),))
"""Every value besides zero, whatever it is, as one mask."""


@dataclass(frozen=True)
class PairScores:
    """The scores of each region, what they lack as a sentence or "", and the box that was looked at in one go."""

    rows: list[Scores]
    lacking: str
    box: Box


def score_pair(
    pair: LabelPair, *, schema: LabelSchema, metrics: Sequence[str], tolerance_mm: float | None
) -> PairScores:
    """Score one prediction.

    Of a volume that does not fit, what follows from counts is summed over its slabs; the rest is looked at in the box
    around all labels, or is left out where that does not fit either.
    """
    score = partial(score_case, schema=schema, spacing=pair.spacing, tolerance_mm=tolerance_mm)
    if pair.fits:
        whole = Box.whole(pair.shape)
        return PairScores(score(*labels_in(pair, whole, schema), metrics=metrics), "", whole)
    slabs = SlabScores(schema, pair.spacing, metrics=metrics)
    for labels in pair.slabs():
        slabs.add(*(_masks(labels) if schema is BINARY else labels))
    rows, others = slabs.finish(), [name for name in metrics if name not in COUNTED]
    box = with_margin(slabs.box or Box.at(Index3(0, 0, 0), Shape3(1, 1, 1)), pair.shape)
    if not others:
        return PairScores(rows, "", box)
    if box.shape.voxels > WHOLE_VOXELS:
        lacking = (
            f"{', '.join(others)} want all labels in a box of at most {WHOLE_VOXELS} voxels; those of {pair.names[0]} "
            f"and {pair.names[1]} fill one of (z, y, x) {tuple(box.shape)}"
        )
        return PairScores(rows, lacking, box)
    more = score(*labels_in(pair, box, schema), metrics=others)
    return PairScores([_joined(*both) for both in zip(rows, more, strict=True)], "", box)


def labels_in(pair: LabelPair, box: Box, schema: LabelSchema) -> Both:
    """The labels of prediction and truth in a box, as schema takes them."""
    both = pair.whole if pair.fits else pair.read(box)
    return _masks(both) if schema is BINARY else both


def _masks(both: Both) -> Both:
    predicted, true = ((labels != 0).view(np.uint8) for labels in both)
    return predicted, true


def _joined(counted: Scores, other: Scores) -> Scores:
    values = {**counted.values, **other.values}
    return Scores(counted.label, {name: values[name] for name in METRICS if name in values}, counted.counts)
