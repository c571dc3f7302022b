"""What follows from the data when the user says nothing: each rule by its reason."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vol3d.config.dump import comments_of
from vol3d.config.load import load
from vol3d.config.tree import Config, plan_of
from vol3d.datasets.fingerprint import CaseFacts, Fingerprint, case_facts, fingerprint
from vol3d.datasets.plan import (
    VOXELS,
    coarse_spacing,
    covered,
    free_value,
    normalisations,
    patch_plan,
    regions,
    target_spacing,
    training_steps,
)
from vol3d.errors import UsageError
from vol3d.geometry.box import Box
from vol3d.preprocess.intensity import Normalisation
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.tasks.budget import Budget
from vol3d.tasks.planning import Planned, fill
from vol3d.volume.source import ArraySource


def facts(**changed: Any) -> CaseFacts:
    ours: dict[str, Any] = {
        "name": "case",
        "shape": Shape3(20, 31, 17),
        "spacing": Spacing(0.8, 1.0, 3.0),
        "dtype": "int16",
        "minimum": (0.0,),
        "label_voxels": {0: 900, 1: 100},
        "foreground": np.arange(100, dtype=np.float32)[None],
    }
    return CaseFacts(**{**ours, **changed})


def of(*cases: CaseFacts) -> Fingerprint:
    return Fingerprint(cases)


# Spacing.


def test_the_target_is_the_median_spacing() -> None:
    found = of(*(facts(spacing=Spacing(z, 1.0, 1.5)) for z in (0.7, 0.8, 2.0)))
    assert target_spacing(found).value == (0.8, 1.0, 1.5)


def test_the_coarse_axis_of_anisotropic_data_is_its_tenth_percentile() -> None:
    found = of(*(facts(spacing=Spacing(z, 1.0, 1.0)) for z in np.linspace(2.0, 12.0, 11)))
    assert target_spacing(found).value == pytest.approx((3.0, 1.0, 1.0))
    finer = of(*(facts(spacing=Spacing(z, 1.0, 1.0)) for z in (0.2, 5.0, 5.0)))
    assert target_spacing(finer).value.z >= 1.0  # never finer than the other axes


# Grey values.


def normalised(found: Fingerprint) -> tuple[Normalisation, ...]:
    return tuple(decided.value for decided in normalisations(found))


def test_grey_values_are_normalised_by_what_they_are() -> None:
    air = of(facts(minimum=(-1000.0,)), facts(minimum=(-1024.0,)), facts(minimum=(0.0,)))
    (ct,) = normalised(air)
    assert ct.scheme == "fixed"
    assert (ct.low, ct.high) == pytest.approx(np.percentile(np.tile(np.arange(100), 3), [0.5, 99.5]))
    assert ct.mean == pytest.approx(49.5)
    assert normalised(of(facts(dtype="uint16"), facts(dtype="uint8")))[0].scheme == "percentile"
    assert normalised(of(facts(dtype="uint16"), facts(dtype="float32")))[0].scheme == "z_score"
    two = facts(minimum=(-1000.0, 0.0), foreground=np.arange(200, dtype=np.float32).reshape(2, 100))
    assert [n.scheme for n in normalised(of(two))] == ["fixed", "z_score"]


def test_a_foreground_of_one_grey_value_makes_no_window() -> None:
    (ct,) = normalised(of(facts(minimum=(-1000.0,), foreground=np.full((1, 9), 7, np.float32))))
    assert ct.scheme == "z_score"


# Regions.


def test_regions_are_the_values_or_the_data_sets_names() -> None:
    both = facts(label_voxels={0: 9, 1: 5, 2: 5})
    assert [(r.name, r.values) for r in regions(of(both), None).value] == [("label_1", (1,)), ("label_2", (2,))]
    named = regions(of(both), {"liver": (1,), "tumour": (2,)}).value
    assert [(r.name, r.values) for r in named] == [("liver", (1,)), ("tumour", (2,))]


def test_values_that_never_meet_are_one_foreground() -> None:
    found = of(facts(label_voxels={0: 9, 255: 3}), facts(label_voxels={0: 9, 254: 3}), facts(label_voxels={0: 9}))
    (region,) = regions(found, None).value
    assert set(region.values) == {254, 255}


# Patch.


@given(
    shape=st.tuples(*[st.integers(1, 500)] * 3),
    spacing=st.tuples(*[st.floats(0.1, 5.0)] * 3),
    device=st.sampled_from(["cpu", "cuda"]),
)
def test_a_patch_keeps_to_the_budget_and_the_case(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], device: Any
) -> None:
    planned = patch_plan(of(facts(shape=Shape3(*shape), spacing=Spacing(*spacing))), Spacing(*spacing), device)
    for edge, length in zip(planned.patch, shape, strict=True):
        assert 1 <= edge < 8 or edge % 8 == 0
        assert edge < length + 8
    assert math.prod(planned.patch) <= 2.5 * VOXELS[device]
    assert planned.batch >= 2


def test_a_patch_is_a_cube_in_millimetres() -> None:
    large = facts(shape=Shape3(500, 500, 500), spacing=Spacing(3.0, 1.0, 1.0))
    patch = patch_plan(of(large), large.spacing, "cpu").patch
    lengths = [n * s for n, s in zip(patch, large.spacing, strict=True)]
    assert max(lengths) / min(lengths) < 1.3


def test_a_thin_case_leaves_its_voxels_to_the_other_axes() -> None:
    thin = facts(shape=Shape3(9, 500, 500), spacing=Spacing(1.0, 1.0, 1.0))
    patch = patch_plan(of(thin), thin.spacing, "cpu").patch
    assert patch.z == 16
    assert patch.y == patch.x >= 80


# The fingerprint.


def test_a_case_is_measured_in_ras_order() -> None:
    affine = np.eye(4)[:, [1, 0, 2, 3]] * [2.0, -1.0, 0.5, 1.0]  # stored z runs along y, stored y along -x
    image = np.arange(2 * 4 * 5 * 6, dtype=np.float32).reshape(2, 4, 5, 6) - 30
    labels = np.zeros((1, 4, 5, 6), dtype=np.uint8)
    labels[0, 1, 2, 3] = 7
    found = case_facts("a", ArraySource(image, affine), ArraySource(labels, affine))
    assert found.shape == (6, 4, 5)
    assert tuple(found.spacing) == (0.5, 2.0, 1.0)
    assert found.label_voxels == {0: 119, 7: 1}
    assert found.minimum == (-30.0, 90.0)
    np.testing.assert_array_equal(found.foreground, image[:, 1, 2, 3][:, None])


def test_a_whole_case_of_foreground_stays_small() -> None:
    labels = np.ones((1, 64, 40, 40), dtype=np.uint8)
    image = np.random.default_rng(1).standard_normal(labels.shape).astype(np.float32)
    found = case_facts("a", ArraySource(image, np.eye(4)), ArraySource(labels, np.eye(4)))
    assert 1000 < found.foreground.shape[1] < 10_000
    assert found.foreground.mean() == pytest.approx(image.mean(), abs=0.1)


def test_cases_without_labels_are_no_data() -> None:
    with pytest.raises(ValueError, match="all labels of the 2 cases are empty"):
        fingerprint([facts(label_voxels={0: 5}), facts(label_voxels={0: 5})])
    with pytest.raises(ValueError, match="got none"):
        fingerprint([])
    assert fingerprint([facts(label_voxels={0: 5, 3: 1, 1: 1})]).label_values == (1, 3)


def test_what_is_not_known_is_not_measured() -> None:
    affine = np.eye(4)[:, [1, 0, 2, 3]] * [2.0, -1.0, 0.5, 1.0]  # stored z runs along y, stored y along -x
    image = ArraySource(np.arange(4 * 5 * 6, dtype=np.float32).reshape(1, 4, 5, 6) - 30, affine)
    labels = np.full((1, 4, 5, 6), 9, dtype=np.uint8)
    labels[0, 1:3] = 0
    labels[0, 2, 1, 1], labels[0, 2, 4, 5], labels[0, 3, 0, 0] = 7, 8, 7
    drawn = Box(Index3(2, 0, 1), Index3(4, 3, 6))
    found = case_facts("a", image, ArraySource(labels, affine), labelled_box=drawn, ignore=9)
    assert found.label_voxels == {0: 14, 7: 1} and found.unknown_voxels == 105
    np.testing.assert_array_equal(found.foreground, [[image.array[0, 2, 1, 1]]])
    assert found.minimum == (-30.0,)  # of the whole image
    nothing = case_facts("b", image, ArraySource(labels, affine), labelled_box=Box.at(Index3(9, 9, 9), Shape3(2, 2, 2)))
    assert nothing.label_voxels == {} and nothing.unknown_voxels == 120
    with pytest.raises(ValueError, match="empty where they are known"):
        fingerprint([nothing])


def test_a_free_value_says_what_is_not_known() -> None:
    assert free_value({1, 2}) == 255 and free_value({255, 254, 1}) == 253
    with pytest.raises(ValueError, match="all of 1 to 255 are taken"):
        free_value(range(1, 256))


# Single slices: nothing happens across them, whatever their spacing says.


def slices(z: float = 1.0, **changed: Any) -> Fingerprint:
    return of(*(facts(shape=Shape3(1, 96 + n, 128), spacing=Spacing(z, 0.3, 0.25), **changed) for n in range(3)))


def planned(found: Fingerprint, *overrides: str) -> Config:
    config = load(Config, text=None, name="test", overrides=["network.base_features=4", *overrides])
    cpu = torch.device("cpu")
    told = {"channel_names": ("image",), "anatomical": False, "budget": Budget("cpu"), "device": cpu}
    return fill(config, found, label_names=None, **told).config  # type: ignore[arg-type]


@pytest.mark.parametrize("z", [0.01, 1.0, 500.0])
def test_the_spacing_across_changes_nothing(z: float) -> None:
    found = slices(z)
    assert found.thin == (0,)
    assert target_spacing(found, found.thin).value == ("stored", 0.3, 0.25)
    assert patch_plan(found, Spacing(z, 0.3, 0.25), "cpu", found.thin).patch == (1, 104, 128)
    config = planned(found)
    assert config.preprocess.spacing == ("stored", 0.3, 0.25)
    assert config.sampling.patch == config.inference.window
    assert config.sampling.patch != "auto" and config.sampling.patch.z == 1
    assert config.network.stages != "auto"
    assert {k.z for k in config.network.stages.kernels} == {s.z for s in config.network.stages.strides} == {1}
    assert {k[1:] for k in config.network.stages.kernels} == {(3, 3)}
    assert config.augmentation.mirror_axes == config.inference.mirror_axes == ("y", "x")
    assert config.sampling.batch == 96_000 // (104 * 128)


def test_slices_may_lie_along_any_axis() -> None:
    found = of(*(facts(shape=Shape3(80, 96, 1), spacing=Spacing(0.3, 0.3, 7.0)) for _ in range(3)))
    config = planned(found)
    assert config.preprocess.spacing == (0.3, 0.3, "stored")
    assert config.sampling.patch == (80, 96, 1)
    assert config.augmentation.mirror_axes == ("z", "y")


def test_of_slices_and_volumes_the_median_case_decides() -> None:
    one, deep = facts(shape=Shape3(1, 64, 64)), facts(shape=Shape3(40, 64, 64))
    assert planned(of(one, one, deep)).sampling.patch == (1, 64, 64)
    config = planned(of(one, deep, deep))
    assert config.sampling.patch != "auto" and config.sampling.patch.z > 1
    assert config.preprocess.spacing == (0.8, 1.0, 3.0)


def test_a_patch_of_one_slice_makes_volumes_slices() -> None:
    config = planned(
        of(facts(shape=Shape3(40, 64, 64), spacing=Spacing(5.0, 1.0, 1.0))), "sampling.patch={z: 1, y: 32, x: 32}"
    )
    assert config.preprocess.spacing == ("stored", 1.0, 1.0)
    assert config.network.stages != "auto" and {k.z for k in config.network.stages.kernels} == {1}


def two_channels(*overrides: str) -> Config:
    found = of(facts(minimum=(-1000.0, 0.0), foreground=np.tile(np.arange(100, dtype=np.float32), (2, 1))))
    config = load(Config, text=None, name="test", overrides=["network.base_features=4", *overrides])
    cpu = torch.device("cpu")
    told = {"channel_names": ("ct", "pet"), "anatomical": True, "budget": Budget("cpu"), "device": cpu}
    return fill(config, found, label_names=None, **told).config  # type: ignore[arg-type]


def test_normalisation_may_be_said_by_the_names_of_channels() -> None:
    config = two_channels("preprocess.normalisation={pet: {scheme: percentile, soft_clip: 0.5}}")
    assert isinstance(config.preprocess.normalisation, tuple)
    ct, pet = config.preprocess.normalisation
    assert (ct.scheme, pet.scheme, pet.soft_clip) == ("fixed", "percentile", 0.5)
    with pytest.raises(UsageError, match=r"preprocess\.normalisation: 'mr' is no channel, expected ct or pet"):
        two_channels("preprocess.normalisation={mr: {scheme: z_score}}")
    with pytest.raises(UsageError, match="has 1 entries for images of 2"):
        two_channels("preprocess.normalisation=[{scheme: z_score}]")


def test_a_plan_has_normalisation_for_each_channel() -> None:
    config = two_channels()
    assert isinstance(config.preprocess.normalisation, tuple)
    for wrong in (config.preprocess.normalisation[:1], {"pet": config.preprocess.normalisation[1]}):
        with pytest.raises(ValueError, match="one entry for each of its channels ct, pet"):
            plan_of(replace(config, preprocess=replace(config.preprocess, normalisation=wrong)))


def test_padded_volumes_are_normalised_by_what_is_not_zero() -> None:
    padded = [facts(filled=share) for share in (0.3, 0.5, 0.9)]
    (one,) = normalisations(of(*padded))
    assert (one.value.scheme, one.value.voxels) == ("z_score", "nonzero") and "50 %" in one.why
    assert normalised(of(facts(filled=0.8)))[0].voxels == "all"
    image = np.zeros((1, 10, 10, 10), np.float32)
    image[0, 2:7, :, 3:5] = 1.0
    found = case_facts("a", ArraySource(image, np.eye(4)), ArraySource(np.ones((1, 10, 10, 10), np.uint8), np.eye(4)))
    assert found.filled == pytest.approx(0.5 * 0.2)


# Length, memory, and whether a coarse stage is wanted.


def hippocampus(count: int = 260) -> Fingerprint:
    """As the Decathlon's, by its median."""
    return of(*(facts(shape=Shape3(36, 50, 35), spacing=Spacing(1.0, 1.0, 1.0)) for _ in range(count)))


