"""Time our own sliding window as its peers are timed: JOB_FOLDER PRECISION ANSWER.npy, JSON on stdout.

The job folder holds network.pt (a module), volume.npy (C, Z, Y, X) float32 and job.json (window, overlap,
repeats). value is the peak of resident memory, MiB; forward is the seconds of as many forwards alone. A second
answer, ANSWER.nnunet.npy, has nnU-Net's windows and weights, to compare masks with it.
"""

import json
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from vol3d.geometry.affine import from_spacing
from vol3d.inference.inferencer import Inferencer
from vol3d.shapes import Shape3, Spacing
from vol3d.tasks.forward import Forwards, Wish
from vol3d.version import __version__
from vol3d.volume.source import ArraySource


def decided(logits: torch.Tensor) -> np.ndarray:
    """Label values of logits (K, z, y, x); a single channel is sigmoid's."""
    return (logits[0] > 0 if len(logits) == 1 else logits.argmax(0)).to(torch.uint8).cpu().numpy()


folder, precision, answer = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
job = json.loads((folder / "job.json").read_text())
device = torch.device(job["device"])
network = torch.load(folder / "network.pt", weights_only=False).eval()
source = ArraySource(np.load(folder / "volume.npy"), from_spacing(Spacing(1.0, 1.0, 1.0)))
window = Shape3(*job["window"])
forwards = Forwards((device,))
form = forwards.form(network, source.channels, window, Wish(precision), passes=10**3)
forward = forwards.of(network, form)
walk = Inferencer(forward, (0.0,) * job["channels"], window, job["overlap"], form.batch, device)
grid = walk.grid(source.shape)
windows = torch.from_numpy(source.array)[None, :, : window.z, : window.y, : window.x]
windows = windows.expand(form.batch, -1, -1, -1, -1).contiguous().to(device)
seconds, alone = [], []
with torch.inference_mode():
    forward(windows)
    for _ in range(job["repeats"]):
        start = time.perf_counter()
        # Decided slab by slab, as a prediction does; the peers hand out probabilities, which costs them no more.
        labels = np.concatenate([decided(slab) for _, slab in walk.slabs(source)])
        seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
        for _ in range(-(-grid.count // form.batch)):
            forward(windows)
        if device.type == "cuda":
            torch.cuda.synchronize()
        alone.append((time.perf_counter() - start) * grid.count / (-(-grid.count // form.batch) * form.batch))
    even = replace(walk, stride="even", blend="nnunet")
    as_nnunet = np.concatenate([decided(slab) for _, slab in even.slabs(source)])
np.save(answer, labels)
np.save(answer.with_suffix(".nnunet.npy"), as_nnunet)
told = f"{__version__} ({form.precision}, batch {form.batch}{', compiled' if form.compiled else ''})"
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "forward": alone, "value": peak, "windows": grid.count, "version": told}))
