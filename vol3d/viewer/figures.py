"""Pictures of a mask or an error map that need no 3D library: projections and slices, as RGB arrays.

Voxels are drawn as they are stored: x to the right, y down, z into the picture or down. Nothing here
touches pyplot or its state.
"""

from collections.abc import Sequence
from math import ceil

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vol3d.shapes import Spacing
from vol3d.viewer.error_map import FALSE_POSITIVE
from vol3d.viewer.legend import Colour, Legend
from vol3d.viewer.page import MARGIN, Page

RGB = NDArray[np.uint8]

DEPTH_CUE = 0.6  # how bright the farthest voxel is
SHADE = 0.5  # how bright a surface seen edge on is
ABSORPTION = 0.15  # how much less each voxel behind another one counts
GAP = 30  # pixels between panels, with room for a caption
LEAST_PANEL = 110  # a panel's caption fits
PREDICTION_OUTLINE: Colour = (255, 90, 220)  # far from the colours of errors in both palettes
REFERENCE_OUTLINE: Colour = (70, 225, 255)


def with_legend(picture: RGB, legend: Legend) -> RGB:
    """A picture (H, W, 3) under its legend; the page is as wide as the picture, or wider where it must be."""
    height, width = picture.shape[:2]
    page = Page(width, height, legend)
    page.image(picture, (0, page.top, width, height))
    return page.rgb()


def mips(codes: NDArray[np.uint8], spacing: Spacing, *, legend: Legend, size: int = 1600) -> RGB:
    """Three projections of (Z, Y, X) codes, at one scale, as an RGB picture of at most about size pixels a side.

    The views are along z (top left), x (top right) and y (bottom left), as on an engineer's drawing.
    What is near is bright.
    """
    depth, height, width = (n * mm for n, mm in zip(codes.shape, spacing, strict=True))
    scale = (size - 2 * MARGIN - GAP) / max(width + depth, height + depth)
    x, y, z = (max(1, round(mm * scale)) for mm in (width, height, depth))
    right = MARGIN + max(x, LEAST_PANEL) + GAP
    page = Page(right + max(z, LEAST_PANEL) + MARGIN, y + z + 2 * GAP + MARGIN, legend, scale=scale)
    below = page.top + GAP + y + GAP
    for axis, caption, box in (
        (0, "along z   x \N{RIGHTWARDS ARROW}  y \N{DOWNWARDS ARROW}", (MARGIN, page.top + GAP, x, y)),
        (2, "along x   z \N{RIGHTWARDS ARROW}  y \N{DOWNWARDS ARROW}", (right, page.top + GAP, z, y)),
        (1, "along y   x \N{RIGHTWARDS ARROW}  z \N{DOWNWARDS ARROW}", (MARGIN, below, x, z)),
    ):
        picture = project(codes, axis, legend)
        page.image(picture.swapaxes(0, 1) if axis == 2 else picture, box, border=True)
        page.text(box[0], box[1] - 9, caption)
    return page.rgb()


def project(codes: NDArray[np.uint8], axis: int, legend: Legend) -> RGB:
    """(Z, Y, X) codes seen along one axis from index 0, as an RGB picture over the other two.

    A ray takes the code that fills most of it, near voxels weighing more: a wrong skin one voxel
    thin does not hide the hits behind it. Brightness falls with the depth of the first voxel and
    with the slope of the surface there.
    """
    planes = np.moveaxis(codes, axis, 0)
    used = np.flatnonzero(planes.any(axis=(1, 2)))
    light = np.ones(planes[0].size, dtype=np.float32)  # what still passes through
    weights = np.zeros((len(legend.entries) + 1, planes[0].size), dtype=np.float32)
    first = np.full(planes[0].size, -1, dtype=np.int32)
    for place in used:
        flat = planes[place].reshape(-1)
        seen = np.flatnonzero(flat)
        weights[flat[seen], seen] += light[seen]
        light[seen] *= 1 - ABSORPTION
        first[seen] = np.where(first[seen] < 0, place, first[seen])
    code = weights.argmax(axis=0)
    colours = np.array([(0, 0, 0), *(entry.colour for entry in legend.entries)], dtype=np.float32)
    nearest, farthest = (used[0], used[-1]) if used.size else (0, 0)
    bright = 1 - (1 - DEPTH_CUE) * (first - nearest) / max(1, farthest - nearest)
    bright *= _facing(first.reshape(planes.shape[1:])).reshape(-1)
    picture: RGB = (colours[code] * bright[:, np.newaxis]).astype(np.uint8)
    return picture.reshape(*planes.shape[1:], 3)


def _facing(depth: NDArray[np.int32]) -> NDArray[np.float32]:
    """How much the surface at a depth map (-1: none) faces the viewer, from SHADE to 1."""
    padded = np.pad(depth, 1, mode="edge").astype(np.float32)
    slopes = []
    for axis in (0, 1):
        steps = []
        for side in (0, 2):
            cut = [slice(1, -1), slice(1, -1)]
            cut[axis] = slice(side, padded.shape[axis] - 2 + side)
            neighbour = padded[tuple(cut)]
            # Beyond an edge in depth the slope is unknown: the other side tells.
            step = np.where((neighbour < 0) | (np.abs(neighbour - depth) > 3), 0, neighbour - depth)
            steps.append(step if side else -step)
        slopes.append((steps[0] + steps[1]) / 2)
    facing = 1 / np.sqrt(1 + slopes[0] ** 2 + slopes[1] ** 2)
    return (SHADE + (1 - SHADE) * facing).astype(np.float32)


