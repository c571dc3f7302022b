"""The chain of pages in a TIFF, walked without decoding, and what is a folder of slices.

tifffile drops the rest of a truncated chain with a log line and hands out the first group of pages
where sizes differ; a damaged file must be an error here.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vol3d.errors import InputError
from vol3d.files.folders import entries
from vol3d.files.names import TIFF

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SAMPLED_SLICES = 64
_LAYOUT = {False: ("I", "H", 12, 4), True: ("Q", "Q", 20, 8)}  # classic, big: offset, count, bytes per entry, inline
_TYPES = {1: "B", 2: "B", 3: "H", 4: "I", 16: "Q"}
_WIDTH, _HEIGHT, _BITS, _DESCRIPTION, _SAMPLES, _FORMAT = 256, 257, 258, 270, 277, 339
_SEGMENTS = ((273, 279), (324, 325))  # offsets and byte counts of strips, of tiles
_MAX_VALUES = 1 << 24


@dataclass(frozen=True)
class Page:
    """Size and type of a page, and where its last byte lies."""

    height: int
    width: int
    bits: int
    samples: int
    sample_format: int
    end: int
    images: int  # planes that ImageJ says lie behind this one page

    @property
    def kind(self) -> str:
        """What must be equal for pages to be one volume."""
        number = {1: "uint", 2: "int", 3: "float"}.get(self.sample_format, f"format {self.sample_format} of ")
        return f"{self.height} x {self.width} {number}{self.bits}" + (f" x {self.samples}" if self.samples > 1 else "")


def pages(path: Path) -> Iterator[Page]:
    """The pages of a TIFF in order.

    Raises:
        InputError: it is no TIFF, or ends before a page does.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(16)
        if start[:4] not in MAGIC:
            raise InputError(f"{path} is not a TIFF file: it begins with {start[:4]!r}")
        order, big = ("<" if start[0] == ord("I") else ">"), start[2:4] in (b"+\0", b"\0+")
        offset_type, count_type, entry_bytes, inline = _LAYOUT[big]
        try:
            (place,) = struct.unpack_from(order + offset_type, start, 8 if big else 4)
            seen: set[int] = set()
            while place:
                if place in seen:
                    raise InputError(f"{path}: its pages run in a circle")
                seen.add(place)
                stream.seek(place)
                (count,) = _unpack(stream, order + count_type)
                block = stream.read(count * entry_bytes)
                (place,) = _unpack(stream, order + offset_type)
                page = _page(stream, block, order, offset_type, inline)
                if page.end > size:
                    raise InputError(f"{path} is truncated: expected {page.end} bytes or more, got {size}")
                yield page
        except (struct.error, ValueError, OverflowError, KeyError, IndexError) as error:
            raise InputError(f"{path} is truncated or damaged after {size} bytes: a page cannot be read") from error


def tiff_slices_of(folder: Path) -> list[Path]:
    """The single-page TIFF files of a folder in natural order; [] where it holds none, or stacks.

    Of many files, 64 spread over them are looked into.

    Raises:
        UsageError: the folder cannot be read.
    """
    tiffs = [p for p in entries(folder) if p.suffix.lower() in TIFF and p.is_file()]
    step = max(1, len(tiffs) // _SAMPLED_SLICES)
    return tiffs if all(_is_slice(p) for p in tiffs[::step]) else []


def _is_slice(path: Path) -> bool:
    """Whether there is one page; a damaged file counts as a slice, to be refused by name when read."""
    try:
        for number, page in enumerate(pages(path)):
            if number or page.images > 1:
                return False
    except InputError:
        pass
    return True


def _unpack(stream: BinaryIO, layout: str) -> tuple[int, ...]:
    return struct.unpack(layout, stream.read(struct.calcsize(layout)))


def _page(stream: BinaryIO, block: bytes, order: str, offset_type: str, inline: int) -> Page:
    """Read the few tags that matter out of a page's directory."""
    wanted = {_WIDTH, _HEIGHT, _BITS, _DESCRIPTION, _SAMPLES, _FORMAT, *_SEGMENTS[0], *_SEGMENTS[1]}
    entry = struct.Struct(f"{order}HH{offset_type}{inline}s")
    tags: dict[int, tuple[int, ...]] = {}
    for tag, kind, count, value in entry.iter_unpack(block):
        if tag not in wanted or kind not in _TYPES:
            continue
        if count > _MAX_VALUES:
            raise struct.error("absurd number of values")
        layout = f"{order}{count}{_TYPES[kind]}"
        if struct.calcsize(layout) > inline:
            stream.seek(struct.unpack(order + offset_type, value)[0])
            tags[tag] = _unpack(stream, layout)
        else:
            tags[tag] = struct.unpack_from(layout, value)
    ends = [
        offset + length
        for offsets, lengths in _SEGMENTS
        for offset, length in zip(tags.get(offsets, ()), tags.get(lengths, ()), strict=True)
    ]
    described = re.search(rb"^ImageJ=.*?^images=(\d+)", bytes(tags.get(_DESCRIPTION, ())), re.DOTALL | re.MULTILINE)
    return Page(
        height=tags[_HEIGHT][0],
        width=tags[_WIDTH][0],
        bits=tags.get(_BITS, (1,))[0],
        samples=tags.get(_SAMPLES, (1,))[0],
        sample_format=tags.get(_FORMAT, (1,))[0],
        end=max(ends, default=0),
        images=int(described[1]) if described else 1,
    )
