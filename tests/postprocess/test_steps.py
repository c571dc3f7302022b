from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vol3d.errors import UsageError
from vol3d.postprocess.filter import ComponentFilter
from vol3d.postprocess.flood import GrowRange
from vol3d.postprocess.gate import OrganGate
from vol3d.postprocess.growth import GrowSlices
from vol3d.postprocess.lumens import CloseLumens
from vol3d.postprocess.morphology import CloseGaps, FillHoles, RemoveThin, Smooth
from vol3d.postprocess.neighbours import GrowNeighbours
from vol3d.postprocess.scene import Applied, Locality, Mask, Needs, RegionScene, Scene, Step
from vol3d.postprocess.size import Largest, SizeFilter
from vol3d.postprocess.steps import STEPS, apply_steps, needs, register_step, steps_from, steps_to
from vol3d.postprocess.threshold import Hysteresis, Presence, Threshold, TopShare
from vol3d.shapes import Spacing

SPACING = Spacing(0.8, 1.0, 3.0)
EVERY_STEP: tuple[Step, ...] = (
    Threshold(threshold=0.4),
    TopShare(share=0.2),
    Hysteresis(seed_threshold=0.8, grow_threshold=0.3, min_seed_voxels=2, connectivity=18),
    Presence(seed_threshold=0.6, min_seed_voxels=3),
    SizeFilter(min_volume_mm3=5.0, connectivity=6),
    Largest(count=2),
    ComponentFilter(min_peak_probability=0.5, max_organ_distance_mm=1.0),
    FillHoles(max_volume_mm3=3.0),
    FillHoles(),
    CloseGaps(radius_mm=1.0),
    CloseLumens(max_area_mm2=5.0),
    RemoveThin(radius_mm=1.0),
    Smooth(sigma_mm=0.9),
    OrganGate(margin_mm=-1.0),
    OrganGate(margin_mm=0.9),
    OrganGate(falloff_mm=2.0, threshold=0.4),
    GrowSlices(tolerance=1.0, min_probability=0.2, within="organ", max_growth=None),
    GrowRange(tolerance=1.0, max_distance_mm=2.0),
    GrowNeighbours(tolerance=1.0, within="organ", connectivity=6),
)
# These look at the mask that they find, so a second run starts from further out.
MOVING = (GrowRange, CloseLumens, Smooth)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Mask, Scene]:
    grid = draw(st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 4)))
    p = draw(arrays(np.float16, (2, *grid), elements=st.sampled_from((0.0, 0.25, 0.5, 0.75, 1.0)), fill=st.nothing()))
    image = draw(arrays(np.uint16, grid, elements=st.sampled_from((0, 1, 5, 65535)), fill=st.nothing()))
    organ = draw(arrays(np.bool_, grid, fill=st.nothing()))
    masks = draw(st.one_of(arrays(np.bool_, (2, *grid), fill=st.nothing()), st.just(np.zeros((2, *grid), np.bool_))))
    for array in (p, image, organ, masks):
        array.flags.writeable = False  # a step that modified its input would fail
    return masks, Scene(SPACING, ("liver", "lesion"), p, image, organ)


def test_every_registered_step_is_tested_here() -> None:
    assert {type(step) for step in EVERY_STEP} == set(STEPS.values())


@pytest.mark.parametrize("step", EVERY_STEP, ids=repr)
@settings(max_examples=15)
@given(drawn=scenes())
def test_steps_keep_form_count_right_and_settle(step: Step, drawn: tuple[Mask, Scene]) -> None:
    masks, scene = drawn
    once = apply_steps(masks, [step], scene)
    assert (once.masks.shape, once.masks.dtype) == (masks.shape, np.bool_)
    for said, before, after in zip(once.report, masks, once.masks, strict=True):
        assert said.voxels_before == before.sum()
        assert said.removed == (before & ~after).sum()
        assert said.added == (after & ~before).sum()
        assert said.voxels_after == after.sum()
    if not isinstance(step, MOVING):
        np.testing.assert_array_equal(apply_steps(once.masks, [step], scene).masks, once.masks)


