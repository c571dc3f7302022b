"""Grow a region from one voxel that somebody pointed at, looking no further than it reaches."""

import math
from dataclasses import dataclass

import numpy as np

from vol3d.geometry.affine import from_spacing, spacing_of
from vol3d.geometry.box import Box
from vol3d.postprocess.blocks import Part, Region
from vol3d.postprocess.scene import Mask, RegionScene, StoredScene
from vol3d.regions.blocks import SEEDS
from vol3d.regions.components import Connectivity
from vol3d.regions.distance import ROUNDING, reach_voxels
from vol3d.shapes import Index3, Shape3
from vol3d.volume.source import ArrayStore, VolumeSource

FIRST_REACH = 24  # voxels around the start that are looked at before any others
_ONE = Shape3(1, 1, 1)


@dataclass(frozen=True, eq=False)  # an array has no hash
class Clicked:
    """What grew from a voxel: mask is (Z, Y, X) bool, the voxels of box; outside it there is nothing.

    low and high are the grey values it may have, inclusive. stopped: it had more than max_volume_mm3, and
    mask is what had been seen of it by then.
    """

    mask: Mask
    box: Box
    low: float
    high: float
    stopped: bool

    @property
    def voxels(self) -> int:
        """How many voxels it has."""
        return int(np.count_nonzero(self.mask))


def grow_from(
    image: VolumeSource,
    start: Index3,
    *,
    tolerance: float,
    connectivity: Connectivity = 26,
    max_distance_mm: float = math.inf,
    max_volume_mm3: float = math.inf,
) -> Clicked:
    """The voxels joined to start by grey values that differ from its own by at most tolerance.

    image has one channel. What is read is a box around start, which doubles on the sides that the region
    touches: a small region of a large volume takes little. Voxels further than max_distance_mm from start
    (inclusive, in a straight line) do not join; beyond max_volume_mm3 the region has leaked, and growth stops.

    Raises:
        ValueError: several channels, start lies outside or has no number, or an argument is out of its range.
    """
    whole, spacing = Box.whole(image.shape), spacing_of(image.affine)
    at = Box.at(Index3(*start), _ONE)
    _check(image, at, tolerance, connectivity, max_distance_mm, max_volume_mm3)
    value = float(image.read(at)[0, 0, 0, 0])
    if not math.isfinite(value):
        raise ValueError(f"the voxel {tuple(start)} holds {value}, which nothing differs from by a number")
    limit = whole
    if max_distance_mm < math.inf:
        limit = at.grown(reach_voxels(max_distance_mm, spacing)).intersection(whole)
    most = max_volume_mm3 / spacing.voxel_mm3 + ROUNDING
    low, high = value - tolerance, value + tolerance

    def within(part: Part) -> Mask:
        grey: Mask = (part.scene.image >= low) & (part.scene.image <= high)
        if max_distance_mm < math.inf:
            box = part.scene.box
            places = np.ogrid[box.slices]
            away = sum(((p - s) * step) ** 2 for p, s, step in zip(places, start, spacing, strict=True))
            grey &= away <= (max_distance_mm + ROUNDING * min(spacing)) ** 2
        return grey | part.mask

    scene = StoredScene(spacing, ("clicked",), image=image)
    box = at.grown((FIRST_REACH,) * 3).intersection(limit)
    while True:
        store = ArrayStore(np.zeros((1, *box.shape), dtype=np.bool_), from_spacing(spacing))
        store.write(at.seen_from(box.start), np.ones((1, *_ONE), dtype=np.bool_))
        region = Region(store, RegionScene(scene, 0, box))
        found = region.components((SEEDS,), connectivity=connectivity, of=within)
        region.add(found, found.measured[0] > 0)
        mask: Mask = store.array[0]
        further = _further(box, mask).intersection(limit)
        stopped = np.count_nonzero(mask) > most
        if stopped or further == box:
            return Clicked(mask, box, low, high, bool(stopped))
        box = further


def _further(box: Box, mask: Mask) -> Box:
    """The box, longer by its own length on the sides that the mask touches."""
    low, high = ([bool(mask.take(end, axis).any()) for axis in range(3)] for end in (0, -1))
    start = (a - n * touched for a, n, touched in zip(box.start, box.shape, low, strict=True))
    stop = (b + n * touched for b, n, touched in zip(box.stop, box.shape, high, strict=True))
    return Box(Index3(*start), Index3(*stop))


def _check(
    image: VolumeSource, at: Box, tolerance: float, connectivity: int, max_distance_mm: float, max_volume_mm3: float
) -> None:
    if image.channels != 1:
        raise ValueError(f"expected an image of one channel, got {image.channels}")
    if not Box.whole(image.shape).contains(at):
        raise ValueError(f"expected a voxel of a volume of shape (z, y, x) {tuple(image.shape)}, got {tuple(at.start)}")
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"the tolerance must be zero or more grey values, got {tolerance}")
    if connectivity not in (6, 18, 26):
        raise ValueError(f"connectivity must be 6, 18 or 26, got {connectivity}")
    if not max_distance_mm >= 0:
        raise ValueError(f"max_distance_mm must be zero or more, got {max_distance_mm}")
    if not max_volume_mm3 > 0:
        raise ValueError(f"max_volume_mm3 must be more than zero, got {max_volume_mm3}")
