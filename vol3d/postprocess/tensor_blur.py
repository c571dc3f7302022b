"""Where a blurred mask is at least one half, found where the tensor lies: smooth_mm of vol3d.postprocess.morphology."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

VOXELS_AT_ONCE = 1 << 25  # 24 bytes each, and as many planes more as the weights along z reach


def above_half(mask: Tensor, weights: Sequence[NDArray[np.int64]]) -> Tensor:
    """Of a (Z, Y, X) bool mask, with odd numbers of whole weights along z, y, x; the edge mirrors what is inside.

    The weights' products add up to less than 2^53, so that float64 holds every sum.
    """
    result, half = torch.empty_like(mask), float(np.prod([each.sum() for each in weights]))
    places = [
        torch.from_numpy(np.pad(np.arange(n), len(each) // 2, mode="symmetric")).to(mask.device)
        for n, each in zip(mask.shape, weights, strict=True)
    ]
    planes = max(1, VOXELS_AT_ONCE // mask[0].numel())
    for start in range(0, len(mask), planes):
        stop = min(start + planes, len(mask))
        sums = _added(mask[places[0][start : stop + len(weights[0]) - 1]], 0, weights[0])
        for axis in (1, 2):
            sums = _added(sums.index_select(axis, places[axis]), axis, weights[axis])
        result[start:stop] = 2 * sums >= half
    return result


def _added(around: Tensor, axis: int, weights: NDArray[np.int64]) -> Tensor:
    """The weighted sums of what lies around along an axis."""
    size = around.shape[axis] - len(weights) + 1
    sums = torch.zeros_like(around.narrow(axis, 0, size), dtype=torch.float64)
    for start, weight in enumerate(weights.tolist()):
        sums.add_(around.narrow(axis, start, size), alpha=weight)
    return sums
