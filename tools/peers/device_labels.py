"""Time the components (26) of masks on a GPU, ours and CuPy's where it is: MASK.npy ... REPEATS, JSON on stdout.

Each mask is (Z, Y, X) bool. rows has for each of them the seconds of both, and by how many components and pairs of
labels the two partitions differ: none, where they are the same.
"""

import json
import sys
import time

import numpy as np
import torch

from vol3d.regions.components import label
from vol3d.version import __version__

try:
    import cupy
    from cupyx.scipy import ndimage
except ModuleNotFoundError:
    cupy = None


def measured(work, repeats):
    """Its seconds after a warm-up, and what it gives."""
    seconds = []
    for _ in range(repeats + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        found = work()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds[1:], found


def by_cupy(mask):
    """CuPy's labels of a tensor, and how many there are; its work is done when they come."""
    labels, count = ndimage.label(cupy.from_dlpack(mask.view(torch.uint8)), cupy.ones((3, 3, 3), dtype=bool))
    cupy.cuda.get_current_stream().synchronize()
    return labels, int(count)


def differing(mask, ours, theirs):
    """By how many labels two partitions differ."""
    (one, count), (labels, other) = ours, theirs
    pairs = one[mask].long() * (other + 1) + torch.from_dlpack(labels)[mask].long()
    paired = len(torch.unique(pairs))
    return abs(paired - count) + abs(paired - other)


*paths, repeats = sys.argv[1:]
rows = []
for path in paths:
    mask = torch.from_numpy(np.load(path)).cuda()
    seconds, found = measured(lambda mask=mask: label(mask), int(repeats))
    row = {"ours": seconds, "count": found.count, "peer": None, "differ": None}
    if cupy is not None:
        row["peer"], theirs = measured(lambda mask=mask: by_cupy(mask), int(repeats))
        row["differ"] = differing(mask, (found.labels, found.count), theirs)
        del theirs
        cupy.get_default_memory_pool().free_all_blocks()
    rows.append(row)
    del mask, found
print(json.dumps({"rows": rows, "version": __version__, "peer": cupy and f"CuPy {cupy.__version__} ndimage.label"}))