def planned_for(found: Fingerprint, budget: Budget, *overrides: str) -> Planned:
    config, cpu = load(Config, text=None, name="test", overrides=overrides), torch.device("cpu")
    told: dict[str, Any] = {"channel_names": ("image",), "anatomical": True, "budget": budget, "device": cpu}
    return fill(config, found, label_names=None, **told)


def test_the_plan_of_a_hippocampus_on_a_cpu_stays() -> None:
    config = planned_for(hippocampus(), Budget("cpu")).config
    assert (config.sampling.patch, config.sampling.batch) == ((40, 56, 40), 2)
    assert config.network.stages != "auto" and config.network.stages.features == (24, 48, 96, 192)
    assert config.training.steps == pytest.approx(12_000, rel=0.05)


def test_on_a_gpu_a_hippocampus_has_nnunets_patch_and_batch() -> None:
    config = planned_for(hippocampus(), Budget.of(torch.device("cpu"), kind="cuda")).config
    assert (config.sampling.patch, config.sampling.batch) == ((40, 56, 40), 9)
    assert config.network.base_features == 32


LARGE = of(*(facts(shape=Shape3(300, 400, 400), spacing=Spacing(1.0, 1.0, 1.0)) for _ in range(50)))


def test_patches_grow_into_the_memory_that_is_named_and_shrink_to_what_there_is() -> None:
    thin = "network.base_features=4"
    voxels = []
    for budget in (Budget("cuda", 1.5, told=True), Budget("cuda", 3.0, told=True), Budget("cuda", 6.0, told=True)):
        found = planned_for(LARGE, budget, thin)
        assert found.step_gb <= budget.limit_gb
        assert found.config.sampling.patch != "auto" and found.config.sampling.batch == 2
        voxels.append(found.config.sampling.patch.voxels)
    assert voxels[0] < voxels[1] < voxels[2]
    usual = planned_for(LARGE, Budget("cuda", 6.0), thin).config.sampling.patch
    assert usual != "auto" and usual.voxels <= VOXELS["cuda"] * 1.2  # not named: larger ones cost time


