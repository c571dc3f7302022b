"""The training step beside nnU-Net's, and what sampling and augmentation cost it: beside itself on dummy data."""

import itertools
import statistics
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from vol3d.config.tree import Config, DataSettings
from vol3d.datasets.layouts import detect
from vol3d.errors import UsageError
from vol3d.files.atomic import write_json
from vol3d.geometry.affine import from_spacing
from vol3d.network.build import NetworkSettings
from vol3d.network.stages import unet_settings_for
from vol3d.patches.augmentations import AugmentSettings
from vol3d.patches.sampling import SamplingSettings, TrainingCase
from vol3d.shapes import AXES, Shape3, Spacing
from vol3d.tasks.assemble import loss_of, network_of
from vol3d.tasks.benchmark_inference import Peer, RunScript
from vol3d.tasks.benchmark_row import Row
from vol3d.tasks.forward import native_precision
from vol3d.tasks.preparation import PreparedCase, prepare
from vol3d.tasks.reporter import Reporter
from vol3d.tasks.settings import kept_settings
from vol3d.tasks.train import train
from vol3d.tasks.training_data import batches_of, median_spacing
from vol3d.tasks.training_precision import chosen_precision
from vol3d.training.schedule import TrainingSettings
from vol3d.training.trainer import Batches, PatchBatch, Trainer
from vol3d.volume.source import ArraySource

PATCH, BATCH, FEATURES = Shape3(40, 56, 40), 9, (32, 64, 128, 256)
"""nnU-Net's plan for the hippocampus of the Decathlon."""
WARM_UP, STEPS, ROUNDS = 2, 5, 3
ONE_STEP = ("training.epochs=1", "training.steps_per_epoch=1")
ONE = Spacing(1.0, 1.0, 1.0)


