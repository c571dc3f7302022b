"""What lies in a folder, as people see it."""

from pathlib import Path

from vol3d.errors import UsageError
from vol3d.files.names import natural_key


def entries(folder: Path) -> list[Path]:
    """Everything but what is hidden, in natural order.

    Raises:
        UsageError: the folder cannot be read.
    """
    try:
        return sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=natural_key)
    except OSError as error:
        raise UsageError(f"cannot read {folder}: {error.strerror}") from error
