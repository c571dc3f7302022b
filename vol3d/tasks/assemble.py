"""Configuration into objects: the one place that knows every room and chooses the device."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from vol3d.config.tree import Config, Plan
from vol3d.errors import CheckpointError, UsageError, some
from vol3d.inference.activation import probability_of
from vol3d.inference.inferencer import Inferencer, background
from vol3d.inference.symmetry import Forward, Symmetry, averaged
from vol3d.network.build import NetworkSettings, build_network, network_multiple
from vol3d.postprocess.settings import BEST
from vol3d.postprocess.steps import ALL, steps_from
from vol3d.shapes import Shape3, Spacing
from vol3d.tasks.plugins import fault_in_plugin
from vol3d.tasks.symmetries import mirror_swap
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


def check_step_regions(plan: Plan | Config) -> None:
    """Refuse steps that act on a region which the data do not have.

    Raises:
        UsageError: there is one.
    """
    for point, steps in plan.postprocess.points().items():
        key = "steps" if point == BEST else f"operating_points.{point}"
        for step in steps_from(list(steps)):
            if step.region != ALL:
                check_region(f"postprocess.{key}: {step.name}", step.region, plan)


def check_region(setting: str, name: str, plan: Plan | Config) -> None:
    """Refuse a name that is no region's.

    Raises:
        UsageError: it is none.
    """
    known = plan.data.schema().names
    if name not in known:
        raise UsageError(f"{setting}: {name!r} is no region, expected {' or '.join(known)}")


def check_edges(network: NetworkSettings, edges: dict[str, Shape3 | Literal["auto"]]) -> None:
    """Refuse patches and windows, each under its setting's name, that the network cannot take.

    Raises:
        UsageError: an edge is no positive multiple of what the network needs.
    """
    multiple = multiple_of(network)
    for name, given in edges.items():
        if given != "auto" and any(n < 1 or n % m for n, m in zip(given, multiple, strict=True)):
            raise UsageError(
                f"{name} (z, y, x) = {tuple(given)}: network {network.name} needs multiples of {tuple(multiple)}"
            )


def multiple_of(network: NetworkSettings) -> Shape3:
    """What a patch's edges must be multiples of.

    Raises:
        UsageError: the network's settings do not say.
    """
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
    check_finite(weights, source)
    network.load_state_dict(weights)


def check_finite(weights: dict[str, Tensor], source: str) -> None:
    """Refuse weights that hold NaN or infinity.

    Raises:
        CheckpointError: they do.
    """
    if not all(torch.isfinite(v).all() for v in weights.values() if v.is_floating_point()):
        raise CheckpointError(f"{source} holds weights that are not finite; use another checkpoint of its run")


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
