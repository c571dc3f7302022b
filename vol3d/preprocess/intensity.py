"""Grey values to what a network likes: constants found once per volume, applied voxel by voxel."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vol3d.geometry.box import Box
from vol3d.preprocess.statistics import moments, quantiles
from vol3d.preprocess.tensors import read_tensor
from vol3d.volume.source import View, VolumeSource


@dataclass(frozen=True)
class Normalisation:
    """How one channel is normalised.

    z_score     (v - mean) / std of the whole volume.
    percentile  the volume's low and high percentile become 0 and 1; above 1 the slope is soft_clip
                (SenNet: 10, 99.8, 0.01), so that bright outliers stay ordered but do not dominate.
    fixed       clip to [low, high], then (v - mean) / std, all four given: HU windows, nnU-Net's CT scheme.
    """

    scheme: Literal["z_score", "percentile", "fixed"] = "z_score"
    low_percentile: float = 10.0
    high_percentile: float = 99.8
    soft_clip: float = 0.01
    low: float = 0.0
    high: float = 1.0
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.low_percentile < self.high_percentile <= 100:
            raise ValueError(
                "expected 0 <= low_percentile < high_percentile <= 100, "
                f"got {self.low_percentile} and {self.high_percentile}"
            )
        if not self.low < self.high:
            raise ValueError(f"expected low < high, got {self.low} and {self.high}")
        if self.std <= 0:
            raise ValueError(f"std must be positive, got {self.std}")


@dataclass(frozen=True)
class Constants:
    """One channel of one volume: clip to [low, high], subtract shift, divide by scale, flatten above knee."""

    shift: float
    scale: float
    low: float = -np.inf
    high: float = np.inf
    knee: float = np.inf
    slope: float = 1.0


def constants(source: VolumeSource, channels: tuple[Normalisation, ...]) -> tuple[Constants, ...]:
    """The constants of every channel of a volume, from one or two passes over it.

    A constant channel (no spread) becomes zero everywhere.

    Raises:
        ValueError: as many settings as the source has channels are needed.
    """
    if len(channels) != source.channels:
        raise ValueError(f"expected {len(channels)} channels, got {source.channels}")
    spread = moments(source) if any(c.scheme == "z_score" for c in channels) else ()
    found = []
    for index, channel in enumerate(channels):
        if channel.scheme == "z_score":
            found.append(Constants(spread[index].mean, spread[index].std or 1.0))
        elif channel.scheme == "percentile":
            low, high = quantiles(source, (channel.low_percentile / 100, channel.high_percentile / 100))[index]
            found.append(Constants(float(low), float(high - low) or 1.0, knee=1.0, slope=channel.soft_clip))
        else:
            found.append(Constants(channel.mean, channel.std, low=channel.low, high=channel.high))
    return tuple(found)


@dataclass(frozen=True)
class NormalisedView(View):
    """A source whose voxels are normalised to float32 when they are read."""

    constants: tuple[Constants, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32."""
        return np.dtype(np.float32)

    def read(self, box: Box) -> NDArray[np.float32]:
        """The box's voxels, normalised."""
        voxels: NDArray[np.float32] = self.tensor(box, torch.device("cpu")).numpy()
        return voxels

    def tensor(self, box: Box, device: torch.device) -> Tensor:
        """The same on a device, (C, Z, Y, X) float32; what travels there are the stored voxels."""
        voxels = read_tensor(self.source, box, device)
        return torch.stack([_normalised(values, c) for values, c in zip(voxels, self.constants, strict=True)])


def _normalised(values: Tensor, c: Constants) -> Tensor:
    clipped = values.clamp(c.low, c.high) if np.isfinite([c.low, c.high]).any() else values
    result = clipped.sub(c.shift).div_(c.scale)
    if np.isfinite(c.knee):
        result = torch.where(result > c.knee, c.knee + (result - c.knee) * c.slope, result)
    return result
