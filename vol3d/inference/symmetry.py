"""The symmetries of a cube: what a window is turned and mirrored by, and the mean over its answers."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vol3d.shapes import AXES, Axis

Symmetries = Literal["mirrors", "quarter_turns", "views"]
Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Symmetry:
    """A permutation of the axes z, y, x, then flips: one of the 48 symmetries of a cube.

    order[i] is the old axis that becomes axis i; flipped[i] says whether it then runs backwards.
    """

    order: tuple[int, int, int] = (0, 1, 2)
    flipped: tuple[bool, bool, bool] = (False, False, False)

    def apply(self, batch: Tensor) -> Tensor:
        """(B, C, Z, Y, X) as this symmetry shows it."""
        return torch.flip(batch.permute(0, 1, *(axis + 2 for axis in self.order)), self._flips)

    def undo(self, batch: Tensor) -> Tensor:
        """The way back."""
        straight = torch.flip(batch, self._flips)
        return straight.permute(0, 1, *(self.order.index(axis) + 2 for axis in range(3)))

    def then(self, other: "Symmetry") -> "Symmetry":
        """First this one, then other."""
        z, y, x = other.order
        a, b, c = (self.flipped[axis] != flip for axis, flip in zip(other.order, other.flipped, strict=True))
        return Symmetry((self.order[z], self.order[y], self.order[x]), (a, b, c))

    @property
    def mirrors_x(self) -> bool:
        """Whether left and right change places; told only of what permutes nothing."""
        return self.flipped[2]

    @property
    def _flips(self) -> list[int]:
        return [axis + 2 for axis, flip in enumerate(self.flipped) if flip]


QUARTER_TURN = Symmetry((0, 2, 1), (False, True, False))
NEXT_VIEW = Symmetry((1, 2, 0))


def symmetries(names: Sequence[Symmetries], mirror_axes: Sequence[Axis]) -> tuple[Symmetry, ...]:
    """Every combination of the named ones, identity first, each once.

    mirrors are all flips along mirror_axes (2^n), quarter_turns the four turns of y and x about z, views the
    three axes taken for z in turn (xy, zx and zy slices). mirrors and views over three axes make 24, all
    three names 48.
    """
    z, y, x = ((False, True) if axis in mirror_axes and "mirrors" in names else (False,) for axis in AXES)
    mirrors = [Symmetry(flipped=flipped) for flipped in itertools.product(z, y, x)]
    turns = _powers(QUARTER_TURN, 4) if "quarter_turns" in names else [Symmetry()]
    views = _powers(NEXT_VIEW, 3) if "views" in names else [Symmetry()]
    combined = (mirror.then(turn).then(view) for view in views for turn in turns for mirror in mirrors)
    return tuple(dict.fromkeys(combined))


def _powers(generator: Symmetry, count: int) -> list[Symmetry]:
    return list(itertools.accumulate([generator] * (count - 1), Symmetry.then, initial=Symmetry()))


def averaged(
    forward: Forward, over: Sequence[Symmetry], *, batch: int, x_channels: Sequence[int] | None = None
) -> Forward:
    """The mean of forward over symmetries, each undone; forward sees at most batch windows at once.

    Where fewer windows come than fit, several symmetries share a pass. x_channels says which channel of an
    answer takes the place of each where the mirror is along x (left and right change their names); None
    keeps them.
    """

    def mean(windows: Tensor) -> Tensor:
        together = max(1, batch // len(windows))
        total: Tensor | None = None
        for first in range(0, len(over), together):
            group = over[first : first + together]
            seen = torch.cat([one.apply(windows) for one in group]) if len(over) > 1 else windows
            answers = (
                torch.cat([forward(part) for part in torch.split(seen, batch)]) if len(seen) > batch else forward(seen)
            )
            for one, answer in zip(group, torch.split(answers, len(windows)), strict=True):
                back = one.undo(answer)
                if x_channels is not None and one.mirrors_x:
                    back = back[:, list(x_channels)]
                total = back if total is None else total + back
        assert total is not None
        return total / len(over) if len(over) > 1 else total

    return mean
