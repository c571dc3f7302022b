"""Errors of decoders as sentences that name the file."""

from collections.abc import Iterator
from contextlib import contextmanager

from vol3d.errors import InputError, Vol3dError


@contextmanager
def decoding(what: str) -> Iterator[None]:
    """Name the file, whatever a decoder chokes on: on damaged ones they raise nearly any exception."""
    try:
        yield
    except (Vol3dError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"{what} cannot be decoded: {error}") from error
