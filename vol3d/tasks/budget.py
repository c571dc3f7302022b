"""What a plan is made for: a CPU or a GPU, its memory, and what a training step takes of that, by trial."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from vol3d.config.tree import Config
from vol3d.errors import UsageError
from vol3d.tasks.assemble import multiple_of, network_of
from vol3d.tasks.forward import native_precision
from vol3d.training.memory import StepMemory, step_memory, trial_patch
from vol3d.training.precision import takes_bfloat16

Kind = Literal["cpu", "cuda"]

MEMORY_GB = 8.0
"""What a GPU's plan is made for unless told: nnU-Net's budget, too. Larger patches cost time in proportion."""
USED = 0.85
"""The part of it that is planned with; the rest is for gaps between tensors and what convolutions work in."""


@dataclass(frozen=True)
class Budget:
    """What a plan is made for: a CPU or a GPU, and the memory of a step in GB (10^9 bytes).

    told says that the user named it: then patches grow into it. None: time, not memory, is what is short.
    """

    kind: Kind
    memory_gb: float | None = None
    told: bool = False

    @classmethod
    def of(cls, device: torch.device, memory_gb: float | None = None, *, kind: Kind | None = None) -> "Budget":
        """That of a device, or of another machine's kind; memory_gb is what the user named.

        Raises:
            UsageError: memory_gb is not positive.
        """
        if memory_gb is not None and not 0 < memory_gb < math.inf:
            raise UsageError(f"--memory-gb: expected gigabytes, more than 0, got {memory_gb}")
        kind = kind or ("cuda" if device.type == "cuda" else "cpu")
        if memory_gb is None and kind == "cuda":
            there = torch.cuda.get_device_properties(device).total_memory / 1e9 if device.type == "cuda" else math.inf
            return cls(kind, min(MEMORY_GB, there))
        return cls(kind, memory_gb, told=memory_gb is not None)

    @property
    def limit_gb(self) -> float:
        """What a step may take."""
        return math.inf if self.memory_gb is None else USED * self.memory_gb

    def __str__(self) -> str:
        where = "a GPU" if self.kind == "cuda" else "a CPU"
        return where if self.memory_gb is None else f"{where} with {self.memory_gb:.3g} GB"


def trials(kind: Kind, device: torch.device) -> Callable[[Config], StepMemory]:
    """The function that tries how much memory a configuration's training step takes; each network once."""
    known: dict[str, StepMemory] = {}

    def memory_of(config: Config) -> StepMemory:
        patch = config.sampling.patch
        assert patch != "auto"
        precision = "bfloat16" if kind == "cuda" else native_precision(device)
        if not takes_bfloat16(patch, torch.device(kind)):
            precision = "float32"
        small = trial_patch(patch, multiple_of(config.network), device)
        key = repr((config.network, precision, small))
        if key not in known:
            with torch.random.fork_rng(devices=[]):
                network = network_of(config)
                known[key] = step_memory(network, config.data.inputs, small, precision=precision, device=device)
        return known[key]

    return memory_of
