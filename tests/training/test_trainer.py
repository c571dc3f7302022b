"""Training law: n steps, save, load, n more steps are 2n steps, bit for bit; and it ends, stops, and gets over NaN."""

import copy
import io
import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from vol3d.errors import DivergedError
from vol3d.training import trainer as loop
from vol3d.training.checkpoints import BestK
from vol3d.training.course import Part
from vol3d.training.precision import fastest_precision
from vol3d.training.schedule import TrainingSettings, make_optimiser
from vol3d.training.trainer import Batches, Event, PatchBatch, Trainer

SETTINGS = TrainingSettings(epochs=4, steps_per_epoch=3, validate_every=2, validation_share=1.0, precision="float32")


def network() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.InstanceNorm3d(4, affine=True), nn.Dropout(0.2), nn.Conv3d(4, 1, 1)
    )


def batches(first: int, _: Part) -> Iterator[PatchBatch]:
    for step in range(first, 1000):
        images = torch.randn((2, 1, 6, 5, 4), generator=torch.Generator().manual_seed(step))
        yield PatchBatch(images, (images[:, 0] > 0.5).to(torch.uint8), (f"case_{step}",))


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


def loss(outputs: list[Tensor], labels: Tensor, _: float = 0.0) -> Tensor:
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


def test_a_resumed_training_decays_as_is_said_now() -> None:
    begun, again = trainer(), trainer(replace(SETTINGS, weight_decay=0.5))
    again.load_state(begun.state())
    assert [group["weight_decay"] for group in again.optimiser.param_groups] == [0.5, 0.0]


def test_a_state_from_before_there_were_stages_goes_on() -> None:
    run(whole := trainer())
    run(first := trainer(), 7)
    kept = ("network", "averaged", "optimiser", "random", "step", "seconds")
    counted = ("validation_seconds", "skipped_steps", "epoch_losses")
    state = {key: value for key, value in first.state().items() if key in (*kept, *counted)}
    second = trainer()
    second.load_state(state)
    run(second)
    assert all(torch.equal(a, b) for a, b in zip(second.network.parameters(), whole.network.parameters(), strict=True))


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


def poisoned(*steps: int) -> Batches:
    """Batches that hold NaN at these steps."""

    def some(first: int, part: Part) -> Iterator[PatchBatch]:
        for step, batch in enumerate(batches(first, part), start=first):
            yield PatchBatch(batch.images * (math.nan if step in steps else 1), batch.labels, batch.cases)

    return some


def test_a_step_without_a_finite_loss_is_left_out_and_counted() -> None:
    t = trainer(batches=poisoned(1, 4, 5))
    events = run(t)
    assert t.skipped_steps == 3 and t.progress == 1.0
    assert [e.values["skipped_steps"] for e in events if e.kind == "epoch"] == [1, 3, 3, 3]
    assert not any(e.kind == "back" for e in events)


def test_three_in_a_row_bring_back_the_weights_of_the_last_epoch_and_halve_the_rate() -> None:
    kept: dict[int, list[Tensor]] = {}
    t = trainer(batches=poisoned(4, 5, 6))

    def on_event(event: Event) -> None:
        kept[event.step] = [p.detach().clone() for p in t.network.parameters()]
        if event.kind == "back":
            assert event.step == 6 and event.values["to"] == 3 and event.cases == ("case_4", "case_5", "case_6")
            assert all(torch.equal(a, b) for a, b in zip(kept[3], t.network.parameters(), strict=True))
        told.append(event)

    told: list[Event] = []
    t.run(validate=None, on_event=on_event)
    usual = [e.values["rate"] for e in run(trainer()) if e.kind == "epoch"]
    ours = [e.values["rate"] for e in told if e.kind == "epoch"]
    assert [e.step for e in told if e.kind == "back"] == [6]
    assert ours == [usual[0], usual[1], usual[2] / 2, usual[3] / 2]


def test_leaving_the_finite_numbers_again_is_the_end_and_names_the_cases() -> None:
    t = trainer(batches=poisoned(1, 2, 3, 7, 8, 9))
    with pytest.raises(DivergedError, match=r"at step 9, .* case_7, case_8, case_9: check"):
        run(t)
    assert t.skipped_steps == 6
    assert all(torch.isfinite(p).all() for p in t.network.parameters())


@pytest.mark.parametrize("every", [2, 10**6])
def test_the_time_budget_holds_the_last_validation_and_saving(monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    monkeypatch.setattr(loop, "time", clock := Clock())

    def timed(first: int, part: Part) -> Iterator[PatchBatch]:
        for batch in batches(first, part):
            clock.now += 1.0
            yield batch

    def validate(_: nn.Module) -> dict[str, float]:
        clock.now += 7.0
        return {"dice": 0.5}

    def on_event(event: Event) -> None:
        clock.now += 2.0 * (event.kind == "epoch")

    settings = TrainingSettings(epochs=10**6, steps_per_epoch=5, max_minutes=1.0, validate_every=every)
    t = trainer(settings, batches=timed)
    t.run(validate=validate, on_event=on_event)
    assert t.progress == 1.0 and t.course.reserve == 9.0
    assert 59.0 <= clock.now <= 61.0


def test_a_validation_that_leaves_no_time_for_more_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "time", clock := Clock())

    def timed(first: int, part: Part) -> Iterator[PatchBatch]:
        for batch in batches(first, part):
            clock.now += 1.0
            yield batch

    def validate(_: nn.Module) -> dict[str, float]:
        clock.now += 20.0
        return {"dice": 0.5}

    t = trainer(TrainingSettings(epochs=9, steps_per_epoch=50, max_minutes=1.0), batches=timed)
    told: list[tuple[str, int, float]] = []
    t.run(validate=validate, on_event=lambda event: told.append((event.kind, event.step, t.progress)))
    assert told == [("validation", 50, 1.0), ("epoch", 50, 1.0)]


def test_validation_keeps_its_share_of_the_time() -> None:
    import time

    t = trainer(TrainingSettings(epochs=40, steps_per_epoch=1, validate_every=1, validation_share=0.2))
    events: list[Event] = []
    t.run(validate=lambda n: {"dice": time.sleep(0.02) or 0.5}, on_event=events.append)
    count = sum(e.kind == "validation" for e in events)
    assert 2 <= count < 40


def test_norms_and_biases_are_not_decayed() -> None:
    groups = make_optimiser(network(), SETTINGS).param_groups
    assert [g["weight_decay"] for g in groups] == [SETTINGS.weight_decay, 0.0]
    assert {p.ndim for p in groups[0]["params"]} == {5} and {p.ndim for p in groups[1]["params"]} == {1}


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
