"""A dark page measured in pixels from its top left: legend at its head, scale bar and footnotes at its foot."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import floor, log10
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from vol3d.viewer.legend import Colour, Legend

MARGIN: Final = 24
BACKGROUND: Final[Colour] = (16, 18, 22)
INK: Final[Colour] = (242, 242, 242)
FAINT: Final[Colour] = (165, 170, 180)
TITLE, BODY, SMALL = 24, 19, 15  # heights of letters in pixels
LINE = 1.7  # from one line of text to the next, in letter heights
LEAST_WIDTH = 640

Box = tuple[int, int, int, int]
"""left, top, width, height"""


@dataclass(frozen=True)
class _Item:
    """A word group of the header or footer with the mark before it."""

    text: str
    mark: Literal["none", "square", "line", "bar"] = "none"
    mark_width: int = 0
    colour: Colour = INK
    ink: Colour = INK
    size: int = BODY

    @property
    def width(self) -> float:
        return text_width(self.text, self.size) + (self.mark_width + 9 if self.mark != "none" else 0)


class Page:
    """Room for content of width x height pixels between a header and a footer.

    Boxes are given from the page's left edge; content begins at ``top``. scale, in pixels per
    millimetre, asks for a scale bar; outlines are named beside the legend's entries.
    """

    def __init__(
        self,
        width: int,
        height: int,
        legend: Legend,
        *,
        scale: float | None = None,
        outlines: Sequence[tuple[str, Colour]] = (),
    ) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.width = max(width, LEAST_WIDTH)
        self._shift = (self.width - width) // 2
        room = self.width - 2 * MARGIN
        head = [[_Item(_shortened(legend.title, room, TITLE), size=TITLE)]]
        head += _flow(_head_items(legend, outlines), room)
        foot = _flow(_foot_items(legend, scale, room), room)
        self.top = round(1.5 * MARGIN + sum(row[0].size * LINE for row in head))
        end_of_content = self.top + height
        total = round(end_of_content + sum(row[0].size * LINE for row in foot) + (MARGIN * 0.75 if foot else 0))
        # One axes over the whole page, in pixels. At 72 dpi a point, too, is a pixel.
        self._figure = Figure(figsize=(self.width / 72, total / 72), dpi=72, facecolor=_unit(BACKGROUND))
        FigureCanvasAgg(self._figure)
        self._axes = self._figure.add_axes((0.0, 0.0, 1.0, 1.0))
        self._axes.set(xlim=(0, self.width), ylim=(total, 0), autoscale_on=False)
        self._axes.set_axis_off()
        self._rows(head, MARGIN / 2)
        self._rows(foot, end_of_content)

    def image(self, picture: NDArray[np.uint8], box: Box, *, border: bool = False) -> None:
        """An RGB or RGBA picture stretched over the box; shrunk smoothly, but enlarged voxels stay sharp."""
        from matplotlib.patches import Rectangle

        left, top, width, height = box
        left += self._shift
        extent = (left, left + width, top + height, top)
        self._axes.imshow(picture, extent=extent, aspect="auto", interpolation="auto", zorder=2)
        if border:
            edge = Rectangle((left - 0.5, top - 0.5), width + 1, height + 1, fill=False, edgecolor="#3a3f4a", zorder=3)
            self._axes.add_patch(edge)

    def outline(self, mask: NDArray[np.bool_], box: Box, colour: Colour, width: float) -> None:
        """The border of a (Y, X) mask that fills the box, halfway between the voxels in and out of it."""
        if not mask.any():
            return
        left, top, *size = box
        across, down = (size[axis] / mask.shape[1 - axis] for axis in (0, 1))
        # One voxel of background around it closes the lines at the rim.
        x = left + self._shift + (np.arange(-1, mask.shape[1] + 1) + 0.5) * across
        y = top + (np.arange(-1, mask.shape[0] + 1) + 0.5) * down
        self._axes.contour(x, y, np.pad(mask, 1), levels=[0.5], colors=[_unit(colour)], linewidths=width, zorder=4)

    def text(self, x: float, y: float, text: str, *, ink: Colour = FAINT, size: int = SMALL) -> None:
        """A line of text whose baseline starts at x, y."""
        weight = "bold" if size == TITLE else "normal"
        self._axes.text(
            x + self._shift, y, text, color=_unit(ink), fontsize=size, weight=weight, parse_math=False, zorder=5
        )

    def rgb(self) -> NDArray[np.uint8]:
        """The page as an (H, W, 3) picture."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")  # a file name in a script the font lacks
            self._figure.canvas.draw()
        pixels: Any = self._figure.canvas
        return np.asarray(pixels.buffer_rgba())[..., :3].copy()

    def _rows(self, rows: list[list[_Item]], y: float) -> None:
        from matplotlib.patches import Rectangle

        for row in rows:
            y += row[0].size * LINE
            x = float(MARGIN - self._shift)
            for item in row:
                middle = y - item.size * 0.36
                if item.mark != "none":
                    thick = {"square": item.size * 0.85, "line": 4, "bar": 3}[item.mark]
                    place = (x + self._shift, middle - thick / 2)
                    self._axes.add_patch(Rectangle(place, item.mark_width, thick, color=_unit(item.colour), zorder=5))
                    self.text(x + item.mark_width + 9, y, item.text, ink=item.ink, size=item.size)
                else:
                    self.text(x, y, item.text, ink=item.ink, size=item.size)
                x += item.width + item.size * 1.5


