"""Per-axis blending shares that sum to one.

A window's weight is the outer product of one curve per axis. Dividing each curve by the sum of all
windows' curves along that axis gives shares whose product sums to one at every voxel, so blending
needs no weight volume and no final division.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Blend = Literal["gaussian", "constant", "nnunet"]
"""nnunet is the Gaussian about voxel window // 2, half a voxel behind the middle of an even window."""


def axis_curve(window: int, *, blend: Blend, sigma_fraction: float = 0.125) -> NDArray[np.float32]:
    """The unnormalised weight along one axis of a window: (window,), one at the centre, (window - 1) / 2.

    sigma_fraction is the Gaussian's standard deviation as a part of the window.
    """
    if blend == "constant":
        return np.ones(window, dtype=np.float32)
    distance = np.arange(window, dtype=np.float64) - (window // 2 if blend == "nnunet" else (window - 1) / 2)
    return np.exp(-0.5 * (distance / (sigma_fraction * window)) ** 2).astype(np.float32)


def axis_shares(starts: Sequence[int], window: int, size: int, *, blend: Blend) -> NDArray[np.float32]:
    """Each window's part of each voxel along one axis: (len(starts), window), float32.

    For every one of the size voxels the shares of the windows that cover it sum to one.
    """
    curve = axis_curve(window, blend=blend).astype(np.float64)
    total = np.zeros(size)
    for start in starts:
        total[start : start + window] += curve
    return np.stack([curve / total[start : start + window] for start in starts]).astype(np.float32)
