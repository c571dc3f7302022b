"""Configuration into objects: the one place that knows every room, fills the plan and chooses the device."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from vol3d.config.tree import Config, DataSettings, Plan
from vol3d.datasets.description import IGNORE
from vol3d.datasets.fingerprint import Fingerprint
from vol3d.datasets.plan import FEATURES, free_value, normalisations, patch_plan, regions, target_spacing
from vol3d.errors import CheckpointError, UsageError, some
from vol3d.inference.activation import probability_of
from vol3d.inference.inferencer import Inferencer, background
from vol3d.inference.symmetry import Forward, Symmetry, averaged
from vol3d.network.build import NetworkSettings, build_network, network_multiple, with_stages
from vol3d.postprocess.steps import ALL, steps_from
from vol3d.preprocess.intensity import Normalisation
from vol3d.shapes import Shape3, Spacing
from vol3d.tasks.plugins import fault_in_plugin
from vol3d.tasks.symmetries import mirror_swap, with_symmetries
from vol3d.training.losses import BACKGROUND, segmentation_loss
from vol3d.training.reference import Reference
from vol3d.training.trainer import Loss


def choose_device(name: str) -> torch.device:
    """auto, cpu, cuda or cuda:N as a device that is there.

    Raises:
        UsageError: it is not.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name}: expected auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name}: expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise UsageError(
            f"--device {name}: this torch ({torch.__version__}) sees {torch.cuda.device_count()} CUDA devices"
        )
    return device


def fill(
    config: Config,
    found: Fingerprint,
    *,
    label_names: dict[str, tuple[int, ...]] | None,
    channel_names: Sequence[str],
    anatomical: bool,
    device: torch.device,
) -> Config:
    """The configuration without any "auto": what the user said, and the plan for the rest.

    A label named ignore is the one that is not known. anatomical says that the axes of the volumes mean
    directions in a body: then quarter turns are not a symmetry of the data. Every mirror is taken as
    one, unless regions have sides that it would confuse.

    Raises:
        UsageError: what the user said does not fit the data or itself.
    """
    _check_data(config, len(channel_names))
    data, preprocess = config.data, config.preprocess
    data = _with_labels(data, found, label_names)
    if data.channels == "auto":
        data = replace(data, channels=tuple(channel_names))
    if preprocess.spacing == "auto":
        preprocess = replace(preprocess, spacing=target_spacing(found, _thin(config, found)))
    if not isinstance(preprocess.normalisation, tuple):
        preprocess = replace(preprocess, normalisation=_normalisation(preprocess.normalisation, found, data.channels))
    filled = replace(config, data=data, preprocess=preprocess)
    filled = _with_network(filled, found, "cuda" if device.type == "cuda" else "cpu")
    filled = with_symmetries(filled, anatomical=anatomical)
    for name in filled.sampling.region_weights:
        _check_region("sampling.region_weights", name, filled)
    for name in (name for name in filled.loss.region_weights if name != BACKGROUND):
        _check_region("loss.region_weights", name, filled)
    check_step_regions(filled)
    network_of(filled)  # so that options it does not take are told now
    return filled


