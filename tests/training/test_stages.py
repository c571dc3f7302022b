"""Stages in one run: what each begins with, what rests, and the law of resuming across their borders."""

import io
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from vol3d.errors import UsageError
from vol3d.shapes import Shape3
from vol3d.training.course import Part
from vol3d.training.frozen import freeze, trainable
from vol3d.training.schedule import Stage, TrainingSettings
from vol3d.training.trainer import Event, PatchBatch, Trainer

STAGES = (
    Stage(share=2, schedule="plateau", frozen=("encoder",)),
    Stage(share=3, begin="best", learning_rate=3e-3, schedule="restarts", patch=Shape3(4, 5, 6)),
    Stage(share=1, schedule="constant"),
)
SETTINGS = TrainingSettings(
    epochs=6,
    steps_per_epoch=3,
    learning_rate=0.02,
    plateau_patience=1,
    validate_every=1,
    validation_share=1.0,
    even_average=0.4,
    stages=STAGES,
)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.Dropout(0.2))
        self.head = nn.Conv3d(4, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(image))
        return logits


def batches(first: int, part: Part) -> Iterator[PatchBatch]:
    shape = part.stage.patch or Shape3(6, 5, 4)
    for step in range(first, part.first + part.steps):
        images = torch.randn((2, 1, *shape), generator=torch.Generator().manual_seed(step))
        bad = float("nan") if step in (10, 11, 12) else 1.0  # the weights go back
        yield PatchBatch(images * bad, (images[:, 0] > 0.5).to(torch.uint8), (f"case_{step}",))


def loss(outputs: list[Tensor], labels: Tensor, _: float) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(outputs[0][:, 0], labels.float())


def trainer(settings: TrainingSettings = SETTINGS, network: nn.Module | None = None) -> Trainer:
    torch.manual_seed(7)
    network = network or Network()
    parts = {"encoder": lambda n: list(n.encoder.parameters())}
    return Trainer(
        network, loss, batches, settings=settings, precision="float32", device=torch.device("cpu"), parts=parts
    )


def score(network: nn.Module) -> dict[str, float]:
    """Something that rises and falls."""
    return {"dice": float(torch.sin(1e4 * next(iter(network.parameters())).sum()))}


def run(t: Trainer, stop_at: int | None = None) -> list[Event]:
    events: list[Event] = []
    t.run(validate=score, on_event=events.append, stop_asked=lambda: t.step == stop_at)
    return events


