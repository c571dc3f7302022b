"""The plan of a training: what says auto is filled from a data set's fingerprint, each choice with its reason."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from vol3d.config.dump import dump, flow
from vol3d.config.tree import Config, DataSettings
from vol3d.datasets.description import IGNORE
from vol3d.datasets.fingerprint import Fingerprint
from vol3d.datasets.plan import (
    COVERED,
    FEATURES,
    VOXELS,
    Decided,
    coarse_spacing,
    covered,
    free_value,
    normalisations,
    patch_plan,
    regions,
    target_spacing,
    training_steps,
)
from vol3d.errors import UsageError
from vol3d.network.build import with_stages
from vol3d.preprocess.resample import resized_shape
from vol3d.shapes import AXES, Shape3, Spacing
from vol3d.tasks.assemble import (
    check_edges,
    check_region,
    check_step_regions,
    multiple_of,
    network_of,
)
from vol3d.tasks.budget import USED, Budget, Kind, trials
from vol3d.tasks.plan_reasons import tell_sizes, tell_symmetries
from vol3d.tasks.symmetries import with_symmetries
from vol3d.training.losses import BACKGROUND
from vol3d.training.memory import StepMemory

LEAST_VOXELS = 16**3
"""What is smaller is no patch to learn from."""
ENDLESS = 10_000
"""Epochs of a training that its time ends."""


@dataclass(frozen=True)
class Planned:
    """A configuration in which nothing says auto, and why, by dotted key.

    memory is that of a training step. covered is the share of the median case that a patch covers, coarse the
    spacing (mm) at which it would cover enough; None where it does.
    """

    config: Config
    found: Fingerprint
    budget: Budget
    memory: StepMemory
    covered: float
    coarse: Spacing | None
    why: dict[str, str] = field(default_factory=dict)

    @property
    def step_gb(self) -> float:
        """What a training step takes, in GB."""
        return self.memory.gigabytes(_batch_voxels(self.config))

    def decisions(self) -> Iterator[tuple[str, str, str]]:
        """What was decided: dotted key, value as YAML and reason, in the order of the configuration."""
        for section in fields(self.config):
            settings = getattr(self.config, section.name)
            for one in fields(settings):
                if reason := self.why.get(f"{section.name}.{one.name}"):
                    yield f"{section.name}.{one.name}", flow(_brief(getattr(settings, one.name))), reason

    def text(self) -> str:
        """The configuration as YAML, each choice below its reason."""
        return dump(self.config, comments=self.why)


def _brief(value: object) -> object:
    """Settings without what is as it is by default."""
    if isinstance(value, tuple) and not hasattr(value, "_asdict"):
        return tuple(_brief(one) for one in value)
    if not is_dataclass(value):
        return value
    every = [one.name for one in fields(value)]
    usual = {one.name: one.default for one in fields(value)}
    return {name: getattr(value, name) for n, name in enumerate(every) if not n or getattr(value, name) != usual[name]}


def fill(
    config: Config,
    found: Fingerprint,
    *,
    label_names: dict[str, tuple[int, ...]] | None,
    channel_names: Sequence[str],
    anatomical: bool,
    budget: Budget,
    device: torch.device,
) -> Planned:
    """The configuration without any "auto": what the user said, and the plan for the rest.

    A label named ignore is the one that is not known. anatomical says that the axes of the volumes mean
    directions in a body: then quarter turns are not a symmetry of the data. Every mirror is taken as
    one, unless regions have sides that it would confuse. device is where the memory of a step is tried.

    Raises:
        UsageError: what the user said does not fit the data or itself.
    """
    _check_data(config, len(channel_names))
    why: dict[str, str] = {}
    filled = _with_labels(config, found, label_names, why)
    if filled.data.channels == "auto":
        filled = replace(filled, data=replace(filled.data, channels=tuple(channel_names)))
        why["data.channels"] = "as the data set has them"
    filled = _with_preprocess(filled, found, why)
    filled, memory = _with_network(filled, found, budget, device, why)
    filled = with_symmetries(filled, anatomical=anatomical)
    tell_symmetries(config, filled, anatomical, why)
    filled = _with_length(filled, found, why)
    for name in filled.sampling.region_weights:
        check_region("sampling.region_weights", name, filled)
    for name in (name for name in filled.loss.region_weights if name != BACKGROUND):
        check_region("loss.region_weights", name, filled)
    check_step_regions(filled)
    network_of(filled)  # so that options it does not take are told now
    share, coarse = _coarse_stage(filled, found, why)
    why["sampling.foreground"] = (
        f"share of samples centred on foreground, which is {100 * found.foreground_share:.2g} % of the voxels"
    )
    return Planned(filled, found, budget, memory, share, coarse, why)


def ignored_value(data: DataSettings, names: dict[str, tuple[int, ...]] | None) -> int | None:
    """The label value of what is not known: the user's, or the one that the data set calls ignore."""
    return data.ignore_label if data.ignore_label is not None else next(iter((names or {}).get(IGNORE, ())), None)


