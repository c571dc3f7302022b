"""Grow a mask from voxel to voxel, as long as neighbours are alike: grey values may drift along the way.

What joins are components of a graph, so that it hangs neither on an order nor on where a volume is cut.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.postprocess.blocks import BlockStep, MaskOf, Part, Region
from vol3d.postprocess.growth import Grow, Growth, check_growth
from vol3d.postprocess.scene import Locality, Mask, RegionScene, Scene
from vol3d.regions.blocks import SEEDS, VOXELS
from vol3d.regions.components import Connectivity
from vol3d.regions.library import library
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.source import ArrayStore


def grow_neighbours(
    mask: Mask,
    image: NDArray[Any],
    *,
    tolerance: float,
    connectivity: Connectivity = 26,
    allowed: Mask | None = None,
    max_growth: float = math.inf,
) -> Growth:
    """Add each voxel that differs by at most tolerance from a neighbour that is in the mask, until nothing changes.

    mask, image and allowed (None: everywhere) are (Z, Y, X); neighbours share a face (6), also an edge (18),
    also a corner (26). Grey values are compared in their own precision, but at least float32.

    Raises:
        ValueError: shapes differ, tolerance is negative, connectivity is not 6, 18 or 26, or max_growth < 1.
    """
    check_growth(mask, image, allowed, tolerance, max_growth)
    spacing, whole = Spacing(1.0, 1.0, 1.0), Box.whole(Shape3(*mask.shape))
    store = ArrayStore(mask[None].copy(), from_spacing(spacing))
    scene = RegionScene(Scene(spacing, ("mask",), image=image).stored(), 0, whole)
    free = np.ones_like(mask) if allowed is None else allowed
    refused = _grow(
        Region(store, scene, planes=whole.shape.z),
        lambda part: free[part.scene.box.slices],
        tolerance=tolerance,
        connectivity=connectivity,
        max_growth=max_growth,
    )
    return Growth(store.array[0], refused)


def _grow(
    region: Region,
    allowed: MaskOf,
    *,
    tolerance: float,
    connectivity: Connectivity,
    max_growth: float,
    reach: int = 0,
) -> int:
    """Grow a region's mask; gives how many grown components were refused."""
    alike = region.components(
        (SEEDS,),
        connectivity=connectivity,
        of=lambda part: allowed(part) | part.mask,
        grey=lambda part: part.scene.image,
        tolerance=tolerance,
        reach=reach,
    )
    seeded = alike.measured[0] > 0
    if max_growth == math.inf:
        region.add(alike, seeded)
        return 0
    # One piece of the mask may be several components of grey values: it is the piece that has leaked, or not.
    grown = region.components((VOXELS, SEEDS), connectivity=connectivity, of=alike.joining(seeded), reach=reach)
    voxels, before = grown.measured
    fine = voxels <= max_growth * before
    region.add(grown, fine)
    return int(np.count_nonzero(~fine[1:]))


@dataclass(frozen=True, kw_only=True)
class GrowNeighbours(Grow, BlockStep):
    """Add what differs by at most tolerance from a neighbour that is in the mask, until nothing changes."""

    name: ClassVar[str] = "grow_neighbours"
    locality: ClassVar[Locality] = "components"
    tensors: ClassVar[bool] = True

    tolerance: float  # normalised grey values
    connectivity: Connectivity = 26

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("tolerance", 0 <= self.tolerance < math.inf, "zero or more grey values")

    def run(self, region: Region) -> str:
        """Add what is joined to the mask; an empty mask stays empty."""

        def allowed(part: Part) -> Mask:
            free = self.allowed(part.mask, part.scene)
            everywhere: Mask = library(part.mask).ones_like(part.mask)
            return everywhere if free is None else free

        refused = _grow(
            region,
            allowed,
            tolerance=self.tolerance,
            connectivity=self.connectivity,
            max_growth=self.most,
            reach=self.reach(region.scene.spacing),
        )
        return self.told(refused)
