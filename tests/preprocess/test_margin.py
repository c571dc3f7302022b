import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.preprocess.margin import MarginView
from vol3d.regions.distance import dilate_mm, erode_mm
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.volume.source import ArraySource, read_all

STEPS = st.sampled_from((0.1, 0.3, 0.8, 1.0, 3.0))
MARGINS = (0.0, 0.3, 1.0, 2.5, 100.0, -0.3, -1.0, -2.5, -100.0)


@given(
    mask=arrays(np.bool_, array_shapes(min_dims=3, max_dims=3, max_side=7), fill=st.nothing()),
    spacing=st.builds(Spacing, STEPS, STEPS, STEPS),
    margin_mm=st.sampled_from(MARGINS),
    data=st.data(),
)
def test_a_box_is_that_box_of_the_whole(
    mask: np.ndarray, spacing: Spacing, margin_mm: float, data: st.DataObject
) -> None:
    view = MarginView(ArraySource(mask[None], from_spacing(spacing)), margin_mm)
    moved = dilate_mm(mask, margin_mm, spacing) if margin_mm >= 0 else erode_mm(mask, -margin_mm, spacing)
    np.testing.assert_array_equal(read_all(view)[0], moved)
    start = Index3(*(data.draw(st.integers(0, n - 1)) for n in mask.shape))
    stop = Index3(*(data.draw(st.integers(a + 1, n)) for a, n in zip(start, mask.shape, strict=True)))
    np.testing.assert_array_equal(view.read(Box(start, stop))[0], moved[Box(start, stop).slices])


def test_a_margin_reads_as_far_as_it_reaches_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    source, asked = ArraySource(np.zeros((1, 20, 31, 17), np.bool_), from_spacing(Spacing(0.8, 1.0, 3.0))), []
    read = ArraySource.read
    monkeypatch.setattr(ArraySource, "read", lambda self, box: asked.append(box) or read(self, box))
    for margin_mm in (2.5, -2.5):
        MarginView(source, margin_mm).read(Box(Index3(8, 1, 16), Index3(10, 5, 17)))
    assert asked == [Box(Index3(4, 0, 15), Index3(14, 8, 17))] * 2


def test_labels_are_a_mask_of_one_channel() -> None:
    labels = np.zeros((2, 4, 5, 6), dtype=np.int16)
    labels[0, 1, 2, 3], labels[1] = 7, 1
    view = MarginView(ArraySource(labels, from_spacing(Spacing(0.8, 1.0, 3.0))))
    assert (view.channels, view.dtype, view.shape) == (1, np.bool_, Shape3(4, 5, 6))
    assert read_all(view).shape == (1, 4, 5, 6)
    assert np.argwhere(read_all(view)[0]).tolist() == [[1, 2, 3]]