def _with_network(config: Config, found: Fingerprint, kind: Literal["cpu", "cuda"]) -> Config:
    """Patch, batch and the network's stages, which hang on each other."""
    network, sampling = config.network, config.sampling
    spacing = config.preprocess.at(found.median_spacing)
    planned = patch_plan(found, spacing, kind, _thin(config, found))
    patch = planned.patch if sampling.patch == "auto" else sampling.patch
    try:
        network = with_stages(network, patch, spacing, FEATURES[kind])
    except ValueError as error:
        raise UsageError(f"network: {error}") from error
    if sampling.patch == "auto":
        patch = Shape3(*(-(-n // m) * m for n, m in zip(patch, _multiple(network), strict=True)))
    sampling = replace(sampling, patch=patch, batch=planned.batch if sampling.batch == "auto" else sampling.batch)
    inference = config.inference
    if inference.window == "auto":
        # what the weights learned last
        stages = config.training.stages
        inference = replace(inference, window=(stages[-1].patch if stages else None) or patch)
    edges = {"sampling.patch": patch, **config.training.patches, "inference.window": inference.window}
    check_edges(network, edges)
    return replace(config, network=network, sampling=sampling, inference=inference)


def _thin(config: Config, found: Fingerprint) -> tuple[int, ...]:
    """The axes along which the network sees one voxel: as the patch says, else where the median case has one."""
    patch = config.sampling.patch
    return found.thin if patch == "auto" else tuple(axis for axis, edge in enumerate(patch) if edge == 1)


def ignored_value(data: DataSettings, names: dict[str, tuple[int, ...]] | None) -> int | None:
    """The label value of what is not known: the user's, or the one that the data set calls ignore."""
    return data.ignore_label if data.ignore_label is not None else next(iter((names or {}).get(IGNORE, ())), None)


def _with_labels(data: DataSettings, found: Fingerprint, names: dict[str, tuple[int, ...]] | None) -> DataSettings:
    """The regions, and the value of what is not known, where there is such."""
    named = {name: values for name, values in (names or {}).items() if name != IGNORE}
    try:
        ignore = ignored_value(data, names)
        labels = {r.name: r.values for r in regions(found, named)} if data.labels == "auto" else data.labels
        if ignore is None and any(case.unknown_voxels for case in found.cases):
            ignore = free_value({*found.label_values, *(v for values in labels.values() for v in values)})
        return replace(data, labels=labels, ignore_label=ignore)
    except ValueError as error:
        raise UsageError(f"data: {error}") from error


def _normalisation(
    given: dict[str, Normalisation] | Literal["auto"], found: Fingerprint, channels: Sequence[str]
) -> tuple[Normalisation, ...]:
    """That of every channel: as its name is given, else planned."""
    by_name = {} if given == "auto" else given
    wrong = [name for name in by_name if name not in channels]
    if wrong:
        raise UsageError(f"preprocess.normalisation: {wrong[0]!r} is no channel, expected {' or '.join(channels)}")
    return tuple(by_name.get(name, planned) for name, planned in zip(channels, normalisations(found), strict=True))


def _check_data(config: Config, channels: int) -> None:
    for name, given in (
        ("data.channels", config.data.channels),
        ("preprocess.normalisation", config.preprocess.normalisation),
    ):
        if isinstance(given, tuple) and len(given) != channels:
            raise UsageError(f"{name} has {len(given)} entries for images of {channels} channel(s)")


def check_step_regions(plan: Plan | Config) -> None:
    """Refuse steps that act on a region which the data do not have.

    Raises:
        UsageError: there is one.
    """
    for step in steps_from(list(plan.postprocess.steps)):
        if step.region != ALL:
            _check_region(f"postprocess.steps: {step.name}", step.region, plan)


def _check_region(setting: str, name: str, plan: Plan | Config) -> None:
    known = plan.data.schema().names
    if name not in known:
        raise UsageError(f"{setting}: {name!r} is no region, expected {' or '.join(known)}")


def check_edges(network: NetworkSettings, edges: dict[str, Shape3 | Literal["auto"]]) -> None:
    """Refuse patches and windows, each under its setting's name, that the network cannot take.

    Raises:
        UsageError: an edge is no positive multiple of what the network needs.
    """
    multiple = _multiple(network)
    for name, given in edges.items():
        if given != "auto" and any(n < 1 or n % m for n, m in zip(given, multiple, strict=True)):
            raise UsageError(
                f"{name} (z, y, x) = {tuple(given)}: network {network.name} needs multiples of {tuple(multiple)}"
            )


def _multiple(network: NetworkSettings) -> Shape3:
    try:
        return network_multiple(network)
    except ValueError as error:
        raise UsageError(f"network: {error}") from error


def network_of(plan: Plan | Config) -> nn.Module:
    """The plan's network with fresh weights.

    Raises:
        UsageError: it cannot be built with its options.
    """
    try:
        return build_network(plan.network, plan.data.inputs, plan.data.schema().channels)
    except (ValueError, TypeError) as error:
        raise UsageError(fault_in_plugin(error) or f"network: {error}") from error


def load_weights(network: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Put weights into a network.

    Raises:
        CheckpointError: they do not fit, with the first three differences, or hold NaN.
    """
    ours = network.state_dict()
    wrong = [f"{k} is missing" for k in ours if k not in weights]
    wrong += [f"{k} is not in this network" for k in weights if k not in ours]
    wrong += [
        f"{k} has shape {tuple(weights[k].shape)}, not {tuple(ours[k].shape)}"
        for k in ours
        if k in weights and weights[k].shape != ours[k].shape
    ]
    if wrong:
        raise CheckpointError(f"{source} does not fit the network of its plan: {some(wrong, 3, between='; ')}")
    if not all(torch.isfinite(v).all() for v in weights.values() if v.is_floating_point()):
        raise CheckpointError(f"{source} holds weights that are not finite; use another checkpoint of its run")
    network.load_state_dict(weights)


def loss_of(config: Config, device: torch.device, spacing: Spacing) -> Loss:
    """The training loss of outputs (full resolution first), labels (B, L, Z, Y, X) and the training's progress.

    The first channel of labels holds label values, the second, if there is one, centre lines. spacing is the patches'.
    """
    schema = config.data.schema()
    encoding = torch.from_numpy(schema.encoding()).to(device)
    ignore, given = schema.ignore, config.loss.region_weights
    weights = torch.tensor([given.get(name, 1.0) for name in (BACKGROUND, *schema.names)], device=device)

    def loss(outputs: Sequence[Tensor], labels: Tensor, progress: float) -> Tensor:
        values, skeleton = labels[:, 0], labels[:, 1:2] > 0
        target = encoding[:, values.long()].movedim(0, 1)
        if outputs[0].shape != target.shape:
            raise UsageError(
                f"network {config.network.name!r} answers with (B, K, Z, Y, X) = {tuple(outputs[0].shape)}; expected "
                f"{tuple(target.shape)}, a channel for each of {schema.channels} and the patch's voxels"
            )
        reference = Reference(
            target,
            schema.activation,
            valid=None if ignore is None else (values != ignore)[:, None],
            skeleton=skeleton if skeleton.shape[1] else None,
            weights=weights if given else None,
            spacing=spacing,
        )
        return segmentation_loss(outputs, reference, settings=config.loss, progress=progress)

    return loss


def choose_devices(names: str) -> tuple[torch.device, ...]:
    """One device as choose_device takes it, or several with commas between them: cuda:0,cuda:1.

    Raises:
        UsageError: one of them is not there.
    """
    return tuple(choose_device(name.strip()) for name in names.split(","))


def inferencer_of(
    logits: Forward,
    plan: Plan | Config,
    *,
    over: Sequence[Symmetry] = (Symmetry(),),
    batch: int,
    device: torch.device,
) -> Inferencer:
    """The plan's sliding window around a network's forward, averaged over symmetries.

    logits maps windows (B, C, z, y, x) to logits (B, K, z, y, x), float32.
    """
    schema, settings, swap = plan.data.schema(), plan.inference, mirror_swap(plan)
    assert settings.window != "auto"

    def answers(windows: Tensor) -> Tensor:
        answer = logits(windows)
        return answer if settings.average == "logits" else probability_of(answer, schema.activation, axis=1)

    return Inferencer(
        averaged(answers, over, batch=batch, x_channels=swap.channels if swap else None),
        background(schema.activation, schema.channels, settings.average),
        settings.window,
        settings.overlap,
        batch,
        device,
        skip_constant=settings.skip == "constant",
        stride=settings.stride,
        blend=settings.blend,
    )
