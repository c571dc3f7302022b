"""Steps on a GPU come to what they come to in the computer's memory: masks, counts, and where there is no room."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from tensor_steps import CHAIN, case, on_tensors, scenes, steps_like

from vol3d.postprocess.scene import Scene, Step, StepReport
from vol3d.postprocess.steps import STEPS, apply_steps, steps_from
from vol3d.regions.distance import offset_mm
from vol3d.regions.reduce import counts, first_places, highest, occurs, probability_sums
from vol3d.shapes import Spacing

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

CUDA = torch.device("cuda", 0)


def told(reports: tuple[StepReport, ...]) -> list[StepReport]:
    return [replace(report, device="cpu") for report in reports]


def agree(masks: np.ndarray, steps: Any, scene: Scene, planes: int | None) -> tuple[StepReport, ...]:
    expected = apply_steps(masks, steps, scene)
    found, report = on_tensors(masks, steps, scene, planes, CUDA)
    np.testing.assert_array_equal(found, expected.masks, err_msg=f"{planes} planes of {steps}")
    assert told(report) == list(expected.report)
    return report


@pytest.mark.parametrize("name", STEPS)
@settings(max_examples=30)
@given(drawn=scenes(), data=st.data(), planes=st.none() | st.integers(1, 3))
def test_every_step(name: str, drawn: tuple[np.ndarray, Scene], data: st.DataObject, planes: int | None) -> None:
    agree(drawn[0], [data.draw(steps_like(name))], drawn[1], planes)


def large(rng: np.random.Generator) -> tuple[np.ndarray, Scene]:
    """Vessels and specks of noise with probabilities of all sizes, and an organ around most of them."""
    _, scene = case(rng)
    shape = (70, 130, 90)
    smooth = np.stack([ndimage.gaussian_filter(rng.standard_normal(shape), sigma) for sigma in (1.0, 2.5)])
    p = (1 / (1 + np.exp(-4 * smooth / smooth.std(axis=(1, 2, 3), keepdims=True)))).astype(np.float16)
    organ = ndimage.gaussian_filter(rng.standard_normal(shape), 12) > 0
    return p > 0.9, replace(scene, probability=p, image=smooth[0].astype(np.float32), organ=organ)


LARGE: tuple[Any, ...] = (
    *CHAIN,
    {"organ_gate": {"margin_mm": 11.0}},
    {"organ_gate": {"margin_mm": -6.5}},
    {"close_gaps": {"radius_mm": 3.1}},
    {"hysteresis": {"seed_threshold": 0.95, "grow_threshold": 0.7}},
    {"grow_slices": {"tolerance": 0.02, "within": "organ"}},
    {"grow_neighbours": {"tolerance": 0.02, "within": "organ"}},
    {"remove_thin": {"radius_mm": 1.0}},
    {"top_share": {"share": 0.02, "within": "organ"}},
    {"component_filter": {"min_mean_probability": 0.93, "min_peak_probability": 0.97, "connectivity": 6}},
    {"component_filter": {"max_elongation": 3.0, "max_organ_distance_mm": 4.0, "max_largest_distance_mm": 20.0}},
    {"grow_range": {"tolerance": 0.1, "max_distance_mm": 5.0, "max_growth": 2.0, "connectivity": 6}},
)


@pytest.mark.parametrize("step", LARGE, ids=str)
def test_large_volumes_whole_and_cut(step: Any, rng: np.random.Generator) -> None:
    masks, scene = large(rng)
    for planes in (None, 9, 32):
        agree(masks, steps_from([step]), scene, planes)


def test_a_chain_runs_on_the_device(rng: np.random.Generator) -> None:
    masks, scene = large(rng)
    report = agree(masks, steps_from(CHAIN), scene, None)
    assert {r.device for r in report} == {"cuda:0"}
    assert any(r.added for r in report)
    assert any(r.removed for r in report)


def test_steps_for_arrays_run_in_memory(rng: np.random.Generator) -> None:
    masks, scene = large(rng)

    class Turned(STEPS["organ_gate"]):  # type: ignore[misc,name-defined]
        """A plugin's child."""

        def apply(self, mask: Any, scene: Any) -> Any:
            assert isinstance(mask, np.ndarray)
            return super().apply(np.logical_not(mask), scene)

    steps: list[Step] = [*steps_from(["threshold"]), Turned(), *steps_from(["fill_holes"])]
    report = agree(masks, steps, scene, None)
    assert [r.device for r in report] == ["cuda:0"] * 2 + ["cpu"] * 2 + ["cuda:0"] * 2


@pytest.fixture
def short_of_memory() -> Iterator[Any]:
    """Lets torch take no more than some bytes beyond what it has."""

    def limit(more: int) -> None:
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(CUDA).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(CUDA) + more) / total, CUDA)

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0, CUDA)
    torch.cuda.empty_cache()


def test_a_step_that_runs_out_of_memory_is_done_in_the_computers(
    short_of_memory: Any, rng: np.random.Generator
) -> None:
    mask = rng.random((1, 128, 256, 256)) < 0.1
    steps, scene = steps_from(["largest"]), Scene(Spacing(0.8, 1.0, 3.0), ("vessel",))
    expected = apply_steps(mask, steps, scene)
    short_of_memory(60 << 20)  # masks and their copy are 8 MiB each, labels 32 MiB, what is made beside them more
    found, (report,) = on_tensors(mask, steps, scene, None, CUDA)
    assert report.device == "cpu"
    np.testing.assert_array_equal(found, expected.masks)


@pytest.mark.parametrize("spacing", [Spacing(0.3, 0.1, 0.2), Spacing(0.8, 1.0, 3.0), Spacing(1.0, 1.0, 1.0)])
def test_surfaces_move_alike(spacing: Spacing, rng: np.random.Generator) -> None:
    mask = ndimage.gaussian_filter(rng.standard_normal((40, 61, 53)), 3) > 0.05
    for voxels in (1, 1.5, 2**0.5, 3, 5**0.5, 7.3):
        for margin_mm in (voxels * spacing.z, -voxels * spacing.y):
            moved = offset_mm(torch.from_numpy(mask).to(CUDA), margin_mm, spacing)
            np.testing.assert_array_equal(moved.cpu().numpy(), offset_mm(mask, margin_mm, spacing))


def test_tables_tell_alike(rng: np.random.Generator) -> None:
    shape, count = (40, 61, 53), 900
    labels = np.where(rng.random(shape) < 0.5, rng.integers(1, count + 1, shape), 0).astype(np.int32)
    labels[:, :, :20] = 7  # one that is far larger than the others
    values, where = rng.integers(-(2**31), 2**31, shape).astype(np.int32), rng.random(shape) < 0.3
    p = rng.random(shape).astype(np.float16)

    def tables(labels: Any, values: Any, where: Any, p: Any) -> list[np.ndarray]:
        plain = [counts(labels, count), first_places(labels, count), occurs(labels, count)]
        sure = [probability_sums(labels, count, p), highest(labels, count, p, where=where)]
        return [*plain, counts(labels, count, where=where), highest(labels, count, values, where=where), *sure]

    ours = tables(labels, values, where, p)
    theirs = tables(*(torch.from_numpy(array).to(CUDA) for array in (labels, values, where, p)))
    for one, two in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, two)
