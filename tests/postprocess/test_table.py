import numpy as np
import plain_steps
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from vol3d.geometry.affine import from_spacing, spacing_of
from vol3d.postprocess.table import component_table
from vol3d.regions.components import Connectivity, label
from vol3d.regions.measures import form
from vol3d.shapes import Spacing
from vol3d.volume.source import ArraySource

SHAPES = array_shapes(min_dims=3, max_dims=3, max_side=6)


@given(data=st.data(), planes=st.integers(1, 6), connectivity=st.sampled_from((6, 18, 26)))
def test_a_row_tells_what_its_component_is(data: st.DataObject, planes: int, connectivity: Connectivity) -> None:
    shape = data.draw(SHAPES)
    mask, organ = (data.draw(arrays(np.bool_, shape, fill=st.nothing())) for _ in range(2))
    p = data.draw(arrays(np.float16, shape, elements=st.sampled_from((0.0, 0.25, 0.5, 1.0)), fill=st.nothing()))
    affine = np.array([[0.0, 0.6, 2.4, -20], [0, 0.8, -1.8, 7.5], [0.8, 0, 0, 31], [0, 0, 0, 1]])
    spacing = spacing_of(affine)
    sources = [ArraySource(array[None], affine) for array in (mask, p, organ)]
    table = component_table(
        sources[0], probability=sources[1], organ=sources[2], connectivity=connectivity, planes=planes
    )
    components = label(mask, connectivity=connectivity)
    numbers, first = np.unique(components.labels[mask], return_index=True)
    assert {len(column) for column in table.values()} == {len(numbers)}
    for row, number in enumerate(numbers[np.argsort(first)]):
        told, own = {name: column[row] for name, column in table.items()}, components.labels == number
        places = np.argwhere(own)
        assert (told["voxels"], told["peak_probability"]) == (len(places), p[own].max())
        assert told["volume_mm3"] == pytest.approx(len(places) * spacing.voxel_mm3)
        assert [told[f"start_{a}"] for a in "zyx"] == places.min(axis=0).tolist()
        assert [told[f"stop_{a}"] for a in "zyx"] == (places.max(axis=0) + 1).tolist()
        centroid = places.mean(axis=0)
        np.testing.assert_allclose([told[f"centroid_{a}"] for a in "zyx"], centroid)
        np.testing.assert_allclose([told[f"centroid_{a}_mm"] for a in "xyz"], (affine @ [*centroid, 1])[:3])
        one, two, three = plain_steps.lengths_mm(own, spacing)
        np.testing.assert_allclose([told["elongation"], told["flatness"]], [one / two, two / three])
        assert told["mean_probability"] == pytest.approx(p[own].mean(dtype=np.float64))
        assert told["organ_share"] == pytest.approx(organ[own].mean())
        assert told["organ_distance_mm"] == pytest.approx(plain_steps.nearest(own, organ, spacing))


def test_the_whole_and_any_cut_are_equal_to_the_last_bit(rng: np.random.Generator) -> None:
    mask, organ = rng.random((20, 31, 17)) < 0.15, rng.random((20, 31, 17)) < 0.01
    p = ArraySource(rng.random((1, 20, 31, 17), dtype=np.float32), np.eye(4))
    mask_source, organ_source = (ArraySource(m[None], from_spacing(Spacing(0.8, 1.0, 3.0))) for m in (mask, organ))
    whole, *cuts = (
        component_table(mask_source, probability=p, organ=organ_source, planes=planes) for planes in (20, 1, 7)
    )
    for cut in cuts:
        assert cut.keys() == whole.keys()
        for name, column in whole.items():
            np.testing.assert_array_equal(cut[name], column, err_msg=name)


def test_an_empty_mask_has_no_rows_and_an_empty_organ_is_infinitely_far() -> None:
    empty = ArraySource(np.zeros((1, 4, 5, 6), dtype=np.bool_), np.eye(4))
    full = ArraySource(np.ones((1, 4, 5, 6), dtype=np.bool_), np.eye(4))
    assert {len(column) for column in component_table(empty, organ=full).values()} == {0}
    (row,) = component_table(full, organ=empty)["organ_distance_mm"]
    assert row == np.inf


def test_a_form_far_from_the_origin_is_that_at_the_origin() -> None:
    """What is rounded does not grow with the place: a thin tube of a million voxels at index 10^4."""
    n, far = 1_000_000, 10_000
    z = np.arange(n, dtype=np.int64)
    sums = [int(np.sum(z)), int(np.sum(z * z))]
    near = [sums[0], 0, 0, sums[1], 0, 0, 0, 0, 0]
    y, x = far, far + 1
    moved = [sums[0], y * n, x * n, sums[1], y * y * n, x * x * n, y * sums[0], x * sums[0], y * x * n]
    forms = [form(np.array([n]), np.array([m]), Spacing(0.8, 1.0, 3.0)) for m in (near, moved)]
    np.testing.assert_array_equal(forms[0].lengths_mm, forms[1].lengths_mm)
    np.testing.assert_allclose(forms[0].lengths_mm[0], np.array([0.8 * n, 3.0, 1.0]) / np.sqrt(12))
