"""Which samples of a batch an augmentation is for, and how strong it is for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Drawn:
    """An augmentation's chance per sample, 0 to 1, and the range that its strength is drawn from."""

    chance: float
    range: tuple[float, float]

    def __post_init__(self) -> None:
        if not 0 <= self.chance <= 1:
            raise ValueError(f"chance must be between 0 and 1, got {self.chance}")
        if self.range[0] > self.range[1]:
            raise ValueError(f"range must be two numbers in order, got {self.range[0]} and {self.range[1]}")


@dataclass(frozen=True)
class OneOf:
    """With the group's chance one of its augmentations, all equally likely; their own chances do not count."""

    of: tuple[str, ...]
    chance: float

    def __post_init__(self) -> None:
        if not 0 <= self.chance <= 1:
            raise ValueError(f"chance must be between 0 and 1, got {self.chance}")
        if not self.of:
            raise ValueError("of must name at least one augmentation, got none")


@dataclass(frozen=True)
class Chosen:
    """The samples of a batch that an augmentation is for, and its strength for each, (len(samples),)."""

    samples: NDArray[np.intp]
    strength: NDArray[np.float64]


def draw(
    drawn: Mapping[str, Drawn], groups: Sequence[OneOf], batch: int, rng: np.random.Generator
) -> dict[str, Chosen]:
    """For each augmentation what a batch gets of it; those that no sample gets are left out.

    As many numbers are drawn whatever comes out, so that a change of one chance leaves the others' samples alone.
    """
    names = list(drawn)
    chances = np.array([drawn[name].chance for name in names])
    low, high = np.array([drawn[name].range for name in names]).T[:, :, None]
    taken = rng.random((len(names), batch)) < chances[:, None]
    strength = low + (high - low) * rng.random((len(names), batch))
    for group in groups:
        members = [names.index(name) for name in group.of]
        happens, which = rng.random(batch) < group.chance, rng.integers(len(members), size=batch)
        taken[members] = happens & (which == np.arange(len(members))[:, None])
    found = {name: np.flatnonzero(row) for name, row in zip(names, taken, strict=True)}
    return {
        name: Chosen(samples, amount[samples])
        for (name, samples), amount in zip(found.items(), strength, strict=True)
        if samples.size
    }
