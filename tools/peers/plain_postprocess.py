"""The chain of vol3d_postprocess.py as plain code on whole arrays: JOB_FOLDER ANSWER.raw, lines of JSON on stdout.

SciPy, with cc3d for components where it is installed. Each step takes the fields of ours from job.json.
"""

import json
import math
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import scipy
from scipy import ndimage

try:
    import cc3d
except ModuleNotFoundError:
    cc3d = None


def label(mask):
    """Labels (26-connectivity) and voxels by label."""
    if cc3d is not None:
        labels = cc3d.connected_components(mask, connectivity=26)
    else:
        labels = ndimage.label(mask, np.ones((3, 3, 3)))[0]
    return labels, np.bincount(labels.ravel())


def kept(labels, table):
    """The components whose entry in the table is true."""
    table[0] = False
    return table[labels]


def hysteresis(_, seed_threshold, grow_threshold, min_seed_voxels):
    """Components of the lower threshold with enough seeds."""
    labels, sizes = label(probability >= grow_threshold)
    seeds = np.bincount(labels[probability >= seed_threshold], minlength=len(sizes))
    return kept(labels, seeds >= min_seed_voxels)


def size_filter(mask, min_volume_mm3):
    """Large enough components."""
    labels, sizes = label(mask)
    return kept(labels, sizes >= math.ceil(min_volume_mm3 / math.prod(spacing) - 1e-6))


def organ_gate(mask):
    """What lies in the organ."""
    return mask & organ


def fill_holes(mask):
    """Enclosed background, too."""
    return ndimage.binary_fill_holes(mask)


def largest(mask, count):
    """The largest components."""
    labels, sizes = label(mask)
    sizes[0] = 0
    table = np.zeros(len(sizes), bool)
    table[np.argsort(-sizes, kind="stable")[:count]] = True
    return kept(labels, table)


def grow_range(mask, tolerance, min_probability, within, max_growth):
    """What grey values near the mask's median join to it."""
    middle = np.median(image[mask])
    reached = (image >= middle - tolerance) & (image <= middle + tolerance)
    reached &= probability >= min_probability
    if within == "organ":
        reached &= organ
    labels, sizes = label(reached | mask)
    before = np.bincount(labels[mask], minlength=len(sizes))
    return mask | kept(labels, (before > 0) & (sizes <= max_growth * before))


def peak_mb():
    """The peak of this process alone."""
    rows = [row.split() for row in Path("/proc/self/status").read_text().splitlines()]
    kib = next((row[1] for row in rows if row[0] == "VmHWM:"), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return int(kib) / 1024


folder, answer = Path(sys.argv[1]), Path(sys.argv[2])
job = json.loads((folder / "job.json").read_text())
spacing = job["spacing"]
probability, image, organ = (np.load(folder / f"{name}.npy") for name in ("probability", "image", "organ"))
mask = np.zeros(probability.shape, bool)
start = time.perf_counter()
for step in job["steps"]:
    ((name, fields),) = step.items()
    began = time.perf_counter()
    mask = globals()[name](mask, **fields)
    seconds = time.perf_counter() - began
    print(json.dumps({"step": name, "seconds": seconds, "voxels": int(np.count_nonzero(mask))}), flush=True)
seconds = time.perf_counter() - start
peak = peak_mb()
mask.tofile(answer)
told = f"SciPy {scipy.__version__}" + ("" if cc3d is None else f" and cc3d {version('connected-components-3d')}")
print(json.dumps({"seconds": seconds, "value": peak, "version": told}))
