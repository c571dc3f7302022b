"""Which cubes to learn from: foreground-weighted, scheduled, a pure function of (random_seed, step)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vol3d.geometry.box import Box
from vol3d.shapes import Index3, Shape3
from vol3d.volume.source import VolumeSource

MAX_PLACES = 10_000


@dataclass(frozen=True)
class SamplingSettings:
    """What a batch is made of.

    foreground is the share of cubes centred on a foreground voxel; it moves linearly to foreground_end
    (if given) over the training. region_weights says how often each region is the one (default 1 each).
    """

    patch: Shape3 | Literal["auto"] = "auto"
    batch: int | Literal["auto"] = "auto"
    foreground: float = 0.5
    foreground_end: float | None = None
    region_weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in (("foreground", self.foreground), ("foreground_end", self.foreground_end)):
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {value}")
        if self.batch != "auto" and self.batch < 1:
            raise ValueError(f"batch must be at least 1, got {self.batch}")
        if any(w < 0 for w in self.region_weights.values()):
            raise ValueError("region_weights must not be negative")


@dataclass(frozen=True)
class TrainingCase:
    """A preprocessed case: image (C, ...) and labels (L, ...) uint8 on one grid, per region some voxels (n, 3).

    Channel 0 of the labels are label values; others, such as a skeleton, go where they go. known holds some
    voxels whose label is known, background too; None where all are.
    """

    name: str
    image: VolumeSource
    labels: VolumeSource
    places: Mapping[str, NDArray[np.int32]]
    known: NDArray[np.int32] | None = None


def places_of(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int32]:
    """At most 10,000 of the true voxels of a (Z, Y, X) mask, as indices (n, 3)."""
    flat = np.flatnonzero(mask)
    if flat.size > MAX_PLACES:
        flat = np.sort(rng.choice(flat, MAX_PLACES, replace=False))
    return np.stack(np.unravel_index(flat, mask.shape), axis=1).astype(np.int32)


@dataclass(frozen=True)
class Batch:
    """images (B, C, z, y, x) float32, labels (B, L, z, y, x) uint8, and the cases they come from."""

    images: NDArray[np.float32]
    labels: NDArray[np.uint8]
    cases: tuple[str, ...]


@dataclass(frozen=True)
class CubeSampler:
    """Cuts batches of cubes out of cases. cube may be larger than the patch, to leave room for turning.

    Every patch holds a voxel whose label is known. Beyond a volume the image is zero and label values are
    beyond: background, or what is not known, lest the few known voxels drown in it; further label channels are zero.
    """

    cases: Sequence[TrainingCase]
    settings: SamplingSettings
    cube: Shape3
    batch: int
    random_seed: int
    beyond: int = 0

    def __post_init__(self) -> None:
        if not self.cases:
            raise ValueError("expected at least one training case, got none")
        unknown = [case.name for case in self.cases if case.known is not None and not len(case.known)]
        if unknown:
            raise ValueError(f"no label is known in {', '.join(unknown)}")

    def sample(self, step: int, progress: float) -> Batch:
        """The batch of one step; progress in [0, 1] is how much of the training is done."""
        rng = np.random.default_rng([self.random_seed, step])
        start, end = self.settings.foreground, self.settings.foreground_end
        share = start if end is None else start + (end - start) * progress
        # Rounded by chance, so that the share holds on average whatever the batch.
        foreground = int(np.floor(self.batch * share + rng.random()))
        cubes = [self._cube(slot < foreground, rng) for slot in range(self.batch)]
        return Batch(np.stack([c[0] for c in cubes]), np.stack([c[1] for c in cubes]), tuple(c[2] for c in cubes))

    def _cube(self, foreground: bool, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any], str]:
        case = self.cases[int(rng.integers(len(self.cases)))]
        low, high = self._bounds(case)
        place = self._foreground_voxel(case, rng) if foreground else None
        if place is None and case.known is not None:
            place = self._near(case.known[int(rng.integers(len(case.known)))], rng)
        elif place is None:
            place = Index3(*(int(rng.integers(a, b + 1)) for a, b in zip(low, high, strict=True)))
        start = Index3(*(min(max(c, a), b) - n // 2 for c, a, b, n in zip(place, low, high, self.cube, strict=True)))
        box = Box.at(start, self.cube)
        return cut(case.image, box).astype(np.float32), cut(case.labels, box, self.beyond), case.name

    def _foreground_voxel(self, case: TrainingCase, rng: np.random.Generator) -> Index3 | None:
        """A voxel of one of the case's regions; None where it has none."""
        regions = [r for r, found in case.places.items() if len(found) and self.settings.region_weights.get(r, 1.0) > 0]
        if not regions:
            return None
        weights = np.array([self.settings.region_weights.get(r, 1.0) for r in regions])
        found = case.places[regions[int(rng.choice(len(regions), p=weights / weights.sum()))]]
        return Index3(*(int(v) for v in found[int(rng.integers(len(found)))]))

    def _near(self, voxel: NDArray[np.int32], rng: np.random.Generator) -> Index3:
        """A centre whose patch holds a voxel, also once it is moved into the volume."""
        return Index3(*(int(v) + n // 2 - int(rng.integers(n)) for v, n in zip(voxel, self._patch, strict=True)))

    @property
    def _patch(self) -> Shape3:
        return self.cube if self.settings.patch == "auto" else self.settings.patch

    def _bounds(self, case: TrainingCase) -> tuple[Index3, Index3]:
        """The first and last centre whose patch stays inside the volume; the volume's where it is smaller.

        So a patch holds image rather than padding, and lies as the windows of a prediction do.
        """
        patch, shape = self._patch, case.labels.shape
        low = (p // 2 if n >= p else n // 2 for n, p in zip(shape, patch, strict=True))
        high = (n - (p - p // 2) if n >= p else n // 2 for n, p in zip(shape, patch, strict=True))
        return Index3(*low), Index3(*high)


def cut(source: VolumeSource, box: Box, beyond: int = 0) -> NDArray[Any]:
    """The box out of a source, (C, Z, Y, X); where it leaves the volume beyond in channel 0, zero in others."""
    inside = box.intersection(Box.whole(source.shape))
    result = np.zeros((source.channels, *box.shape), dtype=source.dtype)
    result[0] = beyond
    if inside.shape.voxels:
        there = inside.shifted(Index3(*(-s for s in box.start)))
        result[(slice(None), *there.slices)] = source.read(inside)
    return result
