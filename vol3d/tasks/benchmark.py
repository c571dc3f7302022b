"""Measure what the project claims, beside its peers, on this machine.

A peer is a script of tools/peers that runs under an interpreter of its own and prints one line of
JSON: {"seconds": [...], "value": ..., "version": "..."}. Seconds are medians after a warm-up.
"""

import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vol3d.errors import UsageError
from vol3d.files.atomic import write_json
from vol3d.files.machine import cores, cpu_name
from vol3d.files.volumes import create_volume
from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.metrics import surface
from vol3d.metrics.report import table
from vol3d.regions.components import label
from vol3d.shapes import Shape3, Spacing
from vol3d.tasks.accuracy import hippocampus, kidneys, vessels
from vol3d.tasks.benchmark_inference import Peer, inference
from vol3d.tasks.benchmark_memory import memory
from vol3d.tasks.benchmark_postprocess import postprocess
from vol3d.tasks.benchmark_row import Row
from vol3d.tasks.benchmark_script import answer_of
from vol3d.tasks.benchmark_training import training
from vol3d.tasks.reporter import Reporter, Silent
from vol3d.volume.source import filling

ROOT = Path(__file__).parents[2]
REPEATS = 5
SIZE = 256
SPACING = Spacing(0.8, 1.0, 3.0)
T = TypeVar("T")


def run_benchmark(
    name: str,
    *,
    peer_python: Path | None = None,
    data: Path | None = None,
    run: Path | None = None,
    out: Path | None = None,
    against: Sequence[Peer] = ("monai", "nnunet"),
    size: int = 160,
    reporter: Reporter = Silent(),  # noqa: B008  # has no state
) -> dict[str, Any]:
    """Run one of NAMES and return its record, also written to out.

    peer_python has the peers we do not install. Accuracy is trained on data and keeps its work in run. inference
    takes a trained run and an image (data), of which it makes a volume of size^3, and the peers that against
    names; memory works in run, and so does postprocess, on masks drawn or of a table (data). training needs no data,
    or preprocesses them in run, and takes nnU-Net as a peer.

    Raises:
        UsageError: the name is not known, data or run is missing, or a peer cannot be run.
    """
    command = f"vol3d benchmark {name}"
    if name in SPEED:
        rows = SPEED[name](peer_python=peer_python, reporter=reporter)
        command += " --peer-python PATH" if peer_python else ""
    elif name in ACCURACY:
        if data is None or run is None:
            raise UsageError(f"benchmark {name} trains: give --data (its data set) and --run (a folder to work in)")
        python = peer_python if name == "hippocampus" and "nnunet" in against else None
        peer = {"peer": partial(answer_of, python)} if python else {}
        rows = ACCURACY[name](data=data, run=run, reporter=reporter, **peer)
        command += " --data DIR --run DIR" + (" --peer-python PATH" if python else "")
    elif name == "inference":
        if data is None or run is None:
            raise UsageError("benchmark inference predicts: give --run (a trained run) and --data (an image for it)")
        rows = inference(
            data=data,
            run=run,
            peer_python=peer_python,
            against=against,
            size=size,
            script=answer_of,
            python=Path(sys.executable),
            reporter=reporter,
        )
        command += f" --against {','.join(against)} --size {size} --data IMAGE --run RUN"
        command += " --peer-python PATH" if peer_python else ""
    elif name == "training":
        rows = training(
            data=data,
            run=run,
            peer_python=peer_python,
            against=against,
            script=answer_of,
            python=Path(sys.executable),
            reporter=reporter,
        )
        command += f" --against {','.join(against)}" + (" --data DIR --run DIR" if data else "")
        command += " --peer-python PATH" if peer_python else ""
    elif name == "memory":
        if run is None:
            raise UsageError("benchmark memory writes large volumes: give --run (a folder to work in)")
        rows = memory(run=run, reporter=reporter)
        command += " --run DIR"
    elif name == "postprocess":
        if run is None:
            raise UsageError("benchmark postprocess writes a large volume: give --run (a folder to work in)")
        rows = postprocess(run=run, data=data, reporter=reporter)
        command += " --run DIR" + (" --data TABLE" if data else "")
    else:
        raise UsageError(f"no benchmark {name!r}; expected one of {', '.join(NAMES)}")
    record = {
        "command": command,
        "machine": machine(),
        "commit": _commit(),
        "rows": [asdict(row) for row in rows],
    }
    if out is not None:
        write_json(out, record)
    return record


