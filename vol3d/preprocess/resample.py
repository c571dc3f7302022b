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

Kernel = Literal["nearest", "linear", "cubic", "lerp", "spline"]
"""linear and cubic widen where an axis shrinks; lerp and spline, of order 1 and 3, go through the voxels themselves."""

Kernels = tuple[Kernel, Kernel, Kernel]
"""One along each axis."""

RADIUS = {"nearest": 0.5, "linear": 1.0, "cubic": 2.0, "lerp": 1.0, "spline": 12.0}
WIDENING = ("linear", "cubic")
POLE = math.sqrt(3) - 2  # of the filter that makes a cubic B-spline go through the voxels
ANISOTROPIC = 3.0


def resized_shape(shape: Shape3, spacing: Spacing, target: Spacing) -> Shape3:
    """The shape that covers the same space at another spacing, at least one voxel per axis."""
    return Shape3(*(max(1, round(a / b * n)) for n, a, b in zip(shape, spacing, target, strict=True)))


def kernels_between(
    spacing: Spacing, target: Spacing, kernel: Kernel, *, coarse: Literal["same", "nearest"]
) -> Kernels:
    """The kernel along each axis on the way from one spacing to another.

    coarse nearest takes nearest neighbours along an axis that is more than 3 times as coarse as the
    finest, at spacing or, where that is not so anisotropic, at target (nnU-Net's rule: what lies
    between slices so far apart is not known). Two axes that are equally coarse are no such axis.
    """
    anisotropic = [one for one in (spacing, target) if max(one) > ANISOTROPIC * min(one)]
    if coarse == "same" or not anisotropic:
        return kernel, kernel, kernel
    coarsest = max(anisotropic[0])
    z, y, x = ("nearest" if step == coarsest else kernel for step in anisotropic[0])
    return (z, y, x) if (z, y, x).count("nearest") == 1 else (kernel, kernel, kernel)


@dataclass(frozen=True)
class Taps:
    """For each output voxel of an axis the input voxels it is made of: index and weight, (n_out, taps)."""

    index: NDArray[np.int64]
    weight: NDArray[np.float32]


def axis_taps(size: int, target: int, kernel: Kernel) -> Taps:
    """The taps that resize an axis from size to target voxels; indices beyond the ends repeat the edge.

    When the axis shrinks linear and cubic widen by the same factor, so that nothing between the taps
    is lost (anti-aliasing). nearest serves labels; lerp and spline are SciPy's zoom of order 1 and 3.
    """
    ratio = size / target
    centre = (np.arange(target) + 0.5) * ratio - 0.5
    if kernel == "nearest" or size == target:
        nearest = np.clip(np.floor(centre + 0.5).astype(np.int64), 0, size - 1)
        return Taps(nearest[:, None], np.ones((target, 1), dtype=np.float32))
    widen = max(1.0, ratio) if kernel in WIDENING else 1.0
    count = 2 * math.ceil(RADIUS[kernel] * widen)
    index = np.floor(centre).astype(np.int64)[:, None] + np.arange(1 - count // 2, count // 2 + 1)
    weight = _kernel((index - centre[:, None]) / widen, kernel)
    weight /= weight.sum(axis=1, keepdims=True)
    return Taps(np.clip(index, 0, size - 1), weight.astype(np.float32))


def _kernel(distance: NDArray[np.float64], kernel: Kernel) -> NDArray[np.float64]:
    if kernel == "spline":
        return _cardinal_spline(distance)
    d = np.abs(distance)
    if kernel in ("linear", "lerp"):
        return np.maximum(0.0, 1.0 - d)
    # Cubic convolution with a = -0.5 (Keys 1981): exact for quadratics, four taps, no global prefilter.
    near = (1.5 * d - 2.5) * d * d + 1.0
    far = ((-0.5 * d + 2.5) * d - 4.0) * d + 2.0
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _cardinal_spline(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cubic spline that is 1 at 0 and 0 at every other integer (Unser 1999).

    B-splines, each with the weight that the interpolating prefilter gives it. Both are linear, so that one kernel
    does what SciPy does in two passes; beyond 12 voxels less than 1e-6 of it is left.
    """
    below = np.floor(distance)
    total = np.zeros_like(distance)
    for step in (-1, 0, 1, 2):
        place = below + step
        d = np.abs(distance - place)
        basis = np.where(d < 1, (0.5 * d - 1.0) * d * d + 2 / 3, np.maximum(0.0, 2.0 - d) ** 3 / 6)
        total += POLE ** np.abs(place) * basis
    return math.sqrt(3) * total


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
    """A source resized to another shape, a kernel along each axis; nearest along all keeps the dtype, for labels."""

    target: Shape3
    kernels: Kernels

    @property
    def shape(self) -> Shape3:
        """The new shape."""
        return self.target

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32, or the source's for nearest."""
        return self.source.dtype if set(self.kernels) == {"nearest"} else np.dtype(np.float32)

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
        if set(self.kernels) != {"nearest"}:
            return self.tensor(box, torch.device("cpu")).numpy()
        return self._resized(box, lambda inner: torch.from_numpy(np.ascontiguousarray(self.source.read(inner)))).numpy()

    def tensor(self, box: Box, device: torch.device) -> Tensor:
        """The same on a device, (C, Z, Y, X) float32."""
        return self._resized(box, lambda inner: read_tensor(self.source, inner, device))

    def _resized(self, box: Box, read: Callable[[Box], Tensor]) -> Tensor:
        taps = [axis_taps(n, m, k) for n, m, k in zip(self.source.shape, self.shape, self.kernels, strict=True)]
        inner = needed_box(box, taps)
        voxels = read(inner)
        # The axis that shrinks most goes first: the others then have less to do. The same order for every box.
        for axis in sorted(range(3), key=lambda axis: self.shape[axis] / self.source.shape[axis]):
            voxels = resize_axis(voxels, axis + 1, taps[axis], box.start[axis], box.stop[axis], first=inner.start[axis])
        return voxels


def needed_box(box: Box, taps: Sequence[Taps]) -> Box:
    """The voxels of the old grid that a box of the new one is made of."""
    needed = [t.index[a:b] for t, a, b in zip(taps, box.start, box.stop, strict=True)]
    return Box(Index3(*(int(i.min()) for i in needed)), Index3(*(int(i.max()) + 1 for i in needed)))


def at_spacing(source: VolumeSource, target: Spacing, kernels: Kernels) -> VolumeSource:
    """The source at another spacing, or itself where that changes no length by half a voxel."""
    shape = resized_shape(source.shape, spacing_of(source.affine), target)
    return source if shape == source.shape else ResampledView(source, shape, kernels)


Slab = tuple[int, Tensor]


@dataclass(frozen=True)
class BackTo:
    """The way of slabs from a grid of this shape to one of the target's, for a box of the target.

    needed is the part of the grid that the box is made of.
    """

    shape: Shape3
    target: Shape3
    box: Box
    kernels: Kernels = ("linear", "linear", "linear")

    @cached_property
    def taps(self) -> tuple[Taps, Taps, Taps]:
        """Those of z, y, x."""
        z, y, x = (axis_taps(n, m, k) for n, m, k in zip(self.shape, self.target, self.kernels, strict=True))
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
