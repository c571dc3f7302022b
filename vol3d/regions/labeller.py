"""Connected components on a CUDA device: union-find over the runs of foreground along x.

The mask is read once and packed into bits; from there on empty stretches cost a bit per voxel, and
runs, not voxels, are joined. What a component is numbered does not hang on the order of the work.
"""

from itertools import product

import torch
from torch import Tensor

from vol3d.regions.components import Connectivity

_STEPS = {6: 1, 18: 2, 26: 3}  # by how many axes neighbours may differ
_GREY = (torch.uint8, torch.int8, torch.int16, torch.uint16, torch.float16, torch.float32)

# Words, or runs, for each program. Where lanes wait for each other a program is one warp.
_PACKED, _JOINED, _NAMED, _PAINTED = 64, 32, 64, 64


def label_on_device(
    mask: Tensor, connectivity: Connectivity, grey: Tensor | None = None, tolerance: float | None = None
) -> tuple[Tensor, int]:
    """The components of a (Z, Y, X) bool mask: their labels, (Z, Y, X) int32, and how many there are.

    0 is background; components are 1 to count in the order of their first voxels. With grey, (Z, Y, X),
    neighbours are of one component only where their values differ by tolerance at most: integers of 8 or
    16 bits exactly, floats in float32, the difference rounded to float32 and so is tolerance. A value that
    is not a number is like no other.

    Raises:
        ValueError: the mask is not a three-dimensional bool tensor or has 2^31 voxels or more; connectivity
            is not 6, 18 or 26; grey has another shape, device or type; tolerance is negative, or one of
            the two is missing.
    """
    _check(mask, connectivity, grey, tolerance)
    with torch.cuda.device(mask.get_device()):
        return _labels(mask.contiguous(), connectivity, *_graded(grey, tolerance))


def _check(mask: Tensor, connectivity: Connectivity, grey: Tensor | None, tolerance: float | None) -> None:
    if mask.ndim != 3 or mask.dtype != torch.bool:
        raise ValueError(f"expected a (Z, Y, X) bool mask, got {mask.dtype} of shape {tuple(mask.shape)}")
    if connectivity not in _STEPS:
        raise ValueError(f"connectivity must be 6, 18 or 26, got {connectivity}")
    if mask.numel() >= 2**31:
        raise ValueError(f"expected a mask of fewer than 2^31 voxels, got {mask.numel()}: label it slab by slab")
    if (grey is None) != (tolerance is None):
        raise ValueError("grey and tolerance belong together: give both or neither")
    if grey is None or tolerance is None:
        return
    if grey.shape != mask.shape or grey.device != mask.device or grey.dtype not in _GREY:
        kinds = ", ".join(str(kind).removeprefix("torch.") for kind in _GREY)
        raise ValueError(
            f"expected grey of shape {tuple(mask.shape)} on {mask.device}, one of {kinds}, "
            f"got {grey.dtype} of shape {tuple(grey.shape)} on {grey.device}"
        )
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be 0 or more, got {tolerance}")


def _graded(grey: Tensor | None, tolerance: float | None) -> tuple[Tensor | None, float]:
    """Grey in rows without gaps, and the tolerance as the kernels compare: for integers an integer."""
    if grey is None or tolerance is None:
        return None, 0
    return grey.contiguous(), float(tolerance) if grey.is_floating_point() else int(min(tolerance, 2**16))


def _labels(mask: Tensor, connectivity: Connectivity, grey: Tensor | None, tolerance: float) -> tuple[Tensor, int]:
    from vol3d.regions import run_kernels

    labels = torch.zeros(mask.shape, dtype=torch.int32, device=mask.device)
    if not mask.numel():
        return labels, 0
    height, width = mask.shape[1:]
    row_words = -(-width // 32)
    words = mask.shape[0] * height * row_words
    bits, starts, counts = (torch.empty(words, dtype=torch.int32, device=mask.device) for _ in range(3))
    voxels = mask.view(torch.uint8)
    values = voxels if grey is None else grey  # without grey no kernel looks
    how = {"graded": grey is not None, "floating": values.is_floating_point()}
    run_kernels.pack[-(-words // _PACKED),](
        voxels, values, tolerance, bits, starts, counts, words, row_words, width, **how, size=_PACKED
    )
    ends = counts.cumsum(0, dtype=torch.int32)
    active = bits.nonzero()
    actives, runs = len(active), int(ends[-1])
    if not actives:
        return labels, 0
    # Every run its own root.
    parents = torch.arange(runs, dtype=torch.int32, device=mask.device)
    for dz, dy, dx in _rows_before(connectivity):
        run_kernels.join[-(-actives // _JOINED),](
            active, bits, starts, ends, values, tolerance, parents, actives, row_words, height, width, dz, dy, dx,
            **how, size=_JOINED, num_warps=1,
        )  # fmt: skip
    ranks = (parents == torch.arange(runs, dtype=torch.int32, device=mask.device)).cumsum(0, dtype=torch.int32)
    names = torch.empty_like(parents)
    run_kernels.name[-(-runs // _NAMED),](parents, ranks, names, runs, size=_NAMED, num_warps=1)
    run_kernels.paint[-(-actives // _PAINTED),](
        active, bits, starts, ends, names, labels, actives, row_words, width, size=_PAINTED
    )
    return labels, int(ranks[-1])


def _rows_before(connectivity: Connectivity) -> list[tuple[int, int, int]]:
    """The neighbours (dz, dy, dx) of a voxel in the rows before its own: straight ones before slanting ones."""
    near = [step for step in product((-1, 0), (-1, 0, 1), (-1, 0, 1)) if step[:2] < (0, 0)]
    return sorted((s for s in near if sum(map(abs, s)) <= _STEPS[connectivity]), key=lambda s: (abs(s[2]), s))
