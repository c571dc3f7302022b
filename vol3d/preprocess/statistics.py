"""Numbers that describe a whole volume, gathered slab by slab so that memory does not grow with depth."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.geometry.box import Box
from vol3d.geometry.grid import planes_in, slabs
from vol3d.volume.source import VolumeSource

SLAB_VOXELS = 1 << 24
MAX_SAMPLES = 1 << 22


@dataclass(frozen=True)
class Moments:
    """Mean and population standard deviation of one channel."""

    mean: float
    std: float


@dataclass(frozen=True)
class Extremes:
    """Smallest and largest value, (channels, planes along the axis asked for, or 1)."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]


def boxes_of(source: VolumeSource) -> list[Box]:
    """A source in slabs of some 2^24 voxels, in order."""
    return list(slabs(source.shape, planes_in(source.shape, SLAB_VOXELS)))


def moments(source: VolumeSource, inside: NDArray[np.bool_] | None = None) -> tuple[Moments, ...]:
    """Mean and standard deviation of every voxel, or of those inside a mask (Z, Y, X), per channel.

    Accumulated in float64; both are 0 where the mask is empty.
    """
    count = source.shape.voxels if inside is None else max(1, int(inside.sum()))
    total, squares = np.zeros(source.channels), np.zeros(source.channels)
    for box in boxes_of(source):
        where = True if inside is None else inside[box.slices]
        total += source.read(box).sum(axis=(1, 2, 3), dtype=np.float64, where=where)
    mean = total / count
    for box in boxes_of(source):
        # A second pass around the mean: the one-pass form cancels when the mean is large.
        where = True if inside is None else inside[box.slices]
        centred = source.read(box).astype(np.float64) - mean[:, None, None, None]
        squares += np.square(centred).sum(axis=(1, 2, 3), where=where)
    return tuple(Moments(float(m), float(np.sqrt(s / count))) for m, s in zip(mean, squares, strict=True))


def extremes(source: VolumeSource, axis: int | None = None, inside: NDArray[np.bool_] | None = None) -> Extremes:
    """The range of each channel: of the volume, or of each plane across an axis (0, 1, 2 for z, y, x).

    Of the voxels inside a mask (Z, Y, X) alone where there is one: from inf to -inf where it is empty.
    """
    planes = 1 if axis is None else source.shape[axis]
    low, high = np.full((source.channels, planes), np.inf), np.full((source.channels, planes), -np.inf)
    within = tuple(a + 1 for a in range(3) if a != axis)
    for box in boxes_of(source):
        part = slice(None) if axis is None else box.slices[axis]
        voxels = source.read(box)
        if inside is None:
            smallest, largest = voxels.min(axis=within), voxels.max(axis=within)
        else:
            voxels, where = voxels.astype(np.float64), inside[box.slices]
            smallest = voxels.min(axis=within, where=where, initial=np.inf)
            largest = voxels.max(axis=within, where=where, initial=-np.inf)
        low[:, part] = np.minimum(low[:, part], smallest.reshape(source.channels, -1))
        high[:, part] = np.maximum(high[:, part], largest.reshape(source.channels, -1))
    return Extremes(low, high)


def quantiles(
    source: VolumeSource, fractions: Sequence[float], inside: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """The values below which the given fractions of each channel lie: (channels, len(fractions)).

    Of every voxel, or of those inside a mask (Z, Y, X); 0 where it is empty. Nearest-rank definition (NumPy's
    ``inverted_cdf``). Exact for 8- and 16-bit integers, by histogram; other types are sampled evenly in array
    order down to at most 2^22 voxels.
    """
    count = source.shape.voxels if inside is None else int(inside.sum())
    if not count:
        return np.zeros((source.channels, len(fractions)))
    if source.dtype.kind in "ui" and source.dtype.itemsize <= 2:
        return _histogram_quantiles(source, fractions, inside)
    step = max(1, count // MAX_SAMPLES)
    samples: list[list[NDArray[np.float32]]] = [[] for _ in range(source.channels)]
    first = 0
    for box in boxes_of(source):
        voxels = _picked(source, box, inside)
        for channel, values in enumerate(voxels):
            samples[channel].append(values[(-first) % step :: step].astype(np.float32))
        first += voxels.shape[1]
    return np.stack(
        [np.quantile(np.concatenate(s).astype(np.float64), fractions, method="inverted_cdf") for s in samples]
    )


def _histogram_quantiles(
    source: VolumeSource, fractions: Sequence[float], inside: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    info = np.iinfo(source.dtype)
    counts = np.zeros((source.channels, int(info.max) - int(info.min) + 1), dtype=np.int64)
    for box in boxes_of(source):
        for channel, values in enumerate(_picked(source, box, inside)):
            counts[channel] += np.bincount(values.astype(np.int64) - info.min, minlength=counts.shape[1])
    below = counts.cumsum(axis=1)
    ranks = np.maximum(1, np.ceil(np.asarray(fractions) * below[0, -1]))
    return np.stack([np.searchsorted(row, ranks) + int(info.min) for row in below]).astype(np.float64)


def _picked(source: VolumeSource, box: Box, inside: NDArray[np.bool_] | None) -> NDArray[Any]:
    """A box's voxels, or those inside the mask, in a row: (channels, n)."""
    voxels = source.read(box)
    return voxels.reshape(source.channels, -1) if inside is None else voxels[:, inside[box.slices]]
