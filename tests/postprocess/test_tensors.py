"""Steps come to the same on tensors as on arrays, whole and cut, and where there is no room for them."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from plain_steps import SPACING

from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.postprocess import blocks, tensors
from vol3d.postprocess import steps as steps_module
from vol3d.postprocess.blocks import LocalStep
from vol3d.postprocess.scene import Applied, Locality, Mask, Needs, RegionScene, Scene, Step, StepReport
from vol3d.postprocess.steps import STEPS, TensorStore, apply_in_blocks, apply_steps, steps_from
from vol3d.regions.library import as_numpy

CPU = torch.device("cpu")
GREY = (-1.5, 0.0, 0.25, 1.0, 7.0)
P = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
ONE = st.sampled_from(P)
SOME = st.integers(1, 4)
MM = st.sampled_from((0.0, 0.9, 1.7, 3.0))
CONNECTIVITY = st.sampled_from((6, 18, 26))
VOLUME = st.sampled_from([voxels * SPACING.voxel_mm3 for voxels in (0.4, 1, 2, 3.5)])
GROWTH: dict[str, Any] = {
    "tolerance": st.sampled_from((0.0, 0.3, 1.0)),
    "min_probability": st.none() | ONE,
    "within": st.sampled_from(("volume", "organ")),
    "max_distance_mm": st.none() | MM,
    "max_growth": st.none() | st.sampled_from((1.0, 2.0, 4.0)),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "threshold": {"threshold": ONE},
    "hysteresis": {
        "seed_threshold": st.sampled_from((0.5, 0.75)),
        "grow_threshold": st.sampled_from((0.1, 0.5)),
        "min_seed_voxels": SOME,
        "connectivity": CONNECTIVITY,
    },
    "presence": {"seed_threshold": ONE, "min_seed_voxels": SOME},
    "size_filter": {"min_volume_mm3": VOLUME, "connectivity": CONNECTIVITY},
    "largest": {"count": SOME, "connectivity": CONNECTIVITY},
    "fill_holes": {"max_volume_mm3": st.none() | VOLUME},
    "close_gaps": {"radius_mm": MM},
    "organ_gate": {"margin_mm": st.sampled_from((0.0, 1.7, -0.9))},
    "grow_slices": {**GROWTH, "min_neighbours": SOME},
    "grow_range": {**GROWTH, "connectivity": CONNECTIVITY},
}


@st.composite
def scenes(draw: st.DrawFn) -> tuple[np.ndarray, Scene]:
    """Masks of two regions, and a scene of them."""
    grid = draw(st.tuples(st.integers(1, 7), st.integers(1, 5), st.integers(1, 5)))
    p = draw(arrays(draw(st.sampled_from((np.float16, np.float32))), (2, *grid), elements=ONE, fill=st.nothing()))
    kind, greys = draw(st.sampled_from(((np.float32, GREY), (np.float16, GREY), (np.uint8, (0, 1, 2, 200)))))
    image = draw(arrays(kind, grid, elements=st.sampled_from(greys), fill=st.nothing()))
    masks = draw(arrays(np.bool_, (2, *grid), fill=st.nothing()))
    organ = draw(arrays(np.bool_, grid, fill=st.nothing()))
    return masks, Scene(SPACING, ("organ", "vessel"), p, image, organ)


def on_tensors(
    masks: np.ndarray, steps: Any, scene: Scene, planes: int | None, device: torch.device = CPU
) -> tuple[np.ndarray, tuple[StepReport, ...]]:
    """What the steps make of masks on a device, given the probability there and the rest as arrays."""
    affine, stored = from_spacing(SPACING), scene.stored()
    store = TensorStore(torch.tensor(masks, device=device), affine)
    if scene.probability is not None:
        stored = replace(stored, probability=TensorStore(torch.tensor(scene.probability, device=device), affine))
    report = apply_in_blocks(store, steps, stored, planes=planes)
    return as_numpy(store.tensor), report


def steps_like(name: str) -> st.SearchStrategy[Step]:
    return st.fixed_dictionaries(SETTINGS[name]).map(lambda fields: steps_from([{name: fields}])[0])


def test_every_step_is_drawn_here() -> None:
    assert set(SETTINGS) == set(STEPS)


@pytest.mark.parametrize("name", STEPS)
@settings(max_examples=25)
@given(drawn=scenes(), data=st.data(), planes=st.none() | st.integers(1, 3))
def test_tensors_give_what_arrays_give(
    name: str, drawn: tuple[np.ndarray, Scene], data: st.DataObject, planes: int | None
) -> None:
    masks, scene = drawn
    step = data.draw(steps_like(name))
    expected = apply_steps(masks, [step], scene)
    found, report = on_tensors(masks, [step], scene, planes)
    np.testing.assert_array_equal(found, expected.masks)
    assert report == expected.report


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Which steps ran, in order, and whether on tensors."""
    seen: list[tuple[str, bool]] = []
    run = steps_module.run_step

    def spied(step: Step, store: Any, *rest: Any) -> StepReport:
        seen.append((step.name, isinstance(store, TensorStore)))
        return run(step, store, *rest)

    monkeypatch.setattr(steps_module, "run_step", spied)
    return seen


