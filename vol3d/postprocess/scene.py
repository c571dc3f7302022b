"""What a step is, and what it may look at: the volume's probability, grey values and organ mask."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.postprocess.tensor_store import TensorStore
from vol3d.preprocess.margin import FalloffView, MarginView
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.source import ArrayStore, VolumeSource, VolumeStore

Mask = NDArray[np.bool_]

Source = TypeVar("Source", bound=VolumeSource)

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
class StoredScene:
    """What belongs to one volume, on one grid, wherever it lies: read box by box, and never modified.

    probability has a channel per region (no background), in [0, 1]; image's first channel is the grey values
    as the plan normalises them; organ is a bool mask.

    Raises:
        ValueError: the grids differ, probability has another number of channels, or organ is no mask.
    """

    spacing: Spacing
    regions: tuple[str, ...]
    probability: VolumeStore | None = None
    image: VolumeSource | None = None
    organ: VolumeSource | None = None

    def __post_init__(self) -> None:
        if self.probability is not None and self.probability.channels != len(self.regions):
            raise ValueError(
                f"expected one probability channel per region {self.regions}, got {self.probability.channels}"
            )
        if self.organ is not None and self.organ.dtype != np.bool_:
            raise ValueError(f"expected a bool organ mask, got {self.organ.dtype}")
        grids = dict(self.grids())
        if len(set(grids.values())) > 1:
            raise ValueError(
                f"expected one (z, y, x) grid, got { {name: tuple(grid) for name, grid in grids.items()} }"
            )

    def grids(self) -> Iterator[tuple[str, Shape3]]:
        """Name and (z, y, x) shape of each volume that is there."""
        for need in fields(Needs):
            if (source := getattr(self, need.name)) is not None:
                yield need.name, source.shape

    def missing(self, needs: Needs) -> tuple[str, ...]:
        """What needs asks for and is not there."""
        return tuple(f.name for f in fields(needs) if getattr(needs, f.name) and getattr(self, f.name) is None)


@dataclass(frozen=True)
class Scene:
    """A StoredScene of arrays in memory, or memory-mapped, or of tensors on a device; none is ever modified.

    probability is (R, Z, Y, X) float in [0, 1], one channel per region (no background); image is
    (Z, Y, X), the first channel's grey values as the plan normalises them; organ is (Z, Y, X) bool.

    Raises:
        ValueError: the arrays have different grids, or probability another number of channels.
    """

    spacing: Spacing
    regions: tuple[str, ...]
    probability: NDArray[Any] | Tensor | None = None
    image: NDArray[Any] | Tensor | None = None
    organ: Mask | Tensor | None = None

    def __post_init__(self) -> None:
        self.stored()

    def stored(self) -> StoredScene:
        """The same, read box by box."""
        p, image, organ = self.probability, self.image, self.organ
        return StoredScene(
            self.spacing,
            self.regions,
            None if p is None else store_of(p, self.spacing),
            None if image is None else store_of(image[None], self.spacing),
            None if organ is None else store_of(organ[None], self.spacing),
        )


def store_of(voxels: NDArray[Any] | Tensor, spacing: Spacing) -> VolumeStore:
    """A store over a (C, Z, Y, X) array or tensor."""
    affine = from_spacing(spacing)
    return ArrayStore(voxels, affine) if isinstance(voxels, np.ndarray) else TensorStore(voxels, affine)


@dataclass(frozen=True)
class RegionScene:
    """One region's part of a scene, in a box. Every array is (Z, Y, X), and read when it is first asked for.

    What is not there is refused with a sentence.
    """

    scene: StoredScene
    region: int
    box: Box

    def within(self, box: Box) -> "RegionScene":
        """A box of this box."""
        return RegionScene(self.scene, self.region, box.shifted(self.box.start))

    @property
    def name(self) -> str:
        """The region's."""
        return self.scene.regions[self.region]

    @property
    def spacing(self) -> Spacing:
        """Millimetres between voxel centres."""
        return self.scene.spacing

    @cached_property
    def probability(self) -> NDArray[Any]:
        """The region's probability in [0, 1]."""
        return self._read(_given(self.scene.probability, "the probability").channel(self.region))

    @property
    def probability_dtype(self) -> np.dtype[Any]:
        """The type of the probability, without reading one."""
        return _given(self.scene.probability, "the probability").dtype

    @cached_property
    def image(self) -> NDArray[Any]:
        """Normalised grey values of the first channel."""
        return self._read(_given(self.scene.image, "the image"))

    @property
    def image_dtype(self) -> np.dtype[Any]:
        """The type of the grey values, without reading one."""
        return _given(self.scene.image, "the image").dtype

    @cached_property
    def organ(self) -> Mask:
        """The organ mask."""
        return self.organ_moved(0.0)

    def organ_moved(self, margin_mm: float) -> Mask:
        """The organ mask dilated by a margin above zero, eroded by one below; what lies around the box counts."""
        return self._read(MarginView(_given(self.scene.organ, "an organ mask"), margin_mm))

    def organ_falloff(self, margin_mm: float, falloff_mm: float) -> NDArray[np.float32]:
        """1 in the organ moved by a margin, outside it down to 0 at falloff_mm; what lies around the box counts."""
        return self._read(FalloffView(_given(self.scene.organ, "an organ mask"), margin_mm, falloff_mm))

    def _read(self, source: VolumeSource) -> NDArray[Any]:
        voxels: NDArray[Any] = source.read(self.box)[0]
        return voxels


@dataclass(frozen=True)
class Applied:
    """A step's new mask (Z, Y, X), and what else there is to say about it."""

    mask: Mask
    note: str = ""


@dataclass(frozen=True)
class StepReport:
    """What one step did to one region, in voxels, where it ran and for how long; equal in spite of the time."""

    step: str
    region: str
    voxels_before: int
    removed: int
    added: int
    note: str = ""
    device: str = "cpu"
    seconds: float = field(default=0.0, compare=False)

    @property
    def voxels_after(self) -> int:
        """Voxels that the region has after the step."""
        return self.voxels_before - self.removed + self.added


@dataclass(frozen=True, kw_only=True)
class Step(ABC):
    """The settings of one step and what it does; the fields of its children are plain values, ranges checked.

    Its apply is given whole regions, whatever its locality; children that can be cut say how (blocks.py).
    region names the region it acts on; "all" acts on each by itself.

    A class that says tensors = True is given torch tensors where the masks lie on a device, of them and of all
    that it needs, and gives a tensor. Its children say so for themselves; others are given arrays.
    """

    name: ClassVar[str]
    locality: ClassVar[Locality]
    tensors: ClassVar[bool] = False

    region: str = "all"

    def needs(self) -> Needs:
        """Which arrays of the scene it looks at, with these settings."""
        return Needs()

    def takes_tensors(self) -> bool:
        """Whether this very class says so."""
        return bool(vars(type(self)).get("tensors", False))

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


def _given(source: Source | None, what: str) -> Source:
    if source is None:
        raise ValueError(f"a post-processing step needs {what}, and none was given")
    return source
