"""One code for arrays and tensors: where what NumPy and torch call alike comes from, and the way out to NumPy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def library(array: Any) -> Any:
    """NumPy for an array, torch for a tensor: for what both know by one name, such as concatenate and zeros_like."""
    if isinstance(array, np.ndarray):
        return np
    import torch  # loaded already, by whoever made the tensor

    return torch


def as_numpy(array: Any) -> NDArray[Any]:
    """An array as it is; a tensor's values in the computer's memory."""
    if isinstance(array, np.ndarray):
        return array
    values: NDArray[Any] = array.cpu().numpy()
    return values