def training(
    *,
    data: Path | None,
    run: Path | None,
    peer_python: Path | None,
    against: Sequence[Peer],
    script: RunScript,
    python: Path,
    reporter: Reporter,
    patch: Shape3 = PATCH,
    batch: int = BATCH,
    steps: int = STEPS,
) -> list[Row]:
    """Rows of the full pipeline beside batches that lie ready, and of our step beside nnU-Net's.

    The pipeline is that of a data set, which is preprocessed into the folder run, or of noise in memory without one.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if data is None:
        name, (cases, config) = "noise", _noise(patch, device)
    elif run is None:
        raise UsageError("benchmark training preprocesses the data set: give --run (a folder to work in) beside --data")
    else:
        name, (cases, config) = data.name, _prepared(data, run, reporter)
    rows = [pipeline(name, cases, config, device, steps=steps, reporter=reporter)]
    if "nnunet" not in against:
        return rows
    return [*rows, *_beside_nnunet(peer_python, script, python, reporter, device, patch, batch, steps)]


def pipeline(
    name: str, cases: Sequence[PreparedCase], config: Config, device: torch.device, *, steps: int, reporter: Reporter
) -> Row:
    """Our trainer's step with batches as a training makes them, and with one that lies ready, in turn.

    The ratio is the share of the speed with dummy data that is left.
    """
    network = network_of(config).to(device)
    in_all = 2 * ROUNDS * (WARM_UP + steps) + 1  # the last one is there to see the one before end
    settings = replace(config.training, stages=(), epochs=1, steps_per_epoch=in_all, max_minutes=None)
    config = replace(config, training=settings)
    precision, _ = chosen_precision(network, config, device)
    reporter.note(f"measuring the full pipeline of {name} and dummy data in {precision} ...")
    made = batches_of(cases, config, device, lambda: 0.0)
    seconds: dict[str, list[float]] = {"full": [], "dummy": []}
    trainer = Trainer(
        network,
        loss_of(config, device, median_spacing(cases)),
        _in_turn(made, seconds, steps, device),
        settings=settings,
        precision=precision,
        device=device,
        steady=config.loss.weights_at,
    )
    trainer.run(validate=None, on_event=lambda event: None)
    ours, dummy = (statistics.median(seconds[kind]) for kind in ("full", "dummy"))
    sampling = config.sampling
    assert sampling.patch != "auto" and sampling.batch != "auto"
    size = _told(sampling.patch, sampling.batch)
    told = f"{name}: {size}, {config.network.name}, {precision}: step with the full pipeline"
    return Row.timed(told, ours, dummy, "our step with dummy data")


def _in_turn(made: Batches, seconds: dict[str, list[float]], steps: int, device: torch.device) -> Batches:
    """Batches of the pipeline and one that lies ready, in turn, some of each; what a step of each took, (rounds,)."""

    def batches(first: int, part: Any) -> Iterator[PatchBatch]:
        with closing(_drawn(made(first, part))) as source:
            kept = next(source)
        numbers = itertools.count(first)
        for kind in ("full", "dummy") * ROUNDS:
            start = 0.0
            # A new pipeline, so that none works while dummies are timed, nor has a store when it is timed itself.
            with closing(_drawn(made(next(numbers), part) if kind == "full" else itertools.repeat(kept))) as source:
                for number in range(WARM_UP + steps):
                    if number == WARM_UP:
                        start = _now(device)
                    yield next(source)
            seconds[kind].append((_now(device) - start) / steps)
        yield kept

    return batches


def _drawn(batches: Iterator[PatchBatch]) -> Generator[PatchBatch]:
    yield from batches


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _prepared(data: Path, run: Path, reporter: Reporter) -> tuple[list[PreparedCase], Config]:
    """The cases and settings of a training on a data set, which is begun for it."""
    folder = run / "fold_full"
    if not (folder / "config.yaml").is_file():
        train(data, out=run, fold="full", overrides=ONE_STEP, reporter=reporter)
    config = kept_settings(Config, folder / "config.yaml")
    cases = detect(run / "cases.csv").cases
    return prepare(cases, config, run / "cache", reporter), config


def _noise(patch: Shape3, device: torch.device) -> tuple[list[PreparedCase], Config]:
    """Noise in volumes of twice the patch, and the settings that a plan would have for it."""
    rng, shape = np.random.default_rng(0), (1, *(2 * n for n in patch))
    cases = []
    for number in range(4):
        image = rng.standard_normal(shape, dtype=np.float32).astype(np.float16)
        labels = (rng.random(shape) < 0.1).astype(np.uint8)
        places = {"foreground": rng.permutation(np.argwhere(labels[0]).astype(np.int32))[:1000]}
        source, of_labels = (ArraySource(array, from_spacing(ONE)) for array in (image, labels))
        cases.append(PreparedCase(TrainingCase(f"noise_{number}", source, of_labels, places), ONE))
    features = 32 if device.type == "cuda" else 24
    config = Config(
        data=DataSettings(labels={"foreground": (1,)}, channels=("image",), mirror_pairs=()),
        sampling=SamplingSettings(patch, BATCH if device.type == "cuda" else 2),
        augmentation=AugmentSettings(AXES, quarter_turns=False),
        network=NetworkSettings("unet", features, unet_settings_for(patch, ONE, base_features=features)),
        training=TrainingSettings(),
    )
    return cases, config


def _beside_nnunet(
    peer_python: Path | None,
    script: RunScript,
    python: Path,
    reporter: Reporter,
    device: torch.device,
    patch: Shape3,
    batch: int,
    steps: int,
) -> list[Row]:
    """Our step and nnU-Net's: one network, patch, batch and number of threads, each in a process of its own."""
    if peer_python is None:
        reporter.note("not measured: nnU-Net; name an interpreter that has it with --peer-python")
        return []
    strides = [[1, 1, 1], *([2, 2, 2] for _ in FEATURES[1:])]
    job = {
        "patch": list(patch), "batch": batch, "features": list(FEATURES), "strides": strides, "classes": 3,
        "threads": torch.get_num_threads(), "warm_up": WARM_UP, "steps": steps, "device": device.type,
    }  # fmt: skip
    precisions = ["float32", *(["bfloat16"] if native_precision(device) == "bfloat16" else [])]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "job.json"
        write_json(path, job)
        reporter.note("measuring nnU-Net ...")
        peer = script(peer_python, "nnunet_training.py", str(path), "float32")
        rows = []
        for precision in precisions:
            reporter.note(f"measuring vol3d in {precision} ...")
            ours = script(python, "vol3d_training.py", str(path), precision)
            told = f"{_told(patch, batch)}, stages {'-'.join(map(str, FEATURES))}, {job['threads']} threads, vol3d "
            title = f"nnU-Net {peer['version']} as shipped"
            mine, theirs = (statistics.median(found["seconds"]) for found in (ours, peer))
            rows.append(Row.timed(f"{told}{ours['version']}: step", mine, theirs, title))
        told = "parameters of the network, ours without biases before norms"
        rows.append(Row(told, ours["value"], peer["value"], title, None, "", None))
    return rows


def _told(patch: Sequence[int], batch: int) -> str:
    return f"patch {'x'.join(map(str, patch))}, batch {batch}"
