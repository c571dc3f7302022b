"""Keep components by how sure they are, by their form, and by what they lie near."""

import math
from collections import deque
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vol3d.geometry.box import Box
from vol3d.postprocess.blocks import BlockStep, Found, Region, own_mask
from vol3d.postprocess.scene import Locality, Needs
from vol3d.postprocess.size import largest
from vol3d.regions.blocks import FIRST, SEEDS, VOXELS, Measure
from vol3d.regions.components import Components, Connectivity, keep
from vol3d.regions.distance import dilate_mm, reach_voxels
from vol3d.regions.library import library
from vol3d.regions.measures import MOMENTS, form, probability_peak, probability_sum
from vol3d.regions.reduce import PROBABILITY_UNITS, counts

_ROUNDING = 1e-9  # of a ratio of square roots

Kept = NDArray[np.bool_]
"""Which components stay, (count + 1,), the background's entry first."""


@dataclass(frozen=True, kw_only=True)
class ComponentFilter(BlockStep):
    """Keep the components that are within every bound that is given; all are inclusive.

    Probabilities are those of a component's voxels: their mean, and their highest. Elongation is the longest by
    the middle, flatness the middle by the shortest principal standard length (vol3d.regions.measures.form):
    min_elongation removes blobs and plates, max_flatness plates alone. A distance is that of the nearest voxel
    centres, 0 where a voxel is shared; the largest_count largest components are those before any is removed.
    """

    name: ClassVar[str] = "component_filter"
    locality: ClassVar[Locality] = "components"
    tensors: ClassVar[bool] = True

    min_mean_probability: float | None = None
    min_peak_probability: float | None = None
    min_elongation: float | None = None
    max_elongation: float | None = None
    max_flatness: float | None = None
    max_organ_distance_mm: float | None = None
    max_largest_distance_mm: float | None = None
    largest_count: int = 1
    connectivity: Connectivity = 26

    def __post_init__(self) -> None:
        bounds = [name for name in self.__dataclass_fields__ if name.startswith(("min_", "max_"))]
        if all(getattr(self, name) is None for name in bounds):
            raise ValueError(f"component_filter needs a bound: one or more of {', '.join(bounds)}")
        for name in bounds:
            value = getattr(self, name)
            most = 1.0 if name.endswith("probability") else math.inf
            least = 0.0 if name.endswith(("probability", "mm")) else 1.0
            told = "in [0, 1]" if most == 1 else f"{least:g} or more" + (" mm" if name.endswith("mm") else "")
            self.require(name, value is None or (least <= value <= most and math.isfinite(value)), told)
        self.require("largest_count", self.largest_count >= 1, "1 or more")

    def needs(self) -> Needs:
        """The probability and the organ mask, where they are looked at."""
        probability = self.min_mean_probability is not None or self.min_peak_probability is not None
        return Needs(probability=probability, organ=self.max_organ_distance_mm is not None)

    def run(self, region: Region) -> str:
        """Remove the components beyond a bound."""
        organ_mm, away_mm, spacing = self.max_organ_distance_mm, self.max_largest_distance_mm, region.scene.spacing
        found = region.components(
            (VOXELS, FIRST, SEEDS, *self._measures(region).values()),
            connectivity=self.connectivity,
            seeds=own_mask if organ_mm is None else lambda part: part.scene.organ_moved(organ_mm),
            reach=0 if away_mm is None else reach_voxels(away_mm, spacing)[0],
        )
        voxels, first, seeds = found.measured[:3]
        kept = self._by_tables(region, found) & (seeds > 0)
        if away_mm is not None:
            kept &= near(region, found, largest(voxels, first, self.largest_count), away_mm)
        region.keep(found, kept)
        return f"{np.count_nonzero(~kept[1:])} of {len(kept) - 1} components removed"

    def _measures(self, region: Region) -> dict[str, Measure]:
        def probability(box: Box) -> Any:
            return region.scene.within(box).probability

        wanted = {
            "sum": (self.min_mean_probability, probability_sum(probability)),
            "peak": (self.min_peak_probability, probability_peak(probability)),
            "moments": (self.min_elongation or self.max_elongation or self.max_flatness, MOMENTS),
        }
        return {name: measure for name, (bound, measure) in wanted.items() if bound is not None}

    def _in_precision(self, region: Region, bound: float) -> float:
        """The bound, or what the probability's precision makes of it where that is a little less."""
        return min(bound, float(region.scene.probability_dtype.type(bound)))

    def _by_tables(self, region: Region, found: Found) -> Kept:
        tables = dict(zip(self._measures(region), found.measured[3:], strict=True))
        voxels: NDArray[np.int64] = np.maximum(found.measured[0], 1)  # the background has none
        kept: Kept = np.ones(voxels.shape, dtype=np.bool_)
        if self.min_mean_probability is not None:
            mean = tables["sum"] / voxels
            kept &= mean >= self._in_precision(region, self.min_mean_probability) * PROBABILITY_UNITS
        if self.min_peak_probability is not None:
            kept &= tables["peak"] >= self._in_precision(region, self.min_peak_probability)
        if "moments" in tables:
            found_form = form(voxels, tables["moments"], region.scene.spacing)
            kept &= found_form.elongation >= (self.min_elongation or 1.0) - _ROUNDING
            kept &= found_form.elongation <= (self.max_elongation or math.inf) + _ROUNDING
            kept &= found_form.flatness <= (self.max_flatness or math.inf) + _ROUNDING
        return kept


def near(region: Region, found: Found, chosen: Kept, distance_mm: float) -> Kept:
    """Which components have a voxel no further from the chosen ones; found reaches as many planes as that takes."""
    spacing, depth = region.scene.spacing, region.store.shape.z
    result = np.zeros(chosen.shape, dtype=np.bool_)
    waiting: deque[tuple[Box, Components, NDArray[np.int64]]] = deque()
    window: Any = None
    low = 0
    for part in region.parts(found.reach):
        components, numbers = found.labels(part), found.numbers[part.number]
        waiting.append((part.box, components, numbers))
        own = keep(components, chosen[numbers])
        window = own if window is None else library(own).concatenate([window, own])
        while waiting and min(depth, waiting[0][0].stop.z + found.reach) <= low + len(window):
            box, components, numbers = waiting.popleft()
            around = window[: box.stop.z + found.reach - low]
            within = dilate_mm(around, distance_mm, spacing)[box.start.z - low :][: box.shape.z]
            result[numbers[counts(components.labels, components.count, where=within) > 0]] = True
            passed = max(0, box.stop.z - found.reach - low)
            window, low = window[passed:], low + passed
    result[0] = False
    return result
