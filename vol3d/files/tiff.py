"""TIFF: stacks of pages and folders of slices, one page in memory at a time."""

import json
import logging
import math
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError, UsageError
from vol3d.files.decoding import decoding
from vol3d.files.names import PNG
from vol3d.files.pictures import png_bytes
from vol3d.files.place import SPACING_FILE, spacing_alone, spacing_beside
from vol3d.files.planes import PlaneSource, SliceNames, check_alike, each_plane, gaps
from vol3d.files.png import stored_png_type
from vol3d.files.raw import RawVoxels, StagedSink
from vol3d.files.tiff_pages import pages, tiff_slices_of
from vol3d.files.tiff_spacing import ome_xml, spacing_inside
from vol3d.files.voxels import check_type, without_half
from vol3d.geometry.affine import Affine, spacing_of
from vol3d.geometry.box import Box
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.volume.source import VolumeSource

_CLASSIC_BYTES = 2**32 - 2**25  # what 32-bit offsets can reach, less room for the directories
_ENCODING = {"photometric": "minisblack", "compression": "zlib", "compressionargs": {"level": 1}, "software": False}


def open_stack(path: Path, *, spacing: Spacing | None = None) -> PlaneSource:
    """Open a multi-page TIFF; a spacing (mm) goes before spacing.json, OME-XML, ImageJ and 1 mm.

    Raises:
        InputError: it is truncated, its pages differ, or its axes are no volume's.
    """
    found = list(pages(path))
    if not found:
        raise InputError(f"{path} is a TIFF file without a page")
    check_alike([(f"{path}, page {number}", page.kind) for number, page in enumerate(found)])
    with decoding(str(path)):
        file = _tifffile().TiffFile(path)
    try:
        with decoding(str(path)):
            series, first = file.series[0], file.pages[0]
            given = spacing or spacing_beside(path.parent) or spacing_inside(path, file)
        groups, depth, number_of = _axes(path, series)
        if groups * depth < found[0].images:
            raise InputError(f"{path} is truncated: expected {found[0].images} planes, got {groups * depth}")
        samples = math.prod(n for axis, n in zip(first.axes, first.shape, strict=True) if axis == "S")
        shape = Shape3(depth, first.imagelength, first.imagewidth)
        dtype: np.dtype[Any] = np.dtype(series.dtype).newbyteorder("=")
        check_type(path, dtype)
        with decoding(str(path)):
            planes = _planes_of(path, file, count=groups * depth, shape=shape)
    except BaseException:
        file.close()
        raise
    lock = threading.Lock()

    def plane(channel: int, z: int) -> NDArray[Any]:
        with lock, decoding(str(path)):
            return planes(number_of(channel // samples, z))

    affine, says, warnings = spacing_alone(path, given)
    source = PlaneSource(shape, groups * samples, dtype, affine, plane, warnings=warnings, says=says)
    weakref.finalize(source, file.close)
    return source


def open_slices(folder: Path, *, spacing: Spacing | None = None) -> PlaneSource:
    """Open a folder of single-page TIFFs in natural order as one volume.

    Raises:
        UsageError: it holds no slices.
        InputError: one of them is damaged or differs from the others.
    """
    paths = tiff_slices_of(folder)
    if not paths:
        raise UsageError(f"{folder} holds no single-page TIFF slices")
    found = [(path, page) for path in paths for page in pages(path)]
    check_alike([(str(path), page.kind) for path, page in found])
    if [path for path, _ in found] != paths:
        raise InputError(f"{folder}: expected one page in each of {len(paths)} slices, got {len(found)} pages")

    def plane(channel: int, z: int) -> NDArray[Any]:  # noqa: ARG001
        with decoding(str(paths[z])), _tifffile().TiffFile(paths[z]) as file:
            return _decoded(str(paths[z]), file.pages[0])

    with decoding(str(paths[0])), _tifffile().TiffFile(paths[0]) as file:
        given = spacing or spacing_beside(folder, folder.parent) or spacing_inside(paths[0], file)
        dtype, samples = np.dtype(file.pages[0].dtype).newbyteorder("="), found[0][1].samples
    check_type(paths[0], dtype)
    affine, says, warnings = spacing_alone(folder, given)
    return PlaneSource(
        shape=Shape3(len(paths), found[0][1].height, found[0][1].width),
        channels=samples,
        dtype=dtype,
        affine=affine,
        plane=plane,
        warnings=warnings + gaps(folder, paths),
        header=SliceNames(tuple(path.name for path in paths)),
        says=says,
    )


def create_stack(
    path: Path, *, shape: Shape3, channels: int = 1, dtype: Any, affine: Affine, **_: object
) -> StagedSink:
    """Begin a deflated OME-TIFF, BigTIFF where it must be. Of the affine it keeps the spacing.

    Raises:
        UsageError: TIFF has no such type.
    """
    stored = without_half(dtype)
    description = ome_xml(shape, channels=channels, dtype=stored, spacing=spacing_of(affine))
    size = (channels, *shape)

    def encode(voxels: RawVoxels, to: Path) -> None:
        big = math.prod(size) * stored.itemsize > _CLASSIC_BYTES
        with _tifffile().TiffWriter(to, bigtiff=big) as writer:
            writer.write(
                each_plane(voxels), shape=size, dtype=stored, description=description, metadata=None, **_ENCODING
            )

    return StagedSink(Path(path), shape=size, dtype=stored, encode=encode)


def create_slices(
    path: Path,
    *,
    shape: Shape3,
    channels: int = 1,
    dtype: Any,
    affine: Affine,
    like: VolumeSource | None = None,
    **_: object,
) -> StagedSink:
    """Begin a folder of deflated slices and a spacing.json, named as those of like where it came from such.

    Where those are PNG these are, too.

    Raises:
        UsageError: there are several channels, or TIFF (PNG) has no such type.
    """
    if channels != 1:
        raise UsageError(f"cannot write {path}: a folder of slices holds one channel, got {channels}; use .tif")
    spacing = spacing_of(affine)
    given = like.header.names if like is not None and isinstance(like.header, SliceNames) else ()
    names = given if len(given) == shape.z else [f"{z:04d}.tif" for z in range(shape.z)]
    pictures = names[0].lower().endswith(PNG)
    stored = stored_png_type(path, dtype) if pictures else without_half(dtype)
    ome_xml(shape, channels=1, dtype=stored, spacing=spacing)  # refuses a type that TIFF has not

    def encode(voxels: RawVoxels, to: Path) -> None:
        to.mkdir()
        for name, plane in zip(names, each_plane(voxels), strict=True):
            if pictures:
                (to / name).write_bytes(png_bytes(plane))
            else:
                _tifffile().imwrite(to / name, plane, metadata=None, **_ENCODING)
        (to / SPACING_FILE).write_text(json.dumps(spacing._asdict()) + "\n")

    return StagedSink(Path(path), shape=(1, *shape), dtype=stored, encode=encode)


def _tifffile() -> Any:
    import tifffile

    # Its log lines would reach the terminal; what they say of damage is checked here and raised.
    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    return tifffile


def _axes(path: Path, series: Any) -> tuple[int, int, Callable[[int, int], int]]:
    """Groups of channels, slices, and the page number of (group, z); one of T, I, Q may stand for Z."""
    axes = [(axis, n) for axis, n in zip(series.axes, series.shape, strict=True) if axis not in "YXS"]
    long = [axis for axis, n in axes if n > 1 and axis != "C"]
    if len(long) > 1:
        raise InputError(f"{path}: expected slices and channels, got axes {series.axes} of {series.shape}")
    names, lengths = [axis for axis, _ in axes], [n for _, n in axes]
    depth = dict(axes)[long[0]] if long else 1

    def number_of(group: int, z: int) -> int:
        index = [group if name == "C" else z if name in long else 0 for name in names]
        return int(np.ravel_multi_index(index, lengths)) if index else 0

    return dict(axes).get("C", 1), depth, number_of


def _planes_of(path: Path, file: Any, *, count: int, shape: Shape3) -> Callable[[int], NDArray[Any]]:
    """Decode the page of a number; where ImageJ wrote one page for many planes, cut it out of the file."""
    series = file.series[0]
    if len(series.pages) >= count and all(page is not None for page in series.pages[:count]):
        return lambda number: _decoded(f"{path}, page {number}", series.pages[number])
    if series.dataoffset is None:
        raise InputError(f"{path}: expected {count} pages, got {len(series.pages)}")
    dtype = np.dtype(series.dtype).newbyteorder(file.byteorder)
    end, size = series.dataoffset + count * shape.y * shape.x * dtype.itemsize, path.stat().st_size
    if end > size:
        raise InputError(f"{path} is truncated: expected {end} bytes, got {size}")
    descriptor = os.open(path, os.O_RDONLY)
    voxels = RawVoxels(descriptor, name=path, shape=(1, count, *shape[1:]), dtype=dtype, offset=series.dataoffset)
    return lambda number: voxels.read(Box.at(Index3(number, 0, 0), Shape3(1, *shape[1:])))[0]


def _decoded(what: str, page: Any) -> NDArray[Any]:
    """A page as (samples, Y, X)."""
    with decoding(what):
        image: NDArray[Any] = page.asarray()
    if page.axes == "YXS":
        image = np.moveaxis(image, -1, 0)
    return image if page.axes != "YX" else image[None]
