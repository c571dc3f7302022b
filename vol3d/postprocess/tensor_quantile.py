"""How often digits occur in the order of a tensor's floats, counted where it lies."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

VALUES_AT_ONCE = 1 << 25  # 40 bytes each


def digit_counts(
    values: Tensor, shift: int, begins: Sequence[int], *, wide: bool, bits: int
) -> list[NDArray[np.int64]] | None:
    """How often each digit of some bits follows each beginning; None where a value is NaN.

    The digit begins shift bits from the end of a value's key, the whole number of 64 bits (wide) or 32 that
    stands where the float stands in the order of all floats.
    """
    counts = [torch.zeros(1 << bits, dtype=torch.int64, device=values.device) for _ in begins]
    above = (64 if wide else 32) - shift - bits
    for start in range(0, values.numel(), VALUES_AT_ONCE):
        floats = values[start : start + VALUES_AT_ONCE].to(torch.float64 if wide else torch.float32)
        if floats.isnan().any():
            return None
        keys = _keys(floats).long() >> shift
        digits, tops = keys & ((1 << bits) - 1), (keys >> bits) & ((1 << above) - 1)
        for count, begin in zip(counts, begins, strict=True):
            count += torch.bincount(digits[tops == begin], minlength=1 << bits)
    return [count.cpu().numpy() for count in counts]


def _keys(floats: Tensor) -> Tensor:
    """Whole numbers whose bits, read without a sign, are in the order of the floats."""
    signed = (floats + 0.0).view(torch.int64 if floats.dtype == torch.float64 else torch.int32)  # -0 becomes 0
    return torch.where(signed < 0, ~signed, signed ^ torch.iinfo(signed.dtype).min)
