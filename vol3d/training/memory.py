"""How much memory a training step takes: measured on a small patch, for patches of any size.

What a step keeps for its backward pass grows with the voxels of its batch; weights, gradients and the optimiser's
state do not. On a GPU the peak of two whole steps is measured, elsewhere what two forward passes keep is
counted, to which the backward pass adds the gradients of its largest layer.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy

from vol3d.shapes import Shape3
from vol3d.training.losses import resolutions
from vol3d.training.schedule import Precision

GB = 1e9
COPIES = 5
"""Weights, gradients, the averaged weights, and what AdamW keeps."""
CUDA_CONTEXT = 0.6 * GB
"""What CUDA takes before anything is computed, which torch does not count."""
AUGMENTATION = 128
"""Bytes per voxel of a patch for cubes, made ahead and larger than it, and the grid on which they are turned."""


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a training step: fixed, and per voxel of all patches of a batch together."""

    fixed: float
    per_voxel: float

    def gigabytes(self, voxels: int) -> float:
        """10^9 bytes for a batch of so many voxels."""
        return (self.fixed + self.per_voxel * voxels) / GB

    def voxels(self, gigabytes: float) -> int:
        """How many voxels a batch may have in so much memory; 0 where not even the network fits."""
        return max(0, int((gigabytes * GB - self.fixed) / self.per_voxel))


def step_memory(
    network: nn.Module, channels: int, patch: Shape3, *, precision: Precision, device: torch.device
) -> StepMemory:
    """That of a network which sees so many channels, from a trial on batches of one and two small patches."""
    trial = copy.deepcopy(network).to(device).train()
    measure = _peak if device.type == "cuda" else _kept
    one, two = (measure(trial, torch.rand((count, channels, *patch), device=device), precision) for count in (1, 2))
    per_voxel = max(1.0, (two - one) / patch.voxels)
    fixed = one - per_voxel * patch.voxels
    if device.type != "cuda":
        fixed += COPIES * sum(p.nbytes for p in trial.parameters())
    return StepMemory(max(0.0, fixed) + CUDA_CONTEXT, per_voxel + AUGMENTATION)


def _peak(network: nn.Module, batch: Tensor, precision: Precision) -> float:
    """The most that torch allocates on a GPU in a step of training; the second one has the optimiser's state."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.0)
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats(batch.device)
        _loss(network, batch, precision).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    averaged = sum(p.nbytes for p in network.parameters())
    return float(torch.cuda.max_memory_allocated(batch.device) + averaged)


def _kept(network: nn.Module, batch: Tensor, precision: Precision) -> float:
    """What a forward pass keeps for the backward pass, weights apart, and two gradients of its largest part."""
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}

    def keep(tensor: Tensor) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # kept alive, so that no other takes its address, but not its own graph

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = _loss(network, batch, precision)
    total = float(sum(kept.values()) + 2 * max(kept.values(), default=0))
    del loss
    return total


def _loss(network: nn.Module, batch: Tensor, precision: Precision) -> Tensor:
    """Dice and cross-entropy at every resolution, as a training has them."""
    batch = batch.contiguous(memory_format=torch.channels_last_3d)
    with torch.autocast(batch.device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        outputs = resolutions(network(batch))
    return torch.stack([_dice_and_cross_entropy(logits.float()) for logits in outputs]).sum()


def _dice_and_cross_entropy(logits: Tensor) -> Tensor:
    probability = logits.softmax(dim=1)
    target = torch.zeros_like(probability, dtype=torch.bool)
    target[:, 0] = True
    axes = (0, 2, 3, 4)
    dice = (probability * target).sum(axes) / (probability.sum(axes) + target.sum(axes))
    return cross_entropy(logits, target.float()) - dice.mean()


def trial_patch(patch: Sequence[int], multiple: Sequence[int], device: torch.device) -> Shape3:
    """A small patch that the network can take, of two voxels or more at its lowest resolution.

    On a GPU it is larger, lest what convolutions work in drown what is kept.
    """
    least = 1 << 17 if device.type == "cuda" else 2 * math.prod(multiple)
    edges = [min(edge, m if m > 1 else 8) for edge, m in zip(patch, multiple, strict=True)]
    while math.prod(edges) < least and any(edge < whole for edge, whole in zip(edges, patch, strict=True)):
        axis = min((a for a in range(3) if edges[a] < patch[a]), key=lambda a: edges[a])
        edges[axis] += multiple[axis] if multiple[axis] > 1 else min(8, patch[axis] - edges[axis])
    return Shape3(*edges)
