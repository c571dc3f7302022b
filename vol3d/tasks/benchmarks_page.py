"""BENCHMARKS.md, written from the records in benchmarks/."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vol3d.errors import InputError, UsageError
from vol3d.files.atomic import read_text, write_text

HEAD = """\
# Benchmarks

Written by `vol3d benchmark --report` from `benchmarks/*.json`; do not edit. Times are medians after a
warm-up, both sides on the same machine. Ratio is the peer's time divided by ours: above 1 we are faster.
Difference is the largest between both results. What follows in brackets are the lowest and the highest of several
seeds of chance.
"""
NOT_MEASURED = "not measured"


def write_page(folder: Path, page: Path) -> str:
    """Write the page of all records (*.json) in a folder, and return it.

    Raises:
        UsageError: there are none.
        InputError: one is no record.
    """
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise UsageError(f"no benchmark in {folder.resolve()}: write one with vol3d benchmark NAME --out FILE")
    text = "\n".join([HEAD, *(_section(path) for path in paths)])
    write_text(page, text)
    return text


def _section(path: Path) -> str:
    try:
        record: dict[str, Any] = json.loads(read_text(path))
        rows = [_line(row) for row in record["rows"]]
        command, measured = record.get("command", f"vol3d benchmark {path.stem}"), _measured_on(record)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no benchmark record ({error}); make it again with vol3d benchmark") from error
    lines = [
        f"## {path.stem}",
        "",
        f"`{command}`  ",
        measured,
        "",
        "| what | ours | peer | peer's name | ratio | difference |",
        "| --- | --- | --- | --- | --- | --- |",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def _measured_on(record: Mapping[str, Any]) -> str:
    machine = record.get("machine") or {}
    parts = [
        machine.get("cpu"),
        f"{machine['cores']} cores" if machine.get("cores") else None,
        machine.get("gpu") or "no GPU",
        f"torch {machine['torch']}" if machine.get("torch") else None,
        f"Python {machine['python']}" if machine.get("python") else None,
        f"commit {record['commit']}" if record.get("commit") else None,
    ]
    return ", ".join(part for part in parts if part)


def _line(row: Mapping[str, Any]) -> str:
    unit = row.get("unit") or ""
    ratio = row.get("ratio")
    cells = [
        row["name"],
        _quantity(row.get("ours"), unit) + _spread(row),
        _quantity(row.get("peer"), unit),
        row.get("peer_name") or "",
        "" if ratio is None else f"{ratio:.3g}",
        _plain(row.get("agreement")),
    ]
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _spread(row: Mapping[str, Any]) -> str:
    low, high = row.get("low"), row.get("high")
    return "" if low is None or high is None else f" ({_plain(low, digits=4)} to {_plain(high, digits=4)})"


def _quantity(value: object, unit: str) -> str:
    return NOT_MEASURED if value is None else f"{_plain(value, digits=4 if unit != 's' else 3)} {unit}".strip()


def _plain(value: object, digits: int = 2) -> str:
    if value is None:
        return ""
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)
