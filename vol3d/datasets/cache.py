"""Preprocessed volumes on disk, keyed by what they were made from, so that they are made once.

An entry is verified whenever it is opened; one that is damaged is made again. A folder may be shared by runs that work
at the same time: an entry is made by one of them while the others wait for it.
"""

import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.files.identity import stat_identity
from vol3d.files.kept import claimed, kept_bytes, open_kept, sweep_kept, write_kept
from vol3d.geometry.affine import spacing_of
from vol3d.geometry.box import Box
from vol3d.geometry.grid import slabs
from vol3d.version import __version__
from vol3d.volume.source import View, VolumeSource

SLAB_PLANES = 32
LEFT_FREE = 1_000_000_000
"""Bytes that are left on the disk, for checkpoints; half of what is free where that is less."""

_ENTRY = re.compile(r".*-[0-9a-f]{16}-[a-z]+\.npy")


@dataclass(frozen=True)
class CacheSettings:
    """Where preprocessed volumes are kept, and how many gigabytes (1e9 bytes) of them at most.

    folder is one that runs may share; none: the run's own. Without limit_gb the disk is the limit.
    """

    folder: str | None = None
    limit_gb: float | None = None

    def __post_init__(self) -> None:
        if self.limit_gb is not None and self.limit_gb < 0:
            raise ValueError(f"limit_gb must be 0 or more, got {self.limit_gb:g}")


def cache_key(paths: Sequence[Path], settings: object) -> str:
    """Names the outcome of preprocessing: the files' paths, sizes and times, the settings, our version."""
    return hashlib.sha256(repr((stat_identity(paths), settings, __version__)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class AsStored(View):
    """A view whose voxels are rounded to the type that they would be stored in, so that both read the same."""

    stored: np.dtype[Any]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The stored one."""
        return self.stored

    def read(self, box: Box) -> NDArray[Any]:
        """The box's voxels, (C, Z, Y, X)."""
        return self.source.read(box).astype(self.stored)


class Cache:
    """A folder of preprocessed volumes, for the threads of one run.

    needed are the names of the entries that the run will ask for: others go first where the limit is reached, the
    longest unused before all. waiting is called between slabs, and while another run makes an entry; what it raises
    ends the work.
    """

    def __init__(
        self,
        folder: Path,
        *,
        limit_bytes: int | None = None,
        needed: Collection[str] = (),
        waiting: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder, self.limit_bytes, self.needed, self.waiting = folder, limit_bytes, frozenset(needed), waiting
        self._lock = threading.Lock()
        self.direct: set[str] = set()
        self.refused: set[str] = set()
        self._promised: dict[Path, int] = {}
        sweep_kept(folder)

    def volume(
        self,
        name: str,
        make: Callable[[], VolumeSource],
        dtype: type[np.generic],
        *,
        directly: Callable[[VolumeSource], bool] = lambda view: False,
    ) -> VolumeSource:
        """The entry of this name, made and kept first where it is missing or damaged.

        What is read directly, or finds no room, is what make gives, rounded alike; direct and refused then name it.

        Raises:
            ResourceError: the disk became full.
        """
        return open_kept(self.folder / name) or self._made(name, make, np.dtype(dtype), directly)

    def _made(
        self,
        name: str,
        make: Callable[[], VolumeSource],
        dtype: np.dtype[Any],
        directly: Callable[[VolumeSource], bool],
    ) -> VolumeSource:
        path = self.folder / name
        with claimed(path, self.waiting) as claim:
            found = open_kept(path)  # another run may have made it meanwhile
            if found is not None:
                return found
            view = AsStored(make(), dtype)
            if directly(view):
                self.direct.add(name)
                return view
            shape = (view.channels, *view.shape)
            with self._room(path, kept_bytes(shape, dtype)) as room:
                if not room:
                    self.refused.add(name)
                    return view
                spacing = spacing_of(view.affine)
                write_kept(path, claim, shape=shape, dtype=dtype, spacing=spacing, parts=self._parts(view))
        return open_kept(path) or view

    def _parts(self, view: VolumeSource) -> Iterator[tuple[Box, NDArray[Any]]]:
        for box in slabs(view.shape, SLAB_PLANES):
            self.waiting()
            yield box, view.read(box)

    @contextmanager
    def _room(self, path: Path, size: int) -> Iterator[bool]:
        """Whether there is room for an entry, which is held for it while the block runs."""
        with self._lock:
            fits = self._make_room(size)
            if fits:
                self._promised[path] = size
        try:
            yield fits
        finally:
            with self._lock:
                self._promised.pop(path, None)

    def _make_room(self, size: int) -> bool:
        """Remove entries that this run does not need, the longest unused first, if that makes room enough."""
        entries = [(path, stat) for path, stat in _stats(self.folder) if _ENTRY.fullmatch(path.name)]
        others = sorted((e for e in entries if e[0].name not in self.needed), key=lambda e: e[1].st_atime_ns)
        promised = sum(self._promised.values())
        free = shutil.disk_usage(self.folder).free
        lacking = size + promised - (free - min(LEFT_FREE, free // 2))
        if self.limit_bytes is not None:
            kept = sum(stat.st_size for _, stat in entries)
            lacking = max(lacking, kept + promised + size - self.limit_bytes)
        if lacking > sum(stat.st_size for _, stat in others):
            return False
        for path, stat in others:
            if lacking <= 0:
                break
            path.unlink(missing_ok=True)
            lacking -= stat.st_size
        return True


def _stats(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path in folder.iterdir():
        try:
            yield path, path.stat()
        except FileNotFoundError:  # another run's, just removed or renamed
            continue
