"""nnU-Net's resampling is scikit-image's resize: ours in one pass over taps is the same."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.transform import resize

from vol3d.geometry.affine import from_spacing
from vol3d.preprocess.intensity import Normalisation
from vol3d.preprocess.pipeline import NetworkSpacing, PreprocessSettings, image_view
from vol3d.preprocess.resample import axis_taps
from vol3d.shapes import Spacing
from vol3d.volume.source import ArraySource, read_all


def blocks(shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Noise with an edge, at which splines overshoot."""
    rng = np.random.default_rng(4)
    return (rng.standard_normal(shape) + 9 * (rng.random(shape) > 0.7)).astype(np.float32)


def view(image: NDArray[Any], own: Spacing, target: NetworkSpacing) -> NDArray[Any]:
    settings = PreprocessSettings(
        orientation="stored",
        spacing=target,
        interpolation="spline",
        coarse_axis="nearest",
        normalisation=(Normalisation("none"),),
    )
    result: NDArray[Any] = read_all(image_view(ArraySource(image[None], from_spacing(own)), settings))[0]
    return result


@pytest.mark.parametrize("target", [NetworkSpacing(0.7, 0.9, 1.9), NetworkSpacing(2.2, 1.6, 0.8)])
def test_a_spline_is_scikit_images_resize_of_order_3(target: NetworkSpacing) -> None:
    image = blocks((17, 23, 13))
    ours = view(image, Spacing(1.0, 1.2, 1.4), target)
    theirs = resize(image.astype(np.float64), ours.shape, order=3, mode="edge", anti_aliasing=False)
    assert ours.shape != image.shape
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_far_slices_are_resized_one_by_one_and_then_repeated() -> None:
    image = blocks((7, 23, 13))
    ours = view(image, Spacing(5.0, 1.2, 1.4), NetworkSpacing(3.0, 1.0, 1.0))
    assert ours.shape == (12, 28, 18)
    for number, plane in enumerate(ours):
        slice_ = image[int((number + 0.5) * 7 / 12)].astype(np.float64)
        np.testing.assert_allclose(
            plane, resize(slice_, (28, 18), order=3, mode="edge", anti_aliasing=False), atol=1e-5
        )


@pytest.mark.parametrize(("size", "target"), [(1, 5), (2, 7), (30, 47), (47, 30), (150, 37)])
def test_lerp_is_resize_of_order_1(size: int, target: int) -> None:
    values = blocks((size, 1, 1))[:, 0, 0].astype(np.float64)
    taps = axis_taps(size, target, "lerp")
    expected = resize(values, (target,), order=1, mode="edge", anti_aliasing=False)
    np.testing.assert_allclose((values[taps.index] * taps.weight).sum(axis=1), expected, atol=1e-5)
