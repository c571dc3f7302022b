"""A whole chain of steps at the size of a real kidney, beside plain code, each in a process of its own."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vol3d.errors import UsageError
from vol3d.files.atomic import read_bytes, write_json
from vol3d.shapes import Shape3
from vol3d.tasks.benchmark_row import Row
from vol3d.tasks.benchmark_scene import KIDNEY_SHAPE, SPACING, drawn_mask, real_mask, write_scene
from vol3d.tasks.reporter import Reporter

PEERS = Path(__file__).parents[2] / "tools" / "peers"
STEPS: tuple[dict[str, dict[str, Any]], ...] = (
    # Thresholds that float16 has exactly, so that nothing hangs on how they are rounded.
    {"hysteresis": {"seed_threshold": 0.75, "grow_threshold": 0.25, "min_seed_voxels": 4}},
    {"size_filter": {"min_volume_mm3": 0.0025}},
    {"organ_gate": {}},
    {"fill_holes": {}},
    {"largest": {"count": 100}},
    {"grow_range": {"tolerance": 2000.0, "min_probability": 0.125, "within": "organ", "max_growth": 4.0}},
)


@dataclass(frozen=True)
class _Chain:
    """What one process found: a record per step, and of all together seconds, the peak and the version."""

    steps: list[dict[str, Any]]
    seconds: float
    peak_mb: float
    version: str
    answer: Path


def postprocess(
    *, run: Path, data: Path | None, reporter: Reporter, python: Path | None = None, shape: Shape3 = KIDNEY_SHAPE
) -> list[Row]:
    """Time, memory and masks of the chain; run is a folder to work in, data a table with SenNet's masks.

    Without data vessels are drawn, of this shape. python has the peer's SciPy and cc3d; None is ours.
    """
    job = run / "postprocess"
    mask = drawn_mask(shape) if data is None else real_mask(data)
    job.mkdir(parents=True, exist_ok=True)
    write_json(job / "job.json", {"spacing": list(SPACING), "steps": list(STEPS)})
    write_scene(job, mask, reporter)
    ours = _chain("vol3d", Path(sys.executable), job, reporter, "cpu")
    peer = _chain("plain", python or Path(sys.executable), job, reporter)
    size = "x".join(map(str, mask.shape))
    return _rows(f"{size} {'phantom' if data is None else 'kidney'}", ours, peer)


def _rows(told: str, ours: _Chain, peer: _Chain) -> list[Row]:
    name = f"{peer.version}, whole arrays"
    rows = []
    before = 0
    for mine, theirs in zip(ours.steps, peer.steps, strict=True):
        change = f"{before} to {mine['voxels']} voxels"
        rows.append(Row.timed(f"{told}: {mine['step']}, {change}", mine["seconds"], theirs["seconds"], name))
        before = mine["voxels"]
    differ = float(_differing(ours.answer, peer.answer))
    rows.append(Row.timed(f"{told}: all {len(ours.steps)} steps", ours.seconds, peer.seconds, name, differ))
    rows.append(Row(f"{told}: peak of resident memory", ours.peak_mb, peer.peak_mb, name, None, "MiB", None))
    return rows


def _chain(which: str, python: Path, job: Path, reporter: Reporter, *more: str) -> _Chain:
    """Run a script's chain, a bar moving with its steps.

    Raises:
        UsageError: it cannot be run, or fails.
    """
    script, answer = PEERS / f"{which}_postprocess.py", job / f"{which}{''.join(more)}.raw"
    if not script.is_file():
        raise UsageError(f"{script} is missing: benchmarks run in a checkout of the project")
    found: list[dict[str, Any]] = []
    try:
        with (
            reporter.progress(f"{which} {' '.join(more)}", total=len(STEPS), unit="steps") as advance,
            subprocess.Popen(
                [python, script, job, *more, answer], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ) as process,
        ):
            for line in process.stdout or ():
                found.append(json.loads(line))
                advance(len(found) <= len(STEPS))
            errors = process.stderr.read().strip().splitlines() if process.stderr else []
    except OSError as error:
        raise UsageError(f"cannot run {python}: {error.strerror}") from error
    if process.returncode:
        raise UsageError(f"{script.name} failed under {python}: {(errors or ['it was killed'])[-1]}")
    *steps, whole = found
    return _Chain(steps, whole["seconds"], whole["value"], whole["version"], answer)


def _differing(one: Path, other: Path) -> int:
    """In how many voxels two masks differ."""
    return int(np.count_nonzero(np.frombuffer(read_bytes(one), bool) != np.frombuffer(read_bytes(other), bool)))
