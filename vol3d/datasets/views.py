"""Views that make files fit for learning: channels stacked, values finite, labels small integers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vol3d.errors import InputError
from vol3d.geometry.affine import Affine
from vol3d.geometry.box import Box
from vol3d.geometry.grid import slabs
from vol3d.preprocess.tensors import read_tensor
from vol3d.shapes import Shape3
from vol3d.volume.labels import MAX_LABEL
from vol3d.volume.source import Access, Says, View, VolumeSource

_FROM_INTEGER = 1e-3  # how far a label that went through a float format may lie from its integer
_SLAB = 16


@dataclass(frozen=True)
class StackedSource:
    """The channels of several sources on one grid, in order."""

    sources: tuple[VolumeSource, ...]

    @property
    def shape(self) -> Shape3:
        """Voxels along z, y, x."""
        return self.sources[0].shape

    @property
    def channels(self) -> int:
        """All channels together."""
        return sum(source.channels for source in self.sources)

    @property
    def dtype(self) -> np.dtype[Any]:
        """A type that holds every channel."""
        return np.result_type(*(source.dtype for source in self.sources))

    @property
    def affine(self) -> Affine:
        """The first channel's place."""
        return self.sources[0].affine

    @property
    def access(self) -> Access:
        """Sequential where one of them is."""
        return "sequential" if any(s.access == "sequential" for s in self.sources) else "random"

    @property
    def header(self) -> object:
        """The first channel's header."""
        return self.sources[0].header

    @property
    def says(self) -> Says:
        """What the first channel's file tells of its place."""
        return self.sources[0].says

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about any of them."""
        return tuple(w for source in self.sources for w in source.warnings)

    def read(self, box: Box) -> NDArray[Any]:
        """The box's voxels, (C, Z, Y, X)."""
        return np.concatenate([source.read(box).astype(self.dtype, copy=False) for source in self.sources])

    def tensor(self, box: Box, device: torch.device) -> Tensor:
        """The same as float32, computed on the device where a source can be."""
        return torch.cat([read_tensor(source, box, device) for source in self.sources])


@dataclass(frozen=True)
class _SameGrid(View):
    """A view of the stored grid, so that the header still tells of it."""

    @property
    def header(self) -> object:
        """As the source's."""
        return self.source.header


@dataclass(frozen=True)
class PickedView(_SameGrid):
    """Some channels of a source, by their places from 0 on."""

    picked: tuple[int, ...]

    @property
    def channels(self) -> int:
        """As many as are picked."""
        return len(self.picked)

    def read(self, box: Box) -> NDArray[Any]:
        """The box's voxels, (C, Z, Y, X), of those channels."""
        return self.source.read(box)[list(self.picked)]


@dataclass(frozen=True)
class FiniteSource(_SameGrid):
    """A float image whose NaN and infinite voxels read as zero; name is what messages speak of."""

    name: str

    def read(self, box: Box) -> NDArray[Any]:
        """The box's voxels, (C, Z, Y, X)."""
        values = self.source.read(box)
        return values if np.isfinite(values).all() else np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)

    def count_filled(self) -> int:
        """How many voxels of the whole volume are NaN or infinite; reads it once, slab by slab.

        Raises:
            InputError: all of them are.
        """
        count = sum(int((~np.isfinite(self.source.read(slab))).sum()) for slab in slabs(self.shape, _SLAB))
        if count == self.channels * self.shape.voxels:
            raise InputError(f"{self.name}: no voxel is a finite number")
        return count


@dataclass(frozen=True)
class LabelSource(_SameGrid):
    """Label values as uint8, at the place of the image they belong to; name is what messages speak of."""

    name: str
    place: Affine

    @property
    def affine(self) -> Affine:
        """The image's."""
        return self.place

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8."""
        return np.dtype(np.uint8)

    def read(self, box: Box) -> NDArray[Any]:
        """The box's label values, (1, Z, Y, X).

        Raises:
            InputError: a value is no integer (within 1e-3) in 0 to 255.
        """
        values = self.source.read(box)
        if values.dtype == np.uint8 or not values.size:
            return values
        if values.dtype.kind == "f":
            whole = np.rint(values)
            with np.errstate(invalid="ignore"):  # NaN and infinity fail the comparison, as they must
                apart = ~(np.abs(values - whole) <= _FROM_INTEGER)
            if apart.any():
                raise InputError(f"{self.name}: label values must be integers, got {values[apart][0]}")
            values = whole
        low, high = values.min(), values.max()
        if low < 0 or high > MAX_LABEL:
            raise InputError(f"{self.name}: label values must be 0 to {MAX_LABEL}, got {low:g} to {high:g}")
        return values.astype(np.uint8)


@dataclass(frozen=True)
class BoxedView(View):
    """Labels that were drawn inside a box: all voxels beyond it read as one value."""

    box: Box
    beyond: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """A type that holds the labels and that value."""
        return np.promote_types(self.source.dtype, np.min_scalar_type(self.beyond))

    def read(self, box: Box) -> NDArray[Any]:
        """The box's label values, (C, Z, Y, X)."""
        result = np.full((self.channels, *box.shape), self.beyond, dtype=self.dtype)
        drawn = box.intersection(self.box)
        if drawn.shape.voxels:
            there = drawn.seen_from(box.start)
            result[(slice(None), *there.slices)] = self.source.read(drawn)
        return result
