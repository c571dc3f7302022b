"""How much of the vessels was found, by how thick they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vol3d.geometry.box import Box
from vol3d.metrics.masks import AnyMask, Mask, two_arrays
from vol3d.metrics.overlap import ratio
from vol3d.regions.distance import distance_mm
from vol3d.regions.skeleton import skeleton
from vol3d.shapes import Shape3, Spacing, positive_spacing


@dataclass(frozen=True)
class RadiusBin:
    """The points of the reference's centre lines with a radius from from_mm up to, not including, to_mm.

    hits of them lie in the prediction; probability_sum is over all points, None where no probability was given.
    """

    from_mm: float
    to_mm: float
    points: int
    hits: int
    probability_sum: float | None = None

    @property
    def recall(self) -> float | None:
        """The part of the points that was found; None where there are none."""
        return ratio(self.hits, self.points)

    @property
    def confidence(self) -> float | None:
        """The mean probability at the points; None where there are none, or none was given."""
        return None if self.probability_sum is None else ratio(self.probability_sum, self.points)


def recall_by_radius(
    prediction: AnyMask,
    reference: AnyMask,
    *,
    spacing: Sequence[float],
    probability: NDArray[np.float32] | None = None,
    edges_mm: Sequence[float] | None = None,
) -> tuple[RadiusBin, ...]:
    """How many points of the reference's centre lines lie in the prediction, by the vessel's radius there.

    Masks and probability are (Z, Y, X), spacing (z, y, x) is mm. The radius at a point is its distance to the nearest
    voxel outside, less half the finest spacing; beyond the volume's edge nothing is known, and a point without
    any voxel outside has an infinite radius. edges_mm, ascending, are the limits between bins, of which the
    first begins at 0 and the last has no end. None takes octaves, ..., 0.25, 0.5, 1, 2, ... mm, as many as hold
    points, which are the same for every volume. Each point is in one bin; an empty reference has no octaves.

    Raises:
        ValueError: the spacing is not three positive numbers, the edges do not ascend from above 0, the masks are not
            three-dimensional bool arrays of one shape, or the probability has another.
    """
    one, other = two_arrays(prediction, reference)
    steps = positive_spacing(spacing)
    if probability is not None and probability.shape != one.shape:
        raise ValueError(f"expected a probability of the masks' shape {one.shape}, got {probability.shape}")
    if edges_mm is not None and not all(a < b for a, b in pairwise((0.0, *edges_mm, np.inf))):
        raise ValueError(f"expected edges that ascend from above 0 mm, got {tuple(edges_mm)}")
    points = skeleton(other)
    radii = _radii(other, points, steps)
    edges = _octaves(radii) if edges_mm is None else (0.0, *(float(edge) for edge in edges_mm), np.inf)
    place = np.searchsorted(edges, radii, side="right") - 1
    place = np.minimum(place, len(edges) - 2)  # what is infinite is in the last
    bins = max(0, len(edges) - 1)
    count, hits = (np.bincount(place[chosen], minlength=bins) for chosen in (slice(None), one[points]))
    sums = None if probability is None else np.bincount(place, weights=probability[points], minlength=bins)
    return tuple(
        RadiusBin(low, high, int(count[i]), int(hits[i]), None if sums is None else float(sums[i]))
        for i, (low, high) in enumerate(pairwise(edges))
    )


def _radii(mask: Mask, points: Mask, spacing: Spacing) -> NDArray[np.float64]:
    """The radius in mm at each of the points in a mask, (n,)."""
    box = Box.around(mask)
    if box is None:
        return np.empty(0)
    cut = box.grown((1, 1, 1)).intersection(Box.whole(Shape3(*mask.shape))).slices
    radii: NDArray[np.float64] = distance_mm(~mask[cut], spacing)[points[cut]].astype(np.float64) - min(spacing) / 2
    return radii


def _octaves(radii: NDArray[np.float64]) -> tuple[float, ...]:
    """Powers of two around all radii; infinite ones have an octave of their own, above the others."""
    finite = radii[np.isfinite(radii)]
    powers = np.frexp(finite)[1] - 1 if finite.size else np.zeros(0, dtype=np.int64)
    edges = [2.0**power for power in range(int(powers.min()), int(powers.max()) + 2)] if finite.size else []
    if finite.size < radii.size:
        edges = [*(edges or [0.0]), np.inf]
    return tuple(edges)
