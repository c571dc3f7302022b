"""The exact median, quantiles and values of any rank, of values that need not fit in memory."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.postprocess.tensor_quantile import digit_counts

VALUES_AT_ONCE = 1 << 20
_DIGIT = 16  # bits that one pass tells
_DIGITS = 1 << _DIGIT

Counts = dict[int, NDArray[np.int64]]

Pieces = Callable[[], Iterable[Any]]
"""Gives the values, the same at every call, as arrays or as tensors, whose digits are counted where they lie."""


def streamed_median(values: Pieces, dtype: np.dtype[Any]) -> float:
    """The median, NumPy's in float64, of the arrays of this dtype that values gives.

    Values that float32 holds are gone through twice, others four times. Without a value, or with one that
    is NaN, the median is NaN.
    """
    return sum(streamed_ranks(values, dtype, lambda total: [(total - 1) // 2, total // 2])) / 2


def streamed_quantiles(values: Pieces, dtype: np.dtype[Any], shares: Sequence[float]) -> list[float]:
    """For each share in [0, 1] the least value that so large a share of the values does not exceed; NaN as above.

    It is one of the values (NumPy's method "inverted_cdf"); the share 0 gives the smallest.
    """
    # The product may be above a whole number by its rounding alone.
    return streamed_ranks(
        values, dtype, lambda total: [max(0, math.ceil(share * total - 1e-6) - 1) for share in shares]
    )


def streamed_ranks(values: Pieces, dtype: np.dtype[Any], ranks: Callable[[int], Sequence[int]]) -> list[float]:
    """The values of some ranks, 0 that of the smallest; ranks says which of how many. NaN as above."""
    kind = np.result_type(dtype, np.float32)
    first = 8 * kind.itemsize - _DIGIT
    counts = _digits(values(), kind, first, [0])
    left = list(ranks(int(counts[0].sum())))
    begins = [0] * len(left)
    # Every pass finds one digit more of each: among the values that begin with those known so far.
    for shift in range(first, -1, -_DIGIT):
        counts = counts if shift == first else _digits(values(), kind, shift, begins)
        if not any(count.any() for count in counts.values()):
            return [math.nan] * len(left)
        for n, (begin, rank) in enumerate(zip(begins, left, strict=True)):
            below = counts[begin].cumsum()
            digit = int(np.searchsorted(below, rank, side="right"))
            begins[n], left[n] = begin * _DIGITS + digit, rank - (int(below[digit - 1]) if digit else 0)
    return [_value(key, kind) for key in begins]


def _digits(pieces: Iterable[Any], kind: np.dtype[Any], shift: int, begins: Sequence[int]) -> Counts:
    """How often each digit follows each beginning; no digit at all where a value is NaN."""
    counts: Counts = {begin: np.zeros(_DIGITS, dtype=np.int64) for begin in begins}
    for piece in pieces:
        found = (
            _digits_of(piece, kind, shift, list(counts))
            if isinstance(piece, np.ndarray)
            else digit_counts(piece, shift, list(counts), wide=kind.itemsize == 8, bits=_DIGIT)
        )
        if found is None:
            return {begin: np.zeros(_DIGITS, dtype=np.int64) for begin in begins}
        for count, more in zip(counts.values(), found, strict=True):
            count += more
    return counts


def _digits_of(
    piece: NDArray[Any], kind: np.dtype[Any], shift: int, begins: Sequence[int]
) -> list[NDArray[np.int64]] | None:
    counts = [np.zeros(_DIGITS, dtype=np.int64) for _ in begins]
    for start in range(0, piece.size, VALUES_AT_ONCE):
        part = piece[start : start + VALUES_AT_ONCE].astype(kind)
        if np.isnan(part).any():
            return None
        tops, digits = np.divmod(_keys(part) >> np.uint64(shift), np.uint64(_DIGITS))
        for count, begin in zip(counts, begins, strict=True):
            count += np.bincount(digits[tops == begin].astype(np.int64), minlength=_DIGITS)
    return counts


def _keys(values: NDArray[Any]) -> NDArray[np.uint64]:
    """Whole numbers in the order of the floats: the sign bit set for positive ones, all bits turned for the others."""
    bits = (values + values.dtype.type(0)).view(f"u{values.itemsize}")  # -0 becomes 0
    sign = bits.dtype.type(1 << (8 * values.itemsize - 1))
    keys: NDArray[np.uint64] = np.where(bits & sign, ~bits, bits | sign).astype(np.uint64)
    return keys


def _value(key: int, kind: np.dtype[Any]) -> float:
    """The float of a key."""
    sign = 1 << (8 * kind.itemsize - 1)
    bits = key ^ sign if key & sign else key ^ (2 * sign - 1)
    return float(np.array(bits, dtype=f"u{kind.itemsize}").view(kind))
