"""Figures of a data set: where its cases lie in what was measured, and how their labels look, as RGB arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.viewer.legend import Colour

RGB = NDArray[np.uint8]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444")  # Okabe and Ito
JITTER = 0.28
COLUMNS = 3
MOST_SHOWN = 10
"""Columns of a panel; more have no room for their names."""


@dataclass(frozen=True)
class Panel:
    """Values by column and source: ``{"z": {"siteA": [36, 40]}}``; on a logarithmic axis where they span a lot."""

    title: str
    values: Mapping[str, Mapping[str, Sequence[float]]]


def panels(them: Sequence[Panel], sources: Sequence[str]) -> RGB:
    """One dot per case, three panels in a row, each source in a colour of its own, a line at each median."""
    from matplotlib.figure import Figure

    rows = -(-len(them) // COLUMNS)
    figure = Figure(figsize=(13, 3.9 * rows), dpi=100, layout="constrained")
    rng = np.random.default_rng(0)  # the same picture every time
    for number, panel in enumerate(them):
        axes = figure.add_subplot(rows, COLUMNS, number + 1)
        _draw(axes, panel, sources, rng)
    if len(sources) > 1:
        handles = [
            figure.axes[0].plot([], [], "o", color=COLOURS[n % len(COLOURS)], label=source)[0]
            for n, source in enumerate(sources)
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=min(7, len(sources)), frameon=False)
    return _rgb(figure)


def _draw(axes: Any, panel: Panel, sources: Sequence[str], rng: np.random.Generator) -> None:
    columns = list(panel.values)[:MOST_SHOWN]
    everything: list[float] = []
    for place, column in enumerate(columns):
        of_column = [v for values in panel.values[column].values() for v in values]
        everything += of_column
        for number, source in enumerate(sources):
            values = panel.values[column].get(source, ())
            x = place + JITTER * rng.uniform(-1, 1, len(values))
            axes.plot(x, values, "o", color=COLOURS[number % len(COLOURS)], markersize=4, alpha=0.55, markeredgewidth=0)
        if of_column:
            median = float(np.median(of_column))
            axes.plot([place - 0.38, place + 0.38], [median, median], color="black", linewidth=1.5)
    left_out = len(panel.values) - len(columns)
    axes.set_title(panel.title + (f" (first {MOST_SHOWN} of {len(panel.values)})" if left_out else ""), fontsize=10)
    axes.set_xticks(range(len(columns)), [column[:24] for column in columns])
    if sum(len(column) for column in columns) > 36:
        axes.tick_params(axis="x", rotation=30)
    axes.set_xlim(-0.6, len(columns) - 0.4)
    axes.grid(axis="y", color="#dddddd")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if all(v == round(v) for v in everything):
        axes.yaxis.get_major_locator().set_params(integer=True)
    positive = [v for v in everything if v > 0]
    if positive and max(positive) > 30 * min(positive) and len(positive) == len(everything):
        axes.set_yscale("log")
    elif everything and min(everything) >= 0:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}")


@dataclass(frozen=True)
class Slice:
    """A plane of a case: grey values (Y, X), masks of regions (regions, Y, X), and how tall a pixel is to its width.

    up says whether y grows upwards, as it does in a body, or downwards, as in pictures.
    """

    name: str
    grey: NDArray[Any]
    masks: NDArray[np.bool_]
    aspect: float
    up: bool


def slices(them: Sequence[Slice], regions: Mapping[str, Colour]) -> RGB:
    """Planes in rows of four, black and white between their 1st and 99.5th percentile, regions outlined."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    across = min(4, len(them))
    rows = -(-len(them) // across)
    figure = Figure(figsize=(3.25 * across, 3.4 * rows + 0.4), dpi=100, layout="constrained")
    colours = [tuple(part / 255 for part in colour) for colour in regions.values()]
    for number, one in enumerate(them):
        axes = figure.add_subplot(rows, across, number + 1)
        low, high = np.percentile(one.grey, [1, 99.5])
        axes.imshow(one.grey, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=one.aspect)
        for mask, colour in zip(one.masks, colours, strict=True):
            if mask.any():
                place = np.arange(-1.0, max(mask.shape) + 1)
                x, y = place[: mask.shape[1] + 2], place[: mask.shape[0] + 2]
                axes.contour(x, y, np.pad(mask, 1), levels=[0.5], colors=[colour], linewidths=1.2)
        ends = (-0.5, one.grey.shape[0] - 0.5)
        axes.set(xlim=(-0.5, one.grey.shape[1] - 0.5), ylim=ends if one.up else ends[::-1])
        axes.set_title(one.name[:32], fontsize=9, parse_math=False)
        axes.set_axis_off()
    shown = list(zip(regions, colours, strict=True))[:MOST_SHOWN]
    handles = [Line2D([], [], color=colour, label=name) for name, colour in shown]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(7, len(handles)), frameon=False)
    return _rgb(figure)


def _rgb(figure: Any) -> RGB:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
