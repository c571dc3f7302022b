"""Plugins: files of Python that register networks, losses, augmentations and steps, named on the command line alone."""

import hashlib
import json
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from vol3d.errors import InputError, UsageError
from vol3d.files.atomic import read_bytes, read_text

ENVIRONMENT = "environment.json"
_MODULE = "vol3d_plugin_"


@dataclass(frozen=True)
class Plugin:
    """A file's name without its folder, and the SHA-256 of its content."""

    name: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} (SHA-256 {self.sha256[:12]}…)"


_LOADED: list[Plugin] = []


def loaded_plugins() -> list[Plugin]:
    """What this process has loaded, in that order; what Python code imported itself is not among it."""
    return list(_LOADED)


def load_plugins(paths: Sequence[Path]) -> None:
    """Run each file once, so that what it registers is known by name from here on.

    Raises:
        UsageError: one cannot be read, or raises: with the file and the line.
    """
    for path in paths:
        source = read_bytes(path)
        plugin = Plugin(path.name, hashlib.sha256(source).hexdigest())
        if plugin not in _LOADED:
            _run(path, source, plugin)
            _LOADED.append(plugin)


def _run(path: Path, source: bytes, plugin: Plugin) -> None:
    """Execute the very bytes that were hashed, as a module of its own."""
    module = ModuleType(f"{_MODULE}{path.stem}_{plugin.sha256[:12]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise UsageError(f"--plugin {path}{_line(error, path)}: {type(error).__name__}: {error}") from error


def _line(error: BaseException, path: Path) -> str:
    """Where in the file it went wrong."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f" line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f" line {lines[-1]}" if lines else ""


def fault_in_plugin(error: BaseException) -> str:
    """The last line of a plugin that an exception came through, as a sentence; "" where there is none."""
    frames = traceback.walk_tb(error.__traceback__)
    lines = [(f.f_code.co_filename, n) for f, n in frames if str(f.f_globals.get("__name__")).startswith(_MODULE)]
    if not lines:
        return ""
    file, line = lines[-1]
    return f"--plugin {file} line {line}: {type(error).__name__}: {error}"


def recorded_plugins(folder: Path) -> list[Plugin]:
    """The plugins that a run's folder says it was trained with; they are told, never loaded."""
    try:
        told = json.loads(read_text(folder / ENVIRONMENT))["plugins"]
        return [Plugin(str(one["name"]), str(one["sha256"])) for one in told]
    except (UsageError, InputError, ValueError, KeyError, TypeError):
        return []


def lacking(folder: Path) -> str:
    """Which of a run's plugins are not loaded, as a sentence; "" where all are."""
    absent = [plugin for plugin in recorded_plugins(folder) if plugin not in _LOADED]
    if not absent:
        return ""
    given = " ".join(f"--plugin {plugin.name}" for plugin in absent)
    return f"{folder} was trained with {' and '.join(map(str, absent))}: give {given}"


def differing(folder: Path) -> str:
    """Where a run was trained with plugins and others are loaded, both, as a sentence; "" where they agree."""
    recorded = {plugin.sha256: plugin for plugin in recorded_plugins(folder)}
    absent = [plugin for sha256, plugin in recorded.items() if sha256 not in {p.sha256 for p in _LOADED}]
    strange = [plugin for plugin in _LOADED if plugin.sha256 not in recorded]
    if not (absent and strange):
        return ""
    return (
        f"{folder} was trained with {' and '.join(map(str, absent))}, loaded is {' and '.join(map(str, strange))}: "
        "what they register may differ"
    )
