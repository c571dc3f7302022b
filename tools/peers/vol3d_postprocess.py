"""Run a chain of steps on a volume by slabs, or on a GPU: JOB_FOLDER DEVICE ANSWER.raw, lines of JSON on stdout.

The job folder holds probability.npy, image.npy and organ.npy (Z, Y, X) and job.json (spacing, steps). Each step is a
line; the last line has the seconds of all, those of copying the volume to the GPU among them, and the peak of memory
(value, MiB): resident, or the GPU's. The answer is the mask, bool.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np

from vol3d.files.arrays import read_npy_header
from vol3d.files.raw import RawVoxels
from vol3d.files.scratch import Scratch, create_scratch
from vol3d.geometry.affine import from_spacing
from vol3d.geometry.grid import slabs
from vol3d.postprocess.steps import StoredScene, apply_in_blocks, needs, steps_from
from vol3d.shapes import Spacing
from vol3d.version import __version__


def stored(path: Path) -> Scratch:
    """An array of the job, read where it lies."""
    with path.open("rb") as stream:
        shape, _, dtype, offset = read_npy_header(path, stream)
        voxels = RawVoxels(os.dup(stream.fileno()), name=path, shape=(1, *shape), dtype=dtype, offset=offset)
    return Scratch(voxels, AFFINE)


def peak_mb() -> float:
    """The peak of this process alone: what getrusage tells begins with that of who started it."""
    rows = [row.split() for row in Path("/proc/self/status").read_text().splitlines()]
    kib = next((row[1] for row in rows if row[0] == "VmHWM:"), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return int(kib) / 1024


folder, device, answer = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
job = json.loads((folder / "job.json").read_text())
AFFINE = from_spacing(Spacing(*job["spacing"]))
probability, image, organ = (stored(folder / f"{name}.npy") for name in ("probability", "image", "organ"))
scene = StoredScene(Spacing(*job["spacing"]), ("vessel",), probability, image, organ)
steps = steps_from(job["steps"])
start = time.perf_counter()
if device == "cpu":
    masks = create_scratch(folder, shape=(1, *probability.shape), dtype=np.dtype(np.bool_), affine=AFFINE)
else:
    import torch

    from vol3d.postprocess.tensors import TensorStore, on_device

    there = torch.device(device)
    masks = TensorStore(torch.zeros((1, *probability.shape), dtype=torch.bool, device=there), AFFINE)
    scene = on_device(scene, needs(steps), there)
    torch.cuda.synchronize()
copied = time.perf_counter() - start
for step in steps:
    (report,) = apply_in_blocks(masks, [step], scene)
    told = {"step": report.step, "seconds": report.seconds, "voxels": report.voxels_after, "note": report.note}
    print(json.dumps(told), flush=True)
seconds = time.perf_counter() - start
peak = peak_mb() if device == "cpu" else torch.cuda.max_memory_allocated() / 2**20
with answer.open("wb") as out:
    for box in slabs(masks.shape, 16):
        planes = masks.read(box)
        out.write((planes if device == "cpu" else planes.cpu().numpy()).tobytes())
print(json.dumps({"seconds": seconds, "copied": copied, "value": peak, "version": __version__}))
