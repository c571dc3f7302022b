"""Which cases and which voxels a batch is made of: in turn, balanced, and where it was asked for."""

import re
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from vol3d.config.load import load
from vol3d.config.tree import Config
from vol3d.errors import UsageError
from vol3d.geometry.affine import from_spacing
from vol3d.patches.components import component_places
from vol3d.patches.sampling import CubeSampler, SamplingSettings, TrainingCase
from vol3d.patches.turns import taken, tree_of
from vol3d.regions.components import label
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.source import ArraySource

AFFINE, PATCH = from_spacing(Spacing(0.8, 1.0, 3.0)), Shape3(4, 6, 5)


def case(name: str, *, positive: bool = True, group: str = "", source: str = "") -> TrainingCase:
    """One large component of 1 across most slices, and two of one voxel, at the bottom and in the middle."""
    labels = np.zeros((1, 30, 31, 17), dtype=np.uint8)
    if positive:
        labels[0, 4:26, 10:16, 4:9] = 1
        labels[0, 2, 3, 14] = labels[0, 15, 27, 3] = 1
    image = np.arange(labels.size, dtype=np.float16).reshape(labels.shape)
    places = {"organ": np.argwhere(labels[0] == 1).astype(np.int32)}
    source_of_labels = ArraySource(labels, AFFINE)
    components = {"organ": component_places(source_of_labels, np.arange(256) == 1, np.random.default_rng(0))}
    found = components if positive else {}
    return TrainingCase(name, ArraySource(image, AFFINE), source_of_labels, places, None, group, source, found)


def cases_of(sampler: CubeSampler, steps: int, progress: Any = lambda step: 0.0) -> list[list[str]]:
    return [list(sampler.sample(step, progress(step)).cases) for step in range(steps)]


def names_of(sampler: CubeSampler, steps: int) -> list[str]:
    return [name for names in cases_of(sampler, steps) for name in names]


def sampler(cases: list[TrainingCase], batch: int = 2, **settings: Any) -> CubeSampler:
    return CubeSampler(cases, SamplingSettings(PATCH, **settings), PATCH, batch, 5)


def centres(settings: dict[str, Any], progress: float = 0.0) -> list[tuple[int, int, int]]:
    """Where 300 cubes of one case lie, by the voxel at their middle."""
    s = sampler([case("a")], batch=4, foreground=1.0, **settings)
    rng, one = np.random.default_rng(1), s.cases[0]
    return [tuple(s._foreground_voxel(one, progress, rng)) for _ in range(300)]  # type: ignore[arg-type, misc]


def test_no_case_comes_again_before_all_have_come() -> None:
    seen = names_of(sampler([case(str(n)) for n in range(5)], batch=3), 20)
    laps = [seen[start : start + 5] for start in range(0, 60, 15)]
    whole = sampler([case(str(n)) for n in range(5)], batch=5)
    assert all(sorted(lap) == ["0", "1", "2", "3", "4"] for lap in cases_of(whole, 6))
    assert Counter(seen) == {str(n): 12 for n in range(5)} and len({tuple(lap) for lap in laps}) > 1


@pytest.mark.parametrize(
    ("balance", "expected"),
    [("cases", {"a": 1, "b": 1, "c": 1, "d": 1}), ("groups", {"a": 1, "b": 1, "c": 2, "d": 2}),
     ("sources", {"a": 1, "b": 1, "c": 2, "d": 4})],
)  # fmt: skip
def test_groups_and_sources_are_seen_equally_often(balance: str, expected: dict[str, int]) -> None:
    one = {"group": "p1", "source": "scanner"}
    found = [case("a", **one), case("b", **one), case("c", group="p2", source="scanner"), case("d", source="other")]
    seen = Counter(names_of(sampler(found, batch=4, balance=balance), 24))
    total = sum(expected.values())
    assert seen == {name: 96 * share // total for name, share in expected.items()}


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), min_size=1, max_size=9), st.integers(0, 99))
@hypothesis_settings(max_examples=30)
def test_every_case_has_its_turn(told: list[tuple[str, str]], seed: int) -> None:
    cases = [(number, group + source, source) for number, (group, source) in enumerate(told)]
    for balance in ("cases", "groups", "sources"):
        tree = tree_of(cases, balance)  # type: ignore[arg-type]
        assert {taken(tree, number, seed) for number in range(300)} == {number for number, _, _ in cases}


def test_cubes_of_one_case_are_cut_together() -> None:
    batches = cases_of(sampler([case(str(n)) for n in range(6)], batch=12, cubes_per_case=4), 4)
    assert all([names[start : start + 4] for start in (0, 4, 8)] == [[n] * 4 for n in names[::4]] for names in batches)
    assert all(len({*names}) == 3 for names in batches)
    assert len(sampler([case("a")], batch=5, cubes_per_case=4).sample(0, 0.0).cases) == 5


