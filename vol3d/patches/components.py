"""Some voxels of every component of a region, found slab by slab, so that small ones can be drawn as often as large."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vol3d.geometry.grid import planes_in, slabs
from vol3d.patches.sampling import MAX_PLACES
from vol3d.regions.blocks import LabelledSlab, join_slabs
from vol3d.regions.components import Components, component_sizes, label
from vol3d.volume.source import VolumeSource

_SLAB_VOXELS = 1 << 24
_OF_EACH = 64


def component_places(
    labels: VolumeSource, region: NDArray[np.bool_], rng: np.random.Generator, *, slab_voxels: int = _SLAB_VOXELS
) -> NDArray[np.int32]:
    """Some voxels of each component (26) of a region, (n, 4): z, y, x and the component's number from 0, which rises.

    region (256,) says which label values are its. Of each component there are 1 to 64 voxels, fewer where there are
    many components: 10,000 in all, if there are no more components than that.
    """
    found: list[NDArray[np.int32]] = []

    def labelled() -> Iterator[LabelledSlab]:
        for box in slabs(labels.shape, planes_in(labels.shape, slab_voxels)):
            components = label(region[labels.read(box)[0]])
            found.append(_some(components, box.start.z, rng))
            yield LabelledSlab(components, np.zeros(0, np.bool_), box.start.z, labels.shape)

    joined = join_slabs(labelled(), ())
    for places, numbers in zip(found, joined.numbers, strict=True):
        places[:, 3] = numbers[places[:, 3]] - 1
    return _at_most(np.concatenate(found), max(1, min(_OF_EACH, MAX_PLACES // max(1, joined.count))), rng)


def _some(components: Components, start: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """Voxels of each component of a slab that begins at a plane, with its label."""
    flat = components.labels.reshape(-1)
    inside = np.flatnonzero(flat)
    # Few enough to sort, yet of each component more than are wanted, or all.
    inside = inside[rng.random(inside.size) * component_sizes(components)[flat[inside]] < 4 * _OF_EACH]
    z, y, x = np.unravel_index(inside, components.labels.shape)
    return _at_most(np.stack([z + start, y, x, flat[inside]], axis=1).astype(np.int32), _OF_EACH, rng)


def _at_most(places: NDArray[np.int32], most: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """No more than so many of each component, in the components' order."""
    places = rng.permutation(places)
    places = places[np.argsort(places[:, 3], kind="stable")]
    rank = np.arange(len(places)) - np.searchsorted(places[:, 3], places[:, 3])
    return places[rank < most]
