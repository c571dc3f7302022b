"""Probabilities kept between prediction and post-processing: Zarr 3, float16, foreground channels.

They are read as any plain Zarr array is, see vol3d.files.ome_zarr, and by the attribute at their place.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.files.atomic import Staged, writing
from vol3d.files.decoding import decoding
from vol3d.files.zarr_array import is_zarr, read_node
from vol3d.geometry.affine import Affine
from vol3d.geometry.box import Box
from vol3d.shapes import Shape3, shape3

ATTRIBUTE = "vol3d_probability"
CHUNK = 96  # voxels along each axis at most: 1.7 MB in float16
_FORMAT = 1


class ProbabilitySink:
    """Probabilities being written; boxes that are slabs of CHUNK planes touch each chunk once."""

    def __init__(self, path: Path, *, names: Sequence[str], shape: Shape3, affine: Affine) -> None:
        import zarr

        self.path, self._staged = path, Staged(path)
        about = {"format": _FORMAT, "names": list(names), "affine": np.asarray(affine).tolist()}
        with writing(path):
            self._array: Any = zarr.create_array(
                self._staged.path,
                shape=(len(names), *shape),
                chunks=(1, *(min(CHUNK, n) for n in shape)),
                dtype="float16",
                fill_value=0,
                attributes={ATTRIBUTE: about},
                config={"write_empty_chunks": True},
            )

    def write(self, box: Box, voxels: NDArray[Any]) -> None:
        """Store a (C, Z, Y, X) array in [0, 1] at the box.

        Raises:
            ValueError: its shape is not the box's.
        """
        expected = (self._array.shape[0], *box.shape)
        if voxels.shape != expected:
            raise ValueError(f"expected an array of shape {expected}, got {voxels.shape}")
        with writing(self.path):
            self._array[(slice(None), *box.slices)] = voxels.astype(np.float16)

    def commit(self) -> None:
        """Show the folder."""
        self._staged.commit()

    def abort(self) -> None:
        """Forget what was written."""
        self._staged.abort()


def create_probability(path: Path, *, names: Sequence[str], shape: Shape3, affine: Affine) -> ProbabilitySink:
    """Begin a Zarr folder of float16 probabilities, (len(names), *shape), at affine."""
    return ProbabilitySink(Path(path), names=names, shape=shape3(shape), affine=affine)


def probability_names(path: Path) -> tuple[str, ...]:
    """The names of the regions whose probabilities a folder keeps, in order; none of other volumes.

    Raises:
        InputError: its metadata are damaged.
    """
    if not is_zarr(path):
        return ()
    with decoding(str(path)):
        return tuple(str(name) for name in read_node(path).attributes.get(ATTRIBUTE, {}).get("names", ()))
