"""Every metric of a mask by name: what it belongs to, how it is computed, and the definitions that a report shows.

What is not defined is None, and is counted; it is never averaged in and never dropped unseen:

- both masks empty: the volume difference and the Betti errors are 0, everything else is undefined
- the prediction alone is empty: what asks for a part of it is undefined (precision, fp, topology_precision and their
  like); what asks for a part of the reference, or of both, is 0 (or 1 for miss)
- the reference alone is empty: the same, the other way round
- one is empty: distances are undefined, as there is none to nothing, and so are splits and merges
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from vol3d.metrics.centreline import Breaks, CentrelineOverlap, breaks_of_lines, overlap_of_lines
from vol3d.metrics.compare import Better
from vol3d.metrics.counts import COUNTED, OF_SURFACE, Counts
from vol3d.metrics.distances import BorderDistances, border_distances
from vol3d.metrics.instances import Detection, Matching, detected, matched
from vol3d.metrics.masks import Mask
from vol3d.metrics.overlap import Overlap, overlap, rest
from vol3d.metrics.surface import SurfaceOverlap, surface_dice, surface_overlap
from vol3d.metrics.topology import betti_errors
from vol3d.regions.components import Components, label
from vol3d.regions.skeleton import skeleton
from vol3d.regions.topology import Betti
from vol3d.shapes import Spacing

Group = Literal["default", "surface", "centreline", "topology", "instances"]
"""What is computed together: default where nothing is named, the others where they are asked for."""

GROUPS: tuple[Group, ...] = get_args(Group)

MATCHED_AT = 0.5
"""The intersection over union from which components are matched one to one."""

DEFINITIONS = {
    "undefined": "a ratio over nothing or a distance to nothing is null and counted, not averaged",
    "hit": "true positives / reference (recall)",
    "fp": "false positives / prediction (1 - precision)",
    "miss": "misses / reference (1 - recall)",
    "surface_dice": "tolerance 0: area of the 2x2x2 cubes where both masks have surface / area of both surfaces",
    "surface_dice_at_tolerance": "area within tolerance_mm of the other surface / area of both surfaces "
    "(Nikolov et al. 2018)",
    "surface_hit": "area of the reference's surface in cubes where the prediction has some / all of it; surface_miss "
    "is the rest, surface_fp that of the prediction's surface in cubes where the reference has none / all of it",
    "hd95_mm": "larger of the two directed 95th percentiles of the distances between border voxels (6-neighbours)",
    "assd_mm": "mean over the border voxels of both masks of the distance to the other's (Heimann et al. 2009)",
    "one_slice": "in a volume one voxel thick outlines stand for surfaces: lengths by 2x2 squares, borders by "
    "4-neighbours; its volume is its area times the spacing across",
    "volume_difference": "prediction minus reference; relative: divided by the reference",
    "ignored": "voxels whose truth is not known are in no mask, as if the volume ended there",
    "component": "a component (26-connectivity) is found where it shares a voxel with the other mask; component_fp and "
    "component_miss are the shares that are not",
    "instance": "components matched one to one at an intersection over union of 0.5 or more: instance_f1 is "
    "2 matched / all of both, segmentation_quality the mean IoU of the matched, panoptic_quality their product "
    "(Kirillov et al. 2019)",
    "cl_dice": "harmonic mean of topology_precision and topology_sensitivity: the shares of the prediction's and "
    "of the reference's centre line (thinning, Lee et al. 1994) that lie in the other mask (Shit et al. 2021)",
    "vessel_splits": "over components of the reference, the predicted components that the centre line runs through, "
    "beyond the first; vessel_merges the same of the predicted ones",
    "betti_error": "difference in components (0), tunnels (1) and cavities (2), 26-connected foreground in 6-connected "
    "background; tunnels by the Euler number",
    "interval": "low to high: 95 % interval of the mean over the n cases, by 5000 bootstrap resamples of them, their "
    "percentiles expanded for small n (Hesterberg 2015); null below 6 cases, which cannot tell their spread",
    "pooled": "the metric of all cases together, by voxels or by surfaces in mm2; null where it does not add up",
    "summary": "mean and population standard deviation over the n cases where defined; 'mean' first averages a "
    "case's defined labels, and its undefined counts single labels of cases",
}


@dataclass(frozen=True)
class Pair:
    """Two masks, and what several metrics read from them."""

    prediction: Mask
    reference: Mask
    spacing: Spacing
    tolerance_mm: float

    @cached_property
    def overlap(self) -> Overlap:
        """Of voxels."""
        return overlap(self.prediction, self.reference)

    @cached_property
    def surface(self) -> SurfaceOverlap:
        """Of surfaces."""
        return surface_overlap(self.prediction, self.reference, spacing=self.spacing)

    @cached_property
    def borders(self) -> BorderDistances | None:
        """Between borders."""
        return border_distances(self.prediction, self.reference, spacing=self.spacing)

    @cached_property
    def components(self) -> tuple[Components, Components]:
        """The prediction's and the reference's."""
        return label(self.prediction), label(self.reference)

    @cached_property
    def detection(self) -> Detection:
        """By touch."""
        return detected(*self.components)

    @cached_property
    def matching(self) -> Matching:
        """One to one."""
        return matched(*self.components, iou=MATCHED_AT)

    @cached_property
    def lines(self) -> tuple[Mask, Mask]:
        """The prediction's and the reference's centre lines."""
        return skeleton(self.prediction), skeleton(self.reference)

    @cached_property
    def centreline(self) -> CentrelineOverlap:
        """Of centre lines with masks."""
        return overlap_of_lines(self.prediction, self.reference, lines=self.lines)

    @cached_property
    def breaks(self) -> Breaks | None:
        """Along centre lines."""
        return breaks_of_lines(*self.components, lines=self.lines)

    @cached_property
    def betti(self) -> Betti:
        """Errors."""
        return betti_errors(self.prediction, self.reference)

    def counts(self, *, surface: bool) -> Counts:
        """What adds up over cases; of surfaces, too, where they are wanted."""
        return Counts.of(self.overlap, self.spacing, self.surface if surface else None)

    @property
    def dice_at_tolerance(self) -> float | None:
        """Of surfaces."""
        return surface_dice(self.prediction, self.reference, spacing=self.spacing, tolerance_mm=self.tolerance_mm)


@dataclass(frozen=True)
class Metric:
    """A score of two masks, None where it is undefined, the group it belongs to, and which way it is good."""

    group: Group
    score: Callable[[Pair], float | None]
    better: Better = "higher"


def _counted(name: str, group: Group = "default", better: Better = "higher") -> Metric:
    surface = name in OF_SURFACE
    return Metric(group, lambda pair: COUNTED[name](pair.counts(surface=surface)), better)


METRICS: dict[str, Metric] = {
    "dice": _counted("dice"),
    "iou": _counted("iou"),
    "hit": _counted("hit"),
    "fp": _counted("fp", better="lower"),
    "miss": _counted("miss", better="lower"),
    "precision": _counted("precision"),
    "recall": _counted("recall"),
    "surface_dice": _counted("surface_dice"),
    "surface_dice_at_tolerance": Metric("default", lambda p: p.dice_at_tolerance),
    "hd95_mm": Metric("default", lambda p: p.borders.hd95_mm if p.borders else None, "lower"),
    "assd_mm": Metric("default", lambda p: p.borders.assd_mm if p.borders else None, "lower"),
    "volume_difference_mm3": _counted("volume_difference_mm3", better="nearest zero"),
    "volume_difference_relative": _counted("volume_difference_relative", better="nearest zero"),
    "component_recall": Metric("default", lambda p: p.detection.recall),
    "component_precision": Metric("default", lambda p: p.detection.precision),
    "surface_hit": _counted("surface_hit", "surface"),
    "surface_fp": _counted("surface_fp", "surface", better="lower"),
    "surface_miss": _counted("surface_miss", "surface", better="lower"),
    "cl_dice": Metric("centreline", lambda p: p.centreline.cl_dice),
    "topology_precision": Metric("centreline", lambda p: p.centreline.topology_precision),
    "topology_sensitivity": Metric("centreline", lambda p: p.centreline.topology_sensitivity),
    "vessel_splits": Metric("centreline", lambda p: p.breaks.splits if p.breaks else None, "lower"),
    "vessel_merges": Metric("centreline", lambda p: p.breaks.merges if p.breaks else None, "lower"),
    "betti_0_error": Metric("topology", lambda p: p.betti.components, "lower"),
    "betti_1_error": Metric("topology", lambda p: p.betti.tunnels, "lower"),
    "betti_2_error": Metric("topology", lambda p: p.betti.cavities, "lower"),
    "component_fp": Metric("instances", lambda p: rest(p.detection.precision), "lower"),
    "component_miss": Metric("instances", lambda p: rest(p.detection.recall), "lower"),
    "instance_recall": Metric("instances", lambda p: p.matching.recall),
    "instance_precision": Metric("instances", lambda p: p.matching.precision),
    "instance_f1": Metric("instances", lambda p: p.matching.f1),
    "segmentation_quality": Metric("instances", lambda p: p.matching.segmentation_quality),
    "panoptic_quality": Metric("instances", lambda p: p.matching.panoptic_quality),
}


def of_group(group: Group) -> tuple[str, ...]:
    """The names of a group's metrics."""
    return tuple(name for name, metric in METRICS.items() if metric.group == group)


DEFAULT = of_group("default")
"""What is computed where nothing is named."""
