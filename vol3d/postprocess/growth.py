"""Grow a mask along grey values, from slice to slice, and what all growth shares.

Growth only adds. Where it may add is a mask of the caller's (allowed), and a component that grows
more than max_growth times its voxels has leaked: it is given back ungrown, whole. The refused
component is the grown one, so pieces that a leak joins are refused together.
"""

import math
from dataclasses import dataclass
from functools import reduce
from itertools import product
from operator import and_
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch.nn import functional

from vol3d.geometry.box import Box
from vol3d.postprocess.scene import Applied, Locality, Mask, Needs, RegionScene, Step
from vol3d.regions.components import component_sizes, keep, label
from vol3d.regions.distance import dilate_mm, reach_voxels
from vol3d.regions.library import library
from vol3d.regions.reduce import counts
from vol3d.shapes import Shape3, Spacing

Along = Literal["z", "zyx"]
"""Whence a voxel may be joined: from the slices below and above, or from its own as well."""

VOXELS_AT_ONCE = 1 << 18  # what a pass over a front holds in memory; its arrays stay in the cache
TENSOR_VOXELS_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Growth:
    """The grown mask (Z, Y, X), and how many grown components were refused because they leaked."""

    mask: Mask
    refused: int


def grow_slices(
    mask: Mask,
    image: NDArray[Any],
    *,
    tolerance: float,
    min_neighbours: int = 2,
    along: Along = "z",
    allowed: Mask | None = None,
    max_growth: float = math.inf,
) -> Growth:
    """Carry a mask from slice to slice, up and down along z, until nothing changes.

    A voxel joins when at least min_neighbours of the nine voxels (y±1, x±1) in the slice below, or
    of the nine in the slice above, are in the mask with a grey value that differs from its own by at
    most tolerance; along "zyx" also when so many of the eight around it in its own slice are. mask,
    image and allowed (None: everywhere) are (Z, Y, X); grey values are compared as float64, so unsigned
    ones do not wrap. Source: SenNet 2023, 3D flood fill by slice sweeps.

    What joins only ever helps others to join, so the order of the sweeps does not matter: instead
    of sweeping, the front alone moves, and every pair of voxels is compared once.

    Raises:
        ValueError: shapes differ, tolerance is negative, min_neighbours is not 1 to 9, or max_growth < 1.
    """
    check_growth(mask, image, allowed, tolerance, max_growth)
    if not 1 <= min_neighbours <= 9:
        raise ValueError(f"min_neighbours must be 1 to 9, got {min_neighbours}")
    free = ~mask if allowed is None else allowed & ~mask
    sources, refused = mask, 0
    while True:
        # More than this many in all, and some component must have grown more than max_growth times.
        most = (max_growth - 1) * int(library(mask).count_nonzero(sources)) if max_growth < math.inf else math.inf
        grown = _front(sources, image, free, tolerance, min_neighbours, along, most)
        leaks, count = _leaks(grown, sources, max_growth)
        if not count:
            return Growth(grown | mask, refused)
        sources, refused = sources & ~leaks, refused + count


def _front(
    sources: Mask, image: NDArray[Any], free: Mask, tolerance: float, min_neighbours: int, along: Along, most: float
) -> Mask:
    """The sources and the free voxels that join them; stops after the front that makes it more than most."""
    xp = library(sources)
    box = _around(free)
    if box is None or not sources.any():
        return sources
    # One closed voxel all around, so that no neighbour of a source is ever out of bounds.
    grey, still_free = _framed(image[box]), _framed(free[box])
    row = still_free.shape[2]
    plane = still_free.shape[1] * row
    shifts = [dy * row + dx for dy, dx in product((-1, 0, 1), repeat=2)]
    flat_grey, flat_free = grey.reshape(-1), still_free.reshape(-1)
    away = (plane, -plane) if along == "z" else (plane, -plane, 0)
    # From the slice below, from that above, from its own.
    votes = [xp.zeros_like(flat_free, dtype=xp.uint8) for _ in away]
    front, added, at_once = _places(_framed(sources[box])), 0, VOXELS_AT_ONCE if xp is np else TENSOR_VOXELS_AT_ONCE
    while len(front) and added <= most:
        joined = []
        for start in range(0, len(front), at_once):
            part = front[start : start + at_once]
            value = _wide(flat_grey[part])
            for (ballot, step), shift in product(zip(votes, away, strict=True), shifts):
                place = part + (step + shift)
                here = flat_free[place]
                place = place[here]
                place = place[abs(_wide(flat_grey[place]) - value[here]) <= tolerance]
                ballot[place] += 1  # no place twice: a front's voxels differ, and so do their neighbours at one shift
                joined.append(place[ballot[place] == min_neighbours])
        front = xp.unique(xp.concatenate(joined))
        flat_free[front] = False
        added += len(front)
    result: Mask = sources | False  # a copy
    result[box] |= free[box] & ~still_free[1:-1, 1:-1, 1:-1]
    return result