def _with_labels(
    config: Config, found: Fingerprint, names: dict[str, tuple[int, ...]] | None, why: dict[str, str]
) -> Config:
    """The regions, and the value of what is not known, where there is such."""
    data = config.data
    named = {name: values for name, values in (names or {}).items() if name != IGNORE}
    try:
        ignore, labels = ignored_value(data, names), data.labels
        if labels == "auto":
            decided = regions(found, named)
            labels, why["data.labels"] = {r.name: r.values for r in decided.value}, decided.why
        if ignore is None and any(case.unknown_voxels for case in found.cases):
            ignore = free_value({*found.label_values, *(v for values in labels.values() for v in values)})
        if ignore != data.ignore_label:
            why["data.ignore_label"] = "what is not known: labels are incomplete"
        return replace(config, data=replace(data, labels=labels, ignore_label=ignore))
    except ValueError as error:
        raise UsageError(f"data: {error}") from error


def _with_preprocess(config: Config, found: Fingerprint, why: dict[str, str]) -> Config:
    """Spacing, and the normalisation of every channel: as its name is given, else planned."""
    preprocess, channels = config.preprocess, config.data.channels
    if all(case.placed for case in found.cases):
        why["preprocess.orientation"] = "the images say how they lie: all are turned alike"
    if preprocess.spacing == "auto":
        decided = target_spacing(found, _thin(config, found))
        preprocess, why["preprocess.spacing"] = replace(preprocess, spacing=decided.value), decided.why
    given = preprocess.normalisation
    if not isinstance(given, tuple):
        by_name = {} if given == "auto" else given
        if wrong := [name for name in by_name if name not in channels]:
            raise UsageError(f"preprocess.normalisation: {wrong[0]!r} is no channel, expected {' or '.join(channels)}")
        settings = [
            Decided(by_name[name], "as given") if name in by_name else planned
            for name, planned in zip(channels, normalisations(found), strict=True)
        ]
        told = dict(zip(channels, (one.why for one in settings), strict=True))
        why["preprocess.normalisation"] = (
            "; ".join(f"{name}: {reason}" for name, reason in told.items()) if len(told) > 1 else settings[0].why
        )
        preprocess = replace(preprocess, normalisation=tuple(one.value for one in settings))
    return replace(config, preprocess=preprocess)


def _with_network(
    config: Config, found: Fingerprint, budget: Budget, device: torch.device, why: dict[str, str]
) -> tuple[Config, StepMemory]:
    """Patch, batch and the network's stages, which hang on each other, within the memory that there is."""
    memory_of, voxels, kind = trials(budget.kind, device), VOXELS[budget.kind], budget.kind
    filled = _sized(config, found, kind, voxels)
    memory = memory_of(filled)
    if budget.told and kind == "cuda":
        voxels = memory.voxels(budget.limit_gb) // 2
        filled = _sized(config, found, kind, max(LEAST_VOXELS, voxels))
        memory = memory_of(filled)
    while config.sampling.patch == "auto" and memory.gigabytes(_batch_voxels(filled)) > budget.limit_gb:
        share = memory.voxels(budget.limit_gb) / _batch_voxels(filled)
        voxels = int(voxels * min(0.95, max(0.3, share)))
        if voxels < LEAST_VOXELS:
            raise UsageError(
                f"a training step takes {memory.gigabytes(_batch_voxels(filled)):.3g} GB even with small patches, and "
                f"{100 * USED:.0f} % of {budget} are {budget.limit_gb:.3g} GB: give fewer "
                "network.base_features, or more memory"
            )
        filled = _sized(config, found, kind, voxels)
        memory = memory_of(filled)
    step_gb = memory.gigabytes(_batch_voxels(filled))
    tell_sizes(config, _median_shape(filled, found), budget, step_gb, why)
    return filled, memory


