"""Time MONAI's sliding_window_inference: JOB_FOLDER PRECISION ANSWER.npy, JSON on stdout; see vol3d_inferer.py.

float32 is as it is shipped; bfloat16 adds autocast and channels_last_3d, which its users can, too. The answer, not
the time, is with the Gaussian that is not cut off at a thousandth of its largest value: the rims of windows, which
MONAI lifts so, are a matter of taste, and what is to be compared is the rest.
"""

import contextlib
import json
import resource
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the pickled network's code

import monai
import numpy as np
import torch
from monai.inferers import sliding_window_inference

warnings.filterwarnings("ignore")
folder, precision, answer = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
job = json.loads((folder / "job.json").read_text())
device = torch.device(job["device"])
network = torch.load(folder / "network.pt", weights_only=False).eval().to(device)
volume = torch.from_numpy(np.load(folder / "volume.npy"))[None].to(device)
half = precision == "bfloat16"


def decided(logits: torch.Tensor) -> np.ndarray:
    """Label values of logits (K, z, y, x); a single channel is sigmoid's."""
    return (logits[0] > 0 if len(logits) == 1 else logits.argmax(0)).to(torch.uint8).cpu().numpy()


def forward(windows: torch.Tensor) -> torch.Tensor:
    """Logits in float32, computed in the precision that was asked for."""
    context = torch.autocast(device.type, dtype=torch.bfloat16) if half else contextlib.nullcontext()
    with context:
        logits = network(windows.contiguous(memory_format=torch.channels_last_3d) if half else windows)
    return logits.float()


def predicted(**how: object) -> np.ndarray:
    """Label values of the whole volume."""
    window, overlap = job["window"], job["overlap"]
    return decided(sliding_window_inference(volume, window, job["batch"], forward, overlap=overlap, **how)[0])


seconds = []
with torch.inference_mode():
    forward(volume[:, :, : job["window"][0], : job["window"][1], : job["window"][2]])
    for _ in range(job["repeats"]):
        start = time.perf_counter()
        predicted(mode="gaussian")
        seconds.append(time.perf_counter() - start)
    curves = [torch.exp(-0.5 * ((torch.arange(n) - (n - 1) / 2) / (n / 8)) ** 2) for n in job["window"]]
    labels = predicted(roi_weight_map=torch.einsum("z,y,x->zyx", *curves).to(device))
np.save(answer, labels)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "value": peak, "version": monai.__version__}))
