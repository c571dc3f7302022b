"""Polygons as masks and back, and HuBMAP's polygons.jsonl, a picture per line.

Points are (x, y) with a pixel's centre at its whole numbers. A pixel is inside where its centre lies in the first
ring or on it, and neither in nor on another ring, which is a hole; what crosses itself is filled by the even-odd rule.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vol3d.errors import InputError, UsageError
from vol3d.files.atomic import atomic_path
from vol3d.files.masks import Mask, Plane

Ring = NDArray[np.float64]
"""Points (n, 2) as x, y; the last is joined to the first."""

CLASSES = {"blood_vessel": 1, "glomerulus": 2, "unsure": 3}


def polygon_mask(rings: Sequence[Ring], plane: Plane) -> Mask:
    """The mask (Y, X) of a polygon; what lies outside of the plane is cut off."""
    from skimage.draw import polygon

    mask = np.zeros(plane, dtype=np.bool_)
    for number, ring in enumerate(rings):
        mask[polygon(ring[:, 1], ring[:, 0], plane)] = number == 0
    return mask


def mask_polygons(mask: Mask) -> list[list[Ring]]:
    """A polygon for each component (8 neighbours) of a mask (Y, X), its outline first, then its holes.

    Their points lie on pixel edges, half way between what is inside and what is not, so that the masks of the
    polygons make up the mask.
    """
    from skimage.measure import find_contours

    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    polygons = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        inside = np.pad(labels[rows, columns] == number, 1)
        corner = np.array([columns.start - 1.0, rows.start - 1.0])
        rings = [
            ring[:-1, ::-1] + corner for ring in find_contours(inside.astype(np.float64), 0.5, fully_connected="high")
        ]
        polygons.append(sorted(rings, key=_area, reverse=True))
    return polygons


def _area(ring: Ring) -> float:
    (x, y), (after_x, after_y) = ring.T, np.roll(ring, -1, axis=0).T
    return abs(float((x * after_y - after_x * y).sum())) / 2


@dataclass(frozen=True)
class Annotation:
    """One object of a picture: its class, and its outline and holes."""

    kind: str
    rings: tuple[Ring, ...]


def class_labels(annotations: Sequence[Annotation], plane: Plane) -> NDArray[np.uint8]:
    """The value of its class for each pixel (Y, X): where several overlap the lowest, a vessel before all."""
    labels = np.zeros(plane, dtype=np.uint8)
    for annotation in sorted(annotations, key=lambda a: -CLASSES[a.kind]):
        labels[polygon_mask(annotation.rings, plane)] = CLASSES[annotation.kind]
    return labels


def polygon_line(name: str, labels: NDArray[Any]) -> str:
    """A picture's line of polygons.jsonl from the values of classes (Y, X).

    Raises:
        ValueError: a value is no class's.
    """
    unknown = set(np.unique(labels).tolist()) - {0, *CLASSES.values()}
    if unknown:
        told = ", ".join(f"{value} {kind}" for kind, value in CLASSES.items())
        raise ValueError(f"expected the values 0 and {told}, got {min(unknown)}")
    annotations = [
        {"type": kind, "coordinates": [ring.tolist() for ring in rings]}
        for kind, value in CLASSES.items()
        for rings in mask_polygons(labels == value)
    ]
    return json.dumps({"id": name, "annotations": annotations})


@contextmanager
def written_polygons(path: Path) -> Iterator[Callable[[str, NDArray[Any]], None]]:
    """Begin a polygons.jsonl; the yielded function takes a picture's id and labels. It appears if the block ends well.

    Raises:
        UsageError: the place cannot be written to.
    """
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as stream:

        def write(name: str, labels: NDArray[Any]) -> None:
            stream.write(polygon_line(name, labels) + "\n")

        yield write


class PolygonLines:
    """A polygons.jsonl of which only the ids and where their lines begin stay in memory; all lines are checked.

    Raises:
        UsageError: the file cannot be read.
        InputError: a line is none of such, or an id comes again.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.ids = path, dict[str, tuple[int, int]]()
        place = 0
        try:
            with path.open("rb") as stream:
                for line, text in enumerate(stream, start=1):
                    if text.strip():
                        name, _ = self._parsed(line, text)
                        if name in self.ids:
                            raise InputError(f"{path}: line {line}: id {name} is in line {self.ids[name][0]} already")
                        self.ids[name] = (line, place)
                    place += len(text)
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from error

    def annotations(self, name: str) -> list[Annotation]:
        """What is in a picture."""
        line, place = self.ids[name]
        with self.path.open("rb") as stream:
            stream.seek(place)
            return self._parsed(line, stream.readline())[1]

    def _parsed(self, line: int, text: bytes) -> tuple[str, list[Annotation]]:
        try:
            data = json.loads(text)
            if not isinstance(data, dict) or data.keys() != {"id", "annotations"} or not isinstance(data["id"], str):
                raise ValueError('expected {"id": name, "annotations": [...]}')
            if not isinstance(data["annotations"], list):
                raise ValueError("expected a list of annotations")
            return data["id"], [_annotation(entry) for entry in data["annotations"]]
        except (ValueError, RecursionError) as error:  # what is no JSON, or no text, is a ValueError, too
            raise InputError(f"{self.path}: line {line}: {error}") from error


def _annotation(entry: Any) -> Annotation:
    wanted = f"expected annotations of the types {', '.join(CLASSES)} with coordinates"
    if not isinstance(entry, Mapping) or entry.keys() != {"type", "coordinates"} or entry["type"] not in [*CLASSES]:
        told = entry.get("type", "none") if isinstance(entry, Mapping) else entry
        raise ValueError(f"{wanted}, got {str(told)[:40]!r}")
    rings = entry["coordinates"]
    if not isinstance(rings, list) or not rings or not all(map(_is_ring, rings)):
        raise ValueError(f"{wanted} [[[x, y], ...], ...], three points or more in each ring")
    return Annotation(entry["type"], tuple(np.array(ring, dtype=np.float64) for ring in rings))


def _is_ring(ring: Any) -> bool:
    return isinstance(ring, list) and len(ring) > 2 and all(
        isinstance(point, list)
        and len(point) == 2
        and all(type(v) in (int, float) and math.isfinite(v) and abs(v) < 1 << 30 for v in point)
        for point in ring
    )  # fmt: skip