def case(rng: np.random.Generator) -> tuple[np.ndarray, Scene]:
    shape = (20, 31, 17)
    p = rng.choice(P, (2, *shape)).astype(np.float16)
    organ = np.zeros(shape, dtype=np.bool_)
    organ[3:15, 4:28, 2:11] = True
    scene = Scene(SPACING, ("organ", "vessel"), p, rng.standard_normal(shape).astype(np.float32), organ)
    for array in (p, organ, scene.image):
        array.flags.writeable = False  # type: ignore[union-attr]
    return rng.random((2, *shape)) < 0.2, scene


CHAIN = (
    {"hysteresis": {"seed_threshold": 0.75, "grow_threshold": 0.5, "connectivity": 6, "min_seed_voxels": 4}},
    {"organ_gate": {"margin_mm": 2.0}},
    {"grow_range": {"tolerance": 0.05, "within": "organ"}},
    "fill_holes",
    {"largest": {"count": 9, "region": "vessel"}},
)


def test_steps_built_in_run_on_tensors(ran: list[tuple[str, bool]], rng: np.random.Generator) -> None:
    masks, scene = case(rng)
    steps = steps_from(CHAIN)
    expected = apply_steps(masks, steps, scene)
    ran.clear()
    found, report = on_tensors(masks, steps, scene, None)
    assert [on_tensor for _, on_tensor in ran] == [True] * 9
    assert report == expected.report
    np.testing.assert_array_equal(found, expected.masks)
    assert 0 < found.sum() != masks.sum()


@dataclass(frozen=True, kw_only=True)
class Turned(Step):
    """A plugin's, written for arrays."""

    name: ClassVar[str] = "turned"
    locality: ClassVar[Locality] = "voxel"

    def apply(self, mask: Mask, scene: RegionScene) -> Applied:
        assert isinstance(mask, np.ndarray)
        assert not mask.flags.writeable
        return Applied(np.logical_xor(mask, scene.organ) & np.greater(scene.probability, 0.1), "turned")


@dataclass(frozen=True, kw_only=True)
class Edged(STEPS["close_gaps"]):  # type: ignore[misc,name-defined]
    """A plugin's child of a step that takes tensors."""

    name: ClassVar[str] = "edged"

    def apply(self, mask: Mask, scene: RegionScene) -> Applied:
        return Applied(np.logical_and(super().apply(mask, scene).mask, np.roll(mask, 1, axis=2)))


@dataclass(frozen=True, kw_only=True)
class Shifted(LocalStep):
    """A plugin's that takes tensors, and counts what it is given."""

    name: ClassVar[str] = "shifted"
    locality: ClassVar[Locality] = "halo"
    tensors: ClassVar[bool] = True
    given: ClassVar[list[type]] = []

    def needs(self) -> Needs:
        return Needs(image=True)

    def apply(self, mask: Mask, scene: RegionScene) -> Applied:
        self.given.extend((type(mask), type(scene.image)))
        return Applied(mask & (scene.image > 0))


