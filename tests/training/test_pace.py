"""Samples per second and the share of waiting, by a clock of our own."""

from collections.abc import Iterator

import pytest

from vol3d.training import pace
from vol3d.training.pace import Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(pace, "time", found := Clock())
    return found


def test_waiting_and_working_are_told_apart(clock: Clock) -> None:
    def batches() -> Iterator[int]:
        for seconds in (7.0, 3.0, 2.0):  # the first cannot be made ahead
            clock.now += seconds
            yield 4

    counted = Pace()
    for size in counted.timed(batches()):
        clock.now += 5.0
        counted.learned(size)
        clock.now += 50.0  # a validation, say: neither
    assert counted.told() == {"samples_per_second": 12 / 20, "wait_share": 5 / 20}
    assert counted.told() == {"samples_per_second": 0.0, "wait_share": 0.0}
