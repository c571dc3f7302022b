"""Which augmentations there are: ours with their settings, and those that are registered."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Generator, Tensor

from vol3d.errors import UsageError, unknown_name
from vol3d.patches.chance import Drawn, OneOf
from vol3d.shapes import Axis

Augmentation = Callable[..., tuple[Tensor, Tensor]]
"""Images (B, C, Z, Y, X) float32, labels (B, Z, Y, X), a CPU generator, options by name; to both, their shapes kept."""

_AUGMENTATIONS: dict[str, Augmentation] = {}

BOUNDS: dict[str, tuple[float, float]] = {
    "rotation": (-180.0, 180.0),
    "scale": (0.1, 10.0),
    "zoom": (0.1, 1.0),
    "elastic": (0.0, 0.1),
    "grid": (0.0, 0.9),
    "optical": (-0.3, 1.0),
    "noise": (0.0, 100.0),
    "blur": (0.01, 100.0),
    "low_resolution": (1.0, 100.0),
    "brightness": (0.01, 100.0),
    "contrast": (0.01, 100.0),
    "inversion": (0.01, 100.0),
    "gamma": (0.01, 100.0),
}
"""Ours, in their order, each with the bounds of its range."""


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
    """Each augmentation has a chance per sample and a range that its strength is drawn from.

    mirror_axes and quarter_turns say which symmetries the data has ("auto": the plan decides); each
    allowed mirror is taken with chance one half. Where slices are more than three times as thick as
    the pixels are wide, and where a patch is one slice, samples are only turned within the slices.
    Of the augmentations of a group in one_of at most one happens, with the group's chance.
    """

    mirror_axes: tuple[Axis, ...] | Literal["auto"] = "auto"
    quarter_turns: bool | Literal["auto"] = "auto"
    rotation: Drawn = Drawn(0.25, (-30.0, 30.0))
    scale: Drawn = Drawn(0.25, (0.7, 1.4))
    zoom: Drawn = Drawn(0.0, (0.8, 1.0))
    elastic: Drawn = Drawn(0.0, (0.0, 0.06))
    grid: Drawn = Drawn(0.0, (0.0, 0.3))
    optical: Drawn = Drawn(0.0, (-0.1, 0.1))
    noise: Drawn = Drawn(0.1, (0.0, 0.1))
    blur: Drawn = Drawn(0.2, (0.5, 1.0))
    low_resolution: Drawn = Drawn(0.0, (1.0, 2.0))
    brightness: Drawn = Drawn(0.15, (0.75, 1.25))
    contrast: Drawn = Drawn(0.15, (0.75, 1.25))
    inversion: Drawn = Drawn(0.0, (0.75, 1.25))
    gamma: Drawn = Drawn(0.3, (0.7, 1.5))
    one_of: tuple[OneOf, ...] = ()
    extra: dict[str, dict[str, Any]] = field(default_factory=dict)  # registered ones with their options, in order

    FORMER: ClassVar[Mapping[str, tuple[str, str, Callable[[Any], Any] | None]]] = {
        "rotation_degrees": ("rotation", "range", lambda degrees: [-degrees, degrees]),
        "scale_range": ("scale", "range", None),
        "noise_std": ("noise", "range", lambda std: [0.0, std]),
        "blur_sigma": ("blur", "range", None),
        **{
            f"{name}_chance": (name, "chance", None)
            for name in ("rotation", "scale", "noise", "blur", "brightness", "contrast", "gamma")
        },
        **{name: (name, "range", None) for name in ("brightness", "contrast", "gamma")},
    }
    """Settings of runs that were begun before 0.2: where each of them belongs, and what it becomes there."""

    def __post_init__(self) -> None:
        for name, (low, high) in BOUNDS.items():
            given = getattr(self, name).range
            if not low <= given[0] <= given[1] <= high:
                raise ValueError(f"{name}: range must lie between {low:g} and {high:g}, got {given[0]} and {given[1]}")
        grouped = [name for group in self.one_of for name in group.of]
        for name in grouped:
            if name not in BOUNDS:
                raise ValueError(f"one_of: {unknown_name('augmentation', name, BOUNDS)}")
            if grouped.count(name) > 1:
                raise ValueError(f"one_of: {name} is in a group twice; once is enough")
        for name, options in self.extra.items():
            if name not in _AUGMENTATIONS:
                raise ValueError(f"extra: {unknown_name('augmentation', name, _AUGMENTATIONS)}")
            try:
                inspect.signature(_AUGMENTATIONS[name]).bind(..., ..., ..., **options)
            except TypeError as error:
                raise ValueError(f"extra: {name}: {error}") from error

    @property
    def drawn(self) -> dict[str, Drawn]:
        """Ours by name."""
        return {name: getattr(self, name) for name in BOUNDS}

    def may(self, name: str) -> bool:
        """Whether a sample can get this augmentation."""
        groups = [group.chance for group in self.one_of if name in group.of]
        return any(groups) if groups else self.drawn[name].chance > 0

    @property
    def largest_turn(self) -> float:
        """The largest angle about an axis, degrees; 0 where no sample is turned obliquely."""
        return max(map(abs, self.rotation.range)) if self.may("rotation") else 0.0


def registered(
    name: str, options: Mapping[str, Any], images: Tensor, labels: Tensor, generator: Generator
) -> tuple[Tensor, Tensor]:
    """What a registered augmentation makes of a batch; it is given the label values, (B, Z, Y, X), alone.

    Raises:
        UsageError: it does not keep the shapes, or moves labels that a skeleton in further channels would not follow.
    """
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
    if labels.shape[1] > 1 and not bool((values == labels[:, 0]).all()):
        raise UsageError(
            f"augmentation {name!r} changes labels, which a skeleton that the loss looks at would not follow; "
            "take it out of augmentation.extra, or the loss's term out of loss.terms"
        )
    return images, labels if labels.shape[1] > 1 else values[:, None]
