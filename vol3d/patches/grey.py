"""Changes of grey values, for the chosen samples of a batch at once."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Generator, Tensor

from vol3d.patches.along import along, coarser, gaussian
from vol3d.patches.chance import Chosen

VOXELS = (2, 3, 4)
INVERTED_GAMMA = 0.25
"""The share of bent grey scales that are bent from the bright end."""


def change_grey(images: Tensor, chosen: Mapping[str, Chosen], rng: np.random.Generator) -> None:
    """Change images (B, C, Z, Y, X) float32 in place, in a fixed order.

    All chance comes from rng. Noise is drawn where the images are, by a generator that rng seeds.
    """
    device = images.device
    noise = Generator(device).manual_seed(int(rng.integers(2**63)))
    inverted = rng.random(len(images)) < INVERTED_GAMMA
    for name in ("noise", "blur", "low_resolution", "brightness", "contrast", "inversion", "gamma"):
        if name not in chosen:
            continue
        samples = torch.from_numpy(chosen[name].samples).to(device)
        strength = torch.from_numpy(chosen[name].strength.astype(np.float32)).to(device)
        factor, some = strength[:, None, None, None, None], images[samples]
        if name == "noise":
            some += factor * torch.randn(some.shape, generator=noise, device=device)
        elif name in ("blur", "low_resolution"):
            matrix = gaussian if name == "blur" else coarser
            some = along(some, *(matrix(edge, strength) for edge in some.shape[2:]))
        elif name == "brightness":
            some *= factor
        elif name == "gamma":
            signs = torch.from_numpy(np.where(inverted[chosen[name].samples], -1.0, 1.0).astype(np.float32))
            some = bent(some, factor, signs.to(device)[:, None, None, None, None])
        else:
            mean = some.mean(VOXELS, keepdim=True)
            some = mean + (some - mean) * (factor if name == "contrast" else -factor)
        images[samples] = some


def bent(images: Tensor, gamma: Tensor, signs: Tensor) -> Tensor:
    """Grey values between minimum and maximum to the power of gamma, per channel; mean and spread are kept.

    With the sign -1 they are bent from the bright end.
    """
    values = images * signs
    low, high = values.amin(VOXELS, keepdim=True), values.amax(VOXELS, keepdim=True)
    power = ((values - low) / (high - low).clamp_min(1e-7)) ** gamma
    std, mean = torch.std_mean(values, VOXELS, keepdim=True)
    new_std, new_mean = torch.std_mean(power, VOXELS, keepdim=True)
    return ((power - new_mean) * (std / new_std.clamp_min(1e-7)) + mean) * signs
