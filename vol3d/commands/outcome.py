"""What a command gives back."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """The result for ``--json`` (no NaN: undefined is None), the same for people, and the exit code.

    It is not told where another process tells it.
    """

    data: dict[str, Any]
    text: str = ""
    exit_code: int = 0
    told: bool = True
