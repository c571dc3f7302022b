"""What a prediction keeps in memory, by the depth of its volume: from TIFF slices to a mask, steps and all."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vol3d.config.dump import dump
from vol3d.config.tree import DataSettings, Plan
from vol3d.errors import UsageError
from vol3d.files.atomic import write_text
from vol3d.files.runs import save_checkpoint
from vol3d.files.volumes import create_volume
from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.inference.inferencer import InferenceSettings
from vol3d.network.build import NetworkSettings
from vol3d.network.stages import UNetSettings
from vol3d.postprocess.settings import PostprocessSettings
from vol3d.preprocess.intensity import Normalisation
from vol3d.preprocess.pipeline import PreprocessSettings
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.tasks.assemble import network_of
from vol3d.tasks.benchmark_row import Row
from vol3d.tasks.reporter import Reporter
from vol3d.volume.source import filling

SPACING = Spacing(0.05, 0.05, 0.05)
STEPS: tuple[str | dict[str, dict[str, Any]], ...] = (
    {"hysteresis": {"seed_threshold": 0.6, "grow_threshold": 0.5}},
    {"size_filter": {"min_volume_mm3": 0.0025}},
)


@dataclass(frozen=True)
class Job:
    """A volume to make and predict; steps that look at components follow where there is one class."""

    shape: Shape3
    classes: int = 1
    overlap: float = 0.0


JOBS = (
    Job(Shape3(512, 512, 512)),
    Job(Shape3(1024, 512, 512)),
    Job(Shape3(2048, 512, 512)),
    Job(Shape3(2200, 1041, 1511)),
    Job(Shape3(384, 384, 384), classes=100, overlap=0.5),
)


def memory(*, run: Path, reporter: Reporter, jobs: Sequence[Job] = JOBS) -> list[Row]:
    """Peak memory and time of vol3d-predict for synthetic stacks (uint16); run is a folder to work in.

    The network is small and untrained, as memory does not hang on what it says; its windows are 64^3.
    """
    rows = []
    for job in jobs:
        name = "x".join(map(str, job.shape))
        stack, model = run / f"stack_{name}", _model(run / f"model_{job.classes}", job)
        if not stack.is_dir():
            _write_stack(stack, job.shape, reporter)
        found = _predicted(stack, model, run / "masks")
        told = f"{name} uint16 TIFF stack to mask, {job.classes} class{'es' if job.classes > 1 else ''}"
        rows.append(Row(f"{told}: peak of resident memory", found["peak_rss_mb"], None, "none", None, "MiB", None))
        rows.append(Row(f"{told}: time", found["seconds"]["total"], None, "none", None, "s", None))
    return rows


def _model(folder: Path, job: Job) -> Path:
    """A run with a small network that was never trained."""
    one, two, three = Shape3(1, 1, 1), Shape3(2, 2, 2), Shape3(3, 3, 3)
    labels: dict[str, tuple[int, ...]] = {f"class_{n}": (n,) for n in range(1, job.classes + 1)}
    plan = Plan(
        DataSettings(labels=labels, channels=("image",), mirror_pairs=()),
        PreprocessSettings("stored", spacing="stored", normalisation=(Normalisation("percentile"),)),
        NetworkSettings("unet", 4, UNetSettings((4, 8), (three, three), (one, two), 1, 1)),
        InferenceSettings(Shape3(64, 64, 64), job.overlap, ()),
        PostprocessSettings(0.5, STEPS if job.classes == 1 else ()),
    )
    torch.manual_seed(0)
    write_text(folder / "plan.yaml", dump(plan))
    save_checkpoint(folder / "weights_last.pt", {"weights": network_of(plan).state_dict()})
    return folder


def _write_stack(stack: Path, shape: Shape3, reporter: Reporter) -> None:
    """Slices of soft noise that is the same every 37 slices, with a gradient, so that no window is constant."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 4000, (37, shape.y, shape.x), dtype=np.uint16)
    with (
        reporter.progress(f"writing {stack.name}", total=shape.z, unit="slices") as advance,
        filling(create_volume(stack, shape=shape, dtype=np.uint16, affine=from_spacing(SPACING))) as sink,
    ):
        for z in range(shape.z):
            box = Box(Index3(z, 0, 0), Index3(z + 1, shape.y, shape.x))
            sink.write(box, (noise[z % 37] + np.uint16(z))[None, None])
            advance(1)


def _predicted(stack: Path, model: Path, out: Path) -> dict[str, Any]:
    """The row of a prediction by the command, in a process of its own."""
    command = [sys.executable, "-m", "vol3d.commands.main", "predict", str(stack), "--model", str(model)]
    command += ["--out", str(out), "--overwrite", "--json", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(f"vol3d-predict {stack} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    row: dict[str, Any] = json.loads(done.stdout)["volumes"][0]
    return row
