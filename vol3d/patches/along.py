"""Matrices along the three axes of a batch: blur, fewer voxels, and smooth fields out of a few numbers.

Each is one product per axis, for all samples at once and with matrices of their own.
"""

import torch
from torch import Tensor


def along(values: Tensor, z: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """A batch (B, C, Z, Y, X) times a matrix (B or 1, new, old) along each axis."""
    shape = (*values.shape[:2], z.shape[1], *values.shape[3:])
    values = torch.matmul(z[:, None], values.flatten(3)).reshape(shape)
    return torch.matmul(torch.matmul(y[:, None, None], values), x[:, None, None].mT)


def gaussian(edge: int, sigma: Tensor) -> Tensor:
    """Blur by sigma (B,) voxels, (B, edge, edge); what lies beyond the edge is left out of the mean."""
    places = torch.arange(edge, dtype=torch.float32, device=sigma.device)
    weights = torch.exp(-0.5 * ((places - places[:, None]) / sigma[:, None, None]) ** 2)
    return weights / weights.sum(2, keepdim=True)


def coarser(edge: int, factor: Tensor) -> Tensor:
    """The means over voxels factor (B,) times as large, read between their middles linearly, (B, edge, edge)."""
    factor = factor[:, None, None]
    places = torch.arange(edge, dtype=torch.float32, device=factor.device)
    rows, columns = places[:, None], places
    # Row n is the large voxel that begins at n * factor; those that begin beyond the edge hold nothing.
    overlap = torch.minimum(columns + 1, (rows + 1) * factor) - torch.maximum(columns, rows * factor)
    means = overlap.clamp_min(0.0)
    held = means.sum(2, keepdim=True)
    means = means / held.clamp_min(1e-6)
    between = (1 - ((rows + 0.5) / factor - (columns + 0.5)).abs()).clamp_min(0.0) * (held.mT > 1e-6)
    return torch.matmul(between / between.sum(2, keepdim=True), means)


def spline(edge: int, intervals: int) -> Tensor:
    """A smooth curve of edge values through intervals + 3 control values, (1, edge, intervals + 3).

    Uniform cubic B-spline: weights are positive and sum to one, so no value leaves the control values' range.
    """
    places = (torch.arange(edge, dtype=torch.float32) + 0.5) / edge * intervals
    distance = (places[:, None] + 1 - torch.arange(intervals + 3, dtype=torch.float32)).abs()
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance).clamp_min(0.0) ** 3 / 6
    return torch.where(distance < 1, near, far)[None]


def polygon(edge: int, intervals: int) -> Tensor:
    """A broken line of edge values between intervals + 1 corners, (1, edge, intervals + 1), which end where it does."""
    places = torch.arange(edge, dtype=torch.float32) / max(edge - 1, 1) * intervals
    return (1 - (places[:, None] - torch.arange(intervals + 1, dtype=torch.float32)).abs()).clamp_min(0.0)[None]
