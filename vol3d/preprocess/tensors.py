"""From a source's arrays to tensors on a device."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vol3d.geometry.box import Box
from vol3d.volume.source import VolumeSource


@runtime_checkable
class TensorSource(Protocol):
    """A view that can be computed on a device: what it reads travels as it is stored, and is changed there."""

    def tensor(self, box: Box, device: torch.device) -> Tensor:
        """What read gives, (C, Z, Y, X) float32, computed on the device."""
        ...


def read_tensor(source: VolumeSource, box: Box, device: torch.device) -> Tensor:
    """The box's voxels, (C, Z, Y, X) float32, on the device."""
    if isinstance(source, TensorSource):
        return source.tensor(box, device)
    return upload(source.read(box), device)


def upload(voxels: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a float32 tensor on the device; integers of 8 and 16 bits become floats there, not on the way."""
    if voxels.dtype.kind not in "iu" or voxels.dtype.itemsize > 2:
        voxels = voxels.astype(np.float32, copy=False)
    tensor = torch.from_numpy(np.require(voxels, dtype=voxels.dtype.newbyteorder("="), requirements=["C", "W"]))
    if device.type == "cuda":
        tensor = tensor.pin_memory().to(device, non_blocking=True)
    return tensor.float()
