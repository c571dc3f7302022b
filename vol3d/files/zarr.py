"""Probabilities kept between prediction and post-processing: Zarr 3, float16, foreground channels.

A reader of Zarr takes a chunk that is missing for zeros. Here every chunk is written, and one that is
missing is an error.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError, UsageError
from vol3d.files.atomic import Staged, writing
from vol3d.files.zarr_array import check_array
from vol3d.geometry.affine import Affine
from vol3d.geometry.box import Box
from vol3d.shapes import Shape3, shape3
from vol3d.volume.source import Access, Says

CHUNK = 96  # voxels along each axis at most: 1.7 MB in float16
_FORMAT = 1


class ProbabilitySource:
    """A stored probability as a (C, Z, Y, X) float16 volume in [0, 1], one channel per region name."""

    access: Access = "random"
    header: object = None
    says: Says = "place"
    warnings: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        import zarr

        if not (path / "zarr.json").is_file():
            raise UsageError(f"{path} is not a folder of stored probabilities (no zarr.json in it)")
        try:
            self._array: Any = zarr.open_array(path, mode="r")
            about: Any = self._array.attrs["vol3d_probability"]
            self.names: tuple[str, ...] = tuple(about["names"])
            self.affine: Affine = np.array(about["affine"], dtype=np.float64).reshape(4, 4)
            channels, *extent = self._array.shape
            self.channels, self.shape, self.dtype = int(channels), shape3(extent), np.dtype(self._array.dtype)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} holds no probabilities of vol3d ({error!r})") from error
        self.path = path
        check_array(path, remedy="store the probabilities anew")

    def read(self, box: Box) -> NDArray[Any]:
        """The box's voxels, (C, Z, Y, X).

        Raises:
            InputError: a chunk is missing or damaged.
        """
        try:
            return np.asarray(self._array[(slice(None), *box.slices)])
        except (ValueError, RuntimeError, OSError) as error:
            raise InputError(f"{self.path}: a chunk cannot be decoded ({error})") from error


class ProbabilitySink:
    """Probabilities being written; boxes that are slabs of CHUNK planes touch each chunk once."""

    def __init__(self, path: Path, *, names: Sequence[str], shape: Shape3, affine: Affine) -> None:
        import zarr

        self.path, self._staged = path, Staged(path)
        with writing(path):
            self._array: Any = zarr.create_array(
                self._staged.path,
                shape=(len(names), *shape),
                chunks=(1, *(min(CHUNK, n) for n in shape)),
                dtype="float16",
                fill_value=0,
                attributes={
                    "vol3d_probability": {
                        "format": _FORMAT,
                        "names": list(names),
                        "affine": np.asarray(affine).tolist(),
                    }
                },
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


def open_probability(path: Path) -> ProbabilitySource:
    """Open what create_probability wrote.

    Raises:
        UsageError: there is no such folder.
        InputError: it is damaged, or a chunk is missing.
    """
    return ProbabilitySource(Path(path))
