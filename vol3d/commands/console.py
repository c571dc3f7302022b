"""The Reporter of the command line: everything goes to stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_LINES = 30.0


class Console:
    """One progress bar on a terminal, one line every 30 s elsewhere."""

    def note(self, sentence: str) -> None:
        """Print a sentence."""
        print(sentence, file=sys.stderr, flush=True)

    def warn(self, sentence: str) -> None:
        """Print a sentence that begins with ``warning:``."""
        self.note(f"warning: {sentence}")

    @contextmanager
    def progress(self, label: str, *, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """Show how much of total is done and the time left."""
        if sys.stderr.isatty():
            from tqdm import tqdm

            with tqdm(total=total, desc=label, unit=unit, file=sys.stderr, dynamic_ncols=True, leave=False) as bar:
                yield lambda amount: void(bar.update(amount))
        else:
            yield _Lines(label, total, unit)


def void(_: object) -> None:
    """Drop a value."""


class _Lines:
    """Progress for a log file: a line at most every 30 s."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0
        self.start = self.last = time.monotonic()

    def __call__(self, amount: int) -> None:
        self.done += amount
        now = time.monotonic()
        if now - self.last < SECONDS_BETWEEN_LINES or not self.done:
            return
        self.last = now
        left = (now - self.start) / self.done * (self.total - self.done)
        print(f"{self.label}: {self.done} of {self.total} {self.unit}, {left:.0f} s left", file=sys.stderr, flush=True)
