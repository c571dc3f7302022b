"""Grey values to what a network likes: constants found once per volume, applied voxel by voxel."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vol3d.geometry.box import Box
from vol3d.preprocess.crop import body_mask, nonzero_mask
from vol3d.preprocess.statistics import Extremes, boxes_of, extremes, moments, quantiles
from vol3d.preprocess.tensors import read_tensor, upload
from vol3d.volume.source import View, VolumeSource

Voxels = Literal["all", "nonzero", "body", "organ"]

EQUALISED_LEVELS = 256


@dataclass(frozen=True)
class Normalisation:
    """How one channel is normalised.

    z_score     (v - mean) / std of the volume.
    percentile  the volume's low and high percentile become the ends of onto; above the upper one the slope is
                soft_clip (SenNet: 10, 99.8, 0.01), so that bright outliers stay ordered but do not dominate.
    fixed       clip to [low, high], then (v - mean) / std, all four given: nnU-Net's CT scheme.
    window      clip to [low, high], which become the ends of onto: an HU window.
    range       the volume's smallest and largest value become the ends of onto.
    equalised   histogram equalisation: a value becomes the share of the volume's voxels below it, onto's ends for
                none and all. What lies beyond the values that were looked at becomes the nearer end.
    none        as they are.

    voxels says whose values the volume's are: all; nonzero, those that are not zero in every channel, or
    enclosed by such (the others become 0, as around a brain whose skull was cut away); body, see
    crop.body_mask; organ, those of the case's organ mask.
    """

    scheme: Literal["z_score", "percentile", "fixed", "window", "range", "equalised", "none"] = "z_score"
    voxels: Voxels = "all"
    low_percentile: float = 10.0
    high_percentile: float = 99.8
    soft_clip: float = 0.01
    low: float = 0.0
    high: float = 1.0
    mean: float = 0.0
    std: float = 1.0
    onto: tuple[float, float] = (0.0, 1.0)

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
        if not self.onto[0] < self.onto[1]:
            raise ValueError(f"onto must be two numbers, the lower one first, got {list(self.onto)}")
        if self.voxels != "all" and self.scheme in ("fixed", "window", "none"):
            raise ValueError(f"voxels {self.voxels} means nothing to the scheme {self.scheme}, which looks at none")


@dataclass(frozen=True)
class Constants:
    """One channel of one volume: clip to [low, high], subtract shift, divide by scale, flatten above knee.

    Before that, where there are levels, values become their place among these (ascending; 0 to 1 between the
    first and the last). inside sets what lies outside the view's mask to 0.
    """

    shift: float
    scale: float
    low: float = -np.inf
    high: float = np.inf
    knee: float = np.inf
    slope: float = 1.0
    inside: bool = False
    levels: tuple[float, ...] = ()


NOTHING = Constants(0.0, 1.0, low=0.0, high=0.0)
"""What makes every voxel 0."""


def normalised(
    source: VolumeSource, channels: tuple[Normalisation, ...], organ: VolumeSource | None = None
) -> "NormalisedView":
    """The source with every channel normalised, from a few passes over it. A channel without spread becomes 0.

    organ is the organ mask (1, Z, Y, X) on the source's grid, for settings that look at its voxels.

    Raises:
        ValueError: as many settings as the source has channels are needed, or an organ mask.
    """
    masks = {voxels: _mask(source, voxels, organ) for voxels in {c.voxels for c in channels} - {"all"}}
    return NormalisedView(source, constants(source, channels, masks), masks.get("nonzero"))


def _mask(source: VolumeSource, voxels: Voxels, organ: VolumeSource | None) -> NDArray[np.bool_]:
    if voxels == "nonzero":
        return nonzero_mask(source)
    if voxels == "body":
        return body_mask(source)
    if organ is None:
        raise ValueError("normalisation looks at the organ's voxels, and there is no organ mask")
    mask = np.zeros(source.shape, dtype=np.bool_)
    for box in boxes_of(organ):
        mask[box.slices] = organ.read(box)[0] != 0
    return mask


def constants(
    source: VolumeSource, channels: tuple[Normalisation, ...], masks: Mapping[Voxels, NDArray[np.bool_]] = {}
) -> tuple[Constants, ...]:
    """The constants of every channel of a volume, from one or two passes over it for each way to look at it.

    masks (Z, Y, X) are the voxels that settings look at, but for all. A constant channel (no
    spread), or one of which nothing is looked at, becomes zero everywhere.

    Raises:
        ValueError: as many settings as the source has channels are needed.
    """
    if len(channels) != source.channels:
        raise ValueError(f"expected {len(channels)} channels, got {source.channels}")

    @cache
    def asked(about: Callable[..., Any], voxels: Voxels, *rest: Any) -> Any:
        return about(source, *rest, inside=masks.get(voxels))

    empty = {voxels for voxels, mask in masks.items() if not mask.any()}
    return tuple(NOTHING if c.voxels in empty else _constants(c, index, asked) for index, c in enumerate(channels))


def _constants(channel: Normalisation, index: int, asked: Callable[..., Any]) -> Constants:
    """Those of one channel; asked(statistic, voxels, ...) gives a statistic of all channels."""
    voxels, (first, last) = channel.voxels, channel.onto
    inside = voxels == "nonzero"

    def between(low: float, high: float) -> Constants:
        """What maps low and high to the ends of onto."""
        scale = (high - low) / (last - first) if high > low else 1.0
        return Constants(low - first * scale if high > low else low, scale, inside=inside)

    match channel.scheme:
        case "z_score":
            spread = asked(moments, voxels)[index]
            return Constants(spread.mean, spread.std or 1.0, inside=inside)
        case "percentile":
            low, high = asked(quantiles, voxels, (channel.low_percentile / 100, channel.high_percentile / 100))[index]
            return replace(between(float(low), float(high)), knee=last, slope=channel.soft_clip)
        case "fixed":
            return Constants(channel.mean, channel.std, low=channel.low, high=channel.high)
        case "window":
            return replace(between(channel.low, channel.high), low=channel.low, high=channel.high)
        case "range":
            ends = asked(extremes, voxels)
            low, high = float(ends.low[index, 0]), float(ends.high[index, 0])
            return between(low, high)
        case "equalised":
            fractions = tuple(np.linspace(0.0, 1.0, EQUALISED_LEVELS).tolist())
            levels = tuple(asked(quantiles, voxels, fractions)[index].tolist())
            return replace(between(0.0, 1.0), levels=levels) if levels[0] < levels[-1] else NOTHING
        case "none":
            return Constants(0.0, 1.0)


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
    if c.levels:
        values.copy_(_places(values, torch.tensor(c.levels, dtype=torch.float32, device=values.device)))
    if np.isfinite([c.low, c.high]).any():
        values.clamp_(c.low, c.high)
    values.sub_(c.shift).div_(c.scale)
    if np.isfinite(c.knee):
        above = (values - c.knee).clamp_(min=0).mul_(c.slope)
        values.clamp_(max=c.knee).add_(above)


def _places(values: Tensor, levels: Tensor) -> Tensor:
    """Where values lie among ascending levels: 0 to 1, linearly between two, in the middle of equal ones."""
    before, after = (torch.bucketize(values, levels, right=right) for right in (False, True))
    low, high = levels[(before - 1).clamp_(min=0)], levels[before.clamp(max=len(levels) - 1)]
    between = before - 1 + ((values - low) / (high - low)).nan_to_num_(0.0, 0.0, 0.0)
    places = torch.where(after > before, (before + after - 1) / 2, between)
    return places.clamp_(0, len(levels) - 1).div_(len(levels) - 1)


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
