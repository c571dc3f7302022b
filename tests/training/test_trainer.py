"""Training law: n steps, save, load, n more steps are 2n steps, bit for bit; and it ends, stops, refuses NaN."""

import copy
import io
import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from vol3d.errors import DivergedError
from vol3d.training.checkpoints import BestK
from vol3d.training.precision import fastest_precision
from vol3d.training.schedule import TrainingSettings, learning_rate, make_optimiser
from vol3d.training.trainer import Event, PatchBatch, Trainer

SETTINGS = TrainingSettings(epochs=4, steps_per_epoch=3, validate_every=2, validation_share=1.0, precision="float32")


def network() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.InstanceNorm3d(4, affine=True), nn.Dropout(0.2), nn.Conv3d(4, 1, 1)
    )


def batches(first: int) -> Iterator[PatchBatch]:
    for step in range(first, 1000):
        images = torch.randn((2, 1, 6, 5, 4), generator=torch.Generator().manual_seed(step))
        yield PatchBatch(images, (images[:, 0] > 0.5).to(torch.uint8), (f"case_{step}",))


def loss(outputs: list[Tensor], labels: Tensor, _: float) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(outputs[0][:, 0], labels.float())


def trainer(settings: TrainingSettings = SETTINGS, **changed: object) -> Trainer:
    parts = {"loss": loss, "batches": batches, **changed}
    return Trainer(
        network(), parts["loss"], parts["batches"], settings=settings, precision="float32", device=torch.device("cpu")
    )


def run(t: Trainer, stop_at: int | None = None) -> list[Event]:
    events: list[Event] = []
    validate = lambda n: {"dice": float(next(iter(n.parameters())).sum())}  # noqa: E731
    t.run(validate=validate, on_event=events.append, stop_asked=lambda: t.step == stop_at)
    return events


@pytest.mark.parametrize("stop_at", [1, 3, 7])
def test_a_resumed_training_ends_with_the_same_bits(stop_at: int) -> None:
    whole = trainer()
    run(whole)
    first = trainer()
    assert run(first, stop_at)[-1].kind == "stop"
    stored = io.BytesIO()
    torch.save(first.state(), stored)
    stored.seek(0)
    torch.manual_seed(99)  # chance of its own must not leak into the rest
    second = trainer()
    second.load_state(torch.load(stored, weights_only=True))
    run(second)
    assert second.step == whole.step == 12
    for ours, theirs in ((second.network, whole.network), (second.averaged, whole.averaged)):
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_events_tell_epochs_and_validations_of_the_averaged_weights() -> None:
    t = trainer()
    events = run(t)
    assert [(e.kind, e.step) for e in events if e.kind == "epoch"] == [("epoch", 3 * n) for n in (1, 2, 3, 4)]
    assert [e.step for e in events if e.kind == "validation"] == [6, 12]
    last = [e for e in events if e.kind == "validation"][-1]
    assert last.values["dice"] == float(next(iter(t.averaged.parameters())).sum())
    assert run(t) == []


def test_learning_reduces_the_loss() -> None:
    settings = TrainingSettings(epochs=20, steps_per_epoch=10, learning_rate=0.02)
    losses = [e.values["loss"] for e in run(trainer(settings)) if e.kind == "epoch"]
    assert losses[-1] < 0.7 * losses[0]


def test_three_steps_without_a_finite_loss_are_the_end_and_name_the_case() -> None:
    def poisoned(first: int) -> Iterator[PatchBatch]:
        for step, batch in enumerate(batches(first)):
            yield PatchBatch(batch.images * (math.nan if step in (1, 4, 5, 6) else 1), batch.labels, batch.cases)

    t = trainer(batches=poisoned)
    with pytest.raises(DivergedError, match="case_6"):
        run(t)
    assert t.skipped_steps == 4
    assert all(torch.isfinite(p).all() for p in t.network.parameters())


def test_the_time_budget_ends_the_training() -> None:
    t = trainer(TrainingSettings(epochs=10**6, max_minutes=0.5 / 60))
    run(t)
    assert t.progress == 1.0 and 0.5 <= t.seconds < 5


def test_validation_keeps_its_share_of_the_time() -> None:
    import time

    t = trainer(TrainingSettings(epochs=40, steps_per_epoch=1, validate_every=1, validation_share=0.2))
    events: list[Event] = []
    t.run(validate=lambda n: {"dice": time.sleep(0.02) or 0.5}, on_event=events.append)
    count = sum(e.kind == "validation" for e in events)
    assert 2 <= count < 40


@pytest.mark.parametrize("schedule", ["cosine", "poly"])
def test_the_rate_rises_then_falls_to_zero(schedule: str) -> None:
    settings = TrainingSettings(schedule=schedule, learning_rate=0.1, warm_up=0.1)
    rates = [learning_rate(settings, p / 100) for p in range(101)]
    assert rates[10] == max(rates) == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0.0, abs=1e-12) and 0 < rates[0] < 0.01
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_norms_and_biases_are_not_decayed() -> None:
    groups = make_optimiser(network(), SETTINGS).param_groups
    assert [g["weight_decay"] for g in groups] == [SETTINGS.weight_decay, 0.0]
    assert {p.ndim for p in groups[0]["params"]} == {5} and {p.ndim for p in groups[1]["params"]} == {1}


@pytest.mark.parametrize(
    "bad", [{"epochs": 0}, {"learning_rate": 0.0}, {"max_minutes": 0.0}, {"ema": 1.0}, {"keep_best": 0}]
)
def test_impossible_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        TrainingSettings(**bad)


def test_the_best_are_kept_in_order() -> None:
    best = BestK(2)
    for step, score in ((1, 0.5), (2, 0.7), (3, 0.7), (4, 0.1)):
        best = best.offered(step, score)
    assert [k.step for k in best.kept] == [2, 3]
    assert best.best is not None and best.best.score == 0.7


def test_trying_precisions_leaves_the_network_alone() -> None:
    net = network()
    before = copy.deepcopy(net.state_dict())
    choice, seconds = fastest_precision(net, torch.zeros(1, 1, 6, 5, 4))
    assert choice in seconds and min(seconds, key=lambda k: seconds[k]) == choice
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
