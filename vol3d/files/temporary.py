"""Temporary files, begun where there is room for them."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from vol3d.errors import ResourceError
from vol3d.files.atomic import writing


@contextmanager
def temporary_file(source: Path, *, size: int) -> Iterator[IO[bytes]]:
    """A file without a name in the temporary folder, for as many bytes of what source holds.

    Raises:
        ResourceError: the folder has not the room.
    """
    place = Path(tempfile.gettempdir())
    free = shutil.disk_usage(place).free
    if size > free:
        raise ResourceError(
            f"{source} needs {size} bytes in {place} to be unpacked, {free} are free; set TMPDIR to a larger disk"
        )
    with writing(place), tempfile.TemporaryFile(dir=place) as stream:
        yield stream
