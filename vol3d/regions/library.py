"""One code for arrays and tensors: where what NumPy and torch call alike comes from, and the way out to NumPy."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

VALUES_AT_ONCE = 1 << 25


def library(array: Any) -> Any:
    """NumPy for an array, torch for a tensor: for what both know by one name, such as concatenate and zeros_like."""
    if isinstance(array, np.ndarray):
        return np
    import torch  # loaded already, by whoever made the tensor

    return torch


def chosen(values: Any, mask: Any) -> Iterator[Any]:
    """The values where a mask of their shape is true, in order; a tensor's some at a time.

    For each voxel that it takes of three axes torch notes three places, in 24 bytes.
    """
    if isinstance(values, np.ndarray):
        yield values[mask]
        return
    flat, wanted = values.reshape(-1), mask.reshape(-1)
    for start in range(0, len(flat), VALUES_AT_ONCE):
        place = slice(start, start + VALUES_AT_ONCE)
        yield flat[place][wanted[place]]


def as_numpy(array: Any) -> NDArray[Any]:
    """An array as it is; a tensor's values in the computer's memory."""
    if isinstance(array, np.ndarray):
        return array
    values: NDArray[Any] = array.cpu().numpy()
    return values
