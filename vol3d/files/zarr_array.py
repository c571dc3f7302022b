"""A Zarr array as it lies in its folder: its metadata checked before anything is decoded, its chunks counted.

A reader of Zarr takes a chunk that is missing for zeros, allocates what the metadata says, and runs
whatever codec they name. Here the first is an error, the second has a bound, the third a list.
"""

import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from vol3d.errors import InputError
from vol3d.files.atomic import read_text
from vol3d.files.decoding import decoding
from vol3d.files.voxels import SPARSE, check_chunk, check_type

_GROUP, _ARRAY = (".zgroup", ".zattrs"), ".zarray"
# Others may do anything with the bytes they are given: one of Zarr 2's unpickles them.
_CODECS = {
    *("bytes", "transpose", "sharding_indexed", "crc32c", "blosc", "gzip", "zstd", "lz4", "zlib", "bz2", "lzma"),
    *("numcodecs.lz4", "numcodecs.zlib", "numcodecs.bz2", "numcodecs.lzma", "numcodecs.shuffle", "numcodecs.delta"),
    *("shuffle", "delta", "adler32", "crc32"),
}


@dataclass(frozen=True)
class ZarrNode:
    """A group or an array: its own metadata (None for a group) and its attributes."""

    array: dict[str, Any] | None
    attributes: dict[str, Any]


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr group or array, of either format."""
    return path.is_dir() and any((path / name).is_file() for name in ("zarr.json", _ARRAY, *_GROUP))


def read_node(folder: Path) -> ZarrNode:
    """The metadata of a Zarr folder; where both formats lie side by side, of Zarr 3.

    Raises:
        InputError: they are damaged.
    """
    if (folder / "zarr.json").is_file():
        about = _json(folder / "zarr.json")
        array = about if about.get("node_type") == "array" else None
        return ZarrNode(array, _object(folder / "zarr.json", about.get("attributes", {})))
    array = _json(folder / _ARRAY) if (folder / _ARRAY).is_file() else None
    return ZarrNode(array, _json(folder / ".zattrs") if (folder / ".zattrs").is_file() else {})


def check_array(folder: Path, *, remedy: str) -> None:
    """Refuse an array that holds no plain numbers, names strange codecs, or lacks chunks.

    Where the attribute SPARSE is set, the store means its fill value where there is no chunk. In a
    shard it always does: the shard's index says so. remedy ends the sentence about missing chunks.

    Raises:
        InputError: with what is wrong and, for chunks, how many are missing.
    """
    with decoding(str(folder)):
        node = read_node(folder)
        about = node.array
        if about is None:
            raise InputError(f"{folder} is no Zarr array")
        new = about["zarr_format"] == 3
        shape = tuple(int(n) for n in about["shape"])
        stored = about["data_type" if new else "dtype"]
        dtype = np.dtype(stored if isinstance(stored, str) else "O")
        codecs = about["codecs"] if new else [c for c in (about.get("compressor"), *(about.get("filters") or ())) if c]
        files = tuple(int(n) for n in (about["chunk_grid"]["configuration"]["chunk_shape"] if new else about["chunks"]))
        prefix, separator = _key_encoding(about)
        names, chunk = _unfold(codecs, files)
    check_type(folder, dtype, said=stored)
    if len(shape) != len(files) or min((*shape, *files, *chunk), default=0) < 1:
        raise InputError(f"{folder}: expected positive lengths, got shape {shape} in chunks of {chunk}")
    if names - _CODECS:
        raise InputError(f"{folder} is encoded with {', '.join(sorted(names - _CODECS))}, which is not read here")
    check_chunk(folder, chunk, dtype)
    if not node.attributes.get(SPARSE):
        lengths = tuple(-(-n // c) for n, c in zip(shape, files, strict=True))
        _check_chunks(folder, lengths, prefix, separator, about.get("fill_value"), remedy)


def _check_chunks(
    folder: Path, lengths: tuple[int, ...], prefix: tuple[str, ...], separator: str, fill: Any, remedy: str
) -> None:
    total = math.prod(lengths)
    # Folders are listed, not chunks asked for one by one: a volume may have millions of them.
    there = sum(1 for key in _stored(str(folder), len(lengths)) if _names_a_chunk(key, lengths))
    if there == total:
        return

    def key(number: int) -> str:
        index = (number // math.prod(lengths[axis + 1 :]) % n for axis, n in enumerate(lengths))
        return separator.join((*prefix, *map(str, index)))

    lost = islice((key(n) for n in range(total) if not _has_bytes(folder / key(n))), 3)
    raise InputError(
        f"{folder}: {total - there} of {total} chunks are missing ({', '.join(lost)} ...), "
        f"which would read as {fill}; {remedy}"
    )


def _names_a_chunk(key: str, lengths: tuple[int, ...]) -> bool:
    if not re.fullmatch(r"(c[/.])?\d+([/.]\d+)*", key):
        return False
    index = tuple(int(n) for n in re.findall(r"\d+", key))
    return len(index) == len(lengths) and all(i < n for i, n in zip(index, lengths, strict=True))


def _key_encoding(about: dict[str, Any]) -> tuple[tuple[str, ...], str]:
    """What a chunk's key begins with, and what stands between its numbers."""
    if about["zarr_format"] == 2:
        return (), about.get("dimension_separator", ".")
    encoding = about["chunk_key_encoding"]
    default = encoding["name"] == "default"
    return ("c",) if default else (), encoding.get("configuration", {}).get("separator", "/" if default else ".")


def _stored(folder: str, depth: int) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir():
                if entry.stat().st_size:  # a shard of no bytes reads as zeros, too
                    yield entry.name
            elif depth and re.fullmatch(r"c|\d+", entry.name):
                yield from (f"{entry.name}/{key}" for key in _stored(entry.path, depth - 1))


def _has_bytes(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _unfold(codecs: list[dict[str, Any]], chunk: tuple[int, ...]) -> tuple[set[str], tuple[int, ...]]:
    """The names of all codecs, those inside of shards too, and the shape that is decoded at once."""
    names: set[str] = set()
    for codec in codecs:
        names.add(str(codec["name"] if "name" in codec else codec["id"]))
        if codec.get("name") == "sharding_indexed":
            inner = codec["configuration"]
            more, chunk = _unfold(inner["codecs"], tuple(int(n) for n in inner["chunk_shape"]))
            names |= more | _unfold(inner.get("index_codecs", []), chunk)[0]
    return names, chunk


def _json(path: Path) -> dict[str, Any]:
    try:
        return _object(path, json.loads(read_text(path)))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be decoded: {error}") from error


def _object(path: Path, data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected an object, got {str(data)[:40]}")
    return data
