"""Steps come to the same on tensors as on arrays, whole and cut, and where there is no room for them."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_steps import SPACING
from tensor_steps import CHAIN, SETTINGS, case, on_tensors, scenes, steps_like

from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.postprocess import blocks, tensor_blur, tensors
from vol3d.postprocess import steps as steps_module
from vol3d.postprocess.blocks import LocalStep
from vol3d.postprocess.scene import Applied, Locality, Mask, Needs, RegionScene, Scene, Step, StepReport
from vol3d.postprocess.steps import STEPS, TensorStore, apply_in_blocks, apply_steps, steps_from
from vol3d.postprocess.tensor_store import on_host
from vol3d.regions import library


def test_every_step_is_drawn_here() -> None:
    assert set(SETTINGS) == set(STEPS)


@pytest.mark.parametrize("name", STEPS)
@settings(max_examples=15)
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


def test_tensors_in_tensors_out(ran: list[tuple[str, bool]], rng: np.random.Generator) -> None:
    masks, scene = case(rng)
    steps = steps_from(CHAIN)
    expected = apply_steps(masks, steps, scene)
    ran.clear()
    there = {name: torch.tensor(getattr(scene, name)) for name in ("probability", "image", "organ")}
    given = torch.from_numpy(masks.copy())
    found = apply_steps(given, steps, replace(scene, **there))
    assert {on_tensor for _, on_tensor in ran} == {True}
    assert found.report == expected.report
    np.testing.assert_array_equal(found.masks.numpy(), expected.masks)
    np.testing.assert_array_equal(given.numpy(), masks)


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
    # Room for two organ masks, and for parts of six planes, but not for two images or all planes.
    monkeypatch.setattr(tensors, "free_bytes", lambda _: 6 * 31 * 17 * tensors.WORK_BYTES)
    assert 2 * 20 < 6 * tensors.WORK_BYTES < 8 * 20
    found, report = on_tensors(masks, steps, scene, None)
    assert ran == [(r.step, not r.step.startswith("grow")) for r in expected.report]
    assert report == expected.report
    np.testing.assert_array_equal(found, expected.masks)


def test_what_is_not_cut_needs_room_for_all(
    ran: list[tuple[str, bool]], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks, scene = case(rng)
    affine = from_spacing(SPACING)
    scene = replace(scene, image=torch.tensor(scene.image))
    steps = steps_from([{"grow_slices": {"tolerance": 0.1}}])
    for planes, on_tensor in ((20, True), (19, False)):
        room = planes * 31 * 17 * tensors.WORK_BYTES
        monkeypatch.setattr(tensors, "free_bytes", lambda _, room=room: room)
        ran.clear()
        apply_in_blocks(TensorStore(torch.tensor(masks), affine), steps, scene.stored())
        assert ran == [("grow_slices", on_tensor)] * 2


def test_parts_are_as_large_as_the_room(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    masks, scene = case(rng)
    heights: list[int] = []
    label = blocks.label
    monkeypatch.setattr(blocks, "label", lambda m, **k: heights.append(len(m)) or label(m, **k))
    room = iter(range(9, 90))  # more with every question: one step asks once
    monkeypatch.setattr(tensors, "free_bytes", lambda _: next(room) * 31 * 17 * tensors.WORK_BYTES)
    on_tensors(masks[1:], steps_from(["largest"]), replace(scene, regions=("vessel",), probability=None), None)
    assert heights == [9, 9, 2] * 2


def test_what_is_worked_on_at_once_is_not_seen(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    masks, scene = case(rng)
    steps = steps_from(
        [{"top_share": {"share": 0.3}}, {"smooth": {"sigma_mm": 0.7}}, {"grow_range": {"central_share": 0.3}}]
    )
    expected = apply_steps(masks, steps, scene)
    monkeypatch.setattr(library, "VALUES_AT_ONCE", 700)
    monkeypatch.setattr(tensor_blur, "VOXELS_AT_ONCE", 3 * 31 * 17)
    found, report = on_tensors(masks, steps, scene, None)
    np.testing.assert_array_equal(found, expected.masks)
    assert report == expected.report
    assert all(step.removed and step.voxels_after for step in report[:4])


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
    view = on_host(store)
    view.write(box, np.full((2, *box.shape), 3, dtype=np.float16))
    assert isinstance(view.read(box), np.ndarray)
    assert store.read(box).sum() == 120
    with pytest.raises(ValueError, match="tensor, got shape"):
        TensorStore(torch.zeros(3, 4, 5), from_spacing(SPACING))
