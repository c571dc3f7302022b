"""The sliding window beside its peers': one network, one volume, one grid of windows, each in a process of its own."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from vol3d.datasets.given import given_image
from vol3d.errors import UsageError
from vol3d.files.atomic import write_json
from vol3d.preprocess.pipeline import image_view
from vol3d.tasks.benchmark_row import Row
from vol3d.tasks.forward import native_precision
from vol3d.tasks.models import Model, load_models
from vol3d.tasks.reporter import Reporter
from vol3d.volume.source import read_all

Peer = Literal["monai", "nnunet"]
RunScript = Callable[..., dict[str, Any]]
REPEATS = 2


@dataclass(frozen=True)
class _Measured:
    """What one process found."""

    seconds: float
    forward: float | None
    peak_mb: float
    version: str
    labels: NDArray[np.uint8]
    as_nnunet: NDArray[np.uint8]
    """With nnU-Net's grid of windows, where it is ours."""


def inference(
    *,
    data: Path,
    run: Path,
    peer_python: Path | None,
    against: Sequence[Peer],
    size: int,
    script: RunScript,
    python: Path,
    reporter: Reporter,
) -> list[Row]:
    """A trained run's first model over a volume of size^3, made of an image by repeating it in mirrors.

    script runs a file of tools/peers under an interpreter and gives its JSON; python is ours, which has MONAI.
    """
    model = load_models(run, weights="last", overrides=())[0]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with TemporaryDirectory() as folder:
        job = Path(folder)
        _write_job(job, model, _volume(model, data, size), device)

        def measured(name: str, interpreter: Path, precision: str) -> _Measured:
            reporter.note(f"measuring {name} in {precision} ...")
            answer = job / f"{name}-{precision}.npy"
            found = script(interpreter, f"{name}_inferer.py", folder, precision, str(answer))
            forward = statistics.median(found["forward"]) if "forward" in found else None
            labels, even = np.load(answer), answer.with_suffix(".nnunet.npy")
            return _Measured(
                statistics.median(found["seconds"]),
                forward,
                found["value"],
                found["version"],
                labels,
                np.load(even) if even.is_file() else labels,
            )

        ours = {precision: measured("vol3d", python, precision) for precision in ("auto", "float32")}
        peers: list[tuple[str, _Measured]] = []
        if "monai" in against:
            peers.append(("MONAI {} as shipped", measured("monai", python, "float32")))
            if native_precision(torch.device(device)) == "bfloat16":
                peers.append(("MONAI {} in bfloat16, channels last", measured("monai", python, "bfloat16")))
        if "nnunet" in against:
            if peer_python is None:
                reporter.note("not measured: nnU-Net; name an interpreter that has it with --peer-python")
            else:
                peers.append(("nnU-Net {} as shipped", measured("nnunet", peer_python, "float32")))
    told = f"{size}^3, window {'x'.join(map(str, model.window))}, {run.name}"
    return _rows(told, ours, peers)


def _write_job(job: Path, model: Model, volume: NDArray[np.float32], device: str) -> None:
    """What every process is given."""
    torch.save(model.network, job / "network.pt")
    np.save(job / "volume.npy", volume)
    about = {
        "window": list(model.window),
        "overlap": 0.5,
        "repeats": REPEATS,
        "batch": 1,
        "channels": model.plan.data.schema().channels,
        "device": device,
    }
    write_json(job / "job.json", about)


def _rows(told: str, ours: dict[str, _Measured], peers: Sequence[tuple[str, _Measured]]) -> list[Row]:
    rows = []
    for precision, mine in ours.items():
        name = f"{told}, {mine.version}"
        assert mine.forward is not None
        rows.append(Row.timed(f"{name}: beside its forwards alone", mine.seconds, mine.forward, "our forwards", 0.0))
        for peer, theirs in peers:
            title = peer.format(theirs.version)
            rows.append(Row.timed(name, mine.seconds, theirs.seconds, title))
            # Masks are compared on the peer's grid of windows; ours is MONAI's.
            agreement = dice(mine.as_nnunet if "nnU-Net" in title else mine.labels, theirs.labels)
            rows.append(Row(f"{name}: Dice between the masks", agreement, 1.0, title, None, "Dice", None))
            if precision == "auto":
                peak = f"{name}: peak of resident memory"
                rows.append(Row(peak, mine.peak_mb, theirs.peak_mb, title, None, "MiB", None))
    return rows


def dice(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """The smallest Dice over the label values that either has; 1 where neither has any."""
    values = sorted(({*np.unique(one)} | {*np.unique(other)}) - {0})
    scores = [2 * np.sum((one == v) & (other == v)) / (np.sum(one == v) + np.sum(other == v)) for v in values]
    return float(min(scores, default=1.0))


def _volume(model: Model, data: Path, size: int) -> NDArray[np.float32]:
    """The image as the network sees it, (C, size, size, size), repeated in mirrors and cut."""
    if not data.exists():
        raise UsageError(f"no image {data}: --data names one that the run can predict")
    voxels: NDArray[np.float32] = read_all(image_view(given_image(data), model.plan.preprocess))
    missing = [(0, max(0, size - n)) for n in voxels.shape[1:]]
    padded = np.pad(voxels, [(0, 0), *missing], mode="symmetric")
    return np.ascontiguousarray(padded[:, :size, :size, :size])
