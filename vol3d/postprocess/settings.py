"""What a run does with its probabilities."""

from dataclasses import dataclass
from typing import Any

from vol3d.postprocess.steps import steps_from


@dataclass(frozen=True)
class PostprocessSettings:
    """The first decision and the steps that follow.

    threshold is the inclusive bound of a region under sigmoid (classes take the largest probability).
    steps is a list of {name: {field: value}}, or of bare names, in the order they run.
    """

    threshold: float = 0.5
    steps: tuple[str | dict[str, dict[str, Any]], ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must be between 0 and 1, got {self.threshold}")
        steps_from(list(self.steps))
