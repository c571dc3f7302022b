"""What can go wrong, as sentences with an exit code.

Every error a user can cause is a child of Vol3dError. Its message says what was expected, what
came, which file, and what to do; commands print that message alone and exit with ``exit_code``.
Anything else that escapes is a bug in vol3d (exit code 1).
"""

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches


class Vol3dError(Exception):
    """A problem that can be said in one sentence."""

    exit_code: int = 1


class UsageError(Vol3dError):
    """The command, the config or the environment is wrong; nothing was read or written."""

    exit_code = 2


class InputError(Vol3dError):
    """A file holds something else than it must."""

    exit_code = 3


class PartlyDoneError(Vol3dError):
    """Some volumes of a batch failed; the others are done."""

    exit_code = 4


class ResourceError(Vol3dError):
    """Memory or disk ran out."""

    exit_code = 5


class CheckpointError(Vol3dError):
    """A run folder or checkpoint is not ours, damaged, or does not fit."""

    exit_code = 6


class DivergedError(Vol3dError):
    """Training left the finite numbers."""

    exit_code = 7


class StoppedError(Vol3dError):
    """A signal asked to stop; the state was saved first."""

    exit_code = 130

    def __init__(self, message: str, *, signal: int | None = None) -> None:
        super().__init__(message)
        if signal is not None:
            self.exit_code = 128 + signal


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it is Python's own, torch's on a GPU, or torch's on the CPU, which has no class of its own."""
    named = type(error).__name__ == "OutOfMemoryError"  # torch is not imported for a name
    return isinstance(error, MemoryError) or named or "can't allocate memory" in str(error)


def refuse_if_all(failed: Mapping[str, Vol3dError], *, done: int) -> None:
    """Raise an error of the first one's kind where volumes failed and none is done: such a batch is not partly done."""
    if failed and not done:
        first = next(iter(failed.values()))
        raise type(first)(f"none of the {len(failed)} volumes can be used; the first: {first}")


def some(told: Sequence[str], most: int = 8, *, between: str = ", ") -> str:
    """The first of a list for a sentence, and how many more there are.

    >>> some(["spleen", "liver", "heart"], 2)
    'spleen, liver and 1 more'
    """
    more = f" and {len(told) - most} more" if len(told) > most else ""
    return (between.join(told[:most]) or "nothing") + more


def unknown_name(what: str, name: str, known: Collection[str]) -> str:
    """The sentence about a name that nothing is registered under; those of plugins may be meant."""
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known)) or 'none'};"
    return f"unknown {what} {name!r}, {hint} what a plugin registers needs --plugin FILE.py"
