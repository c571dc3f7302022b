"""One process at a time in a folder, or one thread at a time with a file.

The lock is the kernel's (flock), so it ends with its holder however that ends; what a folder's file says is
only for the message.
"""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vol3d.errors import UsageError
from vol3d.files.atomic import writing

LOCK_FILE = ".vol3d.lock"


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a folder (made if need be) for this process while the block runs.

    Raises:
        UsageError: another process holds it; its pid and host are named.
    """
    path = Path(folder) / LOCK_FILE
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = held(path)
    if descriptor is None:
        raise UsageError(f"{path.parent} is in use by {_holder(path)}; wait for it or choose another folder")
    try:
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _holder(path: Path) -> str:
    try:
        return path.read_text(errors="replace") or "another process"
    except FileNotFoundError:  # just left
        return "another process"


def held(path: Path) -> int | None:
    """A descriptor of the file of this name, made if need be, that holds its lock; None while another one does."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return None
            raise
        if still_is(descriptor, path):
            return descriptor
        os.close(descriptor)  # the holder before us removed or renamed this file as it left: take the new one


def still_is(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
