"""What follows from a fingerprint when the user does not say otherwise. Simple rules, each with its reason."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vol3d.datasets.fingerprint import Fingerprint
from vol3d.preprocess.intensity import Normalisation
from vol3d.preprocess.pipeline import NetworkSpacing
from vol3d.preprocess.resample import resized_shape
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.labels import MAX_LABEL, Region

ANISOTROPIC = 3.0
CT_AIR = -500.0
PATCH_MULTIPLE = 8
VOXELS = {"cpu": 96_000, "cuda": 128**3}
FEATURES = {"cpu": 24, "cuda": 32}


def target_spacing(found: Fingerprint, thin: Collection[int] = ()) -> NetworkSpacing:
    """nnU-Net's rule: the median; on the coarsest axis of anisotropic data the 10th percentile.

    Along thin axes, where the network sees one voxel, nothing is resampled, and the spacing is no
    sign of anisotropy.
    """
    spacing = list(found.median_spacing)
    deep = [axis for axis in range(3) if axis not in thin]
    coarsest = max(deep, key=lambda axis: spacing[axis], default=0)
    others = [spacing[axis] for axis in deep if axis != coarsest]
    if others and spacing[coarsest] > ANISOTROPIC * min(others):
        tenth = float(np.percentile([c.spacing[coarsest] for c in found.cases], 10))
        spacing[coarsest] = max(tenth, *others)
    return NetworkSpacing(*("stored" if axis in thin else step for axis, step in enumerate(spacing)))


def normalisations(found: Fingerprint) -> tuple[Normalisation, ...]:
    """Per channel: CT by air in most cases, percentiles for unsigned integers, else z-score."""
    channels = []
    for channel in range(len(found.cases[0].minimum)):
        minima = np.array([c.minimum[channel] for c in found.cases])
        values = np.concatenate([c.foreground[channel] for c in found.cases]).astype(np.float64)
        low, high = np.percentile(values, [0.5, 99.5])
        if np.median(minima) <= CT_AIR and low < high:  # one grey value alone makes no window
            channels.append(
                Normalisation(
                    "fixed",
                    low=float(low),
                    high=float(high),
                    mean=float(values.mean()),
                    std=float(values.std()),
                )
            )
        elif all(c.dtype in ("uint8", "uint16") for c in found.cases):
            channels.append(Normalisation("percentile"))
        else:
            channels.append(Normalisation("z_score"))
    return tuple(channels)


def regions(found: Fingerprint, names: dict[str, tuple[int, ...]] | None) -> tuple[Region, ...]:
    """The data set's own names, or one region per value.

    Values that never meet in a case (255 here, 254 there) are two spellings of one foreground.
    """
    if names:
        return tuple(Region(name, values) for name, values in names.items())
    values = found.label_values
    if all(sum(v > 0 for v in c.label_voxels) <= 1 for c in found.cases):
        return (Region("foreground", values[::-1]),)
    return tuple(Region(f"label_{value}", (value,)) for value in values)


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
    found: Fingerprint, spacing: Spacing, device: Literal["cpu", "cuda"], thin: Collection[int] = ()
) -> PatchPlan:
    """A patch as near to a cube in mm as the device's budget of voxels and the median case allow.

    An axis that covers the whole median case is rounded up, the others to the nearest multiple of 8;
    a thin axis is one voxel. Two patches make a batch; small patches make larger ones on a GPU, and
    slices everywhere.
    """
    shapes = [resized_shape(c.shape, c.spacing, spacing) for c in found.cases]
    median = [float(v) for v in np.median(shapes, axis=0)]
    budget = VOXELS[device]
    edges, free = [1.0, 1.0, 1.0], {0, 1, 2} - set(thin)
    while free:
        rest = budget / math.prod(edges[a] for a in range(3) if a not in free)
        edge_mm = (rest * math.prod(spacing[a] for a in free)) ** (1 / len(free))
        full = {a for a in free if edge_mm / spacing[a] >= median[a]}
        for a in full or free:
            edges[a] = median[a] if full else edge_mm / spacing[a]
        free -= full or free
    patch = [_rounded(edge, edge >= m) for edge, m in zip(edges, median, strict=True)]
    batch = 2 if device == "cpu" and not thin else int(min(16, max(2, budget // math.prod(patch))))
    return PatchPlan(Shape3(*patch), batch)


def _rounded(edge: float, whole: bool) -> int:
    if edge < PATCH_MULTIPLE:
        return max(1, round(edge))
    parts = edge / PATCH_MULTIPLE
    return PATCH_MULTIPLE * (math.ceil(parts) if whole else max(1, round(parts)))