def choose_planes(wrong: NDArray[np.int64], foreground: NDArray[np.int64], count: int) -> list[int]:
    """Up to count planes worth a look: half with the most wrong voxels, apart from each other, the rest spread evenly.

    wrong and foreground are voxels per plane (Z,). Only planes with foreground are taken, unless
    there are none; evenly means that as much foreground lies between one and the next.
    """
    used = np.flatnonzero(foreground) if foreground.any() else np.arange(len(foreground))
    count = min(count, len(used))
    apart = max(1, len(used) // count)
    chosen: list[int] = []
    for plane in used[np.argsort(-wrong[used], kind="stable")]:
        if len(chosen) < count // 2 and wrong[plane] and all(abs(plane - other) >= apart for other in chosen):
            chosen.append(int(plane))
    spread = count - len(chosen)
    below = np.cumsum(np.maximum(foreground[used], 1))
    for wanted in (np.arange(spread) + 0.5) / max(spread, 1) * below[-1]:
        distance = np.abs(used[:, np.newaxis] - np.array([*chosen, -len(wrong)])).min(axis=1)
        free = used[distance >= max(1, min(apart // 2, distance.max()))]
        middle = used[np.searchsorted(below, wanted)]
        chosen.append(int(free[np.argmin(np.abs(free - middle))]))
    return sorted(chosen)


def montage(
    image: NDArray[np.generic] | None,
    codes: NDArray[np.uint8],
    prediction: NDArray[np.bool_],
    reference: NDArray[np.bool_] | None,
    *,
    planes: Sequence[int],
    spacing: Spacing,
    legend: Legend,
    size: int = 2000,
) -> RGB:
    """Slices with outlines: what was predicted, what is true, and the errors between them tinted.

    All arrays are (N, Y, X): the slices of the volumes at planes. Grey runs from the 0.5th to the
    99.5th percentile of the shown slices; without an image the background is black.
    """
    rows, columns = (slice(*_around(np.any(codes, axis=(0, axis)))) for axis in (2, 1))
    shown = [None if a is None else a[:, rows, columns] for a in (image, codes, prediction, reference)]
    grey = _grey(shown[0], codes[:, rows, columns].shape)
    height, width = grey.shape[1] * spacing.y, grey.shape[2] * spacing.x
    across, scale = _tiling(len(planes), width, height, size - 2 * MARGIN)
    tile_x, tile_y = max(LEAST_PANEL, round(width * scale)), max(1, round(height * scale))
    step_y = tile_y + GAP
    page = Page(
        2 * MARGIN + across * (tile_x + 10) - 10,
        ceil(len(planes) / across) * step_y + MARGIN,
        legend,
        scale=scale,
        outlines=(("prediction", PREDICTION_OUTLINE), ("truth", REFERENCE_OUTLINE))[: 1 if reference is None else 2],
    )
    colours = np.array([(0, 0, 0), *(entry.colour for entry in legend.entries)], dtype=np.uint8)
    line = float(np.clip(scale * min(spacing.y, spacing.x), 1.2, 2.4))  # no wider than a voxel, if that can be seen
    for n, plane in enumerate(planes):
        box = (MARGIN + n % across * (tile_x + 10), page.top + GAP + n // across * step_y, tile_x, tile_y)
        tile = codes[n, rows, columns]
        wrong = int(np.count_nonzero(tile >= FALSE_POSITIVE)) if reference is not None else 0
        page.text(box[0], box[1] - 9, f"z {plane}" + (f"   {wrong:,} wrong" if reference is not None else ""))
        page.image(np.repeat(grey[n, ..., np.newaxis], 3, axis=-1), box, border=True)
        if reference is not None:
            tint = np.dstack([colours[tile], np.where(tile >= FALSE_POSITIVE, 110, 0).astype(np.uint8)])
            page.image(tint, box)
            page.outline(reference[n, rows, columns], box, REFERENCE_OUTLINE, line)
        page.outline(prediction[n, rows, columns], box, PREDICTION_OUTLINE, 0.6 * line)
    return page.rgb()


def _tiling(count: int, width: float, height: float, size: int) -> tuple[int, float]:
    """How many tiles beside each other, and pixels per millimetre, draw them largest on a page 3 by 2."""
    sizes = {
        across: min((size / across - 10) / width, (size * 2 / 3 / ceil(count / across) - GAP) / height)
        for across in range(1, count + 1)
    }
    best = max(sizes, key=lambda across: sizes[across])
    return best, sizes[best]


def _around(used: ArrayLike, margin: int = 12) -> tuple[int, int]:
    """The part of an axis that holds anything, with a margin; all of it where nothing does."""
    hits = np.flatnonzero(used)
    length = np.size(used)
    if not hits.size:
        return 0, length
    return max(0, int(hits[0]) - margin), min(length, int(hits[-1]) + 1 + margin)


def _grey(image: NDArray[np.generic] | None, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    if image is None:
        return np.zeros(shape, dtype=np.uint8)
    values = np.nan_to_num(image.astype(np.float32))
    low, high = np.percentile(values, (0.5, 99.5))
    grey: NDArray[np.uint8] = (np.clip((values - low) / max(high - low, 1e-12), 0, 1) * 255).astype(np.uint8)
    return grey
