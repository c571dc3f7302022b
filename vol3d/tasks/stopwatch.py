"""Where the time goes, exclusive seconds per activity in each thread; and how much memory it took."""

import resource
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


def peak_rss_mb() -> float:
    """MiB, the largest resident memory of the process up to now."""
    # Linux counts in KiB, macOS in bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    return round(peak, 1)


class Stopwatch:
    """Seconds per named activity; while an inner one runs the outer one's clock stands still.

    Every thread has clocks of its own, so what goes on at the same time is counted side by side.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock, self._mine = threading.Lock(), threading.local()
        self.start = time.perf_counter()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the block's time as name."""
        self._credit()
        self._running.append(name)
        try:
            yield
        finally:
            self._credit()
            self._running.pop()

    def each(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items, the time to make them counted as name."""
        walk = iter(items)
        while True:
            with self(name):
                try:
                    item = next(walk)
                except StopIteration:
                    return
            yield item

    def total(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.start

    @property
    def _running(self) -> list[str]:
        """The activities of this thread, the innermost last."""
        running: list[str] = self._mine.__dict__.setdefault("running", [])
        return running

    def _credit(self) -> None:
        now = time.perf_counter()
        if self._running:
            with self._lock:
                name = self._running[-1]
                self.seconds[name] = self.seconds.get(name, 0.0) + now - self._mine.since
        self._mine.since = now