def _around(free: Mask) -> tuple[slice, ...] | None:
    """Where there is room to grow, and one voxel more; all of a tensor, which saves a device to look."""
    if not isinstance(free, np.ndarray):
        return (slice(None),) * 3
    room = Box.around(free)
    return None if room is None else room.grown((1, 1, 1)).intersection(Box.whole(Shape3(*free.shape))).slices


def _framed(voxels: Any) -> Any:
    """With a voxel of zeros all around."""
    return np.pad(voxels, 1) if isinstance(voxels, np.ndarray) else functional.pad(voxels, (1,) * 6)


def _places(mask: Any) -> Any:
    """The places of true voxels in the flat mask."""
    return np.flatnonzero(mask) if isinstance(mask, np.ndarray) else mask.reshape(-1).nonzero()[:, 0]


def _wide(values: Any) -> Any:
    """In float64."""
    return values.astype(np.float64) if isinstance(values, np.ndarray) else values.double()


def _leaks(grown: Mask, sources: Mask, max_growth: float) -> tuple[Mask, int]:
    """The grown components that have more than max_growth times the voxels they had as sources."""
    if max_growth == math.inf:
        return grown & False, 0
    components = label(grown)
    starts = counts(components.labels, components.count, where=sources)
    leaking = component_sizes(components) > max_growth * starts
    return keep(components, leaking), int(np.count_nonzero(leaking))


def check_growth(mask: Mask, image: NDArray[Any], allowed: Mask | None, tolerance: float, max_growth: float) -> None:
    """Refuse what no growth can begin with.

    Raises:
        ValueError: shapes differ, tolerance is negative, or max_growth < 1.
    """
    for what, array in (("an image", image), ("an allowed mask", allowed)):
        if array is not None and array.shape != mask.shape:
            raise ValueError(f"expected {what} of the mask's shape {mask.shape}, got {array.shape}")
    if tolerance < 0:
        raise ValueError(f"a range of grey values must not be empty, got one of width {tolerance}")
    if not max_growth >= 1:
        raise ValueError(f"max_growth must be 1 or more, got {max_growth}")


@dataclass(frozen=True, kw_only=True)
class Grow(Step):
    """What the forms of growth share: the bounds."""

    min_probability: float | None = None  # no voxel below it is added
    within: Literal["volume", "organ"] = "volume"
    max_distance_mm: float | None = None  # from the mask as the step finds it
    max_growth: float | None = 4.0  # voxels after / before of a component; null takes any leak

    def __post_init__(self) -> None:
        p, mm, times = self.min_probability, self.max_distance_mm, self.max_growth
        self.require("min_probability", p is None or 0 <= p <= 1, "in [0, 1]")
        self.require("max_distance_mm", mm is None or 0 <= mm < math.inf, "zero or more millimetres")
        self.require("max_growth", times is None or 1 <= times < math.inf, "1 or more")

    def needs(self) -> Needs:
        """The grey values, and what bounds the growth."""
        return Needs(image=True, probability=self.min_probability is not None, organ=self.within == "organ")

    def allowed(self, mask: Mask, scene: RegionScene) -> Mask | None:
        """Where voxels may be added, (Z, Y, X); None for everywhere."""
        bounds = []
        if self.min_probability is not None:
            bounds.append(scene.probability >= self.min_probability)
        if self.within == "organ":
            bounds.append(scene.organ)
        if self.max_distance_mm is not None:
            bounds.append(dilate_mm(mask, self.max_distance_mm, scene.spacing))
        return reduce(and_, bounds) if bounds else None

    def reach(self, spacing: Spacing) -> int:
        """How many planes away a voxel can matter to what is allowed."""
        return 0 if self.max_distance_mm is None else reach_voxels(self.max_distance_mm, spacing)[0]

    @property
    def most(self) -> float:
        """How many times its voxels a component may have in the end."""
        return math.inf if self.max_growth is None else self.max_growth

    def told(self, refused: int) -> str:
        """The report's words about components that were refused; none without one."""
        return f"{refused} components refused: they grew more than {self.max_growth} times" if refused else ""


@dataclass(frozen=True, kw_only=True)
class GrowSlices(Grow):
    """Carry the mask from slice to slice where grey values go on, along "zyx" inside the slices as well."""

    name: ClassVar[str] = "grow_slices"
    locality: ClassVar[Locality] = "whole"
    tensors: ClassVar[bool] = True

    tolerance: float  # normalised grey values
    min_neighbours: int = 2
    along: Along = "z"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("tolerance", 0 <= self.tolerance < math.inf, "zero or more grey values")
        self.require("min_neighbours", 1 <= self.min_neighbours <= 9, "1 to 9")

    def apply(self, mask: Mask, scene: RegionScene) -> Applied:
        """The grown mask."""
        growth = grow_slices(
            mask,
            scene.image,
            tolerance=self.tolerance,
            min_neighbours=self.min_neighbours,
            along=self.along,
            allowed=self.allowed(mask, scene),
            max_growth=self.most,
        )
        return Applied(growth.mask, self.told(growth.refused))
