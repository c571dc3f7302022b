"""Which files these are: cheaply by path, size and time, or surely by content."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from vol3d.files.itk import voxels_beside
from vol3d.files.names import file_and_inside


def stat_identity(paths: Sequence[Path]) -> list[tuple[str, int, int]]:
    """Absolute path, size and modification time (ns) of each file, those in folders and beside headers included."""
    files = [f for path in paths for file in _files(path) for f in (file, voxels_beside(file)) if f is not None]
    return [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files]


def content_sha256(path: Path) -> str:
    """The SHA-256 of a file, or of the names and contents of a folder's files."""
    total = hashlib.sha256()
    for file in _files(path):
        total.update(os.fsencode(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0"))
        with open(file, "rb") as stream:
            while piece := stream.read(1 << 20):
                total.update(piece)
    return total.hexdigest()


def _files(path: Path) -> Iterator[Path]:
    path = file_and_inside(path)[0]
    if path.is_file():
        yield path
    else:
        yield from sorted(f for f in path.rglob("*") if f.is_file())
