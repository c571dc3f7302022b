"""How fast a training goes, and how much of its time it waits for batches."""

import time
from collections.abc import Generator, Iterable
from typing import TypeVar

Batch = TypeVar("Batch")


class Pace:
    """Counts samples, and the seconds that were spent on them or waiting for them.

    What happens between two steps (validations, saving) is none of it, nor is the wait for the first batch, which
    could not be made ahead.
    """

    def __init__(self) -> None:
        self._samples, self._waited, self._worked, self._came = 0, 0.0, 0.0, 0.0

    def timed(self, batches: Iterable[Batch]) -> Generator[Batch, None, None]:
        """The same batches; the wait for each is counted."""
        iterator, first = iter(batches), True
        while True:
            asked = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._came = time.perf_counter()
            self._waited += 0.0 if first else self._came - asked
            first = False
            yield batch

    def learned(self, samples: int) -> None:
        """The batch that came last was learned from."""
        self._worked += time.perf_counter() - self._came
        self._samples += samples

    def told(self) -> dict[str, float]:
        """samples_per_second and wait_share, a fraction, since this was last asked for."""
        seconds = self._waited + self._worked
        shares = (self._samples / seconds, self._waited / seconds) if seconds else (0.0, 0.0)
        values = dict(zip(("samples_per_second", "wait_share"), shares, strict=True))
        self._samples, self._waited, self._worked = 0, 0.0, 0.0
        return values
