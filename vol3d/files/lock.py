"""One process at a time in a folder.

The lock is the kernel's (flock), so it ends with its holder however that ends; what the file says is
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
        descriptor = _acquire(path)
    try:
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except OSError as error:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise UsageError(
                    f"{path.parent} is in use by {holder}; wait for it or choose another folder"
                ) from error
            raise
        os.close(descriptor)  # the holder before us removed this file as it left: take the new one
