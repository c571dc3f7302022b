"""A volume turned: its axes z, y, x upwards, to the front and to the right (RAS+), or as another's run."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.geometry.affine import Affine, agree, ras_axes
from vol3d.geometry.box import Box
from vol3d.shapes import Index3, Shape3
from vol3d.volume.source import Access, View, VolumeSource


@dataclass(frozen=True)
class Turn:
    """A permutation of the stored axes followed by flips, and its way back.

    order[i] is the stored axis that becomes axis i; flipped[i] says whether it then runs backwards.
    """

    order: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    stored_shape: Shape3

    @property
    def shape(self) -> Shape3:
        """The turned volume's shape."""
        return Shape3(*(self.stored_shape[a] for a in self.order))

    @property
    def back(self) -> "Turn":
        """The turn of the turned volume that gives the stored one."""
        z, y, x = (self.order.index(axis) for axis in range(3))
        return Turn((z, y, x), (self.flipped[z], self.flipped[y], self.flipped[x]), self.shape)

    def stored_box(self, box: Box) -> Box:
        """Where the voxels of a turned box are stored."""
        start, stop = [0, 0, 0], [0, 0, 0]
        for axis, stored in enumerate(self.order):
            a, b, n = box.start[axis], box.stop[axis], self.stored_shape[stored]
            start[stored], stop[stored] = (n - b, n - a) if self.flipped[axis] else (a, b)
        return Box(Index3(*start), Index3(*stop))

    def turned_box(self, box: Box) -> Box:
        """Where the voxels of a stored box come to lie."""
        start, stop = [0, 0, 0], [0, 0, 0]
        for axis, stored in enumerate(self.order):
            a, b, n = box.start[stored], box.stop[stored], self.stored_shape[stored]
            start[axis], stop[axis] = (n - b, n - a) if self.flipped[axis] else (a, b)
        return Box(Index3(*start), Index3(*stop))

    def apply(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """Stored (C, Z, Y, X) voxels turned, without a copy."""
        turned: NDArray[Any] = voxels.transpose(0, *(a + 1 for a in self.order))
        return np.flip(turned, tuple(i + 1 for i, f in enumerate(self.flipped) if f))

    def undo(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """Turned (C, Z, Y, X) voxels as they are stored, without a copy."""
        straight: NDArray[Any] = np.flip(voxels, tuple(i + 1 for i, f in enumerate(self.flipped) if f))
        return straight.transpose(0, *(self.order.index(a) + 1 for a in range(3)))


def ras_turn(source: VolumeSource) -> Turn:
    """The turn that brings a source closest to RAS order; oblique grids stay oblique."""
    order, flipped = ras_axes(source.affine)
    return Turn(order, flipped, source.shape)


def stored_turn(source: VolumeSource) -> Turn:
    """The turn that changes nothing."""
    return Turn((0, 1, 2), (False, False, False), source.shape)


@dataclass(frozen=True)
class TurnedView(View):
    """A source seen through a Turn."""

    turn: Turn

    @property
    def shape(self) -> Shape3:
        """The turned shape."""
        return self.turn.shape

    @property
    def access(self) -> Access:
        """As the source's while z stays z."""
        return self.source.access if self.turn.order[0] == 0 and not self.turn.flipped[0] else "sequential"

    @property
    def affine(self) -> Affine:
        """The source's affine with its columns turned: every voxel keeps its place in the world."""
        columns = self.source.affine[:, [*self.turn.order, 3]].copy()
        for axis, flip in enumerate(self.turn.flipped):
            if flip:
                columns[:, 3] += columns[:, axis] * (self.shape[axis] - 1)
                columns[:, axis] *= -1
        return columns

    def read(self, box: Box) -> NDArray[Any]:
        """The box's voxels, turned; in C order, so that sums over them do not hang on how they are stored."""
        return np.ascontiguousarray(self.turn.apply(self.source.read(self.turn.stored_box(box))))


def turned_onto(source: VolumeSource, other: VolumeSource) -> VolumeSource:
    """The source with its axes stored as other's, where both say a place and hold the same voxels.

    A source that needs no turn, or that none brings onto other's grid, comes back as it is.
    """
    if source.says != "place" or other.says != "place" or source.shape.voxels != other.shape.voxels:
        return source
    if source.shape == other.shape and agree(source.affine, other.affine, other.shape):
        return source
    steps = np.linalg.solve(other.affine[:3, :3], source.affine[:3, :3])  # other's axes by the source's
    z, y, x = (int(axis) for axis in np.abs(steps).argmax(axis=1))
    if {z, y, x} != {0, 1, 2}:
        return source
    flipped = (bool(steps[0, z] < 0), bool(steps[1, y] < 0), bool(steps[2, x] < 0))
    view = TurnedView(source, Turn((z, y, x), flipped, source.shape))
    return view if view.shape == other.shape and agree(view.affine, other.affine, other.shape) else source
