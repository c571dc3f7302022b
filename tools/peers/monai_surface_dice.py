"""Time MONAI's surface Dice at tolerance 0: PREDICTION.npy REFERENCE.npy Z Y X REPEATS, JSON on stdout."""

import json
import sys
import time
import warnings

import monai
import numpy as np
import torch
from monai.metrics import compute_surface_dice

warnings.filterwarnings("ignore")
masks = [np.load(path) > 0 for path in sys.argv[1:3]]
prediction, reference = (torch.from_numpy(mask.reshape(1, 1, *mask.shape[-3:])) for mask in masks)
spacing = [float(step) for step in sys.argv[3:6]]
seconds = []
for _ in range(int(sys.argv[6]) + 1):
    start = time.perf_counter()
    score = compute_surface_dice(
        prediction, reference, [0.0], include_background=True, spacing=spacing, use_subvoxels=True
    )
    seconds.append(time.perf_counter() - start)
print(json.dumps({"seconds": seconds[1:], "value": float(score), "version": monai.__version__}))