def test_what_the_user_says_is_taken_and_its_memory_told() -> None:
    one = planned_for(
        LARGE, Budget("cuda", 0.8, told=True), "network.base_features=4", "sampling.patch={z: 96, y: 96, x: 96}"
    )
    assert one.config.sampling.patch == (96, 96, 96) and one.step_gb > one.budget.limit_gb
    assert "more than 85 % of the 0.8 GB" in one.why["sampling.batch"]
    with pytest.raises(UsageError, match=r"a training step takes .* GB even with small patches, and 85 % of a GPU"):
        planned_for(LARGE, Budget("cuda", 0.61, told=True), "network.base_features=4")
    with pytest.raises(UsageError, match="--memory-gb: expected gigabytes, more than 0, got -1"):
        Budget.of(torch.device("cpu"), -1.0)


def test_the_length_follows_the_data_unless_the_time_or_the_user_says_it() -> None:
    steps = [training_steps(hippocampus(n), Shape3(40, 56, 40), Spacing(1, 1, 1)).value for n in (3, 260, 1040, 20_000)]
    assert steps[0] == 8_000 and steps[2] == pytest.approx(2 * steps[1], rel=0.01) and steps[3] == 100_000
    assert planned_for(hippocampus(), Budget("cpu"), "training.epochs=7").config.training.epochs == 7
    timed = planned_for(hippocampus(), Budget("cpu"), "training.max_minutes=3")
    assert timed.config.training.steps == 10**6 and "ends it after 3 minutes" in timed.why["training.epochs"]
    with pytest.raises(ValueError, match="not planned yet"):
        _ = Config().training.steps


