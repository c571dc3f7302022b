"""Volumes that are decoded plane by plane, and folders whose files are the planes."""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError
from vol3d.files.raw import RawVoxels
from vol3d.geometry.affine import Affine
from vol3d.geometry.box import Box
from vol3d.geometry.grid import slabs
from vol3d.shapes import Shape3
from vol3d.volume.source import Access, Says


@dataclass(frozen=True)
class SliceNames:
    """The file names of a folder of slices, for the sink to give back."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class PlaneSource:
    """A volume that is decoded plane by plane: plane(group, z) is (samples, Y, X); groups * samples channels."""

    shape: Shape3
    channels: int
    dtype: np.dtype[Any]
    affine: Affine
    plane: Callable[[int, int], NDArray[Any]]
    warnings: tuple[str, ...] = ()
    header: object = None
    access: Access = "random"
    says: Says = "spacing"

    def read(self, box: Box) -> NDArray[Any]:
        """The box's voxels, (C, Z, Y, X).

        Raises:
            InputError: a page cannot be decoded.
        """
        out = np.empty((self.channels, *box.shape), dtype=self.dtype)
        for row, z in enumerate(range(box.start.z, box.stop.z)):
            channel = 0
            while channel < self.channels:
                plane = self.plane(channel, z)
                out[channel : channel + len(plane), row] = plane[(slice(None), *box.slices[1:])]
                channel += len(plane)
        return out


def each_plane(voxels: RawVoxels) -> Iterator[NDArray[Any]]:
    """Every (Y, X) plane of staged voxels, channel by channel."""
    channels, *extent = voxels.shape
    for channel in range(channels):
        for slab in slabs(Shape3(*extent), 1):
            yield voxels.read(slab, channel=channel)[0, 0]


def check_alike(pages: Sequence[tuple[str, str]]) -> None:
    """Refuse pages, told with their kind (size and type), that are not of one.

    Raises:
        InputError: one of them differs from the first.
    """
    for name, kind in pages:
        if kind != pages[0][1]:
            raise InputError(f"{name} is {kind}, {pages[0][0]} is {pages[0][1]}: they are no volume together")


def gaps(folder: Path, paths: Sequence[Path]) -> tuple[str, ...]:
    """A warning where the slices' numbers skip some."""
    last = [re.findall(r"\d+", path.stem) for path in paths]
    if len(paths) < 2 or not all(last):
        return ()
    numbers = [int(parts[-1]) for parts in last]
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    if len(set(steps)) == 1:
        return ()
    where = next(number for number, step in zip(numbers, steps, strict=False) if step != min(steps))
    return (f"{folder}: the numbers of its {len(paths)} slices have a gap after {where}; slices may be missing",)