@given(drawn=scenes())
def test_steps_run_in_order_each_on_what_the_last_left(drawn: tuple[Mask, Scene]) -> None:
    masks, scene = drawn
    chain = (Hysteresis(seed_threshold=0.7, grow_threshold=0.2), SizeFilter(min_volume_mm3=5.0), OrganGate())
    result = apply_steps(masks, chain, scene)
    expected = masks
    for step in chain:
        expected = apply_steps(expected, [step], scene).masks
    np.testing.assert_array_equal(result.masks, expected)
    assert [(r.step, r.region) for r in result.report] == [(s.name, region) for s in chain for region in scene.regions]
    assert [r.voxels_before for r in result.report[2:]] == [r.voxels_after for r in result.report[:-2]]


def scene_of(**arrays_: np.ndarray) -> Scene:
    return Scene(SPACING, ("liver", "lesion"), **arrays_)  # type: ignore[arg-type]


def test_no_steps_copy_the_masks() -> None:
    masks = np.ones((2, 20, 31, 17), dtype=np.bool_)
    result = apply_steps(masks, [], scene_of())
    assert result.masks is not masks
    assert result.masks.all()
    assert result.report == ()


def test_a_step_may_act_on_one_region() -> None:
    masks = np.zeros((2, 20, 31, 17), dtype=np.bool_)
    masks[:, 3, 4, 5] = True
    result = apply_steps(masks, [SizeFilter(region="lesion", min_volume_mm3=9.0)], scene_of())
    assert result.masks.sum(axis=(1, 2, 3)).tolist() == [1, 0]
    assert [r.region for r in result.report] == ["lesion"]


def test_siim_per_volume_is_presence_and_a_threshold() -> None:
    p = np.zeros((1, 1, 8, 9), dtype=np.float32)
    p[0, 0, 2, 2:5], p[0, 0, 6, 6] = 0.8, 0.4
    masks = np.zeros(p.shape, dtype=np.bool_)
    scene = Scene(SPACING, ("pneumothorax",), probability=p)
    left = [
        int(apply_steps(masks, steps_from([{"threshold": {"threshold": 0.3}}, {"presence": rule}]), scene).masks.sum())
        for rule in ({"seed_threshold": 0.75, "min_seed_voxels": n} for n in (3, 4))
    ]
    assert left == [4, 0]


def test_growth_reports_its_leaks_and_its_range() -> None:
    image = np.full((20, 31, 17), 7, dtype=np.uint16)
    masks = np.zeros((1, 20, 31, 17), dtype=np.bool_)
    masks[0, 4, 5:9, 6:9] = True
    scene = Scene(SPACING, ("vessel",), image=image)
    slices, values = (apply_steps(masks, [step], scene) for step in (GrowSlices(tolerance=1), GrowRange(tolerance=1)))
    assert slices.report[0].note == "1 components refused: they grew more than 4.0 times"
    assert values.report[0].note == "grey values 6 to 8; 1 components refused: they grew more than 4.0 times"
    assert (slices.masks == masks).all()
    near = GrowSlices(tolerance=1, max_distance_mm=1.7, max_growth=None)
    assert np.flatnonzero(apply_steps(masks, [near], scene).masks.any(axis=(0, 2, 3))).tolist() == [2, 3, 4, 5, 6]


def test_needs_are_what_the_settings_look_at() -> None:
    assert needs([]) == Needs()
    assert needs([SizeFilter(min_volume_mm3=1), OrganGate()]) == Needs(organ=True)
    assert needs([GrowSlices(tolerance=1)]) == Needs(image=True)
    assert needs([GrowSlices(tolerance=1, within="organ", min_probability=0.1)]) == Needs(True, True, True)


