"""Time nnU-Net's predictor on a network of ours: JOB_FOLDER PRECISION ANSWER.npy, JSON on stdout; see vol3d_inferer.py.

As it is shipped, without mirrors: windows evenly spread, logits in half precision where it has them so.
"""

import json
import resource
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parents[2]))  # the pickled network's code

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

warnings.filterwarnings("ignore")


def decided(logits: torch.Tensor) -> np.ndarray:
    """Label values of logits (K, z, y, x); a single channel is sigmoid's."""
    return (logits[0] > 0 if len(logits) == 1 else logits.argmax(0)).to(torch.uint8).cpu().numpy()


folder, answer = Path(sys.argv[1]), Path(sys.argv[3])
job = json.loads((folder / "job.json").read_text())
device = torch.device(job["device"])
predictor = nnUNetPredictor(
    tile_step_size=1 - job["overlap"],
    use_gaussian=True,
    use_mirroring=False,
    perform_everything_on_device=True,
    device=device,
    verbose=False,
    allow_tqdm=False,
)
predictor.network = torch.load(folder / "network.pt", weights_only=False).eval().to(device)
predictor.configuration_manager = SimpleNamespace(patch_size=job["window"])
predictor.label_manager = SimpleNamespace(num_segmentation_heads=job["channels"])
predictor.allowed_mirroring_axes = None
volume = torch.from_numpy(np.load(folder / "volume.npy"))
window = job["window"]
with torch.inference_mode():
    predictor.network(volume[None, :, : window[0], : window[1], : window[2]].to(device))
seconds = []
for _ in range(job["repeats"]):
    start = time.perf_counter()
    labels = decided(predictor.predict_sliding_window_return_logits(volume))
    seconds.append(time.perf_counter() - start)
np.save(answer, labels)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "value": peak, "version": version("nnunetv2")}))
