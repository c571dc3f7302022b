"""A whole chain of steps at the size of a real kidney, beside plain code, each in a process of its own."""

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vol3d.errors import UsageError
from vol3d.files.arrays import create_npy
from vol3d.files.atomic import read_bytes, write_json
from vol3d.geometry.box import Box
from vol3d.shapes import Index3, Shape3
from vol3d.tasks.benchmark_row import Row
from vol3d.tasks.benchmark_scene import KIDNEY_SHAPE, SPACING, drawn_mask, real_mask, write_scene
from vol3d.tasks.benchmark_script import answer_of, lines_of
from vol3d.tasks.reporter import Reporter
from vol3d.volume.source import VolumeSource, filling

PYTHON = Path(sys.executable)
EDGE, REPEATS = 1024, 5
PERCOLATING = 0.0976  # the share of a cubic lattice at which its 26-connected sites first span it
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


def postprocess(*, run: Path, data: Path | None, reporter: Reporter, shape: Shape3 = KIDNEY_SHAPE) -> list[Row]:
    """Time, memory and masks of the chain; run is a folder to work in, data a table with SenNet's masks.

    Without data vessels are drawn, of this shape. Where there is a GPU the chain runs there, too, and so does labelling
    alone.
    """
    job = run / "postprocess"
    mask = drawn_mask(shape) if data is None else real_mask(data)
    job.mkdir(parents=True, exist_ok=True)
    write_json(job / "job.json", {"spacing": list(SPACING), "steps": list(STEPS)})
    write_scene(job, mask, reporter)
    told = f"{'x'.join(map(str, mask.shape))} {'phantom' if data is None else 'kidney'}"
    ours = _chain("vol3d", job, reporter, "cpu")
    peer, name = None, "plain SciPy and cc3d, whole arrays: failed"
    try:
        peer = _chain("plain", job, reporter)
        name = f"{peer.version}, whole arrays"
    except UsageError as error:  # at this size most likely killed for its memory, which is told rather than lost
        reporter.warn(f"plain code is not measured: {error}")
    rows = _rows(told, ours, peer, name, "peak of resident memory")
    if torch.cuda.is_available():
        there = _chain("vol3d", job, reporter, "cuda")
        rows += _rows(f"{told} on {torch.cuda.get_device_name()}", there, ours, "ours on the CPU", "peak of its memory")
        rows += _label_rows(job, mask, reporter)
    return rows


def _rows(told: str, ours: _Chain, peer: _Chain | None, name: str, memory: str) -> list[Row]:
    def timed(what: str, mine: float, theirs: float | None, differ: float | None = None) -> Row:
        return Row(f"{told}: {what}", mine, theirs, name, theirs / mine if theirs else None, "s", differ)

    seconds: list[float | None] = [None] * (len(ours.steps) + 1)
    differ = peak_mb = None
    if peer is not None:
        seconds = [*(step["seconds"] for step in peer.steps), peer.seconds]
        differ, peak_mb = float(_differing(ours.answer, peer.answer)), peer.peak_mb
    rows, before = [], 0
    for mine, theirs in zip(ours.steps, seconds, strict=False):
        rows.append(timed(f"{mine['step']}, {before} to {mine['voxels']} voxels", mine["seconds"], theirs))
        before = mine["voxels"]
    rows.append(timed(f"all {len(ours.steps)} steps", ours.seconds, seconds[-1], differ))
    rows.append(Row(f"{told}: {memory}", ours.peak_mb, peak_mb, name, None, "MiB", None))
    return rows


def _label_rows(job: Path, mask: VolumeSource, reporter: Reporter) -> list[Row]:
    """Labelling on a GPU, in voxels per second: vessels, and noise that is about to become one component."""
    reporter.note("measuring the components of tensors ...")
    edge = EDGE
    vessels = mask.read(Box.whole(mask.shape).intersection(Box.at(Index3(0, 0, 0), Shape3(edge, edge, edge))))[0] > 0
    vessels = np.pad(vessels, [(0, edge - n) for n in vessels.shape], mode="symmetric")
    noise = np.random.default_rng(2).random(vessels.shape, dtype=np.float32) < PERCOLATING
    paths = [job / "vessels.npy", job / "noise.npy"]
    for path, voxels in zip(paths, (vessels, noise), strict=True):
        with filling(create_npy(path, shape=Shape3(edge, edge, edge), dtype=np.bool_)) as sink:
            sink.write(Box.whole(Shape3(edge, edge, edge)), voxels[None])
    answer = answer_of(PYTHON, "device_labels.py", *paths, REPEATS)
    rows = []
    for what, voxels, row in zip(("vessels", "noise"), (vessels, noise), answer["rows"], strict=True):
        rates = [1e-9 * edge**3 / statistics.median(row[who]) if row[who] else None for who in ("ours", "peer")]
        told = f"components (26) on {torch.cuda.get_device_name()}, {edge}^3, {what}, {100 * voxels.mean():.2g} %"
        ratio = rates[0] / rates[1] if rates[0] and rates[1] else None
        rows.append(Row(told, rates[0], rates[1], answer["peer"] or "none", ratio, "Gvoxel/s", row["differ"]))
    return rows


def _chain(which: str, job: Path, reporter: Reporter, *more: str) -> _Chain:
    """Run a script's chain, a bar moving with its steps."""
    answer, found = job / f"{which}{''.join(more)}.raw", list[dict[str, Any]]()
    with reporter.progress(f"{which} {' '.join(more)}", total=len(STEPS), unit="steps") as advance:
        for line in lines_of(PYTHON, f"{which}_postprocess.py", job, *more, answer):
            found.append(json.loads(line))
            advance(len(found) <= len(STEPS))
    *steps, whole = found
    return _Chain(steps, whole["seconds"], whole["value"], whole["version"], answer)


def _differing(one: Path, other: Path) -> int:
    """In how many voxels two masks differ."""
    return int(np.count_nonzero(np.frombuffer(read_bytes(one), bool) != np.frombuffer(read_bytes(other), bool)))
