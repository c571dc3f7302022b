"""What of a case is more than a number: components by confidence, vessels by radius; and those of all cases."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.geometry.box import Box
from vol3d.metrics.average_precision import InstanceCase, instance_average_precision, instance_case
from vol3d.metrics.radius import RadiusBin, recall_by_radius
from vol3d.metrics.report import region_mask, with_margin
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.labels import LabelSchema

IOUS = {"iou_50": 0.5, "iou_60": 0.6}
"""What a component must overlap to be right; 0.6 is HuBMAP 2023's."""


@dataclass(frozen=True, eq=False)  # arrays have no hash
class Details:
    """A case's in one label; None or empty is not asked for."""

    label: str
    instances: InstanceCase | None
    radii: tuple[RadiusBin, ...]


def detail_case(
    prediction: NDArray[Any],
    reference: NDArray[Any],
    *,
    schema: LabelSchema,
    spacing: Spacing,
    probability: NDArray[np.floating[Any]] | None,
    instances: bool,
    radii: bool,
) -> list[Details]:
    """The details of each region of label values (Z, Y, X), as score_case takes them.

    probability is (regions, Z, Y, X) in [0, 1], None where nobody kept it: instances want one, radii are told with
    their confidence where there is one.
    """
    seen = None if schema.ignore is None else reference != schema.ignore
    found = []
    for place, region in enumerate(schema.regions):
        masks = [region_mask(labels, region.values, seen) for labels in (prediction, reference)]
        box = Box.around(masks[0] | masks[1])
        inside = with_margin(box, Shape3(*masks[0].shape)).slices if box else None
        one, other = masks if inside is None else (mask[inside] for mask in masks)
        own = None if probability is None else probability[place][inside or ...].astype(np.float32)
        found.append(
            Details(
                region.name,
                instance_case(one, other, probability=own) if instances and own is not None else None,
                recall_by_radius(one, other, spacing=spacing, probability=own) if radii else (),
            )
        )
    return found


def average_precisions(details: Iterable[Details]) -> dict[str, dict[str, float | None]]:
    """Of all cases' components together, by label and IOUS."""
    cases: dict[str, list[InstanceCase]] = {}
    for one in details:
        if one.instances is not None:
            cases.setdefault(one.label, []).append(one.instances)
    return {
        label: {name: instance_average_precision(found, iou=iou) for name, iou in IOUS.items()}
        for label, found in cases.items()
    }


def radius_records(details: Iterable[Details]) -> dict[str, list[dict[str, float | int | None]]]:
    """Of all cases' centre lines together, by label: a flat row for each bin of radius, thin ones first.

    to_mm is None for what has no voxel outside.
    """
    bins: dict[str, dict[float, RadiusBin]] = {}
    for one in details:
        for found in one.radii:
            own = bins.setdefault(one.label, {})
            own[found.to_mm] = _together(own[found.to_mm], found) if found.to_mm in own else found
    return {label: [_row(own[to_mm]) for to_mm in sorted(own)] for label, own in bins.items()}


def _together(one: RadiusBin, other: RadiusBin) -> RadiusBin:
    sums = one.probability_sum, other.probability_sum
    total = None if sums[0] is None or sums[1] is None else sums[0] + sums[1]
    low = max(one.from_mm, other.from_mm)  # differ only where there is no end
    return RadiusBin(low, one.to_mm, one.points + other.points, one.hits + other.hits, total)


def _row(found: RadiusBin) -> dict[str, float | int | None]:
    return {
        "from_mm": found.from_mm,
        "to_mm": found.to_mm if np.isfinite(found.to_mm) else None,
        "points": found.points,
        "recall": found.recall,
        "confidence": found.confidence,
    }
