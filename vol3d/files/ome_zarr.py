"""OME-Zarr images: 0.4 (Zarr 2) and 0.5 (Zarr 3) read chunk by chunk, 0.5 written. Plain Zarr arrays are read, too.

The format says a scale and a translation, no rotation. What is written here also keeps its exact
affine, in the attribute ``vol3d``; it is believed as long as it fits the scale and the translation.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError, some
from vol3d.files.decoding import decoding
from vol3d.files.folders import entries
from vol3d.files.kept_header import KeptHeader, kept_words
from vol3d.files.ome_metadata import SPACE, OmePlace, group_attributes, read_image
from vol3d.files.place import rescaled, spacing_alone
from vol3d.files.probabilities import ATTRIBUTE
from vol3d.files.raw import RawVoxels, StagedSink
from vol3d.files.voxels import SPARSE, without_bool
from vol3d.files.zarr_array import check_array, read_node
from vol3d.geometry.affine import Affine
from vol3d.geometry.box import Box
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.volume.labels import LabelSchema
from vol3d.volume.source import Access, VolumeSource

CHUNK = 64  # voxels along each axis at most, so that a viewer may look into a part
SHARD = 256  # one file's, of large volumes
LARGE = 512**3  # voxels beyond which chunks are gathered in shards
_KEPT_BYTES = 2**28  # decoded chunks that a reader of thin slabs finds again


class ZarrSource:
    """A Zarr array whose axes have names as a (C, Z, Y, X) volume; axes but c, z, y, x must have length 1."""

    access: Access = "random"

    def __init__(self, path: Path, axes: tuple[str, ...]) -> None:
        import zarr

        attribute = f"python -c \"import zarr; zarr.open({str(path)!r}, mode='r+').attrs[{SPARSE!r}] = True\""
        check_array(path, remedy=f"restore them or, if its writer stores no chunks of that alone, say so: {attribute}")
        with decoding(str(path)):
            self._array: Any = zarr.open_array(path, mode="r")
            lengths = dict(zip(axes, self._array.shape, strict=True))
        long = {axis for axis, n in lengths.items() if n > 1} - {"c", *SPACE}
        if long or not {"y", "x"} <= lengths.keys() or len(lengths) < len(axes):
            told = ", ".join(f"{axis} ({n})" for axis, n in zip(axes, self._array.shape, strict=True))
            raise InputError(f"{path}: expected axes y, x and perhaps z and c, others of length 1, got {told}")
        self.path, self._axes = path, axes
        self.shape = Shape3(*(int(lengths.get(axis, 1)) for axis in SPACE))
        self.channels, self.dtype = int(lengths.get("c", 1)), np.dtype(self._array.dtype).newbyteorder("=")
        self.affine, self.says, self.warnings = spacing_alone(path, None)
        self.header: KeptHeader | None = None
        self._depth = int(self._array.chunks[axes.index("z")]) if "z" in axes else 1
        self._kept: tuple[Box, NDArray[Any]] | None = None

    def read(self, box: Box) -> NDArray[Any]:
        """The box's voxels, (C, Z, Y, X).

        Raises:
            InputError: a chunk is damaged.
        """
        kept = self._kept
        if kept is None or not kept[0].contains(box):
            whole = self._chunks_around(box)
            kept = whole, self._decoded(whole)
            self._kept = None if whole == box else kept
        z, y, x = kept[0].start
        return kept[1][(slice(None), *box.shifted(Index3(-z, -y, -x)).slices)]

    def _chunks_around(self, box: Box) -> Box:
        """The box, or, of whole planes, all planes of the chunks it cuts, if they are not too many."""
        first, last = box.start.z // self._depth * self._depth, -(-box.stop.z // self._depth) * self._depth
        whole = Box(Index3(first, 0, 0), Index3(min(last, self.shape.z), *self.shape[1:]))
        size = self.channels * whole.shape.voxels * self.dtype.itemsize
        return whole if box.shape[1:] == self.shape[1:] and size <= _KEPT_BYTES else box

    def _decoded(self, box: Box) -> NDArray[Any]:
        cut = {"c": slice(None), **dict(zip(SPACE, box.slices, strict=True))}
        left = [axis for axis in self._axes if axis in cut]
        with decoding(str(self.path)):
            voxels = np.asarray(self._array[tuple(cut.get(axis, 0) for axis in self._axes)], dtype=self.dtype)
        voxels = voxels.transpose([left.index(axis) for axis in cut if axis in left])
        return np.ascontiguousarray(voxels.reshape(self.channels, *box.shape))


def open_ome_zarr(path: Path, *, spacing: Spacing | None = None) -> ZarrSource:
    """Open the full resolution of an OME-Zarr image, or a plain (Z, Y, X) or (C, Z, Y, X) array; spacing in mm.

    Raises:
        InputError: it is neither, a chunk is missing, or its metadata are damaged or absurd.
    """
    path = Path(path)
    with decoding(str(path)):
        node = read_node(path)
        if node.array is not None:
            source = _plain(path, node.array, node.attributes)
        elif "multiscales" in node.attributes.get("ome", node.attributes):
            image = read_image(path, node.attributes)
            source = ZarrSource(path / image.level, image.axes)
            source.affine, source.says, source.warnings = image.affine, image.says, image.warnings
            source.header = KeptHeader("OME-Zarr", image.place, source.shape, image.affine)
        else:
            return open_ome_zarr(_only_image(path, node.attributes), spacing=spacing)
    if spacing is not None:
        source.affine, source.header, source.warnings = rescaled(source.affine, spacing), None, ()
        source.says = "spacing" if source.says == "nothing" else source.says
    return source


def create_ome_zarr(
    path: Path,
    *,
    shape: Shape3,
    channels: int = 1,
    dtype: Any,
    affine: Affine,
    like: VolumeSource | None = None,
    labels: LabelSchema | None = None,
    **_: object,
) -> StagedSink:
    """Begin an OME-Zarr 0.5 image with coarser levels; with labels a label image with their names and colours.

    A level takes every second voxel of the one before along the axes that are longer than a chunk.
    Where like came from OME-Zarr with this very grid, its scale, translation and units are kept.
    """
    there = kept_words(like, "OME-Zarr", shape=shape, affine=affine) or OmePlace.of(affine)

    def encode(voxels: RawVoxels, to: Path) -> None:
        import zarr

        steps, name = _steps(shape), Path(path).name.split(".")[0]
        attributes = group_attributes(name, place=there, affine=affine, channels=channels, steps=steps, labels=labels)
        group = zarr.create_group(to, zarr_format=3, attributes=attributes)
        for level, step in enumerate(steps):
            _write_level(group, str(level), voxels, step)

    return StagedSink(Path(path), shape=(channels, *shape), dtype=without_bool(dtype), encode=encode)


def _plain(path: Path, array: dict[str, Any], attributes: dict[str, Any]) -> ZarrSource:
    """An array without an image around it; of stored probabilities the place is known."""
    axes = {3: SPACE, 4: ("c", *SPACE)}.get(len(array["shape"]))
    if axes is None:
        raise InputError(f"{path}: expected a (Z, Y, X) or (C, Z, Y, X) array, got shape {tuple(array['shape'])}")
    source = ZarrSource(path, axes)
    if ATTRIBUTE in attributes:
        affine = np.array(attributes[ATTRIBUTE]["affine"], dtype=np.float64).reshape(4, 4)
        source.affine, source.says, source.warnings = affine, "place", ()
    return source


def _only_image(path: Path, attributes: dict[str, Any]) -> Path:
    """The image of a group that holds just one, as Bio-Formats writes it."""
    inner = [p.name for p in entries(path) if p.is_dir() and p.name != "OME"]
    if "bioformats2raw.layout" in attributes.get("ome", attributes) and inner == ["0"]:
        return path / "0"
    raise InputError(
        f"{path} is a Zarr group without multiscales, so no image; name one that lies in it: {some(inner)}"
    )


def _steps(shape: Shape3) -> list[tuple[int, int, int]]:
    """For each level, every how many voxels of the first it takes along z, y, x."""
    steps = [(1, 1, 1)]
    while max(left := [-(-n // s) for n, s in zip(shape, steps[-1], strict=True)]) > CHUNK:
        z, y, x = (s * (2 if n > CHUNK else 1) for n, s in zip(left, steps[-1], strict=True))
        steps.append((z, y, x))
    return steps


def _write_level(group: Any, name: str, voxels: RawVoxels, step: tuple[int, int, int]) -> None:
    """Write every step-th of the staged voxels, in boxes that hold whole chunks and shards."""
    from zarr.codecs import ZstdCodec

    channels, *extent = voxels.shape
    shape = Shape3(*(-(-n // s) for n, s in zip(extent, step, strict=True)))
    chunk = tuple(min(CHUNK, n) for n in shape)
    shard = tuple(min(SHARD, -(-n // c) * c) for n, c in zip(shape, chunk, strict=True))
    large, dtype = shape.voxels > LARGE, voxels.dtype.newbyteorder("=")
    array = group.create_array(
        name,
        shape=(channels, *shape)[channels == 1 :],
        chunks=(1, *chunk)[channels == 1 :],
        shards=(1, *shard)[channels == 1 :] if large else None,
        dtype=dtype,
        fill_value=0,
        compressors=ZstdCodec(level=3, checksum=True),
        dimension_names=("c", *SPACE)[channels == 1 :],
        config={"write_empty_chunks": True},
    )
    depth, height, _ = shard if large else chunk
    for z in range(0, shape.z, depth):
        for y in range(0, shape.y, height):
            stop = Index3(min(z + depth, shape.z), min(y + height, shape.y), shape.x)
            out = np.empty((channels, stop.z - z, stop.y - y, shape.x), dtype=dtype)
            for row in range(stop.z - z):
                first = (z + row) * step[0]
                rows = Box(
                    Index3(first, y * step[1], 0), Index3(first + 1, min(stop.y * step[1], extent[1]), extent[2])
                )
                out[:, row] = voxels.read(rows)[:, 0, :: step[1], :: step[2]]
            array[(..., slice(z, stop.z), slice(y, stop.y), slice(None))] = out if channels > 1 else out[0]
