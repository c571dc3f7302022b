"""What a threshold and a rule over its components keep, for very many rules, from one labelling.

A voxel's level is how many thresholds of a ladder its probability reaches. Of every component of the voxels above a
bottom a tally keeps how many it has, and how many of each level, so that any rule over components (enough voxels of
so high a level, large enough, among the largest) is answered from tables: no voxel is looked at again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vol3d.geometry.box import Box
from vol3d.regions.components import label

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Tally:
    """The n components of a mask, in the order of their first voxels.

    voxels is (n,). above is (n, levels): how many voxels of a component have that level or a higher one, from level 0
    on. counted and hits are (gates, n): how many voxels count at all, and how many of these are in the reference.
    """

    voxels: Counts
    above: Counts
    counted: Counts
    hits: Counts


@dataclass(frozen=True)
class Kept:
    """Voxels that rules keep and that count, and how many of these are in the reference: arrays of one shape."""

    predicted: Counts
    hits: Counts


def tally(
    mask: NDArray[np.bool_],
    levels: NDArray[np.uint8],
    reference: NDArray[np.bool_],
    *,
    highest: int,
    gates: Sequence[NDArray[np.bool_] | None] = (None,),
) -> Tally:
    """Count the components (26) of a (Z, Y, X) mask; levels, 0 to highest, and reference have its shape.

    gates are masks of what counts, each answered by itself; None counts every voxel.
    """
    box = Box.around(mask)
    inside = (slice(1),) * 3 if box is None else box.slices
    mask, components = mask[inside], label(mask[inside])
    number, n = _by_place(components.labels[mask], components.count), components.count
    each = np.bincount(number * (highest + 1) + levels[inside][mask], minlength=n * (highest + 1))
    above = each.reshape(n, highest + 1)[:, ::-1].cumsum(axis=1)[:, ::-1]
    true, counted, hits = reference[inside][mask], [], []
    for gate in gates:
        seen = number if gate is None else number[gate[inside][mask]]
        found = number[true] if gate is None else number[true & gate[inside][mask]]
        counted.append(np.bincount(seen, minlength=n))
        hits.append(np.bincount(found, minlength=n))
    return Tally(above[:, 0], above, np.stack(counted), np.stack(hits))


def _by_place(labels: NDArray[np.int32], count: int) -> Counts:
    """Components numbered from 0 in the order in which they are first met."""
    first = np.full(count, labels.size, dtype=np.int64)
    first[labels[::-1] - 1] = np.arange(labels.size)[::-1]  # of several values for one entry the last stays
    place: Counts = np.empty(count, dtype=np.int64)
    place[np.argsort(first)] = np.arange(count)
    return place[labels - 1]


def with_enough(found: Tally, amounts: Counts, least: Sequence[int]) -> Kept:
    """What is kept of the components with an amount (n,) of at least so much: (gates, len(least)).

    least rises.
    """
    rung = np.searchsorted(np.asarray(least), amounts, side="right")  # how many of least the amount reaches

    def reaching(counts: Counts) -> Counts:
        each = [np.bincount(rung, weights=row, minlength=len(least) + 1) for row in counts]
        sums: Counts = np.rint(np.stack(each)[:, :0:-1].cumsum(axis=1)[:, ::-1]).astype(np.int64)
        return sums

    return Kept(reaching(found.counted), reaching(found.hits))


def seeded(found: Tally, tops: Sequence[int], areas: Sequence[int]) -> Kept:
    """What is kept of the components with at least area voxels of level top or higher: (gates, tops, areas)."""
    rows = [with_enough(found, found.above[:, top], areas) for top in tops]
    return Kept(np.stack([row.predicted for row in rows], axis=1), np.stack([row.hits for row in rows], axis=1))


def all_or_none(found: Tally, seeds: Counts, areas: Sequence[int]) -> Kept:
    """All components where the seeds of a top, (tops,), are as many as an area, else none: (gates, tops, areas)."""
    enough = seeds[:, np.newaxis] >= np.asarray(areas)
    predicted, hits = (counts.sum(axis=1)[:, np.newaxis, np.newaxis] * enough for counts in (found.counted, found.hits))
    return Kept(predicted, hits)


def among_largest(found: Tally, counts: Sequence[int]) -> Kept:
    """What is kept of so many largest components, of equal ones the first: (gates, len(counts))."""
    ranked = np.argsort(-found.voxels, kind="stable")

    def most(each: Counts) -> Counts:
        sums = np.concatenate([np.zeros((len(each), 1), np.int64), each[:, ranked].cumsum(axis=1)], axis=1)
        return sums[:, np.minimum(counts, len(ranked))]

    return Kept(most(found.counted), most(found.hits))
