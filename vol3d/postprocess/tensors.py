"""Masks, and what steps look at, on a device: what fits there, and the way to and fro."""

import sys
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vol3d.geometry.affine import Affine
from vol3d.geometry.box import Box
from vol3d.geometry.grid import slabs
from vol3d.postprocess.scene import Needs, StoredScene
from vol3d.shapes import Shape3, shape3
from vol3d.volume.source import Access, Says, View, VolumeSource

MOST_VOXELS = 2**31 - 1  # that a place in int32 tells apart
WORK_BYTES = 24  # per voxel of a part: its labels, and what is made beside them
COPIED_VOXELS = 1 << 25


@dataclass(frozen=True, eq=False)
class TensorStore:
    """A (C, Z, Y, X) tensor as a store: tensors are read and written, on its device."""

    tensor: Tensor
    affine: Affine
    header: object = None
    access: Access = "random"
    says: Says = "place"
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.tensor.ndim != 4:
            raise ValueError(f"expected a (C, Z, Y, X) tensor, got shape {tuple(self.tensor.shape)}")

    @property
    def shape(self) -> Shape3:
        """Voxels along z, y, x."""
        return shape3(self.tensor.shape)

    @property
    def channels(self) -> int:
        """Length of the first axis."""
        return len(self.tensor)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type as NumPy knows it."""
        return torch.empty(0, dtype=self.tensor.dtype).numpy().dtype

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.tensor.device

    def read(self, box: Box) -> Any:
        """The box's part of the tensor, without a copy."""
        return self.tensor[(slice(None), *box.slices)]

    def write(self, box: Box, voxels: Any) -> None:
        """Store a (C, Z, Y, X) tensor at the box."""
        self.tensor[(slice(None), *box.slices)] = voxels

    def channel(self, number: int) -> "TensorStore":
        """One channel, over the same tensor."""
        return TensorStore(self.tensor[number : number + 1], self.affine)


@dataclass(frozen=True)
class HostView(View):
    """A TensorStore whose voxels are read into, and written from, the computer's memory."""

    source: TensorStore

    def read(self, box: Box) -> Any:
        """The box as a (C, Z, Y, X) array."""
        return self.source.read(box).cpu().numpy()

    def write(self, box: Box, voxels: Any) -> None:
        """Store a (C, Z, Y, X) array at the box."""
        self.source.write(box, torch.from_numpy(np.ascontiguousarray(voxels)).to(self.source.device))

    def channel(self, number: int) -> "HostView":
        """One channel, over the same tensor."""
        return HostView(self.source.channel(number))


def on_host(source: Any) -> Any:
    """A source, or store, that gives arrays, whatever gives its voxels."""
    return HostView(source) if isinstance(source, TensorStore) else source


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
    for box in slabs(shape, max(1, COPIED_VOXELS // (shape.y * shape.x))):
        tensor[(slice(None), *box.slices)] = torch.from_numpy(source.read(box)[:channels].astype(kind)).to(device)
    return TensorStore(tensor, source.affine)
