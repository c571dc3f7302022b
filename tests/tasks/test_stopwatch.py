from collections.abc import Iterator

import pytest

from vol3d.tasks import stopwatch
from vol3d.tasks.stopwatch import Stopwatch


class Clock:
    """Stands in for the time module."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stopwatch, "time", clock)
    return clock


def test_an_inner_activity_is_not_counted_twice(clock: Clock) -> None:
    watch = Stopwatch()
    with watch("network"):
        clock.now += 1
        with watch("read"):
            clock.now += 10
        clock.now += 2
    clock.now += 100
    with watch("read"):
        clock.now += 5
    assert watch.seconds == {"network": 3, "read": 15}
    assert watch.total() == 118


def test_only_the_making_of_items_is_counted(clock: Clock) -> None:
    watch = Stopwatch()

    def inner() -> Iterator[int]:
        for item in range(3):
            clock.now += 1
            yield item

    def outer() -> Iterator[int]:
        for item in watch.each("network", inner()):
            clock.now += 10
            yield item

    seen = []
    for item in watch.each("resample", outer()):
        clock.now += 100
        seen.append(item)
    assert seen == [0, 1, 2]
    assert watch.seconds == {"network": 3, "resample": 30}


def test_an_error_ends_its_activity(clock: Clock) -> None:
    watch = Stopwatch()
    with pytest.raises(KeyError), watch("read"):
        clock.now += 1
        raise KeyError
    clock.now += 7
    with watch("write"):
        clock.now += 2
    assert watch.seconds == {"read": 1, "write": 2}
