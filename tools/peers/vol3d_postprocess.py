"""Run a chain of steps on a volume by slabs, or on a GPU: JOB_FOLDER DEVICE ANSWER.raw, lines of JSON on stdout.

The job folder holds probability.npy, image.npy and organ.npy (Z, Y, X) and job.json (spacing, steps). Each step is a
line; the last line has the seconds of all and the peak of resident memory (value, MiB). The answer is the mask, bool.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from vol3d.files.arrays import read_npy_header
from vol3d.files.raw import RawVoxels
from vol3d.files.scratch import Scratch, create_scratch
from vol3d.geometry.affine import from_spacing
from vol3d.geometry.grid import slabs
from vol3d.postprocess.steps import StoredScene, apply_in_blocks, steps_from
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
    (line,) = (row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


folder, device, answer = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
job = json.loads((folder / "job.json").read_text())
AFFINE = from_spacing(Spacing(*job["spacing"]))
probability, image, organ = (stored(folder / f"{name}.npy") for name in ("probability", "image", "organ"))
scene = StoredScene(Spacing(*job["spacing"]), ("vessel",), probability, image, organ)
masks = create_scratch(folder, shape=(1, *probability.shape), dtype=np.dtype(np.bool_), affine=AFFINE)
start = time.perf_counter()
for step in steps_from(job["steps"]):
    (report,) = apply_in_blocks(masks, [step], scene)
    told = {"step": report.step, "seconds": report.seconds, "voxels": report.voxels_after, "note": report.note}
    print(json.dumps(told), flush=True)
seconds = time.perf_counter() - start
peak = peak_mb()
with answer.open("wb") as out:
    for box in slabs(masks.shape, 16):
        out.write(masks.read(box).tobytes())
print(json.dumps({"seconds": seconds, "value": peak, "version": __version__}))
