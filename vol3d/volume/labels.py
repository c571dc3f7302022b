"""The label schema: which integers of a label volume mean what.

A schema is an ordered list of regions, each a set of label values. Regions that share no value are
classes (softmax with a background channel); regions that overlap (liver contains lesion), or a
single region, are answered one by one (sigmoid). There is one encoding and one decoding.
"""

import colorsys
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

MAX_LABEL = 255
Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

_PALETTE: tuple[Colour, ...] = (
    (230, 60, 50),
    (60, 180, 75),
    (65, 120, 245),
    (255, 215, 40),
    (190, 60, 220),
    (60, 210, 215),
    (245, 140, 40),
    (240, 110, 190),
    (170, 230, 60),
    (150, 100, 50),
    (150, 140, 240),
    (20, 130, 120),
)


@dataclass(frozen=True)
class Region:
    """A named set of label values, and the colour it is shown in (None: by its place in the schema)."""

    name: str
    values: tuple[int, ...]
    colour: Colour | None = field(default=None, compare=False)


@dataclass(frozen=True)
class LabelSchema:
    """Ordered regions, outer before inner, and the value that is to be ignored in training, if any."""

    regions: tuple[Region, ...]
    ignore: int | None = None

    def __post_init__(self) -> None:
        values = [v for region in self.regions for v in region.values]
        if not self.regions or any(not region.values for region in self.regions):
            raise ValueError("a label schema needs at least one region, and each region a value")
        if any(not 1 <= v <= MAX_LABEL for v in values):
            raise ValueError(f"label values must be 1 to {MAX_LABEL}, got {sorted(set(values))}")
        if self.ignore is not None and (self.ignore in values or not 1 <= self.ignore <= MAX_LABEL):
            raise ValueError(f"the ignore value {self.ignore} must be 1 to {MAX_LABEL} and in no region")
        names = [region.name for region in self.regions]
        if len(set(names)) != len(names):
            raise ValueError(f"region names must differ, got {names}")
        for region in self.regions:
            if region.colour is not None and any(not 0 <= part <= 255 for part in region.colour):
                raise ValueError(
                    f"the colour of {region.name} must be red, green, blue from 0 to 255, got {region.colour}"
                )

    @property
    def activation(self) -> Literal["softmax", "sigmoid"]:
        """How logits become probabilities."""
        values = [v for region in self.regions for v in region.values]
        return "sigmoid" if len(self.regions) == 1 or len(set(values)) < len(values) else "softmax"

    @property
    def channels(self) -> int:
        """Channels of the logits: a background channel comes first under softmax."""
        return len(self.regions) + (self.activation == "softmax")

    @property
    def names(self) -> tuple[str, ...]:
        """The regions' names in order: the foreground channels."""
        return tuple(region.name for region in self.regions)

    @property
    def colours(self) -> tuple[Colour, ...]:
        """Each region's colour: its own, or that of its place, from the red of the first on."""
        return tuple(r.colour or _colour_of_place(n) for n, r in enumerate(self.regions))

    @property
    def written(self) -> tuple[int, ...]:
        """The value that each region is written as: the first of its own that no inner region has.

        A region without any of its own is written as its first.
        """
        inner = [{v for r in self.regions[n:] for v in r.values} for n in range(1, len(self.regions) + 1)]
        return tuple(
            next((v for v in region.values if v not in taken), region.values[0])
            for region, taken in zip(self.regions, inner, strict=True)
        )

    def tables(self) -> NDArray[np.bool_]:
        """For each region the table (regions, 256) that turns label values into its mask: ``tables()[n][labels]``."""
        table: NDArray[np.bool_] = np.zeros((len(self.regions), MAX_LABEL + 1), dtype=np.bool_)
        for row, region in enumerate(self.regions):
            table[row, list(region.values)] = True
        return table

    def encoding(self) -> NDArray[np.bool_]:
        """The table (channels, 256) that turns label values into targets: ``encoding()[:, labels]``.

        Values in no region are background; the ignore value belongs to no channel.
        """
        table = self.tables()
        if self.activation == "softmax":
            background: NDArray[np.bool_] = np.logical_not(table.any(axis=0))
            if self.ignore is not None:
                background[self.ignore] = False
            table = np.stack([background, *table])
        return table

    def decode(self, masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Label values (Z, Y, X) from one mask per region, (regions, Z, Y, X): inner regions win."""
        labels = np.zeros(masks.shape[1:], dtype=np.uint8)
        for mask, value in zip(masks, self.written, strict=True):
            labels[mask] = value
        return labels

    def masks(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        """One mask per region, (regions, Z, Y, X), from label values (Z, Y, X) in 0 to 255."""
        return self.tables()[:, labels]


def _colour_of_place(place: int) -> Colour:
    """Twelve that are easily told apart, then hues a golden angle apart in three degrees of brightness."""
    if place < len(_PALETTE):
        return _PALETTE[place]
    red, green, blue = colorsys.hsv_to_rgb(place * 0.618034 % 1.0, (0.9, 0.6, 0.75)[place % 3], 1.0 - 0.2 * (place % 3))
    return round(255 * red), round(255 * green), round(255 * blue)
