import math
import re
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from plain_steps import SPACING, applied

from vol3d.postprocess import growth
from vol3d.postprocess.flood import GrowRange
from vol3d.postprocess.growth import Along, Growth, grow_slices
from vol3d.postprocess.neighbours import grow_neighbours
from vol3d.postprocess.scene import Scene
from vol3d.postprocess.steps import apply_steps
from vol3d.regions.components import Connectivity


@st.composite
def scenes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A mask, grey values few enough to be alike, and where growth is allowed."""
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5)))
    return (
        draw(arrays(np.bool_, shape, elements=st.sampled_from((False, False, True)), fill=st.nothing())),
        draw(arrays(np.uint16, shape, elements=st.sampled_from((0, 3, 5, 9, 65535)), fill=st.nothing())),
        draw(arrays(np.bool_, shape, elements=st.sampled_from((True, True, False)), fill=st.nothing())),
    )


TOLERANCES = st.sampled_from((0, 2, 4, 6, 70000))


def swept(
    mask: np.ndarray, image: np.ndarray, allowed: np.ndarray, tolerance: int, least: int, along: Along
) -> np.ndarray:
    """The rule said voxel by voxel: sweep up, sweep down, within the slices, until nothing changes."""
    mask = mask.copy()
    depth, height, width = mask.shape
    while True:
        before = mask.copy()
        inside = [(range(depth), 0)] if along == "zyx" else []
        for planes, step in ((range(1, depth), -1), (range(depth - 2, -1, -1), 1), *inside):
            for z in planes:
                for y, x in np.argwhere(allowed[z] & ~mask[z]):
                    alike = [
                        abs(int(image[z + step, j, i]) - int(image[z, y, x])) <= tolerance
                        for j in range(max(0, y - 1), min(height, y + 2))
                        for i in range(max(0, x - 1), min(width, x + 2))
                        if mask[z + step, j, i]
                    ]
                    mask[z, y, x] |= sum(alike) >= least
        if (mask == before).all():
            return mask


@given(scene=scenes(), tolerance=TOLERANCES, least=st.integers(1, 4), along=st.sampled_from(("z", "zyx")))
def test_the_front_ends_where_sweeping_ends(
    scene: tuple[np.ndarray, np.ndarray, np.ndarray], tolerance: int, least: int, along: Along
) -> None:
    mask, image, allowed = scene
    for array in scene:
        array.flags.writeable = False
    grown = grow_slices(mask, image, tolerance=tolerance, min_neighbours=least, along=along, allowed=allowed)
    np.testing.assert_array_equal(grown.mask, swept(mask, image, allowed, tolerance, least, along))
    assert grown.refused == 0


def test_a_front_in_pieces_is_the_same_front(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    mask, image = rng.random((20, 31, 17)) < 0.05, rng.integers(0, 9, (20, 31, 17), dtype=np.uint16)
    whole = grow_slices(mask, image, tolerance=2)
    monkeypatch.setattr(growth, "VOXELS_AT_ONCE", 7)
    np.testing.assert_array_equal(grow_slices(mask, image, tolerance=2).mask, whole.mask)


@given(scene=scenes(), pair=st.tuples(TOLERANCES, TOLERANCES))
def test_slices_add_only_where_allowed_and_more_with_tolerance(
    scene: tuple[np.ndarray, np.ndarray, np.ndarray], pair: tuple[int, int]
) -> None:
    mask, image, allowed = scene
    less, more = (grow_slices(mask, image, tolerance=t, allowed=allowed).mask for t in sorted(pair))
    assert (less.dtype, less.shape) == (np.bool_, mask.shape)
    assert not (mask & ~less).any()
    assert not (less & ~more).any()
    assert not (more & ~mask & ~allowed).any()
    again = grow_slices(more, image, tolerance=max(pair), allowed=allowed).mask
    np.testing.assert_array_equal(again, more)


GROWN = st.sampled_from(
    (
        partial(grow_slices, along="z"),
        partial(grow_slices, along="zyx"),
        partial(grow_neighbours, connectivity=6),
        partial(grow_neighbours, connectivity=26),
    )
)


@settings(max_examples=40)
@given(scene=scenes(), grown=GROWN, tolerance=TOLERANCES, most=st.sampled_from((1.0, 2.0, 3.5, math.inf)))
def test_a_mirrored_volume_grows_alike(
    scene: tuple[np.ndarray, np.ndarray, np.ndarray], grown: Callable[..., Growth], tolerance: int, most: float
) -> None:
    mask, image, allowed = scene
    there = grown(mask, image, tolerance=tolerance, allowed=allowed, max_growth=most)
    assert (there.mask.dtype, there.mask.shape) == (np.bool_, mask.shape)
    assert not (mask & ~there.mask).any()
    assert not (there.mask & ~mask & ~allowed).any()
    for axis in range(3):
        flipped = (np.flip(array, axis) for array in (mask, image))
        back = grown(*flipped, tolerance=tolerance, allowed=np.flip(allowed, axis), max_growth=most)
        np.testing.assert_array_equal(np.flip(back.mask, axis), there.mask)
        assert back.refused == there.refused


@settings(max_examples=40)
@given(scene=scenes(), pair=st.tuples(TOLERANCES, TOLERANCES), connectivity=st.sampled_from((6, 18, 26)))
def test_neighbours_add_more_with_tolerance_and_once(
    scene: tuple[np.ndarray, np.ndarray, np.ndarray], pair: tuple[int, int], connectivity: Connectivity
) -> None:
    mask, image, allowed = scene
    joined = partial(grow_neighbours, image=image, allowed=allowed, connectivity=connectivity)
    less, more = (joined(mask, tolerance=t).mask for t in sorted(pair))
    assert not (less & ~more).any()
    np.testing.assert_array_equal(joined(more, tolerance=max(pair)).mask, more)
    held = joined(mask, tolerance=max(pair), max_growth=2.0)
    np.testing.assert_array_equal(joined(held.mask, tolerance=max(pair), max_growth=2.0).mask, held.mask)


@settings(max_examples=20)
@given(scene=scenes(), shares=st.tuples(*[st.sampled_from((0.2, 0.5, 0.9, 1.0))] * 2))
def test_a_central_share_adds_more_with_its_size_and_once(
    scene: tuple[np.ndarray, np.ndarray, np.ndarray], shares: tuple[float, float]
) -> None:
    mask, image, _ = scene
    less, more = (applied(GrowRange(central_share=s, max_growth=None), mask, image=image) for s in sorted(shares))
    assert not (mask & ~less).any()
    assert not (less & ~more).any()
    again = applied(GrowRange(central_share=max(shares), max_growth=None), more, image=image)
    np.testing.assert_array_equal(again, more)


def test_neighbours_follow_what_drifts_and_a_range_does_not() -> None:
    image = np.broadcast_to(np.arange(0, 200, 10, dtype=np.uint16)[:, None, None], (20, 31, 17)).copy()
    image[:, 16:] = 9000
    mask = np.zeros(image.shape, dtype=np.bool_)
    mask[9, 3, 4] = True
    np.testing.assert_array_equal(grow_neighbours(mask, image, tolerance=10).mask, image < 9000)
    within = applied(GrowRange(tolerance=10.0, max_growth=None), mask, image=image)
    np.testing.assert_array_equal(within, (image >= 80) & (image <= 100))


def test_a_slice_is_filled_sideways_only_where_asked() -> None:
    image = np.full((1, 31, 17), 100, dtype=np.uint16)
    image[0, 5:20, 3:9] = 900
    mask = np.zeros(image.shape, dtype=np.bool_)
    mask[0, 8, 5:7] = True
    np.testing.assert_array_equal(grow_slices(mask, image, tolerance=9).mask, mask)
    sideways = grow_slices(mask, image, tolerance=9, along="zyx").mask
    np.testing.assert_array_equal(sideways, image == 900)


@pytest.mark.parametrize("form", ["slices", "range", "neighbours"])
@pytest.mark.parametrize(
    ("values", "tolerance", "grows"), [((5, 3), 2, True), ((5, 3), 1, False), ((65535, 0), 9, False)]
)
def test_unsigned_grey_values_do_not_wrap(form: str, values: tuple[int, int], tolerance: int, grows: bool) -> None:
    for first, second in (values, values[::-1]):
        image = np.full((4, 5, 6), first, dtype=np.uint16)
        image[2:] = second
        mask = np.zeros(image.shape, dtype=np.bool_)
        mask[1] = True
        if form == "slices":
            grown = grow_slices(mask, image, tolerance=tolerance).mask
        elif form == "neighbours":
            grown = grow_neighbours(mask, image, tolerance=tolerance).mask
        else:
            grown = applied(GrowRange(tolerance=tolerance, max_growth=None), mask, image=image)
        assert grown[2].all() == grown[3].any() == grows
        assert grown[0].all()  # its own value always goes on


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_growth_goes_both_ways_and_not_around_a_border(axis: int) -> None:
    image = np.full((20, 31, 17), 900, dtype=np.uint16)
    np.moveaxis(image, axis, 0)[12] = 100  # a wall: what lies behind it touches only around the border
    mask = np.zeros(image.shape, dtype=np.bool_)
    np.moveaxis(mask, axis, 0)[5] = True
    before_wall = np.indices(image.shape)[axis] < 12
    for grown in (
        grow_slices(mask, image, tolerance=9, along="zyx").mask,
        grow_neighbours(mask, image, tolerance=9).mask,
        applied(GrowRange(tolerance=9.0, max_growth=None), mask, image=image),
        *([grow_slices(mask, image, tolerance=9).mask] if axis == 0 else []),
    ):
        np.testing.assert_array_equal(grown, before_wall)


def two_vessels() -> tuple[np.ndarray, np.ndarray]:
    """A tube that ends in the volume, one that opens into a bright slab, and the mask of a few planes of both."""
    image = np.full((20, 31, 17), 100, dtype=np.uint16)
    image[2:14, 5:8, 4:7] = image[2:14, 20:23, 8:11] = 900
    image[14:17] = 900
    image[12:, 5:8, 4:7] = 100
    mask = image == 900
    mask[:4] = mask[8:] = False
    return mask, image


@pytest.mark.parametrize("form", ["slices", "range", "neighbours"])
def test_a_leak_is_refused_whole_and_the_rest_grows(form: str) -> None:
    mask, image = two_vessels()

    def grown(max_growth: float) -> growth.Growth:
        if form == "slices":
            return grow_slices(mask, image, tolerance=10, max_growth=max_growth)
        if form == "neighbours":
            return grow_neighbours(mask, image, tolerance=10, max_growth=max_growth)
        step = GrowRange(tolerance=10.0, max_growth=None if max_growth == math.inf else max_growth)
        done = apply_steps(mask[None], [step], Scene(SPACING, ("vessel",), image=image))
        refused = re.search(r"(\d+) components refused", done.report[0].note)
        return growth.Growth(done.masks[0], int(refused[1]) if refused else 0)

    free, bounded = grown(math.inf), grown(4.0)
    tube, leaking = np.s_[:, :12], np.s_[:12, 15:]
    assert free.refused == 0
    assert free.mask[14:17, 20:23].any()
    assert bounded.refused == 1
    np.testing.assert_array_equal(bounded.mask[leaking], mask[leaking])
    np.testing.assert_array_equal(bounded.mask[tube], free.mask[tube] & (np.arange(20) < 12)[:, None, None])
    assert bounded.mask.sum() == mask.sum() + 6 * 9


def test_a_leak_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    mask, image = np.zeros((60, 31, 17), dtype=np.bool_), np.zeros((60, 31, 17), dtype=np.uint8)
    mask[0, 10:12, 8:10] = True
    stopped: list[int] = []
    front = growth._front
    monkeypatch.setattr(growth, "_front", lambda *a: stopped.append(int((result := front(*a)).sum())) or result)
    assert grow_slices(mask, image, tolerance=1, max_growth=4.0).refused == 1
    assert stopped[0] < 200


@given(scene=scenes(), pair=st.tuples(TOLERANCES, TOLERANCES), connectivity=st.sampled_from((6, 18, 26)))
def test_ranges_add_what_is_joined_and_no_more(
    scene: tuple[np.ndarray, np.ndarray, np.ndarray], pair: tuple[int, int], connectivity: int
) -> None:
    mask, image, allowed = scene
    for array in scene:
        array.flags.writeable = False
    less, more = (
        applied(
            GrowRange(tolerance=t, connectivity=connectivity, within="organ", max_growth=None),  # type: ignore[arg-type]
            mask,
            image=image,
            organ=allowed,
        )
        for t in sorted(float(t) for t in pair)
    )
    assert not (mask & ~less).any()
    assert not (less & ~more).any()
    added = more & ~mask
    assert not (added & ~allowed).any()
    assert not mask.any() or (np.abs(image[added] - np.median(image[mask].astype(float))) <= max(pair)).all()


def test_empty_masks_and_closed_volumes_stay() -> None:
    mask, image = two_vessels()
    nothing = np.zeros_like(mask)
    for form in (
        lambda m, organ: grow_slices(m, image, tolerance=10, allowed=organ, max_growth=2.0).mask,
        lambda m, organ: grow_neighbours(m, image, tolerance=999, allowed=organ, max_growth=2.0).mask,
        lambda m, organ: applied(
            GrowRange(tolerance=999.0, max_growth=2.0, within="volume" if organ is None else "organ"),
            m,
            image=image,
            organ=organ,
        ),
    ):
        assert not form(nothing, None).any()
        np.testing.assert_array_equal(form(mask, nothing), mask)


def test_refusals() -> None:
    mask, image = two_vessels()
    with pytest.raises(ValueError, match=r"an image of the mask's shape"):
        grow_slices(mask, image[1:], tolerance=1)
    with pytest.raises(ValueError, match=r"an allowed mask of the mask's shape"):
        grow_slices(mask, image, tolerance=1, allowed=mask[1:])
    with pytest.raises(ValueError, match="width -1"):
        grow_slices(mask, image, tolerance=-1)
    with pytest.raises(ValueError, match="min_neighbours must be 1 to 9, got 10"):
        grow_slices(mask, image, tolerance=1, min_neighbours=10)
    with pytest.raises(ValueError, match="max_growth must be 1 or more, got nan"):
        grow_slices(mask, image, tolerance=1, max_growth=math.nan)
