"""Where the voxels of each region lie, found slab by slab: labels of any size, a slab of them in memory."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vol3d.geometry.box import Box
from vol3d.geometry.grid import planes_in, slabs
from vol3d.patches.sampling import MAX_PLACES
from vol3d.volume.source import VolumeSource

_SLAB_VOXELS = 1 << 22


def places_in(
    labels: VolumeSource, table: NDArray[np.bool_], rng: np.random.Generator, *, most: int = MAX_PLACES
) -> list[NDArray[np.int32]]:
    """For each row of a table (n, 256), at most so many voxels whose label it holds, as indices (m, 3) in order.

    labels (1, Z, Y, X) are uint8. Which voxels are taken does not depend on the slabs: they are drawn by their number
    among all of theirs.
    """
    counts = np.zeros(table.shape[1], dtype=np.int64)
    for _, values in _parts(labels):
        counts += np.bincount(values.reshape(-1), minlength=table.shape[1])
    totals = [int(counts[row].sum()) for row in table]
    wanted = [np.sort(rng.choice(n, most, replace=False)) if n > most else np.arange(n) for n in totals]
    found: list[list[NDArray[np.int32]]] = [[np.empty((0, 3), np.int32)] for _ in table]
    seen = [0] * len(table)
    for box, values in _parts(labels):
        here = np.bincount(values.reshape(-1), minlength=table.shape[1])
        for number, (row, ranks) in enumerate(zip(table, wanted, strict=True)):
            before, seen[number] = seen[number], seen[number] + int(here[row].sum())
            picked = ranks[np.searchsorted(ranks, before) : np.searchsorted(ranks, seen[number])]
            if picked.size:
                flat = np.flatnonzero(row[values])[picked - before]
                places = np.stack(np.unravel_index(flat, values.shape), axis=1).astype(np.int32)
                found[number].append(places + np.array(box.start, np.int32))
    return [np.concatenate(parts) for parts in found]


def _parts(labels: VolumeSource) -> Iterator[tuple[Box, NDArray[np.uint8]]]:
    for box in slabs(labels.shape, planes_in(labels.shape, _SLAB_VOXELS)):
        yield box, labels.read(box)[0]
