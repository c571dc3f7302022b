"""Masks that are hard to label, and components as a graph of voxels: for tests and tools/gpu/labeller_check.py."""

from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csgraph

PERCOLATION = {6: 0.3116, 18: 0.1372, 26: 0.0976}
"""The share of voxels at which noise begins to hang together, by connectivity."""


def labyrinths(shape: tuple[int, int, int]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Masks with their names."""
    z, y, x = np.indices(shape)
    yield "empty", np.zeros(shape, dtype=np.bool_)
    yield "full", np.ones(shape, dtype=np.bool_)
    yield "checkerboard", (z + y + x) % 2 == 0
    yield "apart", (z % 2 == 0) & (y % 2 == 0) & (x % 2 == 0)
    yield "planes of x", x % 2 == 1
    yield "planes of y", y % 2 == 0
    yield "planes of z", z % 3 != 1
    yield "comb", (y % 2 == 0) | (x == shape[2] - 1)
    yield "two combs", ((y % 4 == 0) & (x < shape[2] - 1)) | ((y % 4 == 2) & (x > 0)) | (x == 0) | (x == shape[2] - 1)
    yield "brush", ((y % 2 == 0) & (x % 2 == 0)) | (z == shape[0] - 1)
    yield "serpentine", serpentine(shape)
    yield "spiral", spiral(shape)
    yield "slanting lines", (z + 2 * y + x) % 5 == 0


def serpentine(shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """One line through every second row of every second plane, to and fro."""
    rows = [(z, y) for n, z in enumerate(range(0, shape[0], 2)) for y in range(0, shape[1], 2)[:: -1 if n % 2 else 1]]
    mask = np.zeros(shape, dtype=np.bool_)
    for n, (z, y) in enumerate(rows):
        mask[z, y] = True
        if n + 1 < len(rows):
            onto = rows[n + 1]
            mask[(z + onto[0]) // 2, (y + onto[1]) // 2, 0 if n % 2 else -1] = True
    return mask


def spiral(shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """In every second plane a line that winds inwards, with a gap of a voxel to the turn before."""
    plane = np.zeros(shape[1:], dtype=np.bool_)
    low, high = [0, 0], [shape[1] - 1, shape[2] - 1]
    y = x = turn = 0
    while low[0] <= high[0] and low[1] <= high[1]:
        end = [(y, high[1]), (high[0], x), (y, low[1]), (low[0], x)][turn % 4]
        plane[min(y, end[0]) : max(y, end[0]) + 1, min(x, end[1]) : max(x, end[1]) + 1] = True
        y, x = end
        if turn % 4 == 0:
            low[0] += 2
        elif turn % 4 == 1:
            high[1] -= 2
        elif turn % 4 == 2:
            high[0] -= 2
        else:
            low[1] += 2
        turn += 1
    mask = np.zeros(shape, dtype=np.bool_)
    mask[::2] = plane
    return mask


def by_graph(
    mask: NDArray[np.bool_], connectivity: int, grey: NDArray[np.generic] | None = None, tolerance: float = np.inf
) -> tuple[NDArray[np.int64], int]:
    """Components as SciPy finds them in the graph of neighbours that are alike, numbered by their first voxels."""
    numbers = np.arange(mask.size).reshape(mask.shape)
    wide = np.zeros(mask.shape) if grey is None else grey.astype(np.float32 if grey.dtype.kind == "f" else np.int64)
    pairs = [np.empty((0, 2), dtype=np.int64)]
    for step in product((-1, 0, 1), repeat=3):
        if step < (0, 0, 0) and sum(map(abs, step)) <= {6: 1, 18: 2, 26: 3}[connectivity]:
            here, there = (tuple(slice(max(0, s * d), min(0, s * d) or None) for d in step) for s in (-1, 1))
            joined = mask[here] & mask[there] & (np.abs(wide[here] - wide[there]) <= tolerance)
            pairs.append(np.stack([numbers[here][joined], numbers[there][joined]], axis=1))
    one, other = np.concatenate(pairs).T
    graph = coo_array((np.ones(one.size, dtype=np.bool_), (one, other)), shape=(mask.size, mask.size))
    group = csgraph.connected_components(graph, directed=False)[1]
    return by_first_voxel(np.where(mask, group.reshape(mask.shape) + 1, 0))


def by_first_voxel(labels: NDArray[np.integer]) -> tuple[NDArray[np.int64], int]:
    """Labels numbered 1, 2, ... in the order of their first voxels, and how many there are."""
    values, first, places = np.unique(labels, return_index=True, return_inverse=True)
    inside = values > 0
    numbers = np.zeros(values.size, dtype=np.int64)
    numbers[inside] = np.argsort(np.argsort(first[inside])) + 1
    return numbers[places].reshape(labels.shape), int(inside.sum())
