"""Grey values to what a network likes: constants found once per volume, applied voxel by voxel."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vol3d.geometry.box import Box
from vol3d.preprocess.crop import nonzero_mask
from vol3d.preprocess.statistics import Extremes, extremes, moments, quantiles
from vol3d.preprocess.tensors import read_tensor, upload
from vol3d.volume.source import View, VolumeSource


@dataclass(frozen=True)
class Normalisation:
    """How one channel is normalised.

    z_score     (v - mean) / std of the whole volume.
    percentile  the volume's low and high percentile become 0 and 1; above 1 the slope is soft_clip
                (SenNet: 10, 99.8, 0.01), so that bright outliers stay ordered but do not dominate.
    fixed       clip to [low, high], then (v - mean) / std, all four given: HU windows, nnU-Net's CT scheme.
    range       the volume's smallest and largest value become 0 and 1.
    none        as they are.

    voxels nonzero, for z_score: those that are not zero in every channel, or enclosed by such; the others
    become 0, as around a brain whose skull was cut away.
    """

    scheme: Literal["z_score", "percentile", "fixed", "range", "none"] = "z_score"
    voxels: Literal["all", "nonzero"] = "all"
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
        if self.voxels == "nonzero" and self.scheme != "z_score":
            raise ValueError(f"voxels nonzero is for the scheme z_score, got {self.scheme}")


@dataclass(frozen=True)
class Constants:
    """One channel of one volume: clip to [low, high], subtract shift, divide by scale, flatten above knee.

    inside sets what lies outside the view's mask to 0.
    """

    shift: float
    scale: float
    low: float = -np.inf
    high: float = np.inf
    knee: float = np.inf
    slope: float = 1.0
    inside: bool = False


def normalised(source: VolumeSource, channels: tuple[Normalisation, ...]) -> "NormalisedView":
    """The source with every channel normalised, from a few passes over it. A channel without spread becomes 0.

    Raises:
        ValueError: as many settings as the source has channels are needed.
    """
    masked = any(c.voxels == "nonzero" for c in channels)
    inside = nonzero_mask(source) if masked else None
    return NormalisedView(source, constants(source, channels, inside), inside)


def constants(
    source: VolumeSource, channels: tuple[Normalisation, ...], inside: NDArray[np.bool_] | None = None
) -> tuple[Constants, ...]:
    """The constants of every channel of a volume, from one or two passes over it.

    inside (Z, Y, X) are the voxels that settings for nonzero ones look at. A constant channel (no
    spread) becomes zero everywhere.

    Raises:
        ValueError: as many settings as the source has channels are needed.
    """
    if len(channels) != source.channels:
        raise ValueError(f"expected {len(channels)} channels, got {source.channels}")
    wanted = {(c.scheme, c.voxels) for c in channels}
    everywhere = moments(source) if ("z_score", "all") in wanted else ()
    within = moments(source, inside) if ("z_score", "nonzero") in wanted else ()
    ends = extremes(source) if ("range", "all") in wanted else None
    found = []
    for index, channel in enumerate(channels):
        if channel.scheme == "z_score":
            spread = (everywhere if channel.voxels == "all" else within)[index]
            found.append(Constants(spread.mean, spread.std or 1.0, inside=channel.voxels == "nonzero"))
        elif channel.scheme == "percentile":
            low, high = quantiles(source, (channel.low_percentile / 100, channel.high_percentile / 100))[index]
            found.append(Constants(float(low), float(high - low) or 1.0, knee=1.0, slope=channel.soft_clip))
        elif channel.scheme == "fixed":
            found.append(Constants(channel.mean, channel.std, low=channel.low, high=channel.high))
        elif ends is not None and channel.scheme == "range":
            smallest, largest = float(ends.low[index, 0]), float(ends.high[index, 0])
            found.append(Constants(smallest, largest - smallest or 1.0))
        else:
            found.append(Constants(0.0, 1.0))
    return tuple(found)


@dataclass(frozen=True, eq=False)  # an array has no hash
class NormalisedView(View):
    """A source whose voxels are normalised to float32 when they are read; mask (Z, Y, X) for constants inside it."""

    constants: tuple[Constants, ...]
    mask: NDArray[np.bool_] | None = None

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
        changed = read_tensor(self.source, box, device).clone()  # what a source gives may be its own array
        for values, c in zip(changed, self.constants, strict=True):
            _normalise_(values, c)
        if self.mask is not None:
            within = upload(self.mask[box.slices].view(np.uint8), device)
            for values, c in zip(changed, self.constants, strict=True):
                if c.inside:
                    values *= within
        return changed


def _normalise_(values: Tensor, c: Constants) -> None:
    """In place, as slabs of rows are large."""
    if np.isfinite([c.low, c.high]).any():
        values.clamp_(c.low, c.high)
    values.sub_(c.shift).div_(c.scale)
    if np.isfinite(c.knee):
        above = (values - c.knee).clamp_(min=0).mul_(c.slope)
        values.clamp_(max=c.knee).add_(above)


@dataclass(frozen=True, eq=False)
class BoundedView(View):
    """A source whose values are kept within bounds of (channels, planes) along an axis, or of one plane for all."""

    bounds: Extremes
    axis: int | None

    def read(self, box: Box) -> NDArray[np.float32]:
        """The box's voxels within their bounds."""
        voxels: NDArray[np.float32] = self.tensor(box, torch.device("cpu")).numpy()
        return voxels

    def tensor(self, box: Box, device: torch.device) -> Tensor:
        """The same on a device, (C, Z, Y, X) float32."""
        part = slice(None) if self.axis is None else box.slices[self.axis]
        form = [self.channels, 1, 1, 1]
        form[1 + (self.axis or 0)] = -1
        low, high = (upload(ends[:, part].reshape(form), device) for ends in (self.bounds.low, self.bounds.high))
        return read_tensor(self.source, box, device).clamp(low, high)
