"""Components of a volume that is labelled slab by slab, and joined where slabs touch: memory is one slab's and tables.

The parts of a component find each other by the pairs of labels on either side of the faces between
slabs; union-find over these pairs names the whole, and what was measured of its parts adds up. The
components, and what is known of them, do not hang on where the volume was cut.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csgraph

from vol3d.geometry.box import Box
from vol3d.regions.components import Components, Connectivity, comparable
from vol3d.regions.library import as_numpy
from vol3d.regions.reduce import counts, first_places, occurs
from vol3d.shapes import Index3, Shape3

Indices = NDArray[np.int64]

_AWAY = {6: 0, 18: 1, 26: 2}  # by how many steps in y and x neighbours across a face may differ, in all


@dataclass(frozen=True)
class LabelledSlab:
    """The components of some planes of a volume, from the plane start on, and a second mask of these planes.

    grey is what they were labelled by beside the mask, if they were.
    """

    components: Components
    seeds: NDArray[np.bool_]
    start: int
    volume: Shape3
    grey: NDArray[Any] | None = None

    @property
    def box(self) -> Box:
        """Its place in the volume."""
        return Box.at(Index3(self.start, 0, 0), Shape3(len(self.components.labels), self.volume.y, self.volume.x))


@dataclass(frozen=True)
class Measure:
    """What is told of each component of a slab, (count + 1, ...) by label, and how two parts of one become one.

    The background's entry, the first, says nothing.
    """

    of: Callable[[LabelledSlab], NDArray[Any]]
    join: np.ufunc


@dataclass(frozen=True)
class Joined:
    """The components 1 to count of a whole volume, and a table (count + 1, ...) for each measure, indexed by component.

    numbers holds, slab by slab, the component of each label, (labels + 1,): 0 for the background.
    """

    numbers: tuple[NDArray[Any], ...]
    count: int
    measured: tuple[NDArray[Any], ...]


def join_slabs(
    slabs: Iterable[LabelledSlab],
    measures: Sequence[Measure],
    *,
    connectivity: Connectivity = 26,
    tolerance: float = 0.0,
) -> Joined:
    """The components of a volume of at least one slab, lowest planes first, each labelled by itself.

    connectivity, 6, 18 or 26, and the tolerance of grey values are those of the labelling. No slab is kept:
    they may be made as they are asked for.
    """
    tables: list[list[NDArray[Any]]] = [[] for _ in measures]
    ends, faces = [0], [np.empty((0, 2), dtype=np.int64)]
    below: _Face | None = None
    for slab in slabs:
        labels = slab.components.labels
        for table, measure in zip(tables, measures, strict=True):
            table.append(measure.of(slab)[1 if table else 0 :])
        lowest, highest = (_face(slab, end, ends[-1]) for end in (0, -1))
        if below is not None:
            faces.append(_touching(below, lowest, connectivity, tolerance))
        below = highest
        ends.append(ends[-1] + slab.components.count)
        del slab, labels  # so that two never are in memory
    moved, into = _united(np.concatenate(faces))
    numbers = _renumbered(ends[-1], moved, into)
    measured = []
    for measure, parts in zip(measures, tables, strict=True):
        whole = np.concatenate(parts)
        parts.clear()
        measure.join.at(whole, into, whole[moved])
        measured.append(np.delete(whole, moved, axis=0))
    by_slab = (np.append(numbers[:1], numbers[a + 1 : b + 1]) for a, b in pairwise(ends))
    return Joined(tuple(by_slab), ends[-1] - moved.size, tuple(measured))


@dataclass(frozen=True)
class _Face:
    """The first or last plane (Y, X) of a slab: its labels, told apart from other slabs', and its grey values."""

    labels: Indices
    grey: NDArray[Any] | None


def _face(slab: LabelledSlab, end: int, before: int) -> _Face:
    plane = as_numpy(slab.components.labels[end])
    numbered = np.where(plane > 0, plane.astype(np.int64) + before, 0)
    return _Face(numbered, None if slab.grey is None else comparable(as_numpy(slab.grey[end])))


