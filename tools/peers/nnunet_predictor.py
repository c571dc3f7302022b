"""nnU-Net's own prediction: RESULTS IMAGES OUT mirror|nomirror half|single FOLD ..., JSON on stdout.

What vol3d-predict made of the same folder is compared by ``vol3d evaluate OURS OUT``. single adds windows up in float32
instead of half precision, so that what differs is not the rounding.
"""

import inspect
import json
import resource
import sys
import textwrap
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import torch
from nnunetv2.inference import predict_from_raw_data

warnings.filterwarnings("ignore")
ADDED_UP = "_internal_predict_sliding_window_return_logits"


def in_float32() -> None:
    """Give the predictor's sums another type."""
    source = textwrap.dedent(inspect.getsource(getattr(predict_from_raw_data.nnUNetPredictor, ADDED_UP)))
    source = source.replace("torch.half", "torch.float32")
    source = source.replace("value_scaling_factor=10,", "value_scaling_factor=10, dtype=torch.float32,")
    exec(source, vars(predict_from_raw_data))
    setattr(predict_from_raw_data.nnUNetPredictor, ADDED_UP, vars(predict_from_raw_data)[ADDED_UP])


results, images, out, mirrors, sums, *folds = sys.argv[1:]
if sums == "single":
    in_float32()
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
predictor = predict_from_raw_data.nnUNetPredictor(
    use_mirroring=mirrors == "mirror",
    perform_everything_on_device=device.type == "cuda",
    device=device,
    allow_tqdm=False,
)
predictor.initialize_from_trained_model_folder(results, use_folds=tuple(map(int, folds)) or None)
Path(out).mkdir(parents=True, exist_ok=True)
start = time.perf_counter()
predictor.predict_from_files_sequential(images, out)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "peak_rss_mb": peak, "version": version("nnunetv2")}))
