"""Any network over any volume, without a run: windows, blended."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from operator import index
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from vol3d.datasets.given import Given, given_image
from vol3d.errors import UsageError
from vol3d.inference.inferencer import Inferencer
from vol3d.inference.symmetry import averaged, symmetries
from vol3d.shapes import Axis, Shape3
from vol3d.tasks.assemble import choose_device
from vol3d.training.schedule import Precision
from vol3d.volume.volume import Volume

Activation = Literal["none", "softmax", "sigmoid"]
_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "none": lambda logits: logits,
    "softmax": lambda logits: logits.softmax(dim=1),
    "sigmoid": Tensor.sigmoid,
}


def sliding_window(
    image: Given,
    network: Callable[[Tensor], Tensor],
    *,
    window: tuple[int, int, int],
    overlap: float = 0.5,
    activation: Activation = "none",
    mirror_axes: Sequence[Axis] = (),
    batch: int = 1,
    precision: Precision = "float32",
    device: str | torch.device | None = None,
) -> Volume:
    """Slide a network over an image and blend its answers with Gaussian shares that sum to one.

    image is a path, the paths of the channels, a Volume, or an array (Z, Y, X) or (C, Z, Y, X); it is handed on
    with its own values. network is an nn.Module, seen in evaluation mode and left as it was, or any function: it
    maps a batch (B, C, *window) float32 to (B, K, *window). overlap is the fraction that neighbouring windows
    share, batch how many windows the network sees at once. What is blended, and averaged over mirror_axes, are
    logits (activation none) or probabilities. precision is the network's, float32 or bfloat16. device None is the
    module's own, the CPU for a function; the module is not moved to another.

    The answer (K, Z, Y, X), float32, lies on the image's grid.

    Raises:
        UsageError: the image cannot be opened, the device is not there, or the network answers another shape.
        InputError: a file is damaged, or the channels lie on different grids.
        ValueError: overlap is outside [0, 1), a window is not three positive integers, or another argument is none
            of its values.
    """
    source = given_image(image)
    shape = _checked(window, overlap, batch, activation, mirror_axes, precision)
    chosen = choose_device(str(device)) if device is not None else _device_of(network)

    def forward(windows: Tensor, channels: int | None = None) -> Tensor:
        with torch.autocast(chosen.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            answer = network(windows)
        return _ACTIVATIONS[activation](_as_wanted(answer, windows, channels).float())

    with _evaluating(network), torch.inference_mode():
        channels = forward(torch.zeros((1, source.channels, *shape), device=chosen)).shape[1]
        over = symmetries(("mirrors",), mirror_axes)
        blended = averaged(partial(forward, channels=channels), over, batch=batch)
        walk = Inferencer(blended, (0.0,) * channels, shape, overlap, batch, chosen)
        answer = np.empty((channels, *source.shape), np.float32)
        for first, slab in walk.slabs(source):
            answer[:, first : first + slab.shape[1]] = slab.cpu().numpy()
    return Volume(answer, source.affine, says=source.says)


def _device_of(network: object) -> torch.device:
    weight = next(network.parameters(), None) if isinstance(network, nn.Module) else None
    return torch.device("cpu") if weight is None else weight.device


def _checked(
    window: Sequence[int],
    overlap: float,
    batch: int,
    activation: Activation,
    mirror_axes: Sequence[Axis],
    precision: Precision,
) -> Shape3:
    """The window, if all of them can be; a wrong one is a ValueError."""
    if activation not in _ACTIVATIONS:
        raise ValueError(f"expected the activation none, softmax or sigmoid, got {activation!r}")
    if precision not in get_args(Precision):
        raise ValueError(f"expected the precision float32 or bfloat16, got {precision!r}")
    if not set(mirror_axes) <= set(get_args(Axis)) or len(set(mirror_axes)) < len(mirror_axes):
        raise ValueError(f"expected mirror_axes of z, y and x, each once, got {', '.join(map(repr, mirror_axes))}")
    try:
        shape = Shape3(*map(index, window))
    except TypeError as error:
        raise ValueError(f"expected a window of three integers (z, y, x), got {window}") from error
    if min(shape) < 1 or not 0 <= overlap < 1 or batch < 1:
        told = f"window {tuple(shape)}, batch {batch}, overlap {overlap}"
        raise ValueError(f"expected a positive window and batch and an overlap in [0, 1), got {told}")
    return shape


def _as_wanted(answer: object, windows: Tensor, channels: int | None) -> Tensor:
    """The network's answer, if it is (B, K, *window) for windows (B, C, *window), with K channels as before."""
    batch, _, *window = windows.shape
    if isinstance(answer, Tensor):
        shape = tuple(answer.shape)
        if len(shape) == 5 and shape[1] and shape == (batch, channels or shape[1], *window):
            return answer
    told = f"an answer of shape {shape}" if isinstance(answer, Tensor) else f"a {type(answer).__name__}"
    raise UsageError(
        f"expected a network that maps (B, C, *window) to (B, {channels or 'K'}, *window), with the window "
        f"{tuple(window)}; a batch of {batch} gave {told}"
    )


@contextmanager
def _evaluating(network: object) -> Iterator[None]:
    """The module in evaluation mode while the block runs; each of its parts is then as it was before."""
    parts = [part for part in network.modules() if part.training] if isinstance(network, nn.Module) else []
    for part in parts:
        part.training = False
    try:
        yield
    finally:
        for part in parts:
            part.training = True
