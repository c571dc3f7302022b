"""Wherever a volume is cut, the steps come to the same: what they come to on whole arrays."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import plain_steps
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from plain_steps import SPACING

from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.postprocess import blocks
from vol3d.postprocess.blocks import BlockStep, LocalStep, Region
from vol3d.postprocess.filter import ComponentFilter
from vol3d.postprocess.flood import GrowRange
from vol3d.postprocess.gate import OrganGate
from vol3d.postprocess.growth import GrowSlices
from vol3d.postprocess.lumens import CloseLumens
from vol3d.postprocess.morphology import (
    CloseGaps,
    FillHoles,
    RemoveThin,
    Smooth,
    close_gaps,
    open_mm,
    smooth_mm,
)
from vol3d.postprocess.neighbours import GrowNeighbours
from vol3d.postprocess.scene import Applied, Locality, Mask, RegionScene, Scene, Step, StepReport
from vol3d.postprocess.size import Largest, SizeFilter
from vol3d.postprocess.steps import STEPS, apply_in_blocks, apply_steps
from vol3d.postprocess.threshold import Hysteresis, Presence, Threshold, TopShare
from vol3d.regions.components import Connectivity
from vol3d.regions.distance import dilate_mm
from vol3d.volume.source import ArrayStore

Plain = Callable[[Mask, Scene], Mask]
CONNECTIVITIES: tuple[Connectivity, ...] = (6, 18, 26)


def p_of(scene: Scene) -> np.ndarray:
    assert scene.probability is not None
    return scene.probability[0]


def hysteresis(least: int, connectivity: Connectivity) -> tuple[Step, Plain]:
    fields: dict[str, Any] = {"seed_threshold": 0.75, "grow_threshold": 0.25}
    fields |= {"min_seed_voxels": least, "connectivity": connectivity}
    return Hysteresis(**fields), lambda _, scene: plain_steps.hysteresis(p_of(scene), **fields)


def size_filter(voxels: int, connectivity: Connectivity) -> tuple[Step, Plain]:
    fields: dict[str, Any] = {"min_volume_mm3": voxels * SPACING.voxel_mm3, "connectivity": connectivity}
    return SizeFilter(**fields), lambda m, _: plain_steps.remove_small(m, spacing=SPACING, **fields)


def largest(count: int, connectivity: Connectivity) -> tuple[Step, Plain]:
    fields: dict[str, Any] = {"count": count, "connectivity": connectivity}
    return Largest(**fields), lambda m, _: plain_steps.keep_largest(m, **fields)


def fill_holes(voxels: int) -> tuple[Step, Plain]:
    limit = voxels * SPACING.voxel_mm3
    return FillHoles(max_volume_mm3=limit), lambda m, _: plain_steps.fill_holes(
        m, spacing=SPACING, max_volume_mm3=limit
    )


def close_lumens(max_area_mm2: float) -> tuple[Step, Plain]:
    fields = {"max_area_mm2": max_area_mm2}
    return CloseLumens(**fields), lambda m, _: plain_steps.close_lumens(m, spacing=SPACING, **fields)


def gate(margin_mm: float) -> tuple[Step, Plain]:
    def plain(mask: Mask, scene: Scene) -> Mask:
        assert scene.organ is not None
        return plain_steps.gate(mask, scene.organ, spacing=SPACING, margin_mm=margin_mm)

    return OrganGate(margin_mm=margin_mm), plain


def soft_gate(margin_mm: float) -> tuple[Step, Plain]:
    fields = {"margin_mm": margin_mm, "falloff_mm": 2.5, "threshold": 0.3}

    def plain(mask: Mask, scene: Scene) -> Mask:
        assert scene.organ is not None
        return plain_steps.soft_gate(mask, p_of(scene), scene.organ, spacing=SPACING, **fields)

    return OrganGate(**fields), plain


def top_share(share: float, within: Any) -> tuple[Step, Plain]:
    def plain(mask: Mask, scene: Scene) -> Mask:
        among = scene.organ if within == "organ" else np.ones_like(mask)
        assert among is not None
        return plain_steps.top_share(p_of(scene), share=share, among=among)

    return TopShare(share=share, within=within), plain


def component_filter(**fields: Any) -> tuple[Step, Plain]:
    def plain(mask: Mask, scene: Scene) -> Mask:
        assert scene.organ is not None
        return plain_steps.component_filter(mask, p_of(scene), scene.organ, spacing=SPACING, **fields)

    return ComponentFilter(**fields), plain


def presence(least: int) -> tuple[Step, Plain]:
    step = Presence(seed_threshold=0.75, min_seed_voxels=least)
    return step, lambda m, scene: m if (p_of(scene) >= 0.75).sum() >= least else np.zeros_like(m)


def grow_range(connectivity: Connectivity, **width: float) -> tuple[Step, Plain]:
    fields: dict[str, Any] = {"max_growth": 2.0, "connectivity": connectivity, **width}
    step = GrowRange(max_distance_mm=1.7, within="organ", min_probability=0.25, **fields)
    return step, lambda m, scene: plain_steps.grow_range(m, image_of(scene), allowed=bounds(m, scene), **fields)


def grow_neighbours(connectivity: Connectivity, max_growth: float | None) -> tuple[Step, Plain]:
    fields: dict[str, Any] = {"tolerance": 0.5, "connectivity": connectivity}
    step = GrowNeighbours(max_distance_mm=3.0, max_growth=max_growth, **fields)

    def plain(mask: Mask, scene: Scene) -> Mask:
        near, most = dilate_mm(mask, 3.0, SPACING), max_growth or np.inf
        return plain_steps.grow_neighbours(mask, image_of(scene), allowed=near, max_growth=most, **fields)

    return step, plain


def bounds(mask: Mask, scene: Scene) -> Mask:
    assert scene.organ is not None
    return dilate_mm(mask, 1.7, SPACING) & scene.organ & (p_of(scene) >= 0.25)


def image_of(scene: Scene) -> np.ndarray:
    assert scene.image is not None
    return scene.image


def grow_slices() -> tuple[Step, Plain]:
    step = GrowSlices(tolerance=1.0)

    def plain(mask: Mask, scene: Scene) -> Mask:
        region = RegionScene(scene.stored(), 0, Box.whole(scene.stored().image.shape))  # type: ignore[union-attr]
        return step.apply(mask, region).mask

    return step, plain


PAIRS: tuple[tuple[Step, Plain], ...] = (
    (Threshold(threshold=0.5), lambda _, scene: p_of(scene) >= 0.5),
    *(hysteresis(least, c) for least in (1, 3) for c in CONNECTIVITIES),
    *(size_filter(3, c) for c in CONNECTIVITIES),
    *(largest(count, c) for count in (1, 3) for c in CONNECTIVITIES),
    (FillHoles(), lambda m, _: plain_steps.fill_holes(m, spacing=SPACING)),
    fill_holes(2),
    close_lumens(2.4),
    close_lumens(9.0),
    (RemoveThin(radius_mm=1.0), lambda m, _: open_mm(m, radius_mm=1.0, spacing=SPACING)),
    (Smooth(sigma_mm=1.3), lambda m, _: smooth_mm(m, sigma_mm=1.3, spacing=SPACING)),
    (CloseGaps(radius_mm=1.7), lambda m, _: close_gaps(m, radius_mm=1.7, spacing=SPACING)),
    *(gate(margin_mm) for margin_mm in (0.0, 1.7, -0.9)),
    presence(2),
    presence(10_000),
    *(grow_range(c, tolerance=1.0) for c in CONNECTIVITIES),
    grow_range(26, central_share=0.6),
    *(grow_neighbours(c, most) for c, most in ((6, 2.0), (18, None), (26, 2.0))),
    grow_slices(),
)
# Those that differ by their settings alone: each example draws one.
VARIANTS: tuple[tuple[Step, Plain], ...] = (
    (SizeFilter(min_voxels=3), lambda m, _: plain_steps.remove_small(m, min_volume_mm3=7.2, spacing=SPACING)),
    *(top_share(share, within) for share in (0.002, 0.4) for within in ("volume", "organ")),
    *(component_filter(min_mean_probability=0.3, connectivity=c) for c in CONNECTIVITIES),
    component_filter(min_peak_probability=0.75),
    component_filter(min_elongation=3.5, connectivity=6),
    component_filter(max_elongation=3.2, max_flatness=1.6, connectivity=6),
    *(component_filter(max_organ_distance_mm=mm, connectivity=6) for mm in (0.0, 1.7)),
    *(component_filter(max_largest_distance_mm=2.5, largest_count=n, connectivity=6) for n in (1, 3)),
    *(soft_gate(margin_mm) for margin_mm in (0.0, 1.7, -0.9)),
)


def cut(step: Step, mask: Mask, scene: Scene, planes: int | None) -> tuple[Mask, tuple[StepReport, ...]]:
    store = ArrayStore(mask[None].copy(), from_spacing(SPACING))
    report = apply_in_blocks(store, [step], scene.stored(), planes=planes)
    return store.array[0], report


def agree(mask: Mask, scene: Scene, heights: tuple[int, ...], pairs: tuple[tuple[Step, Plain], ...] = PAIRS) -> None:
    for step, plain in pairs:
        whole = apply_steps(mask[None], [step], scene)
        np.testing.assert_array_equal(whole.masks[0], plain(mask, scene), err_msg=repr(step))
        for planes in heights:
            masks, report = cut(step, mask, scene, planes)
            np.testing.assert_array_equal(masks, whole.masks[0], err_msg=f"{planes} planes of {step}")
            assert report == whole.report


def test_every_step_is_cut_here() -> None:
    assert {type(step) for step, _ in (*PAIRS, *VARIANTS)} == set(STEPS.values())


@st.composite
def drawn(draw: st.DrawFn) -> tuple[Mask, Scene]:
    grid = draw(st.tuples(st.integers(1, 7), st.integers(1, 5), st.integers(1, 5)))
    p = draw(arrays(np.float16, (1, *grid), elements=st.sampled_from((0.0, 0.25, 0.5, 0.75)), fill=st.nothing()))
    image = draw(arrays(np.float32, grid, elements=st.sampled_from((-1.5, 0.0, 0.25, 1.0, 7.0)), fill=st.nothing()))
    mask, organ = (draw(arrays(np.bool_, grid, fill=st.nothing())) for _ in range(2))
    for array in (p, image, organ, mask):
        array.flags.writeable = False  # a step that modified what it is given would fail
    return mask, Scene(SPACING, ("vessel",), p, image, organ)


@settings(max_examples=50)
@given(drawn=drawn(), planes=st.integers(1, 4))
def test_any_cut_is_the_whole(drawn: tuple[Mask, Scene], planes: int) -> None:
    agree(*drawn, heights=(planes,))


@settings(max_examples=150)
@given(drawn=drawn(), planes=st.integers(1, 4), pair=st.sampled_from(VARIANTS))
def test_nor_does_it_matter_for_one_of_many_settings(
    drawn: tuple[Mask, Scene], planes: int, pair: tuple[Step, Plain]
) -> None:
    agree(*drawn, heights=(planes,), pairs=(pair,))


def percolating(rng: np.random.Generator) -> Mask:
    """Noise about as dense as where one component begins to go through the volume: parts meet again and again."""
    return rng.random((23, 17, 19)) < 0.25


def serpentine(_: np.random.Generator) -> Mask:
    """One path that goes up and down through every plane, once per row."""
    mask = np.zeros((20, 31, 17), dtype=np.bool_)
    mask[:, ::2, 3] = True
    mask[-1, 1::4, 3] = mask[0, 3::4, 3] = True
    return mask


def comb(_: np.random.Generator) -> Mask:
    """Teeth that only their handle joins, in the highest plane, and one tooth that misses it by a voxel."""
    mask = np.zeros((20, 31, 17), dtype=np.bool_)
    mask[:, ::3, ::4] = mask[-1] = True
    mask[-1, 8:11, 7:10] = False
    return mask


def nested(_: np.random.Generator) -> Mask:
    """Shells around a core: cavities through many planes, the outer one open by a thin channel."""
    z, y, x = np.ogrid[-10:10, -15:16, -8:9]
    distance = np.maximum(np.maximum(abs(z), abs(y)), abs(x))
    mask = np.isin(distance, (2, 5, 7))
    mask[15:, 15, 8] = False
    return mask


@pytest.mark.parametrize("make", [percolating, serpentine, comb, nested])
def test_what_goes_through_many_planes_is_joined(make: Callable[..., Mask], rng: np.random.Generator) -> None:
    mask = make(rng)
    p = np.where(mask, rng.choice((0.25, 0.5, 0.75), mask.shape, p=(0.6, 0.39, 0.01)), 0.0).astype(np.float16)
    image = rng.integers(0, 4, mask.shape).astype(np.float32)
    organ = rng.random(mask.shape) < 0.9
    agree(mask, Scene(SPACING, ("vessel",), p[None], image, organ), heights=(1, 2, 7))


def test_what_the_largest_is_near_to_lies_in_parts_before_and_behind(rng: np.random.Generator) -> None:
    mask = rng.random((23, 17, 19)) < 0.04
    mask[11, 5:9, 5:9] = True
    pair = component_filter(max_largest_distance_mm=4.1, connectivity=6)
    kept = apply_steps(mask[None], [pair[0]], Scene(SPACING, ("vessel",))).masks[0]
    assert kept[:11].any() and kept[12:].any() and kept.sum() < mask.sum() // 2
    agree(
        mask, Scene(SPACING, ("vessel",), mask[None].astype(np.float16), organ=mask), heights=(1, 2, 7), pairs=(pair,)
    )


@pytest.mark.parametrize("value", [False, True])
def test_empty_and_full_masks(value: bool) -> None:
    mask = np.full((6, 5, 4), value)
    p, image = np.full((1, 6, 5, 4), 0.75 * value, np.float16), np.zeros((6, 5, 4), np.float32)
    agree(mask, Scene(SPACING, ("vessel",), p, image, mask), heights=(1, 4))


def test_regions_are_cut_each_by_itself(rng: np.random.Generator) -> None:
    masks, steps = rng.random((2, 9, 8, 7)) < 0.3, (Largest(), FillHoles(region="lesion"))
    scene = Scene(SPACING, ("liver", "lesion"))
    whole = apply_steps(masks, steps, scene)
    store = ArrayStore(masks.copy(), from_spacing(SPACING))
    assert apply_in_blocks(store, steps, scene.stored(), planes=2) == whole.report
    np.testing.assert_array_equal(store.array, whole.masks)


def test_no_part_is_larger_than_it_may_be(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    mask, heights = rng.random((20, 8, 7)) < 0.3, []
    label = blocks.label
    monkeypatch.setattr(blocks, "label", lambda m, **k: heights.append(len(m)) or label(m, **k))
    whole, _ = cut(Largest(), mask, Scene(SPACING, ("vessel",)), None)
    assert heights == [20]  # and what is not cut is labelled once
    heights.clear()
    monkeypatch.setattr(blocks, "BLOCK_VOXELS", 3 * 8 * 7)
    masks, _ = cut(Largest(), mask, Scene(SPACING, ("vessel",)), None)
    assert set(heights) == {2, 3}
    np.testing.assert_array_equal(masks, whole)


def test_a_step_that_does_not_say_how_it_is_cut_is_given_the_whole_region() -> None:
    seen = []

    @dataclass(frozen=True, kw_only=True)
    class OfVoxels(Step):
        name: ClassVar[str] = "of_voxels"
        locality: ClassVar[Locality] = "voxel"

        def apply(self, mask: Mask, scene: RegionScene) -> Applied:
            seen.append((mask.shape, scene.organ.shape))
            return Applied(~mask, "turned")

    @dataclass(frozen=True, kw_only=True)
    class Filled(FillHoles):
        name: ClassVar[str] = "filled"

        def apply(self, mask: Mask, scene: RegionScene) -> Applied:
            seen.append((mask.shape, scene.organ.shape))
            return Applied(super().apply(mask, scene).mask, "filled")

    mask = nested(np.random.default_rng(0))
    scene = Scene(SPACING, ("vessel",), organ=mask)
    turned, filled = (cut(step, mask, scene, 2) for step in (OfVoxels(), Filled()))
    assert [turned[1][0].note, filled[1][0].note] == ["turned", "filled"]
    assert seen == [(mask.shape, mask.shape)] * 2
    np.testing.assert_array_equal(turned[0], ~mask)
    np.testing.assert_array_equal(filled[0], plain_steps.fill_holes(mask, spacing=SPACING))


def test_a_step_may_say_how_it_is_cut(rng: np.random.Generator) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Below(LocalStep):
        """The voxels whose neighbour below is in the mask."""

        name: ClassVar[str] = "below"
        locality: ClassVar[Locality] = "halo"

        def reach(self, spacing: object) -> int:  # noqa: ARG002
            return 1

        def apply(self, mask: Mask, scene: RegionScene) -> Applied:  # noqa: ARG002
            return Applied(np.concatenate([np.zeros_like(mask[:1]), mask[:-1]]), "one up")

    @dataclass(frozen=True, kw_only=True)
    class Busiest(BlockStep):
        """The plane with the most voxels, which only all planes can tell."""

        name: ClassVar[str] = "busiest"
        locality: ClassVar[Locality] = "whole"

        def run(self, region: Region) -> str:
            most = max(int(plane.sum()) for part in region.parts() for plane in part.mask[part.core])
            region.rewrite(lambda part: part.mask & (part.mask.sum(axis=(1, 2), keepdims=True) == most))
            return str(most)

    mask, scene = rng.random((9, 8, 7)) < 0.3, Scene(SPACING, ("vessel",))
    sums = mask.sum(axis=(1, 2))
    for planes in (1, 2, 9):
        below, busiest = (cut(step, mask, scene, planes) for step in (Below(), Busiest()))
        np.testing.assert_array_equal(below[0][1:], mask[:-1])
        np.testing.assert_array_equal(busiest[0].sum(axis=(1, 2)), np.where(sums == sums.max(), sums, 0))
        assert [below[1][0].note, busiest[1][0].note] == ["one up", str(sums.max())]


def test_a_report_tells_how_long_its_step_took() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Slow(Step):
        name: ClassVar[str] = "slow"
        locality: ClassVar[Locality] = "whole"

        def apply(self, mask: Mask, scene: RegionScene) -> Applied:  # noqa: ARG002
            time.sleep(0.03)
            return Applied(mask)

    mask = np.ones((3, 4, 5), np.bool_)
    (slow,) = cut(Slow(), mask, Scene(SPACING, ("vessel",)), None)[1]
    assert 0.03 <= slow.seconds < 3
    assert slow == StepReport("slow", "vessel", mask.size, 0, 0)
