"""The masks of regions/distance.py from tensors, made where they lie.

Squared distances to the nearest true voxel are found along one axis after the other, no further than
the radius. Which offsets lie within it is settled before, by the rule for arrays: a bound between the
last that does and the first that does not decides alike, however the sums are rounded.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vol3d.shapes import Spacing

VOXELS_AT_ONCE = 1 << 26  # 13 to 25 bytes each


@dataclass(frozen=True)
class Ball:
    """The offsets within a radius: a squared distance up to bound_mm2 is one's; reach is in voxels along z, y, x.

    kind is the type in which sums of squares tell the offsets within from the others.
    """

    bound_mm2: float
    reach: tuple[int, int, int]
    spacing: Spacing
    kind: torch.dtype

    @classmethod
    def of(cls, limit_mm: float, reach: tuple[int, int, int], spacing: Spacing) -> "Ball":
        """The offsets of at most limit_mm, compared in float32 as distance_mm gives them, of those up to reach."""
        z, y = (np.arange(r + 2) * step for r, step in zip(reach[:2], spacing[:2], strict=True))
        beside = (z[:, None] ** 2 + y**2)[..., None]
        # Along x, the last within and the first beyond are among these.
        near = np.sqrt(np.maximum(0, limit_mm**2 - beside)) // spacing.x + np.arange(-1, 3)
        squares = beside + (near.clip(0, reach[2] + 1) * spacing.x) ** 2
        inside = np.sqrt(squares).astype(np.float32) <= np.float32(limit_mm)
        last = float(squares[inside].max())
        following = float(squares[~inside].min(initial=2 * last + 1))
        # Three squares and two sums in float32 are off by less than 4e-7 of themselves.
        kind = torch.float32 if following - last > 1e-6 * following else torch.float64
        return cls(max(last, (last + following) / 2), reach, spacing, kind)

    def dilated(self, mask: Tensor) -> Tensor:
        """The voxels with a true one within the radius: a (Z, Y, X) mask of the same shape."""
        box = _around(mask, self.reach)
        result = mask.clone()
        if box is not None:
            result[box] = _near(mask[box], self)
        return result

    def eroded(self, mask: Tensor) -> Tensor:
        """The voxels without a false one within the radius: a (Z, Y, X) mask of the same shape."""
        box = _around(mask, (1, 1, 1))
        result = mask.clone()
        if box is not None:
            result[box] = ~_near(~mask[box], self)
        return result

    def squares_mm2(self, axis: int) -> list[float]:
        """The squares of 0, 1, ... reach voxels along an axis."""
        return [(n * self.spacing[axis]) ** 2 for n in range(self.reach[axis] + 1)]


def _around(mask: Tensor, margin: tuple[int, int, int]) -> tuple[slice, ...] | None:
    """The smallest box around the true voxels with a margin; None where there are none."""
    rows = mask.any(2)
    slices = []
    for along, more in zip((rows.any(1), rows.any(0), mask.any(0).any(0)), margin, strict=True):
        hits = along.nonzero()
        if not len(hits):
            return None
        slices.append(slice(max(0, int(hits[0]) - more), int(hits[-1]) + 1 + more))
    return tuple(slices)


def _near(mask: Tensor, ball: Ball) -> Tensor:
    result, reach = torch.empty_like(mask), ball.reach[0]
    planes = max(1, reach, VOXELS_AT_ONCE // mask[0].numel())
    for start in range(0, len(mask), planes):
        first = max(0, start - reach)
        squares = _along_row(mask[first : start + planes + reach], ball)
        for axis in (1, 0):
            squares = _along(squares, axis, ball)
        result[start : start + planes] = squares[start - first :][:planes] <= ball.bound_mm2
    return result


def _along_row(mask: Tensor, ball: Ball) -> Tensor:
    """The squared distance of each voxel to the nearest true one in its row; infinite beyond the reach."""
    reach = ball.reach[2]
    away = torch.full(mask.shape, reach + 1, dtype=torch.uint8 if reach < 255 else torch.int32, device=mask.device)
    for n in range(min(reach, mask.shape[2] - 1), 0, -1):
        away[..., n:].masked_fill_(mask[..., :-n], n)
        away[..., :-n].masked_fill_(mask[..., n:], n)
    away.masked_fill_(mask, 0)
    table = torch.tensor([*ball.squares_mm2(2), math.inf], dtype=ball.kind, device=mask.device)
    return table.index_select(0, away.reshape(-1).int()).reshape(mask.shape)


def _along(squares: Tensor, axis: int, ball: Ball) -> Tensor:
    """The lowest sum of a voxel's square and that of the way to it along an axis."""
    size, lowest = squares.shape[axis], squares.clone()
    for n, more in enumerate(ball.squares_mm2(axis)):
        if 0 < n < size:
            for here, there in ((n, 0), (0, n)):
                into = lowest.narrow(axis, here, size - n)
                torch.minimum(into, squares.narrow(axis, there, size - n) + more, out=into)
    return lowest
