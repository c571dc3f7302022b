"""Train a run on a data set."""

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vol3d.config.dump import dump
from vol3d.config.load import load
from vol3d.config.tree import Config, DataSettings
from vol3d.datasets.cases import Case
from vol3d.datasets.dataset import Dataset, counted
from vol3d.datasets.dictionaries import dataset_of
from vol3d.datasets.fingerprint import Fingerprint, fingerprint
from vol3d.datasets.given import PathLike
from vol3d.datasets.layouts import detect
from vol3d.datasets.manifest import MANIFEST, write_manifest
from vol3d.datasets.splits import folds_of
from vol3d.errors import InputError, UsageError, some
from vol3d.files.atomic import read_text
from vol3d.files.dicom import shows_upright_body
from vol3d.files.lock import lock
from vol3d.files.runs import CASCADE
from vol3d.tasks.assemble import check_edges, fill, ignored_value
from vol3d.tasks.cascade import Cascade, with_cascade
from vol3d.tasks.fold import FoldTraining, TrainResult
from vol3d.tasks.initial_weights import read_initial_weights, with_network_of
from vol3d.tasks.plugins import differing, lacking
from vol3d.tasks.preparation import measure
from vol3d.tasks.reporter import Reporter, Silent
from vol3d.tasks.run import Run, load_run
from vol3d.tasks.signals import stop_flag
from vol3d.tasks.symmetries import mirrors_left_out
from vol3d.tasks.torchrun import BY_ITSELF, Launch


def train(
    dataset: PathLike | Sequence[Mapping[str, Any]],
    *,
    out: PathLike,
    config_file: PathLike | None = None,
    overrides: Sequence[str] = (),
    fold: str | int = "0",
    resume: bool = False,
    init: PathLike | None = None,
    cascade: PathLike | None = None,
    device: str = "auto",
    trust_pickle: bool = False,
    dry_run: bool = False,
    reporter: Reporter | None = None,
    launch: Launch = BY_ITSELF,
) -> list[TrainResult]:
    """Train one fold, each fold, or on all cases (fold "full"), as vol3d-train does; the folders are out/fold_K.

    dataset is a folder, a table or a list of cases (docs/formats.md), or dictionaries
    ``[{"image": path or [path per channel], "label": path}, ...]``, which may also name organ_mask, name, group,
    source and spacing. config_file is YAML; overrides are words like training.max_minutes=30. resume continues
    what is in out; init is a run, a checkpoint, nnU-Net's results or a file with torchvision's ResNet or MONAI's
    SwinUNETR to begin with (docs/configuration.md), trust_pickle opens it even if it can run code. cascade is an
    earlier run, of all its folds, whose probabilities become channels; its models are copied into the folders. device
    is auto, cpu, cuda or cuda:N. dry_run only tells the reporter the plan. launch says which process this is of those
    that torchrun began (vol3d.tasks.torchrun): only the first one writes, tells, and returns results.

    Raises:
        UsageError, InputError, CheckpointError, DivergedError, ResourceError: see their classes.
        StoppedError: a signal came; the state was saved and resume=True continues.
    """
    resume, first = resume or launch.again, launch.team.first
    reporter, out, fold = (reporter or Silent()) if first else Silent(), Path(out), str(fold)
    text = _settings_of(Path(config_file)) if config_file else None
    config = load(Config, text=text, name=str(config_file or "defaults"), overrides=overrides)
    chosen = launch.device(device)
    begun = _begun(out, fold) if resume else []
    if begun:
        # The data set is read as it was at the beginning, whatever need not be said again.
        config = replace(config, data=_stored(begun[0], overrides).data)
    earlier = _earlier(cascade, begun, chosen)
    config = replace(config, data=with_cascade(config.data, earlier))
    found = counted(_found(dataset, config.data))
    reporter.note(found.note)
    for warning in found.warnings:
        reporter.warn(warning)
    cases = [c for c in found.cases if c.label is not None]
    if not cases:
        raise InputError(f"{found.path}: no case has a label, so there is nothing to learn from")
    folds = _folds(fold, config, cases)
    if earlier is not None:
        Cascade(earlier, cases).check(found.channel_names)
    started = launch.same({name for name in folds if (_folder(out, name) / "config.yaml").is_file()})
    if started and not (resume or dry_run):
        raise UsageError(f"{_folder(out, min(started))} holds a run already: give --resume, or another --out")
    initial = None
    if init and any(not (_folder(out, name) / "state.pt").is_file() for name in folds):
        initial = read_initial_weights(Path(init), trust_pickle=trust_pickle)
        config = with_network_of(config, initial, reporter)
    if dry_run or started != set(folds):
        grows = config.sampling.batch == "auto"
        config = launch.agreed(partial(_planned, config, found, cases, chosen, reporter))
        config = launch.shared(config, grows=grows)
        if earlier is not None:
            Cascade(earlier, cases).check_mirrors(config)
    if dry_run:
        reporter.note(dump(config))
        return []
    configs = {n: launch.shared(_stored(_folder(out, n), overrides)) if n in started else config for n in folds}
    if first:
        write_manifest(out / MANIFEST, cases, channel_names=found.channel_names)
    results = []
    for name in folds:
        folder = _folder(out, name)
        if told := differing(folder):
            reporter.warn(told)
        with lock(folder) if first else nullcontext(), stop_flag() as stop:
            training = FoldTraining(folder, configs[name], cases, chosen, reporter, stop, earlier, launch.team)
            results.append(training.train(name, initial))
    return results if first else []


