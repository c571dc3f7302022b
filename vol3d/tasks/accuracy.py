"""Accuracy on whole data sets, from files to files: train, predict what was held out, evaluate.

A benchmark works in a run folder: what is trained or predicted there already is not done again.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.datasets.cases import Case, case_sources
from vol3d.datasets.layouts import detect
from vol3d.datasets.manifest import write_manifest
from vol3d.errors import UsageError
from vol3d.files.atomic import read_text
from vol3d.geometry.affine import spacing_of
from vol3d.metrics.overlap import overlap
from vol3d.metrics.report import Scores
from vol3d.metrics.surface import surface_dice_tolerance_0
from vol3d.shapes import Shape3, Spacing
from vol3d.tasks.benchmark_row import Row
from vol3d.tasks.evaluate import Evaluation, evaluate
from vol3d.tasks.phantom import phantom
from vol3d.tasks.predict import predict
from vol3d.tasks.reporter import Reporter
from vol3d.tasks.run import load_run
from vol3d.tasks.train import train
from vol3d.volume.source import read_all

LEVELS = 1.0 - np.logspace(-3.5, -0.3, 40)
"""Shares of voxels below the plain thresholds that are tried: the best of them serves as the peer."""

PHANTOM_SHAPE = Shape3(64, 128, 128)

SHORT_TRAINING = (
    "training.max_minutes=3",
    "training.learning_rate=3e-3",
    "training.ema=0.99",
    "network.base_features=16",
    "sampling.foreground=0.6",
)
"""As in configs/kidney.yaml: what makes the most of few steps."""


def hippocampus(*, data: Path, run: Path, reporter: Reporter) -> list[Row]:
    """MSD Task04, fold 0 of the published split, last weights, 30 minutes of training."""
    found = _trained_and_scored(data, run, ("training.max_minutes=30", "training.validate_every=10"), reporter)
    published = "nnU-Net v2 plain, 1000 epochs on an H100 (published)"
    rows = []
    for label, name, peer in (
        ("label_1", "anterior", 0.9005),
        ("label_2", "posterior", 0.8840),
        ("mean", "mean of both", 0.89225),
    ):
        ours = found.summary[label]["dice"]
        rows.append(Row(f"fold 0, {ours.n} cases, {name}: Dice", ours.mean, peer, published, None, "Dice", None))
    return [*rows, _seconds_row(run)]


def vessels(*, data: Path, run: Path, reporter: Reporter) -> list[Row]:
    """Two-photon vessels: four stacks to learn from, two to predict, beside the best single threshold of each."""
    # Without mirrors: 432 windows eight times over take longer than they gain on two cores.
    overrides = ("data.folds=3", "training.max_minutes=12", "training.validate_every=10", "inference.mirror_axes=[]")
    table = _with_spacing(data, run / "vessels.csv")
    found = _trained_and_scored(table, run, overrides, reporter)
    return [*_beside_thresholds(found, _held_out(table, run)), _seconds_row(run)]


def _with_spacing(data: Path, table: Path) -> Path:
    """The stacks with the voxel sizes that lie beside them as OME metadata; one has none and takes the median."""
    found, sizes = detect(data), {}
    for case in found.cases:
        metadata = data / "metadata" / f"{case.name}_metadata.xml.txt"
        if metadata.is_file():
            microns = dict(re.findall(r'PhysicalSize([XYZ])="([0-9.]+)"', read_text(metadata, encoding="latin-1")))
            sizes[case.name] = Spacing(*(float(microns[axis]) / 1000 for axis in "ZYX"))
    if not sizes:
        raise UsageError(f"no voxel sizes in {data / 'metadata'}")
    median = Spacing(*(float(v) for v in np.median(list(sizes.values()), axis=0)))
    cases = [replace(case, spacing=sizes.get(case.name, median)) for case in found.cases]
    write_manifest(table, cases, channel_names=found.channel_names)
    return table


def kidneys(*, data: Path, run: Path, reporter: Reporter) -> list[Row]:
    """Synthetic kidneys of three random seeds: the model, what each step mends, the best plain threshold."""
    rows: list[Row] = []
    for seed in (0, 1, 2):
        kidney_data, kidney_run = data / f"seed_{seed}", run / f"seed_{seed}"
        if not kidney_data.is_dir():
            phantom(kidney_data, shape=PHANTOM_SHAPE, count=4, random_seed=seed, layout="nifti", reporter=reporter)
        found = _trained_and_scored(kidney_data, kidney_run, SHORT_TRAINING, reporter)
        cases = _held_out(kidney_data, kidney_run)
        rows += _beside_thresholds(found, cases, prefix=f"seed {seed}, ")
        rows += _steps_rows(kidney_run, cases, found, f"seed {seed}, ", reporter)
    return rows


HYSTERESIS = "{hysteresis: {seed_threshold: 0.95, grow_threshold: 0.4, min_seed_voxels: 20}}"
GROWTH = "{grow_slices: {tolerance: 0.05, min_probability: 0.3}}"
STEPS = {
    "organ gate": "[organ_gate]",
    "hysteresis": f"[{HYSTERESIS}]",
    "hysteresis and gate": f"[{HYSTERESIS}, organ_gate]",
    "hysteresis, growth and gate": f"[{HYSTERESIS}, {GROWTH}, organ_gate]",
}
"""Chosen on the kidney that seed 0 holds out; seeds 1 and 2 had no say."""


def _steps_rows(run: Path, cases: Sequence[Case], plain: Evaluation, prefix: str, reporter: Reporter) -> list[Row]:
    rows = []
    before = plain.summary["mean"]["dice"].mean
    for name, steps in STEPS.items():
        overrides = [f"postprocess.steps={steps}"]
        found = _predicted_and_scored(cases, run, f"predictions {name}", reporter, overrides, gated="gate" in steps)
        after = found.summary["mean"]["dice"].mean
        rows.append(Row(f"{prefix}with {name}: Dice", after, before, "the same model without", None, "Dice", None))
    return rows


def _trained_and_scored(data: Path, run: Path, overrides: Sequence[str], reporter: Reporter) -> Evaluation:
    train(data, out=run, overrides=overrides, resume=True, reporter=reporter)
    found = _predicted_and_scored(_held_out(data, run), run, "predictions", reporter)
    found.write(run / "evaluation")
    return found


def _predicted_and_scored(
    cases: Sequence[Case], run: Path, name: str, reporter: Reporter, overrides: Sequence[str] = (), gated: bool = False
) -> Evaluation:
    schema = load_run(run / "fold_0").schema
    scores: list[tuple[str, Scores]] = []
    for case in cases:
        if case.label is None:
            raise UsageError(f"case {case.name} has no label to score against")
        result = predict(
            case.images[0],
            models=[run / "fold_0"],
            out=run / name,
            organ_mask=case.organ_mask if gated else None,
            spacing=case.spacing,
            overrides=overrides,
            reporter=reporter,
        )
        output = Path(result.volumes[0]["output"])
        scores += evaluate(output, case.label, labels=schema, spacing=case.spacing, reporter=reporter).cases
    return Evaluation(tuple(scores))


def _held_out(data: Path, run: Path) -> list[Case]:
    names = set(json.loads(read_text(run / "fold_0" / "split.json"))["validation"])
    return [case for case in detect(data).cases if case.name in names]


def _beside_thresholds(found: Evaluation, cases: Sequence[Case], prefix: str = "") -> list[Row]:
    rows = []
    peers = {case.name: _best_threshold(case) for case in cases}
    for name, scores in found.cases:
        for metric in ("surface_dice", "dice"):
            ours = scores.values[metric]
            what = f"{prefix}{name}: {metric.replace('_', ' ')}"
            rows.append(Row(what, ours, peers[name][metric], "best plain threshold for it", None, "", None))
    return rows


def _best_threshold(case: Case) -> dict[str, float]:
    """The best Dice and the best surface Dice of any threshold of the stored grey values, chosen on the truth."""
    image, labels = case_sources(case)
    if labels is None:
        raise UsageError(f"case {case.name} has no label to score against")
    values, truth = read_all(image)[0], read_all(labels)[0] > 0
    spacing = spacing_of(image.affine)
    found = [_scores(values >= level, truth, spacing) for level in np.unique(np.quantile(values, LEVELS))]
    return {metric: max(scores[metric] for scores in found) for metric in ("dice", "surface_dice")}


def _scores(mask: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Spacing) -> dict[str, float]:
    return {
        "dice": overlap(mask, truth).dice or 0.0,
        "surface_dice": surface_dice_tolerance_0(mask, truth, spacing) or 0.0,
    }


def _seconds_row(run: Path) -> Row:
    records: list[dict[str, Any]] = [
        json.loads(line) for line in read_text(run / "fold_0" / "metrics.jsonl").splitlines()
    ]
    last = max(records, key=lambda r: float(r["seconds"]))
    return Row(f"training, {last['step']} steps", last["seconds"] / 60, None, "", None, "min", None)