def _head_items(legend: Legend, outlines: Sequence[tuple[str, Colour]]) -> list[_Item]:
    return [
        *(_Item(f"{e.name}  {e.voxels:,}", "square", round(BODY * 0.85), e.colour) for e in legend.entries),
        *(_Item(f"{name} outline", "line", 26, colour) for name, colour in outlines),
        *(_Item(remark) for remark in legend.remarks),
    ]


def _foot_items(legend: Legend, scale: float | None, room: int) -> list[_Item]:
    items = []
    if scale is not None:
        length, name = scale_bar(room / 5 / scale)
        items.append(_Item(name, "bar", max(1, round(length * scale)), INK, INK, SMALL))
    return items + [_Item(_shortened(line, room, SMALL), ink=FAINT, size=SMALL) for line in legend.footnotes]


def scale_bar(at_most_mm: float) -> tuple[float, str]:
    """The longest of 1, 2, 5, 10, ... that is not longer, in millimetres, and its name.

    >>> scale_bar(0.07)
    (0.05, '50 µm')
    """
    power = floor(log10(at_most_mm))
    step = next(n for n in (5, 2, 1) if n * 10.0**power <= at_most_mm * (1 + 1e-9) or n == 1)
    length = float(f"{step}e{power}")
    for unit, name in ((1.0, "mm"), (1e-3, "µm")):
        if length >= unit:
            return length, f"{length / unit:.3g} {name}"
    return length, f"{length * 1e6:.3g} nm"


def _flow(items: Sequence[_Item], room: float) -> list[list[_Item]]:
    """The items in rows, as many in each as fit beside each other."""
    rows: list[list[_Item]] = []
    used = 0.0
    for item in items:
        if rows and used + item.width <= room and rows[-1][0].size == item.size:
            rows[-1].append(item)
        else:
            rows.append([item])
            used = 0.0
        used += item.width + item.size * 1.5
    return rows


def _shortened(text: str, room: float, size: int) -> str:
    """The text, with an ellipsis in its middle if it is too long; one line, whatever a file is called."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    half = len(text) // 2
    short = text
    while half > 4 and text_width(short, size) > room:
        half -= 1
        short = f"{text[:half]}\N{HORIZONTAL ELLIPSIS}{text[-half:]}"
    return short


@cache
def text_width(text: str, size: int) -> float:
    """Pixels that a line of text takes."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    properties = FontProperties(size=size, weight="bold" if size == TITLE else "normal")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        width, _, _ = RendererAgg(1, 1, 72).get_text_width_height_descent(text, properties, ismath=False)
    return float(width)


def _unit(colour: Colour) -> tuple[float, float, float]:
    r, g, b = colour
    return r / 255, g / 255, b / 255
