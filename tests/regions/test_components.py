from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from vol3d.regions.components import (
    Components,
    Connectivity,
    Labeller,
    component_boxes,
    component_sizes,
    keep,
    label,
    label_planes,
)

MASKS = arrays(np.bool_, array_shapes(min_dims=3, max_dims=3, max_side=7))
CONNECTIVITIES = st.sampled_from((6, 18, 26))
LABELLERS: tuple[Labeller, ...] = ("cc3d", "scipy")


def canonical(components: Components) -> np.ndarray:
    """Labels renumbered by first appearance: equal for equal partitions."""
    values, first = np.unique(components.labels, return_index=True)
    order = np.argsort(first[values > 0])
    table = np.zeros(components.count + 1, dtype=np.int64)
    table[values[values > 0][order]] = np.arange(1, components.count + 1)
    return table[components.labels]


@given(mask=MASKS, connectivity=CONNECTIVITIES)
def test_both_labellers_give_the_same_partition_and_types(mask: np.ndarray, connectivity: Connectivity) -> None:
    one, other = (label(mask, connectivity=connectivity, labeller=name) for name in LABELLERS)
    assert one.labels.dtype == other.labels.dtype == np.int32
    assert one.count == other.count
    np.testing.assert_array_equal(canonical(one), canonical(other))
    np.testing.assert_array_equal(one.labels > 0, mask)


@given(mask=MASKS, connectivity=CONNECTIVITIES, labeller=st.sampled_from(LABELLERS))
def test_a_tensor_has_the_components_of_its_array(
    mask: np.ndarray, connectivity: Connectivity, labeller: Labeller
) -> None:
    array = label(mask, connectivity=connectivity, labeller=labeller)
    tensor = label(torch.from_numpy(mask), connectivity=connectivity, labeller=labeller)
    assert (tensor.labels.dtype, tensor.count) == (torch.int32, array.count)
    np.testing.assert_array_equal(tensor.labels.numpy(), array.labels)
    odd = np.arange(array.count + 1) % 2 == 1
    np.testing.assert_array_equal(keep(tensor, odd).numpy(), keep(array, odd))


@given(mask=MASKS, data=st.data())
def test_keep_takes_the_sizes_it_says(mask: np.ndarray, data: st.DataObject) -> None:
    found = label(mask)
    sizes = component_sizes(found)
    assert sizes.shape == (found.count + 1,)
    assert sizes[0] == 0
    assert sizes.sum() == mask.sum()
    kept = data.draw(arrays(np.bool_, found.count + 1))
    before = kept.copy()
    assert keep(found, kept).sum() == sizes[kept].sum()
    np.testing.assert_array_equal(kept, before)


@given(mask=MASKS)
def test_boxes_are_tight(mask: np.ndarray) -> None:
    found = label(mask)
    boxes = component_boxes(found)
    assert len(boxes) == found.count
    for number, box in enumerate(boxes, start=1):
        inside = found.labels[box.slices] == number
        assert inside.sum() == (found.labels == number).sum()
        assert all(inside.take(end, axis=axis).any() for axis in range(3) for end in (0, -1))


@pytest.mark.parametrize(("connectivity", "count"), [(6, 3), (18, 2), (26, 1)])
def test_connectivity_means_faces_edges_corners(connectivity: Connectivity, count: int) -> None:
    mask = np.zeros((4, 5, 6), dtype=np.bool_)
    mask[0, 0, 0] = mask[0, 1, 1] = mask[1, 2, 2] = True  # an edge neighbour, then a corner neighbour
    for labeller in LABELLERS:
        assert label(mask, connectivity=connectivity, labeller=labeller).count == count


@pytest.mark.parametrize("labeller", LABELLERS)
def test_an_empty_mask_and_a_strided_one(labeller: Labeller) -> None:
    empty = label(np.zeros((3, 4, 5), dtype=np.bool_), labeller=labeller)
    assert (empty.count, empty.labels.any(), component_boxes(empty)) == (0, False, [])
    assert component_sizes(empty).tolist() == [0]
    assert label(np.ones((8, 6, 4), dtype=np.bool_)[::2, 1:, ::-1], labeller=labeller).count == 1
    mapped = np.ones((8, 6, 4), dtype=np.bool_)
    mapped.flags.writeable = False
    assert label(mapped, labeller=labeller).count == 1


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 1, 5), (5, 7, 1), (7, 5, 3)])
def test_components_as_dense_as_they_can_lie(shape: tuple[int, int, int]) -> None:
    mask = np.zeros(shape, dtype=np.bool_)
    mask[::2, ::2, ::2] = True
    for labeller in LABELLERS:
        assert label(mask, labeller=labeller).count == mask.sum()


