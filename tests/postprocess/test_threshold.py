from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from plain_steps import applied

from vol3d.postprocess.threshold import Hysteresis, TopShare, decide, label_values
from vol3d.regions.components import Connectivity

SHAPES = array_shapes(min_dims=3, max_dims=3, max_side=6)
TENTHS = st.integers(0, 10).map(lambda n: n / 10)
PROBABILITIES = arrays(np.float32, SHAPES, elements=st.sampled_from([np.float32(n / 10) for n in range(11)]))
CONNECTIVITIES = st.sampled_from((6, 18, 26))


def decided(p: np.ndarray, *how: Any) -> np.ndarray:
    return decide(torch.from_numpy(p), *how).numpy()


def hysteresis(p: np.ndarray, **fields: Any) -> np.ndarray:
    return applied(Hysteresis(**fields), np.zeros(p.shape, dtype=np.bool_), probability=p)


@given(p=PROBABILITIES, pair=st.tuples(TENTHS, TENTHS), least=st.integers(1, 4), connectivity=CONNECTIVITIES)
def test_hysteresis_lies_between_its_two_masks(
    p: np.ndarray, pair: tuple[float, float], least: int, connectivity: Connectivity
) -> None:
    low, high = sorted(pair)
    before = p.copy()
    mask = hysteresis(p, seed_threshold=high, grow_threshold=low, min_seed_voxels=least, connectivity=connectivity)
    assert (mask.shape, mask.dtype) == (p.shape, np.bool_)
    assert not (mask & ~(p >= low)).any()
    if least == 1:
        assert not ((p >= high) & ~mask).any()
    np.testing.assert_array_equal(p, before)


@given(p=PROBABILITIES, t=TENTHS, connectivity=CONNECTIVITIES)
def test_equal_thresholds_are_a_plain_threshold(p: np.ndarray, t: float, connectivity: Connectivity) -> None:
    mask = hysteresis(p, seed_threshold=t, grow_threshold=t, connectivity=connectivity)
    np.testing.assert_array_equal(mask, p >= t)
    np.testing.assert_array_equal(mask, decided(p[None], "sigmoid", t)[0])


def test_a_component_needs_all_its_seed_voxels() -> None:
    p = np.array([[[0.9, 0.4, 0.9, 0.1, 0.9, 0.4, 0.2, 0.4]]], dtype=np.float32)
    masks = [hysteresis(p, seed_threshold=0.9, grow_threshold=0.4, min_seed_voxels=n)[0, 0] for n in (1, 2, 3)]
    assert [m.astype(int).tolist() for m in masks] == [[1, 1, 1, 0, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0], [0] * 8]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_bounds_are_inclusive_in_every_precision(dtype: type) -> None:
    p = np.full((2, 3, 4), 0.3, dtype=dtype)
    assert decided(p[None], "sigmoid", 0.3).all()
    assert hysteresis(p, seed_threshold=0.3, grow_threshold=0.3).all()
    assert not decided(np.nextafter(p, dtype(0))[None], "sigmoid", 0.3).any()


def test_each_region_has_its_threshold() -> None:
    p = np.full((2, 1, 2, 3), 0.4, dtype=np.float32)
    assert decided(p, "sigmoid", (0.5, 0.3)).any(axis=(1, 2, 3)).tolist() == [False, True]


def test_inner_regions_win_the_label_values() -> None:
    p = np.array([[[[0.9, 0.9, 0.1]]], [[[0.2, 0.7, 0.7]]]], dtype=np.float32)
    assert label_values(torch.from_numpy(p), "sigmoid", 0.5, (7, 3)).tolist() == [[[7, 3, 3]]]


CHANNELS = st.tuples(st.integers(2, 4), *[st.integers(1, 4)] * 3)


@given(p=arrays(np.float16, CHANNELS, elements=st.sampled_from((0.0, 0.25, 0.5, 0.75)), fill=st.nothing()))
def test_softmax_takes_the_first_of_the_largest_channels(p: np.ndarray) -> None:
    winner = p.argmax(axis=0)
    masks, values = decided(p, "softmax"), tuple(range(11, 10 + len(p)))
    assert masks.shape == (len(p) - 1, *p.shape[1:])
    labels = label_values(torch.from_numpy(p), "softmax", 0.5, values).numpy()
    np.testing.assert_array_equal(labels, np.array((0, *values))[winner])
    for region, mask in enumerate(masks, start=1):
        np.testing.assert_array_equal(mask, winner == region)


@given(
    p=arrays(np.float32, (3, 5, 4, 2), elements=st.sampled_from((0.125, 0.25, 0.5)), fill=st.nothing()),
    cut=st.integers(1, 4),
)
def test_any_slab_split_decides_the_same(p: np.ndarray, cut: int) -> None:
    for activation in ("sigmoid", "softmax"):
        slabs = [decided(p[:, :cut], activation), decided(p[:, cut:], activation)]
        np.testing.assert_array_equal(np.concatenate(slabs, axis=1), decided(p, activation))


def top(p: np.ndarray, share: float, **more: Any) -> list[int]:
    mask = applied(
        TopShare(share=share, **more.pop("fields", {})), np.ones(p.shape, dtype=np.bool_), probability=p, **more
    )
    return np.flatnonzero(mask).tolist()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_top_share_is_rounded_up_and_takes_ties(dtype: type) -> None:
    p = np.array([[[0.3, 0.9, 0.0, 0.7, 0.7, 0.1, np.nan, 0.0, 0.2, 0.05]]], dtype=dtype)
    assert top(p, 0.1) == [1]
    assert top(p, 0.11) == [1, 3, 4]  # two, and what ties with the second
    assert top(p, 0.3) == [1, 3, 4]
    assert top(p, 0.4) == [0, 1, 3, 4]
    assert top(p, 1.0) == [0, 1, 3, 4, 5, 8, 9]  # never what is 0 or NaN
    assert top(p * 0, 0.5) == []


def test_the_top_share_of_the_organ_counts_and_keeps_in_the_organ_alone() -> None:
    p = np.array([[[0.3, 0.9, 0.8, 0.7, 0.6, 0.1]]], dtype=np.float16)
    organ = np.array([[[True, False, False, True, True, True]]])
    assert top(p, 0.5, organ=organ, fields={"within": "organ"}) == [3, 4]
    assert top(p, 0.5, organ=~organ & False, fields={"within": "organ"}) == []


def test_refusals() -> None:
    for share in (0, 1.1):
        with pytest.raises(ValueError, match="top_share: share must be more than 0 and at most 1, got"):
            TopShare(share=share)
    p = np.zeros((2, 3, 4, 5), dtype=np.float32)
    with pytest.raises(ValueError, match=r"grow_threshold must be in \[0, seed_threshold 0.3\], got 0.7"):
        Hysteresis(seed_threshold=0.3, grow_threshold=0.7)
    with pytest.raises(ValueError, match="min_seed_voxels must be 1 or more, got 0"):
        Hysteresis(seed_threshold=0.7, grow_threshold=0.3, min_seed_voxels=0)
    with pytest.raises(ValueError, match=r"for each of 2 regions, got \(0.5,\)"):
        decided(p, "sigmoid", (0.5,))
    with pytest.raises(ValueError, match="got 50"):
        decided(p, "sigmoid", 50)
    with pytest.raises(ValueError, match="got 'relu'"):
        decided(p, "relu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="C, Z, Y, X"):
        decided(p[0], "sigmoid")
