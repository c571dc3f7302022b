"""Which precision trains fastest here, by trying."""

import copy
import time

import torch
from torch import Tensor, nn
from torch.optim import SGD

from vol3d.training.schedule import Precision


def seconds_per_step(network: nn.Module, batch: Tensor, precision: Precision, *, repeats: int = 2) -> float:
    """The fastest of some forward and backward passes of a copy of the network, after one to warm up."""
    trial = copy.deepcopy(network).train()
    optimiser = SGD(trial.parameters(), lr=0.0)
    best = float("inf")
    for repeat in range(repeats + 1):
        start = time.perf_counter()
        with torch.autocast(batch.device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            outputs = trial(batch)
        loss = torch.stack([o.float().square().mean() for o in (outputs if isinstance(outputs, list) else [outputs])])
        loss.sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if batch.device.type == "cuda":
            torch.cuda.synchronize(batch.device)
        if repeat > 0:
            best = min(best, time.perf_counter() - start)
    return best


def fastest_precision(network: nn.Module, batch: Tensor) -> tuple[Precision, dict[str, float]]:
    """The faster of float32 and bfloat16 for training this network on this batch, and the seconds of each."""
    choices: tuple[Precision, ...] = ("float32", "bfloat16")
    seconds: dict[str, float] = {choice: seconds_per_step(network, batch, choice) for choice in choices}
    return ("bfloat16" if seconds["bfloat16"] < seconds["float32"] else "float32"), seconds
