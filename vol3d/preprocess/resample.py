"""To another grid and back, separable, slab by slab.

Voxel centres of a grid resized from n to m voxels lie at (i + 0.5) n / m - 0.5 of the old one, so both
grids cover the same space. Each output voxel is a weighted sum over a few taps per axis, added in a
fixed order: any box of the result has the same bytes as the same box of the whole.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vol3d.geometry.affine import Affine, spacing_of
from vol3d.geometry.box import Box
from vol3d.preprocess.tensors import read_tensor
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.volume.source import View, VolumeSource

Kernel = Literal["nearest", "linear", "cubic"]
RADIUS = {"nearest": 0.5, "linear": 1.0, "cubic": 2.0}


def resized_shape(shape: Shape3, spacing: Spacing, target: Spacing) -> Shape3:
    """The shape that covers the same space at another spacing, at least one voxel per axis."""
    return Shape3(*(max(1, round(n * a / b)) for n, a, b in zip(shape, spacing, target, strict=True)))


@dataclass(frozen=True)
class Taps:
    """For each output voxel of an axis the input voxels it is made of: index and weight, (n_out, taps)."""

    index: NDArray[np.int64]
    weight: NDArray[np.float32]


def axis_taps(size: int, target: int, kernel: Kernel) -> Taps:
    """The taps that resize an axis from size to target voxels; indices beyond the ends repeat the edge.

    When the axis shrinks the kernel widens by the same factor, so that nothing between the taps is
    lost (anti-aliasing). nearest never widens: it serves labels.
    """
    ratio = size / target
    centre = (np.arange(target) + 0.5) * ratio - 0.5
    if kernel == "nearest" or size == target:
        nearest = np.clip(np.floor(centre + 0.5).astype(np.int64), 0, size - 1)
        return Taps(nearest[:, None], np.ones((target, 1), dtype=np.float32))
    widen = max(1.0, ratio)
    count = 2 * math.ceil(RADIUS[kernel] * widen)
    index = np.floor(centre).astype(np.int64)[:, None] + np.arange(1 - count // 2, count // 2 + 1)
    weight = _kernel((index - centre[:, None]) / widen, kernel)
    weight /= weight.sum(axis=1, keepdims=True)
    return Taps(np.clip(index, 0, size - 1), weight.astype(np.float32))


def _kernel(distance: NDArray[np.float64], kernel: Kernel) -> NDArray[np.float64]:
    d = np.abs(distance)
    if kernel == "linear":
        return np.maximum(0.0, 1.0 - d)
    # Cubic convolution with a = -0.5 (Keys 1981): exact for quadratics, four taps, no global prefilter.
    near = (1.5 * d - 2.5) * d * d + 1.0
    far = ((-0.5 * d + 2.5) * d - 4.0) * d + 2.0
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def resize_axis(voxels: Tensor, axis: int, taps: Taps, start: int, stop: int, first: int = 0) -> Tensor:
    """Output voxels start to stop of one axis, from an input whose first voxel along it is number first."""
    index = torch.from_numpy(taps.index[start:stop] - first).to(voxels.device)
    weight = torch.from_numpy(taps.weight[start:stop]).to(voxels.device)
    if taps.index.shape[1] == 1:
        return voxels.index_select(axis, index[:, 0])
    form = [1] * voxels.ndim
    form[axis] = stop - start
    total = voxels.index_select(axis, index[:, 0]) * weight[:, 0].view(form)
    for tap in range(1, index.shape[1]):
        total += voxels.index_select(axis, index[:, tap]) * weight[:, tap].view(form)
    return total


@dataclass(frozen=True)
class ResampledView(View):
    """A source resized to another shape. Cubic for images; nearest, which keeps the dtype, for labels."""

    target: Shape3
    kernel: Kernel

    @property
    def shape(self) -> Shape3:
        """The new shape."""
        return self.target

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32, or the source's for nearest."""
        return self.source.dtype if self.kernel == "nearest" else np.dtype(np.float32)

    @property
    def affine(self) -> Affine:
        """The affine of the new grid, which covers the same space."""
        ratio = np.array([n / m for n, m in zip(self.source.shape, self.shape, strict=True)])
        affine = self.source.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ (0.5 * ratio - 0.5)
        affine[:3, :3] *= ratio
        return affine

    def read(self, box: Box) -> NDArray[Any]:
        """The box's voxels on the new grid."""
        if self.kernel != "nearest":
            return self.tensor(box, torch.device("cpu")).numpy()
        return self._resized(box, lambda inner: torch.from_numpy(np.ascontiguousarray(self.source.read(inner)))).numpy()

    def tensor(self, box: Box, device: torch.device) -> Tensor:
        """The same on a device, (C, Z, Y, X) float32."""
        return self._resized(box, lambda inner: read_tensor(self.source, inner, device))

    def _resized(self, box: Box, read: Callable[[Box], Tensor]) -> Tensor:
        taps = [axis_taps(n, m, self.kernel) for n, m in zip(self.source.shape, self.shape, strict=True)]
        inner = needed_box(box, taps)
        voxels = read(inner)
        for axis in range(3):
            voxels = resize_axis(voxels, axis + 1, taps[axis], box.start[axis], box.stop[axis], first=inner.start[axis])
        return voxels


