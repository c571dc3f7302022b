"""Augmentation of a whole batch at once, on the batch's own device.

All spatial changes of a sample (flips, quarter turns, oblique turns, scale) are one matrix, and the
patch is read through it out of a larger cube, so that corners hold image and not padding.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Generator, Tensor
from torch.nn import functional

from vol3d.errors import UsageError, unknown_name
from vol3d.shapes import Shape3, Spacing

Axis = Literal["z", "y", "x"]
AXES: tuple[Axis, ...] = ("z", "y", "x")
PLANES = ((1, 2), (0, 1), (0, 2))
THICK = 3.0

Augmentation = Callable[..., tuple[Tensor, Tensor]]
"""Images (B, C, Z, Y, X) float32, labels (B, Z, Y, X), a CPU generator, options by name; to both, their shapes kept."""

_AUGMENTATIONS: dict[str, Augmentation] = {}


def register_augmentation(name: str, augmentation: Augmentation) -> None:
    """Make an augmentation of whole batches known by name, to be enabled in augmentation.extra.

    It gets images (B, C, Z, Y, X) float32 and label values (B, Z, Y, X) uint8 on the training's device, augmented
    already, a generator of the CPU and its options by name, and gives both in their shapes. It draws all chance from
    the generator, so that a resumed training sees what an uninterrupted one does.

    Raises:
        ValueError: if the name is taken.
        TypeError: augmentation is no function.
    """
    if not callable(augmentation):
        raise TypeError(f"augmentation {name!r}: expected a function, got a {type(augmentation).__name__}")
    if name in _AUGMENTATIONS:
        raise ValueError(f"an augmentation named {name!r} exists already; choose another name")
    _AUGMENTATIONS[name] = augmentation


@dataclass(frozen=True)
class AugmentSettings:
    """Chances are per sample. Angles in degrees, blur in voxels; the others are factors of the image.

    mirror_axes and quarter_turns say which symmetries the data has ("auto": the plan decides); each
    allowed mirror is taken with chance one half. Where slices are more than three times as thick as
    the pixels are wide, and where a patch is one slice, samples are only turned within the slices.
    """

    mirror_axes: tuple[Axis, ...] | Literal["auto"] = "auto"
    quarter_turns: bool | Literal["auto"] = "auto"
    rotation_chance: float = 0.25
    rotation_degrees: float = 30.0
    scale_chance: float = 0.25
    scale_range: tuple[float, float] = (0.7, 1.4)
    noise_chance: float = 0.1
    noise_std: float = 0.1
    blur_chance: float = 0.2
    blur_sigma: tuple[float, float] = (0.5, 1.0)
    brightness_chance: float = 0.15
    brightness: tuple[float, float] = (0.75, 1.25)
    contrast_chance: float = 0.15
    contrast: tuple[float, float] = (0.75, 1.25)
    gamma_chance: float = 0.3
    gamma: tuple[float, float] = (0.7, 1.5)
    extra: dict[str, dict[str, Any]] = field(default_factory=dict)  # registered ones with their options, in order

    def __post_init__(self) -> None:
        for name in ("rotation", "scale", "noise", "blur", "brightness", "contrast", "gamma"):
            chance = getattr(self, f"{name}_chance")
            if not 0 <= chance <= 1:
                raise ValueError(f"{name}_chance must be between 0 and 1, got {chance}")
        for name in ("scale_range", "blur_sigma", "brightness", "contrast", "gamma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be two positive numbers in order, got {low} and {high}")
        for name, options in self.extra.items():
            if name not in _AUGMENTATIONS:
                raise ValueError(f"extra: {unknown_name('augmentation', name, _AUGMENTATIONS)}")
            try:
                inspect.signature(_AUGMENTATIONS[name]).bind(..., ..., ..., **options)
            except TypeError as error:
                raise ValueError(f"extra: {name}: {error}") from error


@dataclass(frozen=True)
class Augmenter:
    """Cubes in, augmented patches out; chance comes from the generator alone.

    mirrored_values says which label value takes the place of each in a sample that is mirrored along x;
    None keeps them. The first grey channels are grey values; those that follow are probabilities, which
    move with the image but keep their values. None: all are grey.
    """

    settings: AugmentSettings
    patch: Shape3
    spacing: Spacing
    mirrored_values: tuple[int, ...] | None = None
    grey: int | None = None

    @property
    def cube(self) -> Shape3:
        """The size of cube that a turned and shrunk patch needs: at most twice the patch per axis."""
        reach = [1.0, 1.0, 1.0]
        if self.settings.rotation_chance:
            angle = math.radians(min(self.settings.rotation_degrees, 45.0))
            size = [n * s for n, s in zip(self.patch, self.spacing, strict=True)]
            for a, b in self._turning_planes():
                reach[a] = max(reach[a], math.cos(angle) + math.sin(angle) * size[b] / size[a])
                reach[b] = max(reach[b], math.cos(angle) + math.sin(angle) * size[a] / size[b])
        if self.settings.quarter_turns is True:
            for a, b in self._square_planes():
                reach[a] = max(reach[a], self.patch[b] / self.patch[a])
                reach[b] = max(reach[b], self.patch[a] / self.patch[b])
        grow = 1.0 / self.settings.scale_range[0] if self.settings.scale_chance else 1.0
        # An even difference keeps the patch's voxels on the cube's when nothing is turned.
        return Shape3(
            *(
                n + 2 * math.ceil((min(2.0, r * grow) - 1) * n / 2) if n > 1 else 1
                for n, r in zip(self.patch, reach, strict=True)
            )
        )

    def __call__(self, images: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Augment a batch.

        images (B, C, Z, Y, X) float32 and labels (B, L, Z, Y, X) uint8, both of cube size; both come back at
        patch size. Channel 0 of the labels are label values; others, such as a skeleton, are moved with them.
        generator is a CPU generator.
        """
        samples = [self._matrix(generator) for _ in range(images.shape[0])]
        images, labels = self._read(images, labels, torch.stack([m for m, _ in samples]).to(images.device))
        if self.mirrored_values is not None:
            values = torch.tensor(self.mirrored_values, dtype=labels.dtype, device=labels.device)
            mirrored = torch.tensor([m for _, m in samples], device=labels.device)[:, None, None, None]
            labels[:, 0] = torch.where(mirrored, values[labels[:, 0].long()], labels[:, 0])
        changed = self._intensity(images[:, : self.grey], generator)
        images = torch.cat([changed, images[:, changed.shape[1] :]], dim=1)
        for name, options in self.settings.extra.items():
            images, labels = _registered(name, options, images, labels, generator)
        return images, labels

    def _turning_planes(self) -> tuple[tuple[int, int], ...]:
        """Planes to turn in: not those with an axis of one voxel, nor with one of thick slices."""
        steps = {axis: self.spacing[axis] for axis in range(3) if self.patch[axis] > 1}
        thick = max(steps, key=lambda axis: steps[axis], default=0)
        coarse = bool(steps) and steps[thick] > THICK * min(steps.values())
        return tuple(p for p in PLANES if steps.keys() >= {*p} and not (coarse and thick in p))

    def _square_planes(self) -> tuple[tuple[int, int], ...]:
        return tuple(
            (a, b)
            for a, b in PLANES
            if min(self.patch[a], self.patch[b]) > 1 and math.isclose(self.spacing[a], self.spacing[b], rel_tol=0.01)
        )

    def _matrix(self, generator: Generator) -> tuple[Tensor, bool]:
        """Where a patch voxel's offset from the centre, (z, y, x) voxels, is read in the cube; whether x is mirrored.

        The mirrors come last, in the patch: quarter turns before them would bring another axis to x.
        """
        s = self.settings
        matrix, mirrored = torch.eye(3, dtype=torch.float64), False
        if s.quarter_turns is True:
            for plane in self._square_planes():
                matrix = matrix @ _rotation(plane, 0.5 * math.pi * int(4 * _uniform(generator, 0, 1)))
        for axis in s.mirror_axes if s.mirror_axes != "auto" else ():
            if _chance(generator, 0.5):
                matrix[:, AXES.index(axis)] *= -1
                mirrored |= axis == "x"
        turn = torch.eye(3, dtype=torch.float64)
        if _chance(generator, s.rotation_chance):
            limit = math.radians(s.rotation_degrees)
            for plane in self._turning_planes():
                turn = turn @ _rotation(plane, _uniform(generator, -limit, limit))
        if _chance(generator, s.scale_chance):
            low, high = s.scale_range
            turn = turn / math.exp(_uniform(generator, math.log(low), math.log(high)))
        spacing = torch.diag(torch.tensor(self.spacing, dtype=torch.float64))
        return spacing.inverse() @ turn @ spacing @ matrix, mirrored

    def _read(self, images: Tensor, labels: Tensor, matrices: Tensor) -> tuple[Tensor, Tensor]:
        device, cube = images.device, images.shape[2:]
        axes = [torch.arange(n, dtype=torch.float64, device=device) - (n - 1) / 2 for n in self.patch]
        offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
        half = torch.tensor(cube, dtype=torch.float64, device=device) / 2
        # grid_sample wants (x, y, z), -1 and 1 at the outer faces of the first and last voxel.
        grid = (torch.einsum("bij,nj->bni", matrices, offsets) / half).flip(-1)
        grid = grid.reshape(-1, *self.patch, 3).float()
        read = functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        there = functional.grid_sample(labels.float(), grid, mode="nearest", align_corners=False)
        return read, there.round().to(labels.dtype)

    def _intensity(self, images: Tensor, generator: Generator) -> Tensor:
        s = self.settings
        changed = []
        for image in images:
            result = image
            if _chance(generator, s.noise_chance):
                noise = torch.randn(image.shape, generator=generator).to(image.device)
                result = result + noise * _uniform(generator, 0, s.noise_std)
            if _chance(generator, s.blur_chance):
                result = _blur(result, _uniform(generator, *s.blur_sigma))
            if _chance(generator, s.brightness_chance):
                result = result * _uniform(generator, *s.brightness)
            if _chance(generator, s.contrast_chance):
                mean = result.mean(dim=(1, 2, 3), keepdim=True)
                result = mean + (result - mean) * _uniform(generator, *s.contrast)
            if _chance(generator, s.gamma_chance):
                result = _gamma(result, _uniform(generator, *s.gamma), inverted=_chance(generator, 0.25))
            changed.append(result)
        return torch.stack(changed)


