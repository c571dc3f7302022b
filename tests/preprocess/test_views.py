"""The view law, bit for bit, and that every view can be undone."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vol3d.geometry.affine import from_spacing, moved, spacing_of
from vol3d.geometry.box import Box
from vol3d.preprocess.crop import CroppedView, body_mask, nonzero_box, nonzero_mask
from vol3d.preprocess.intensity import Constants, Normalisation, NormalisedView, constants, normalised
from vol3d.preprocess.orient import Turn, TurnedView, ras_turn, turned_onto
from vol3d.preprocess.pipeline import (
    NetworkSpacing,
    PreprocessSettings,
    image_view,
    label_view,
    network_grid,
    network_shape,
    turn_of,
)
from vol3d.preprocess.resample import BackTo, ResampledView, at_spacing, axis_taps, kernels_between
from vol3d.preprocess.statistics import extremes, moments, quantiles
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.volume.source import ArraySource, VolumeSource, read_all

SHAPE = Shape3(20, 31, 17)


@st.composite
def boxes(draw: st.DrawFn, shape: Shape3) -> Box:
    start = [draw(st.integers(0, n - 1)) for n in shape]
    return Box(Index3(*start), Index3(*(draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True))))


def source(dtype: str = "int16", channels: int = 2) -> ArraySource:
    rng = np.random.default_rng(5)
    affine = np.array([[0, 0.1, 3.0, -9], [0, 1.0, 0.1, 4], [-0.8, 0, 0, 7], [0, 0, 0, 1.0]])
    return ArraySource(rng.integers(-400, 900, (channels, *SHAPE)).astype(dtype), affine)


def padded() -> ArraySource:
    """A source of two channels with another margin of zeros on every side, and zeros inside."""
    s = source()
    array = np.where(np.random.default_rng(1).random(s.array.shape) < 0.4, 0, s.array)
    return replace(s, array=np.pad(array, ((0, 0), (2, 1), (0, 4), (3, 5))))


def organ() -> ArraySource:
    """An organ mask on the grid of padded()."""
    s = padded()
    mask = np.zeros((1, *s.shape), np.uint8)
    mask[:, 4:15, 7:22, 5:17] = 3
    return ArraySource(mask, s.affine)


AS_NNUNET = PreprocessSettings(
    orientation="stored",
    axes=("y", "z", "x"),
    crop="nonzero",
    spacing=NetworkSpacing(1.4, 1.1, 4.4),
    interpolation="spline",
    coarse_axis="nearest",
    normalisation=(Normalisation(voxels="nonzero"), Normalisation("range")),
)


def views() -> list[VolumeSource]:
    s = source()
    return [
        TurnedView(s, ras_turn(s)),
        TurnedView(s, Turn((2, 0, 1), (True, False, True), SHAPE)),
        NormalisedView(s, (Constants(3.0, 7.0), Constants(0.0, 200.0, knee=1.0, slope=0.01))),
        ResampledView(s, Shape3(31, 22, 17), ("cubic",) * 3),
        ResampledView(s, Shape3(9, 40, 20), ("linear",) * 3),
        ResampledView(s, Shape3(9, 40, 20), ("nearest",) * 3),
        ResampledView(s, Shape3(28, 40, 11), ("spline", "nearest", "lerp")),
        NormalisedView(
            ResampledView(TurnedView(s, ras_turn(s)), Shape3(40, 13, 25), ("cubic",) * 3), (Constants(1, 2),) * 2
        ),
        CroppedView(s, Box(Index3(3, 5, 1), Index3(19, 30, 12))),
        image_view(padded(), AS_NNUNET),
        image_view(padded(), replace(AS_NNUNET, coarse_axis="same")),
        *(
            normalised(padded(), (Normalisation(scheme, voxels=voxels), Normalisation("range", onto=(-1, 1))), organ())
            for scheme in ("percentile", "range", "equalised")
            for voxels in ("all", "nonzero", "body", "organ")
        ),
    ]


@pytest.mark.parametrize("view", views(), ids=lambda v: type(v).__name__)
@settings(max_examples=40)
@given(data=st.data())
def test_reading_a_box_is_cutting_it_out_of_the_whole(view: VolumeSource, data: st.DataObject) -> None:
    box = data.draw(boxes(view.shape))
    part = view.read(box)
    assert part.dtype == view.dtype
    np.testing.assert_array_equal(part, read_all(view)[(slice(None), *box.slices)])


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flipped", list(itertools.product([False, True], repeat=3)))
def test_one_grid_stored_in_other_directions_is_turned_back(
    order: tuple[int, int, int], flipped: tuple[bool, bool, bool]
) -> None:
    s = source()
    stored = TurnedView(s, Turn(order, flipped, SHAPE))
    back = turned_onto(stored, s)
    np.testing.assert_array_equal(read_all(back), read_all(s))
    np.testing.assert_allclose(back.affine, s.affine, atol=1e-9)


def test_what_is_on_another_grid_or_says_no_place_is_not_turned() -> None:
    s = source()
    flipped = TurnedView(s, Turn((0, 1, 2), (False, True, False), SHAPE))
    assert turned_onto(s, s) is s
    for matrix in (moved(s.affine, Index3(0, 1, 0)), s.affine * [1, 1.01, 1, 1], from_spacing(Spacing(0.8, 1.0, 3.0))):
        assert turned_onto(flipped, replace(s, affine=matrix)) is flipped
    cut = ArraySource(s.array[:, 1:], s.affine)
    assert turned_onto(flipped, cut) is flipped
    assert turned_onto(flipped, replace(s, says="spacing")) is flipped
    silent = replace(s, affine=flipped.affine, says="nothing")
    assert turned_onto(silent, s) is silent


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flipped", list(itertools.product([False, True], repeat=3)))
def test_a_turn_is_undone_and_keeps_places(order: tuple[int, int, int], flipped: tuple[bool, bool, bool]) -> None:
    s = source()
    turn = Turn(order, flipped, SHAPE)
    view = TurnedView(s, turn)
    np.testing.assert_array_equal(turn.undo(read_all(view)), s.array)
    # a voxel's value is found again at the same point in the world
    index = np.array([2, 5, 11, 1])[:3].tolist()
    index = [min(i, n - 1) for i, n in zip(index, view.shape, strict=True)]
    point = view.affine @ [*index, 1]
    stored = np.rint(np.linalg.solve(s.affine, point)[:3]).astype(int)
    np.testing.assert_array_equal(read_all(view)[(slice(None), *index)], s.array[(slice(None), *stored)])
    assert spacing_of(view.affine) == pytest.approx([spacing_of(s.affine)[a] for a in order])


def test_ras_turn_leaves_axes_that_grow_upwards() -> None:
    turned = TurnedView(source(), ras_turn(source()))
    assert ras_turn(turned).order == (0, 1, 2) and not any(ras_turn(turned).flipped)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["linear", "cubic", "nearest", "lerp", "spline"]))
def test_constant_in_constant_out(size: int, target: int, kernel: str) -> None:
    taps = axis_taps(size, target, kernel)
    np.testing.assert_allclose(taps.weight.sum(axis=1), 1.0, atol=1e-6)
    assert taps.index.min() >= 0 and taps.index.max() < size


def test_cubic_keeps_a_straight_line_away_from_the_ends() -> None:
    taps = axis_taps(20, 33, "cubic")
    line = np.arange(20.0)
    expected = (np.arange(33) + 0.5) * 20 / 33 - 0.5
    np.testing.assert_allclose((line[taps.index] * taps.weight).sum(axis=1)[4:-4], expected[4:-4], atol=1e-5)


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=8),
    st.tuples(st.integers(1, 40), st.integers(1, 9), st.integers(1, 9)),
    st.integers(1, 9),
    st.data(),
)
def test_the_way_back_does_not_depend_on_the_cuts(
    depths: list[int], grid: tuple[int, int, int], most: int, data: st.DataObject
) -> None:
    shape, target = Shape3(sum(depths), 6, 5), Shape3(*grid)
    volume = torch.from_numpy(np.random.default_rng(0).random((2, *shape), dtype=np.float32))
    whole = BackTo(shape, target, Box.whole(target))
    assert whole.needed == Box.whole(shape) or min(target) < max(shape)
    expected = torch.cat([p for _, p in whole.resize([(0, volume)], most=100)], dim=1)
    assert expected.shape == (2, *target)
    assert np.allclose(expected.mean(), volume.mean(), atol=0.2)
    bounds = [sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in target]
    back = BackTo(shape, target, Box(Index3(*(a for a, _ in bounds)), Index3(*(b for _, b in bounds))))
    known, z = volume[(slice(None), *back.needed.slices)], back.needed.start.z
    parts = [(z + a, known[:, a : a + d]) for a, d in zip(np.cumsum([0, *depths[:-1]]).tolist(), depths, strict=True)]
    pieces = list(back.resize([part for part in parts if part[1].shape[1]], most=most))
    assert [first for first, _ in pieces] == np.cumsum(
        [back.box.start.z, *(p.shape[1] for _, p in pieces[:-1])]
    ).tolist()
    assert max(p.shape[1] for _, p in pieces) <= most
    assert torch.equal(torch.cat([p for _, p in pieces], dim=1), expected[(slice(None), *back.box.slices)])


def test_resampling_keeps_the_space_that_is_covered() -> None:
    s = source()
    view = at_spacing(s, Spacing(1.6, 1.005, 1.5), ("linear",) * 3)
    assert view.shape == (10, 31, 34)
    for corner in ([-0.5] * 3, [-0.5, 30.5, -0.5]):
        there = np.array([(c + 0.5) * m / n - 0.5 for c, n, m in zip(corner, s.shape, view.shape, strict=True)])
        np.testing.assert_allclose(view.affine @ [*there, 1], s.affine @ [*corner, 1], atol=1e-9)
    assert at_spacing(s, spacing_of(s.affine), ("linear",) * 3) is s


def test_statistics_equal_numpys() -> None:
    s = source()
    for found, values in zip(moments(s), s.array, strict=True):
        assert (found.mean, found.std) == pytest.approx((values.mean(), values.std()))
    fractions = (0.0, 0.1, 0.5, 0.998, 1.0)
    expected = [np.quantile(c, fractions, method="inverted_cdf") for c in s.array]
    np.testing.assert_array_equal(quantiles(s, fractions), expected)
    np.testing.assert_allclose(quantiles(source("float64"), fractions), expected)


def test_percentiles_become_zero_and_one_and_the_rest_is_flattened() -> None:
    s = source(channels=1)
    c = constants(s, (Normalisation("percentile", low_percentile=10, high_percentile=90),))
    low, high = quantiles(s, (0.1, 0.9))[0]
    voxels = read_all(NormalisedView(s, c))
    assert voxels[s.array == low][0] == 0 and voxels[s.array == high][0] == 1
    assert 1 < voxels.max() < 1.01


def test_z_score_and_fixed_window() -> None:
    s = source(channels=1)
    z = read_all(NormalisedView(s, constants(s, (Normalisation("z_score"),))))
    assert (z.mean(), z.std()) == pytest.approx((0, 1), abs=1e-5)
    window = Normalisation("fixed", low=-100, high=400, mean=-100, std=500)
    w = read_all(NormalisedView(s, constants(s, (window,))))
    assert (w.min(), w.max()) == (0, 1)


def test_a_constant_channel_becomes_zero() -> None:
    flat = ArraySource(np.full((1, *SHAPE), 7, np.uint8), source().affine)
    for scheme in ("z_score", "percentile"):
        assert not read_all(NormalisedView(flat, constants(flat, (Normalisation(scheme),)))).any()


def test_an_axis_that_is_stored_is_not_resampled() -> None:
    settings = PreprocessSettings(spacing=NetworkSpacing("stored", 0.5, 6.0), normalisation=(Normalisation(),))
    for depth, step in ((1, 0.01), (1, 40.0), (7, 5.0)):
        image = ArraySource(np.zeros((1, depth, 10, 8), np.float32), from_spacing(Spacing(step, 1.0, 3.0)))
        assert network_shape(image, settings) == image_view(image, settings).shape == (depth, 20, 4)
        assert spacing_of(image_view(image, settings).affine) == pytest.approx((step, 0.5, 6.0))
    assert settings.target == (1.0, 0.5, 6.0)


def test_axes_are_taken_in_the_order_that_is_asked_for() -> None:
    turn = turn_of(source(), PreprocessSettings(axes=("x", "z", "y")))
    plain = turn_of(source(), PreprocessSettings())
    assert turn.shape == tuple(plain.shape[a] for a in (2, 0, 1))
    np.testing.assert_array_equal(turn.undo(turn.apply(source().array)), source().array)
    with pytest.raises(ValueError, match="axes must be"):
        PreprocessSettings(axes=("x", "z", "z"))


def test_the_crop_is_the_smallest_box_and_keeps_places_and_labels_beside_the_image() -> None:
    s = padded()
    box = nonzero_box(s)
    assert box == Box(Index3(2, 0, 3), Index3(22, 31, 20))
    settings = replace(AS_NNUNET, spacing="stored", normalisation=(Normalisation("none"),) * 2)
    grid, seen = network_grid(s, settings), image_view(s, settings)
    np.testing.assert_array_equal(read_all(seen), s.array.swapaxes(1, 2)[(slice(None), *grid.box.slices)])
    assert network_shape(s, settings) == seen.shape == (31, 20, 17)
    labels = ArraySource(np.ones((1, *s.shape), np.uint8), s.affine)
    assert label_view(labels, settings, image=s).shape == seen.shape
    np.testing.assert_allclose(seen.affine @ [0, 0, 0, 1], s.affine @ [2, 0, 3, 1])
    empty = ArraySource(np.zeros((1, *SHAPE), np.int16), s.affine)
    assert nonzero_box(empty) == Box.whole(SHAPE)


def test_holes_belong_to_the_mask_and_bays_do_not() -> None:
    block = np.zeros((1, 9, 10, 11), np.int16)
    block[:, 1:8, 2:9, 1:9] = -5
    block[:, 3, 4:6, 5] = 0  # a hole
    block[:, 5, 2:6, 7] = 0  # a bay that opens at the border
    mask = nonzero_mask(ArraySource(block, source().affine))
    assert mask[3, 4, 5] and not mask[5, 3, 7] and mask.sum() == 7 * 7 * 8 - 4


def test_a_masked_z_score_looks_at_the_mask_alone_and_zeroes_the_rest() -> None:
    s = padded()
    view = normalised(s, (Normalisation(voxels="nonzero"), Normalisation("none")))
    mask = nonzero_mask(s)
    assert not mask.all()
    first, second = read_all(view)
    assert (first[mask].mean(), first[mask].std()) == pytest.approx((0, 1), abs=1e-5)
    assert not first[~mask].any()
    np.testing.assert_array_equal(second, s.array[1].astype(np.float32))


def test_range_becomes_zero_to_one() -> None:
    voxels = read_all(normalised(source(), (Normalisation("range"),) * 2))
    for channel in voxels:
        assert (channel.min(), channel.max()) == (0, 1)


def test_extremes_of_planes() -> None:
    s = source()
    for axis in range(3):
        others = tuple(a + 1 for a in range(3) if a != axis)
        np.testing.assert_array_equal(extremes(s, axis).low, s.array.min(axis=others))
        np.testing.assert_array_equal(extremes(s, axis).high, s.array.max(axis=others))
    np.testing.assert_array_equal(extremes(s).high, s.array.max(axis=(1, 2, 3))[:, None])


def test_an_axis_of_far_slices_is_taken_by_nearest_neighbour() -> None:
    fine, coarse = Spacing(1.0, 1.1, 0.9), Spacing(0.8, 4.0, 1.0)
    for own, target in ((coarse, fine), (fine, coarse)):
        assert kernels_between(own, target, "spline", coarse="nearest") == ("spline", "nearest", "spline")
        assert kernels_between(own, target, "spline", coarse="same") == ("spline",) * 3
    assert kernels_between(fine, fine, "lerp", coarse="nearest") == ("lerp",) * 3
    # equally coarse in two axes: no slices, even where the target has some
    assert kernels_between(Spacing(0.2, 1.5, 1.5), coarse, "lerp", coarse="nearest") == ("lerp",) * 3


def test_a_spline_stays_within_the_values_of_its_plane() -> None:
    step = np.zeros((1, 4, 12, 10), np.float32)
    step[:, 1, 6:] = 1.0
    step[:, 2] = 3.0
    image = ArraySource(step, from_spacing(Spacing(5.0, 1.0, 1.0)))
    settings = replace(AS_NNUNET, axes=("z", "y", "x"), crop="none", spacing=NetworkSpacing(2.5, 0.7, 0.7))
    settings = replace(settings, normalisation=(Normalisation("none"),))
    planes = read_all(image_view(image, settings))[0]
    assert [(p.min(), p.max()) for p in planes[::2]] == [(0, 0), (0, 1), (3, 3), (0, 0)]
    whole = read_all(image_view(image, replace(settings, coarse_axis="same")))
    assert whole.min() == 0 and 2.9 < whole.max() <= 3


def test_a_window_and_a_range_are_put_onto_what_is_asked_for() -> None:
    s = source(channels=1)
    hu = read_all(normalised(s, (Normalisation("window", low=-100, high=400),)))[0]
    np.testing.assert_allclose(hu, (s.array[0].clip(-100, 400) + 100) / 500, atol=1e-6)
    for scheme in ("range", "window", "percentile", "equalised"):
        settings = Normalisation(scheme, low=-400, high=899, low_percentile=0, high_percentile=100, onto=(-1, 1))
        voxels = read_all(normalised(s, (settings,)))
        assert (voxels.min(), voxels.max()) == pytest.approx((-1, 1), abs=1e-5)


@pytest.mark.parametrize("scheme", ["z_score", "percentile", "range", "equalised"])
def test_statistics_look_at_the_voxels_that_are_asked_for(scheme: str) -> None:
    s = padded()
    inside = organ().array[0] != 0
    changed = replace(s, array=np.where(inside, s.array, 30_000 - s.array))
    settings = (Normalisation(scheme, voxels="organ"), Normalisation("none"))  # type: ignore[arg-type]
    ours, theirs = (read_all(normalised(one, settings, organ()))[0] for one in (s, changed))
    np.testing.assert_array_equal(ours[inside], theirs[inside])
    cut = ArraySource(s.array[:, 4:15, 7:22, 5:17], s.affine)
    alone = read_all(normalised(cut, (replace(settings[0], voxels="all"), settings[1])))[0]
    np.testing.assert_allclose(ours[inside], alone.ravel(), atol=1e-5)
    with pytest.raises(ValueError, match="there is no organ mask"):
        normalised(s, settings)


def test_equalised_values_are_evenly_spread_in_their_order() -> None:
    values = np.random.default_rng(3).gamma(0.5, 100, (1, *SHAPE)).astype(np.float32)
    view = read_all(normalised(ArraySource(values, source().affine), (Normalisation("equalised"),)))
    counts, _ = np.histogram(view, bins=10, range=(0, 1))
    assert np.abs(counts / view.size - 0.1).max() < 0.005
    order = np.argsort(values, axis=None)
    assert (np.diff(view.ravel()[order]) >= 0).all()
    # a value that fills half of the volume has one place, in the middle of its half
    half = np.where(np.arange(SHAPE.voxels).reshape(1, *SHAPE) % 2, values.astype(np.int16) + 1, 0)
    placed = read_all(normalised(ArraySource(half, source().affine), (Normalisation("equalised"),)))
    assert placed[half == 0][0] == pytest.approx(0.25, abs=0.005) and placed[half > 0].min() > 0.49


def test_the_body_is_the_largest_bright_piece_with_its_holes() -> None:
    scan = np.full((1, 12, 20, 20), -1000, np.int16) + np.random.default_rng(0).integers(0, 30, (1, 12, 20, 20))
    scan[0, 2:10, 4:16, 3:15] = 40
    scan[0, 4:7, 6:9, 6:9] = -850  # a lung
    scan[0, :, 18, :] = 100  # the table
    mask = body_mask(ArraySource(scan.astype(np.int16), source().affine))
    expected = np.zeros(mask.shape, bool)
    expected[2:10, 4:16, 3:15] = True
    np.testing.assert_array_equal(mask, expected)
    assert not body_mask(ArraySource(np.full((1, *SHAPE), 7, np.uint8), source().affine)).any()


def test_where_nothing_is_looked_at_all_is_zero() -> None:
    s = source(channels=1)
    empty = ArraySource(np.zeros((1, *SHAPE), np.uint8), s.affine)
    for scheme in ("z_score", "percentile", "range", "equalised"):
        assert not read_all(normalised(s, (Normalisation(scheme, voxels="organ"),), empty)).any()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"scheme": "fixed", "voxels": "body"}, "voxels body means nothing to the scheme fixed"),
        ({"scheme": "range", "onto": (1.0, -1.0)}, "onto must be two numbers, the lower one first"),
    ],
)
def test_what_contradicts_itself_is_refused(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Normalisation(**settings)  # type: ignore[arg-type]
