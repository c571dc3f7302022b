"""The 2x2x2 cubes of masks that lie on another device than the CPU: vol3d.regions.cubes, counted where they are."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CUBES_AT_ONCE = 1 << 26
"""A piece of work that keeps a device busy, and of which all that is made in between takes at most 2 GiB."""


def paired_codes(one: Tensor, other: Tensor) -> NDArray[np.int64]:
    """The counts of vol3d.regions.cubes.paired_codes, (256, 256), of two bool tensors (Z, Y, X) on one device.

    However many voxels they have, they are looked at in slabs of CUBES_AT_ONCE, or of one plane.
    """
    planes, height, width = one.shape[0] + 1, one.shape[1] + 1, one.shape[2] + 1
    depth = max(1, CUBES_AT_ONCE // (height * width))
    counts = torch.zeros(1 << 16, dtype=torch.int64, device=one.device)
    for start in range(0, planes, depth):
        stop = min(start + depth, planes)
        first, second = _codes(one, start, stop), _codes(other, start, stop)
        # Adding one wraps 255 around, so that a single comparison finds both 0 and 255.
        surface = torch.nonzero(((first + 1) > 1) | ((second + 1) > 1)).squeeze(1)
        # Only of the few cubes that are surface is anything made that is wider than a byte.
        pairs = (first[surface].to(torch.int32) << 8) | second[surface]
        counts += torch.bincount(pairs, minlength=1 << 16)
    return counts.reshape(256, 256).cpu().numpy()


def _codes(mask: Tensor, start: int, stop: int) -> Tensor:
    """The codes of the cubes that end in the planes start to stop, flat: (stop - start) (Y + 1) (X + 1)."""
    depth, height, width = stop - start + 1, mask.shape[1] + 1, mask.shape[2] + 1
    # One false column and row behind each plane also stand before the next row and plane, so that a
    # neighbour is a fixed number of bytes away.
    run = torch.zeros(width + 1 + depth * height * width, dtype=torch.uint8, device=mask.device)
    planes = run[width + 1 :].view(depth, height, width)[:, :-1, :-1]
    low, high = max(0, start - 1), min(mask.shape[0], stop)
    planes[low - start + 1 : high - start + 1] = mask[low:high]
    for away, factor in ((1, 2), (width, 4), (height * width, 16)):
        run = torch.add(run[:-away], run[away:], alpha=factor)  # no bit leaves its byte
    return run