def machine() -> dict[str, Any]:
    """What a figure was measured on."""
    import torch

    return {
        "cpu": cpu_name(),
        "cores": cores(),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def rows_table(record: dict[str, Any]) -> str:
    """A record's rows for people."""
    return table(record["rows"])


def surface_dice(
    *, peer_python: Path | None, reporter: Reporter, size: int = SIZE, repeats: int = REPEATS
) -> list[Row]:
    """Surface Dice at tolerance 0 of two masks of size^3 voxels with 5 % foreground."""
    reference = blobs(size)
    prediction = np.roll(reference, 1, axis=2) ^ (np.random.default_rng(1).random(reference.shape) < 1e-4)
    ours, value = _measured(lambda: surface.surface_dice(prediction, reference, spacing=SPACING), repeats)
    rows = []
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / "prediction.npy", Path(folder) / "reference.npy"]
        for path, mask in zip(paths, (prediction, reference), strict=True):
            _save(path, mask)
        for script, name, python in (
            ("monai_surface_dice.py", "MONAI {} compute_surface_dice(use_subvoxels=True)", Path(sys.executable)),
            ("surface_distance.py", "DeepMind surface-distance {}", peer_python),
        ):
            if python is None:
                reporter.note(f"not measured: {name.format('')}; name an interpreter that has it with --peer-python")
                continue
            reporter.note(f"measuring {name.format('')} ...")
            found = answer_of(python, script, *(str(p) for p in paths), *(str(s) for s in SPACING), str(repeats))
            rows.append(
                Row.timed(
                    f"surface Dice at tolerance 0, {size}^3, 5 % foreground",
                    ours,
                    statistics.median(found["seconds"]),
                    name.format(found["version"]),
                    abs(found["value"] - (value or 0.0)),
                )
            )
    return rows


def components(
    *,
    peer_python: Path | None,  # noqa: ARG001  # SciPy is installed with us
    reporter: Reporter,  # noqa: ARG001
    size: int = SIZE,
    repeats: int = REPEATS,
) -> list[Row]:
    """Labelling the components (26-connectivity) of a mask of size^3 voxels with 5 % foreground."""
    import scipy

    mask = blobs(size)
    ours, found = _measured(lambda: label(mask), repeats)
    peer, expected = _measured(lambda: label(mask, labeller="scipy"), repeats)
    pairs = np.unique(np.stack([found.labels[mask], expected.labels[mask]]), axis=1)
    # Two partitions are the same when labels pair up one to one.
    difference = abs(pairs.shape[1] - found.count) + abs(pairs.shape[1] - expected.count)
    name = f"components (26), {size}^3, 5 % foreground"
    return [Row.timed(name, ours, peer, f"SciPy {scipy.__version__} ndimage.label", float(difference))]


def blobs(size: int) -> NDArray[np.bool_]:
    """A smooth mask (size, size, size) with 5 % foreground, the same each time."""
    noise = np.random.default_rng(0).random((size, size, size), dtype=np.float32)
    smooth = ndimage.gaussian_filter(noise, 4, mode="wrap")
    mask: NDArray[np.bool_] = smooth > np.quantile(smooth, 0.95)
    return mask


SPEED: dict[str, Callable[..., list[Row]]] = {"surface-dice": surface_dice, "components": components}
ACCURACY: dict[str, Callable[..., list[Row]]] = {"hippocampus": hippocampus, "vessels-2p": vessels, "kidneys": kidneys}

NAMES = (*SPEED, *ACCURACY, "inference", "memory", "postprocess", "training")


def _measured(work: Callable[[], T], repeats: int) -> tuple[float, T]:
    """The median seconds of a piece of work after a warm-up, and its result."""
    result = work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def _save(path: Path, mask: NDArray[np.bool_]) -> None:
    shape = Shape3(*mask.shape)
    with filling(create_volume(path, shape=shape, dtype=np.uint8, affine=from_spacing(SPACING))) as sink:
        sink.write(Box.whole(shape), mask.view(np.uint8)[None])


def _commit() -> str | None:
    """The checkout's commit, marked where files differ from it; None outside a checkout."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
