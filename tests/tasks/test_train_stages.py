"""Stages by the command's own function: another patch, a frozen encoder, and a stop on their border."""

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tiny import TINY_TRAINING

from vol3d.config.load import load
from vol3d.config.tree import Plan
from vol3d.errors import StoppedError, UsageError
from vol3d.files.runs import load_checkpoint, read_records
from vol3d.tasks.reporter import Silent
from vol3d.tasks.train import train

STAGED = (
    *TINY_TRAINING,
    "training.epochs=4",
    "training.steps_per_epoch=3",
    "training.validate_every=1",
    "training.stages=[{frozen: [encoder], schedule: plateau, foreground: 1}, "
    "{begin: best, patch: {z: 8, y: 8, x: 24}, batch: 1, learning_rate: 1e-3}]",
)


class Listener(Silent):
    """Keeps what is told, and asks to stop once a word is heard."""

    def __init__(self, stop_at: str = "") -> None:
        self.told: list[str] = []
        self.stop_at = stop_at

    def note(self, sentence: str) -> None:
        self.told.append(sentence)
        if self.stop_at and self.stop_at in sentence:
            signal.raise_signal(signal.SIGINT)


def trained(data: Path, out: Path, overrides: Sequence[str], listener: Listener, *, resume: bool = False) -> Path:
    return train(data, out=out, overrides=overrides, device="cpu", reporter=listener, resume=resume)[0].run


def test_a_staged_training_stopped_anywhere_continues_to_the_same_bits(tiny_data: Path, tmp_path: Path) -> None:
    whole = Listener()
    fold = trained(tiny_data, tmp_path / "whole", STAGED, whole)
    assert "step 6: stage 2 of 2 begins with the best weights of the one before" in whole.told
    assert [r["stage"] for r in read_records(fold / "metrics.jsonl") if r["kind"] == "epoch"] == [1, 1, 2, 2]
    plan = load(Plan, text=(fold / "plan.yaml").read_text(), name="plan")
    assert plan.inference.window == (8, 8, 24)  # what the weights learned last
    expected = load_checkpoint(fold / "weights_last.pt")["weights"]
    for name, word in (("within", "step 3: "), ("border", "step 6: dice"), ("begun", "stage 2 of 2")):
        with pytest.raises(StoppedError):
            trained(tiny_data, tmp_path / name, STAGED, Listener(word))
        resumed = trained(tiny_data, tmp_path / name, STAGED, Listener(), resume=True)
        found = load_checkpoint(resumed / "weights_last.pt")["weights"]
        assert all(torch.equal(found[key], value) for key, value in expected.items()), name
        steps = [[(r["kind"], r["step"]) for r in read_records(one / "metrics.jsonl")] for one in (resumed, fold)]
        assert steps[0] == steps[1]


def test_what_a_stage_cannot_be_is_told_before_anything_is_written(tiny_data: Path, tmp_path: Path) -> None:
    for fold, override, told in (
        ("full", "training.stages=[{}, {begin: best}]", "needs validations, and no case is held out"),
        ("full", "training.schedule=plateau", "training.schedule: plateau needs validations"),
        ("0", "training.stages=[{patch: {z: 8, y: 7, x: 8}}]", r"training.stages\[0\].patch .*needs multiples of"),
        ("0", "training.stages=[{frozen: [decoder]}]", r"training.stages\[0\].frozen"),
    ):
        with pytest.raises(UsageError, match=told):
            train(tiny_data, out=tmp_path / "run", overrides=[*TINY_TRAINING, override], fold=fold, device="cpu")
        assert not list((tmp_path / "run").glob("fold_*/config.yaml"))
