"""Every setting of the steps that threshold and choose components, scored from tables.

A family is a list of steps with a ladder of values for each of their fields: its settings are the cells of a grid.
For one region of one volume, one labelling per threshold tells what each cell keeps: to the voxel what the steps
themselves keep on the same probability.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.postprocess.scene import Mask, Step
from vol3d.postprocess.size import voxels_in
from vol3d.postprocess.steps import steps_from
from vol3d.regions.tally import Kept, Tally, all_or_none, among_largest, seeded, tally, with_enough
from vol3d.shapes import Spacing

LADDER = (*(step / 20 for step in range(1, 20)), 0.975, 0.99)
"""Thresholds, and tops: the seeds' thresholds."""

BOTTOMS = tuple(step / 10 for step in range(1, 10))
"""The thresholds of what is kept of which a labelling is made."""

AREAS = (1, 3, 8, 20, 50, 120, 300, 800, 2000, 5000)
"""Voxels that a component, or a volume, needs."""

LARGEST = (1, 2, 3, 4, 6)

Place = tuple[int, ...]
Scores = NDArray[np.float64]
Axis = tuple[float | None, ...]

_GATE = "organ_gate"


@dataclass(frozen=True)
class Family:
    """A ladder of values for each field that varies, as STEP.FIELD in the order of the steps.

    A step whose value is None is left out.
    """

    axes: Mapping[str, Axis]

    @cached_property
    def rules(self) -> tuple[str, ...]:
        """The names of its steps, without the gate behind them."""
        return tuple(name for name in dict.fromkeys(axis.split(".")[0] for axis in self.axes) if name != _GATE)

    @property
    def name(self) -> str:
        """Its steps, for people."""
        return " + ".join(self.rules) or "no step"

    @property
    def shape(self) -> tuple[int, ...]:
        """How many values each axis has."""
        return tuple(len(values) for values in self.axes.values())

    def places(self) -> list[Place]:
        """Its cells, each an index along every axis."""
        return list(product(*(range(n) for n in self.shape)))

    def values(self, place: Place) -> dict[str, float | None]:
        """The settings of a cell by their axes."""
        return {axis: ladder[at] for at, (axis, ladder) in zip(place, self.axes.items(), strict=True)}

    def at(self, place: Place, region: str) -> tuple[Step, ...]:
        """The steps of a cell, acting on one region."""
        plain: dict[str, dict[str, Any]] = {}
        for axis, value in self.values(place).items():
            step, field = axis.split(".")
            if value is not None:
                plain.setdefault(step, {"region": region})[field] = value
        return steps_from([{step: values} for step, values in plain.items()])


def families(volumes_mm3: Sequence[float], margins_mm: Sequence[float | None] = ()) -> tuple[Family, ...]:
    """What is tried, the simplest first.

    volumes_mm3 rise. margins_mm are those of an organ gate behind all other steps; None is no gate.
    """
    bottom: dict[str, Axis] = {"threshold.threshold": BOTTOMS}
    size: dict[str, Axis] = {"size_filter.min_volume_mm3": tuple(volumes_mm3)}
    largest: dict[str, Axis] = {"largest.count": LARGEST}
    presence: dict[str, Axis] = {"presence.seed_threshold": LADDER, "presence.min_seed_voxels": AREAS}
    triplet = ("grow_threshold", BOTTOMS), ("seed_threshold", LADDER), ("min_seed_voxels", AREAS)
    hysteresis: dict[str, Axis] = {f"hysteresis.{field}": ladder for field, ladder in triplet}
    gate: dict[str, Axis] = {f"{_GATE}.margin_mm": tuple(margins_mm)} if margins_mm else {}
    plain: list[dict[str, Axis]] = [{}, {"threshold.threshold": LADDER}, size, largest, presence]
    rules = [*plain, *({**bottom, **rule} for rule in (size, largest, presence)), hysteresis]
    return tuple(Family({**axes, **gate}) for axes in rules)


@dataclass(frozen=True)
class Volume:
    """One region of one volume: all arrays are (Z, Y, X).

    probability is float16, as steps are given it; decided is the first decision; known is where the truth is known
    (None: everywhere). gates are the organ moved by each of the families' margins, None where nothing is gated.
    """

    probability: NDArray[np.float16]
    decided: Mask
    reference: Mask
    spacing: Spacing
    known: Mask | None = None
    gates: tuple[Mask | None, ...] = (None,)


