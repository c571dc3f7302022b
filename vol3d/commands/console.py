"""The Reporter of the command line, on stderr; nothing that a file is named steers the terminal."""

import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_LINES = 30.0


def shown(text: str, *, lines: bool = False) -> str:
    r"""The text with escapes for what would steer a terminal or break a line; lines keeps line breaks.

    >>> shown("a\x1b[31mred\nb")
    'a\\x1b[31mred\\nb'
    """
    return "".join(c if not _steers(c) or (lines and c == "\n") else ascii(c)[1:-1] for c in text)


def _steers(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


class Console:
    """One progress bar on a terminal, one line every 30 s elsewhere."""

    def note(self, sentence: str) -> None:
        """Print a sentence, or the lines of a plan."""
        print(shown(sentence, lines=True), file=sys.stderr, flush=True)

    def warn(self, sentence: str) -> None:
        """Print a sentence that begins with ``warning:``."""
        self.note(f"warning: {shown(sentence)}")

    @contextmanager
    def progress(self, label: str, *, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """Show how much of total is done and the time left."""
        label = shown(label)
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
