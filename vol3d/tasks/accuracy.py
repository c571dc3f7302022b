"""Accuracy on whole data sets, from files to files: train, predict what was held out, evaluate.

A benchmark works in a run folder: what is trained or predicted there already is not done again. Last weights are
told, in which nothing was chosen on the cases that are scored, and beside them those of the best validation.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vol3d.config.tree import Config
from vol3d.datasets.cases import Case, case_sources
from vol3d.datasets.layouts import detect
from vol3d.datasets.manifest import MANIFEST, read_manifest, write_manifest
from vol3d.datasets.splits import kfold, leave_one_out
from vol3d.errors import UsageError
from vol3d.files.atomic import read_text
from vol3d.files.runs import load_checkpoint, read_records
from vol3d.geometry.affine import spacing_of
from vol3d.metrics.overlap import overlap
from vol3d.metrics.report import MEAN
from vol3d.metrics.surface import surface_dice
from vol3d.shapes import Shape3, Spacing
from vol3d.tasks.accuracy_nnunet import beside_nnunet
from vol3d.tasks.benchmark_inference import RunScript
from vol3d.tasks.benchmark_row import Row
from vol3d.tasks.cross_validate import CrossValidation, FoldScores, OneOf, cross_validate
from vol3d.tasks.phantom import phantom
from vol3d.tasks.plugins import ENVIRONMENT
from vol3d.tasks.reporter import Reporter
from vol3d.tasks.settings import kept_settings
from vol3d.tasks.train import train
from vol3d.training.course import Course
from vol3d.volume.source import read_all

LEVELS = 1.0 - np.logspace(-3.5, -0.3, 40)
"""Shares of voxels below the plain thresholds that are tried: the best of them serves as the peer."""

PUBLISHED = {
    "0": (0.9005, 0.8840),
    "1": (0.8945, 0.8786),
    "2": (0.8992, 0.8810),
    "3": (0.8976, 0.8832),
    "4": (0.9009, 0.8847),
}
"""Dice of the anterior and posterior hippocampus by fold: nnU-Net v2 plain, 1000 epochs on an H100."""

VARIANTS: dict[str, tuple[str, ...]] = {
    "Dice + CE": (),
    "Dice + CE + surface Dice": ("loss.terms={dice: 1.0, cross_entropy: 1.0, surface_dice: 1.0}",),
    "Dice + CE + skeleton recall": ("loss.terms={dice: 1.0, cross_entropy: 1.0, skeleton_recall: 1.0}",),
    "Dice + CE + Boundary DoU": ("loss.terms={dice: 1.0, cross_entropy: 1.0, boundary_dou: 1.0}",),
}
"""What vessels are learned with, side by side: settings by a name for the rows."""

SMALL = (
    "network.base_features=16",
    "sampling.patch={z: 16, y: 64, x: 64}",
    "sampling.batch=2",
    "training.validate_every=1000",
    "inference.mirror_axes=[]",
    "inference.overlap=0.25",
)
"""What lets two cores train and predict 72 times within some hours; the variants have it in common."""

PHANTOM_SHAPE = Shape3(64, 128, 128)

SHORT_TRAINING = (
    "training.max_minutes=3",
    "training.learning_rate=3e-3",
    "training.ema=0.99",
    "network.base_features=16",
    "sampling.foreground=0.6",
)
"""As in configs/kidney.yaml: what makes the most of few steps."""


def hippocampus(*, data: Path, run: Path, reporter: Reporter, peer: RunScript | None = None) -> list[Row]:
    """MSD Task04: every fold of the published split that is in run; where none is, fold 0 trains for 30 minutes.

    peer runs a script of tools/peers where nnU-Net is installed: it learns each fold for the minutes that ours took.
    """
    for name in [f.name.removeprefix("fold_") for f in sorted(run.glob("fold_[0-9]*"))] or ["0"]:
        _train(data, run, name, ("training.max_minutes=30", "training.validate_every=10"), reporter)
    found = cross_validate(run, reporter=reporter)
    held_out = {str(number): set(names) for number, names in enumerate(kfold(detect(data).cases))}
    rows: list[Row] = []
    for weights, folds in found.weights.items():
        for fold in folds:
            published = {case for case, _ in fold.scores.cases} == held_out.get(fold.fold)
            rows += _hippocampus_rows(weights, fold, PUBLISHED[fold.fold] if published else None)
    for fold in found.weights["last"]:
        rows.append(_training_row(run / f"fold_{fold.fold}", f"fold {fold.fold}: "))
        if peer:
            rows += beside_nnunet(run, fold, *_last(run / f"fold_{fold.fold}"), peer=peer, reporter=reporter)
    return rows


def _hippocampus_rows(weights: OneOf, fold: FoldScores, published: tuple[float, float] | None) -> list[Row]:
    anterior, posterior = (label for label in fold.scores.summary if label != MEAN)
    peers = {MEAN: None if published is None else sum(published) / 2}
    if published is not None:
        peers |= dict(zip((anterior, posterior), published, strict=True))
    rows = []
    for label, name in ((anterior, "anterior"), (posterior, "posterior"), (MEAN, "mean of both")):
        ours = fold.scores.summary[label]["dice"]
        what = f"fold {fold.fold}, {weights} weights, {ours.n} cases, {name}: Dice"
        told = "" if published is None else "nnU-Net v2 plain, 1000 epochs on an H100 (published)"
        rows.append(Row(what, ours.mean, peers.get(label), told, None, "Dice", None))
    return rows


def vessels(
    *,
    data: Path,
    run: Path,
    reporter: Reporter,
    variants: Mapping[str, Sequence[str]] = VARIANTS,
    random_seeds: Sequence[int] = (0, 1, 2),
    epochs: int = 4,
) -> list[Row]:
    """Two-photon vessels, leaving one stack out at a time: variants side by side, over several seeds of chance.

    Every training has so many epochs of 100 steps: all see as many samples, whatever else the machine does.
    """
    table = _with_spacing(data, run / "vessels.csv")
    cases = detect(table).cases
    plain = [_best_threshold(case) for case in cases]
    peers = {metric: float(np.mean([found[metric] for found in plain])) for metric in plain[0]}
    rows = []
    settings = ("data.split=leave_one_out", f"training.epochs={epochs}", f"cache.folder={run / 'cache'}", *SMALL)
    for name, own in variants.items():
        found = {}
        for seed in random_seeds:
            folder = run / re.sub(r"\W+", "_", f"{name} {seed}".lower())
            for fold in range(len(leave_one_out(cases))):
                _train(table, folder, str(fold), (*settings, *own, f"training.random_seed={seed}"), reporter)
            found[folder] = cross_validate(folder, reporter=reporter)
        rows += _over_seeds(name, found, peers)
    return rows


def _over_seeds(name: str, found: Mapping[Path, CrossValidation], peers: Mapping[str, float]) -> list[Row]:
    """The mean over stacks of every seed as one: their mean, lowest and highest."""
    rows = []
    for weights in ("last", "best"):
        summaries = [one.all(weights).summary[MEAN] for one in found.values() if weights in one.weights]
        for metric in ("surface_dice", "dice", "recall", "precision") if summaries else ():
            seeds = [value for s in summaries if (value := s[metric].mean) is not None]
            what = f"{name}, {weights} weights: {metric.replace('_', ' ')}, mean of {len(seeds)} seeds"
            peer = "best plain threshold of each stack" if metric in peers else ""
            mean = float(np.mean(seeds))
            rows.append(Row(what, mean, peers.get(metric), peer, None, "", None, min(seeds), max(seeds)))
    minutes = [_training_row(fold, f"{name}, a fold: ") for run in found for fold in sorted(run.glob("fold_*"))]
    taken = [row.ours for row in minutes if row.ours is not None]
    return [*rows, replace(minutes[0], ours=float(np.mean(taken)), low=min(taken), high=max(taken))]


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
        kidney_data, kidney_run, prefix = data / f"seed_{seed}", run / f"seed_{seed}", f"seed {seed}, "
        if not kidney_data.is_dir():
            phantom(kidney_data, shape=PHANTOM_SHAPE, count=4, random_seed=seed, layout="nifti", reporter=reporter)
        _train(kidney_data, kidney_run, "0", SHORT_TRAINING, reporter)
        found = cross_validate(kidney_run, reporter=reporter)
        for weights in found.weights:
            rows += _beside_thresholds(found, weights, kidney_run, f"{prefix}{weights} weights, ")
        rows += _steps_rows(kidney_run, found, prefix, reporter)
        rows += [_training_row(kidney_run / f"fold_{fold.fold}", prefix) for fold in found.weights["last"]]
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


def _steps_rows(run: Path, plain: CrossValidation, prefix: str, reporter: Reporter) -> list[Row]:
    rows = []
    before = plain.all("last").summary[MEAN]["dice"].mean
    for name, steps in STEPS.items():
        overrides = [f"postprocess.steps={steps}"]
        out = run / f"out_of_fold with {name}"
        found = cross_validate(run, out=out, weights=("last",), overrides=overrides, reporter=reporter)
        after = found.all("last").summary[MEAN]["dice"].mean
        rows.append(Row(f"{prefix}with {name}: Dice", after, before, "the same model without", None, "Dice", None))
    return rows


def _train(data: Path, run: Path, fold: str, overrides: Sequence[str], reporter: Reporter) -> None:
    """Train a fold that is not trained yet; one that was begun goes on as it was begun."""
    folder = run / f"fold_{fold}"
    begun = (folder / "config.yaml").is_file()
    if not begun or not _finished(folder):
        train(data, out=run, overrides=() if begun else overrides, fold=fold, resume=True, reporter=reporter)


def _finished(folder: Path) -> bool:
    """Whether a fold's training came to its end; one that has no state any more is taken to have."""
    state = folder / "state.pt"
    if not state.is_file():
        return (folder / "weights_last.pt").is_file()
    course = Course(kept_settings(Config, folder / "config.yaml").training)
    course.load_state(load_checkpoint(state)["trainer"])
    return course.progress >= 1.0


def _last(folder: Path) -> tuple[int, float]:
    """The last step of a training that was told, and its seconds."""
    records = [record for record in read_records(folder / "metrics.jsonl") if "seconds" in record]
    return max(((int(r["step"]), float(r["seconds"])) for r in records), default=(0, 0.0))


def _training_row(folder: Path, prefix: str) -> Row:
    step, seconds = _last(folder)
    device = json.loads(read_text(folder / ENVIRONMENT))["device_name"]
    return Row(f"{prefix}training, {step} steps on {device}", seconds / 60, None, "", None, "min", None)


def _beside_thresholds(found: CrossValidation, weights: OneOf, run: Path, prefix: str = "") -> list[Row]:
    rows = []
    cases = {case.name: case for case in read_manifest(run / MANIFEST).cases}
    for name, scores in found.all(weights).cases:
        peers = _best_threshold(cases[name])
        for metric in ("surface_dice", "dice"):
            what = f"{prefix}{name}: {metric.replace('_', ' ')}"
            rows.append(Row(what, scores.values[metric], peers[metric], "best plain threshold for it", None, "", None))
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
        "surface_dice": surface_dice(mask, truth, spacing=spacing) or 0.0,
    }
