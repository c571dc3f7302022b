"""Which precision trains fastest here, by trying."""

import copy
import time

import torch
from torch import Tensor, nn
from torch.optim import SGD

from vol3d.shapes import Shape3
from vol3d.training.losses import resolutions
from vol3d.training.schedule import Precision

BFLOAT16_PLANE = 64 * 64
"""Voxels of a patch's plane (y, x) up to which bfloat16 is learned in on a CPU.

In torch 2.13 the backward pass of a convolution writes beyond its memory there where planes are larger and
few: seen from 80 x 80 on in patches of 1 to 12 planes, with kernels of one and of three. Its forward pass does not.
"""


def takes_bfloat16(patch: Shape3, device: torch.device) -> bool:
    """Whether patches of this shape can be learned from in bfloat16."""
    return device.type != "cpu" or patch.y * patch.x <= BFLOAT16_PLANE


def seconds_per_step(network: nn.Module, batch: Tensor, precision: Precision, *, repeats: int = 2) -> float:
    """The fastest of some forward and backward passes of a copy of the network, after one to warm up."""
    trial = copy.deepcopy(network).train()
    optimiser = SGD(trial.parameters(), lr=0.0)
    best = float("inf")
    for repeat in range(repeats + 1):
        start = time.perf_counter()
        with torch.autocast(batch.device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            outputs = trial(batch)
        loss = torch.stack([o.float().square().mean() for o in resolutions(outputs)])
        loss.sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if batch.device.type == "cuda":
            torch.cuda.synchronize(batch.device)
        if repeat > 0:
            best = min(best, time.perf_counter() - start)
    return best


def fastest_precision(network: nn.Module, batch: Tensor) -> tuple[Precision, dict[str, float]]:
    """The faster of float32 and bfloat16 for training this network on this batch, and the seconds of each.

    A CPU is tried on one sample and reckoned up: it takes them one by one, and whoever waits should not wait for more.
    """
    choices: tuple[Precision, ...] = ("float32", "bfloat16")
    seconds: dict[str, float]
    if batch.device.type == "cpu":
        seconds = {c: len(batch) * seconds_per_step(network, batch[:1], c, repeats=1) for c in choices}
    else:
        seconds = {c: seconds_per_step(network, batch, c) for c in choices}
    return ("bfloat16" if seconds["bfloat16"] < seconds["float32"] else "float32"), seconds
