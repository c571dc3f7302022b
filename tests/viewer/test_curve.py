"""What the learning curve shows, with and without a sweep."""

from typing import Any

import numpy as np
import pytest

from vol3d.metrics.sweep import SURFACE_THRESHOLDS, THRESHOLDS
from vol3d.viewer.curve import learning_curve

ORANGE = np.array([213, 94, 0])


def records(*, best_at: float | None) -> list[dict[str, Any]]:
    """Three epochs with their validations; with a sweep that is best at a threshold."""
    found: list[dict[str, Any]] = []
    for number, dice in enumerate((0.4, 0.8, 0.7)):
        validation: dict[str, Any] = {"kind": "validation", "step": 10 * number + 10, "dice": dice, "surface_dice": 0.5}
        if best_at is not None:
            ladders = {"dice": THRESHOLDS, "surface_dice": SURFACE_THRESHOLDS}
            curves = {m: {"mean": [dice - 0.3 * abs(t - best_at) for t in ladder]} for m, ladder in ladders.items()}
            validation["sweep"] = {"thresholds": {m: list(t) for m, t in ladders.items()}, **curves}
        found += [validation, {"kind": "epoch", "step": 10 * number + 10, "loss": 1.0 - dice}]
    return found


def orange(picture: Any) -> Any:
    return (np.abs(picture.astype(int) - ORANGE).sum(axis=-1) < 30).any(axis=0).nonzero()[0]


@pytest.mark.parametrize("metric", ["dice", "surface_dice"])
def test_the_best_threshold_is_where_the_sweep_is_best(metric: str) -> None:
    low, high = (learning_curve(records(best_at=t), metric=metric) for t in (0.2, 0.8))
    assert low.dtype == np.uint8 and low.shape == high.shape
    half = low.shape[1] // 2
    columns = [orange(picture[:, half + 200 :]) for picture in (low, high)]  # the panel of thresholds
    assert columns[0].size and columns[1].size and columns[0].max() < columns[1].min()


def test_logs_without_a_sweep_are_drawn_as_before() -> None:
    picture = learning_curve(records(best_at=None), metric="dice")
    assert not orange(picture).size
    assert learning_curve([], metric="dice").shape == picture.shape
    unvalidated = [r for r in records(best_at=0.5) if r["kind"] == "epoch"]
    assert not orange(learning_curve(unvalidated, metric="triplet")).size


def test_undefined_scores_leave_gaps() -> None:
    told = records(best_at=0.5)
    for record in told:
        if record["kind"] == "validation":
            record["sweep"]["dice"]["mean"] = [None] * len(THRESHOLDS)
    assert not orange(learning_curve(told, metric="dice")).size
