"""A half-open box of voxels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vol3d.shapes import Index3, Shape3


@dataclass(frozen=True)
class Box:
    """The voxels with start <= index < stop, per axis z, y, x. start may lie outside a volume."""

    start: Index3
    stop: Index3

    @classmethod
    def whole(cls, shape: Shape3) -> "Box":
        """The box of a whole volume."""
        return cls(Index3(0, 0, 0), Index3(*shape))

    @classmethod
    def at(cls, start: Index3, shape: Shape3) -> "Box":
        """The box of this shape whose first voxel is start."""
        return cls(Index3(*start), Index3(*(a + n for a, n in zip(start, shape, strict=True))))

    @classmethod
    def around(cls, mask: NDArray[np.bool_]) -> "Box | None":
        """The smallest box around the true voxels of a (Z, Y, X) mask; None where there are none."""
        bounds = []
        for axis in range(3):
            hits = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
            if hits.size == 0:
                return None
            bounds.append((int(hits[0]), int(hits[-1]) + 1))
        return cls(Index3(*(b[0] for b in bounds)), Index3(*(b[1] for b in bounds)))

    @property
    def shape(self) -> Shape3:
        """Voxels along each axis; zero where the box is empty."""
        return Shape3(*(max(0, b - a) for a, b in zip(self.start, self.stop, strict=True)))

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Slices that cut the box out of a (Z, Y, X) array."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def shifted(self, by: Index3) -> "Box":
        """The box moved by some voxels."""
        return Box.at(Index3(*(a + d for a, d in zip(self.start, by, strict=True))), self.shape)

    def seen_from(self, origin: tuple[int, int, int]) -> "Box":
        """The box counted from another voxel than the first."""
        return self.shifted(Index3(*(-a for a in origin)))

    def grown(self, margin: tuple[int, int, int]) -> "Box":
        """The box with margin voxels more on both sides of each axis."""
        return Box(
            Index3(*(a - m for a, m in zip(self.start, margin, strict=True))),
            Index3(*(b + m for b, m in zip(self.stop, margin, strict=True))),
        )

    def intersection(self, other: "Box") -> "Box":
        """What both boxes share; of shape zero where they do not meet."""
        start = Index3(*(max(a, b) for a, b in zip(self.start, other.start, strict=True)))
        stop = Index3(*(max(a, min(b, c)) for a, b, c in zip(start, self.stop, other.stop, strict=True)))
        return Box(start, stop)

    def contains(self, other: "Box") -> bool:
        """Whether every voxel of other is inside."""
        return self.intersection(other) == other
