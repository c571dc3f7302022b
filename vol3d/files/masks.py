"""Masks of planes as run lengths in text: SenNet's, SIIM-ACR's, and COCO's with HuBMAP's wrapping of it.

A mask is (Y, X) bool. All forms come down to counts, the lengths of runs that alternate between background and
foreground, background first, along the rows of the plane ("C" order) or down its columns ("F"). Nothing loops
over pixels or runs. Sources: the evaluation pages of the three competitions, and pycocotools.
"""

import base64
import binascii
import math
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Plane = tuple[int, int]
"""Pixels along y and x."""

Order = Literal["C", "F"]

SENNET_EMPTY, SIIM_EMPTY = "1 0", "-1"
SIIM_PLANE = (1024, 1024)
_NUMBERS = re.compile(r"\s*\d{1,15}(?:\s+\d{1,15})*\s*", re.ASCII)
_CHUNKS = 13  # of five bits, in a 64-bit integer


def counts_of(mask: Mask, order: Order = "F") -> NDArray[np.int64]:
    """The counts of a mask: COCO's uncompressed form in the order "F". They add up to its pixels."""
    flat = mask.ravel(order)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    first = [0, 0] if flat[:1].any() else [0]
    return np.diff(np.concatenate([first, edges, [flat.size]])).astype(np.int64)


def mask_of(counts: Sequence[int] | NDArray[np.int64], plane: Plane, order: Order = "F") -> Mask:
    """The mask of counts.

    Raises:
        ValueError: one is negative, or they do not add up to the plane's pixels.
    """
    lengths, size = np.asarray(counts, dtype=np.int64), math.prod(plane)
    if lengths.size and not 0 <= lengths.min() <= lengths.max() <= size:
        raise ValueError(f"expected counts from 0 to {size}, got {lengths[(lengths < 0) | (lengths > size)][0]}")
    if lengths.sum() != size:
        raise ValueError(f"expected counts that add up to {plane[0]} x {plane[1]} pixels, got {lengths.sum()}")
    gaps, runs = lengths[::2], lengths[1::2]
    return _drawn(gaps[: len(runs)], runs, plane, order)


def sennet_text(mask: Mask) -> str:
    """SenNet 2023: ``start length ...`` along the rows, starts counted from 1; ``1 0`` where the mask is empty."""
    starts, runs = _runs(mask, "C")
    return _text(starts + 1, runs) or SENNET_EMPTY


def sennet_mask(text: str, plane: Plane) -> Mask:
    """The mask of SenNet's text.

    Raises:
        ValueError: it is no such text, or its runs overlap, are not sorted, or leave the plane.
    """
    if text.split() == SENNET_EMPTY.split():
        return np.zeros(plane, dtype=np.bool_)
    starts, runs = _pairs(text, "start length", SENNET_EMPTY, plane)
    gaps = np.diff(starts - 1, prepend=0)
    gaps[1:] -= runs[:-1]
    if starts[0] < 1:
        raise ValueError("a run starts at pixel 0: the first pixel is 1")
    if (gaps < 0).any():
        late = int(np.argmax(gaps < 0))
        told = f"{starts[late]} after {starts[late - 1]} {runs[late - 1]}"
        raise ValueError(f"expected runs in order that do not overlap, got one from {told}")
    return _drawn(gaps, runs, plane, "C")


def siim_text(mask: Mask) -> str:
    """SIIM-ACR: ``gap length ...`` down the columns, each gap from the end of the run before it; ``-1`` for none."""
    starts, runs = _runs(mask, "F")
    gaps = np.diff(starts, prepend=0)
    gaps[1:] -= runs[:-1]
    return _text(gaps, runs) or SIIM_EMPTY


def siim_mask(texts: Iterable[str], plane: Plane = SIIM_PLANE) -> Mask:
    """The union of the masks of SIIM-ACR's texts, which are several rows of one picture.

    Raises:
        ValueError: one is no such text, or a run leaves the plane.
    """
    mask = np.zeros(plane, dtype=np.bool_)
    for text in texts:
        if text.strip() != SIIM_EMPTY:
            mask |= _drawn(*_pairs(text, "gap length", SIIM_EMPTY, plane), plane, "F")
    return mask


def coco_text(mask: Mask) -> str:
    """COCO's compressed counts: from the fourth on less the one two before, in pieces of five bits with a sign."""
    values = counts_of(mask)
    values[3:] -= values[1:-2]
    # As many pieces as leave room for the sign.
    limits = np.int64(1) << (5 * np.arange(1, _CHUNKS) - 1)
    pieces = 1 + np.maximum(
        np.searchsorted(limits, values, side="right"), np.searchsorted(limits, -values, side="left")
    )
    place = np.arange(pieces.max())
    bits = (values[:, None] >> (5 * place)) & 31
    more = (place < pieces[:, None] - 1) * 32
    return bytes((bits + more + 48)[place < pieces[:, None]].astype(np.uint8)).decode("ascii")


