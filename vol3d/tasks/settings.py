"""Settings out of files: those that a user wrote, and those that a run's folder keeps."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from vol3d.config.load import load
from vol3d.config.tree import Config
from vol3d.datasets.given import PathLike
from vol3d.errors import InputError, UsageError
from vol3d.files.atomic import read_text
from vol3d.tasks.plugins import lacking

T = TypeVar("T")


def config_of(file: PathLike | None, overrides: Sequence[str]) -> Config:
    """The configuration of a user's file, or else the default one, with the overrides.

    Raises:
        UsageError: the file is missing, or no text; or a setting is wrong.
    """
    try:
        text = read_text(Path(file)) if file else None
    except InputError as error:  # the command is wrong, not the data
        raise UsageError(str(error)) from error
    return load(Config, text=text, name=str(file or "defaults"), overrides=overrides)


def kept_settings(kind: type[T], path: Path, *, overrides: Sequence[str] = ()) -> T:
    """What a run's folder keeps in plan.yaml or config.yaml, with the overrides.

    Raises:
        UsageError: a setting is wrong; where the run has plugins that are not loaded, these are named.
    """
    text = read_text(path)
    try:
        return load(kind, text=text, name=str(path), overrides=overrides)
    except UsageError as error:
        told = lacking(path.parent)
        raise UsageError(f"{error}; {told}" if told else str(error)) from error
