"""The laws of sliding windows: identity, constants, any cut gives the same bytes, skipping is background."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.inference.inferencer import Inferencer, Tally, background
from vol3d.inference.symmetry import Symmetry, averaged, symmetries
from vol3d.inference.windows import WindowGrid
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.volume.source import ArraySource

AFFINE = from_spacing(Spacing(0.8, 1.0, 3.0))
SHAPES = st.builds(Shape3, st.integers(1, 23), st.integers(1, 21), st.integers(1, 19))
BACKGROUND = (1.0, 0.0, 0.0)
WINDOWS = st.builds(Shape3, st.integers(1, 9), st.integers(1, 8), st.integers(1, 7))


def volume(shape: Shape3, channels: int = 2) -> ArraySource:
    rng = np.random.default_rng(3)
    return ArraySource(rng.random((channels, *shape), dtype=np.float32), AFFINE)


def network(channels: int = 2) -> torch.nn.Module:
    # InstanceNorm, as in a U-Net: every voxel depends on its whole window, so cuts that move windows show.
    torch.manual_seed(0)
    conv = torch.nn.Conv3d(channels, 3, 3, padding=1)
    norm = torch.nn.InstanceNorm3d(3, affine=True)
    return torch.nn.Sequential(conv, norm, torch.nn.Softmax(dim=1)).eval()


def alone(forward: torch.nn.Module) -> Callable[[Tensor], Tensor]:
    """Each window by itself, so that its answer does not hang on the others of its batch."""
    return lambda windows: torch.cat([forward(one) for one in windows.split(1)])


def run(inferencer: Inferencer, source: ArraySource, **wanted: object) -> Tensor:
    with torch.inference_mode():
        pieces = list(inferencer.slabs(source, **wanted))
    assert [p[0] for p in pieces] == np.cumsum([pieces[0][0], *(p[1].shape[1] for p in pieces[:-1])]).tolist()
    return torch.cat([p[1] for p in pieces], dim=1)


@settings(max_examples=60)
@given(SHAPES, WINDOWS, st.sampled_from([0.0, 0.25, 0.5, 0.7]), st.integers(1, 3))
def test_an_identity_network_returns_its_input(shape: Shape3, window: Shape3, overlap: float, batch: int) -> None:
    source = volume(shape)
    inferencer = Inferencer(lambda b: b, (0.0, 0.0), window, overlap, batch)
    torch.testing.assert_close(run(inferencer, source), torch.from_numpy(source.array), rtol=0, atol=2e-6)


@settings(max_examples=40)
@given(SHAPES, st.sampled_from([1, 4]), st.data())
def test_any_box_has_the_bytes_of_the_whole(shape: Shape3, batch: int, data: st.DataObject) -> None:
    inferencer = Inferencer(alone(network()), BACKGROUND, Shape3(6, 8, 5), 0.5, batch)
    source = volume(shape)
    whole = run(inferencer, source)
    assert whole.shape == (3, *shape)
    bounds = [sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in shape]
    box = Box(Index3(*(a for a, _ in bounds)), Index3(*(b for _, b in bounds)))
    assert torch.equal(run(inferencer, source, box=box), whole[(slice(None), *box.slices)])
    cuts = sorted({0, shape.z, *data.draw(st.lists(st.integers(0, shape.z), max_size=4))})
    slabs = [Box(Index3(a, 0, 0), Index3(b, shape.y, shape.x)) for a, b in itertools.pairwise(cuts)]
    assert torch.equal(torch.cat([run(inferencer, source, box=slab) for slab in slabs], dim=1), whole)


def test_probabilities_sum_to_one_and_progress_counts_every_window() -> None:
    source, done, tally = volume(Shape3(20, 31, 17)), [0], Tally()
    inferencer = Inferencer(network(), BACKGROUND, Shape3(8, 8, 8), 0.5, 3)

    def advance(n: int) -> None:
        done[0] += n

    total = run(inferencer, source, tally=tally, advance=advance).sum(dim=0)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=3e-6)
    assert tally.run == done[0] == inferencer.grid(source.shape).count == 4 * 7 * 4
    assert tally.unwanted == tally.constant == 0


def test_an_unwanted_window_is_background_and_the_others_do_not_notice() -> None:
    source, tally = volume(Shape3(20, 31, 17)), Tally()
    inferencer = Inferencer(network(), BACKGROUND, Shape3(8, 8, 8), 0.5, 2)
    gate = np.zeros(source.shape, dtype=bool)
    gate[12:18, 3:9, 2:15] = True

    def wanted(box: Box) -> bool:
        return bool(gate[box.slices].any())

    whole, gated = run(inferencer, source), run(inferencer, source, wanted=wanted, tally=tally)
    assert 0 < tally.run < tally.run + tally.unwanted == inferencer.grid(source.shape).count
    inside = torch.from_numpy(gate)
    torch.testing.assert_close(gated[:, inside], whole[:, inside], rtol=0, atol=1e-6)
    assert torch.equal(gated[:, 0, 30, 16], torch.tensor([1.0, 0.0, 0.0]))


def test_a_volume_is_read_once_and_in_order() -> None:
    source = volume(Shape3(20, 31, 17))
    planes: list[tuple[int, int]] = []

    class Watched(ArraySource):
        def read(self, box: Box) -> np.ndarray:
            planes.append((box.start.z, box.stop.z))
            return super().read(box)

    run(Inferencer(lambda b: b, (0.0, 0.0), Shape3(8, 16, 16)), Watched(source.array, AFFINE))
    assert planes[0][0] == 0 and planes[-1][1] == 20
    assert all(a[1] == b[0] for a, b in itertools.pairwise(planes))


def test_constant_windows_are_background_unseen_and_the_others_do_not_notice() -> None:
    array = volume(Shape3(20, 31, 17)).array.copy()
    array[:, :9] = np.array([7.0, -1.0])[:, None, None, None]  # a value per channel
    source, tally = ArraySource(array, AFFINE), Tally()
    seen, skipping = (
        Inferencer(network(), BACKGROUND, Shape3(8, 8, 8), 0.5, 2, skip_constant=skip) for skip in (False, True)
    )
    done = run(skipping, source, tally=tally)
    assert tally.constant == 7 * 4 and tally.run == 3 * 7 * 4  # the first of four rows
    background = torch.tensor(BACKGROUND)[:, None, None, None].expand(-1, 4, 31, 17)
    torch.testing.assert_close(done[:, :4], background, rtol=0, atol=1e-6)
    torch.testing.assert_close(done[:, 8:], run(seen, source)[:, 8:], rtol=0, atol=1e-6)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_skipped_window_says_background_also_where_logits_are_averaged(activation: str) -> None:
    logits = torch.tensor(background(activation, 3, "logits"))
    said = logits.softmax(0) if activation == "softmax" else logits.sigmoid()
    torch.testing.assert_close(said, torch.tensor(background(activation, 3, "probability")), rtol=0, atol=1e-4)


NAMED = [(), ("mirrors",), ("quarter_turns",), ("views",), ("mirrors", "quarter_turns", "views")]


@pytest.mark.parametrize(("names", "count"), list(zip(NAMED, (1, 8, 4, 3, 48), strict=True)))
def test_symmetries_make_a_group_and_each_is_undone(names: tuple[str, ...], count: int) -> None:
    group = symmetries(names, ("z", "y", "x"))
    assert len(group) == len(set(group)) == count and group[0] == Symmetry()
    assert {a.then(b) for a in group for b in group} == set(group)
    batch = torch.rand(2, 3, 4, 4, 4)
    for one in group:
        assert torch.equal(one.undo(one.apply(batch)), batch)
        assert torch.equal(group[-1].apply(one.apply(batch)), one.then(group[-1]).apply(batch))


@pytest.mark.parametrize("batch", [1, 3, 100])
@pytest.mark.parametrize("names", NAMED)
def test_answers_are_averaged_over_symmetries_and_turned_back(names: tuple[str, ...], batch: int) -> None:
    group, windows = symmetries(names, ("z", "x")), torch.rand(2, 1, 5, 5, 5)
    sizes: list[int] = []

    def watched(seen: Tensor) -> Tensor:
        sizes.append(len(seen))
        return seen

    torch.testing.assert_close(averaged(watched, group, batch=batch)(windows), windows)
    assert max(sizes) <= batch and sum(sizes) == 2 * len(group)
    # A network that knows up from down: its mean over a symmetry that exchanges them does not.
    ramp = torch.arange(5.0).view(5, 1, 1).expand(2, 1, 5, 5, 5)
    mean = averaged(lambda seen: seen * 0 + ramp[: len(seen)], group, batch=2)(windows)
    torch.testing.assert_close(mean.mean(), torch.tensor(2.0))
    assert (mean.std() < 1e-6) == bool({"mirrors"} & set(names))


def test_a_network_that_names_sides_as_a_mirror_does_answers_the_same_with_mirrors() -> None:
    torch.manual_seed(3)
    weights = torch.randn(3, 2, 3, 3, 3)
    weights[0] = (weights[0] + weights[0].flip(-1)) / 2  # background looks the same in a mirror
    weights[2] = weights[1].flip(-1)  # right is left in a mirror

    def sided(batch: Tensor) -> Tensor:
        return torch.nn.functional.conv3d(batch, weights, padding=1).softmax(dim=1)

    batch, along_x, along_y = torch.randn(2, 2, 5, 6, 7), *(symmetries(("mirrors",), axis) for axis in "xy")
    torch.testing.assert_close(averaged(sided, along_x, batch=4, x_channels=(0, 2, 1))(batch), sided(batch))
    assert (averaged(sided, along_x, batch=4)(batch) - sided(batch)).abs().max() > 0.1
    swapped = averaged(sided, along_y, batch=4, x_channels=(0, 2, 1))(batch)
    torch.testing.assert_close(swapped, averaged(sided, along_y, batch=4)(batch), rtol=0, atol=0)


def test_windows_of_a_small_volume_lie_around_it() -> None:
    grid = WindowGrid(Shape3(3, 20, 5), Shape3(8, 8, 8), 0.5)
    assert grid.padded == (8, 20, 8) and grid.count == 4
    assert grid.box(0, 0, 0).start == (-2, 0, -1)
