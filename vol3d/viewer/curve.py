"""The learning curve of a training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.metrics.report import MEAN
from vol3d.metrics.sweep import WITHIN, Plateau, plateau

BLUE, GREY, ORANGE = "#0072b2", "#888888", "#d55e00"


def learning_curve(records: Sequence[dict[str, Any]], *, metric: str) -> NDArray[np.uint8]:
    """Loss, validation metric and thresholds against steps, and scores against thresholds, as a picture (H, W, 3).

    records are the lines of metrics.jsonl: kind "epoch" with loss, kind "validation" with the metrics and, if it
    has one, the sweep over thresholds: of Dice, or of surface Dice where the metric is of it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    epochs = [r for r in records if r["kind"] == "epoch" and r["loss"] is not None]
    validations = [r for r in records if r["kind"] == "validation" and metric in r]
    swept = "surface_dice" if metric.startswith("surface_dice") else "dice"
    figure = Figure(figsize=(12, 4.5), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left, thresholds = figure.subplots(1, 2, width_ratios=(5, 3))
    right = left.twinx()
    left.plot([r["step"] for r in epochs], [r["loss"] for r in epochs], color=GREY, label="training loss")
    _draw_plateaus(right, validations, swept)
    right.plot(
        [r["step"] for r in validations], [r[metric] for r in validations], "o-", color=BLUE, label=_told(metric)
    )
    best = max(validations, key=lambda r: float(r[metric])) if validations else None
    if best:
        right.annotate(
            f"{best[metric]:.4f}", (best["step"], best[metric]), textcoords="offset points", xytext=(0, 8), ha="center"
        )
    left.set(xlabel="step", ylabel="training loss")
    right.set(ylabel=f"validation {_told(metric)} (averaged weights); threshold", ylim=(0, 1.05))
    figure.legend(*_handles(left, right), loc="outside upper center", ncols=4, frameon=False)
    _draw_sweeps(thresholds, validations, best, swept)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _handles(*all_axes: Any) -> tuple[list[Any], list[str]]:
    found = [axes.get_legend_handles_labels() for axes in all_axes]
    return [h for handles, _ in found for h in handles], [name for _, names in found for name in names]


def _draw_plateaus(axes: Any, validations: Sequence[Mapping[str, Any]], swept: str) -> None:
    """Where the best threshold and its plateau were at each step."""
    found = [(r["step"], p) for r in validations if (p := _plateau(r, swept))]
    if not found:
        return
    steps, plateaus = [step for step, _ in found], [p for _, p in found]
    low, high = [p.low for p in plateaus], [p.high for p in plateaus]
    axes.fill_between(steps, low, high, color=ORANGE, alpha=0.15, lw=0, label=f"within {WITHIN} of it")
    axes.plot(steps, [p.threshold for p in plateaus], ".:", color=ORANGE, label="best threshold")


def _draw_sweeps(
    axes: Any, validations: Sequence[Mapping[str, Any]], best: Mapping[str, Any] | None, swept: str
) -> None:
    """The scores of the best and the last validation at every threshold, with the last one's plateau."""
    axes.set(xlabel="threshold", ylabel=f"validation {_told(swept)}", xlim=(0, 1), ylim=(0, 1.05))
    last = validations[-1] if validations else {}
    for record, style, name in ((best if best is not last else None, "--", "best"), (last, "-", "last")):
        if record and len(curve := _curve(record, swept)):
            told = f"{name}, step {record['step']}"
            axes.plot(record["sweep"]["thresholds"][swept], curve, style, color=BLUE, label=told)
    if found := _plateau(last, swept):
        axes.axvspan(found.low, found.high, color=ORANGE, alpha=0.15, lw=0)
        axes.plot([found.threshold], [found.score], "o", color=ORANGE)
        told = f"last: {found.score:.4f} at {found.threshold:g}, plateau {found.low:g} to {found.high:g}"
        axes.set_title(told, fontsize="medium")
        axes.legend(loc="lower center", frameon=False)


def _plateau(record: Mapping[str, Any], swept: str) -> Plateau | None:
    curve = _curve(record, swept)
    return plateau(record["sweep"]["thresholds"][swept], curve) if len(curve) else None


def _curve(record: Mapping[str, Any], swept: str) -> NDArray[np.float64]:
    """The mean curve of a validation; empty in logs that have none."""
    return np.array(record["sweep"][swept][MEAN] if "sweep" in record else [], dtype=np.float64)


def _told(metric: str) -> str:
    return metric.replace("_", " ")
