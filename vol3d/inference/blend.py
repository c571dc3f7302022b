"""The ring of planes: windows blended into finished planes with one window depth in memory."""

import torch
from torch import Tensor


class PlaneRing:
    """Accumulates windows that come in z order and hands out planes as soon as no window can add to them.

    Holds (channels, depth, Y, X) float32 whatever the volume's depth.
    """

    def __init__(self, channels: int, *, depth: int, size_y: int, size_x: int, device: torch.device) -> None:
        self._planes = torch.zeros((channels, depth, size_y, size_x), dtype=torch.float32, device=device)
        self._first = 0

    def add(self, weighted: Tensor, *, z: int, y: int, x: int) -> None:
        """Add a window (channels, z, y, x) already multiplied by its shares, at its place in the volume."""
        depth, size_y, size_x = weighted.shape[1:]
        start = z - self._first
        self._planes[:, start : start + depth, y : y + size_y, x : x + size_x] += weighted

    def finish(self, stop: int) -> Tensor:
        """The planes before stop that were not handed out yet, (channels, planes, Y, X); the ring moves on."""
        count = stop - self._first
        done = self._planes[:, :count].clone()
        self._planes = torch.cat([self._planes[:, count:], torch.zeros_like(self._planes[:, :count])], dim=1)
        self._first = stop
        return done
