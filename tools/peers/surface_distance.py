"""Time DeepMind's surface Dice at tolerance 0: PREDICTION.npy REFERENCE.npy Z Y X REPEATS, JSON on stdout.

Its own package has this file's name: the folder of this script must not be searched first.
"""

import json
import sys
import time
from importlib.metadata import version

sys.path.pop(0)

import numpy as np
import surface_distance

masks = [np.load(path) > 0 for path in sys.argv[1:3]]
prediction, reference = (mask.reshape(mask.shape[-3:]) for mask in masks)
spacing = [float(step) for step in sys.argv[3:6]]
seconds = []
for _ in range(int(sys.argv[6]) + 1):
    start = time.perf_counter()
    distances = surface_distance.compute_surface_distances(reference, prediction, spacing)
    score = surface_distance.compute_surface_dice_at_tolerance(distances, 0.0)
    seconds.append(time.perf_counter() - start)
print(json.dumps({"seconds": seconds[1:], "value": float(score), "version": version("surface-distance")}))