def test_what_is_missing_is_said_before_any_step_runs() -> None:
    masks = np.zeros((2, 20, 31, 17), dtype=np.bool_)
    ran = []

    @dataclass(frozen=True, kw_only=True)
    class Noisy(Step):
        name: ClassVar[str] = "noisy"
        locality: ClassVar[Locality] = "voxel"

        def apply(self, mask: Mask, scene: RegionScene) -> Applied:
            ran.append(scene)
            return Applied(mask)

    for step, words in (
        (OrganGate(), "organ_gate needs an organ mask, and none was given"),
        (GrowRange(tolerance=1, min_probability=0.2), "grow_range needs the probability and the image"),
        (Largest(region="lesions"), "region 'lesions' is not known; did you mean 'lesion'"),
    ):
        with pytest.raises(ValueError, match=words):
            apply_steps(masks, [Noisy(), step], scene_of())
    assert ran == []


def test_grids_must_agree() -> None:
    image = np.zeros((20, 31, 17), dtype=np.uint16)
    with pytest.raises(ValueError, match=r"one .z, y, x. grid"):
        scene_of(image=image, organ=np.zeros((20, 31, 16), dtype=np.bool_))
    with pytest.raises(ValueError, match="bool organ mask, got uint16"):
        scene_of(organ=image)
    with pytest.raises(ValueError, match="one probability channel per region"):
        scene_of(probability=np.zeros((3, 20, 31, 17), dtype=np.float16))
    with pytest.raises(ValueError, match="on the image's grid"):
        apply_steps(np.zeros((2, 31, 20, 17), dtype=np.bool_), [], scene_of(image=image))
    with pytest.raises(ValueError, match="bool masks"):
        apply_steps(np.zeros((1, 20, 31, 17), dtype=np.bool_), [], scene_of())


