"""Grow a vessel tree that reaches given points and keeps Murray's law.

A branch carries the flow of all the leaves behind it, so its cubed radius is the sum of theirs:
r0^3 = r1^3 + r2^3 holds at every branching by construction (C. D. Murray, PNAS 12, 1926).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Branch:
    """A piece of vessel between two branchings: points (N, 3) as (z, y, x), parent the index of its stem or -1.

    Points and radius are in voxels. The first point is the last one of the stem.
    """

    parent: int
    points: Points
    radius: float


def grow_tree(
    root: Points, targets: Points, *, leaf_radii: NDArray[np.float64], rng: np.random.Generator
) -> tuple[Branch, ...]:
    """A binary tree from root (3,) whose leaves end at targets (N, 3), each leaf with its radius (N,), in voxels.

    The points still to be reached are halved again and again along their longest direction; a
    branch runs part of the way to the middle of its points. Stems come before their branches.
    """
    branches: list[Branch] = []
    everything = np.arange(len(targets))
    waiting = [(np.asarray(root, dtype=np.float64), targets.mean(axis=0) - root, everything, -1)]
    while waiting:
        start, heading, leaves, parent = waiting.pop()
        middle = targets[leaves].mean(axis=0)
        reach = 1.0 if len(leaves) == 1 else rng.uniform(0.25, 0.6)
        points = _curve(start, start + reach * (middle - start), heading, rng)
        branches.append(Branch(parent, points, float(np.cbrt((leaf_radii[leaves] ** 3).sum()))))
        if len(leaves) > 1:
            onward = points[-1] - points[-2]
            waiting += [(points[-1], onward, part, len(branches) - 1) for part in _halves(targets, leaves, rng)]
    return tuple(branches)


def _halves(
    targets: Points, leaves: NDArray[np.intp], rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The leaves cut in two along the line between two far ones; neither part is empty."""
    points = targets[leaves]
    one = points[np.argmax(((points - points.mean(axis=0)) ** 2).sum(axis=1))]
    other = points[np.argmax(((points - one) ** 2).sum(axis=1))]
    order = leaves[np.argsort(points @ (other - one), kind="stable")]
    cut = min(max(1, round(len(order) * rng.uniform(0.25, 0.75))), len(order) - 1)
    return order[:cut], order[cut:]


def _curve(start: Points, end: Points, heading: Points, rng: np.random.Generator) -> Points:
    """A bend from start to end that sets out along heading: a point about every 1.5 voxels, at least two."""
    length = float(np.linalg.norm(end - start))
    ahead = heading / max(float(np.linalg.norm(heading)), 1e-9)
    bend = start + length * (0.45 * ahead + rng.normal(0.0, 0.12, 3))
    t = np.linspace(0.0, 1.0, max(2, round(length / 1.5) + 1))[:, None]
    return np.asarray((1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end)
