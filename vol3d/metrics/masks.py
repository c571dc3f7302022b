"""What a metric is given: two bool masks of one shape, as NumPy arrays or torch tensors, wherever those live."""

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vol3d.regions.library import as_numpy

if TYPE_CHECKING:
    from torch import Tensor

Mask = NDArray[np.bool_]
AnyMask: TypeAlias = "Mask | Tensor"


def two_masks(prediction: AnyMask, reference: AnyMask) -> tuple[Any, Any]:
    """Both as arrays, which share the memory of tensors of the CPU; or both as tensors of one other device.

    Raises:
        ValueError: the shapes differ, a mask is not bool, or they are on two devices.
    """
    shapes = [tuple(mask.shape) for mask in (prediction, reference)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"expected masks of one shape, got {shapes[0]} and {shapes[1]}")
    for name, mask in (("prediction", prediction), ("reference", reference)):
        if str(mask.dtype).removeprefix("torch.") != "bool":
            raise ValueError(f"expected a bool {name}, got {mask.dtype}: compare labels with a value first")
    devices = ["cpu" if isinstance(mask, np.ndarray) else str(mask.device) for mask in (prediction, reference)]
    if devices[0] != devices[1]:
        raise ValueError(f"expected masks on one device, got {devices[0]} and {devices[1]}")
    return (as_numpy(prediction), as_numpy(reference)) if devices[0] == "cpu" else (prediction, reference)


def two_arrays(prediction: AnyMask, reference: AnyMask) -> tuple[Mask, Mask]:
    """Both as arrays, brought to the CPU from wherever they are.

    Raises:
        ValueError: the shapes differ, a mask is not bool, or they are on two devices.
    """
    one, other = two_masks(prediction, reference)
    return as_numpy(one), as_numpy(other)