def _touching(below: _Face, above: _Face, connectivity: Connectivity, tolerance: float) -> Indices:
    """The pairs of labels, (n, 2), that are neighbours across the face between two planes (Y, X)."""
    found, base = [], int(above.labels.max()) + 1
    for dy, dx in product((-1, 0, 1), repeat=2):
        if abs(dy) + abs(dx) <= _AWAY[connectivity]:
            here, there = (_part(dy), _part(dx)), (_part(-dy), _part(-dx))
            one, other = below.labels[here], above.labels[there]
            meet = (one > 0) & (other > 0)
            if below.grey is not None and above.grey is not None:
                meet &= abs(below.grey[here] - above.grey[there]) <= tolerance
            codes = (one * base + other)[meet]
            # Along a row the same two meet again and again: what is left is sorted.
            found.append(codes[np.append(True, codes[1:] != codes[:-1])[: codes.size]])
    return np.stack(np.divmod(np.unique(np.concatenate(found)), base), axis=-1)


def _part(step: int) -> slice:
    return slice(max(0, step), min(0, step) or None)


def _united(pairs: Indices) -> tuple[Indices, Indices]:
    """The labels that are another name for a component, and the lowest label of theirs, (n,) each."""
    labels, places = np.unique(pairs, return_inverse=True)
    one, other = places.reshape(-1, 2).T
    graph = coo_array((np.ones(one.size, dtype=np.bool_), (one, other)), shape=(labels.size, labels.size))
    _, group = csgraph.connected_components(graph, directed=False)
    lowest = labels[np.unique(group, return_index=True)[1]][group]
    moved = labels != lowest
    return labels[moved], lowest[moved]


def _renumbered(total: int, moved: Indices, into: Indices) -> NDArray[Any]:
    """The component of each of the labels 0 to total, without gaps."""
    stays = np.ones(total + 1, dtype=np.bool_)
    stays[moved] = stays[0] = False
    numbers = np.cumsum(stays, dtype=np.int32 if total < 2**31 else np.int64)
    numbers[moved] = numbers[into]
    return numbers


def _voxels(slab: LabelledSlab) -> Indices:
    return counts(slab.components.labels, slab.components.count)


def _seeds(slab: LabelledSlab) -> Indices:
    return counts(slab.components.labels, slab.components.count, where=slab.seeds)


def _first(slab: LabelledSlab) -> Indices:
    first = first_places(slab.components.labels, slab.components.count)
    first[1:] += slab.start * slab.volume.y * slab.volume.x
    return first


def at_edge(axes: tuple[int, ...]) -> Measure:
    """Whether a component reaches the volume's edge along some axes.

    An axis of one voxel has no edge, but where all are such.
    """

    def _reaches(slab: LabelledSlab) -> NDArray[np.bool_]:
        labels, count, volume = slab.components.labels, slab.components.count, slab.volume
        sides = [labels[:, end] for end in (0, -1) if 1 in axes and volume.y > 1]
        sides += [labels[..., end] for end in (0, -1) if 2 in axes and volume.x > 1]
        if 0 in axes and volume.z > 1:
            sides += [labels[0]] * (slab.start == 0) + [labels[-1]] * (slab.start + len(labels) == volume.z)
        reaches = np.full(count + 1, all(volume[axis] == 1 for axis in axes))
        for side in sides:
            reaches |= occurs(side, count)
        return reaches

    return Measure(_reaches, np.logical_or)


VOXELS = Measure(_voxels, np.add)
"""How many voxels a component has."""

SEEDS = Measure(_seeds, np.add)
"""How many of them are in the second mask."""

FIRST = Measure(_first, np.minimum)
"""Where its first voxel lies: its index in the flat volume."""

AT_EDGE = at_edge((0, 1, 2))
"""Whether it reaches the volume's edge."""
