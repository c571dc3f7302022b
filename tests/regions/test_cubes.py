from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from vol3d.regions.cubes import area_table, cube_codes, paired_codes
from vol3d.shapes import Spacing

CORNERS = list(product((0, 1), repeat=3))
STEPS = st.floats(0.1, 5.0)
SPACINGS = st.builds(Spacing, STEPS, STEPS, STEPS)


def cube(code: int) -> np.ndarray:
    """The 2x2x2 voxels of a code."""
    return np.array([code >> bit & 1 for bit in range(8)], dtype=np.bool_).reshape(2, 2, 2)


def code_of(voxels: np.ndarray) -> int:
    return sum(1 << (4 * z + 2 * y + x) for z, y, x in CORNERS if voxels[z, y, x])


@given(mask=arrays(np.bool_, array_shapes(min_dims=3, max_dims=3, max_side=6)))
def test_a_code_holds_the_eight_voxels_of_its_cube(mask: np.ndarray) -> None:
    padded = np.pad(mask, 1)
    codes = cube_codes(mask)
    assert codes.dtype == np.uint8
    assert codes.shape == tuple(n + 1 for n in mask.shape)
    for z, y, x in np.ndindex(codes.shape):
        assert codes[z, y, x] == code_of(padded[z : z + 2, y : y + 2, x : x + 2])


@given(data=st.data(), shape=array_shapes(min_dims=3, max_dims=3, max_side=6))
def test_any_cut_into_slabs_counts_the_same_pairs(data: st.DataObject, shape: tuple[int, ...]) -> None:
    one, other = data.draw(arrays(np.bool_, shape)), data.draw(arrays(np.bool_, shape))
    cuts = sorted(data.draw(st.lists(st.integers(0, shape[0]))))  # also slabs without planes
    counts = paired_codes(zip(np.split(one, cuts), np.split(other, cuts), strict=True))
    expected = np.zeros((256, 256), dtype=np.int64)
    np.add.at(expected, (cube_codes(one), cube_codes(other)), 1)
    flat = [0, 255]
    expected[np.ix_(flat, flat)] = 0
    np.testing.assert_array_equal(counts, expected)


def test_the_unit_table_is_the_canonical_one() -> None:
    table = area_table(Spacing(1, 1, 1))
    positive = np.unique(table[table > 0].round(6))
    assert len(positive) == 12
    assert positive[[0, -1]] == pytest.approx([0.216506, 1.573132])
    assert table.sum() == pytest.approx(241.3431, abs=1e-4)
    assert table[0] == table[255] == 0
    assert table[1:255].min() > 0


@settings(max_examples=5)
@given(spacing=SPACINGS)
def test_mirrors_and_the_complement_keep_the_area_and_turned_axes_turn_the_spacing(spacing: Spacing) -> None:
    table = area_table(spacing)
    for order in permutations(range(3)):
        turned = area_table(Spacing(*(spacing[axis] for axis in order)))
        for axes in ((), (0,), (1,), (2,), (0, 1, 2)):
            images = [code_of(np.flip(cube(code).transpose(order), axes)) for code in range(256)]
            np.testing.assert_allclose(turned[images], table)
    np.testing.assert_allclose(table[::-1], table)


@given(spacing=SPACINGS)
def test_a_flat_face_has_the_area_of_its_pixel(spacing: Spacing) -> None:
    table = area_table(spacing)
    assert table[0b11110000] == pytest.approx(spacing.y * spacing.x)
    assert table[0b11001100] == pytest.approx(spacing.z * spacing.x)
    assert table[0b10101010] == pytest.approx(spacing.z * spacing.y)
