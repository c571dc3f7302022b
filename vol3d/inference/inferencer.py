"""A source in, slabs of probabilities out: windows in z order through the ring of planes.

Memory holds one window depth of input and of probabilities, whatever the volume's depth.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vol3d.geometry.box import Box
from vol3d.inference.blend import PlaneRing
from vol3d.inference.symmetry import Axis, Forward
from vol3d.inference.windows import WindowGrid
from vol3d.shapes import Index3, Shape3
from vol3d.volume.source import VolumeSource

Activation = Literal["softmax", "sigmoid"]


@dataclass(frozen=True)
class InferenceSettings:
    """How a volume is predicted.

    window is the patch unless said otherwise. overlap is the fraction that neighbouring windows
    share. mirror_axes are averaged over (2^n passes per window). batch windows run at once.
    """

    window: Shape3 | Literal["auto"] = "auto"
    overlap: float = 0.5
    mirror_axes: tuple[Axis, ...] | Literal["auto"] = "auto"
    batch: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap must be in [0, 1), got {self.overlap}")
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, got {self.batch}")


@dataclass
class Tally:
    """How many windows the network saw and how many were known to be background without it."""

    run: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class Inferencer:
    """Slides a network over a volume.

    forward maps a normalised window batch (B, C, z, y, x) to probabilities (B, K, z, y, x); it says
    nothing about mirrors, precision or devices that the caller has not built into it. The batch is
    always full: the last windows of a row are padded with zeros, so that every window is computed in
    the same way wherever the volume is cut.
    """

    forward: Forward
    channels: int
    activation: Activation
    window: Shape3
    overlap: float = 0.5
    batch: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def grid(self, shape: Shape3) -> WindowGrid:
        """The windows of a volume of this shape."""
        return WindowGrid(shape, self.window, self.overlap)

    def slabs(
        self,
        source: VolumeSource,
        *,
        planes: tuple[int, int] | None = None,
        wanted: Callable[[Box], bool] | None = None,
        tally: Tally | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield (first plane, probabilities (K, z, Y, X) float32 on the device) in order.

        planes = (first, stop) asks for a part of the volume and gives the same bytes as the whole. A
        window whose box is not wanted contributes background; that is exact for the voxels outside
        all unwanted windows. advance is called with the number of windows done.
        """
        grid = self.grid(source.shape)
        first, stop = planes or (0, source.shape.z)
        rows = grid.rows_touching(first, stop)
        base, last = grid.starts[0][rows[0]], len(grid.starts[0]) - 1
        sweep = _Sweep(self, grid, base, wanted or (lambda box: True), tally or Tally(), advance or (lambda n: None))
        reader = _RowReader(source, grid, self.device)
        for row in rows:
            sweep.add_row(row, reader.row(row))
            z = grid.starts[0][row]
            next_z = grid.padded.z if row == last else grid.starts[0][row + 1]
            yield from _cut(sweep.ring.finish(next_z - base), z, grid, first, stop)


class _Sweep:
    """One pass over a volume: the ring and what the windows of a row add to it."""

    def __init__(
        self,
        inferencer: Inferencer,
        grid: WindowGrid,
        base: int,
        wanted: Callable[[Box], bool],
        tally: Tally,
        advance: Callable[[int], None],
    ) -> None:
        self.inferencer, self.grid, self.base = inferencer, grid, base
        self.wanted, self.tally, self.advance = wanted, tally, advance
        self.batch = min(inferencer.batch, len(grid.starts[1]) * len(grid.starts[2]))
        device = inferencer.device
        self.shares = [torch.from_numpy(s).to(device) for s in grid.shares]
        self.ring = PlaneRing(
            inferencer.channels, depth=grid.window.z, size_y=grid.padded.y, size_x=grid.padded.x, device=device
        )

    def add_row(self, row: int, voxels: Tensor) -> None:
        """Run the row's windows on its planes (C, window z, Y, X)."""
        in_plane = list(self.grid.in_plane())
        run = [w for w in in_plane if self.wanted(self.grid.box(row, *w))]
        for window in sorted(set(in_plane) - set(run)):
            self._add(row, window, self._background())
        for first in range(0, len(run), self.batch):
            group = run[first : first + self.batch]
            for window, answer in zip(group, self._forward(voxels, group), strict=False):
                self._add(row, window, answer)
            self.advance(len(group))
        self.tally.run += len(run)
        self.tally.skipped += len(in_plane) - len(run)
        self.advance(len(in_plane) - len(run))

    def _forward(self, voxels: Tensor, group: Sequence[tuple[int, int]]) -> Tensor:
        window = self.grid.window
        batch = voxels.new_zeros((self.batch, voxels.shape[0], *window))
        for slot, (y, x) in enumerate(group):
            a, b = self.grid.starts[1][y], self.grid.starts[2][x]
            batch[slot] = voxels[:, :, a : a + window.y, b : b + window.x]
        return self.inferencer.forward(batch).float()

    def _background(self) -> Tensor:
        answer = torch.zeros((self.inferencer.channels, *self.grid.window), device=self.inferencer.device)
        if self.inferencer.activation == "softmax":
            answer[0] = 1.0
        return answer

    def _add(self, row: int, window: tuple[int, int], answer: Tensor) -> None:
        y, x = window
        z_share, y_share, x_share = self.shares[0][row], self.shares[1][y], self.shares[2][x]
        weighted = answer * (z_share[:, None, None] * y_share[None, :, None] * x_share[None, None, :])
        self.ring.add(
            weighted, z=self.grid.starts[0][row] - self.base, y=self.grid.starts[1][y], x=self.grid.starts[2][x]
        )


class _RowReader:
    """The padded planes of one row of windows; planes shared with the row before are not read again."""

    def __init__(self, source: VolumeSource, grid: WindowGrid, device: torch.device) -> None:
        self._source, self._grid, self._device = source, grid, device
        self._voxels: Tensor | None = None
        self._start = 0

    def row(self, row: int) -> Tensor:
        """(C, window z, padded Y, padded X) float32."""
        start, depth = self._grid.starts[0][row], self._grid.window.z
        if self._voxels is None:
            self._voxels = self._read(start, start + depth)
        elif start > self._start:
            keep = max(0, self._start + depth - start)
            fresh = self._read(start + keep, start + depth)
            self._voxels = torch.cat([self._voxels[:, depth - keep :], fresh], dim=1)
        self._start = start
        return self._voxels

    def _read(self, first: int, stop: int) -> Tensor:
        shape, before = self._source.shape, self._grid.before
        planes = torch.zeros(
            (self._source.channels, stop - first, self._grid.padded.y, self._grid.padded.x), device=self._device
        )
        a, b = max(0, first - before.z), min(shape.z, stop - before.z)
        if a < b:
            read = self._source.read(Box(Index3(a, 0, 0), Index3(b, shape.y, shape.x)))
            z = a + before.z - first
            planes[:, z : z + b - a, before.y : before.y + shape.y, before.x : before.x + shape.x] = torch.from_numpy(
                np.ascontiguousarray(read, dtype=np.float32)
            )
        return planes


def _cut(done: Tensor, z: int, grid: WindowGrid, first: int, stop: int) -> Iterator[tuple[int, Tensor]]:
    """Finished padded planes, the first of which is plane z, without padding and limited to what was asked for."""
    a = max(first, z - grid.before.z)
    b = min(stop, z - grid.before.z + done.shape[1])
    if a < b:
        from_z, y, x = a + grid.before.z - z, grid.before.y, grid.before.x
        yield a, done[:, from_z : from_z + b - a, y : y + grid.shape.y, x : x + grid.shape.x]
