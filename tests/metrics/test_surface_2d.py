"""A volume one voxel thick: outlines instead of surfaces."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from skimage.measure import find_contours

from vol3d.metrics import hd95_mm, surface_dice
from vol3d.metrics.report import score_case
from vol3d.regions.cubes import area_table, outline_codes
from vol3d.shapes import Spacing
from vol3d.volume.labels import LabelSchema, Region

SPACING = Spacing(5.0, 0.8, 0.3)
PICTURES = array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=9).flatmap(
    lambda shape: st.tuples(arrays(np.bool_, (1, *shape)), arrays(np.bool_, (1, *shape)))
)
Pair = tuple[NDArray[np.bool_], NDArray[np.bool_]]


def block(y: slice, x: slice, shape: tuple[int, int, int] = (1, 12, 16)) -> NDArray[np.bool_]:
    mask = np.zeros(shape, dtype=np.bool_)
    mask[0, y, x] = True
    return mask


def test_an_outline_has_the_length_that_marching_squares_draw(rng: np.random.Generator) -> None:
    mask = np.zeros((1, 14, 17), dtype=np.bool_)
    mask[0, 1:-1, 1:-1] = rng.random((12, 15)) < 0.5
    lines = find_contours(mask[0].astype(float), 0.5)
    length = sum(np.linalg.norm(np.diff(line, axis=0) * SPACING[1:], axis=1).sum() for line in lines)
    assert area_table(SPACING)[outline_codes(mask)].sum() / SPACING.z == pytest.approx(length)


def test_caps_do_not_count() -> None:
    # Of a volume's slab nearly all surface is its two caps; in a picture the sides alone are wrong.
    one, other = block(slice(2, 10), slice(2, 14)), block(slice(3, 9), slice(3, 13))
    assert surface_dice(one, other, spacing=SPACING) == 0.0
    thick = [np.pad(mask, ((1, 1), (0, 0), (0, 0))) for mask in (one, other)]
    assert (surface_dice(thick[0], thick[1], spacing=SPACING) or 0) > 0.5
    assert hd95_mm(one, other, spacing=SPACING) == pytest.approx(np.hypot(0.8, 0.3), rel=0.1)


@given(pair=PICTURES, data=st.data())
def test_the_spacing_across_and_the_axis_across_do_not_matter(pair: Pair, data: st.DataObject) -> None:
    one, other = pair
    assume(one.any() and other.any())
    axis = data.draw(st.integers(0, 2))
    turned = [np.moveaxis(mask, 0, axis) for mask in pair]
    steps = [SPACING.y, SPACING.x]
    steps.insert(axis, 0.01)
    spacing = Spacing(*steps)
    score = surface_dice(one, other, spacing=SPACING)
    assert surface_dice(turned[0], turned[1], spacing=spacing) == pytest.approx(score)
    assert surface_dice(one, other, spacing=SPACING, tolerance_mm=0.0) == pytest.approx(score)
    near = surface_dice(one, other, spacing=SPACING, tolerance_mm=0.8)
    assert surface_dice(turned[0], turned[1], spacing=spacing, tolerance_mm=0.8) == pytest.approx(near)
    assert hd95_mm(turned[0], turned[1], spacing=spacing) == pytest.approx(hd95_mm(one, other, spacing=SPACING))
    assert surface_dice(one, one, spacing=SPACING) == 1.0


def test_a_mask_in_one_slice_of_a_volume_is_no_picture() -> None:
    schema = LabelSchema((Region("disc", (1,)),))
    one, other = block(slice(2, 10), slice(2, 14)), block(slice(3, 9), slice(3, 13))
    volumes = [np.pad(mask, ((2, 1), (0, 0), (0, 0))).astype(np.uint8) for mask in (one, other)]
    picture = score_case(one.astype(np.uint8), other.astype(np.uint8), schema=schema, spacing=SPACING)[0].values
    volume = score_case(volumes[0], volumes[1], schema=schema, spacing=SPACING)[0].values
    assert picture["surface_dice"] == 0.0 and (volume["surface_dice"] or 0) > 0.5
    assert picture["dice"] == volume["dice"]
    assert picture["volume_difference_mm3"] == volume["volume_difference_mm3"] == pytest.approx(36 * 5.0 * 0.8 * 0.3)
