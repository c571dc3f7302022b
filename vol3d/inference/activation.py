"""Logits to probabilities, each voxel's the same wherever it lies in its array."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

Activation = Literal["softmax", "sigmoid"]


def probability_of(logits: Tensor, activation: Activation, *, axis: int) -> Tensor:
    """Probabilities of float32 logits; axis is that of the channels, which sum to one under softmax.

    torch's own softmax and sigmoid round the last few values of a row, or of a thread's share, otherwise than
    the others; here any cut of an array gives the same bytes.
    """
    if activation == "sigmoid":
        return 1 / (1 + _exp(-logits))
    powers = _exp(logits - logits.amax(dim=axis, keepdim=True))
    total = powers.select(axis, 0).clone()
    for channel in range(1, powers.shape[axis]):
        total += powers.select(axis, channel)
    return powers / total.unsqueeze(axis)


def _exp(values: Tensor) -> Tensor:
    """E to the power of each value; on a CPU NumPy's, whose result does not hang on a value's place."""
    if values.device.type != "cpu":
        return values.exp()
    with np.errstate(over="ignore"):  # a logit of -90 has the probability 0, as it should
        return torch.from_numpy(np.exp(values.contiguous().numpy()))
