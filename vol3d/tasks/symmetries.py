"""Which mirrors and turns leave data what they are, and what changes its name in them.

A body's left kidney is a right one in the mirror. Where the x axis is known to run from left to right,
samples mirrored along it are learned with exchanged labels, and predictions are exchanged back. Where
any axis may be that one, or a side has no partner, such mirrors are not used.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from vol3d.config.tree import Config, DataSettings, Plan
from vol3d.errors import UsageError
from vol3d.inference.symmetry import Symmetries
from vol3d.patches.augmentations import AugmentSettings
from vol3d.preprocess.pipeline import PreprocessSettings
from vol3d.shapes import AXES, Axis
from vol3d.volume.sides import Swap, sides_of, swap_of

TURNED: dict[Symmetries, tuple[int, ...]] = {"quarter_turns": (1, 2), "views": (0, 1, 2)}
"""The axes that change places in each."""
SAME_SPACING = 0.01
UPRIGHT_DEGREES = 45.0
"""Turned no further, an axis is still nearer to itself than to another."""


def with_symmetries(config: Config, *, anatomical: bool) -> Config:
    """The configuration with its mirrors, quarter turns and left-right pairs.

    anatomical says that the axes of the volumes mean directions in a body.

    Raises:
        UsageError: the user's mirrors would confuse left and right.
    """
    data, alone = _with_pairs(config.data)
    if config.data.mirror_pairs != ():  # what an earlier run says is not exchanged
        sides = sides_of(data.cascade)
        alone = (*alone, *(name for pair in sides.pairs for name in pair), *sides.alone)
    augmentation, inference, patch = config.augmentation, config.inference, config.sampling.patch
    sided = bool(data.mirror_pairs or alone)
    if augmentation.quarter_turns == "auto":
        augmentation = replace(augmentation, quarter_turns=not (anatomical or sided))
    allowed: tuple[Axis, ...] = AXES
    if sided and not (anatomical and _upright(config.preprocess, augmentation)):
        allowed = ()
    elif alone:
        allowed = AXES[:2]
    if augmentation.mirror_axes == "auto":
        assert patch != "auto"
        thick = (axis for axis, n in zip(AXES, patch, strict=True) if n > 1)
        augmentation = replace(augmentation, mirror_axes=tuple(axis for axis in thick if axis in allowed))
    if inference.mirror_axes == "auto":
        inference = replace(inference, mirror_axes=augmentation.mirror_axes)
    wrong = [axis for axis in AXES if axis in {*augmentation.mirror_axes, *inference.mirror_axes} - {*allowed}]
    if wrong:
        raise UsageError(
            f"mirror_axes: a mirror along {', '.join(wrong)} would confuse the sides of "
            f"{', '.join(alone or (name for pair in data.mirror_pairs for name in pair))}; leave them to auto, or say "
            "with data.mirror_pairs which regions change places along x ([]: none)"
        )
    return replace(config, data=data, augmentation=augmentation, inference=inference)


def mirrors_left_out(config: Config, filled: Config) -> str:
    """Which mirrors the plan does without on account of sides, in a sentence; "" where it takes all it can."""
    patch, pairs = filled.sampling.patch, filled.data.mirror_pairs
    if config.augmentation.mirror_axes != "auto" or patch == "auto" or pairs == "auto":
        return ""
    used = filled.augmentation.mirror_axes
    left_out = [axis for axis, n in zip(AXES, patch, strict=True) if n > 1 and axis not in used]
    if not left_out:
        return ""
    sides = sides_of(tuple(dict.fromkeys((*filled.data.schema().names, *filled.data.cascade))))
    names = sides.alone or [name for pair in pairs or sides.pairs for name in pair]
    return (
        f"no mirrors along {', '.join(left_out)}: they would confuse the sides of {', '.join(names)} "
        "(data.mirror_pairs=[] says that the names mean nothing)"
    )


def _with_pairs(data: DataSettings) -> tuple[DataSettings, tuple[str, ...]]:
    """The pairs of the user or of the regions' names, and the sides without a partner that change places with it."""
    if data.mirror_pairs != "auto":
        return data, ()
    found = sides_of(data.schema().names)
    try:
        return replace(data, mirror_pairs=found.pairs), found.alone
    except ValueError:  # named as pairs, but with values that no mirror could exchange
        return replace(data, mirror_pairs=()), (*(name for pair in found.pairs for name in pair), *found.alone)


def _upright(preprocess: PreprocessSettings, augmentation: AugmentSettings) -> bool:
    """Whether the patches' x axis stays the one that runs from left to right."""
    turned = augmentation.largest_turn > UPRIGHT_DEGREES
    return preprocess.orientation == "ras" and not augmentation.quarter_turns and not turned


def mirror_swap(plan: Plan | Config) -> Swap | None:
    """What changes places in a mirror along x; None where nothing does, as in runs begun before there were pairs."""
    if plan.data.mirror_pairs == "auto" or not plan.data.mirror_pairs:
        return None
    return swap_of(plan.data.schema(), plan.data.mirror_pairs)


def check_symmetries(plan: Plan, trained: Plan, run: str) -> None:
    """Refuse symmetries of a prediction that the run was not trained with, or that its windows do not have.

    Raises:
        UsageError: there is one.
    """
    forbidden = set(plan.inference.mirror_axes) - set(trained.inference.mirror_axes)
    if forbidden:
        raise UsageError(
            f"inference.mirror_axes: {', '.join(sorted(forbidden))} is no symmetry that {run} was trained with; "
            f"allowed are {', '.join(trained.inference.mirror_axes) or 'none'}"
        )
    for name, axes in TURNED.items():
        if name not in plan.inference.symmetries:
            continue
        told, window, spacing = f"inference.symmetries: {name}", plan.inference.window, plan.preprocess.target
        if not trained.turned:
            raise UsageError(f"{told}: {run} was trained without quarter turns (augmentation.quarter_turns)")
        assert window != "auto"
        if len({window[axis] for axis in axes}) > 1:
            raise UsageError(f"{told} needs equal edges of the window, got {_of_axes(window, axes)}")
        if spacing is not None and not math.isclose(*_extremes(spacing, axes), rel_tol=SAME_SPACING):
            raise UsageError(f"{told} needs equal spacings, got {_of_axes(spacing, axes)} mm")


def _extremes(values: Sequence[float], axes: Sequence[int]) -> tuple[float, float]:
    return min(values[axis] for axis in axes), max(values[axis] for axis in axes)


def _of_axes(values: Sequence[float], axes: Sequence[int]) -> str:
    return ", ".join(f"{AXES[axis]} {values[axis]:g}" for axis in axes)
