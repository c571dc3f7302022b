"""Masks of a table as volumes whose planes are decoded when they are read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError, some
from vol3d.files.mask_tables import SIZE, MaskTable
from vol3d.files.masks import SIIM_PLANE, Instance, Plane, hubmap_instances, sennet_mask, siim_mask
from vol3d.files.names import natural_key
from vol3d.files.planes import PlaneSource, SliceNames
from vol3d.files.polygons import PolygonLines, class_labels
from vol3d.geometry.affine import from_spacing
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.source import VolumeSource

SENNET, SIIM, HUBMAP = ("id", "rle"), ("ImageId", "EncodedPixels"), ("id", *SIZE, "prediction_string")
HUBMAP_PLANE = (512, 512)
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


def siim_volumes(path: Path, *, plane: Plane | None = None, like: LikeOf = no_image) -> dict[str, PlaneSource]:
    """The masks (0 or 1, uint8) of a SIIM-ACR table by picture, of 1024 x 1024 pixels unless told otherwise.

    Raises:
        InputError: the table is wrong.
        UsageError: it cannot be read.
    """
    table = MaskTable(path, columns=SIIM, repeats=True)

    def decoded(name: str, size: Plane) -> NDArray[np.uint8]:
        mask = np.zeros(size, dtype=np.bool_)
        for row in table.rows(name):
            with row.telling():
                mask |= siim_mask([row.cells[SIIM[1]]], size)
        return mask.view(np.uint8)

    return {name: _picture(name, plane or SIIM_PLANE, like, np.uint8, decoded) for name in table.ids}


def hubmap_volumes(path: Path, *, plane: Plane | None = None, like: LikeOf = no_image) -> dict[str, PlaneSource]:
    """The instances of a HuBMAP table by picture, numbered from 1 in the order of their row (uint16).

    Where some overlap the surest is seen, of equally sure ones the first.

    Raises:
        InputError: the table is wrong.
        UsageError: it cannot be read.
    """
    table = MaskTable(path, columns=HUBMAP)

    def decoded(name: str, size: Plane) -> NDArray[np.uint16]:
        labels, instances = np.zeros(size, dtype=np.uint16), _instances(table, name, size)
        for number in sorted(range(len(instances)), key=lambda n: (instances[n].confidence, -n)):
            labels[instances[number].mask] = number + 1
        return labels

    sizes = {name: table.rows(name)[0].plane(plane) for name in table.ids}
    return {name: _picture(name, size, like, np.uint16, decoded) for name, size in sizes.items()}


def hubmap_confidences(path: Path) -> dict[str, list[float]]:
    """How sure each instance of a HuBMAP table is, by picture, in the order of their numbers."""
    table = MaskTable(path, columns=HUBMAP)
    return {name: [i.confidence for i in _instances(table, name, None)] for name in table.ids}


def _instances(table: MaskTable, name: str, size: Plane | None) -> list[Instance]:
    (row,) = table.rows(name)
    plane = row.plane(size)
    with row.telling():
        found = hubmap_instances(row.cells[HUBMAP[3]], plane)
        if len(found) > np.iinfo(np.uint16).max:
            raise ValueError(f"expected at most 65535 instances, got {len(found)}")
    return found


def polygon_volumes(path: Path, *, plane: Plane | None = None, like: LikeOf = no_image) -> dict[str, PlaneSource]:
    """The classes (uint8, as polygons.CLASSES) of a polygons.jsonl by picture, 512 x 512 pixels unless told otherwise.

    Raises:
        InputError: a line is wrong.
        UsageError: the file cannot be read.
    """
    lines = PolygonLines(path)

    def decoded(name: str, size: Plane) -> NDArray[np.uint8]:
        return class_labels(lines.annotations(name), size)

    return {name: _picture(name, plane or HUBMAP_PLANE, like, np.uint8, decoded) for name in lines.ids}


def _picture(
    name: str, plane: Plane, like: LikeOf, dtype: type[np.integer[Any]], decoded: Callable[[str, Plane], NDArray[Any]]
) -> PlaneSource:
    """A volume of one slice."""
    image = like(name)
    size = plane if image is None else (image.shape.y, image.shape.x)
    return PlaneSource(
        Shape3(1, *size),
        1,
        np.dtype(dtype),
        from_spacing(NO_SPACING) if image is None else image.affine,
        lambda _channel, _z: decoded(name, size)[None],
        says="nothing" if image is None else image.says,
    )
