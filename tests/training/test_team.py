"""The law of a team: its processes stay equal, and learn what one process with all samples would learn."""

import copy
import functools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vol3d.errors import DivergedError
from vol3d.network.stages import unet_settings_for
from vol3d.network.unet import UNet
from vol3d.shapes import Shape3, Spacing
from vol3d.training.course import Part
from vol3d.training.losses import LossSettings, segmentation_loss
from vol3d.training.reference import Reference
from vol3d.training.schedule import TrainingSettings
from vol3d.training.team import ALONE, Team
from vol3d.training.trainer import Event, PatchBatch, Trainer

SHAPE = Shape3(8, 16, 8)
SETTINGS = TrainingSettings(
    epochs=1, steps_per_epoch=3, optimiser="sgd", learning_rate=0.01, warm_up=0.0, precision="float32"
)
LOSS = LossSettings(terms={"dice": 1.0, "cross_entropy": 1.0, "top_k_cross_entropy": 0.5}, balance=True)
SPACING = Spacing(0.8, 1.0, 3.0)


class Exchange:
    """What threads hand each other, one after the other."""

    def __init__(self, size: int) -> None:
        self.barrier, self.values = threading.Barrier(size, timeout=20), [None] * size

    def __call__(self, rank: int, value: Any) -> list[Any]:
        self.values[rank] = value
        self.barrier.wait()
        found = list(self.values)
        self.barrier.wait()
        return found


@dataclass(frozen=True)
class ThreadTeam(Team):
    """A team of threads: as quick as a test should be."""

    exchange: Exchange = Exchange(1)  # noqa: RUF009

    def all_of(self, value: Any) -> list[Any]:
        return self.exchange(self.rank, value)

    def of_first(self, value: Any) -> Any:
        return self.all_of(value)[0]

    def parts(self, own: Tensor) -> list[Tensor]:
        return self.all_of(own.detach().clone())

    def add_up(self, tensor: Tensor) -> None:
        tensor.copy_(torch.stack(self.parts(tensor)).sum(0))

    def equalise(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            tensor.detach().copy_(self.parts(tensor)[0])


def sample(number: int) -> tuple[Tensor, Tensor]:
    """One sample, whose foreground is large or small: means over processes would differ from means over all."""
    images = torch.randn((1, 1, *SHAPE), generator=torch.Generator().manual_seed(number))
    labels = (images > (-0.5 if number % 2 else 2.0)).to(torch.uint8)
    labels[:, :, : number % 5] = 255  # not known
    return images, labels


def batch_of(numbers: Sequence[int]) -> PatchBatch:
    samples = [sample(n) for n in numbers]
    names = tuple(f"case_{n}" for n in numbers)
    return PatchBatch(torch.cat([s[0] for s in samples]), torch.cat([s[1] for s in samples]), names)


def loss(outputs: Sequence[Tensor], labels: Tensor, progress: float) -> Tensor:
    reference = Reference(labels == 1, "sigmoid", valid=labels != 255, spacing=SPACING)
    return segmentation_loss(outputs, reference, settings=LOSS, progress=progress)


@functools.cache
def fresh() -> nn.Module:
    """A network with deep supervision; made once, as threads share torch's chance."""
    torch.manual_seed(7)
    return UNet(unet_settings_for(SHAPE, SPACING, encoder="plain", base_features=4), 1, 1)


def trained(
    team: Team,
    share: Callable[[int], Sequence[int]],
    settings: TrainingSettings = SETTINGS,
    spoilt: Callable[[int], bool] = lambda number: False,
) -> tuple[Trainer, list[Event]]:
    network = copy.deepcopy(fresh())

    def batches(first: int, part: Part) -> Iterator[PatchBatch]:
        for step in range(first, part.first + part.steps):
            made = batch_of(share(step))
            yield replace(made, images=made.images * (math.nan if any(map(spoilt, share(step))) else 1.0))

    trainer = Trainer(
        network, loss, batches, settings=settings, precision="float32", device=torch.device("cpu"), team=team
    )
    events: list[Event] = []
    trainer.run(validate=lambda network: {"dice": 0.5}, on_event=events.append)
    return trainer, events


def of_two(step: int, team: Team) -> Sequence[int]:
    """A process's two samples of the four of a step."""
    return [4 * step + 2 * team.rank, 4 * step + 2 * team.rank + 1]


def together(**options: Any) -> list[tuple[Trainer, list[Event]]]:
    exchange = Exchange(2)
    fresh()

    def one(rank: int) -> tuple[Trainer, list[Event]]:
        team = ThreadTeam(rank, 2, exchange)
        return trained(team, lambda step: of_two(step, team), **options)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, range(2)))


@torch.no_grad()
def far(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def test_two_learn_what_one_with_all_samples_learns() -> None:
    alone, _ = trained(ALONE, lambda step: range(4 * step, 4 * step + 4))
    (one, _), (other, _) = together()
    assert far(alone.network, fresh()) > 1e-3
    assert far(one.network, other.network) == far(one.averaged, other.averaged) == 0
    assert far(one.network, alone.network) < 1e-5
    assert far(one.averaged, alone.averaged) < 1e-5


def test_all_leave_out_the_step_that_one_cannot_learn_from() -> None:
    (one, _), (other, _) = together(spoilt=lambda number: number == 7)
    assert one.skipped_steps == other.skipped_steps == 1
    assert far(one.network, other.network) == 0
    assert all(torch.isfinite(p).all() for p in one.network.parameters())


def test_what_cannot_be_learned_from_at_all_names_the_cases_of_all() -> None:
    long = replace(SETTINGS, epochs=4)
    with pytest.raises(DivergedError, match=r"case_17, .*case_19"):
        together(settings=long, spoilt=lambda number: number % 4 == 3)


def test_a_time_limit_ends_all_at_the_same_step() -> None:
    limited = replace(SETTINGS, epochs=10**6, max_minutes=0.3 / 60)
    (one, first), (other, second) = together(settings=limited)
    assert one.step == other.step and one.seconds == other.seconds
    assert [(e.kind, e.step) for e in first] == [(e.kind, e.step) for e in second]
    assert far(one.network, other.network) == 0


def test_shares_are_collected_in_order() -> None:
    exchange = Exchange(3)
    values = list("abcdefg")

    def one(rank: int) -> list[str]:
        team = ThreadTeam(rank, 3, exchange)
        return team.collected([value.upper() for value in team.share(values)])

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(one, range(3))) == [list("ABCDEFG")] * 3


def _process(rank: int, store: str, out: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    team = Team(rank, 2)
    trainer, _ = trained(team, lambda step: of_two(step, team))
    assert team.all_of(rank) == [0, 1] and team.of_first(f"said by {rank}") == "said by 0"
    torch.save(trainer.network.state_dict(), f"{out}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_learn_what_one_with_all_samples_learns(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_process, (str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    alone, _ = trained(ALONE, lambda step: range(4 * step, 4 * step + 4))
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, value in alone.network.state_dict().items():
        assert torch.equal(one[name], other[name])
        assert (one[name] - value).abs().max() < 1e-5
