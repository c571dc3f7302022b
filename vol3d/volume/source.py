"""Where voxels come from and where they go.

Everything large is a VolumeSource or a VolumeSink. Orientation, cropping, normalisation and
resampling are views: sources over a source, with one law, bit for bit:
``view.read(box) == view.read(whole)[box]``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from vol3d.geometry.affine import Affine, axis_codes, spacing_of
from vol3d.geometry.box import Box
from vol3d.shapes import Shape3, shape3

Access = Literal["random", "sequential"]
Says = Literal["place", "spacing", "nothing"]
"""What a file tells of its geometry: NIfTI a place in the world, TIFF a spacing at most, .npy nothing."""


class VolumeSource(Protocol):
    """A volume that is read box by box.

    access is "sequential" where reading out of z order is slow (a compressed stream).
    header is what the file's format keeps beside the voxels; only that format's sink looks at it.
    warnings are sentences about what is odd but usable; reading may add to them.
    """

    @property
    def shape(self) -> Shape3: ...
    @property
    def channels(self) -> int: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def affine(self) -> Affine: ...
    @property
    def access(self) -> Access: ...
    @property
    def header(self) -> object: ...
    @property
    def says(self) -> Says: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...

    def read(self, box: Box) -> NDArray[Any]:
        """The box's voxels as a (C, Z, Y, X) array that the caller may keep but not write to.

        The box lies inside the volume.
        """
        ...


class Writable(Protocol):
    """What takes voxels box by box."""

    def write(self, box: Box, voxels: NDArray[Any]) -> None:
        """Store a (C, Z, Y, X) array at the box."""
        ...


class VolumeSink(Writable, Protocol):
    """A volume that is written box by box and appears under its name only on commit.

    Boxes may come in any order and are written once each. Until commit the target keeps its old
    content; after an abort nothing of the new one is left.
    """

    def commit(self) -> None:
        """Finish the file and put it under its name in one step."""
        ...

    def abort(self) -> None:
        """Forget what was written."""
        ...


class VolumeStore(VolumeSource, Writable, Protocol):
    """Voxels that are kept while a volume is worked on: written box by box, as often as need be, and read back.

    What nobody wrote is zero.
    """

    def channel(self, number: int) -> "VolumeStore":
        """One channel as a store of its own, over the same voxels."""
        ...


Sink = TypeVar("Sink", bound=VolumeSink)


@contextmanager
def filling(sink: Sink) -> Iterator[Sink]:
    """Commit the sink when the block ends well, abort it when it does not."""
    try:
        yield sink
    except BaseException:
        sink.abort()
        raise
    sink.commit()


@dataclass(frozen=True, eq=False)  # an array has no hash
class ArraySource:
    """A (C, Z, Y, X) array in memory as a source."""

    array: NDArray[Any]
    affine: Affine
    header: object = None
    access: Access = "random"
    says: Says = "place"
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.array.ndim != 4:
            raise ValueError(f"expected a (C, Z, Y, X) array, got shape {self.array.shape}")

    @property
    def shape(self) -> Shape3:
        """Voxels along z, y, x."""
        return shape3(self.array.shape)

    @property
    def channels(self) -> int:
        """Length of the first axis."""
        return int(self.array.shape[0])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The stored type."""
        return self.array.dtype

    def read(self, box: Box) -> NDArray[Any]:
        """The box's part of the array, without a copy."""
        return self.array[(slice(None), *box.slices)]


@dataclass(frozen=True, eq=False)
class ArrayStore(ArraySource):
    """A (C, Z, Y, X) array in memory as a store."""

    def write(self, box: Box, voxels: NDArray[Any]) -> None:
        """Store a (C, Z, Y, X) array at the box."""
        self.array[(slice(None), *box.slices)] = voxels

    def channel(self, number: int) -> "ArrayStore":
        """One channel, over the same array."""
        return ArrayStore(self.array[number : number + 1], self.affine)


@dataclass(frozen=True)
class ArraySink:
    """A (C, Z, Y, X) array in memory as a sink: written in place, there from the beginning."""

    array: NDArray[Any]

    def write(self, box: Box, voxels: NDArray[Any]) -> None:
        """Store a (C, Z, Y, X) array at the box."""
        self.array[(slice(None), *box.slices)] = voxels

    def commit(self) -> None:
        """Nothing is left to do."""

    def abort(self) -> None:
        """Nothing but the array is there to forget."""


@dataclass(frozen=True)
class View:
    """A source over a source: whatever a view does not change it passes on."""

    source: VolumeSource

    @property
    def shape(self) -> Shape3:
        """As the source's."""
        return self.source.shape

    @property
    def channels(self) -> int:
        """As the source's."""
        return self.source.channels

    @property
    def dtype(self) -> np.dtype[Any]:
        """As the source's."""
        return self.source.dtype

    @property
    def affine(self) -> Affine:
        """As the source's."""
        return self.source.affine

    @property
    def access(self) -> Access:
        """As the source's."""
        return self.source.access

    @property
    def header(self) -> object:
        """None: a file's header tells of the stored voxels, not of a view of them."""
        return None

    @property
    def says(self) -> Says:
        """As the source's."""
        return self.source.says

    @property
    def warnings(self) -> tuple[str, ...]:
        """As the source's."""
        return self.source.warnings

    def read(self, box: Box) -> NDArray[Any]:
        """As the source's."""
        return self.source.read(box)


def read_all(source: VolumeSource) -> NDArray[Any]:
    """The whole volume, (C, Z, Y, X)."""
    return source.read(Box.whole(source.shape))


def told_grid(source: VolumeSource) -> str:
    """Where a source's voxels lie, for a sentence about two that differ."""
    spacing, origin = (
        ", ".join(f"{v:.5g}" for v in numbers) for numbers in (spacing_of(source.affine), source.affine[:3, 3])
    )
    axes = f", axes {axis_codes(source.affine)}" if source.says == "place" else ""
    return f"shape (z, y, x) {tuple(source.shape)}, spacing ({spacing}) mm, first voxel at ({origin}) mm{axes}"
