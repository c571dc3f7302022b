"""What else is told of components: sums, extremes and counts of what they hold, their boxes, their second moments.

All sums are of integers, so that they come to the same in any order and however a volume is cut.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.geometry.box import Box
from vol3d.regions.blocks import Indices, LabelledSlab, Measure
from vol3d.regions.components import component_boxes
from vol3d.regions.reduce import counts, highest, moments, probability_sums
from vol3d.shapes import Spacing

_PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))  # axes

Read = Callable[[Box], Any]
"""Values, or a mask, (Z, Y, X) in a box of the volume, where the labels lie."""


def probability_sum(probability: Read) -> Measure:
    """The sum of the probabilities of a component's voxels, in PROBABILITY_UNITS; NaN counts as 0."""

    def of(slab: LabelledSlab) -> Indices:
        return probability_sums(slab.components.labels, slab.components.count, probability(slab.box))

    return Measure(of, np.add)


def probability_peak(probability: Read) -> Measure:
    """The highest probability of a component's voxels, NaN left out; 0 or less where all are."""

    def of(slab: LabelledSlab) -> NDArray[Any]:
        values = probability(slab.box)
        return highest(slab.components.labels, slab.components.count, values, where=values == values)

    return Measure(of, np.maximum)


def counted(mask: Read) -> Measure:
    """How many of a component's voxels are in a mask."""

    def of(slab: LabelledSlab) -> Indices:
        return counts(slab.components.labels, slab.components.count, where=mask(slab.box))

    return Measure(of, np.add)


def _moments(slab: LabelledSlab) -> Indices:
    return moments(slab.components.labels, slab.components.count, slab.start)


def _corners(slab: LabelledSlab) -> Indices:
    """Start and, turned in sign, stop, so that the lowest of both tells the box."""
    result = np.full((slab.components.count + 1, 6), np.iinfo(np.int64).max, dtype=np.int64)
    for number, box in enumerate(component_boxes(slab.components), start=1):
        result[number] = [*box.start, *(-stop for stop in box.stop)]
        result[number, [0, 3]] += (slab.start, -slab.start)
    return result


MOMENTS = Measure(_moments, np.add)
"""Those of reduce.py, of the voxels' indices in the volume."""

CORNERS = Measure(_corners, np.minimum)
"""The first voxel of its box and, with minus signs, the one behind its last, (count + 1, 6)."""


@dataclass(frozen=True)
class Form:
    """Centroids (n, 3) in voxels, and the principal standard lengths (n, 3) in mm, the longest first."""

    centroid: NDArray[np.float64]
    lengths_mm: NDArray[np.float64]

    @property
    def elongation(self) -> NDArray[np.float64]:
        """The longest by the middle length, (n,): about 1 for blobs and plates, large for what is straight and thin."""
        return self.lengths_mm[:, 0] / self.lengths_mm[:, 1]

    @property
    def flatness(self) -> NDArray[np.float64]:
        """The middle by the shortest length, (n,): about 1 for blobs and tubes, large for plates."""
        return self.lengths_mm[:, 1] / self.lengths_mm[:, 2]


def form(voxels: Indices, moments: Indices, spacing: Spacing) -> Form:
    """The form of components of voxels (n,), one or more, and MOMENTS (n, 9).

    A length is the standard deviation along a principal axis of the body that the voxels, each a box of the
    spacing, make up: a box of edge a has a / sqrt(12) along it.
    """
    count = voxels.astype(np.float64)
    near = np.rint(moments[:, :3] / count[:, None]).astype(np.int64)
    # About the voxel next to the centroid all is still integer, and small: only then is anything rounded.
    first = moments[:, :3] - near * voxels[:, None]
    off = first / count[:, None]
    spread = np.empty((len(voxels), 3, 3))
    for n, (a, b) in enumerate(_PAIRS):
        product = moments[:, 3 + n] - near[:, a] * first[:, b] - near[:, b] * moments[:, a]
        value = product / count - off[:, a] * off[:, b] + (a == b) / 12
        spread[:, a, b] = spread[:, b, a] = value * spacing[a] * spacing[b]
    return Form(near + off, np.sqrt(np.linalg.eigvalsh(spread)[:, ::-1]))