def _sized(config: Config, found: Fingerprint, kind: Kind, voxels: int) -> Config:
    """Patch, batch and stages for patches of so many voxels."""
    network, sampling, inference = config.network, config.sampling, config.inference
    spacing = config.preprocess.at(found.median_spacing)
    given = None if sampling.patch == "auto" else sampling.patch
    planned = patch_plan(found, spacing, kind, _thin(config, found), voxels=voxels, patch=given)
    patch = planned.patch
    try:
        network = with_stages(network, patch, spacing, FEATURES[kind])
    except ValueError as error:
        raise UsageError(f"network: {error}") from error
    if sampling.patch == "auto":
        patch = Shape3(*(-(-n // m) * m for n, m in zip(patch, multiple_of(network), strict=True)))
    sampling = replace(sampling, patch=patch, batch=planned.batch if sampling.batch == "auto" else sampling.batch)
    if inference.window == "auto":
        # what the weights learned last
        stages = config.training.stages
        inference = replace(inference, window=(stages[-1].patch if stages else None) or patch)
    edges = {"sampling.patch": patch, **config.training.patches, "inference.window": inference.window}
    check_edges(network, edges)
    return replace(config, network=network, sampling=sampling, inference=inference)


def _batch_voxels(config: Config) -> int:
    assert config.sampling.patch != "auto" and config.sampling.batch != "auto"
    return config.sampling.batch * config.sampling.patch.voxels


def _with_length(config: Config, found: Fingerprint, why: dict[str, str]) -> Config:
    """The epochs, from the amount of data, unless the time ends the training."""
    training, patch = config.training, config.sampling.patch
    if training.epochs != "auto":
        return config
    if training.max_minutes is not None:
        epochs, reason = ENDLESS, f"never reached: training.max_minutes ends it after {training.max_minutes:g} minutes"
    else:
        assert patch != "auto"
        decided = training_steps(found, patch, config.preprocess.at(found.median_spacing))
        epochs, reason = -(-decided.value // training.steps_per_epoch), decided.why
    why["training.epochs"] = reason
    return replace(config, training=replace(training, epochs=epochs))


def _coarse_stage(config: Config, found: Fingerprint, why: dict[str, str]) -> tuple[float, Spacing | None]:
    """How much of the median case a patch covers, and the spacing of a run before it where that is too little."""
    patch, spacing = config.sampling.patch, config.preprocess.at(found.median_spacing)
    assert patch != "auto"
    shape = _median_shape(config, found)
    share, coarse = covered(patch, shape), coarse_spacing(patch, shape, spacing)
    told = f"covers {100 * share:.0f} % of the median case"
    if coarse is not None:
        at = ", ".join(f"{axis}: {step:g}" for axis, step in zip(AXES, coarse, strict=True))
        told += (
            f", less than {100 * COVERED:.0f} %: where what is around it matters, train a run with "
            f"preprocess.spacing={{{at}}} first, and this one with --cascade"
        )
    why["sampling.patch"] = "; ".join(part for part in (why.get("sampling.patch", "as given"), told) if part)
    return share, coarse


def network_shapes(config: Config, found: Fingerprint) -> NDArray[np.int64]:
    """The cases' voxels along z, y, x on the network's grid, (cases, 3)."""
    return np.array([resized_shape(c.shape, c.spacing, config.preprocess.at(c.spacing)) for c in found.cases])


def _median_shape(config: Config, found: Fingerprint) -> list[float]:
    return [float(n) for n in np.median(network_shapes(config, found), axis=0)]


def _thin(config: Config, found: Fingerprint) -> tuple[int, ...]:
    """The axes along which the network sees one voxel: as the patch says, else where the median case has one."""
    patch = config.sampling.patch
    return found.thin if patch == "auto" else tuple(axis for axis, edge in enumerate(patch) if edge == 1)


def _check_data(config: Config, channels: int) -> None:
    for name, given in (
        ("data.channels", config.data.channels),
        ("preprocess.normalisation", config.preprocess.normalisation),
    ):
        if isinstance(given, tuple) and len(given) != channels:
            raise UsageError(f"{name} has {len(given)} entries for images of {channels} channel(s)")
