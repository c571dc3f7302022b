"""Scores of label volumes that pass by slab by slab, and need not fit in memory."""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from vol3d.geometry.box import Box
from vol3d.geometry.grid import slabs
from vol3d.metrics.counts import COUNTED, OF_SURFACE, Counts
from vol3d.metrics.overlap import Overlap, overlap
from vol3d.metrics.report import Scores, region_mask
from vol3d.metrics.surface import SurfaceOverlap
from vol3d.regions.cubes import PairedCodes, slab_depth
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.volume.labels import LabelSchema

Labels = NDArray[np.uint8]


class SlabScores:
    """The COUNTED metrics of two label volumes, the same numbers as score_case's; only their last planes are kept.

    They are volumes, not pictures: each axis has more than one voxel. metrics names what to compute.
    """

    def __init__(self, schema: LabelSchema, spacing: Spacing, *, metrics: Collection[str] = tuple(COUNTED)) -> None:
        self._schema, self._spacing = schema, spacing
        self._names = [name for name in COUNTED if name in metrics]
        self._overlaps = [Overlap(0, 0, 0) for _ in schema.regions]
        self._codes = [PairedCodes() for _ in schema.regions if OF_SURFACE.intersection(metrics)]
        self._planes = 0
        self._corners: list[Index3] = []

    def add(self, prediction: Labels, reference: Labels) -> None:
        """The next planes of both volumes, (planes, Y, X) each, along z."""
        shape = Shape3(*prediction.shape)
        for box in slabs(shape, slab_depth(shape)):
            self._add(prediction[box.slices], reference[box.slices])

    def _add(self, prediction: Labels, reference: Labels) -> None:
        start, self._planes = Index3(self._planes, 0, 0), self._planes + len(prediction)
        seen = None if self._schema.ignore is None else reference != self._schema.ignore
        for place, region in enumerate(self._schema.regions):
            one, other = (region_mask(labels, region.values, seen) for labels in (prediction, reference))
            if (box := Box.around(one | other)) is not None:
                box = box.shifted(start)
                self._corners += [box.start, box.stop]
                self._overlaps[place] += overlap(one, other)
            if self._codes:
                self._codes[place].add(one, other)

    @property
    def box(self) -> Box | None:
        """What holds all regions of both volumes so far; None where there is nothing."""
        corners = np.array(self._corners)
        return (
            Box(Index3(*corners.min(axis=0).tolist()), Index3(*corners.max(axis=0).tolist())) if len(corners) else None
        )

    def finish(self) -> list[Scores]:
        """The scores of each region, of volumes that end here."""
        areas = [SurfaceOverlap.of_codes(one.finish(), self._spacing) for one in self._codes]
        rows = []
        for place, (region, found) in enumerate(zip(self._schema.regions, self._overlaps, strict=True)):
            counts = Counts.of(found, self._spacing, areas[place] if areas else None)
            rows.append(Scores(region.name, {name: COUNTED[name](counts) for name in self._names}, counts))
        return rows
