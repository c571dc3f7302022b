"""The learning rate over a stage, and the settings that are refused."""

import itertools
from typing import Any

import pytest

from vol3d.errors import UsageError
from vol3d.shapes import Shape3
from vol3d.training.schedule import Schedule, Stage, TrainingSettings, learning_rate


def rates(schedule: Schedule, falls: int = 0, **more: Any) -> list[float]:
    settings = TrainingSettings(schedule=schedule, learning_rate=0.1, warm_up=0.1, **more)
    return [learning_rate(settings, p / 100, falls=falls) for p in range(101)]


@pytest.mark.parametrize("schedule", ["cosine", "poly"])
def test_the_rate_rises_then_falls_to_zero(schedule: Schedule) -> None:
    found = rates(schedule)
    assert found[10] == max(found) == pytest.approx(0.1)
    assert found[-1] == pytest.approx(0.0, abs=1e-12) and 0 < found[0] < 0.01
    assert all(a >= b for a, b in itertools.pairwise(found[10:]))


def test_a_constant_rate_stays_once_it_is_up() -> None:
    found = rates("constant")
    assert found[0] < found[5] < 0.1 and set(found[10:]) == {0.1}


def test_restarts_are_equal_cosines_that_end_at_zero() -> None:
    found = rates("restarts", cycles=3)
    rises = [p for p in range(11, 101) if found[p] > found[p - 1]]
    assert rises == [40, 70]
    assert found[40] == pytest.approx(0.1) and found[39] < 0.001 and found[-1] == pytest.approx(0.0, abs=1e-12)
    assert rates("restarts", cycles=1) == pytest.approx(rates("cosine"))


def test_a_plateau_falls_by_its_factor() -> None:
    assert set(rates("plateau", falls=2, plateau_factor=0.5)[10:]) == {0.025}


@pytest.mark.parametrize(
    "bad",
    [
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"max_minutes": 0.0},
        {"ema": 1.0},
        {"keep_best": 0},
        {"cycles": 0},
        {"plateau_patience": 0},
        {"plateau_factor": 1.0},
        {"stop_patience": 0},
        {"even_average": 1.1},
        {"stages": (Stage(begin="best"),)},
    ],
)
def test_impossible_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        TrainingSettings(**bad)


@pytest.mark.parametrize(
    "bad",
    [{"share": 0.0}, {"learning_rate": -1.0}, {"foreground": 1.5}, {"patch": Shape3(0, 8, 8)}, {"batch": 0}],
)
def test_impossible_stages_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Stage(**bad)


def test_what_wants_validations_is_named() -> None:
    TrainingSettings(stages=(Stage(), Stage(learning_rate=1e-5))).check_without_validations()
    for settings, named in (
        (TrainingSettings(stages=(Stage(), Stage(begin="best"))), r"training.stages\[1\].begin: best needs"),
        (TrainingSettings(stages=(Stage(schedule="plateau"), Stage())), "training.schedule: plateau"),
        (TrainingSettings(schedule="plateau"), "training.schedule: plateau"),
        (TrainingSettings(stop_patience=3), "training.stop_patience"),
    ):
        with pytest.raises(UsageError, match=named):
            settings.check_without_validations()
    # a schedule that no stage takes is no reason
    TrainingSettings(schedule="plateau", stages=(Stage(schedule="cosine"),)).check_without_validations()
