import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vol3d.postprocess import quantile
from vol3d.postprocess.quantile import streamed_median, streamed_quantiles

DTYPES = st.sampled_from((np.float16, np.float32, np.float64, np.uint8, np.int16, np.uint16, np.int32))


def streamed(values: np.ndarray, cut: int = 3, to: Callable[[np.ndarray], Any] = np.asarray) -> float:
    return streamed_median(lambda: map(to, np.split(values, range(cut, values.size, cut))), values.dtype)


@given(dtype=DTYPES, data=st.data(), cut=st.integers(1, 9))
def test_the_median_is_numpys(dtype: type[np.generic], data: st.DataObject, cut: int) -> None:
    kind = np.dtype(dtype)
    finite = {"allow_nan": False, "allow_infinity": False} if kind.kind == "f" else {}
    elements = st.floats(-1e4, 1e4, width=kind.itemsize * 8) if finite else None  # type: ignore[arg-type]
    values = data.draw(arrays(kind, st.integers(1, 20), elements=elements))
    assert streamed(values, cut) == float(np.median(values.astype(np.float64)))
    if kind != np.uint16:  # of which torch can do little
        assert streamed(values, cut, torch.from_numpy) == streamed(values, cut)


@given(dtype=DTYPES, data=st.data(), cut=st.integers(1, 9))
def test_quantiles_are_values_that_occur(dtype: type[np.generic], data: st.DataObject, cut: int) -> None:
    values = data.draw(arrays(dtype, st.integers(1, 20), elements=st.integers(0, 40)))
    shares = data.draw(st.lists(st.integers(0, 20).map(lambda twentieths: twentieths / 20), min_size=1, max_size=3))
    found = streamed_quantiles(lambda: iter(np.split(values, range(cut, values.size, cut))), values.dtype, shares)
    ordered = sorted(values.tolist())
    for share, value in zip(shares, found, strict=True):
        assert value in ordered
        assert sum(v <= value for v in ordered) >= share * len(ordered) - 1e-9
        assert sum(v < value for v in ordered) < share * len(ordered) - 1e-9 or value == ordered[0]


@pytest.mark.parametrize("size", [999, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_neighbours_in_the_last_bit_are_told_apart(size: int, dtype: type, rng: np.random.Generator) -> None:
    steps = rng.integers(0, 70_000, size)
    for first in (dtype(1.0), dtype(-1.0), dtype(0.0)):
        values = np.array(first).view(f"i{np.dtype(dtype).itemsize}") + steps
        floats = values.astype(f"i{np.dtype(dtype).itemsize}").view(dtype)
        for to in (np.asarray, torch.from_numpy):
            assert streamed(floats, 100, to) == float(np.median(floats.astype(np.float64)))


def test_no_value_and_no_number_have_no_median() -> None:
    assert math.isnan(streamed_median(lambda: iter(()), np.dtype(np.float32)))
    for to in (np.asarray, torch.from_numpy):
        assert math.isnan(streamed(np.array([1.0, np.nan, 3.0], np.float32), to=to))
        assert streamed(np.array([-np.inf, 2.0, np.inf]), to=to) == 2.0
    assert all(map(math.isnan, streamed_quantiles(lambda: iter(()), np.dtype(np.float32), (0.0, 0.5))))


def test_float32_is_gone_through_twice_and_never_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantile, "VALUES_AT_ONCE", 4)
    keys, sizes, passes = quantile._keys, [], []
    monkeypatch.setattr(quantile, "_keys", lambda values: sizes.append(values.size) or keys(values))
    values = np.arange(11, dtype=np.float32)

    def once_more() -> Iterator[np.ndarray]:
        passes.append(1)
        yield values

    assert streamed_median(once_more, values.dtype) == 5.0
    assert len(passes) == 2
    assert max(sizes) == 4
