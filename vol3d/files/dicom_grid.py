"""The grid that DICOM slices lie on: sorted by position, with every doubt refused.

A series that lost a slice still loads, at the wrong spacing; one with a slice twice may turn around.
So nothing is taken from the order or the number of files.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError
from vol3d.files.place import check_place, rescaled, silent
from vol3d.geometry.affine import Affine, from_spacing, is_orthogonal
from vol3d.shapes import Spacing
from vol3d.volume.source import Says

_STEP_TOLERANCE = 0.01  # of a step between slices
_ROUNDING_MM = 0.01  # positions are decimal text
_SAME_POSITION_MM = 1e-3
_DIRECTION_TOLERANCE = 1e-3
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Frame:
    """What the header says of one slice. Places are LPS millimetres, as DICOM has them; None is silence.

    number is that of the frame among the frames of its file, whose pixels begin at the byte pixels_at.
    row and column are the directions in which the index in a row, and in a column, grows. pixel_mm is
    the distance of rows, and of columns.
    """

    file: Path
    number: int
    frames: int
    pixels_at: int
    series: str
    syntax: str
    rows: int
    columns: int
    samples: int
    photometric: str
    bits_allocated: int
    bits_stored: int
    signed: bool
    slope: float
    intercept: float
    pixel_mm: tuple[float, ...] | None
    position: tuple[float, ...] | None
    row: tuple[float, ...] | None
    column: tuple[float, ...] | None
    thickness_mm: float


def sorted_on_grid(
    path: Path, frames: Sequence[Frame], *, spacing: Spacing | None
) -> tuple[list[Frame], Affine, Says, tuple[str, ...]]:
    """The frames in the order of z, their affine, what it is worth, and what is odd about it.

    z runs along the normal (row x column). A spacing (mm) goes before what the frames say.

    Raises:
        InputError: a slice is missing or there twice, or the slices differ in more than their position.
    """
    _check_alike(path, frames)
    first = frames[0]
    if first.position is None or first.row is None or first.column is None:
        if len(frames) > 1:
            raise InputError(f"{path}: its {len(frames)} images say no position; each is a volume of its own")
        given = spacing or (Spacing(1.0, *first.pixel_mm) if first.pixel_mm else None)
        if given is None:
            return [first], from_spacing(Spacing(1.0, 1.0, 1.0)), "nothing", (silent(path),)
        affine = from_spacing(given)
        check_place(path, affine)
        return [first], affine, "spacing", ()
    if first.pixel_mm is None and spacing is None:
        raise InputError(f"{path} says no pixel spacing; give --spacing")
    row, column = np.array(first.row), np.array(first.column)
    normal = np.cross(row, column)
    if not np.isclose(np.linalg.norm([row, column, normal], axis=1), 1, atol=0.01).all():
        raise InputError(f"{path}: its image orientation {first.row}, {first.column} is no pair of directions")
    positions: NDArray[np.float64] = np.array([frame.position for frame in frames])
    order = np.argsort(positions @ normal, kind="stable")
    ordered, positions = [frames[n] for n in order], positions[order]
    along = normal * first.thickness_mm
    if len(ordered) > 1:
        _check_steps(path, ordered, positions @ normal)
        along = (positions[-1] - positions[0]) / (len(ordered) - 1)
        _check_line(path, ordered, positions, along)
    rows_mm, columns_mm = first.pixel_mm if first.pixel_mm and spacing is None else (1.0, 1.0)
    lps = np.stack([along, column * rows_mm, row * columns_mm, positions[0]], axis=1)
    affine = np.eye(4)
    affine[:3] = lps * _LPS_TO_RAS[:, None] + 0.0  # no negative zeros
    if spacing is not None:
        affine = rescaled(affine, spacing)
    check_place(path, affine)
    return ordered, affine, "place", () if is_orthogonal(affine) else (_tilted(path),)


def _tilted(path: Path) -> str:
    return f"{path}: its slices are shifted against each other (gantry tilt); distances in mm are approximate"


def _check_alike(path: Path, frames: Sequence[Frame]) -> None:
    """Refuse what differs in more than its position, and say how many do."""
    exact: dict[str, list[Any]] = {
        "size (rows, columns)": [(f.rows, f.columns) for f in frames],
        "kind": [(f.photometric, f.samples) for f in frames],
        "number of bits": [(f.bits_allocated, f.bits_stored, "signed" if f.signed else "unsigned") for f in frames],
    }
    for what, values in exact.items():
        _check_same(path, frames, what, [value == values[0] for value in values], values)
    close: dict[str, list[Any]] = {
        "orientation": [None if f.row is None or f.column is None else f.row + f.column for f in frames],
        "pixel spacing": [f.pixel_mm for f in frames],
        "position": [None if f.position is None else () for f in frames],
    }
    for what, values in close.items():
        first = values[0]
        same = [
            (v is None) == (first is None) and (v is None or np.allclose(v, first, rtol=0, atol=_DIRECTION_TOLERANCE))
            for v in values
        ]
        _check_same(path, frames, what, same, values)


def _check_same(path: Path, frames: Sequence[Frame], what: str, same: Sequence[bool], values: Sequence[Any]) -> None:
    if all(same):
        return
    other = same.index(False)
    raise InputError(
        f"{path}: {same.count(False)} of its {len(frames)} slices have another {what} than {frames[0].file.name}, "
        f"which has {_told(values[0])}: {frames[other].file.name} has {_told(values[other])}"
    )


def _told(value: Any) -> str:
    return "none" if value is None else "one" if value == () else str(value)


def _check_steps(path: Path, frames: Sequence[Frame], along: NDArray[np.float64]) -> None:
    """Refuse slices at one position, and steps that differ."""
    steps = np.diff(along)
    if (steps < _SAME_POSITION_MM).any():
        distinct = 1 + int((steps >= _SAME_POSITION_MM).sum())
        at = int(np.argmin(steps))
        counts = Counter(np.diff(np.flatnonzero(np.r_[True, steps >= _SAME_POSITION_MM, True])).tolist())
        each = f"each {next(iter(counts))} times" if len(counts) == 1 else "some more than once"
        raise InputError(
            f"{path}: {len(frames)} slices lie at {distinct} positions, {each} (as {_at(frames[at])} and "
            f"{_at(frames[at + 1])}); keep one of each, or every time or contrast in a folder of its own"
        )
    step = float(np.sort(steps)[(len(steps) - 1) // 2])
    odd = np.abs(steps - step) > max(_STEP_TOLERANCE * step, _ROUNDING_MM)
    if odd.any():
        at = int(np.argmax(odd))
        missing = int(np.maximum(np.rint(steps / step) - 1, 0).sum())
        raise InputError(
            f"{path}: expected its {len(frames)} slices every {step:.4g} mm, got {int(odd.sum())} other steps, the "
            f"first {steps[at]:.4g} mm from {_at(frames[at])} to {_at(frames[at + 1])}"
            + (f"; {missing} slices seem to be missing" if missing else "")
        )


def _check_line(
    path: Path, frames: Sequence[Frame], positions: NDArray[np.float64], along: NDArray[np.float64]
) -> None:
    """Refuse slices that do not lie behind each other in a line."""
    line = positions[0] + np.arange(len(frames))[:, None] * along
    apart = np.linalg.norm(positions - line, axis=1)
    tolerance = max(_STEP_TOLERANCE * float(np.linalg.norm(along)), _ROUNDING_MM) * 2
    if (apart > tolerance).any():
        at = int(np.argmax(apart))
        raise InputError(
            f"{path}: its {len(frames)} slices do not lie in a line: {_at(frames[at])} is {apart[at]:.4g} mm off"
        )


def _at(frame: Frame) -> str:
    return f"{frame.file.name}, frame {frame.number}" if frame.number else frame.file.name
