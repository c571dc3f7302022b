import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vol3d.inference.activation import probability_of


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@given(n=st.integers(1, 90), cut=st.integers(0, 90), seed=st.integers(0, 9))
def test_any_cut_has_the_bytes_of_the_whole(activation: str, n: int, cut: int, seed: int) -> None:
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, 6, (3, 2, 5, n)).astype(np.float32))
    whole = probability_of(logits, activation, axis=0)
    parts = [probability_of(part, activation, axis=0) for part in (logits[..., :cut], logits[..., cut:])]
    assert torch.equal(torch.cat(parts, dim=-1), whole)


@pytest.mark.parametrize("axis", [0, 1])
def test_it_is_softmax_and_sigmoid(axis: int) -> None:
    logits = torch.tensor([[[3.0, -90.0, 0.0, 700.0]], [[1.0, 2.0, 0.0, -700.0]]]).movedim(0, axis)
    torch.testing.assert_close(probability_of(logits, "softmax", axis=axis), logits.softmax(axis))
    torch.testing.assert_close(probability_of(logits, "sigmoid", axis=axis), logits.sigmoid())
