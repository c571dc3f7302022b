"""Weights of one network put into another that differs in its classes, its channels or beyond its encoder."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vol3d.network.build import NetworkSettings, build_network

_NEW = re.compile(r"\.(squeeze|excite|voxels)\.|\.num_batches_tracked$")
"""What pretrained encoders need not have: gates that were added, and counters that old versions of torch lack."""


@dataclass(frozen=True)
class Fit:
    """What became of weights that were given.

    weights are the ones that fit, by the network's names. fresh are the network's others, which keep what they have;
    adapted those whose channels were changed; unused what the network has no place for. wrong tells, a phrase each,
    what must not differ and does.
    """

    weights: dict[str, Tensor]
    fresh: tuple[str, ...]
    adapted: tuple[str, ...]
    unused: tuple[str, ...]
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Ends:
    """A network's entries that hang on what it looks at, each with its axis of channels, and on what it answers."""

    looking: Mapping[str, int]
    answering: Collection[str]


def ends_of(network: Mapping[str, Tensor], settings: NetworkSettings, in_channels: int, out_channels: int) -> Ends:
    """Both ends of a network, found by building it once more for another image and for other answers."""

    def shapes(inputs: int, outputs: int) -> dict[str, torch.Size]:
        return {name: v.shape for name, v in build_network(settings, inputs, outputs).state_dict().items()}

    with torch.random.fork_rng(devices=[]):  # what is drawn here is nothing of the training's chance
        other_image, other_answers = shapes(in_channels + 1, out_channels), shapes(in_channels, out_channels + 1)
    looking = {
        name: next(axis for axis, (a, b) in enumerate(zip(ours.shape, other_image[name], strict=True)) if a != b)
        for name, ours in network.items()
        if other_image.get(name, ours.shape) != ours.shape
    }
    answering = {name for name, ours in network.items() if other_answers.get(name, ours.shape) != ours.shape}
    return Ends(looking, answering)


def fit(
    network: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    ends: Ends,
    *,
    part: str = "",
    sources: Sequence[int | None] = (),
) -> Fit:
    """Fit given weights to a network's entries.

    part is how the names of what was given begin: all of the network ("") or its encoder, which they must fill but for
    the ends; what the network has beyond it stays fresh. sources says for each channel of the image which of the given
    ones it was, None: new; without them channels have no names, and each gets an equal share.
    """
    weights, fresh, adapted, wrong = {}, [], [], []
    for name, ours in network.items():
        theirs = given.get(name)
        if theirs is not None and theirs.shape == ours.shape:
            weights[name] = theirs
        elif name in ends.answering or not name.startswith(part) or (theirs is None and _NEW.search(name)):
            fresh.append(name)
        elif theirs is None:
            wrong.append(f"{name} is missing")
        elif name in ends.looking and _differs_along(ends.looking[name], ours, theirs):
            weights[name] = other_channels(theirs, ours.shape[ends.looking[name]], ends.looking[name], sources)
            adapted.append(name)
        else:
            wrong.append(f"{name} has shape {tuple(theirs.shape)}, not {tuple(ours.shape)}")
    unused = [name for name in given if name not in network]
    answering, known = ({_pattern(name) for name in names} for names in (ends.answering, network))
    # What is beside a part may have any name but one of the network's kind: that would be a stage too many.
    wrong += [
        f"{name} is not in this network"
        for name in unused
        if _pattern(name) not in answering and (not part or _pattern(name) in known)
    ]
    return Fit(weights, tuple(fresh), tuple(adapted), tuple(unused), tuple(wrong))


def other_channels(kernel: Tensor, count: int, axis: int, sources: Sequence[int | None] = ()) -> Tensor:
    """A first convolution's kernel for an image of count channels along an axis.

    Channels that were there keep their weights and new ones begin with none. Without sources all have the mean, scaled
    so that an image whose channels are equal gets the answer that it got.
    """
    if not sources:
        total = kernel.sum(dim=axis, keepdim=True) / count
        return total.repeat_interleave(count, dim=axis)
    none = torch.zeros_like(kernel.select(axis, 0))
    return torch.stack([none if one is None else kernel.select(axis, one) for one in sources], dim=axis)


def same_heads(given: Mapping[str, Tensor], network: Collection[str]) -> dict[str, Tensor]:
    """Weights of our U-Net with heads counted from the full resolution, which both have, not from the lowest."""

    def heads(names: Collection[str]) -> int:
        return sum(bool(re.fullmatch(r"decoder\.heads\.\d+\.weight", name)) for name in names)

    later = heads(network) - heads(given)
    return {
        re.sub(r"^decoder\.heads\.(\d+)", lambda found: f"decoder.heads.{int(found[1]) + later}", name): value
        for name, value in given.items()
    }


def _differs_along(axis: int, ours: Tensor, theirs: Tensor) -> bool:
    return ours.ndim == theirs.ndim and all(
        a == b for other, (a, b) in enumerate(zip(ours.shape, theirs.shape, strict=True)) if other != axis
    )


def _pattern(name: str) -> str:
    return re.sub(r"\d+", "#", name)
