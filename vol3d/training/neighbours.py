"""Volumes (B, R, Z, Y, X) grown and shrunk by a voxel's six neighbours, softly and on their device."""

import torch
from torch import Tensor
from torch.nn.functional import max_pool3d


def dilated(volume: Tensor) -> Tensor:
    """The largest value of a voxel and its six neighbours in the patch."""
    along_axes = []
    for axis in range(3):
        kernel, padding = [1, 1, 1], [0, 0, 0]
        kernel[axis], padding[axis] = 3, 1
        along_axes.append(max_pool3d(volume, kernel, 1, padding))
    return torch.stack(along_axes).amax(dim=0)


def eroded(volume: Tensor) -> Tensor:
    """The smallest value of a voxel and its six neighbours in the patch."""
    return -dilated(-volume)
