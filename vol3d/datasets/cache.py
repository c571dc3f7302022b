"""Preprocessed volumes on disk, keyed by what they were made from, so that they are made once."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vol3d.files.arrays import create_npy, open_npy
from vol3d.files.identity import stat_identity
from vol3d.geometry.grid import slabs
from vol3d.shapes import Spacing
from vol3d.version import __version__
from vol3d.volume.source import VolumeSource, filling

SLAB_PLANES = 32


def cache_key(paths: Sequence[Path], settings: object) -> str:
    """Names the outcome of preprocessing: the files' paths, sizes and times, the settings, our version."""
    return hashlib.sha256(repr((stat_identity(paths), settings, __version__)).encode()).hexdigest()[:16]


def cached(path: Path, make: Callable[[], VolumeSource], dtype: type[np.generic], spacing: Spacing) -> VolumeSource:
    """The volume stored at path (.npy), of this spacing; made and stored first where it is missing."""
    if not path.is_file():
        view = make()
        with filling(create_npy(path, shape=view.shape, channels=view.channels, dtype=dtype)) as sink:
            for box in slabs(view.shape, SLAB_PLANES):
                sink.write(box, view.read(box).astype(dtype))
    return open_npy(path, spacing=spacing)
