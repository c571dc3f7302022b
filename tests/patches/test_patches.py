"""Cubes are drawn as asked, and augmentation moves image and labels together."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator

from vol3d.geometry.affine import from_spacing
from vol3d.patches.augment import Augmenter
from vol3d.patches.augmentations import BOUNDS, AugmentSettings
from vol3d.patches.chance import Drawn
from vol3d.patches.loader import ahead
from vol3d.patches.sampling import CubeSampler, SamplingSettings, TrainingCase
from vol3d.shapes import AXES, Shape3, Spacing
from vol3d.volume.source import ArraySource

AFFINE = from_spacing(Spacing(0.8, 1.0, 3.0))
QUIET = AugmentSettings(
    (), False, **{name: replace(drawn, chance=0.0) for name, drawn in AugmentSettings().drawn.items()}
)
GREY = ("noise", "blur", "low_resolution", "brightness", "contrast", "inversion", "gamma")
MOVES = tuple(name for name in BOUNDS if name not in GREY)


def always(*names: str, of: AugmentSettings = QUIET, **ranges: tuple[float, float]) -> AugmentSettings:
    """Augmentations that every sample gets, with their own range or one by name."""
    drawn = of.drawn
    sure = {name: replace(drawn[name], chance=1.0) for name in names}
    return replace(of, **sure, **{name: Drawn(1.0, given) for name, given in ranges.items()})


PATCH = Shape3(8, 12, 6)
ISOTROPIC = Spacing(1, 1, 1)


def case(name: str = "a") -> TrainingCase:
    labels = np.zeros((1, 20, 31, 17), dtype=np.uint8)
    labels[0, 9:11, 14:16, 8:10] = 1
    labels[0, 15, 20, 10] = 2
    image = np.arange(labels.size, dtype=np.float32).reshape(labels.shape)
    places = {"one": np.argwhere(labels[0] == 1).astype(np.int32), "two": np.argwhere(labels[0] == 2).astype(np.int32)}
    return TrainingCase(name, ArraySource(image, AFFINE), ArraySource(labels, AFFINE), places)


def sampler(settings: SamplingSettings, batch: int = 2, cube: Shape3 = PATCH) -> CubeSampler:
    return CubeSampler([case("a"), case("b")], settings, cube, batch, 5)


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    s = sampler(SamplingSettings(PATCH))
    one, again, other = s.sample(3, 0.0), s.sample(3, 0.0), s.sample(4, 0.0)
    np.testing.assert_array_equal(one.images, again.images)
    assert one.images.shape == (2, 1, *PATCH) and one.labels.shape == (2, 1, *PATCH)
    assert not np.array_equal(one.images, other.images)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_foreground_cubes_holds(share: float) -> None:
    s = sampler(SamplingSettings(PATCH, foreground=share), batch=3)
    middle = tuple(n // 2 for n in PATCH)
    hits = [bool(label[0][middle]) for step in range(200) for label in s.sample(step, 0.0).labels]
    assert np.mean(hits) == pytest.approx(share, abs=0.07)


def test_foreground_share_follows_its_schedule_and_regions_their_weights() -> None:
    settings = SamplingSettings(PATCH, foreground=1.0, foreground_end=0.0, region_weights={"one": 0.0})
    s = sampler(settings)
    middle = tuple(n // 2 for n in PATCH)
    assert {int(label[0][middle]) for step in range(20) for label in s.sample(step, 0.0).labels} == {2}
    assert np.mean([bool(label[0][middle]) for step in range(50) for label in s.sample(step, 1.0).labels]) < 0.1


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_cubes_stay_in_the_volume_wherever_the_foreground_is(share: float) -> None:
    corner = case()
    corner.labels.array[0, -1, 0, 0] = 3
    corner = replace(corner, places={"corner": np.argwhere(corner.labels.array[0] == 3).astype(np.int32)})
    s = CubeSampler([corner], SamplingSettings(PATCH, foreground=share), PATCH, 2, 5)
    assert share == 0.0 or all((label == 3).any() for step in range(20) for label in s.sample(step, 0.0).labels)
    assert all((image[0] > 0).mean() > 0.99 for step in range(50) for image in s.sample(step, 0.0).images)


def beyond(name: str, labels: np.ndarray, edge: int = 9) -> np.ndarray:
    """The labels of a cube that is larger than its volume, around it."""
    only = replace(case(name), labels=ArraySource(labels, AFFINE), places={})
    cube = Shape3(24, 35, 21)
    return CubeSampler([only], SamplingSettings(Shape3(20, 31, 17)), cube, 1, 5, edge).sample(0, 0.0).labels[0]


def test_beyond_the_volume_are_the_values_asked_for() -> None:
    labels = case().labels.array
    found = beyond("a", np.concatenate([labels, labels + 3]))
    inner = (slice(None), slice(2, -2), slice(2, -2), slice(2, -2))
    np.testing.assert_array_equal(found[inner], np.concatenate([labels, labels + 3]))
    assert (found[0, :2] == 9).all() and (found[0, :, :, -2:] == 9).all() and not found[1, :2].any()


def augmented(settings: AugmentSettings, spacing: Spacing = ISOTROPIC, seed: int = 0):  # type: ignore[no-untyped-def]
    augmenter = Augmenter(settings, PATCH, spacing)
    rng = np.random.default_rng(1)
    labels = torch.from_numpy((rng.random((2, 1, *augmenter.cube)) < 0.3).astype(np.uint8) * 7)
    images = labels.float() * 2
    return images, labels, *augmenter(images, labels, Generator().manual_seed(seed))


def test_nothing_changes_when_nothing_is_asked_for() -> None:
    images, labels, new_images, new_labels = augmented(QUIET)
    torch.testing.assert_close(new_images, images, rtol=0, atol=1e-4)
    assert torch.equal(new_labels, labels)


def test_mirrors_and_quarter_turns_move_image_and_labels_alike() -> None:
    settings = replace(QUIET, mirror_axes=("z", "y", "x"), quarter_turns=True)
    seen = set()
    for seed in range(12):
        _, _, images, labels = augmented(settings, seed=seed)
        assert images.shape[2:] == labels.shape[2:] == PATCH
        torch.testing.assert_close(images, labels.float() * 2, rtol=0, atol=1e-3)
        seen.add(labels.numpy().tobytes())
    assert len(seen) > 4


def test_an_oblique_turn_keeps_labels_on_the_image_and_fills_the_corners() -> None:
    settings = always("rotation", "scale")
    augmenter = Augmenter(settings, PATCH, Spacing(1, 1, 1))
    ones = torch.ones((1, 1, *augmenter.cube), dtype=torch.uint8)
    filled = np.mean([augmenter(ones.float(), ones, Generator().manual_seed(s))[1].float().mean() for s in range(20)])
    assert filled > 0.97
    _, _, images, labels = augmented(settings, seed=3)
    inside = images[labels == 7]
    assert inside.mean() > 2 * images[labels == 0].mean()


def test_thick_slices_are_turned_only_within_themselves() -> None:
    settings = always("rotation")
    augmenter = Augmenter(settings, PATCH, Spacing(5.0, 1.0, 1.0))
    slices = torch.arange(augmenter.cube.z, dtype=torch.float32)[:, None, None].expand(1, 1, *augmenter.cube)
    turned, _ = augmenter(
        slices.clone(), torch.zeros((1, 1, *augmenter.cube), dtype=torch.uint8), Generator().manual_seed(2)
    )
    middle = turned[0, 0, :, 4:8, 2:4]
    torch.testing.assert_close(middle, middle[:, :1, :1].expand_as(middle), rtol=0, atol=1e-4)
    assert augmenter.cube.z == PATCH.z


def test_turning_by_the_spacing_keeps_a_ball_a_ball() -> None:
    spacing = Spacing(2.0, 1.0, 1.0)
    augmenter = Augmenter(always(rotation=(-45.0, 45.0)), Shape3(10, 20, 20), spacing)
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(augmenter.cube, spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    ball = torch.from_numpy((z**2 + y**2 + x**2 < 49).astype(np.uint8))[None, None]
    _, turned = augmenter(ball.float(), ball, Generator().manual_seed(1))
    assert float(turned.sum()) == pytest.approx(float(ball.sum()), rel=0.03)


def test_grey_values_change_but_stay_finite_also_in_a_flat_image() -> None:
    loud = always(*GREY)
    images, _, changed, _ = augmented(loud)
    assert torch.isfinite(changed).all() and not torch.equal(changed, images)
    augmenter = Augmenter(loud, PATCH, Spacing(1, 1, 1))
    flat = torch.zeros((1, 1, *augmenter.cube))
    assert torch.isfinite(augmenter(flat, flat.byte(), Generator().manual_seed(0))[0]).all()


def test_probabilities_move_with_the_image_and_keep_their_values() -> None:
    loud, still = (replace(always(*names), mirror_axes=AXES) for names in (GREY, ()))
    rng = np.random.default_rng(1)
    labels = torch.from_numpy((rng.random((3, 1, *PATCH)) < 0.3).astype(np.uint8))
    images = torch.cat([labels.float() * 2, labels.float(), labels * 0.25], dim=1)
    changed, moved = Augmenter(loud, PATCH, ISOTROPIC, grey=1)(images, labels, Generator().manual_seed(3))
    torch.testing.assert_close(changed[:, 1:], torch.cat([moved.float(), moved * 0.25], dim=1), rtol=0, atol=1e-4)
    assert not torch.equal(moved, labels)
    assert (changed[:, :1] - 2 * moved).abs().amax(dim=(1, 2, 3, 4)).min() > 0.1
    alone, _ = Augmenter(still, PATCH, ISOTROPIC, grey=1)(images, labels, Generator().manual_seed(3))
    assert torch.equal(alone[:, 1:], changed[:, 1:])


def test_a_skeleton_moves_with_the_labels_and_keeps_its_values() -> None:
    with_skeleton = case()
    labels = with_skeleton.labels.array
    both = np.concatenate([labels, np.where(labels > 0, 5, 0).astype(np.uint8)])
    with_skeleton = replace(with_skeleton, labels=ArraySource(both, AFFINE))
    swap = tuple({1: 2, 2: 1}.get(v, v) for v in range(256))
    moving = replace(always("rotation", "elastic"), mirror_axes=AXES, quarter_turns=True)
    augmenter = Augmenter(moving, PATCH, ISOTROPIC, swap)
    drawn = CubeSampler([with_skeleton], SamplingSettings(PATCH, foreground=1.0), augmenter.cube, 8, 5).sample(0, 0.0)
    images, labels = map(torch.from_numpy, (drawn.images, drawn.labels))
    _, moved = augmenter(images, labels, Generator().manual_seed(3))
    assert moved.shape == (8, 2, *PATCH) and {1, 2} <= {*moved[:, 0].unique().tolist()}
    assert torch.equal(moved[:, 1] == 5, moved[:, 0] > 0) and {*moved[:, 1].unique().tolist()} == {0, 5}


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_batches_made_ahead_come_in_order(threads: int) -> None:
    assert list(ahead(lambda n: n * n, 2, 9, threads=threads, depth=4)) == [n * n for n in range(2, 9)]


def test_an_error_in_a_thread_comes_out_where_its_batch_would_have() -> None:
    def make(n: int) -> float:
        return math.sqrt(2 - n)

    seen = []
    with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
        seen.extend(ahead(make, 0, 9, threads=2, depth=2))


def test_every_patch_holds_a_voxel_whose_label_is_known() -> None:
    known = np.zeros((20, 31, 17), dtype=np.bool_)
    known[17:, 2:4, 14] = True
    sparse = case("sparse")
    sparse.labels.array[0] = np.where(known, 1, 9)
    sparse = replace(sparse, places={}, known=np.argwhere(known).astype(np.int32))
    s = CubeSampler([sparse], SamplingSettings(PATCH, foreground=0.5), PATCH, 2, 5)
    labels = [label for step in range(100) for label in s.sample(step, 0.0).labels]
    assert all((label == 1).any() for label in labels)
    assert len({tuple(np.argwhere(label[0] == 1)[0]) for label in labels}) > 10  # not always at the same place
    with pytest.raises(ValueError, match="no label is known in nothing"):
        CubeSampler(
            [replace(sparse, name="nothing", known=np.argwhere(known & False).astype(np.int32))],
            s.settings,
            PATCH,
            2,
            5,
        )


def test_a_mirror_along_x_exchanges_the_values_of_left_and_right() -> None:
    values = tuple({1: 2, 2: 1}.get(v, v) for v in range(256))
    augmenter = Augmenter(replace(QUIET, mirror_axes=("y", "x")), PATCH, ISOTROPIC, values)
    labels = torch.from_numpy(np.random.default_rng(2).integers(0, 4, (24, 1, *PATCH)).astype(np.uint8))
    labels[:, :, :, :, 0] = 9
    _, seen = augmenter(labels.float(), labels, Generator().manual_seed(1))
    swapped = torch.tensor(values, dtype=torch.uint8)[labels.long()]
    choices = {(y, x): torch.flip(swapped if x else labels, [3] * y + [4] * x) for y in (0, 1) for x in (0, 1)}
    found = [next(flips for flips, there in choices.items() if torch.equal(there[n], seen[n])) for n in range(24)]
    assert set(found) == set(choices)


@given(st.sampled_from([0.01, 1.0, 200.0]), st.integers(0, 2), st.integers(0, 20))
@settings(max_examples=30)
def test_a_patch_of_one_slice_is_changed_in_its_plane_alone(across: float, axis: int, seed: int) -> None:
    edges, steps = [12, 16], [1.0, 1.0]
    edges.insert(axis, 1)
    steps.insert(axis, across)
    mirrors = tuple(a for a, n in zip(AXES, edges, strict=True) if n > 1)
    moves = replace(always(*MOVES), mirror_axes=mirrors, quarter_turns=True)
    augmenter = Augmenter(moves, Shape3(*edges), Spacing(*steps))
    assert augmenter.cube[axis] == 1
    ones = torch.ones(1, 2, *augmenter.cube), torch.ones(1, 1, *augmenter.cube, dtype=torch.uint8)
    images, labels = augmenter(*ones, torch.Generator().manual_seed(seed))
    assert images.shape == (1, 2, *edges) and labels.shape == (1, 1, *edges)
    # A turn out of the plane would read beyond it, where there is nothing.
    centre = tuple(slice(n // 4, n - n // 4) for n in edges)
    assert images[:, :, *centre].allclose(torch.tensor(1.0)) and labels[:, :, *centre].eq(1).all()