def test_plain_data_and_back() -> None:
    assert steps_from(steps_to(EVERY_STEP)) == EVERY_STEP
    one = replace(EVERY_STEP[3], region="lesion")
    assert steps_from(steps_to([one])) == (one,)
    assert steps_from([{"fill_holes": None}, "largest", {"size_filter": {"min_volume_mm3": 1}}]) == (
        FillHoles(),
        Largest(),
        SizeFilter(min_volume_mm3=1.0),
    )
    assert steps_from([]) == ()


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({"largest": {}}, "expected a list of steps"),
        ([{"largest": {}, "fill_holes": {}}], "expected one step as"),
        ([3], "expected one step as"),
        ([{"size_filer": {}}], "unknown step 'size_filer', did you mean 'size_filter'"),
        ([{"size_filter": {"min_volume": 1}}], "size_filter: the field 'min_volume' .* did you mean 'min_volume_mm3'"),
        ([{"size_filter": {}}], "size_filter needs one of min_volume_mm3 and min_voxels"),
        ([{"size_filter": 3}], "size_filter: expected its fields"),
        ([{"size_filter": {"min_volume_mm3": "5e-3"}}], "min_volume_mm3 must be a number or null, got '5e-3'"),
        ([{"size_filter": {"min_volume_mm3": True}}], "min_volume_mm3 must be a number or null, got True"),
        ([{"size_filter": {"min_volume_mm3": -1}}], "size_filter: min_volume_mm3 must be zero or more .* got -1"),
        ([{"size_filter": {"min_volume_mm3": float("nan")}}], "min_volume_mm3 must be .* got nan"),
        ([{"size_filter": {"min_volume_mm3": 1, "connectivity": 8}}], "connectivity must be one of 6, 18, 26, got 8"),
        ([{"size_filter": {"min_volume_mm3": 1, "connectivity": 6.0}}], "one of 6, 18, 26, got 6.0"),
        ([{"largest": {"count": 0}}], "largest: count must be 1 or more, got 0"),
        ([{"largest": {"count": 1.0}}], "largest: count must be a whole number, got 1.0"),
        ([{"largest": {"count": True}}], "largest: count must be a whole number, got True"),
        ([{"largest": {"region": 3}}], "largest: region must be a name, got 3"),
        ([{"fill_holes": {"max_volume_mm3": 0}}], "max_volume_mm3 must be more than zero .* got 0.0"),
        ([{"fill_holes": {"max_volume_mm3": "x"}}], "max_volume_mm3 must be a number or null, got 'x'"),
        (
            [{"hysteresis": {"seed_threshold": 0.3, "grow_threshold": 0.7}}],
            r"grow_threshold must be in \[0, seed_thres",
        ),
        ([{"hysteresis": {"seed_threshold": 1.3, "grow_threshold": 0.7}}], "seed_threshold must be in"),
        ([{"close_lumens": {"max_area_mm2": 0}}], "max_area_mm2 must be more than zero square millimetres, got 0.0"),
        ([{"remove_thin": {"radius_mm": -1}}], "remove_thin: radius_mm must be zero or more millimetres, got -1.0"),
        ([{"smooth": {"sigma_mm": -1}}], "smooth: sigma_mm must be zero or more millimetres, got -1.0"),
        ([{"grow_slices": {"tolerance": 1, "within": "liver"}}], "within must be one of volume, organ, got 'liver'"),
        ([{"grow_slices": {"tolerance": 1, "min_neighbours": 10}}], "min_neighbours must be 1 to 9, got 10"),
        ([{"grow_range": {}}], "grow_range: tolerance must be given, or central_share, and not both, got None"),
        ([{"grow_range": {"tolerance": 1, "central_share": 0.9}}], "not both, got 1.0"),
        ([{"grow_range": {"tolerance": -1}}], "grow_range: tolerance must be zero or more grey values, got -1.0"),
        ([{"grow_range": {"central_share": 0}}], "central_share must be above 0 and at most 1, got 0.0"),
        ([{"grow_neighbours": {"tolerance": -1}}], "grow_neighbours: tolerance must be zero or more grey values"),
        ([{"grow_range": {"tolerance": 1, "max_growth": 0.5}}], "grow_range: max_growth must be 1 or more, got 0.5"),
        ([{"organ_gate": {"margin_mm": float("inf")}}], "margin_mm must be a finite number"),
    ],
)
def test_wrong_plain_data_is_refused_by_name(plain: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        steps_from(plain)


def test_a_plugin_registers_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(STEPS):
        monkeypatch.setitem(STEPS, name, STEPS[name])  # so that the table is put back

    @dataclass(frozen=True, kw_only=True)
    class Everything(Step):
        name: ClassVar[str] = "everything"
        locality: ClassVar[Locality] = "voxel"

        def apply(self, mask: Mask, scene: RegionScene) -> Applied:  # noqa: ARG002
            return Applied(np.ones_like(mask))

    monkeypatch.setitem(STEPS, "everything", Everything)
    assert register_step(Everything) is Everything
    masks = np.zeros((2, 20, 31, 17), dtype=np.bool_)
    assert apply_steps(masks, steps_from(["everything"]), scene_of()).masks.all()

    with pytest.raises(ValueError, match="there is a step 'everything' already"):

        @register_step
        @dataclass(frozen=True, kw_only=True)
        class Other(Everything):
            pass

    for wrong in (Step, len, None):
        with pytest.raises(TypeError, match="a step is a child of Step"):
            register_step(wrong)  # type: ignore[type-var]


def test_a_step_that_breaks_the_form_or_writes_is_stopped() -> None:
    masks = np.zeros((2, 20, 31, 17), dtype=np.bool_)

    @dataclass(frozen=True, kw_only=True)
    class Counts(Step):
        name: ClassVar[str] = "counts"
        locality: ClassVar[Locality] = "voxel"

        def apply(self, mask: Mask, scene: RegionScene) -> Applied:  # noqa: ARG002
            return Applied(mask.astype(np.uint8))  # type: ignore[arg-type]

    class Writes(Counts):
        def apply(self, mask: Mask, scene: RegionScene) -> Applied:  # noqa: ARG002
            mask[0] = True
            return Applied(mask)

    class Answers(Counts):
        def apply(self, mask: Mask, scene: RegionScene) -> Applied:  # noqa: ARG002
            return mask  # type: ignore[return-value]

    with pytest.raises(UsageError, match=r"counts must give a bool mask .* got uint8"):
        apply_steps(masks, [Counts()], scene_of())
    with pytest.raises(UsageError, match=r"counts must give an Applied\(mask\), got a ndarray"):
        apply_steps(masks, [Answers()], scene_of())
    with pytest.raises(ValueError, match="read-only"):
        apply_steps(masks, [Writes()], scene_of())