def test_all_positive_cases_are_seen_before_one_comes_again() -> None:
    found = [case(f"p{n}") for n in range(10)] + [case(f"n{n}", positive=False) for n in range(30)]
    batches = cases_of(sampler(found, batch=5, positive_cases=0.4), 15)
    assert all(sum(name[0] == "p" for name in names) == 2 for names in batches)
    for start in (0, 5, 10):
        assert sorted(n for names in batches[start : start + 5] for n in names if n[0] == "p") == [
            f"p{n}" for n in range(10)
        ]
    negatives = [n for names in batches for n in names if n[0] == "n"]
    assert Counter(negatives[:30]) == {f"n{n}": 1 for n in range(30)}


def test_the_share_of_positive_cases_follows_its_schedule() -> None:
    found = [case(f"p{n}") for n in range(7)] + [case(f"n{n}", positive=False) for n in range(3)]
    s = sampler(found, batch=6, positive_cases=0.8, positive_cases_end=0.4)
    batches = cases_of(s, 200, progress=lambda step: step / 200)
    share = [np.mean([name[0] == "p" for names in part for name in names]) for part in (batches[:40], batches[160:])]
    assert share == pytest.approx([0.76, 0.44], abs=0.02)
    counts = Counter(name for names in batches for name in names if name[0] == "p")
    assert max(counts.values()) - min(counts.values()) <= 2
    assert s.sample(150, 0.7).cases == s.sample(150, 0.7).cases  # no memory of what came before
    everywhere = sampler(found[:7], batch=6, positive_cases=0.1)
    assert len(everywhere.sample(3, 0.0).cases) == 6


def test_each_component_is_as_likely_as_the_others() -> None:
    found = Counter(
        z if (z, y) in ((2, 3), (15, 27)) else "large" for z, y, _ in centres({"focus": {"components": 1.0}})
    )
    assert all(70 < n < 130 for n in found.values()) and len(found) == 3
    assert Counter(centres({}))[(2, 3, 14)] < 10


def test_the_ends_of_a_region_are_its_first_and_last_slices() -> None:
    slices = Counter(z for z, _, _ in centres({"focus": {"ends": 1.0}}))
    assert {*slices} == {2, 4, 23, 24, 25}
    assert 100 < sum(n for z, n in slices.items() if z > 20) < 200


def test_the_focus_moves_over_the_training() -> None:
    moving = {"focus": {"voxels": 3.0}, "focus_end": {"components": 1.0, "ends": 1.0}}
    small = [sum((z, y) in ((2, 3), (15, 27)) for z, y, _ in centres(moving, progress)) for progress in (0.0, 0.5, 1.0)]
    assert small[0] < 10 < small[1] < small[2]


@pytest.mark.parametrize("planes", [1, 2, 7, 30])
def test_components_are_found_whole_however_the_volume_is_cut(planes: int) -> None:
    rng = np.random.default_rng(3)
    labels = (rng.random((1, 30, 12, 11)) < 0.05).astype(np.uint8) * 2
    labels[0, :, 3:6, 4:8] = 2
    labels[0, 20] |= 1
    whole = label(labels[0] == 2)
    source = ArraySource(labels, AFFINE)
    found = component_places(source, np.arange(256) == 2, rng, slab_voxels=planes * 12 * 11)
    names = whole.labels[tuple(found[:, :3].T)]
    assert {*names.tolist()} == {*range(1, whole.count + 1)}
    pairs = {(int(a), int(b)) for a, b in zip(names, found[:, 3], strict=True)}
    assert len(pairs) == whole.count == found[-1, 3] + 1 and (np.diff(found[:, 3]) >= 0).all()
    assert max(Counter(found[:, 3].tolist()).values()) <= 64 and len({*map(tuple, found.tolist())}) == len(found)
    assert not len(component_places(source, np.arange(256) == 7, rng))


def test_half_precision_stays_half() -> None:
    assert sampler([case("a")]).sample(0, 0.0).images.dtype == np.float16
    wide = replace(case("b"), image=ArraySource(np.ones((1, 30, 31, 17), dtype=np.float32), AFFINE))
    assert sampler([case("a"), wide]).sample(0, 0.0).images.dtype == np.float32


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("focus={heads: 1}", "sampling.focus: 'heads' is no focus, expected voxels, components, ends"),
        ("focus={ends: 0}", "sampling.focus must give at least one of voxels, components, ends a weight above 0"),
        ("focus_end={voxels: -1}", "sampling.focus_end: voxels must not be negative, got -1.0"),
        ("positive_cases=1.5", "sampling.positive_cases must be between 0 and 1, got 1.5"),
        ("positive_cases_end=0.5", "sampling.positive_cases_end needs positive_cases, the share at the beginning"),
        ("cubes_per_case=0", "sampling.cubes_per_case must be at least 1, got 0"),
        ("balance=patients", "sampling.balance: expected 'cases' or 'groups' or 'sources', got 'patients'"),
    ],
)
def test_wrong_samplings_are_refused_with_a_sentence(given: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        load(Config, text=None, name="", overrides=[f"sampling.{given}"])
