"""What steps look at and rewrite, on a GPU where it has the room, else in memory or in scratch files."""

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vol3d.geometry.box import Box
from vol3d.postprocess.tensor_store import TensorStore
from vol3d.postprocess.tensors import has_room
from vol3d.postprocess.threshold import decoded
from vol3d.tasks.storage import Storage
from vol3d.volume.labels import LabelSchema
from vol3d.volume.source import VolumeStore


@dataclass(frozen=True)
class Kept:
    """A volume's masks, a channel per region, and its probability where a step needs it."""

    masks: VolumeStore
    probability: VolumeStore | None

    @classmethod
    def of(cls, regions: int, storage: Storage, kind: np.dtype[Any] | None, device: torch.device) -> "Kept":
        """On the device where it has room for them, else in the storage; of kind is the probability, None for none."""
        shape = (regions, *storage.shape)
        if has_room(device, bytes_each(kind) * math.prod(shape)):
            with suppress(torch.OutOfMemoryError):
                masks = TensorStore(torch.zeros(shape, dtype=torch.bool, device=device), storage.affine)
                if kind is None:
                    return cls(masks, None)
                p = torch.zeros(shape, dtype=torch.from_numpy(np.empty(0, dtype=kind)).dtype, device=device)
                return cls(masks, TensorStore(p, storage.affine))
        return cls(storage.zeros(regions, np.bool_), None if kind is None else storage.zeros(regions, kind))

    def put(self, box: Box, masks: Tensor, probability: Tensor) -> None:
        """Write a box of both, (R, z, y, x) each."""
        for store, voxels in ((self.masks, masks), (self.probability, probability)):
            if isinstance(store, TensorStore):
                store.write(box, voxels)
            elif store is not None:
                store.write(box, voxels.cpu().numpy())

    def labels(self, box: Box, schema: LabelSchema) -> NDArray[np.uint8]:
        """Label values (1, z, y, x)."""
        masks = self.masks.read(box)
        if isinstance(masks, np.ndarray):
            return schema.decode(masks)[None]
        return decoded(masks, schema.written)[None].cpu().numpy()


def bytes_each(kind: np.dtype[Any] | None) -> int:
    """What is kept of a voxel of a region: its mask, and its probability of a kind."""
    return 1 + (0 if kind is None else kind.itemsize)