def test_refusals() -> None:
    with pytest.raises(ValueError, match="bool mask, got uint8"):
        label(np.zeros((3, 4, 5), dtype=np.uint8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bool mask, got uint8"):
        label(torch.zeros((3, 4, 5), dtype=torch.uint8))
    with pytest.raises(ValueError, match="6, 18 or 26, got 8"):
        label(np.zeros((3, 4, 5), dtype=np.bool_), connectivity=8)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected 1 entries"):
        keep(label(np.zeros((3, 4, 5), dtype=np.bool_)), np.ones(3, dtype=np.bool_))


@st.composite
def greys(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, float]:
    """A mask, grey values of which many are equal or just within reach, and a tolerance."""
    mask = draw(MASKS)
    steps = draw(arrays(np.int64, mask.shape, elements=st.integers(-3, 5), fill=st.nothing()))
    kind, tolerance = draw(
        st.sampled_from([(np.uint16, 21000.0), (np.int16, 0.0), (np.float32, 0.3), (np.float64, 0.1)])
    )
    return mask, steps.astype(kind) * kind(21000 if kind is np.uint16 else 1 if kind is np.int16 else 0.1), tolerance


@settings(max_examples=60)
@given(drawn=greys(), connectivity=CONNECTIVITIES)
def test_grey_values_join_neighbours_one_by_one(
    drawn: tuple[np.ndarray, np.ndarray, float], connectivity: Connectivity
) -> None:
    mask, grey, tolerance = drawn
    mask.flags.writeable = grey.flags.writeable = False
    exact = np.float64 if grey.dtype == np.float64 else np.float32
    parts = {tuple(map(int, place)): {tuple(map(int, place))} for place in np.argwhere(mask)}
    for here in parts:
        for step in product((-1, 0, 1), repeat=3):
            there = tuple(a + b for a, b in zip(here, step, strict=True))
            near = sum(map(abs, step)) <= (6, 18, 26).index(connectivity) + 1
            if near and there in parts and abs(exact(grey[here]) - exact(grey[there])) <= exact(tolerance):
                whole = parts[here] | parts[there]
                parts.update(dict.fromkeys(whole, whole))
    for labeller in LABELLERS:
        found = label(mask, connectivity=connectivity, grey=grey, tolerance=tolerance, labeller=labeller)
        assert found.labels.dtype == np.int32
        np.testing.assert_array_equal(found.labels > 0, mask)
        assert found.count == len({id(part) for part in parts.values()})
        for part in parts.values():
            assert len({found.labels[place] for place in part}) == 1


def test_a_ramp_is_one_component_and_no_number_joins_nothing() -> None:
    ramp = np.broadcast_to(np.arange(7, dtype=np.float32), (3, 1, 7)).copy()
    ramp[0, 0, 3] = ramp[1, 0, 3] = np.nan
    for labeller in LABELLERS:
        found = label(np.ones(ramp.shape, np.bool_), grey=ramp, tolerance=1.0, labeller=labeller)
        assert found.count == 3
        assert label(np.ones((5, 1, 1), np.bool_), grey=np.zeros((5, 1, 1)), labeller=labeller).count == 1
    with pytest.raises(ValueError, match="grey values of the mask's shape"):
        label(ramp > 0, grey=ramp[1:])


@given(mask=MASKS, axis=st.integers(0, 2))
def test_planes_are_labelled_each_by_itself(mask: np.ndarray, axis: int) -> None:
    found = label_planes(mask, axis)
    cross = ndimage.generate_binary_structure(2, 1)
    counts = []
    for labels, plane in zip(np.moveaxis(found.labels, axis, 0), np.moveaxis(mask, axis, 0), strict=True):
        theirs, count = ndimage.label(plane, cross)
        assert len(np.unique(np.stack([labels, theirs]).reshape(2, -1), axis=1).T) == count + (not plane.all())
        counts.append(count)
    assert found.count == sum(counts) == len(np.unique(found.labels[mask]))
