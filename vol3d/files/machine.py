"""The processor's name and cores, and what was measured of this machine, kept in the user's cache folder."""

import json
import os
import platform
from pathlib import Path
from typing import Any

from vol3d.errors import Vol3dError
from vol3d.files.atomic import read_text, write_json


def cpu_name() -> str:
    """The processor, as people call it."""
    try:
        lines = read_text(Path("/proc/cpuinfo")).splitlines()
    except Vol3dError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cores() -> int:
    """How many of its cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def recall(name: str) -> dict[str, Any]:
    """What is kept under a name; empty where there is nothing, or something else."""
    path = _path(name)
    try:
        kept = json.loads(read_text(path)) if path and path.is_file() else {}
    except (Vol3dError, OSError, json.JSONDecodeError):
        return {}
    return kept if isinstance(kept, dict) else {}


def keep(name: str, key: str, value: object) -> None:
    """Keep a value under a name and key. What cannot be written is measured again next time, so it is no error."""
    path = _path(name)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**recall(name), key: value})
    except (Vol3dError, OSError):
        return


def _path(name: str) -> Path | None:
    """The file, where the platform wants caches (XDG); None for a user without a home."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return folder / "vol3d" / f"{name}.json"
