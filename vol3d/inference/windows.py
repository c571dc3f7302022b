"""Which windows there are, in which order, and what part of each voxel is theirs."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vol3d.geometry.box import Box
from vol3d.geometry.gaussian import Blend, axis_shares
from vol3d.geometry.grid import Stride, padded_shape, window_starts
from vol3d.shapes import Index3, Shape3


@dataclass(frozen=True)
class WindowGrid:
    """All windows of a volume, fixed by its shape alone, so that any part of it has the same windows.

    A volume smaller than the window is padded; before voxels of the padding lie in front of it.
    """

    shape: Shape3
    window: Shape3
    overlap: float
    blend: Blend = "gaussian"
    stride: Stride = "fixed"

    @cached_property
    def padded(self) -> Shape3:
        """The shape that the windows cover."""
        return padded_shape(self.shape, self.window)[0]

    @cached_property
    def before(self) -> Index3:
        """Padding in front of the volume's first voxel."""
        return padded_shape(self.shape, self.window)[1]

    @cached_property
    def starts(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """First voxels along z, y, x in the padded volume."""
        z, y, x = (
            window_starts(n, w, self.overlap, self.stride) for n, w in zip(self.padded, self.window, strict=True)
        )
        return z, y, x

    @cached_property
    def shares(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Shares along z, y, x: (windows on the axis, window)."""
        z, y, x = (
            axis_shares(s, w, n, blend=self.blend)
            for s, w, n in zip(self.starts, self.window, self.padded, strict=True)
        )
        return z, y, x

    @property
    def count(self) -> int:
        """Number of windows."""
        return len(self.starts[0]) * len(self.starts[1]) * len(self.starts[2])

    def touching(self, box: Box) -> tuple[range, range, range]:
        """Numbers of the windows along z, y, x that hold a voxel of a box of the volume."""
        z, y, x = (
            _overlapping(starts, window, a + before, b + before)
            for starts, window, a, b, before in zip(
                self.starts, self.window, box.start, box.stop, self.before, strict=True
            )
        )
        return z, y, x

    def box(self, row: int, y: int, x: int) -> Box:
        """The window's box in the volume; parts in the padding lie outside it."""
        start = Index3(self.starts[0][row], self.starts[1][y], self.starts[2][x])
        return Box.at(start, self.window).seen_from(self.before)


def _overlapping(starts: tuple[int, ...], window: int, first: int, stop: int) -> range:
    numbers = [i for i, start in enumerate(starts) if start < stop and start + window > first]
    return range(numbers[0], numbers[-1] + 1)