def test_a_patch_that_covers_too_little_asks_for_a_coarse_run() -> None:
    patch, spacing = Shape3(64, 64, 64), Spacing(3.0, 1.0, 1.0)
    for shape, deeper in (((100, 140, 140), False), ((100, 400, 400), True)):
        coarse = coarse_spacing(patch, shape, spacing)
        assert coarse is not None and coarse.y == coarse.x > 1.0
        assert (coarse.z > 3.0) == deeper  # the finer axes first
        seen = [n * a / b for n, a, b in zip(shape, spacing, coarse, strict=True)]
        assert 0.25 <= covered(patch, seen) < 0.28
    assert coarse_spacing(patch, (100, 70, 70), spacing) is None
    assert coarse_spacing(Shape3(1, 64, 64), (1, 400, 400), Spacing(1.0, 1.0, 1.0)) == pytest.approx(
        (1, 3.13, 3.13), abs=0.1
    )
    told = planned_for(LARGE, Budget("cpu"), "network.base_features=4")
    assert told.coarse is not None and "--cascade" in told.why["sampling.patch"]


def test_every_choice_has_its_reason_and_the_text_loads_again() -> None:
    found = planned_for(hippocampus(), Budget("cpu"), "network.base_features=4")
    text = found.text()
    assert load(Config, text=text, name="plan.yaml") == found.config
    assert comments_of(text) == found.why
    reasons = {key for key, _, _ in found.decisions()}
    assert reasons == found.why.keys()
    assert {"data.labels", "preprocess.spacing", "preprocess.normalisation", "sampling.patch", "sampling.batch",
            "augmentation.mirror_axes", "network.stages", "training.epochs"} <= reasons  # fmt: skip
    assert "network.base_features" not in reasons  # the user's
    assert all("\n" not in why and why for why in found.why.values())