def _registered(
    name: str, options: dict[str, Any], images: Tensor, labels: Tensor, generator: Generator
) -> tuple[Tensor, Tensor]:
    """What a registered augmentation makes of a batch; it is given the label values, (B, Z, Y, X), alone."""
    shapes = images.shape, labels[:, 0].shape
    pair = _AUGMENTATIONS[name](images, labels[:, 0].clone(), generator, **options)
    if not isinstance(pair, tuple | list) or [isinstance(one, Tensor) for one in pair] != [True, True]:
        raise UsageError(f"augmentation {name!r} must give images and labels, got a {type(pair).__name__}")
    images, values = pair
    if (images.shape, values.shape) != shapes:
        raise UsageError(
            f"augmentation {name!r} must keep the shapes {', '.join(str(tuple(s)) for s in shapes)}, "
            f"got {tuple(images.shape)}, {tuple(values.shape)}"
        )
    if labels.shape[1] > 1 and not torch.equal(values, labels[:, 0]):
        raise UsageError(
            f"augmentation {name!r} changes labels, which a skeleton that the loss looks at would not follow; "
            "take it out of augmentation.extra, or the loss's term out of loss.terms"
        )
    return images, torch.cat([values[:, None], labels[:, 1:]], dim=1)


def _uniform(generator: Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def _chance(generator: Generator, chance: float) -> bool:
    return _uniform(generator, 0, 1) < chance


def _rotation(plane: tuple[int, int], angle: float) -> Tensor:
    a, b = plane
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[a, a] = matrix[b, b] = math.cos(angle)
    matrix[a, b], matrix[b, a] = -math.sin(angle), math.sin(angle)
    return matrix


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (C, Z, Y, X), sigma in voxels, edges repeated."""
    radius = math.ceil(3 * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=image.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    result = image[:, None]
    for axis in (a for a in range(3) if image.shape[1 + a] > 1):
        pad, form = [0] * 6, [1, 1, 1, 1, 1]
        pad[4 - 2 * axis] = pad[5 - 2 * axis] = radius
        form[2 + axis] = -1
        result = functional.conv3d(functional.pad(result, pad, mode="replicate"), kernel.reshape(form))
    return result[:, 0]


def _gamma(image: Tensor, gamma: float, *, inverted: bool) -> Tensor:
    """Bend the grey values between minimum and maximum, per channel; mean and spread are kept."""
    sign = -1.0 if inverted else 1.0
    values = image * sign
    dims = (1, 2, 3)
    low, high = values.amin(dims, keepdim=True), values.amax(dims, keepdim=True)
    bent = ((values - low) / (high - low).clamp_min(1e-7)) ** gamma
    mean, std = values.mean(dims, keepdim=True), values.std(dims, keepdim=True)
    bent = (bent - bent.mean(dims, keepdim=True)) / bent.std(dims, keepdim=True).clamp_min(1e-7)
    return (bent * std + mean) * sign
