"""How a task tells what it does while it works."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]
WarnOf = Callable[[str, Sequence[str]], None]
"""Takes a warning and the names of what it may be about."""


class Reporter(Protocol):
    """Receives sentences and progress. Commands hand in one that writes to stderr."""

    def note(self, sentence: str) -> None:
        """Something the user should know."""
        ...

    def warn(self, sentence: str) -> None:
        """Something the user should check."""
        ...

    def progress(self, label: str, *, total: int, unit: str) -> AbstractContextManager[Advance]:
        """A bar while the block runs; call the yielded function with the amount of work just done."""
        ...


class Silent:
    """A reporter that tells nobody: the default of the Python interface."""

    def note(self, sentence: str) -> None:
        """Dropped."""

    def warn(self, sentence: str) -> None:
        """Dropped."""

    @contextmanager
    def progress(self, label: str, *, total: int, unit: str) -> Iterator[Advance]:  # noqa: ARG002
        """No bar."""
        yield lambda amount: None


@contextmanager
def alike(reporter: Reporter) -> Iterator[WarnOf]:
    """Warn of many volumes: of sentences that differ in a name alone the first, and at the end how many more."""
    first: dict[str, str] = {}
    more: Counter[str] = Counter()

    def warn(sentence: str, names: Sequence[str]) -> None:
        name = max((n for n in names if n in sentence), key=len, default="")
        kind = sentence.replace(name, "", 1) if name else sentence
        if kind in first:
            more[kind] += 1
        else:
            first[kind] = sentence
            reporter.warn(sentence)

    try:
        yield warn
    finally:
        for kind, count in more.items():
            reporter.warn(f"{count} more like this: {first[kind]}")
