"""HDF5: one dataset is a volume, (Z, Y, X) or (C, Z, Y, X), read chunk by chunk.

Nothing that lies in another file is followed.
"""

import math
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError
from vol3d.files.decoding import decoding
from vol3d.files.names import file_and_inside
from vol3d.files.place import spacing_alone
from vol3d.files.raw import RawVoxels, StagedSink
from vol3d.files.voxels import SPARSE, channels_and_shape, check_chunk, check_type, chosen, without_bool
from vol3d.geometry.affine import Affine, spacing_of
from vol3d.geometry.box import Box
from vol3d.geometry.grid import slabs
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.source import Access

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
CHUNK = 64  # voxels along each axis at most
_AFFINE = "vol3d_affine"  # 4x4, the exact one, believed as long as it fits the spacing
_WRITTEN = "labels"  # the dataset's name
_SPACING, _MICROMETRES = "spacing", "element_size_um"  # attributes, along z, y, x; the latter is ilastik's and Fiji's


class Hdf5Source:
    """A dataset of an HDF5 file as a volume. Its attributes may say a spacing (mm) or element_size_um."""

    access: Access = "random"
    header: object = None

    def __init__(self, path: Path, *, spacing: Spacing | None = None) -> None:
        import h5py

        file, name = file_and_inside(path)
        with decoding(str(path)):
            opened = h5py.File(file, "r", locking="best-effort")
        weakref.finalize(self, opened.close)
        with decoding(str(path)):
            self._dataset: Any = _chosen(opened, file, name)
            check_type(path, self._dataset.dtype)
            self.channels, self.shape = channels_and_shape(path, self._dataset.shape or ())
            _check_stored(path, self._dataset)
            given, kept = spacing or _spacing_in(self._dataset.attrs), self._dataset.attrs.get(_AFFINE)
        self.path = path
        self.dtype = np.dtype(self._dataset.dtype).newbyteorder("=")
        self.affine, self.says, self.warnings = spacing_alone(path, given)
        with decoding(str(path)):
            if kept is not None and np.allclose(spacing_of(kept), spacing_of(self.affine)):
                self.affine, self.says = np.array(kept, dtype=np.float64).reshape(4, 4), "place"

    def read(self, box: Box) -> NDArray[Any]:
        """The box's voxels, (C, Z, Y, X).

        Raises:
            InputError: a chunk is damaged.
        """
        with decoding(str(self.path)):
            cut = np.asarray(self._dataset[(..., *box.slices)], dtype=self.dtype)
        return cut.reshape(self.channels, *box.shape)


def open_hdf5(path: Path, *, spacing: Spacing | None = None) -> Hdf5Source:
    """Open the only volume of an HDF5 file, or FILE.h5/GROUP/DATASET.

    Raises:
        InputError: it is damaged, holds no volume or several, chunks were never written, or its voxels
            lie in other files.
    """
    return Hdf5Source(Path(path), spacing=spacing)


def create_hdf5(path: Path, *, shape: Shape3, channels: int = 1, dtype: Any, affine: Affine, **_: object) -> StagedSink:
    """Begin a compressed dataset /labels, with the affine and, for other programs, the spacing as attributes."""
    stored, spacing = without_bool(dtype), spacing_of(affine)

    def encode(voxels: RawVoxels, to: Path) -> None:
        import h5py

        chunk = tuple(min(CHUNK, n) for n in shape)
        with h5py.File(to, "w") as file:
            dataset = file.create_dataset(
                _WRITTEN,
                shape=(channels, *shape)[channels == 1 :],
                chunks=(1, *chunk)[channels == 1 :],
                dtype=stored,
                compression="gzip",
                compression_opts=1,
                shuffle=True,
                fletcher32=True,
            )
            dataset.attrs[_SPACING] = spacing
            dataset.attrs[_MICROMETRES] = [1000 * step for step in spacing]
            dataset.attrs[_AFFINE] = affine
            for slab in slabs(shape, CHUNK):
                part = voxels.read(slab)
                dataset[(..., *slab.slices)] = part if channels > 1 else part[0]

    return StagedSink(Path(path), shape=(channels, *shape), dtype=stored, encode=encode)


def _chosen(file: Any, path: Path, name: str) -> Any:
    """The dataset of that name, or the only one that can be a volume. Links are not followed."""
    import h5py

    found: dict[str, Any] = {}
    file.visititems(lambda key, item: found.update({key: item}) if isinstance(item, h5py.Dataset) else None)
    shapes = {key: dataset.shape or () for key, dataset in found.items()}
    return found[chosen(path, name, shapes, aside="; links are not followed")]


def _spacing_in(attributes: Any) -> Spacing | None:
    if _SPACING in attributes:
        return Spacing(*(float(step) for step in attributes[_SPACING]))
    if _MICROMETRES in attributes:
        return Spacing(*(float(step) / 1000 for step in attributes[_MICROMETRES]))
    return None


def _check_stored(path: Path, dataset: Any) -> None:
    """Refuse a dataset whose voxels are not all in the file, or in chunks that are too large."""
    shape, dtype, chunk = dataset.shape, dataset.dtype, dataset.chunks
    if dataset.external or dataset.is_virtual:
        raise InputError(f"{path}: its voxels lie in other files, which are not opened; copy them into one dataset")
    check_chunk(path, chunk or (), dtype)
    if chunk is None:
        stored, total, what = dataset.id.get_storage_size(), math.prod(shape) * dtype.itemsize, "bytes"
    else:
        total, what = math.prod(-(-n // c) for n, c in zip(shape, chunk, strict=True)), "chunks"
        stored = dataset.id.get_num_chunks()
    if stored < total and not dataset.attrs.get(SPARSE):
        raise InputError(
            f"{path}: {total - stored} of {total} {what} were never written and would read as {dataset.fillvalue}; "
            f"write them or, if that is meant, give the dataset the attribute {SPARSE} = True"
        )