def coco_counts(text: str) -> NDArray[np.int64]:
    """The counts of COCO's compressed form.

    Raises:
        ValueError: a character is none of its 64, or the text ends within a number.
    """
    codes = np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.int64) - 48
    if codes.size and not 0 <= codes.min() <= codes.max() < 64:
        raise ValueError("expected the characters 0 to o of COCO's counts, got another")
    last = np.flatnonzero(codes < 32)
    if not codes.size or last.size == 0 or last[-1] != codes.size - 1:
        raise ValueError("COCO's counts end within a number")
    first = np.append(0, last[:-1] + 1)
    if (last - first).max() >= _CHUNKS - 1:
        raise ValueError("a number of COCO's counts has more than 59 bits")
    shift = 5 * (np.arange(codes.size) - np.repeat(first, last - first + 1))
    values: NDArray[np.int64] = np.add.reduceat((codes & 31) << shift, first)
    values -= np.where(codes[last] & 16, np.int64(32) << shift[last], 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


@dataclass(frozen=True, eq=False)
class Instance:
    """One object of a picture: its mask (Y, X) and how sure the prediction is of it."""

    confidence: float
    mask: Mask


def hubmap_text(instances: Iterable[Instance]) -> str:
    """HuBMAP 2023: ``0 confidence mask`` of each, a mask being COCO's compressed counts in zlib in base64."""
    return " ".join(
        f"0 {i.confidence!r} {base64.b64encode(zlib.compress(coco_text(i.mask).encode(), 9)).decode()}"
        for i in instances
    )


def hubmap_instances(text: str, plane: Plane) -> list[Instance]:
    """The instances of HuBMAP's text; none of an empty one. They may overlap.

    Raises:
        ValueError: it is no such text; a mask does not fit the plane, or unpacks to more than any of it can need.
    """
    words = text.split()
    if len(words) % 3:
        raise ValueError(f"expected '0 confidence mask' for each instance, got {len(words)} words")
    found = []
    for kind, confidence, packed in zip(words[::3], words[1::3], words[2::3], strict=True):
        try:
            sure = float(confidence)
        except ValueError:
            sure = math.nan
        if kind != "0" or not math.isfinite(sure):
            raise ValueError(f"expected '0 confidence mask' for each instance, got '{kind[:20]} {confidence[:20]} ...'")
        found.append(Instance(sure, mask_of(coco_counts(_unpacked(packed, plane)), plane)))
    return found


def _unpacked(packed: str, plane: Plane) -> str:
    size = math.prod(plane)
    most = (size + 1) * (size.bit_length() // 5 + 1)
    unzip = zlib.decompressobj()
    try:
        text = unzip.decompress(base64.b64decode(packed, validate=True), most + 1)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"a mask is not base64: {error}") from error
    except zlib.error as error:
        raise ValueError(f"a mask is not packed with zlib: {error}") from error
    if len(text) > most:
        raise ValueError(f"a mask unpacks to more than the {most} bytes that {plane[0]} x {plane[1]} pixels can need")
    if not unzip.eof or unzip.unused_data:
        raise ValueError("a mask is cut off" if not unzip.eof else "a mask is followed by something else")
    return text.decode("latin-1")


def _runs(mask: Mask, order: Order) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the runs of foreground start, from 0, and how long they are."""
    counts = counts_of(mask, order)
    ends = np.cumsum(counts)
    return ends[: counts.size - counts.size % 2 : 2], counts[1::2]


def _text(one: NDArray[np.int64], other: NDArray[np.int64]) -> str:
    return " ".join(map(str, np.stack([one, other], axis=-1).ravel().tolist()))


def _pairs(text: str, pair: str, empty: str, plane: Plane) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers of a text, two by two, each of which the plane can hold; runs are not empty."""
    wanted = f"expected whole numbers '{pair} ...', or '{empty}' for an empty mask"
    if not _NUMBERS.fullmatch(text):
        odd = next((word for word in text.split() if not re.fullmatch(r"\d{1,15}", word, re.ASCII)), "nothing")
        raise ValueError(f"{wanted}, got {odd[:40]}")
    numbers = np.array(text.encode().split(), dtype="S15").astype(np.int64)
    if numbers.size % 2:
        raise ValueError(f"{wanted}, got {numbers.size} numbers, which make no pairs")
    if numbers.max() > math.prod(plane):
        raise ValueError(f"{numbers.max()} is past the end of {plane[0]} x {plane[1]} pixels")
    if not (numbers[1::2] > 0).all():
        raise ValueError(f"{wanted}, got a run of no pixel")
    return numbers[::2], numbers[1::2]


def _drawn(gaps: NDArray[np.int64], runs: NDArray[np.int64], plane: Plane, order: Order) -> Mask:
    """The mask of runs, each after a gap from the end of the one before it."""
    ends = np.cumsum(gaps + runs)
    flat = np.zeros(math.prod(plane), dtype=np.bool_)
    if ends.size and ends[-1] > flat.size:
        over = int(np.argmax(ends > flat.size))
        told = f"run {over + 1} ends at pixel {ends[over]}"
        raise ValueError(f"{told}, past the end of {plane[0]} x {plane[1]} pixels")
    before = np.cumsum(runs) - runs
    flat[np.arange(runs.sum()) + np.repeat(ends - runs - before, runs)] = True
    return flat.reshape(plane, order=order)