def test_steps_of_plugins_are_given_what_they_take(ran: list[tuple[str, bool]], rng: np.random.Generator) -> None:
    masks, scene = case(rng)
    steps = (*steps_from(CHAIN[:1]), Turned(), Shifted(region="vessel"), Edged(radius_mm=1.0, region="organ"))
    expected = apply_steps(masks, steps, scene)
    ran.clear()
    Shifted.given.clear()
    found, report = on_tensors(masks, steps, scene, 6)
    taken = {"hysteresis": True, "turned": False, "shifted": True, "edged": False}
    assert ran == [(step.name, taken[step.name]) for step in (steps[0], *steps[:2], *steps[1:])]
    assert set(Shifted.given) == {torch.Tensor}
    assert report == expected.report
    np.testing.assert_array_equal(found, expected.masks)


def test_what_has_no_room_is_done_in_memory(
    ran: list[tuple[str, bool]], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks, scene = case(rng)
    steps = steps_from(CHAIN)
    expected = apply_steps(masks, steps, scene)
    ran.clear()
    # Room for two organ masks, and for parts of six planes, but not for two images.
    monkeypatch.setattr(tensors, "free_bytes", lambda _: 6 * 31 * 17 * tensors.WORK_BYTES)
    assert 2 * 20 < 6 * tensors.WORK_BYTES < 8 * 20
    found, report = on_tensors(masks, steps, scene, None)
    assert ran == [(r.step, r.step != "grow_range") for r in expected.report]
    assert report == expected.report
    np.testing.assert_array_equal(found, expected.masks)


def test_parts_are_as_large_as_the_room(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    masks, scene = case(rng)
    heights: list[int] = []
    label = blocks.label
    monkeypatch.setattr(blocks, "label", lambda m, **k: heights.append(len(m)) or label(m, **k))
    room = iter(range(9, 90))  # more with every question: one step asks once
    monkeypatch.setattr(tensors, "free_bytes", lambda _: next(room) * 31 * 17 * tensors.WORK_BYTES)
    on_tensors(masks[1:], steps_from(["largest"]), replace(scene, regions=("vessel",), probability=None), None)
    assert heights == [9, 9, 2] * 2


def test_a_step_that_runs_out_of_memory_is_done_again_in_memory(
    ran: list[tuple[str, bool]], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks, scene = case(rng)
    steps = steps_from([{"size_filter": {"min_volume_mm3": 7.2}}, "fill_holes"])
    expected = apply_steps(masks, steps, scene)
    keep, calls = blocks.keep, iter((False, True))

    def short(components: Any, kept: Any) -> Any:
        """Fails in the second part, when the first is rewritten already."""
        if not isinstance(components.labels, np.ndarray) and next(calls, False):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return keep(components, kept)

    monkeypatch.setattr(blocks, "keep", short)
    ran.clear()
    found, report = on_tensors(masks, steps, scene, 7)
    assert [on_tensor for _, on_tensor in ran] == [True, False, True, True, True]
    assert report == expected.report
    np.testing.assert_array_equal(found, expected.masks)


def test_other_errors_are_not_swallowed(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    masks, scene = case(rng)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(blocks, "label", broken)
    with pytest.raises(RuntimeError, match="broken"):
        on_tensors(masks, steps_from(["largest"]), scene, None)


def test_a_store_is_read_and_written_in_place() -> None:
    store = TensorStore(torch.zeros((2, 4, 5, 6), dtype=torch.float16), from_spacing(SPACING))
    box = Box((1, 0, 2), (3, 5, 4))  # type: ignore[arg-type]
    store.channel(1).write(box, torch.ones((1, *box.shape)))
    assert (tuple(store.shape), store.channels, store.dtype) == ((4, 5, 6), 2, np.float16)
    assert store.tensor.sum() == store.tensor[1, 1:3, :, 2:4].sum() == 20
    view = tensors.on_host(store)
    view.write(box, np.full((2, *box.shape), 3, dtype=np.float16))
    assert isinstance(view.read(box), np.ndarray)
    assert store.read(box).sum() == 120
    with pytest.raises(ValueError, match="tensor, got shape"):
        TensorStore(torch.zeros(3, 4, 5), from_spacing(SPACING))
