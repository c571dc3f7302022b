"""How a task tells what it does while it works."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]


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
