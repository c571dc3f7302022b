"""Test-time mirrors: which flips, and the mean over them."""

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

Axis = Literal["z", "y", "x"]
Forward = Callable[[Tensor], Tensor]
TENSOR_AXIS = {"z": 2, "y": 3, "x": 4}


def mirrors(axes: Sequence[Axis]) -> tuple[tuple[int, ...], ...]:
    """Every subset of the axes as tensor axes of (B, C, Z, Y, X), the empty one first: 2^n flips."""
    numbers = [TENSOR_AXIS[a] for a in axes]
    return tuple(itertools.chain.from_iterable(itertools.combinations(numbers, n) for n in range(len(numbers) + 1)))


def mirrored(forward: Forward, axes: Sequence[Axis], *, x_channels: Sequence[int] | None = None) -> Forward:
    """The mean of forward over all mirrors, each turned back.

    x_channels says which channel of a mirrored answer takes the place of each where the mirror is along x
    (left and right change their names); None keeps them.
    """
    flips = mirrors(axes)
    if len(flips) == 1:
        return forward

    def mean(batch: Tensor) -> Tensor:
        total = forward(batch)
        for flip in flips[1:]:
            answer = torch.flip(forward(torch.flip(batch, flip)), flip)
            if x_channels is not None and TENSOR_AXIS["x"] in flip:
                answer = answer[:, list(x_channels)]
            total = total + answer
        return total / len(flips)

    return mean
