import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from vol3d.shapes import Spacing
from vol3d.viewer.error_map import FALSE_POSITIVE, HIT, MISS, ErrorCounts, count_errors, error_map
from vol3d.viewer.figures import PREDICTION_OUTLINE, REFERENCE_OUTLINE, choose_planes, mips, montage, project
from vol3d.viewer.legend import ERROR_COLOURS, Colour, Legend, Palette, component_legend, error_legend
from vol3d.viewer.page import Page, scale_bar

SPACING = Spacing(0.8, 1.0, 3.0)
per_plane = hnp.arrays(np.int64, st.integers(1, 30), elements=st.integers(0, 5))


def lopsided_error() -> tuple[np.ndarray, np.ndarray]:
    reference = np.zeros((20, 31, 17), dtype=np.bool_)
    reference[4:15, 8:22, 3:9] = True
    return np.roll(reference, (3, 5), axis=(0, 1)), reference


def legend_of(codes: np.ndarray, palette: Palette = "default") -> Legend:
    return error_legend("prediction against truth", count_errors(codes), palette=palette)


def has(picture: np.ndarray, colour: Colour, *, pixels: int) -> bool:
    """Whether so many pixels have the colour's hue, at any brightness above a third."""
    wanted = np.array(colour) / np.linalg.norm(colour)
    length = np.linalg.norm(picture.astype(float), axis=-1)
    cosine = picture @ wanted / np.maximum(length, 1e-9)
    return bool(np.count_nonzero((cosine > 0.995) & (length > np.linalg.norm(colour) / 3)) >= pixels)


@pytest.mark.parametrize("palette", ["default", "cb"])
def test_projections_show_every_kind_in_its_colour(palette: Palette) -> None:
    codes = error_map(*lopsided_error())
    picture = mips(codes, SPACING, legend=legend_of(codes, palette), size=600)
    below_the_legend = picture[140:]
    assert picture.dtype == np.uint8
    for colour in ERROR_COLOURS[palette]:
        assert has(below_the_legend, colour, pixels=300)


def test_panels_have_the_shape_that_the_spacing_gives() -> None:
    codes = np.full((20, 31, 17), HIT, dtype=np.uint8)
    picture = mips(codes, SPACING, legend=legend_of(codes), size=900)
    labels, _ = ndimage.label((picture[..., 0] > 120) & (picture[..., 2] < 60))
    boxes = sorted(ndimage.find_objects(labels), key=lambda b: -(b[0].stop - b[0].start) * (b[1].stop - b[1].start))
    along_z, along_y, along_x = boxes[:3]
    z, y, x = (n * mm for n, mm in zip(codes.shape, SPACING, strict=True))
    for box, height, width in ((along_z, y, x), (along_y, z, x), (along_x, y, z)):
        rows, columns = (edge.stop - edge.start for edge in box)
        assert rows / columns == pytest.approx(height / width, rel=0.03)


def test_a_thin_wrong_skin_does_not_hide_the_hits_behind_it() -> None:
    codes = np.full((9, 4, 4), HIT, dtype=np.uint8)
    codes[0] = MISS
    codes[:, 1] = FALSE_POSITIVE
    picture = project(codes, 0, legend_of(codes))
    hit, false_positive, _ = ERROR_COLOURS["default"]
    assert tuple(picture[0, 0]) == pytest.approx(hit, abs=2)
    assert tuple(picture[1, 0]) == pytest.approx(false_positive, abs=2)


def test_what_is_nearer_is_brighter() -> None:
    codes = np.zeros((30, 2, 40), dtype=np.uint8)
    codes[2, :, :20] = codes[25, :, 20:] = HIT
    picture = project(codes, 0, legend_of(codes)).astype(int).sum(axis=-1)
    assert picture[0, 3] > picture[0, 36] > 0


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 300), (300, 1, 2)])
@pytest.mark.parametrize("code", [0, MISS])
def test_odd_shapes_and_empty_maps_can_be_drawn(shape: tuple[int, int, int], code: int) -> None:
    codes = np.full(shape, code, dtype=np.uint8)
    assert mips(codes, SPACING, legend=legend_of(codes), size=400).ndim == 3
    mask = codes[:1] > 0
    drawn = montage(None, codes[:1], mask, mask, planes=[0], spacing=SPACING, legend=legend_of(codes), size=400)
    assert drawn.ndim == 3


