import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from plain_steps import SPACING

from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.postprocess import blocks, clicked
from vol3d.postprocess.clicked import Clicked, grow_from
from vol3d.regions.components import Connectivity, label
from vol3d.shapes import Index3, Shape3
from vol3d.volume.source import ArraySource

AFFINE = from_spacing(SPACING)


def source(image: np.ndarray) -> ArraySource:
    return ArraySource(image[None], AFFINE)


def whole(grown: Clicked, shape: tuple[int, ...]) -> np.ndarray:
    result = np.zeros(shape, dtype=np.bool_)
    result[grown.box.slices] = grown.mask
    return result


@st.composite
def clicks(draw: st.DrawFn) -> tuple[np.ndarray, Index3]:
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 8), st.integers(1, 7)))
    image = draw(arrays(np.uint16, shape, elements=st.sampled_from((0, 0, 3, 5, 65535)), fill=st.nothing()))
    image.flags.writeable = False
    return image, Index3(*(draw(st.integers(0, n - 1)) for n in shape))


@settings(max_examples=60)
@given(
    click=clicks(),
    tolerance=st.sampled_from((0, 2, 3, 70000)),
    connectivity=st.sampled_from((6, 18, 26)),
    reach=st.sampled_from((0, 1, 2, 24)),
    max_distance_mm=st.sampled_from((0.0, 1.6, 3.0, math.inf)),
)
def test_it_is_the_component_of_the_whole_volume(
    click: tuple[np.ndarray, Index3], tolerance: int, connectivity: Connectivity, reach: int, max_distance_mm: float
) -> None:
    image, start = click
    places = np.argwhere(np.ones(image.shape)).reshape(*image.shape, 3)
    near = np.linalg.norm((places - start) * SPACING, axis=-1) <= max_distance_mm + 1e-9
    alike = abs(image.astype(np.int64) - int(image[start])) <= tolerance
    labels = label(alike & near, connectivity=connectivity).labels
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clicked, "FIRST_REACH", reach)
        patch.setattr(blocks, "BLOCK_VOXELS", 1)  # plane by plane
        grown = grow_from(
            source(image), start, tolerance=tolerance, connectivity=connectivity, max_distance_mm=max_distance_mm
        )
    np.testing.assert_array_equal(whole(grown, image.shape), labels == labels[start])
    assert not grown.stopped
    assert (grown.low, grown.high) == (image[start] - float(tolerance), image[start] + float(tolerance))


@dataclass
class Endless:
    """A volume of a terabyte that is made where it is read: a bright rod along y in darkness."""

    seen: list[Shape3] = field(default_factory=list)
    shape = Shape3(8000, 8000, 8000)
    channels, dtype, affine, access, header, says, warnings = (
        1,
        np.dtype(np.uint16),
        AFFINE,
        "random",
        None,
        "place",
        (),
    )

    def read(self, box: Box) -> np.ndarray:
        self.seen.append(box.shape)
        z, y, x = np.ogrid[box.slices]
        rod = (abs(z - 4000) <= 2) & (abs(y - 4000) <= 150) & (abs(x - 4000) <= 1)
        return np.where(rod, 900, 100).astype(np.uint16)[None]


def test_only_what_lies_around_is_read() -> None:
    image = Endless()
    grown = grow_from(image, Index3(4001, 3990, 4000), tolerance=5)
    assert grown.voxels == 5 * 301 * 3
    assert sum(shape.voxels for shape in image.seen) < 49 * 49 * 1000  # the box doubles along the rod alone


def test_a_leak_stops_and_says_so() -> None:
    image = Endless()
    leak = grow_from(image, Index3(10, 10, 10), tolerance=5, max_volume_mm3=1000.0)
    assert leak.stopped
    assert leak.voxels * SPACING.voxel_mm3 > 1000
    assert len(image.seen) <= 3
    rod_mm3 = 5 * 301 * 3 * SPACING.voxel_mm3
    for limit, stopped in ((rod_mm3, False), (rod_mm3 - SPACING.voxel_mm3, True)):
        at = grow_from(image, Index3(4001, 3990, 4000), tolerance=5, max_volume_mm3=limit)
        assert at.stopped == stopped


@pytest.mark.parametrize(
    ("start", "settings", "said"),
    [
        ((20, 0, 0), {}, r"shape \(z, y, x\) \(20, 31, 17\), got \(20, 0, 0\)"),
        ((0, -1, 0), {}, r"got \(0, -1, 0\)"),
        ((0, 0, 1), {}, "holds nan"),
        ((0, 0, 0), {"tolerance": -1}, "tolerance must be zero or more grey values, got -1"),
        ((0, 0, 0), {"connectivity": 8}, "6, 18 or 26, got 8"),
        ((0, 0, 0), {"max_distance_mm": math.nan}, "max_distance_mm must be zero or more, got nan"),
        ((0, 0, 0), {"max_volume_mm3": 0}, "max_volume_mm3 must be more than zero, got 0"),
    ],
)
def test_what_cannot_be_is_refused(start: tuple[int, int, int], settings: dict[str, float], said: str) -> None:
    image = np.zeros((20, 31, 17), dtype=np.float32)
    image[0, 0, 1] = np.nan
    with pytest.raises(ValueError, match=said):
        grow_from(source(image), Index3(*start), **{"tolerance": 1, **settings})
    with pytest.raises(ValueError, match="one channel, got 2"):
        grow_from(ArraySource(np.zeros((2, 3, 4, 5)), AFFINE), Index3(0, 0, 0), tolerance=1)
