"""Scores over a grid of two settings as a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST = 12
"""Maps in one picture; of more the first."""


@dataclass(frozen=True)
class HeatMap:
    """values (rows, columns), NaN where there is none; a place in them, and the cells to outline around it.

    rows and columns are an axis's name and the words of its ladder.
    """

    values: NDArray[np.float64]
    outlined: NDArray[np.bool_]
    place: tuple[int, int]
    rows: tuple[str, tuple[str, ...]]
    columns: tuple[str, tuple[str, ...]]
    title: str


def heat_maps(maps: Sequence[HeatMap]) -> NDArray[np.uint8]:
    """The maps beside each other, as a picture (H, W, 3): brighter is higher, the place is a ring."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = maps[:MOST]
    across = min(len(shown), 3)
    down = ceil(len(shown) / across)
    figure = Figure(figsize=(6.5 * across, 4.2 * down), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(down, across, squeeze=False).reshape(-1)
    for axes, one in zip(panels, shown, strict=False):
        _draw(axes, figure, one)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw(axes: Any, figure: Any, one: HeatMap) -> None:
    low, high = np.nanmin(one.values), np.nanmax(one.values)
    # What is far below the best need not be told apart: the colours are for what is near it.
    low = max(low, high - 4 * (high - np.nanmedian(one.values)))
    image = axes.imshow(one.values, origin="lower", aspect="auto", cmap="viridis", vmin=low, vmax=high)
    figure.colorbar(image, ax=axes)
    axes.set_facecolor("0.85")
    for row, column in np.argwhere(one.outlined):
        for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            beyond = row + dy, column + dx
            inside = all(0 <= at < n for at, n in zip(beyond, one.outlined.shape, strict=True))
            if not (inside and one.outlined[beyond]):
                y, x = row + dy / 2, column + dx / 2  # the middle of the edge between the two
                axes.plot([x - abs(dy) / 2, x + abs(dy) / 2], [y - abs(dx) / 2, y + abs(dx) / 2], color="white", lw=1.6)
    axes.plot(one.place[1], one.place[0], "o", mfc="none", mec="#d55e00", mew=2.5, ms=11)
    best = one.values[one.place]
    axes.set_title(f"{one.title}\n{best:.4f} at the ring; the outline is its plateau", fontsize="medium")
    for (name, ladder), ticks, say in (
        (one.rows, axes.set_yticks, axes.set_ylabel),
        (one.columns, axes.set_xticks, axes.set_xlabel),
    ):
        ticks(range(len(ladder)), ladder)
        say(name)
    axes.tick_params(axis="x", labelrotation=90)