def test_slices_show_outlines_and_errors(rng: np.random.Generator) -> None:
    prediction, reference = lopsided_error()
    codes = error_map(prediction, reference)
    image = rng.normal(size=codes.shape) + reference
    image[0, 0, 0] = np.nan
    picture = montage(
        image[8:12], codes[8:12], prediction[8:12], reference[8:12],
        planes=[8, 9, 10, 11], spacing=SPACING, legend=legend_of(codes), size=900,
    )  # fmt: skip
    tiles = picture[140:]
    assert has(tiles, PREDICTION_OUTLINE, pixels=50)
    assert has(tiles, REFERENCE_OUTLINE, pixels=50)
    alone = montage(
        None, (prediction[8:9]).astype(np.uint8), prediction[8:9], None,
        planes=[8], spacing=SPACING, legend=Legend("prediction", ()), size=900,
    )  # fmt: skip
    assert has(alone[100:], PREDICTION_OUTLINE, pixels=50)
    assert not has(alone, REFERENCE_OUTLINE, pixels=1)


@given(per_plane, st.data(), st.integers(1, 8))
def test_chosen_planes_hold_the_worst_one(foreground: np.ndarray, data: st.DataObject, count: int) -> None:
    wrong = np.array([data.draw(st.integers(0, int(n))) for n in foreground])
    chosen = choose_planes(wrong, foreground, count)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, np.count_nonzero(foreground) or len(foreground))
    if foreground.any():
        assert foreground[chosen].all()
    if wrong.any() and len(chosen) > 1:
        assert wrong.max() in wrong[chosen]


def test_chosen_planes_lie_apart() -> None:
    foreground = np.full(100, 50)
    chosen = choose_planes(np.arange(100) % 50, foreground, 6)
    assert min(np.diff(chosen)) >= 8
    assert 49 in chosen


@pytest.mark.parametrize(
    "title",
    ["short", "a_rather_long_name_of_a_file" * 9, "$x_1$ \\frac{", "線\n血管"],
    ids=["short", "long", "tex", "script"],
)
@pytest.mark.parametrize("width", [300, 700, 1600])
def test_no_text_overlaps_another_or_leaves_the_page(title: str, width: int) -> None:
    legend = error_legend(title, ErrorCounts(10**9, 10**8, 7), tolerance_voxels=2)
    outlines = (("prediction", PREDICTION_OUTLINE), ("truth", REFERENCE_OUTLINE))
    page = Page(width, 100, legend, scale=2.0, outlines=outlines)
    page.rgb()
    boxes = [text.get_window_extent() for text in page._axes.texts]
    assert len(boxes) == 1 + 3 + 2 + 3 + 1 + 1
    assert all(box.x0 >= 0 and box.x1 <= page.width and box.y0 >= 0 for box in boxes)
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])


def test_the_legend_says_the_counts_of_the_map() -> None:
    codes = error_map(*lopsided_error())
    legend = legend_of(codes)
    assert [entry.voxels for entry in legend.entries] == [np.count_nonzero(codes == n) for n in (1, 2, 3)]
    page = Page(900, 10, legend)
    assert {f"{entry.name}  {entry.voxels:,}" for entry in legend.entries} < {t.get_text() for t in page._axes.texts}


def test_scores_are_those_of_the_masks_whatever_is_tolerated() -> None:
    exact = ErrorCounts(10, 5, 5)
    legend = error_legend("t", ErrorCounts(20, 0, 0), scores=exact, tolerance_voxels=2)
    assert "Dice 0.667" in legend.remarks
    assert "within 2 voxels" in legend.footnotes[0]
    assert error_legend("t", exact).footnotes == ()
    assert "Dice undefined" in error_legend("t", ErrorCounts()).remarks


def test_components_beyond_the_colours_share_one() -> None:
    legend = component_legend("p", [9, 8, 7, 6, 5, 4, 3, 2, 10], count=15)
    assert [entry.voxels for entry in legend.entries] == [9, 8, 7, 6, 5, 4, 3, 2, 10]
    assert legend.entries[-1].name == "7 smaller"
    assert legend.remarks == ("15 components", "54 voxels")
    assert component_legend("p", [4, 1], count=2).entries[-1].name == "component 2"


@given(st.floats(1e-5, 1e5))
def test_the_scale_bar_is_a_round_length_that_fits(at_most_mm: float) -> None:
    length, name = scale_bar(at_most_mm)
    assert at_most_mm / 2.5001 <= length <= at_most_mm * 1.0001
    value, unit = name.split()
    assert float(value) * {"mm": 1, "µm": 1e-3, "nm": 1e-6}[unit] == pytest.approx(length)
    assert name.lstrip("0.")[0] in "125"
