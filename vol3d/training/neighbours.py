"""Masks grown by a voxel's six neighbours, on their device."""

from torch import Tensor


def dilated(mask: Tensor) -> Tensor:
    """The voxels of (B, R, Z, Y, X) bool that are true or have a true one among their six neighbours."""
    grown = mask.clone()
    for axis in (2, 3, 4):
        edge = mask.shape[axis] - 1
        for start, there in ((0, 1), (1, 0)):
            part = grown.narrow(axis, start, edge)
            part |= mask.narrow(axis, there, edge)
    return grown
