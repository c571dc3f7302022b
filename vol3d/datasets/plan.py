"""What follows from a fingerprint when the user does not say otherwise. Simple rules, each with its reason."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from vol3d.datasets.fingerprint import Fingerprint
from vol3d.preprocess.intensity import Normalisation
from vol3d.preprocess.pipeline import NetworkSpacing
from vol3d.shapes import AXES, Shape3, Spacing
from vol3d.volume.labels import MAX_LABEL, Region

T = TypeVar("T", covariant=True)

ANISOTROPIC = 3.0
CT_AIR = -500.0
PADDED = 0.75
"""Where the median case holds anything in less than this share, the rest is padding (nnU-Net's)."""
PATCH_MULTIPLE = 8
VOXELS = {"cpu": 96_000, "cuda": 128**3}
FEATURES = {"cpu": 24, "cuda": 32}
SHARE_OF_DATA = 0.05
"""No batch sees more of the data's voxels (nnU-Net's)."""
COVERED = 0.25
"""A patch that covers less of the median case sees too little around it (nnU-Net's)."""
STEPS = (8_000, 100_000)
STEPS_OF_A_CUBE = 750.0


@dataclass(frozen=True)
class Decided(Generic[T]):
    """A choice, and why, in a line."""

    value: T
    why: str


def target_spacing(found: Fingerprint, thin: Collection[int] = ()) -> Decided[NetworkSpacing]:
    """nnU-Net's rule: the median; on the coarsest axis of anisotropic data the 10th percentile.

    Along thin axes, where the network sees one voxel, nothing is resampled, and the spacing is no
    sign of anisotropy.
    """
    spacing = list(found.median_spacing)
    deep = [axis for axis in range(3) if axis not in thin]
    why = f"the median of {len(found.cases)} cases"
    if len({c.spacing for c in found.cases}) == 1:
        why = "that of every case, so nothing is resampled"
    coarsest = max(deep, key=lambda axis: spacing[axis], default=0)
    others = [spacing[axis] for axis in deep if axis != coarsest]
    if others and spacing[coarsest] > ANISOTROPIC * min(others):
        tenth = float(np.percentile([c.spacing[coarsest] for c in found.cases], 10))
        why += f"; along {AXES[coarsest]}, {spacing[coarsest] / min(others):.1f} times as coarse, their 10th percentile"
        spacing[coarsest] = max(tenth, *others)
    if thin:
        why += f"; along {', '.join(AXES[axis] for axis in thin)} single slices, which stay as they are"
    return Decided(NetworkSpacing(*("stored" if axis in thin else step for axis, step in enumerate(spacing))), why)


def normalisations(found: Fingerprint) -> tuple[Decided[Normalisation], ...]:
    """Per channel: CT by air in most cases, percentiles for unsigned integers, else z-score.

    The z-score of padded volumes is that of what is not zero.
    """
    return tuple(_normalisation(found, channel) for channel in range(len(found.cases[0].minimum)))


def _normalisation(found: Fingerprint, channel: int) -> Decided[Normalisation]:
    lowest = float(np.median([c.minimum[channel] for c in found.cases]))
    values = np.concatenate([c.foreground[channel] for c in found.cases]).astype(np.float64)
    low, high = (float(v) for v in np.percentile(values, [0.5, 99.5]))
    if lowest <= CT_AIR and low < high:  # one grey value alone makes no window
        fixed = Normalisation("fixed", low=low, high=high, mean=float(values.mean()), std=float(values.std()))
        return Decided(fixed, f"CT, as the median case reaches down to air ({lowest:g}): one scale, of the foreground")
    if all(c.dtype in ("uint8", "uint16") for c in found.cases):
        return Decided(Normalisation("percentile"), "unsigned integers of any offset and gain: each volume's own scale")
    filled = float(np.median([c.filled for c in found.cases]))
    if filled < PADDED:
        why = f"each volume's own scale, of what is not zero: {100 * (1 - filled):.0f} % of the median case is padding"
        return Decided(Normalisation(voxels="nonzero"), why)
    return Decided(Normalisation("z_score"), "grey values without a unit: each volume's own scale")


def regions(found: Fingerprint, names: dict[str, tuple[int, ...]] | None) -> Decided[tuple[Region, ...]]:
    """The data set's own names, or one region per value.

    Values that never meet in a case (255 here, 254 there) are two spellings of one foreground.
    """
    if names:
        return Decided(tuple(Region(name, values) for name, values in names.items()), "as the data set names them")
    values = found.label_values
    if all(sum(v > 0 for v in c.label_voxels) <= 1 for c in found.cases):
        return Decided((Region("foreground", values[::-1]),), "no case has more than one value beside zero")
    named = tuple(Region(f"label_{value}", (value,)) for value in values)
    return Decided(named, "one per value that occurs; the data set has no names for them")


def free_value(taken: Collection[int]) -> int:
    """The largest label value that nothing has yet, for what is not known.

    Raises:
        ValueError: all are taken.
    """
    for value in range(MAX_LABEL, 0, -1):
        if value not in taken:
            return value
    raise ValueError("some labels are not known, and no value is free to say so: all of 1 to 255 are taken")


@dataclass(frozen=True)
class PatchPlan:
    """Voxels of the patch along z, y, x and patches in a batch."""

    patch: Shape3
    batch: int


def patch_plan(
    found: Fingerprint,
    spacing: Spacing,
    device: Literal["cpu", "cuda"],
    thin: Collection[int] = (),
    *,
    voxels: int | None = None,
    patch: Shape3 | None = None,
) -> PatchPlan:
    """A patch as near to a cube in mm as a budget of voxels (None: the device's) and the median case allow.

    An axis that covers the whole median case is rounded up, the others to the nearest multiple of 8;
    a thin axis is one voxel. Two patches make a batch; small patches, also one that is given, make larger ones on
    a GPU, up to twice the budget or 5 % of the data, and slices everywhere.
    """
    shapes, budget = found.shapes_at(spacing), voxels or VOXELS[device]
    if patch is None:
        patch = _patch([float(v) for v in np.median(shapes, axis=0)], spacing, budget, thin)
    return PatchPlan(patch, _batch(shapes, patch, budget, device, bool(thin)))


def _patch(median: Sequence[float], spacing: Spacing, budget: int, thin: Collection[int]) -> Shape3:
    edges, free = [1.0, 1.0, 1.0], {0, 1, 2} - set(thin)
    while free:
        rest = budget / math.prod(edges[a] for a in range(3) if a not in free)
        edge_mm = (rest * math.prod(spacing[a] for a in free)) ** (1 / len(free))
        full = {a for a in free if edge_mm / spacing[a] >= median[a]}
        for a in full or free:
            edges[a] = median[a] if full else edge_mm / spacing[a]
        free -= full or free
    return Shape3(*(_rounded(edge, edge >= m) for edge, m in zip(edges, median, strict=True)))


def _batch(shapes: NDArray[np.int64], patch: Shape3, budget: int, device: Literal["cpu", "cuda"], thin: bool) -> int:
    if device == "cpu":
        return min(16, max(2, budget // patch.voxels)) if thin else 2
    seen = SHARE_OF_DATA * float(shapes.prod(axis=1).sum()) / patch.voxels
    return max(2, min(2 * budget // patch.voxels, round(seen)))


def _rounded(edge: float, whole: bool) -> int:
    if edge < PATCH_MULTIPLE:
        return max(1, round(edge))
    parts = edge / PATCH_MULTIPLE
    return PATCH_MULTIPLE * (math.ceil(parts) if whole else max(1, round(parts)))


def covered(patch: Sequence[int], shape: Sequence[float]) -> float:
    """Which share of a volume of this shape a patch covers."""
    return math.prod(min(1.0, edge / length) for edge, length in zip(patch, shape, strict=True))


def coarse_spacing(patch: Shape3, shape: Sequence[float], spacing: Spacing) -> Spacing | None:
    """The spacing (mm) at which a patch covers a quarter of a volume, which has this shape at the finer spacing.

    None where it does already. nnU-Net's rule: the finer axes are made coarser first, 3 % at a time.
    """
    steps, edges = [float(s) for s in spacing], [float(n) for n in shape]
    if covered(patch, edges) >= COVERED:
        return None
    deep = [axis for axis in range(3) if shape[axis] > 1]
    while covered(patch, edges) < COVERED:
        coarsest = max(steps[axis] for axis in deep)
        for axis in [axis for axis in deep if steps[axis] < coarsest / 2] or deep:
            steps[axis], edges[axis] = 1.03 * steps[axis], edges[axis] / 1.03
    return Spacing(*(float(f"{step:.3g}") for step in steps))


def training_steps(found: Fingerprint, patch: Shape3, spacing: Spacing) -> Decided[int]:
    """Updates of a training without a limit: by the square root of how many patches the data hold.

    260 crops of a hippocampus, a patch each, come to about 12,000, where their Dice no longer rises.
    """
    shapes = found.shapes_at(spacing)
    cubes = float(np.maximum(1.0, shapes / np.array(patch)).prod(axis=1).sum())
    low, high = STEPS
    steps = min(high, max(low, 100 * round(STEPS_OF_A_CUBE * math.sqrt(cubes) / 100)))
    return Decided(steps, f"the data hold some {cubes:,.0f} patches: {steps:,} steps, by their square root")
