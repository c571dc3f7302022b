"""Volumes on a device as stores, and the view of them from the computer's memory."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vol3d.geometry.affine import Affine
from vol3d.geometry.box import Box
from vol3d.shapes import Shape3, shape3
from vol3d.volume.source import Access, Says, View


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
