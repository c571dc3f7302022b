"""Gzip, and zlib's own wrapper, as a bounded stream whose checksum is always read."""

import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from vol3d.errors import InputError
from vol3d.files.temporary import temporary_file

MAGIC = b"\x1f\x8b"
MAX_RATIO = 1032  # deflate cannot shrink further
_CHUNK = 1 << 20
_LEVEL = 1  # labels shrink well at any; images would gain 5 % for three times the time
GZIP, ZLIB, _EITHER = 31, 15, 47  # zlib's names for the wrappers, with a 32 kB window


class Inflated:
    """Iterate over the decompressed content of path, from byte start on, in pieces of at most 1 MiB.

    At the end the checksum has been compared and trailing_bytes says how much foreign content
    followed the last gzip member.
    """

    def __init__(self, path: Path, *, start: int = 0) -> None:
        self.path, self._start = path, start
        self.trailing_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        with self.path.open("rb") as stream:
            stream.seek(self._start)
            decoder, data = zlib.decompressobj(_EITHER), stream.read(_CHUNK)
            while True:
                if decoder.eof:
                    data = decoder.unused_data or stream.read(_CHUNK)
                    if not data.startswith(MAGIC):
                        self.trailing_bytes = self.path.stat().st_size - stream.tell() + len(data)
                        return
                    decoder = zlib.decompressobj(_EITHER)
                elif not data:
                    data = stream.read(_CHUNK)
                    if not data:
                        raise InputError(f"{self.path} is truncated: its compressed stream has no end")
                try:
                    piece = decoder.decompress(data, _CHUNK)
                except zlib.error as error:
                    raise InputError(
                        f"{self.path} is damaged: what is compressed cannot be decoded ({error})"
                    ) from error
                data = decoder.unconsumed_tail
                if piece:
                    yield piece


def beginning(path: Path, count: int) -> bytes:
    """The first count bytes of a file, decompressed when it is a gzip; fewer where it is shorter.

    Raises:
        InputError: the gzip is damaged before that.
    """
    with path.open("rb") as stream:
        start = stream.read(count)
    if not start.startswith(MAGIC):
        return start
    result = b""
    for piece in Inflated(path):
        result += piece
        if len(result) >= count:
            break
    return result[:count]


def spool(path: Path, *, expected_bytes: int, start: int = 0) -> tuple[int, str]:
    """Decompress path, from byte start on, into an unlinked temporary file; its descriptor, and a warning or "".

    expected_bytes is what the header promises; nothing beyond it is stored.

    Raises:
        InputError: the stream is damaged, shorter, or much longer than that.
        ResourceError: the temporary folder has not the room.
    """
    inflated, count = Inflated(path, start=start), 0
    with temporary_file(path, size=expected_bytes) as stream:
        for piece in inflated:
            stream.write(piece[: max(0, expected_bytes - count)])
            count += len(piece)
            if count > expected_bytes + _CHUNK:
                raise InputError(f"{path} holds more than the {expected_bytes} bytes that its header promises")
        if count < expected_bytes:
            raise InputError(f"{path} is truncated: expected {expected_bytes} bytes after decompression, got {count}")
        stream.flush()
        extra = count - expected_bytes + inflated.trailing_bytes
        warning = f"{path}: {extra} bytes follow the voxels and are ignored" if extra else ""
        return os.dup(stream.fileno()), warning


def check_ratio(path: Path, *, expected_bytes: int) -> None:
    """Refuse a gzip that is too small to hold what its header promises, before anything is allocated.

    Raises:
        InputError: even the densest stream of this size would be shorter.
    """
    size = path.stat().st_size
    if expected_bytes > size * MAX_RATIO + _CHUNK:
        raise InputError(
            f"{path}: its header promises {expected_bytes} bytes, which {size} bytes of compressed voxels cannot hold; "
            "the file is truncated or forged"
        )


def deflate(pieces: Iterable[bytes], path: Path, *, header: bytes = b"", wrapper: int = GZIP) -> None:
    """Write pieces as one stream behind a bare header; the same bytes for the same content, for no time is stored."""
    encoder = zlib.compressobj(_LEVEL, zlib.DEFLATED, wrapper)
    with path.open("wb") as stream:
        stream.write(header)
        for piece in pieces:
            stream.write(encoder.compress(piece))
        stream.write(encoder.flush())