@dataclass(frozen=True)
class Table:
    """What every cell of every family keeps in one volume; true is the number of the reference's voxels.

    A cell that is no setting, as its seeds lie below what is kept, keeps -1.
    """

    kept: tuple[Kept, ...]
    true: int


def table(volume: Volume, tried: Sequence[Family]) -> Table:
    """Look at a volume once for all cells: a labelling of the first decision and one of each of BOTTOMS."""
    levels = levels_of(volume.probability)
    decided = _Base(volume.decided, levels, volume, tried)
    bases = [_Base(levels >= LADDER.index(bottom) + 1, levels, volume, tried) for bottom in BOTTOMS]
    kept = []
    for family in tried:
        first, *rest = family.rules or ("",)
        if first == "threshold" and not rest:
            found = _plain(levels, volume)
        elif first in ("threshold", "hysteresis"):
            each = [base.kept(rest[0] if rest else first) for base in bases]
            found = Kept(*(np.stack([getattr(one, name) for one in each], axis=1) for name in ("predicted", "hits")))
        else:
            found = decided.kept(first)
        if first == "hysteresis":
            below = np.array(LADDER) < np.array(BOTTOMS)[:, np.newaxis]
            found.predicted[:, below] = found.hits[:, below] = -1
        gated = any(axis.startswith(_GATE) for axis in family.axes)
        kept.append(Kept(*(np.moveaxis(a, 0, -1) if gated else a[0] for a in (found.predicted, found.hits))))
    known = volume.known
    true = np.count_nonzero(volume.reference if known is None else volume.reference & known)
    return Table(tuple(kept), int(true))


def levels_of(probability: NDArray[np.float16]) -> NDArray[np.uint8]:
    """How many thresholds of LADDER each probability reaches, inclusive and in float16, as steps compare."""
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)  # so few values that all are looked up
    levels = np.zeros(every.shape, dtype=np.uint8)
    for threshold in LADDER:
        levels += every >= threshold
    return levels[np.ascontiguousarray(probability).view(np.uint16)]


def _counting(volume: Volume) -> list[Mask | None]:
    """What counts under each gate."""
    known = volume.known
    return [gate if known is None else known if gate is None else gate & known for gate in volume.gates]


def _plain(levels: NDArray[np.uint8], volume: Volume) -> Kept:
    """What each threshold of LADDER keeps: (gates, thresholds)."""
    gates, true = _counting(volume), volume.reference
    hits = [_reaching(levels, true if gate is None else true & gate) for gate in gates]
    return Kept(np.stack([_reaching(levels, gate) for gate in gates]), np.stack(hits))


def _reaching(levels: NDArray[np.uint8], within: Mask | None) -> NDArray[np.int64]:
    """How many voxels reach each threshold of LADDER."""
    each = np.bincount((levels if within is None else levels[within]).reshape(-1), minlength=len(LADDER) + 1)
    return each[::-1].cumsum()[-2::-1]


class _Base:
    """A mask that rules choose from, and what each rule keeps of it: (gates, *ladders of the rule's fields)."""

    def __init__(self, mask: Mask, levels: NDArray[np.uint8], volume: Volume, tried: Sequence[Family]) -> None:
        self.mask, self.levels, self.volume = mask, levels, volume
        self.axes = {axis: ladder for family in tried for axis, ladder in family.axes.items()}

    @cached_property
    def tally(self) -> Tally:
        """Of its components; made when the first rule asks."""
        gates = _counting(self.volume)
        return tally(self.mask, self.levels, self.volume.reference, highest=len(LADDER), gates=gates)

    @cached_property
    def seeds(self) -> NDArray[np.int64]:
        """How many voxels of the whole volume reach each threshold, known or not."""
        return _reaching(self.levels, None)

    def kept(self, rule: str) -> Kept:
        found = self.tally
        if rule == "size_filter":
            volumes_mm3 = self.axes["size_filter.min_volume_mm3"]
            least = [voxels_in(mm3, self.volume.spacing) for mm3 in volumes_mm3 if mm3 is not None]
            return with_enough(found, found.voxels, least)
        if rule == "largest":
            return among_largest(found, LARGEST)
        if rule == "presence":
            return all_or_none(found, self.seeds, AREAS)
        if rule == "hysteresis":
            return seeded(found, range(1, len(LADDER) + 1), AREAS)
        return Kept(found.counted.sum(axis=1), found.hits.sum(axis=1))
