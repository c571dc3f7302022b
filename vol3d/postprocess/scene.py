"""What a step is, and what it may look at: the volume's probability, grey values and organ mask."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from vol3d.shapes import Spacing

Mask = NDArray[np.bool_]

Locality = Literal["voxel", "halo", "components", "whole"]
"""What a voxel's fate hangs on: itself, a bounded neighbourhood, its component, or the whole volume."""


@dataclass(frozen=True)
class Needs:
    """Which arrays steps look at beside the masks."""

    probability: bool = False
    image: bool = False
    organ: bool = False

    def __or__(self, other: "Needs") -> "Needs":
        return Needs(self.probability or other.probability, self.image or other.image, self.organ or other.organ)


@dataclass(frozen=True)
class Scene:
    """The arrays of one volume on one grid, in memory or memory-mapped; none is ever modified.

    probability is (R, Z, Y, X) float in [0, 1], one channel per region (no background); image is
    (Z, Y, X), the first channel's grey values as the plan normalises them; organ is (Z, Y, X) bool.

    Raises:
        ValueError: the arrays have different grids, or probability another number of channels.
    """

    spacing: Spacing
    regions: tuple[str, ...]
    probability: NDArray[Any] | None = None
    image: NDArray[Any] | None = None
    organ: Mask | None = None

    def __post_init__(self) -> None:
        if self.probability is not None and len(self.probability) != len(self.regions):
            raise ValueError(f"expected one probability channel per region {self.regions}, got {len(self.probability)}")
        if self.organ is not None and self.organ.dtype != np.bool_:
            raise ValueError(f"expected a bool organ mask, got {self.organ.dtype}")
        if len({shape for _, shape in self.grids()}) > 1:
            raise ValueError(f"expected one (z, y, x) grid, got {dict(self.grids())}")

    def grids(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and (z, y, x) shape of each array that is there."""
        if self.probability is not None:
            yield "probability", self.probability.shape[1:]
        if self.image is not None:
            yield "image", self.image.shape
        if self.organ is not None:
            yield "organ", self.organ.shape

    def of(self, region: str) -> "RegionScene":
        """What a step that works on one region sees."""
        return RegionScene(self, self.regions.index(region))

    def missing(self, needs: Needs) -> tuple[str, ...]:
        """The arrays that needs asks for and that are not there."""
        return tuple(f.name for f in fields(needs) if getattr(needs, f.name) and getattr(self, f.name) is None)


@dataclass(frozen=True)
class RegionScene:
    """One region's part of a scene. Every array is (Z, Y, X); one that is not there is refused with a sentence."""

    scene: Scene
    region: int

    @property
    def spacing(self) -> Spacing:
        """Millimetres between voxel centres."""
        return self.scene.spacing

    @property
    def probability(self) -> NDArray[Any]:
        """The region's probability in [0, 1]."""
        result: NDArray[Any] = _given(self.scene.probability, "the probability")[self.region]
        return result

    @property
    def image(self) -> NDArray[Any]:
        """Normalised grey values of the first channel."""
        return _given(self.scene.image, "the image")

    @property
    def organ(self) -> Mask:
        """The organ mask."""
        return _given(self.scene.organ, "an organ mask")


@dataclass(frozen=True)
class Applied:
    """A step's new mask (Z, Y, X), and what else there is to say about it."""

    mask: Mask
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Step(ABC):
    """The settings of one step and what it does; the fields of its children are plain values, ranges checked.

    region names the region it acts on; "all" acts on each by itself.
    """

    name: ClassVar[str]
    locality: ClassVar[Locality]

    region: str = "all"

    def needs(self) -> Needs:
        """Which arrays of the scene it looks at, with these settings."""
        return Needs()

    @abstractmethod
    def apply(self, mask: Mask, scene: RegionScene) -> Applied:
        """The region's new mask (Z, Y, X) from its old one, which is read-only."""

    def require(self, field: str, fine: bool, expected: str) -> None:
        """Refuse a field that is out of its range.

        Raises:
            ValueError: it is not fine.
        """
        if not fine:
            raise ValueError(f"{self.name}: {field} must be {expected}, got {getattr(self, field)!r}")


def _given(array: NDArray[Any] | None, what: str) -> NDArray[Any]:
    if array is None:
        raise ValueError(f"a post-processing step needs {what}, and none was given")
    return array
