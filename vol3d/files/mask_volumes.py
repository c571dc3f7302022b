"""Masks of a table as volumes whose planes are decoded when they are read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError, some
from vol3d.files.mask_tables import SIZE, MaskTable
from vol3d.files.masks import Plane, sennet_mask
from vol3d.files.names import natural_key
from vol3d.files.planes import PlaneSource, SliceNames
from vol3d.geometry.affine import from_spacing
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.source import VolumeSource

SENNET = ("id", "rle")
NO_SPACING = Spacing(1.0, 1.0, 1.0)

LikeOf = Callable[[str], VolumeSource | None]
"""The image that a mask belongs to, by the mask's name; None where there is none."""


def no_image(_: str) -> None:
    """No mask has an image."""


def sennet_volumes(path: Path, *, plane: Plane | None = None, like: LikeOf = no_image) -> dict[str, PlaneSource]:
    """The masks (0 or 1, uint8) of a SenNet table by name: id ``kidney_5_0012`` is the slice 0012 of kidney_5.

    A volume has the slices that its image has, or those from its lowest number to its highest.

    Raises:
        InputError: the table is wrong, or slices are missing or have no image.
        UsageError: it cannot be read, or nothing says how large a slice is.
    """
    table = MaskTable(path, columns=SENNET, more=SIZE)
    slices: dict[str, list[str]] = {}
    for name in table.ids:
        volume, _, number = name.rpartition("_")
        if not volume or not (number.isascii() and number.isdigit()):
            line = table.ids[name][0][0]
            raise InputError(f"{path}: line {line}: expected an id such as kidney_5_0012, got {name[:80]!r}")
        slices.setdefault(volume, []).append(number)
    return {volume: _sennet_volume(table, volume, numbers, plane, like) for volume, numbers in slices.items()}


def _sennet_volume(table: MaskTable, volume: str, numbers: list[str], plane: Plane | None, like: LikeOf) -> PlaneSource:
    image = like(volume)
    if image is not None and isinstance(image.header, SliceNames):
        wanted = [Path(name).stem for name in image.header.names]
    else:
        digits, first = len(numbers[0]), min(map(int, numbers))
        last = first + image.shape.z - 1 if image is not None else max(map(int, numbers))
        wanted = [f"{n:0{digits}d}" for n in range(first, min(last, first + 2 * len(numbers)) + 1)]
    for what, missing in (("no row for", {*wanted} - {*numbers}), ("no image for", {*numbers} - {*wanted})):
        if missing:
            names = some(sorted(missing, key=lambda n: natural_key(Path(n))), 5)
            raise InputError(f"{table.path}: {volume}: expected a row for each slice, got {what} {names}")
    told = plane if image is None else (image.shape.y, image.shape.x)
    size = table.rows(f"{volume}_{wanted[0]}")[0].plane(told)

    def decoded(_: int, z: int) -> NDArray[np.uint8]:
        (row,) = table.rows(f"{volume}_{wanted[z]}")
        same = row.plane(size)
        with row.telling():
            return sennet_mask(row.cells["rle"], same).view(np.uint8)[None]

    return PlaneSource(
        Shape3(len(wanted), *size),
        1,
        np.dtype(np.uint8),
        from_spacing(NO_SPACING) if image is None else image.affine,
        decoded,
        header=SliceNames(tuple(f"{n}.tif" for n in wanted)) if image is None else image.header,
        says="nothing" if image is None else image.says,
    )
