"""A training that torchrun began in several processes: who is in the team, on which device, and whether it goes on.

torchrun says what it has to say in environment variables. Small things and a CPU's tensors go by gloo, a GPU's by NCCL.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

import torch

from vol3d.config.tree import Config
from vol3d.errors import ResourceError, UsageError, Vol3dError
from vol3d.tasks.assemble import choose_device
from vol3d.training.team import ALONE, Team

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

Value = TypeVar("Value")
_POLL_SECONDS = 0.05
_PATIENCE = timedelta(days=7)  # others wait while one measures the data set; who is lost is told by torchrun


@dataclass(frozen=True)
class Launch:
    """The team, this process's number on its machine, and whether torchrun began again after one of it was lost."""

    team: Team = ALONE
    local_rank: int = 0
    again: bool = False

    def device(self, name: str) -> torch.device:
        """The device to train on: of GPUs each process has its own.

        Raises:
            UsageError: it is not there, or one GPU is named for several processes.
        """
        chosen = choose_device(name)
        if self.team.size == 1 or chosen.type == "cpu":
            return chosen
        if chosen.index is not None:
            raise UsageError(f"--device {name}: torchrun gives every process a GPU of its own; say cuda")
        device = choose_device(f"cuda:{self.local_rank}")
        torch.cuda.set_device(device)
        return device

    def same(self, seen: Value) -> Value:
        """What every process sees in the run's folder, before any of them writes to it.

        Raises:
            UsageError: they see different things.
        """
        if any(other != seen for other in self.team.all_of(seen)):
            raise UsageError("the processes see different files in --out: it must be one folder for all machines")
        return seen

    def agreed(self, decide: Callable[[], Value]) -> Value:
        """What the first process decides, for all of them; its error is that of all."""
        value, refused = self.team.of_first(_tried(decide) if self.team.first else (None, None))
        if refused is not None:
            raise refused
        return value  # type: ignore[return-value]

    def shared(self, config: Config, *, grows: bool = False) -> Config:
        """The configuration, with batches that can be dealt out evenly; the planned one grows to be such.

        Raises:
            UsageError: it is no multiple of the number of processes.
        """
        size, sampling = self.team.size, config.sampling
        assert sampling.batch != "auto"
        if grows:
            sampling = replace(sampling, batch=-(-sampling.batch // size) * size)
        given = {"sampling.batch": sampling.batch}
        given |= {f"training.stages[{n}].batch": s.batch or size for n, s in enumerate(config.training.stages)}
        for name, batch in given.items():
            if batch == "auto" or batch % size:
                raise UsageError(
                    f"{name} is {batch}, of which {size} processes cannot have equal shares; give a multiple of {size}"
                )
        return replace(config, sampling=sampling)


BY_ITSELF = Launch()


def _tried(decide: Callable[[], Value]) -> tuple[Value | None, Vol3dError | None]:
    try:
        return decide(), None
    except Vol3dError as error:
        return None, error


@contextmanager
def launched() -> Iterator[Launch]:
    """Join the processes that torchrun began while the block runs; without torchrun there is but one.

    Raises:
        ResourceError: another process was lost on the way.
    """
    size = int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1
    if size == 1:
        yield BY_ITSELF
        return
    from torch import distributed
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, rank, _ = next(rendezvous("env://", timeout=_PATIENCE))
    again = rank == 0 and store.check(["call"])
    store = PrefixStore(_session(store, rank, size), store)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    try:
        team = Team(rank, size)
        yield Launch(team, int(os.environ["LOCAL_RANK"]), team.of_first(again))
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or "gloo" in str(error) or "onnection" in str(error):
            told = "another process of this training was lost; what it or torchrun says of it tells why"
            raise ResourceError(told) from error
        raise
    finally:
        distributed.destroy_process_group()


def _session(store: "Store", rank: int, size: int) -> str:
    """A name for this attempt that all its processes agree on.

    torchrun keeps one store for all attempts (torch 2.13), in which the addresses of lost processes would be found, and
    on several machines nothing that it says counts attempts alike. So everyone says a word of its own, the first
    calls the words that it heard together with its own, and who hears its word answers.
    """
    word, others = uuid4().hex, range(1, size)
    if rank:
        store.set(f"here/{rank}", word)
        while True:
            first, *heard = store.get("call").decode().split()
            if heard[rank - 1] == word:
                store.set(f"answer/{rank}", first)
                return first
            time.sleep(_POLL_SECONDS)
    while True:
        heard = [store.get(f"here/{other}").decode() for other in others]
        store.set("call", " ".join([word, *heard]))
        answers = [f"answer/{other}" for other in others]
        if all(store.check([answer]) and store.get(answer).decode() == word for answer in answers):
            return word
        time.sleep(_POLL_SECONDS)
