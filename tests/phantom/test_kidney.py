import hashlib
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from vol3d.phantom.body import dress, grow_vessels, make_body
from vol3d.phantom.kidney import Kidney, KidneySettings, make_kidney
from vol3d.phantom.tubes import ROUND, draw
from vol3d.shapes import Shape3

SHAPE = Shape3(48, 80, 72)
SEEDS = (0, 1, 2)


@cache
def kidney(seed: int, number: int = 0, shape: Shape3 = SHAPE) -> Kidney:
    return make_kidney(KidneySettings(shape), np.random.default_rng([seed, number]))


def best_threshold_dice(image: NDArray[np.uint16], truth: NDArray[np.bool_]) -> float:
    """Over every threshold t, the Dice of image >= t; a monotone normalisation changes nothing."""
    hits = np.bincount(image[truth], minlength=65536)[::-1].cumsum()
    chosen = np.bincount(image.ravel(), minlength=65536)[::-1].cumsum()
    return float((2 * hits / (chosen + truth.sum())).max())


@given(
    shape=st.sampled_from([Shape3(24, 40, 36), Shape3(16, 16, 16), Shape3(16, 70, 33), Shape3(61, 20, 31)]),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=25)
def test_shape_is_honoured_and_vessels_lie_inside_an_organ_inside_the_volume(shape: Shape3, seed: int) -> None:
    made = make_kidney(KidneySettings(shape), np.random.default_rng(seed))
    assert made.image.shape == made.vessels.shape == made.organ.shape == shape
    assert (made.image.dtype, made.vessels.dtype, made.organ.dtype) == (np.uint16, bool, bool)
    assert made.vessels.any()
    assert not (made.vessels & ~made.organ).any()
    border = np.ones(shape, dtype=bool)
    border[1:-1, 1:-1, 1:-1] = False
    assert not (made.organ & border).any()


def test_the_same_seed_gives_the_same_bytes_and_another_kidney_is_another() -> None:
    again = make_kidney(KidneySettings(SHAPE), np.random.default_rng([0, 0]))
    assert np.array_equal(again.image, kidney(0).image)
    assert np.array_equal(again.vessels, kidney(0).vessels)
    digests = {hashlib.sha256(kidney(s, n).vessels.tobytes()).digest() for s in SEEDS for n in (0, 1)}
    assert len(digests) == 6


@pytest.mark.parametrize("seed", SEEDS)
def test_the_best_threshold_is_far_from_enough(seed: int) -> None:
    made = kidney(seed)
    assert 0.2 < best_threshold_dice(made.image, made.vessels) < 0.5
    assert best_threshold_dice(made.image[made.organ], made.vessels[made.organ]) < 0.6
    assert best_threshold_dice(65535 - made.image[made.organ], made.vessels[made.organ]) < 0.3


@pytest.mark.parametrize("seed", SEEDS)
def test_vessels_are_a_small_share(seed: int) -> None:
    for shape in (SHAPE, Shape3(24, 40, 36)):
        assert 0.005 < kidney(seed, 0, shape).vessels.mean() < 0.05
    assert 0.15 < kidney(seed).organ.mean() < 0.4


@pytest.mark.parametrize("seed", SEEDS)
def test_outside_the_organ_much_is_as_bright_as_vessels(seed: int) -> None:
    made = kidney(seed)
    outside = ~ndimage.binary_dilation(made.organ, iterations=2)
    outside &= np.hypot(*np.ogrid[-1:1:80j, -1:1:72j]) < 0.92  # the container's rim does not count
    bright = made.image > np.percentile(made.image[made.vessels], 60)
    assert (bright & outside).sum() > 0.1 * made.vessels.sum()


@pytest.mark.parametrize("seed", SEEDS)
def test_each_kidney_has_grey_values_of_its_own(seed: int) -> None:
    one, other = (kidney(seed, n).image for n in (0, 1))
    spread = [float(np.subtract(*np.percentile(image, [90, 10]))) for image in (one, other)]
    assert abs(np.median(one) - np.median(other)) > 0.05 * max(spread)
    assert all(image.min() > 0 and image.max() < 65535 for image in (one, other))


def test_vessels_are_hollow_solid_collapsed_and_weak_in_places() -> None:
    rng = np.random.default_rng(0)
    body = make_body(Shape3(64, 128, 128), rng)
    branches = grow_vessels(body, 1.0, rng)
    tubes = [dress(branch, rng) for branch in branches]
    hollow = [t for t in tubes if t.lumen_contrast is not None]
    assert len(hollow) >= 10
    assert all(t.lumen_contrast < 0.5 * t.wall_contrast.max() for t in hollow)
    assert sum(t.squash != ROUND for t in tubes) >= 3
    weak = [t for t in tubes if t.wall_contrast.min() < 0.4 * t.wall_contrast.max()]
    assert len(weak) >= 10
    assert min(t.radius for t in tubes) < 1.2
    assert max(t.radius for t in tubes) > 4
    thin = [t.wall_contrast.max() for t in tubes if t.radius < 1.3]
    assert np.median(thin) < 0.9 * np.median([t.wall_contrast.max() for t in hollow])


def test_lumens_are_darker_than_walls_in_the_image() -> None:
    rng = np.random.default_rng([0, 0])  # the same draws as make_kidney's first steps
    body = make_body(SHAPE, rng)
    tubes = [dress(branch, rng) for branch in grow_vessels(body, 1.0, rng)]
    hollow = [t for t in tubes if t.lumen_contrast is not None and t.radius > 2.2]
    alone = draw(SHAPE, tubes)
    dark = np.zeros(SHAPE, dtype=bool)
    for t in hollow:
        dark |= np.isclose(alone.contrast, np.float32(t.lumen_contrast))
    dark &= alone.mask & body.organ
    wall = (alone.contrast > 0.2) & body.organ
    image = kidney(0).image
    assert dark.sum() > 30
    assert image[dark].mean() < image[wall].mean()


def test_most_of_the_vessels_are_one_tree() -> None:
    labels, count = ndimage.label(kidney(0).vessels, structure=np.ones((3, 3, 3)))
    assert count <= 10
    assert np.bincount(labels.ravel())[1:].max() > 0.9 * kidney(0).vessels.sum()


@pytest.mark.parametrize("wrong", [{"shape": Shape3(15, 40, 40)}, {"smallest_radius_mm": 0.03}, {"voxel_mm": 0.0}])
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"at least"):
        KidneySettings(**{"shape": SHAPE, **wrong})  # type: ignore[arg-type]