def needed_box(box: Box, taps: Sequence[Taps]) -> Box:
    """The voxels of the old grid that a box of the new one is made of."""
    needed = [t.index[a:b] for t, a, b in zip(taps, box.start, box.stop, strict=True)]
    return Box(Index3(*(int(i.min()) for i in needed)), Index3(*(int(i.max()) + 1 for i in needed)))


def at_spacing(source: VolumeSource, target: Spacing, kernel: Kernel) -> VolumeSource:
    """The source at another spacing, or itself where that changes no length by half a voxel."""
    shape = resized_shape(source.shape, spacing_of(source.affine), target)
    return source if shape == source.shape else ResampledView(source, shape, kernel)


Slab = tuple[int, Tensor]


@dataclass(frozen=True)
class BackTo:
    """The way of slabs from a grid of this shape to one of the target's, linear, for a box of the target.

    needed is the part of the grid that the box is made of.
    """

    shape: Shape3
    target: Shape3
    box: Box

    @cached_property
    def taps(self) -> tuple[Taps, Taps, Taps]:
        """Those of z, y, x."""
        z, y, x = (axis_taps(n, m, "linear") for n, m in zip(self.shape, self.target, strict=True))
        return z, y, x

    @property
    def needed(self) -> Box:
        """What has to be known of the grid."""
        return self.box if self.shape == self.target else needed_box(self.box, self.taps)

    def resize(self, slabs: Iterable[Slab], *, most: int) -> Iterator[Slab]:
        """Slabs (first plane, (C, z, y, x) of needed) in order, as slabs of the box of at most `most` planes each.

        Keeps only the planes that the next ones need. The result does not depend on how the input was cut.
        """
        index = self.taps[0].index
        last_needed = index.max(axis=1)
        kept, first, done = torch.empty(0), 0, self.box.start.z
        for start, slab in slabs:
            kept, first = (torch.cat([kept, slab], dim=1), first) if kept.numel() else (slab, start)
            known = int(np.searchsorted(last_needed, start + slab.shape[1], side="left"))
            while done < min(known, self.box.stop.z):
                stop = min(done + most, known, self.box.stop.z)
                yield done, self._planes(kept, first, done, stop)
                done = stop
            if done < self.box.stop.z:
                drop = max(0, int(index[done:].min()) - first)
                kept, first = kept[:, drop:], first + drop

    def _planes(self, kept: Tensor, first: int, start: int, stop: int) -> Tensor:
        if self.shape == self.target:
            return kept[:, start - first : stop - first]
        z, needed = self.taps[0].index[start:stop], self.needed
        planes = kept[:, int(z.min()) - first : int(z.max()) + 1 - first]
        for axis, begin in ((1, needed.start.y), (2, needed.start.x)):
            box = self.box.start[axis], self.box.stop[axis]
            planes = resize_axis(planes, axis + 1, self.taps[axis], *box, first=begin)
        return resize_axis(planes, 1, self.taps[0], start, stop, first=int(z.min()))
