"""Masks as the text of competitions and as volumes, from one to the other."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError, UsageError, some
from vol3d.files.mask_tables import MaskTable, written_table
from vol3d.files.mask_volumes import (
    HUBMAP,
    SENNET,
    SIIM,
    LikeOf,
    hubmap_confidences,
    hubmap_volumes,
    polygon_volumes,
    sennet_volumes,
    siim_volumes,
)
from vol3d.files.masks import Instance, Plane, hubmap_text, sennet_text, siim_text
from vol3d.files.planes import PlaneSource, SliceNames
from vol3d.files.polygons import written_polygons
from vol3d.files.volumes import INNER_OF_MASKS, FoundVolume, create_volume, find_volumes, open_volume
from vol3d.geometry.affine import from_spacing
from vol3d.geometry.grid import planes_in, slabs
from vol3d.shapes import Shape3, Spacing
from vol3d.tasks.reporter import Advance, Reporter, Silent
from vol3d.volume.labels import MAX_LABEL
from vol3d.volume.source import VolumeSource, filling

SLAB_VOXELS = 1 << 25
CONFIDENCES, CONFIDENCE = "confidences.csv", ("id", "instance", "confidence")

WriteRow = Callable[[str, str, NDArray[Any]], None]
"""Takes a volume's name, its slice's and the plane (Y, X) of values."""


class Read(Protocol):
    """Opens a table's masks by name."""

    def __call__(self, path: Path, *, plane: Plane | None, like: LikeOf) -> dict[str, PlaneSource]: ...  # noqa: D102


@dataclass(frozen=True)
class Kind:
    """One form of masks as text: its files' ending, how they are read, and begun from masks in a folder.

    pictures are of one slice each; their volumes are written with the ending, unless another format is asked for.
    """

    ending: str
    read: Read
    begin: Callable[[Path, Path], AbstractContextManager[WriteRow]]
    pictures: bool = True


@dataclass(frozen=True)
class Converted:
    """A mask that was converted: shape is (z, y, x); voxels those that are not zero. output is its file."""

    name: str
    output: Path
    shape: Shape3
    voxels: int


