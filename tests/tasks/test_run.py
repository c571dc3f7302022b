from pathlib import Path

import pytest
import torch
from torch import nn

from vol3d.config.load import load
from vol3d.config.tree import Config, plan_of
from vol3d.tasks.models import Model
from vol3d.tasks.run import Run

FILLED = (
    "data.labels={one: [1]}",
    "data.channels=[image]",
    "preprocess.spacing=stored",
    "preprocess.normalisation=[{}]",
    "inference.window={z: 8, y: 8, x: 8}",
    "inference.mirror_axes=[]",
)


def names_of_steps(steps: str, *, organ_given: bool) -> list[str]:
    plan = plan_of(load(Config, text=None, name="test", overrides=[*FILLED, f"postprocess.steps={steps}"]))
    model = Model(Path("run"), plan, nn.Identity(), "")
    return [step.name for step in Run((model,), "float32", torch.device("cpu")).steps(organ_given)]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("[]", ["organ_gate"]),
        ("[largest: {}]", ["organ_gate", "largest"]),
        (
            "[hysteresis: {seed_threshold: 0.8, grow_threshold: 0.3}, largest: {}]",
            ["hysteresis", "organ_gate", "largest"],
        ),
        ("[fill_holes: {}, grow_slices: {tolerance: 5}]", ["fill_holes", "grow_slices", "organ_gate"]),
        ("[largest: {}, organ_gate: {}]", ["largest", "organ_gate"]),
    ],
)
def test_an_organ_mask_gates_where_no_later_step_brings_back_what_it_removed(steps: str, expected: list[str]) -> None:
    assert names_of_steps(steps, organ_given=True) == expected


def test_without_an_organ_mask_nothing_gates() -> None:
    assert names_of_steps("[largest: {}]", organ_given=False) == ["largest"]
