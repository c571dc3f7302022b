"""The part of a volume that holds anything: scans are often padded with zeros, which say nothing."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.geometry.affine import Affine, moved
from vol3d.geometry.box import Box
from vol3d.preprocess.statistics import boxes_of, quantiles
from vol3d.regions.components import component_sizes, keep, label
from vol3d.shapes import Index3, Shape3
from vol3d.volume.source import View, VolumeSource

OTSU_BINS = 256


def nonzero_box(source: VolumeSource) -> Box:
    """The smallest box around the voxels that are not zero in every channel; the whole where all are."""
    filled = [np.zeros(n, dtype=np.bool_) for n in source.shape]
    for box in boxes_of(source):
        plane = (source.read(box) != 0).any(axis=0)
        for axis, inside in enumerate(filled):
            others = tuple(a for a in range(3) if a != axis)
            inside[box.start[axis] : box.stop[axis]] |= plane.any(axis=others)
    if not filled[0].any():
        return Box.whole(source.shape)
    ends = [np.flatnonzero(inside)[[0, -1]] for inside in filled]
    return Box(Index3(*(int(a) for a, _ in ends)), Index3(*(int(b) + 1 for _, b in ends)))


def nonzero_mask(source: VolumeSource) -> NDArray[np.bool_]:
    """The voxels (Z, Y, X) that are not zero in every channel, and those that they enclose."""
    mask = np.zeros(source.shape, dtype=np.bool_)
    for box in boxes_of(source):
        mask[box.slices] = (source.read(box) != 0).any(axis=0)
    return _with_holes(mask)


def body_mask(source: VolumeSource) -> NDArray[np.bool_]:
    """The body in a scan, (Z, Y, X): the largest piece of what is bright in any channel, and what it encloses.

    Bright is above Otsu's threshold (1979) between the channel's 0.5th and 99.5th percentile. So the lungs of a CT
    are inside, its table is not. Empty where no channel has two grey values.
    """
    bounds = [
        _otsu(source, channel, low, high) for channel, (low, high) in enumerate(quantiles(source, (0.005, 0.995)))
    ]
    mask = np.zeros(source.shape, dtype=np.bool_)
    for box in boxes_of(source):
        mask[box.slices] = (source.read(box) > np.array(bounds)[:, None, None, None]).any(axis=0)
    pieces = label(mask, connectivity=6)
    if not pieces.count:
        return mask
    sizes = component_sizes(pieces)
    return _with_holes(keep(pieces, np.arange(pieces.count + 1) == sizes.argmax()))


def _otsu(source: VolumeSource, channel: int, low: float, high: float) -> float:
    """The grey value that parts a channel into two classes as far apart as can be; inf if there is one value."""
    if not low < high:
        return np.inf
    edges = np.linspace(low, high, OTSU_BINS + 1)
    counts = np.zeros(OTSU_BINS)
    for box in boxes_of(source):
        counts += np.histogram(source.read(box)[channel].clip(low, high), edges)[0]
    centres, total = (edges[1:] + edges[:-1]) / 2, counts.sum()
    below, sums = counts.cumsum(), (counts * centres).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (sums[-1] * below / total - sums) ** 2 / (below * (total - below))
    return float(edges[1 + np.nan_to_num(between, nan=0.0, posinf=0.0).argmax()])


def _with_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask and all that it encloses."""
    gaps = label(~mask, connectivity=6)
    enclosed = np.ones(gaps.count + 1, dtype=np.bool_)
    for axis in range(3):
        for end in (0, -1):
            enclosed[np.unique(gaps.labels.take(end, axis=axis))] = False
    filled: NDArray[np.bool_] = mask | keep(gaps, enclosed)
    return filled


@dataclass(frozen=True)
class CroppedView(View):
    """A source seen through a box that lies inside it."""

    box: Box

    @property
    def shape(self) -> Shape3:
        """The box's."""
        return self.box.shape

    @property
    def affine(self) -> Affine:
        """The source's, moved to the box's first voxel."""
        return moved(self.source.affine, self.box.start)

    def read(self, box: Box) -> NDArray[Any]:
        """The box's voxels; it counts from the crop's first voxel."""
        return self.source.read(box.shifted(self.box.start))