def _settings_of(path: Path) -> str:
    try:
        return read_text(path)
    except InputError as error:  # the command is wrong, not the data
        raise UsageError(str(error)) from error


def _found(dataset: PathLike | Sequence[Mapping[str, Any]], data: DataSettings) -> Dataset:
    channels = None if data.channels == "auto" else data.channels
    if isinstance(dataset, str | os.PathLike):
        return detect(Path(dataset), channels=channels, slices=data.slices)
    listed = dataset_of(dataset)
    return listed if channels is None else listed.of_channels(channels)


def _folds(fold: str, config: Config, cases: Sequence[Case]) -> list[str]:
    if fold == "full":
        return [fold]
    found = folds_of(cases, split=config.data.split, folds=config.data.folds)
    known = [str(k) for k, _ in enumerate(found)]
    if fold != "each" and fold not in known:
        raise UsageError(f"--fold {fold}: expected {some(known)}, each or full")
    return known if fold == "each" else [fold]


def _folder(out: Path, fold: str) -> Path:
    return out / f"fold_{fold}"


def _begun(out: Path, fold: str) -> list[Path]:
    """The folders of these folds that hold a run already."""
    folders = sorted(out.glob("fold_[0-9]*")) if fold == "each" else [_folder(out, fold)]
    return [folder for folder in folders if (folder / "config.yaml").is_file()]


def _earlier(given: PathLike | None, begun: Sequence[Path], device: torch.device) -> Run | None:
    """The earlier run of a cascade: the one given, which is the one that was begun with, or that one's copy.

    Precision and batch are given, not measured, so that a resumed training sees the same.
    """

    def loaded(run: PathLike) -> Run:
        return load_run(run, device=str(device), precision="float32", overrides=["inference.batch=2"])

    copies = [folder / CASCADE for folder in begun if (folder / CASCADE).is_dir()]
    if given is None:
        return loaded(copies[0]) if copies else None
    run = loaded(given)
    identities = {model.identity for model in run.models}
    for folder in begun:
        if folder / CASCADE not in copies or identities != {m.identity for m in loaded(folder / CASCADE).models}:
            raise UsageError(f"{folder} was not begun with --cascade {given}: leave that out, or give another --out")
    return run


def _stored(folder: Path, overrides: Sequence[str]) -> Config:
    """The configuration that a run was begun with, changed where a training may change on its way."""
    path = folder / "config.yaml"
    text = read_text(path)
    try:
        begun = load(Config, text=text, name=str(path))
    except UsageError as error:
        told = lacking(folder)
        raise UsageError(f"{error}; {told}" if told else str(error)) from error
    # What was left to the plan has its answer by now.
    wanted = [o for o in overrides if o.partition("=")[2].strip() != "auto"]
    config = load(Config, text=text, name=str(path), overrides=wanted)
    for section in ("data", "preprocess", "network"):
        if getattr(begun, section) != getattr(config, section):
            raise UsageError(
                f"{folder} was begun with other {section} settings: leave {section}.* as it was, or give another --out"
            )
    edges = {"sampling.patch": config.sampling.patch, "inference.window": config.inference.window}
    check_edges(config.network, {**edges, **config.training.patches})
    return config


def _planned(config: Config, found: Dataset, cases: Sequence[Case], device: torch.device, reporter: Reporter) -> Config:
    names = found.label_names
    try:
        facts = fingerprint(measure(cases, reporter, ignore=ignored_value(config.data, names)))
    except ValueError as error:
        raise InputError(str(error)) from error
    anatomical = any(case.placed for case in facts.cases)
    turns = config.augmentation.quarter_turns == "auto" and not anatomical
    if turns and any(shows_upright_body(path) for case in cases for path in case.images):
        config = replace(config, augmentation=replace(config.augmentation, quarter_turns=False))
    filled = fill(
        config,
        facts,
        label_names=names,
        channel_names=found.channel_names,
        anatomical=anatomical,
        device=device,
    )
    _check_regions(filled.data, facts, reporter)
    if filled.data.mirror_pairs:
        pairs = ", ".join(" and ".join(pair) for pair in filled.data.mirror_pairs)
        reporter.note(f"change places in a mirror along x: {pairs}")
    if left_out := mirrors_left_out(config, filled):
        reporter.note(left_out)
    return filled


def _check_regions(data: DataSettings, found: Fingerprint, reporter: Reporter) -> None:
    """Tell of regions that no case has and of values that no region has; refuse if that is all there is."""
    assert data.labels != "auto"
    occurring, wanted = set(found.label_values), {value for values in data.labels.values() for value in values}
    absent = [name for name, values in data.labels.items() if occurring.isdisjoint(values)]
    rest = ", ".join(map(str, sorted(occurring - wanted)))
    if len(absent) == len(data.labels):
        raise InputError(
            f"no case has a voxel of the regions {', '.join(absent)} (data.labels, or those of dataset.json): the "
            f"labels hold the values {rest}; say with data.labels what they mean"
        )
    if absent:
        reporter.warn(f"nothing can be learned of what no case has: {', '.join(absent)}")
    if rest:
        reporter.note(f"label values in no region, taken for background: {rest}")