def weights(network: nn.Module) -> list[Tensor]:
    return [value.clone() for value in network.state_dict().values()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def whole() -> tuple[Trainer, list[Event]]:
    t = trainer()
    return t, run(t)


def test_each_stage_is_told_and_the_run_ends_with_the_last(whole: tuple[Trainer, list[Event]]) -> None:
    t, events = whole
    assert t.step == 18 and t.progress == 1.0
    assert [(e.step, e.values["stage"]) for e in events if e.kind == "stage"] == [(6, 1), (15, 2)]
    rates = {e.step: e.values["rate"] for e in events if e.kind == "epoch"}
    assert rates[18] == 0.02 / 2  # constant, and halved since step 12
    assert [e.step for e in events if e.kind == "back"] == [12]


@pytest.mark.parametrize("stop_at", [1, 3, 5, 6, 7, 11, 12, 13, 15, 16, 17])
def test_a_training_resumed_in_any_stage_ends_with_the_same_bits(
    stop_at: int, whole: tuple[Trainer, list[Event]]
) -> None:
    first = trainer()
    begun = run(first, stop_at)
    stored = io.BytesIO()
    torch.save(first.state(), stored)
    stored.seek(0)
    torch.manual_seed(99)
    second = trainer()
    second.load_state(torch.load(stored, weights_only=True))
    rest = run(second)
    for name in ("network", "averaged"):
        assert same(weights(getattr(second, name)), weights(getattr(whole[0], name)))
    told = [(e.kind, e.step) for e in (*begun, *rest) if e.kind != "stop"]
    assert told == [(e.kind, e.step) for e in whole[1]]


def test_a_stage_begins_with_the_best_weights_of_the_one_before_or_with_its_last() -> None:
    best: list[tuple[float, list[Tensor]]] = []
    last: list[Tensor] = []
    t = trainer()

    def on_event(event: Event) -> None:
        nonlocal last
        if event.kind == "validation":
            best.append((event.values["dice"], weights(t.averaged)))
        if event.kind == "stage":
            if t.course.part.stage.begin == "best":
                wanted = max(best, key=lambda one: one[0])[1]
                assert same(weights(t.averaged), wanted) and same(weights(t.network), wanted)
                assert not t.optimiser.state
            else:
                assert same(weights(t.network), last) and t.optimiser.state
            seen.append(event.step)
        if event.kind == "epoch":
            last = weights(t.network)

    seen: list[int] = []
    t.run(validate=score, on_event=on_event)
    assert seen == [6, 15]


def test_what_is_frozen_rests_and_learns_later() -> None:
    t = trainer()
    before = weights(t.network.encoder), weights(t.network.head)
    run(t, stop_at=5)
    assert same(weights(t.network.encoder), before[0]) and not same(weights(t.network.head), before[1])
    assert not t.network.encoder.training and t.network.head.training
    run(t, stop_at=8)
    assert not same(weights(t.network.encoder), before[0]) and t.network.encoder[2].training


def test_what_never_learned_does_not_begin_to() -> None:
    network = Network()
    network.head.bias.requires_grad_(False)
    freeze(network, trainable(network), network.encoder.parameters())
    assert [name for name, p in network.named_parameters() if p.requires_grad] == ["head.weight"]
    freeze(network, [network.head.weight, *network.encoder.parameters()], [])
    assert not network.head.bias.requires_grad and network.encoder[0].weight.requires_grad


def test_a_part_that_the_network_does_not_have_is_told_before_the_first_step() -> None:
    def none(_: nn.Module) -> list[nn.Parameter]:
        raise ValueError("it has no encoder")

    with pytest.raises(UsageError, match="frozen: it has no encoder"):
        Trainer(
            nn.Conv3d(1, 1, 1),
            loss,
            batches,
            settings=TrainingSettings(epochs=2, stages=(Stage(), Stage(frozen=("encoder",)))),
            precision="float32",
            device=torch.device("cpu"),
            parts={"encoder": none},
        )


def test_a_state_that_was_loaded_is_left_as_it_was() -> None:
    first, second = trainer(), trainer()
    run(first, stop_at=4)
    state = first.state()
    moments = [value["exp_avg"].clone() for value in state["optimiser"]["state"].values()]
    second.load_state(state)
    run(second, stop_at=6)
    assert same([value["exp_avg"] for value in state["optimiser"]["state"].values()], moments)


def test_a_step_that_is_left_out_leaves_no_trace_in_running_statistics() -> None:
    t = trainer(TrainingSettings(epochs=4, steps_per_epoch=3))
    run(t, stop_at=10)
    before = [b.clone() for b in t.network.buffers()]
    run(t, stop_at=11)  # the batch of step 10 is NaN
    assert t.skipped_steps == 1 and same(list(t.network.buffers()), before)


def test_without_validations_what_needs_them_is_refused() -> None:
    with pytest.raises(UsageError, match=r"stages\[1\].begin: best needs validations, and no case is held out"):
        trainer().run(validate=None, on_event=lambda event: None)


def test_a_score_that_no_longer_rises_ends_a_stage() -> None:
    settings = TrainingSettings(
        epochs=20, steps_per_epoch=2, validate_every=1, validation_share=1.0, stop_patience=3, stages=(Stage(), Stage())
    )
    t = trainer(settings)
    events: list[Event] = []
    t.run(validate=lambda _: {"dice": 0.5}, on_event=events.append)
    assert [e.step for e in events if e.kind == "stage"] == [8]
    assert t.step == 16 and t.progress == 1.0
    assert len([e for e in events if e.kind == "validation"]) == 8


def test_the_plain_mean_is_that_of_every_step_of_the_last_part() -> None:
    settings = TrainingSettings(epochs=5, steps_per_epoch=2, even_average=0.4, ema=0.5)
    t = trainer(settings)
    seen: list[list[Tensor]] = []
    t.run(
        validate=None,
        on_event=lambda event: None,
        advance=lambda _: seen.append([p.detach().clone() for p in t.network.parameters()]),
    )
    for kept, *last in zip(t.averaged.parameters(), *seen[-4:], strict=True):
        torch.testing.assert_close(kept, torch.stack(last).mean(dim=0))
