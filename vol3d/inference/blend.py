"""The ring of planes: windows blended into finished planes with one window depth in memory."""

import torch
from torch import Tensor


class PlaneRing:
    """Accumulates windows that come in z order and hands out planes as soon as no window can add to them.

    Holds (channels, depth, Y, X) float32 whatever the volume's depth: plane z lies at z modulo depth.
    """

    def __init__(self, channels: int, *, depth: int, size_y: int, size_x: int, device: torch.device) -> None:
        self.planes = torch.zeros((channels, depth, size_y, size_x), dtype=torch.float32, device=device)
        self._first = 0

    def add(self, answer: Tensor, share: Tensor, *, z: int, y: int, x: int) -> None:
        """Add a window (channels, depth, y, x) times its share (depth, y, x), at its place in the volume."""
        depth, size_y, size_x = share.shape
        for planes, at in self._parts(z, z + depth):
            place = self.planes[:, at : at + len(planes), y : y + size_y, x : x + size_x]
            part = slice(planes.start - z, planes.stop - z)
            # In two steps: fused they round otherwise in the middle of a row than at its end.
            place += answer[:, part] * share[part]

    def finish(self, stop: int) -> Tensor:
        """The planes before stop that were not handed out yet, (channels, planes, Y, X); the ring moves on."""
        parts = list(self._parts(self._first, stop))
        done = torch.cat([self.planes[:, at : at + len(planes)] for planes, at in parts], dim=1)
        for planes, at in parts:
            self.planes[:, at : at + len(planes)] = 0
        self._first = stop
        return done

    def move(self, device: torch.device) -> None:
        """Go on accumulating in another device's memory."""
        self.planes = self.planes.to(device)

    def _parts(self, start: int, stop: int) -> list[tuple[range, int]]:
        """Planes start to stop in one or two runs that lie together in the ring, with where each begins."""
        depth = self.planes.shape[1]
        turn = min(stop, (start // depth + 1) * depth)
        runs = (range(start, turn), range(turn, stop))
        return [(run, run.start % depth) for run in runs if run]
