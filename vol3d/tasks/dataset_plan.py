"""From a data set to the plan of a training on it, and what the user should know of both."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from vol3d.config.tree import Config, DataSettings
from vol3d.datasets.cases import Case
from vol3d.datasets.dataset import Dataset, counted
from vol3d.datasets.dictionaries import dataset_of
from vol3d.datasets.fingerprint import CaseFacts, Fingerprint, fingerprint
from vol3d.datasets.given import PathLike
from vol3d.datasets.layouts import detect
from vol3d.datasets.plan import PATCH_MULTIPLE, covered
from vol3d.errors import InputError, some
from vol3d.files.dicom import shows_upright_body
from vol3d.shapes import AXES, Shape3
from vol3d.tasks.budget import Budget
from vol3d.tasks.planning import Planned, fill, ignored_value, network_shapes
from vol3d.tasks.preparation import measure
from vol3d.tasks.reporter import Reporter
from vol3d.tasks.symmetries import mirrors_left_out


def found_in(
    dataset: PathLike | Sequence[Mapping[str, Any]], data: DataSettings, reporter: Reporter
) -> tuple[Dataset, list[Case]]:
    """The data set in a folder, a table, a list of cases or dictionaries, with the channels that the settings name.

    Beside it those of its cases that have a label. What was noticed on the way is told.

    Raises:
        InputError: no case has a label, or cases have different channels.
    """
    channels = None if data.channels == "auto" else data.channels
    if isinstance(dataset, str | os.PathLike):
        found = detect(Path(dataset), channels=channels, slices=data.slices)
    else:
        found = dataset_of(dataset)
        found = found if channels is None else found.of_channels(channels)
    found = counted(found)
    reporter.note(found.note)
    for warning in found.warnings:
        reporter.warn(warning)
    return found, _labelled(found)


def _labelled(found: Dataset) -> list[Case]:
    cases = [c for c in found.cases if c.label is not None]
    if not cases:
        raise InputError(f"{found.path}: no case has a label, so there is nothing to learn from")
    return cases


def plan_training(
    config: Config, found: Dataset, cases: Sequence[Case], reporter: Reporter, *, budget: Budget, device: torch.device
) -> Planned:
    """The plan of a training on these cases; tells the reporter what the user should know of it.

    Raises:
        InputError: the cases hold nothing to learn.
        UsageError: the settings do not fit them.
    """
    facts = measure(cases, reporter, ignore=ignored_value(config.data, found.label_names))
    return planned_from(facts, config, found, cases, reporter, budget=budget, device=device)


def planned_from(
    measured: Sequence[CaseFacts],
    config: Config,
    found: Dataset,
    cases: Sequence[Case],
    reporter: Reporter,
    *,
    budget: Budget,
    device: torch.device,
) -> Planned:
    """The plan that follows from the facts of the cases; as plan_training."""
    try:
        facts = fingerprint(measured)
    except ValueError as error:
        raise InputError(str(error)) from error
    anatomical = any(case.placed for case in facts.cases)
    turns = config.augmentation.quarter_turns == "auto" and not anatomical
    upright = turns and any(shows_upright_body(path) for case in cases for path in case.images)
    if upright:
        config = replace(config, augmentation=replace(config.augmentation, quarter_turns=False))
    planned = fill(
        config,
        facts,
        label_names=found.label_names,
        channel_names=found.channel_names,
        anatomical=anatomical,
        budget=budget,
        device=device,
    )
    if upright:
        planned.why["augmentation.quarter_turns"] = "DICOM of radiology shows bodies upright"
    filled = planned.config
    _check_regions(filled.data, facts, reporter)
    _check_organs(filled, cases)
    if told := _patch_beyond(config.sampling.patch, filled, facts):
        reporter.warn(told)
    if filled.data.mirror_pairs:
        pairs = ", ".join(" and ".join(pair) for pair in filled.data.mirror_pairs)
        reporter.note(f"change places in a mirror along x: {pairs}")
    if left_out := mirrors_left_out(config, filled):
        reporter.note(left_out)
    return planned


def _check_organs(config: Config, cases: Sequence[Case]) -> None:
    missing = [case.name for case in cases if case.organ_mask is None]
    if config.preprocess.needs_organ and missing:
        raise InputError(
            f"no organ mask for {some(missing)}, and preprocess.normalisation looks at the organ's voxels: give one "
            "for each case, or say voxels: all"
        )


def _patch_beyond(patch: Shape3 | Literal["auto"], filled: Config, found: Fingerprint) -> str:
    """A warning where the user's patch reaches beyond every volume, by more than the network may need."""
    if patch == "auto":
        return ""
    shapes = network_shapes(filled, found)
    longest = shapes.max(axis=0)
    beyond = [axis for axis in range(3) if patch[axis] >= longest[axis] + PATCH_MULTIPLE]
    if not beyond:
        return ""
    told = ", ".join(f"{AXES[axis]} {patch[axis]}, the longest {longest[axis]}" for axis in beyond)
    share = max(covered(shape, patch) for shape in shapes)
    return (
        f"sampling.patch is longer than every volume on the network's grid ({told} voxels): at least "
        f"{100 * (1 - share):.0f} % of every sample lies around it, which costs time and teaches nothing; give a "
        "smaller one, or leave it out"
    )


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
