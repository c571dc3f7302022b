"""Which cubes to learn from: foreground-weighted, scheduled, a pure function of (random_seed, step)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vol3d.geometry.box import Box
from vol3d.patches.turns import Balance, Tree, taken, tree_of
from vol3d.shapes import Index3, Shape3
from vol3d.volume.source import VolumeSource

MAX_PLACES = 10_000

Focus = Literal["voxels", "components", "ends"]


@dataclass(frozen=True)
class SamplingSettings:
    """What a batch is made of. What has an end (if given) moves there linearly over the training.

    foreground is the share of cubes centred on a foreground voxel. region_weights says how often each region is
    the one (default 1 each), and focus how its voxel is chosen, as weights: of all voxels, of all components one and
    of it a voxel, or at one of the region's ends along z. cubes_per_case are cut out of a case that is drawn.
    Cases take turns: each one, or each group or source. positive_cases is the share of those drawn that have
    foreground; None draws from all alike.
    """

    patch: Shape3 | Literal["auto"] = "auto"
    batch: int | Literal["auto"] = "auto"
    foreground: float = 0.5
    foreground_end: float | None = None
    region_weights: dict[str, float] = field(default_factory=dict)
    focus: dict[str, float] = field(default_factory=lambda: {"voxels": 1.0})
    focus_end: dict[str, float] | None = None
    cubes_per_case: int = 1
    balance: Balance = "cases"
    positive_cases: float | None = None
    positive_cases_end: float | None = None

    def __post_init__(self) -> None:
        for name in ("foreground", "foreground_end", "positive_cases", "positive_cases_end"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {value}")
        if self.positive_cases is None and self.positive_cases_end is not None:
            raise ValueError("positive_cases_end needs positive_cases, the share at the beginning")
        for name in ("batch", "cubes_per_case"):
            value = getattr(self, name)
            if value != "auto" and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if any(w < 0 for w in self.region_weights.values()):
            raise ValueError("region_weights must not be negative")
        for name, weights in (("focus", self.focus), ("focus_end", self.focus_end)):
            if weights is not None:
                _check_focus(name, weights)

    @property
    def components_wanted(self) -> bool:
        """Whether cubes are centred on components, so that these must be known."""
        return any((weights or {}).get("components", 0.0) > 0 for weights in (self.focus, self.focus_end))


def _check_focus(name: str, weights: Mapping[str, float]) -> None:
    for key, weight in weights.items():
        if key not in get_args(Focus):
            raise ValueError(f"{name}: {key!r} is no focus, expected {', '.join(get_args(Focus))}")
        if weight < 0:
            raise ValueError(f"{name}: {key} must not be negative, got {weight}")
    if not sum(weights.values()) > 0:
        raise ValueError(f"{name} must give at least one of {', '.join(get_args(Focus))} a weight above 0")


@dataclass(frozen=True)
class TrainingCase:
    """A preprocessed case: image (C, ...) and labels (L, ...) uint8 on one grid, per region some voxels (n, 3).

    Channel 0 of the labels are label values; others, such as a skeleton, go where they go. known holds some
    voxels whose label is known, background too; None where all are. components holds, where they are wanted, per
    region some voxels of each component with its number, (n, 4) in the order of the numbers 0, 1, ….
    """

    name: str
    image: VolumeSource
    labels: VolumeSource
    places: Mapping[str, NDArray[np.int32]]
    known: NDArray[np.int32] | None = None
    group: str = ""
    source: str = ""
    components: Mapping[str, NDArray[np.int32]] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """images (B, C, z, y, x) of floats, labels (B, L, z, y, x) uint8, and the cases they come from."""

    images: NDArray[np.floating[Any]]
    labels: NDArray[np.uint8]
    cases: tuple[str, ...]


@dataclass(frozen=True)
class CubeSampler:
    """Cuts batches of cubes out of cases. cube may be larger than the patch, to leave room for turning.

    Every patch holds a voxel whose label is known. Beyond a volume the image is zero and label values are
    beyond: background, or what is not known, lest the few known voxels drown in it; further label channels are zero.
    Images keep half precision where all cases have it.
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
        share = _between(self.settings.foreground, self.settings.foreground_end, progress)
        # Rounded by chance, so that the share holds on average whatever the batch.
        foreground = rng.permutation(self.batch) < np.floor(self.batch * share + rng.random())
        drawn = self._drawn(step, progress, rng)
        cases = [self.cases[drawn[slot // self.settings.cubes_per_case]] for slot in range(self.batch)]
        images = np.zeros((self.batch, cases[0].image.channels, *self.cube), dtype=self._precision)
        labels = np.zeros((self.batch, cases[0].labels.channels, *self.cube), dtype=np.uint8)
        labels[:, 0] = self.beyond
        for case, wanted, image, label in zip(cases, foreground, images, labels, strict=True):
            box = self._box(case, bool(wanted), progress, rng)
            _fill(image, case.image, box)
            _fill(label, case.labels, box)
        return Batch(images, labels, tuple(case.name for case in cases))

    @cached_property
    def _precision(self) -> type[np.floating[Any]]:
        return np.float16 if all(case.image.dtype == np.float16 for case in self.cases) else np.float32

    @cached_property
    def _turns(self) -> dict[bool | None, Tree]:
        """What takes turns: of all cases (None), of those with foreground (True) and of those without (False)."""
        told = [(number, case.group or case.name, case.source) for number, case in enumerate(self.cases)]
        positive = [bool(self._regions(case)) for case in self.cases]
        turns: dict[bool | None, Tree] = {None: tree_of(told, self.settings.balance)}
        for kind in {*positive}:
            part = [one for one, has in zip(told, positive, strict=True) if has is kind]
            turns[kind] = tree_of(part, self.settings.balance)
        return turns

    def _drawn(self, step: int, progress: float, rng: np.random.Generator) -> NDArray[np.intp]:
        """The numbers of the cases that cubes of a step come from."""
        count, start = -(-self.batch // self.settings.cubes_per_case), self.settings.positive_cases
        counts: dict[bool | None, tuple[int, int]] = {None: (step * count, (step + 1) * count)}
        if start is not None and len(self._turns) == 3:
            # How many were drawn before hangs on the share's mean until now, and so on step and progress alone.
            ends = [
                int(n * count * _between(start, self.settings.positive_cases_end, done / 2))
                for n, done in ((step, progress), (step + 1, progress * (step + 1) / max(step, 1)))
            ]
            first, last = ends[0], min(max(ends), ends[0] + count)
            counts = {True: (first, last), False: (step * count - first, (step + 1) * count - last)}
        drawn = [
            taken(self._turns[kind], number, self.random_seed)
            for kind, (first, last) in counts.items()
            for number in range(first, last)
        ]
        return rng.permutation(drawn)

    def _box(self, case: TrainingCase, foreground: bool, progress: float, rng: np.random.Generator) -> Box:
        low, high = self._bounds(case)
        place = self._foreground_voxel(case, progress, rng) if foreground else None
        if place is None and case.known is not None:
            place = self._near(case.known[int(rng.integers(len(case.known)))], rng)
        elif place is None:
            place = Index3(*(int(rng.integers(a, b + 1)) for a, b in zip(low, high, strict=True)))
        start = Index3(*(min(max(c, a), b) - n // 2 for c, a, b, n in zip(place, low, high, self.cube, strict=True)))
        return Box.at(start, self.cube)

    def _regions(self, case: TrainingCase) -> list[str]:
        """The regions that a case has and that are wanted."""
        return [r for r, found in case.places.items() if len(found) and self.settings.region_weights.get(r, 1.0) > 0]

    def _foreground_voxel(self, case: TrainingCase, progress: float, rng: np.random.Generator) -> Index3 | None:
        """A voxel of one of the case's regions; None where it has none."""
        regions = self._regions(case)
        if not regions:
            return None
        weights = np.array([self.settings.region_weights.get(r, 1.0) for r in regions])
        region = regions[int(rng.choice(len(regions), p=weights / weights.sum()))]
        found, focus = case.places[region], self._focus(progress, rng)
        if focus == "components" and region in case.components:
            found = case.components[region]
            number = int(rng.integers(found[-1, 3] + 1))
            found = found[slice(*np.searchsorted(found[:, 3], [number, number + 1]))]
        elif focus == "ends":
            found = _end(found, bool(rng.random() < 0.5))
        return Index3(*(int(v) for v in found[int(rng.integers(len(found))), :3]))

    def _focus(self, progress: float, rng: np.random.Generator) -> str:
        parts = [
            np.array([weights.get(name, 0.0) for name in get_args(Focus)]) / sum(weights.values())
            for weights in (self.settings.focus, self.settings.focus_end or self.settings.focus)
        ]
        shares = parts[0] + (parts[1] - parts[0]) * progress
        return str(rng.choice(get_args(Focus), p=shares / shares.sum()))

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


def _between(start: float, end: float | None, progress: float) -> float:
    return start if end is None else start + (end - start) * progress


def _end(places: NDArray[np.int32], top: bool) -> NDArray[np.int32]:
    """Those of the places that lie in the highest or lowest tenth of their extent along z."""
    z = places[:, 0]
    reach = (int(z.max()) - int(z.min())) // 10
    found: NDArray[np.int32] = places[z >= z.max() - reach if top else z <= z.min() + reach]
    return found


def _fill(cube: NDArray[Any], source: VolumeSource, box: Box) -> None:
    """Write a box of a source into a cube of its size, (C, Z, Y, X), where it lies inside the volume."""
    inside = box.intersection(Box.whole(source.shape))
    if inside.shape.voxels:
        there = inside.seen_from(box.start)
        cube[(slice(None), *there.slices)] = source.read(inside)