def convert(
    kind: str,
    source: Path,
    target: Path,
    *,
    plane: Plane | None = None,
    like: Path | None = None,
    spacing: Spacing | None = None,
    format: str = "auto",  # noqa: A002
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> list[Converted]:
    """Masks as text (a file) to volumes in the folder target, or volumes (anything else) to the file target.

    kind is one of KINDS. plane is how large masks are that do not say it, like a folder of the images they belong to,
    which say size, place and names. spacing (mm) goes before what images say. All is read and written slice by slice.

    Raises:
        UsageError: a path is missing, of another kind or in the way, or nothing says how large a mask is.
        InputError: a file holds something else than it must.
    """
    form, reporter = KINDS[kind], reporter or Silent()
    if not source.exists():
        raise UsageError(f"{source} does not exist; expected a {form.ending} file, or masks to make one of")
    if source.is_file() and source.suffix.lower() == form.ending:
        return _to_volumes(form, source, target, plane, like, spacing, format, overwrite, reporter)
    if target.suffix.lower() != form.ending:
        raise UsageError(f"expected a {form.ending} file as source or target of {kind}, got {source} and {target}")
    if plane or like or spacing or format != "auto":
        raise UsageError("--shape, --like, --spacing and --format are for masks out of text; masks have their own")
    return _to_text(form, source, target, overwrite, reporter)


def _to_volumes(
    form: Kind,
    source: Path,
    target: Path,
    plane: Plane | None,
    like: Path | None,
    spacing: Spacing | None,
    format: str,  # noqa: A002
    overwrite: bool,
    reporter: Reporter,
) -> list[Converted]:
    masks = form.read(source, plane=plane, like=_images(like, pictures=form.pictures))
    if not masks:
        raise InputError(f"{source} holds no mask")
    ending = (".png" if form.pictures else "") if format == "auto" else f".{format}"
    places = {name: target / (name + ending) for name in masks}
    for name, place in places.items():
        if place.parent != target or place.name != name + ending:
            raise InputError(f"{source}: {name!r} is no name for a file")
        if place.exists() and not overwrite:
            raise UsageError(f"{place} is there already: name another folder, or say --overwrite")
    if spacing is None and not form.pictures and any(mask.says == "nothing" for mask in masks.values()):
        reporter.warn(f"{source} says no spacing; 1 mm is written: give --spacing, or --like and the images")
    converted, total = [], sum(mask.shape.z for mask in masks.values())
    with reporter.progress("converting", total=total, unit="slices") as advance:
        for name, mask in masks.items():
            placed = mask if spacing is None else replace(mask, affine=from_spacing(spacing))
            converted.append(_written(name, placed, places[name], advance))
    if form is KINDS["hubmap-rle"]:
        with written_table(target / CONFIDENCES, CONFIDENCE) as write:
            for name, sure in hubmap_confidences(source).items():
                for number, confidence in enumerate(sure, start=1):
                    write(name, number, repr(confidence))
    return converted


def _written(name: str, mask: VolumeSource, place: Path, advance: Advance) -> Converted:
    shape, voxels = mask.shape, 0
    with filling(create_volume(place, shape=shape, dtype=mask.dtype, affine=mask.affine, like=mask)) as sink:
        for box in slabs(shape, planes_in(shape, SLAB_VOXELS)):
            planes = mask.read(box)
            voxels += int(np.count_nonzero(planes))
            sink.write(box, planes)
            advance(box.shape.z)
    return Converted(name, place, shape, voxels)


def _images(folder: Path | None, *, pictures: bool) -> LikeOf:
    """The image of a mask's name in a folder, or its only one."""
    if folder is None:
        return lambda _: None
    found = {v.name: v for v in find_volumes(folder, slices="cases" if pictures else "volume")}

    def like(name: str) -> VolumeSource:
        if name not in found and (pictures or len(found) > 1):
            raise UsageError(f"no image named {name} in {folder}, which has {some(list(found), 5)}")
        return open_volume(found.get(name, next(iter(found.values()))).paths[0])

    return like


def _to_text(form: Kind, source: Path, target: Path, overwrite: bool, reporter: Reporter) -> list[Converted]:
    if target.exists() and not overwrite:
        raise UsageError(f"{target} is there already: name another file, or say --overwrite")
    found = find_volumes(source, slices="cases" if form.pictures else "volume", inner=INNER_OF_MASKS)
    total = len(found) if form.pictures else sum(open_volume(v.paths[0]).shape.z for v in found)
    with (
        reporter.progress("converting", total=total, unit="slices") as advance,
        form.begin(source, target) as write,
    ):
        return [_told(form, volume, target, write, advance) for volume in found]


def _told(form: Kind, volume: FoundVolume, target: Path, write: WriteRow, advance: Advance) -> Converted:
    """Write each slice of a volume of labels."""
    path, voxels = volume.paths[0], 0
    mask = open_volume(path)
    if mask.channels != 1 or mask.dtype.kind not in "biu" or (form.pictures and mask.shape.z != 1):
        wanted = "a picture of one slice" if form.pictures else "a volume"
        told = f"{mask.channels} channels of {mask.dtype}, {mask.shape.z} slices"
        raise InputError(f"{path}: expected {wanted} with one channel of whole numbers, got {told}")
    names = [Path(n).stem for n in mask.header.names] if isinstance(mask.header, SliceNames) else []
    for box in slabs(mask.shape, 1):
        plane = mask.read(box)[0, 0]
        voxels += int(np.count_nonzero(plane))
        try:
            write(volume.name, names[box.start.z] if names else f"{box.start.z:04d}", plane)
        except ValueError as error:
            raise InputError(f"{path}: {error}") from error
        advance(1)
    return Converted(volume.name, target, mask.shape, voxels)


def _foreground(plane: NDArray[Any]) -> NDArray[np.bool_]:
    if plane.max() > MAX_LABEL:
        raise ValueError(f"expected values from 0 to {MAX_LABEL}, got {plane.max()}; give a mask, not an image")
    return plane > 0


@contextmanager
def _sennet(_: Path, target: Path) -> Iterator[WriteRow]:
    with written_table(target, SENNET) as write:
        yield lambda volume, number, plane: write(f"{volume}_{number}", sennet_text(_foreground(plane)))


@contextmanager
def _siim(_: Path, target: Path) -> Iterator[WriteRow]:
    with written_table(target, SIIM) as write:
        yield lambda name, _, plane: write(name, siim_text(_foreground(plane)))


@contextmanager
def _hubmap(source: Path, target: Path) -> Iterator[WriteRow]:
    """Each value of a picture is an instance, as sure as confidences.csv beside the pictures says, or else 1."""
    sure = _confidences(source / CONFIDENCES)
    with written_table(target, HUBMAP) as write:

        def row(name: str, _: str, plane: NDArray[Any]) -> None:
            numbers = [int(n) for n in np.unique(plane) if n]
            instances = (Instance(sure.get((name, str(n)), 1.0), plane == n) for n in numbers)
            write(name, *plane.shape, hubmap_text(instances))

        yield row


def _confidences(path: Path) -> dict[tuple[str, str], float]:
    if not path.is_file():
        return {}
    table, sure = MaskTable(path, columns=CONFIDENCE, repeats=True), dict[tuple[str, str], float]()
    for name in table.ids:
        for row in table.rows(name):
            with row.telling():
                sure[name, row.cells["instance"]] = float(row.cells["confidence"])
    return sure


@contextmanager
def _polygons(_: Path, target: Path) -> Iterator[WriteRow]:
    with written_polygons(target) as write:
        yield lambda name, _, plane: write(name, plane)


KINDS = {
    "sennet-rle": Kind(".csv", sennet_volumes, _sennet, pictures=False),
    "siim-rle": Kind(".csv", siim_volumes, _siim),
    "hubmap-rle": Kind(".csv", hubmap_volumes, _hubmap),
    "hubmap-polygons": Kind(".jsonl", polygon_volumes, _polygons),
}
