"""Scripts of tools/peers, each in a process, and perhaps under an interpreter, of its own."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from vol3d.errors import UsageError

PEERS = Path(__file__).parents[2] / "tools" / "peers"


def lines_of(python: Path, script: str, *arguments: object) -> Iterator[str]:
    """What a script prints, line by line as it does.

    Raises:
        UsageError: it cannot be run, or fails.
    """
    path = PEERS / script
    if not path.is_file():
        raise UsageError(f"{path} is missing: benchmarks run in a checkout of the project")
    # Errors go to a file: a pipe that nobody empties meanwhile would stop a script that writes many.
    with TemporaryFile("w+") as errors:
        command = [str(part) for part in (python, path, *arguments)]
        try:
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
                yield from process.stdout or ()
        except OSError as error:
            raise UsageError(f"cannot run {python}: {error.strerror}") from error
        if process.returncode:
            errors.seek(0)
            last = (errors.read().strip().splitlines() or ["it was killed"])[-1]
            raise UsageError(f"{script} failed under {python}: {last}")


def answer_of(python: Path, script: str, *arguments: object) -> dict[str, Any]:
    """The last line that a script prints, which is JSON.

    Raises:
        UsageError: it cannot be run, or fails.
    """
    *_, last = lines_of(python, script, *arguments)
    found: dict[str, Any] = json.loads(last)
    return found
