"""The planes of each row of windows, read once, padded, on the device before they are needed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vol3d.geometry.box import Box
from vol3d.inference.windows import WindowGrid
from vol3d.preprocess.tensors import read_tensor
from vol3d.shapes import Index3
from vol3d.volume.source import VolumeSource


@dataclass(frozen=True)
class Arriving:
    """Planes (C, z, y, x) float32 on their way to the device; on a GPU by a stream of their own."""

    planes: Tensor
    event: "torch.cuda.Event | None" = None

    def arrived(self) -> Tensor:
        """The planes, once the work that follows on this thread's stream may use them."""
        if self.event is not None:
            stream = torch.cuda.current_stream(self.planes.device)
            stream.wait_event(self.event)
            self.planes.record_stream(stream)
        return self.planes


class RowReader:
    """Reads rows in order; planes shared with the row before are not read again.

    in_plane is the box, in the padded volume, whose windows are wanted: of each plane only what they
    cover is read. origin is the padded (y, x) place of the first voxel that is.
    """

    def __init__(self, source: VolumeSource, grid: WindowGrid, in_plane: Box, device: torch.device) -> None:
        self._source, self._grid, self._device = source, grid, device
        touched = grid.touching(in_plane.seen_from(grid.before))
        self._y, self._x = (
            (starts[numbers[0]], starts[numbers[-1]] + window)
            for starts, numbers, window in zip(grid.starts[1:], touched[1:], grid.window[1:], strict=True)
        )
        self.origin = (self._y[0], self._x[0])
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch has no types for it
        self._planes: Tensor | None = None
        self._start = 0

    @torch.inference_mode()  # of this thread
    def row(self, row: int) -> Arriving:
        """(C, window z, y, x) float32 of a row of windows."""
        if self._stream is None:
            return Arriving(self._advance(row))
        with torch.cuda.stream(self._stream):
            planes = self._advance(row)
            return Arriving(planes, self._stream.record_event())

    def _advance(self, row: int) -> Tensor:
        start, depth = self._grid.starts[0][row], self._grid.window.z
        if self._planes is None:
            self._planes = self._read(start, start + depth)
        elif start > self._start:
            keep = max(0, self._start + depth - start)
            fresh = self._read(start + keep, start + depth)
            self._planes = torch.cat([self._planes[:, depth - keep :], fresh], dim=1) if keep else fresh
        self._start = start
        return self._planes

    def _read(self, first: int, stop: int) -> Tensor:
        """Padded planes: zeros wherever the volume is not."""
        padded = Box(Index3(first, self._y[0], self._x[0]), Index3(stop, self._y[1], self._x[1]))
        there = padded.seen_from(self._grid.before)
        inside = there.intersection(Box.whole(self._source.shape))
        if inside == there:
            return read_tensor(self._source, there, self._device)
        planes = torch.zeros((self._source.channels, *padded.shape), device=self._device)
        if inside.shape.voxels:
            at = inside.seen_from(there.start)
            planes[(slice(None), *at.slices)] = read_tensor(self._source, inside, self._device)
        return planes
