"""Bends, groups and grey values: one law each, batched or alone."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Generator

from vol3d.config.dump import dump
from vol3d.config.load import load
from vol3d.config.tree import Config
from vol3d.errors import UsageError
from vol3d.patches.along import along, coarser, gaussian, polygon, spline
from vol3d.patches.augment import Augmenter
from vol3d.patches.augmentations import BOUNDS, AugmentSettings
from vol3d.patches.chance import Chosen, Drawn, OneOf, draw
from vol3d.patches.grey import change_grey
from vol3d.patches.moves import BENDING, Moves
from vol3d.shapes import AXES, Shape3, Spacing

PATCH, SPACING = Shape3(12, 20, 16), Spacing(2.0, 1.0, 0.8)
QUIET = AugmentSettings(
    (), False, **{name: replace(drawn, chance=0.0) for name, drawn in AugmentSettings().drawn.items()}
)


def sure(name: str, low: float, high: float) -> AugmentSettings:
    return replace(QUIET, **{name: Drawn(1.0, (low, high))})  # type: ignore[arg-type]


def places(settings: AugmentSettings, patch: Shape3 = PATCH, spacing: Spacing = SPACING, seed: int = 0) -> torch.Tensor:
    """Where each voxel of two patches was read, (2, 3, z, y, x) voxels from the centre."""
    augmenter = Augmenter(settings, patch, spacing)
    axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in augmenter.cube]
    cube = torch.stack(torch.meshgrid(*axes, indexing="ij"))[None].expand(2, -1, -1, -1, -1)
    labels = torch.zeros(2, 1, *augmenter.cube, dtype=torch.uint8)
    return augmenter(cube, labels, Generator().manual_seed(seed))[0]


STRAIGHT = places(QUIET)


@pytest.mark.parametrize(("name", "strongest"), [("elastic", 0.08), ("grid", 0.5), ("optical", 0.2)])
def test_a_bend_moves_places_within_its_bound_and_never_folds(name: str, strongest: float) -> None:
    found = places(sure(name, strongest, strongest))
    shift = (found - STRAIGHT) * torch.tensor(SPACING).reshape(3, 1, 1, 1)
    bound = {
        "elastic": strongest * min(n * mm for n, mm in zip(PATCH, SPACING, strict=True)),
        "grid": max(n * mm for n, mm in zip(PATCH, SPACING, strict=True)) * strongest / 2,
        "optical": strongest * max(n * mm / 2 for n, mm in zip(PATCH, SPACING, strict=True)),
    }[name]
    assert 0.1 * bound < shift.abs().max() <= bound * 1.001
    assert not torch.equal(found[0], found[1]) or name == "optical"
    for axis in range(3):  # neighbours stay in order: nothing is read backwards
        assert (found[:, axis].diff(dim=1 + axis) > 0).all()
    if name == "grid":  # cells fill the patch whatever their widths
        assert shift[:, 0, [0, -1]].abs().max() < 1e-3


def test_a_lens_moves_the_corners_most_and_along_the_radius() -> None:
    found = places(sure("optical", 0.2, 0.2))
    torch.testing.assert_close(found[..., 0, 0, 0], 1.2 * STRAIGHT[..., 0, 0, 0])
    torch.testing.assert_close(found[..., 6:7, 10:11, 8:9], STRAIGHT[..., 6:7, 10:11, 8:9], rtol=0.01, atol=0.01)


def test_a_zoom_shows_a_box_inside_the_patch_wherever_it_lies() -> None:
    starts = []
    for seed in range(10):
        found = places(sure("zoom", 0.8, 0.8), seed=seed)
        for axis, n in enumerate(PATCH):
            step = found[:, axis].diff(dim=1 + axis)
            torch.testing.assert_close(step, torch.full_like(step, 0.8), rtol=0, atol=1e-4)
            assert found[:, axis].abs().max() <= (n - 1) / 2 + 1e-4
        starts += [float(v) for v in found[:, 0, 0, 0, 0]]
    assert np.ptp(starts) > 0.5 * 0.2 * (PATCH.z - 1)


def test_bent_labels_stay_on_the_bent_image() -> None:
    settings = replace(QUIET, **{name: Drawn(1.0, BOUNDS[name]) for name in BENDING}, mirror_axes=AXES)  # type: ignore[arg-type]
    settings = replace(settings, grid=Drawn(1.0, (0.3, 0.3)), optical=Drawn(1.0, (-0.2, 0.2)))
    augmenter = Augmenter(settings, PATCH, SPACING)
    z, y, _ = np.indices(augmenter.cube)
    half = torch.from_numpy((y + 2 * z > augmenter.cube.y // 2 + augmenter.cube.z).astype(np.uint8))[None, None]
    images, labels = augmenter(half.float(), half, Generator().manual_seed(4))
    assert not torch.equal(labels, torch.ones_like(labels)) and labels.any()
    assert ((images > 0.5) == (labels > 0)).float().mean() > 0.98


@pytest.mark.parametrize(("spacing", "turns"), [(Spacing(1, 1, 1), 24), (Spacing(3, 1, 1), 4), (Spacing(3, 2, 1), 1)])
def test_quarter_turns_are_all_turns_that_keep_the_spacing_and_equally_likely(spacing: Spacing, turns: int) -> None:
    settings = replace(QUIET, quarter_turns=True)
    matrices, _ = Moves(settings, Shape3(8, 8, 8), spacing)._symmetries(2400, np.random.default_rng(0))
    found, counts = np.unique(matrices.reshape(-1, 9), axis=0, return_counts=True)
    assert len(found) == turns and counts.min() > 0.6 * 2400 / turns
    np.testing.assert_allclose(np.linalg.det(matrices), 1.0)
    mirrored = Moves(replace(settings, mirror_axes=AXES), Shape3(8, 8, 8), spacing)
    both, _ = mirrored._symmetries(4800, np.random.default_rng(0))
    assert len(np.unique(both.reshape(-1, 9), axis=0)) == {24: 48, 4: 16, 1: 8}[turns]


def test_of_a_group_at_most_one_happens_with_the_groups_chance() -> None:
    drawn = {"a": Drawn(1.0, (0, 1)), "b": Drawn(0.0, (2, 3)), "c": Drawn(0.4, (4, 5))}
    chosen = draw(drawn, [OneOf(("a", "b"), 0.3)], 4000, np.random.default_rng(0))
    a, b, c = (set(chosen[name].samples.tolist()) for name in "abc")
    assert not a & b
    assert len(a) / 4000 == pytest.approx(0.15, abs=0.02) and len(b) / 4000 == pytest.approx(0.15, abs=0.02)
    assert len(c) / 4000 == pytest.approx(0.4, abs=0.03) and len(c & a) / len(a) == pytest.approx(0.4, abs=0.07)
    assert all(
        (low <= chosen[n].strength).all() and (chosen[n].strength <= low + 1).all()
        for n, low in zip("abc", (0, 2, 4), strict=True)
    )
    without = draw(drawn | {"c": Drawn(0.0, (4, 5))}, [OneOf(("a", "b"), 0.3)], 4000, np.random.default_rng(0))
    assert set(without) == {"a", "b"} and np.array_equal(without["a"].strength, chosen["a"].strength)


def image(batch: int = 3) -> torch.Tensor:
    rng = np.random.default_rng(3)
    return torch.from_numpy(rng.normal(2.0, 1.0, (batch, 2, *PATCH)).astype(np.float32))


def changed(name: str, *strength: float, of: torch.Tensor | None = None, samples: tuple[int, ...] = ()) -> torch.Tensor:
    images = image() if of is None else of.clone()
    which = np.array(samples or range(len(strength)))
    change_grey(images, {name: Chosen(which, np.array(strength))}, np.random.default_rng(1))
    return images


@pytest.mark.parametrize("name", ["noise", "blur", "low_resolution", "brightness", "contrast", "inversion", "gamma"])
def test_only_the_chosen_samples_change_and_each_by_its_own_strength(name: str) -> None:
    before, strengths = image(), {0: 1.1, 2: 1.9}
    after = changed(name, *strengths.values(), samples=tuple(strengths))
    assert torch.equal(after[1], before[1]) and not torch.allclose(after[0], before[0], atol=1e-3)
    if name != "noise":
        alone = changed(name, 1.9, of=before[2:], samples=(0,))
        sign = np.random.default_rng(1)
        sign.integers(2**63)
        flips = sign.random(3) < 0.25
        if name != "gamma" or flips[2] == flips[0]:
            torch.testing.assert_close(after[2:], alone, rtol=1e-5, atol=1e-5)


def test_blur_is_the_gaussian_one_away_from_the_border() -> None:
    after = changed("blur", 0.6, 1.0, 0.8)
    for sample, sigma in enumerate((0.6, 1.0, 0.8)):
        expected = ndimage.gaussian_filter(image()[sample, 1].numpy(), sigma, truncate=8)
        inner = (slice(5, -5), slice(5, -5), slice(5, -5))
        np.testing.assert_allclose(after[sample, 1].numpy()[inner], expected[inner], atol=1e-4)


def test_a_lower_resolution_keeps_constants_and_ramps_and_loses_what_is_fine() -> None:
    ones = torch.ones(1, 1, *PATCH)
    torch.testing.assert_close(changed("low_resolution", 1.7, of=ones), ones)
    torch.testing.assert_close(changed("low_resolution", 1.0, of=image()[:1]), image()[:1])
    ramp = torch.arange(20.0)
    for factor, error in ((2.0, 1e-4), (2.5, 0.1)):
        (matrix,) = coarser(20, torch.tensor([factor]))
        torch.testing.assert_close((matrix @ ramp)[4:-4], ramp[4:-4], rtol=0, atol=error)
        assert (matrix @ (ramp % 2))[4:-4].std() < 0.35 * (ramp % 2).std()


def test_brightness_contrast_and_inversion_are_what_they_say() -> None:
    before = image()[:1]
    mean = before.mean((2, 3, 4), keepdim=True)
    torch.testing.assert_close(changed("brightness", 1.2, of=before), before * 1.2)
    torch.testing.assert_close(changed("contrast", 0.8, of=before), mean + (before - mean) * 0.8)
    torch.testing.assert_close(changed("inversion", 1.0, of=before), 2 * mean - before)
    bent = changed("gamma", 1.4, of=before)
    torch.testing.assert_close(bent.mean((2, 3, 4)), before.mean((2, 3, 4)))
    torch.testing.assert_close(bent.std((2, 3, 4)), before.std((2, 3, 4)))
    assert torch.equal(bent.flatten(2).argsort(2), before.flatten(2).argsort(2))


def test_noise_is_the_samples_own_and_as_strong_as_asked() -> None:
    difference = changed("noise", 0.5, 2.0, 0.0) - image()
    assert [round(float(d.std()), 1) for d in difference] == [0.5, 2.0, 0.0]
    assert np.corrcoef(difference[0].flatten(), difference[1].flatten())[0, 1] < 0.1
    assert torch.equal(changed("noise", 0.5), changed("noise", 0.5))


def test_matrices_along_axes_are_products_along_each_and_smooth_curves_stay_in_range() -> None:
    values = image()
    matrices = [torch.randn(3, n + 2, n) for n in PATCH]
    expected = torch.einsum("bpi,bqj,brk,bcijk->bcpqr", *matrices, values)
    torch.testing.assert_close(along(values, *matrices), expected, rtol=1e-3, atol=1e-3)
    for matrix in (spline(17, 5), polygon(17, 5), gaussian(17, torch.tensor([0.7])), coarser(17, torch.tensor([1.6]))):
        assert (matrix >= 0).all()
        torch.testing.assert_close(matrix.sum(2), torch.ones(1, 17))


def test_a_batch_depends_on_its_generator_alone() -> None:
    settings = replace(QUIET, **{name: replace(d, chance=0.5) for name, d in QUIET.drawn.items()}, mirror_axes=AXES)  # type: ignore[arg-type]
    augmenter = Augmenter(settings, PATCH, SPACING)
    cube = torch.randn(4, 1, *augmenter.cube, generator=Generator().manual_seed(5))
    labels = (cube > 1).byte()
    given = cube.clone()
    torch.manual_seed(1)
    one = augmenter(cube, labels, Generator().manual_seed(7))
    torch.manual_seed(2)
    again, other = (augmenter(cube.half().float(), labels, Generator().manual_seed(seed)) for seed in (7, 8))
    exact = augmenter(cube, labels, Generator().manual_seed(7))
    assert torch.equal(one[0], exact[0]) and torch.equal(one[1], exact[1]) and torch.equal(cube, given)
    assert torch.equal(one[1], again[1]) and not torch.equal(one[1], other[1])
    assert torch.isfinite(one[0]).all() and one[0].dtype == torch.float32


def told(*overrides: str, text: str | None = None) -> AugmentSettings:
    return load(Config, text=text, name="old.yaml", overrides=overrides).augmentation


def test_settings_of_earlier_runs_mean_what_they_did() -> None:
    text = (
        "augmentation:\n  rotation_chance: 0.5\n  rotation_degrees: 20\n  scale_range: [0.9, 1.1]\n  noise_std: 0.2\n"
        "  blur_sigma: [0.4, 0.8]\n  gamma: [0.8, 1.2]\n  gamma_chance: 0.1\n"
    )
    expected = AugmentSettings(
        rotation=Drawn(0.5, (-20, 20)), scale=Drawn(0.25, (0.9, 1.1)), noise=Drawn(0.1, (0.0, 0.2)),
        blur=Drawn(0.2, (0.4, 0.8)), gamma=Drawn(0.1, (0.8, 1.2)),
    )  # fmt: skip
    assert told(text=text) == expected
    assert told("augmentation.gamma_chance=1", text=text) == replace(expected, gamma=Drawn(1.0, (0.8, 1.2)))
    assert told("augmentation.noise.chance=0.3", "augmentation.contrast=[0.5, 2]", text=text) == replace(
        expected, noise=Drawn(0.3, (0.0, 0.2)), contrast=Drawn(0.15, (0.5, 2.0))
    )
    grouped = told("augmentation.one_of=[{of: [elastic, grid], chance: 0.3}]", "augmentation.elastic.range=[0, 0.1]")
    config = replace(Config(), augmentation=grouped)
    assert load(Config, text=dump(config), name="new.yaml") == config


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("rotation.chance=2", "augmentation.rotation.chance must be between 0 and 1, got 2.0"),
        ("rotation_chance=2", "augmentation.rotation.chance must be between 0 and 1, got 2.0"),
        ("blur.range=[0, 1]", "augmentation.blur: range must lie between 0.01 and 100, got 0.0 and 1.0"),
        ("noise.range=[0.3, 0.1]", "augmentation.noise.range must be two numbers in order, got 0.3 and 0.1"),
        ("elastic.range=[0, 3]", "augmentation.elastic: range must lie between 0 and 0.1, got 0.0 and 3.0"),
        ("one_of=[{of: [elastik], chance: 1}]", "one_of: unknown augmentation 'elastik', did you mean 'elastic'"),
        ("one_of=[{of: [grid, grid], chance: 1}]", "augmentation.one_of: grid is in a group twice"),
        ("one_of=[{of: [], chance: 1}]", "of must name at least one augmentation"),
        ("rotation_degrees=far", "augmentation.rotation.range: expected a list [...], got 'far'"),
    ],
)  # fmt: skip
def test_wrong_augmentations_are_refused_with_a_sentence(given: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        told(f"augmentation.{given}")


def test_a_cube_is_as_large_as_what_may_be_read() -> None:
    grown: dict[str, Any] = {"elastic": (0.0, 0.1), "optical": (0.0, 0.2), "scale": (0.8, 1.0)}
    for name, given in grown.items():
        strongest = replace(QUIET, **{name: Drawn(1.0, given)})  # type: ignore[arg-type]
        assert all(n > p for n, p in zip(Moves(strongest, PATCH, SPACING).cube, PATCH, strict=True))
        grouped = replace(QUIET, **{name: Drawn(0.0, given)}, one_of=(OneOf((name,), 0.5),))  # type: ignore[arg-type]
        assert Moves(grouped, PATCH, SPACING).cube == Moves(strongest, PATCH, SPACING).cube
        off = replace(strongest, one_of=(OneOf((name,), 0.0),))
        assert Moves(off, PATCH, SPACING).cube == PATCH
