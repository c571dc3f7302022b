"""The learning curve of a training."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def learning_curve(records: Sequence[dict[str, Any]], *, metric: str) -> NDArray[np.uint8]:
    """Loss and validation metric against steps as an RGB picture (H, W, 3).

    records are the lines of metrics.jsonl: kind "epoch" with loss, kind "validation" with the metrics.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left = figure.add_subplot()
    right = left.twinx()
    epochs = [r for r in records if r["kind"] == "epoch" and r["loss"] is not None]
    validations = [r for r in records if r["kind"] == "validation" and metric in r]
    left.plot([r["step"] for r in epochs], [r["loss"] for r in epochs], color="#888888", label="training loss")
    right.plot([r["step"] for r in validations], [r[metric] for r in validations], "o-", color="#0072b2", label=metric)
    if validations:
        best = max(validations, key=lambda r: float(r[metric]))
        right.annotate(
            f"{best[metric]:.4f}", (best["step"], best[metric]), textcoords="offset points", xytext=(0, 8), ha="center"
        )
    left.set(xlabel="step", ylabel="training loss")
    right.set(ylabel=f"validation {metric.replace('_', ' ')} (averaged weights)", ylim=(0, 1.05))
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
