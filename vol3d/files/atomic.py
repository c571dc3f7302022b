"""Files and folders that appear whole or not at all: stage, fsync, rename.

Everything is written to a sibling ``NAME.partial`` first. After a crash the target holds its old
content; the next writer of the same target sweeps the partial away.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from vol3d.errors import InputError, ResourceError, UsageError
from vol3d.files.names import fitting_name

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a path to write a file or a folder to; it takes target's place when the block ends well.

    Raises:
        ResourceError: the disk is full, or the folder vanished.
        UsageError: the place cannot be written to.
    """
    staged = Staged(target)
    try:
        with writing(target):
            yield staged.path
        staged.commit()
    except BaseException:
        staged.abort()
        raise


class Staged:
    """The ``NAME.partial`` of a target, for what is written over a longer time than one block."""

    def __init__(self, target: Path) -> None:
        self.target = Path(target)
        self.path = partial_of(self.target)
        with writing(self.target):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            _restore(self.target)
            _remove(self.path)

    def commit(self) -> None:
        """Make what was written durable and put it in target's place."""
        with writing(self.target):
            for path in [*self.path.rglob("*"), self.path]:
                _fsync(path)
            if self.path.is_dir() and self.target.exists():
                # Folders cannot be swapped in one step: a crash in between leaves NAME.previous,
                # which the next writer puts back.
                self.target.rename(_previous(self.target))
                self.path.rename(self.target)
                _remove(_previous(self.target))
            else:
                self.path.replace(self.target)
            _fsync(self.target.parent)

    def abort(self) -> None:
        """Remove what was written."""
        _remove(self.path)


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Say which file it was when the disk is full or the place is not writable."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise ResourceError(f"no room on the disk for {target} ({error.strerror}); free some and repeat") from error
        if error.errno == errno.ENOENT:
            raise ResourceError(f"cannot write {target}: its folder has vanished") from error
        if error.errno in _FORBIDDEN:
            raise UsageError(f"cannot write {target}: {error.strerror}") from error
        raise


def partial_of(target: Path) -> Path:
    """The staging path beside target; long names are shortened, for ``.partial`` must fit too."""
    return target.with_name(fitting_name(target.name, ".partial"))


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file in one step; file names in it that are no UTF-8 keep their bytes."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file in one step.

    Raises:
        ValueError: a number is NaN or infinite: JSON has neither, say None.
    """
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def append_line(path: Path, text: str) -> None:
    """Add one line to a growing file (metrics.jsonl); cheap, so not forced to the disk."""
    with writing(path), path.open("a", encoding="utf-8") as stream:
        stream.write(text + "\n")


def read_text(path: Path, *, encoding: str = "utf-8", errors: Literal["strict", "surrogateescape"] = "strict") -> str:
    """The content of a text file; with surrogateescape what is no UTF-8 stays, as file names may be.

    Raises:
        UsageError: it is missing or cannot be read.
        InputError: it is not text.
    """
    try:
        return path.read_text(encoding=encoding, errors=errors)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file in {encoding}") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        UsageError: it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _previous(target: Path) -> Path:
    return partial_of(target).with_suffix(".previous")


def _restore(target: Path) -> None:
    """Undo or finish a folder swap that a crash cut in two."""
    previous = _previous(target)
    if previous.exists():
        if target.exists():
            _remove(previous)
        else:
            previous.rename(target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
