from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from vol3d.regions.blocks import AT_EDGE, FIRST, SEEDS, VOXELS, Joined, LabelledSlab, join_slabs
from vol3d.regions.components import Components, Connectivity, component_sizes, label
from vol3d.shapes import Shape3

MASKS = arrays(np.bool_, array_shapes(min_dims=3, max_dims=3, max_side=7), fill=st.nothing())
CONNECTIVITIES: tuple[Connectivity, ...] = (6, 18, 26)
MEASURES = (VOXELS, SEEDS, FIRST, AT_EDGE)


def joined(
    mask: np.ndarray, seeds: np.ndarray, cuts: list[int], connectivity: Connectivity
) -> tuple[Joined, Components]:
    """What is found slab by slab, and the volume with the components that it names."""
    labels = []

    def slabs() -> Iterator[LabelledSlab]:
        for start, stop in zip([0, *cuts], [*cuts, len(mask)], strict=True):
            components = label(mask[start:stop], connectivity=connectivity)
            labels.append(components.labels)
            yield LabelledSlab(components, seeds[start:stop], start, Shape3(*mask.shape))

    found = join_slabs(slabs(), MEASURES, connectivity=connectivity)
    named = np.concatenate([numbers[part] for numbers, part in zip(found.numbers, labels, strict=True)])
    return found, Components(named.astype(np.int32), found.count)


@given(mask=MASKS, connectivity=st.sampled_from(CONNECTIVITIES), data=st.data())
def test_slabs_have_the_components_of_the_whole(
    mask: np.ndarray, connectivity: Connectivity, data: st.DataObject
) -> None:
    seeds = data.draw(arrays(np.bool_, mask.shape, fill=st.nothing()))
    cuts = data.draw(st.lists(st.integers(1, len(mask) - 1), unique=True).map(sorted)) if len(mask) > 1 else []
    found, components = joined(mask, seeds, cuts, connectivity)
    whole = label(mask, connectivity=connectivity)
    pairs = np.unique(np.stack([components.labels[mask], whole.labels[mask]]), axis=1)
    assert found.count == whole.count == pairs.shape[1]
    np.testing.assert_array_equal(components.labels > 0, mask)
    voxels, seeded, first, at_edge = found.measured
    np.testing.assert_array_equal(voxels[1:], component_sizes(components)[1:])
    for number in range(1, found.count + 1):
        inside = components.labels == number
        assert seeded[number] == (inside & seeds).sum()
        assert first[number] == np.flatnonzero(inside)[0]
        faces = [inside.take(end, axis=axis).any() for axis in range(3) if mask.shape[axis] > 1 for end in (0, -1)]
        assert at_edge[number] == (any(faces) or mask.size == 1)


@pytest.mark.parametrize(("connectivity", "count"), [(6, 3), (18, 2), (26, 1)])
def test_faces_edges_and_corners_join_across_a_cut(connectivity: Connectivity, count: int) -> None:
    for flip in (1, -1):
        mask = np.zeros((3, 5, 6), dtype=np.bool_)
        mask[0, 0, 0] = mask[1, 1, 0] = mask[2, 2, 1] = True  # an edge neighbour above, then a corner neighbour
        mask = mask[:, ::flip, ::flip]
        assert joined(mask, mask, [1, 2], connectivity)[0].count == count


def test_many_parts_become_one(rng: np.random.Generator) -> None:
    mask = np.zeros((40, 30, 30), dtype=np.bool_)
    mask[:, ::2, ::2] = mask[-1] = True  # 225 columns in every slab, joined at the very end alone
    found, _ = joined(mask, rng.random(mask.shape) < 0.5, list(range(1, 40)), 26)
    assert found.count == 1
    assert [table[1] for table in found.measured][::2] == [mask.sum(), 0]
    assert sum(len(numbers) - 1 for numbers in found.numbers) == 39 * 225 + 1
