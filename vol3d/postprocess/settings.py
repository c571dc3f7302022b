"""What a run does with its probabilities."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vol3d.postprocess.scene import Step
from vol3d.postprocess.steps import steps_from

BEST = "best"
Plain = tuple[str | dict[str, dict[str, Any]], ...]


@dataclass(frozen=True)
class PostprocessSettings:
    """The first decision and the steps that follow.

    threshold is the inclusive bound of a region under sigmoid (classes take the largest probability).
    steps is a list of {name: {field: value}}, or of bare names, in the order they run. operating_points are other
    such lists by their names, and operating_point the one that runs: best is steps.
    """

    threshold: float = 0.5
    steps: Plain = ()
    operating_point: str = BEST
    operating_points: dict[str, Plain] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must be between 0 and 1, got {self.threshold}")
        if BEST in self.operating_points:
            raise ValueError(f"operating_points: {BEST!r} is what steps says: choose another name")
        if self.operating_point not in (known := self.points()):
            raise ValueError(f"operating_point: expected one of {', '.join(known)}, got {self.operating_point!r}")
        for name, steps in self.points().items():
            try:
                steps_from(list(steps))
            except ValueError as error:
                raise error if name == BEST else ValueError(f"operating_points.{name}: {error}") from error

    def points(self) -> Mapping[str, Plain]:
        """The lists of steps by the names of their operating points."""
        return {BEST: self.steps, **self.operating_points}

    def chosen(self) -> tuple[Step, ...]:
        """The steps that run."""
        return steps_from(list(self.points()[self.operating_point]))
