"""What steps look at, on a device: what fits there, and how it comes there."""

import sys
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch

from vol3d.geometry.grid import planes_in, slabs
from vol3d.postprocess.scene import Needs, StoredScene
from vol3d.postprocess.tensor_store import TensorStore, on_host
from vol3d.volume.source import VolumeSource

MOST_VOXELS = 2**31 - 1  # that a place in int32 tells apart
WORK_BYTES = 24  # per voxel of a part: its labels, and what is made beside them
COPIED_VOXELS = 1 << 25


def scene_on_host(scene: StoredScene) -> StoredScene:
    """The scene read as arrays."""
    return replace(scene, **{field.name: on_host(getattr(scene, field.name)) for field in fields(Needs)})


def on_device(scene: StoredScene, wanted: Needs, device: torch.device) -> StoredScene:
    """The scene with copies on a device of what is wanted of it, as far as there is room; all else as it is."""
    copies: dict[str, Any] = {}
    for name, channels in (("organ", 1), ("image", 1), ("probability", len(scene.regions))):
        source = getattr(scene, name)
        if source is not None and getattr(wanted, name) and not isinstance(source, TensorStore):
            try:
                copies[name] = _copied(source, channels, device)
            except torch.OutOfMemoryError:
                continue
    return replace(scene, **copies)


def lies_there(scene: StoredScene, wanted: Needs) -> bool:
    """Whether all that is wanted of a scene lies on a device."""
    return all(isinstance(getattr(scene, f.name), TensorStore) for f in fields(wanted) if getattr(wanted, f.name))


def free_bytes(device: torch.device) -> int:
    """What a GPU has left, with what torch keeps there for itself; without end for the computer's own memory."""
    if device.type != "cuda":
        return sys.maxsize
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def has_room(device: torch.device, size: int) -> bool:
    """Whether steps are to run on a device, with so many bytes kept there: a third of a free GPU at most."""
    return device.type == "cuda" and size <= free_bytes(device) // 3


def part_voxels(device: torch.device) -> int:
    """How many voxels of a region are worked on at once on a device."""
    return min(MOST_VOXELS, free_bytes(device) // WORK_BYTES)


def _copied(source: VolumeSource, channels: int, device: torch.device) -> TensorStore:
    """The first channels of a source.

    Raises:
        torch.OutOfMemoryError: they would leave the device no room to work in.
    """
    # Whole numbers are compared with other numbers in float64: NumPy's rule, and not torch's.
    kind = source.dtype.newbyteorder("=") if source.dtype.kind in "bf" else np.dtype(np.float64)
    shape = source.shape
    if kind.itemsize * channels * shape.voxels > free_bytes(device) // 2:
        raise torch.OutOfMemoryError(f"no room for {channels} volumes of {tuple(shape)} on {device}")
    empty = torch.from_numpy(np.empty(0, dtype=kind))
    tensor = torch.empty((channels, *shape), dtype=empty.dtype, device=device)
    for box in slabs(shape, planes_in(shape, COPIED_VOXELS)):
        tensor[(slice(None), *box.slices)] = torch.from_numpy(source.read(box)[:channels].astype(kind)).to(device)
    return TensorStore(tensor, source.affine)
