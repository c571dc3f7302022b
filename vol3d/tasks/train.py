"""Train a run on a data set."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vol3d.config.dump import comments_of
from vol3d.config.tree import Config
from vol3d.datasets.cases import Case
from vol3d.datasets.given import PathLike
from vol3d.datasets.manifest import MANIFEST, write_manifest
from vol3d.datasets.splits import folds_of
from vol3d.errors import UsageError, some
from vol3d.files.atomic import read_text
from vol3d.files.lock import lock
from vol3d.files.runs import CASCADE
from vol3d.tasks.assemble import check_edges
from vol3d.tasks.budget import Budget
from vol3d.tasks.cascade import Cascade, with_cascade
from vol3d.tasks.dataset_plan import found_in, plan_training
from vol3d.tasks.fold import FoldTraining, TrainResult
from vol3d.tasks.initial_weights import read_initial_weights, with_network_of
from vol3d.tasks.plugins import differing
from vol3d.tasks.reporter import Reporter, Silent
from vol3d.tasks.run import Run, load_run
from vol3d.tasks.settings import config_of, kept_settings
from vol3d.tasks.signals import stop_flag
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
    memory_gb: float | None = None,
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
    is auto, cpu, cuda or cuda:N; memory_gb is what the plan may take of its memory for a step. dry_run only tells the
    reporter the plan. launch says which process this is of those that torchrun began (vol3d.tasks.torchrun): only the
    first one writes, tells, and returns results.

    Raises:
        UsageError, InputError, CheckpointError, DivergedError, ResourceError: see their classes.
        StoppedError: a signal came; the state was saved and resume=True continues.
    """
    resume, first = resume or launch.again, launch.team.first
    reporter, out, fold = (reporter or Silent()) if first else Silent(), Path(out), str(fold)
    config = config_of(config_file, overrides)
    chosen = launch.device(device)
    begun = _begun(out, fold) if resume else []
    if begun:
        # The data set is read as it was at the beginning, whatever need not be said again.
        config = replace(config, data=_stored(begun[0], overrides).data)
    earlier = _earlier(cascade, begun, chosen)
    config = replace(config, data=with_cascade(config.data, earlier))
    found, cases = found_in(dataset, config.data, reporter)
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
    why: Mapping[str, str] = {}
    if dry_run or started != set(folds):
        grows = config.sampling.batch == "auto"
        budget = Budget.of(chosen, memory_gb)
        planned = launch.agreed(partial(plan_training, config, found, cases, reporter, budget=budget, device=chosen))
        config, why = launch.shared(planned.config, grows=grows), planned.why
        if earlier is not None:
            Cascade(earlier, cases).check_mirrors(config)
    if dry_run:
        reporter.note(planned.text())
        return []
    configs = {n: launch.shared(_stored(_folder(out, n), overrides)) if n in started else config for n in folds}
    reasons = {n: _reasons(_folder(out, n), overrides) if n in started else why for n in folds}
    if first:
        write_manifest(out / MANIFEST, cases, channel_names=found.channel_names)
    results = []
    for name in folds:
        folder = _folder(out, name)
        if told := differing(folder):
            reporter.warn(told)
        with lock(folder) if first else nullcontext(), stop_flag() as stop:
            training = FoldTraining(
                folder, configs[name], cases, chosen, reporter, stop, earlier, launch.team, reasons[name]
            )
            results.append(training.train(name, initial))
    return results if first else []


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
    begun = kept_settings(Config, path)
    # What was left to the plan has its answer by now.
    wanted = [o for o in overrides if o.partition("=")[2].strip() != "auto"]
    config = kept_settings(Config, path, overrides=wanted)
    for section in ("data", "preprocess", "network"):
        if getattr(begun, section) != getattr(config, section):
            raise UsageError(
                f"{folder} was begun with other {section} settings: leave {section}.* as it was, or give another --out"
            )
    if (kept := begun.training.optimiser) != config.training.optimiser:
        raise UsageError(
            f"{folder} was begun with training.optimiser={kept}, whose state another cannot take: leave it as it was, "
            f"or begin another --out with --init {folder}"
        )
    edges = {"sampling.patch": config.sampling.patch, "inference.window": config.inference.window}
    check_edges(config.network, {**edges, **config.training.patches})
    return config


def _reasons(folder: Path, overrides: Sequence[str]) -> dict[str, str]:
    """What a run's configuration says of its choices, less those that are changed now."""
    changed = {override.partition("=")[0] for override in overrides}
    told = comments_of(read_text(folder / "config.yaml"))
    return {key: reason for key, reason in told.items() if key not in changed}
