"""Tables of labels: what plain loops find, whatever the order, and the same from arrays and tensors."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from vol3d.regions import reduce, tensor_tables
from vol3d.regions.blocks import LabelledSlab
from vol3d.regions.components import Components, TensorComponents
from vol3d.regions.measures import MOMENTS
from vol3d.regions.reduce import (
    PROBABILITY_UNITS,
    counts,
    first_places,
    highest,
    occurs,
    probability_sums,
)
from vol3d.shapes import Shape3

COUNT = 5
P_OF = st.sampled_from((0.0, 0.1, 1 / 3, 0.5, 0.7, 1.0, math.nan))


@st.composite
def drawn(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]:
    shape = draw(array_shapes(min_dims=3, max_dims=3, max_side=5))
    labels = draw(arrays(np.int32, shape, elements=st.integers(0, COUNT), fill=st.just(0)))
    values = draw(arrays(draw(st.sampled_from((np.int16, np.int32, np.uint8))), shape))
    where = draw(st.none() | arrays(np.bool_, shape, fill=st.nothing()))
    return labels, values, where, draw(arrays(draw(st.sampled_from((np.float16, np.float32))), shape, elements=P_OF))


def of_label(values: np.ndarray, labels: np.ndarray, label: int, where: np.ndarray | None) -> np.ndarray:
    return values[(labels == label) & (True if where is None else where)]


@settings(max_examples=25)
@given(drawn())
def test_tables_tell_of_each_label(drawn: tuple[Any, ...]) -> None:
    labels, values, where, p = drawn
    for label in range(1, COUNT + 1):
        own, own_p = of_label(values, labels, label, where), of_label(p, labels, label, where)
        limits = np.iinfo(np.result_type(values, np.int32))
        assert counts(labels, COUNT, where=where)[label] == own.size
        assert highest(labels, COUNT, values, where=where)[label] == max(own.tolist(), default=limits.min)
        np.testing.assert_equal(highest(labels, COUNT, p, where=where)[label], np.max(own_p, initial=-np.inf))
        every = of_label(p, labels, label, None)
        units = sum(round(float(v) * PROBABILITY_UNITS) for v in every if not math.isnan(v))
        assert probability_sums(labels, COUNT, p)[label] == units
        places = np.flatnonzero(labels == label)
        assert first_places(labels, COUNT)[label] == (places[0] if places.size else np.iinfo(np.int64).max)
        assert occurs(labels, COUNT)[label] == bool(places.size)


def tables(labels: Any, values: Any, where: Any, p: Any) -> list[np.ndarray]:
    return [
        counts(labels, COUNT),
        counts(labels, COUNT, where=where),
        occurs(labels, COUNT),
        first_places(labels, COUNT),
        highest(labels, COUNT, values, where=where),
        highest(labels, COUNT, p, where=where),
        probability_sums(labels, COUNT, p),
    ]


@settings(max_examples=25)
@given(drawn(), st.integers(1, 40))
def test_tensors_and_pieces_give_the_same_tables(drawn: tuple[Any, ...], at_once: int) -> None:
    whole = tables(*drawn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reduce, "VOXELS_AT_ONCE", at_once)
        patch.setattr(tensor_tables, "VOXELS_AT_ONCE", at_once)
        for other in (tables(*drawn), tables(*(None if a is None else torch.from_numpy(a) for a in drawn))):
            for one, two in zip(whole, other, strict=True):
                assert one.dtype == two.dtype
                np.testing.assert_array_equal(one, two)


@settings(max_examples=15)
@given(drawn(), st.integers(1, 40))
def test_moments_of_tensors_are_those_of_arrays(drawn: tuple[Any, ...], at_once: int) -> None:
    labels, volume = drawn[0], Shape3(len(drawn[0]) + 9, *drawn[0].shape[1:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_tables, "VOXELS_AT_ONCE", at_once)
        array = MOMENTS.of(LabelledSlab(Components(labels, COUNT), labels > 0, 4, volume))
        tensor = torch.from_numpy(labels)
        np.testing.assert_array_equal(
            MOMENTS.of(LabelledSlab(TensorComponents(tensor, COUNT), tensor > 0, 4, volume)), array
        )


def test_a_mean_does_not_hang_on_the_order(rng: np.random.Generator) -> None:
    p = rng.random((20, 31, 17), dtype=np.float32)
    labels = np.ones(p.shape, dtype=np.int32)
    one = probability_sums(labels, 1, p)
    assert one[1] == probability_sums(labels, 1, rng.permutation(p.ravel()).reshape(p.shape))[1]
    assert one[1] / p.size / PROBABILITY_UNITS == pytest.approx(p.mean(dtype=np.float64), abs=1e-7)
