"""The vocabulary of triples, always in array order (z, y, x), and the checks at the door.

They are named tuples: a triple is written and read by name wherever a person sees it, and is a
plain tuple to NumPy and torch.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

Axis = Literal["z", "y", "x"]
AXES: tuple[Axis, ...] = ("z", "y", "x")


class Shape3(NamedTuple):
    """Voxels along each axis."""

    z: int
    y: int
    x: int

    @property
    def voxels(self) -> int:
        """Number of voxels in the whole grid."""
        return self.z * self.y * self.x


class Index3(NamedTuple):
    """A voxel's place, zero-based."""

    z: int
    y: int
    x: int


class Spacing(NamedTuple):
    """Millimetres between voxel centres along each axis."""

    z: float
    y: float
    x: float

    @property
    def voxel_mm3(self) -> float:
        """Volume of one voxel in cubic millimetres."""
        return self.z * self.y * self.x


def positive_spacing(values: Sequence[float]) -> Spacing:
    """Three millimetres (z, y, x) as a Spacing.

    Raises:
        ValueError: they are not three numbers, or not positive and finite.
    """
    try:
        steps = tuple(float(step) for step in values)
    except (TypeError, ValueError):
        steps = ()
    if len(steps) != 3 or not all(0 < step < float("inf") for step in steps):
        raise ValueError(f"expected a spacing of three positive millimetres (z, y, x), got {values}")
    return Spacing(*steps)


def shape3(values: Sequence[int]) -> Shape3:
    """The last three of values as a Shape3.

    Raises:
        ValueError: fewer than three values, or one that is not positive.
    """
    if len(values) < 3:
        raise ValueError(f"expected at least three axes (z, y, x), got {tuple(values)}")
    shape = Shape3(*(int(v) for v in values[-3:]))
    if min(shape) < 1:
        raise ValueError(f"expected positive lengths (z, y, x), got {tuple(shape)}")
    return shape
