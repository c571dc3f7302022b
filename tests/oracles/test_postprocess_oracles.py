"""Post-processing against scikit-image, SciPy and cc3d."""

import cc3d
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from plain_steps import SPACING, applied
from scipy import ndimage
from skimage.filters import apply_hysteresis_threshold
from skimage.morphology import flood, remove_small_holes

from vol3d.postprocess.flood import GrowRange
from vol3d.postprocess.morphology import FillHoles, close_gaps, open_mm, smooth_mm
from vol3d.postprocess.size import Largest, SizeFilter
from vol3d.postprocess.threshold import Hysteresis
from vol3d.regions.components import Connectivity

SHAPES = array_shapes(min_dims=3, max_dims=3, max_side=7)
MASKS = arrays(np.bool_, SHAPES, fill=st.nothing())
CONNECTIVITIES = st.sampled_from((6, 18, 26))


def lumpy(rng: np.random.Generator, shape: tuple[int, int, int] = (20, 31, 17)) -> np.ndarray:
    """A smooth probability with components of many sizes."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape), 1.0)
    return ((field - field.min()) / np.ptp(field)).astype(np.float32)


@given(mask=MASKS, voxels=st.integers(1, 9), connectivity=CONNECTIVITIES)
def test_size_filter_is_dust(mask: np.ndarray, voxels: int, connectivity: Connectivity) -> None:
    ours = applied(SizeFilter(min_volume_mm3=voxels * SPACING.voxel_mm3, connectivity=connectivity), mask)
    theirs = cc3d.dust(mask.astype(np.uint8), threshold=voxels, connectivity=connectivity)
    np.testing.assert_array_equal(ours, theirs.astype(np.bool_))


@pytest.mark.parametrize("connectivity", [6, 18, 26])
def test_size_filter_is_scikit_images(rng: np.random.Generator, connectivity: Connectivity) -> None:
    from skimage.morphology import remove_small_objects

    mask = lumpy(rng) > 0.6
    ours = applied(SizeFilter(min_volume_mm3=12 * SPACING.voxel_mm3, connectivity=connectivity), mask)
    rank = (6, 18, 26).index(connectivity) + 1
    np.testing.assert_array_equal(ours, remove_small_objects(mask, max_size=11, connectivity=rank))
    assert 0 < ours.sum() < mask.sum()


@pytest.mark.parametrize("count", [1, 3])
def test_largest_are_cc3ds(rng: np.random.Generator, count: int) -> None:
    mask = lumpy(rng) > 0.6
    theirs = cc3d.largest_k(mask, k=count, connectivity=26).astype(np.bool_)
    np.testing.assert_array_equal(applied(Largest(count=count), mask), theirs)


@given(
    p=arrays(np.float32, SHAPES, elements=st.sampled_from([np.float32(n / 8) for n in range(9)]), fill=st.nothing()),
    low=st.integers(1, 8),
    more=st.integers(0, 7),
)
def test_hysteresis_is_scikit_images(p: np.ndarray, low: int, more: int) -> None:
    high = min(8, low + more)
    step = Hysteresis(seed_threshold=high / 8, grow_threshold=low / 8, connectivity=6)
    ours = applied(step, np.zeros(p.shape, dtype=np.bool_), probability=p)
    # scikit-image joins by faces, and its bounds are exclusive: half a grey step below ours.
    theirs = apply_hysteresis_threshold(p, low / 8 - 1 / 16, high / 8 - 1 / 16)
    np.testing.assert_array_equal(ours, theirs)


@given(mask=MASKS)
def test_fill_is_scipys(mask: np.ndarray) -> None:
    # An axis of one voxel has no edge: SciPy is asked about the plane, or line, that is left.
    expected = ndimage.binary_fill_holes(np.atleast_1d(mask.squeeze())).reshape(mask.shape)
    np.testing.assert_array_equal(applied(FillHoles(), mask), expected)


def test_small_holes_are_scikit_images(rng: np.random.Generator) -> None:
    mask = lumpy(rng) < 0.62
    mask[0] = mask[-1] = mask[:, 0] = mask[:, -1] = mask[:, :, 0] = mask[:, :, -1] = True  # no hole at the edge
    ours = applied(FillHoles(max_volume_mm3=8 * SPACING.voxel_mm3), mask)
    np.testing.assert_array_equal(ours, remove_small_holes(mask, max_size=8, connectivity=1))
    assert mask.sum() < ours.sum() < mask.size


def test_closing_is_scipys(rng: np.random.Generator) -> None:
    mask = np.zeros((20, 31, 17), dtype=np.bool_)
    mask[4:16, 4:27, 4:13] = lumpy(rng, (12, 23, 9)) > 0.6
    z, y, x = np.ogrid[-3:4, -2:3, -1:2]
    ball = (z * 0.8) ** 2 + (y * 1.0) ** 2 + (x * 3.0) ** 2 <= 2.0**2
    np.testing.assert_array_equal(
        close_gaps(mask, radius_mm=2.0, spacing=SPACING), ndimage.binary_closing(mask, structure=ball)
    )


def test_opening_is_scipys(rng: np.random.Generator) -> None:
    mask = lumpy(rng) < 0.6
    z, y, x = np.ogrid[-3:4, -2:3, -1:2]
    ball = (z * 0.8) ** 2 + (y * 1.0) ** 2 + (x * 3.0) ** 2 <= 2.0**2
    eroded = ndimage.binary_erosion(mask, structure=ball, border_value=True)
    opened = open_mm(mask, radius_mm=2.0, spacing=SPACING)
    np.testing.assert_array_equal(opened, ndimage.binary_dilation(eroded, structure=ball))
    assert 0 < opened.sum() < mask.sum()


def test_smoothing_is_scipys(rng: np.random.Generator) -> None:
    mask = lumpy(rng) > 0.55
    blurred = ndimage.gaussian_filter(mask.astype(np.float64), [1.5 / step for step in SPACING], truncate=6)
    sure = abs(blurred - 0.5) > 1e-3
    smooth = smooth_mm(mask, sigma_mm=1.5, spacing=SPACING)
    np.testing.assert_array_equal(smooth[sure], (blurred > 0.5)[sure])
    assert sure.mean() > 0.98
    assert (smooth != mask).mean() > 0.01


@given(image=arrays(np.int16, SHAPES, elements=st.integers(0, 5), fill=st.nothing()), tolerance=st.integers(0, 3))
def test_range_growth_from_one_voxel_is_scikit_images_flood(image: np.ndarray, tolerance: int) -> None:
    place = tuple(n // 2 for n in image.shape)
    mask = np.zeros(image.shape, dtype=np.bool_)
    mask[place] = True
    ours = applied(GrowRange(tolerance=float(tolerance), max_growth=None), mask, image=image)
    np.testing.assert_array_equal(ours, flood(image, place, tolerance=tolerance))
