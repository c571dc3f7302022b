"""A mask's extent is that of the whole, however it is read."""

import numpy as np
import pytest

from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.regions.extent import Extent, extent, grown_mm
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.volume.source import ArraySource

SPACING = Spacing(0.8, 1.0, 3.0)


def extent_of(mask: np.ndarray) -> Extent:
    return extent(ArraySource(mask[None].astype(np.uint8) * 3, from_spacing(SPACING)))


@pytest.mark.parametrize("share", [1e-4, 1e-3, 0.3])
def test_the_extent_is_that_of_the_whole_mask(share: float, rng: np.random.Generator) -> None:
    for _ in range(20):
        mask = rng.random((70, 9, 13)) < share
        assert extent_of(mask) == Extent(int(mask.sum()), Box.around(mask))


def test_a_mask_without_voxels_has_no_box() -> None:
    assert extent_of(np.zeros((70, 9, 13), dtype=bool)) == Extent(0, None)


def test_a_margin_is_in_millimetres_and_ends_at_the_volume() -> None:
    box, shape = Box(Index3(10, 4, 3), Index3(12, 5, 6)), Shape3(40, 31, 17)
    assert grown_mm(box, 2.4, spacing=SPACING, shape=shape) == Box(Index3(7, 2, 3), Index3(15, 7, 6))
    assert grown_mm(box, 3.0, spacing=SPACING, shape=shape) == Box(Index3(7, 1, 2), Index3(15, 8, 7))
    assert grown_mm(box, 0.0, spacing=SPACING, shape=shape) == box
    assert grown_mm(box, 1e300, spacing=SPACING, shape=shape) == Box.whole(shape)
