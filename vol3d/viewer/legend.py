"""What the colours of a picture mean: the names, colours, counts and scores that every drawing shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from vol3d.viewer.error_map import ErrorCounts

Colour = tuple[int, int, int]
Palette = Literal["default", "cb"]

ERROR_COLOURS: Final[dict[Palette, tuple[Colour, Colour, Colour]]] = {
    "default": ((255, 214, 10), (40, 200, 80), (255, 59, 48)),
    # Okabe and Ito's yellow, blue and vermilion, which readers with any colour vision tell apart.
    "cb": ((240, 228, 66), (0, 114, 178), (213, 94, 0)),
}
"""Hit, false positive, miss."""

COMPONENT_COLOURS: Final[tuple[Colour, ...]] = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 190, 140),
    (240, 228, 66),
    (220, 110, 170),
    (150, 120, 240),
    (225, 90, 50),
    (170, 220, 120),
)
REST: Final[Colour] = (140, 140, 145)


@dataclass(frozen=True)
class Entry:
    """One colour of the drawing: its name and how many voxels of the volume have it."""

    name: str
    colour: Colour
    voxels: int


@dataclass(frozen=True)
class Legend:
    """entries[i] tells about code i + 1 of the drawn codes. remarks are read beside it (scores), footnotes below."""

    title: str
    entries: tuple[Entry, ...]
    remarks: tuple[str, ...] = ()
    footnotes: tuple[str, ...] = ()


def error_legend(
    title: str,
    counts: ErrorCounts,
    *,
    scores: ErrorCounts | None = None,
    tolerance_voxels: float = 0,
    palette: Palette = "default",
) -> Legend:
    """Hits, false positives and misses as they are drawn, and the scores of the masks.

    Where the drawing tolerates errors, scores are the counts of the masks as they are, and a footnote says so.
    """
    scores = scores or counts
    numbers = (counts.hit, counts.false_positive, counts.miss)
    names = ("hit", "false positive", "miss")
    values = (("Dice", scores.dice), ("precision", scores.precision), ("recall", scores.recall))
    tolerant = (
        f"errors within {tolerance_voxels:g} voxels of the other mask are drawn and counted as hits; "
        "the scores count every voxel"
    )
    return Legend(
        title,
        tuple(Entry(*entry) for entry in zip(names, ERROR_COLOURS[palette], numbers, strict=True)),
        tuple(f"{name} {'undefined' if value is None else f'{value:.3f}'}" for name, value in values),
        (tolerant,) if tolerance_voxels else (),
    )


def component_legend(title: str, sizes: Sequence[int], *, count: int) -> Legend:
    """The components of a mask. sizes (voxels) are those drawn in a colour of their own, then the rest's sum, if any.

    count is the number of components.
    """
    entries = [
        Entry(f"component {n}", colour, size)
        for n, (colour, size) in enumerate(zip(COMPONENT_COLOURS, sizes, strict=False), 1)
    ]
    if len(sizes) > len(entries):
        entries.append(Entry(f"{count - len(entries):,} smaller", REST, sizes[-1]))
    return Legend(title, tuple(entries), (f"{count:,} components", f"{sum(sizes):,} voxels"))
