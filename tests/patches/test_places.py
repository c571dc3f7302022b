"""Places found slab by slab are those found in the whole volume at once."""

import numpy as np
import pytest
from numpy.typing import NDArray

from vol3d.patches import places
from vol3d.patches.places import places_in
from vol3d.volume.source import ArraySource

TABLE = np.zeros((4, 256), np.bool_)
TABLE[0, [1, 2]] = TABLE[1, 2] = TABLE[3] = True  # the third row is of labels that do not occur


def places_of(mask: NDArray[np.bool_], rng: np.random.Generator, most: int) -> NDArray[np.int32]:
    flat = np.flatnonzero(mask)
    if flat.size > most:
        flat = np.sort(rng.choice(flat, most, replace=False))
    return np.stack(np.unravel_index(flat, mask.shape), axis=1).astype(np.int32)


@pytest.mark.parametrize("voxels", [1, 3 * 31 * 17, 1 << 22])
@pytest.mark.parametrize("most", [10_000, 500])
def test_any_slabs_give_the_same_places(voxels: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_SLAB_VOXELS", voxels)
    labels = np.random.default_rng(3).integers(0, 3, (20, 31, 17)).astype(np.uint8)
    labels[5:9] = 0
    found = places_in(ArraySource(labels[None], np.eye(4)), TABLE, np.random.default_rng(8), most=most)
    rng = np.random.default_rng(8)
    for ours, row in zip(found, TABLE, strict=True):
        whole = places_of(row[labels], rng, most)
        assert ours.dtype == whole.dtype
        np.testing.assert_array_equal(ours, whole)
    assert len(found[2]) == 0 < len(found[1]) <= most
