"""Masks of any size reduced to what a drawing needs, one slab at a time."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError
from vol3d.files.volumes import open_volume
from vol3d.geometry.affine import agree, spacing_of
from vol3d.geometry.box import Box
from vol3d.geometry.grid import slabs
from vol3d.preprocess.orient import turned_onto
from vol3d.regions import components
from vol3d.shapes import Shape3, Spacing
from vol3d.tasks.reporter import Reporter
from vol3d.viewer.error_map import ErrorCounts, count_errors, error_map, pool
from vol3d.viewer.legend import COMPONENT_COLOURS, Legend, Palette, component_legend, error_legend
from vol3d.volume.source import VolumeSource, told_grid

DRAWN_VOXELS_A_SIDE = 400  # more would be smaller than a pixel
SLAB_VOXELS = 1 << 25
NEAR_INTEGER = 1e-3


@dataclass(frozen=True)
class Opened:
    """A volume and the file it is in, for messages."""

    path: Path
    source: VolumeSource

    def __str__(self) -> str:
        return f"{self.path} ({told_grid(self.source)})"


@dataclass(frozen=True)
class Masks:
    """A prediction and perhaps its truth on one grid. label None: every value but zero is foreground."""

    prediction: Opened
    truth: Opened | None
    label: int | None
    tolerance_voxels: float

    @property
    def shape(self) -> Shape3:
        """Voxels of the grid."""
        return self.prediction.source.shape

    @property
    def spacing(self) -> Spacing:
        """Millimetres between voxels, from the file that also knows its place if only one does."""
        both = [self.prediction] if self.truth is None else [self.truth, self.prediction]
        return spacing_of(max(both, key=lambda volume: volume.source.says == "place").source.affine)

    def read(self, box: Box) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_] | None]:
        """Codes (an error map, or 1 where there is only a prediction), prediction and truth in a box."""
        if self.truth is None:
            mask = _mask(self.prediction, box, self.label)
            return mask.astype(np.uint8), mask, None
        halo = ceil(self.tolerance_voxels)
        wide = box.grown((halo, halo, halo)).intersection(Box.whole(self.shape))
        inner = box.seen_from(wide.start).slices
        predicted, true = (_mask(volume, wide, self.label) for volume in (self.prediction, self.truth))
        codes = error_map(predicted, true, tolerance_voxels=self.tolerance_voxels)
        return codes[inner], predicted[inner], true[inner]


@dataclass(frozen=True)
class Drawing:
    """What all pictures of some masks share: pooled codes (Z, Y, X), cut to what they show, and their spacing.

    extent are footnotes on what was cut and pooled. counts are those of the legend, scores those of
    the masks without tolerance; None without a truth. wrong and foreground are voxels per plane of
    the volume.
    """

    codes: NDArray[np.uint8]
    spacing: Spacing
    legend: Legend
    extent: tuple[str, ...]
    counts: ErrorCounts | None
    scores: ErrorCounts | None
    wrong: NDArray[np.int64]
    foreground: NDArray[np.int64]


def opened(path: Path, *, spacing: Spacing | None, like: Opened | None = None) -> Opened:
    """Open a volume, which must lie on the grid of like, and is turned as that is stored.

    Formats that only say a spacing take its place.

    Raises:
        UsageError: it cannot be read.
        InputError: it lies on another grid.
    """
    new = Opened(Path(path), open_volume(path, spacing=spacing))
    if like is not None:
        one, other = like.source, turned_onto(new.source, like.source)
        if one.shape != other.shape:
            raise InputError(f"{like} and {new} lie on different grids; resample one of them to the other")
        if one.says == other.says and not agree(one.affine, other.affine, one.shape):
            raise InputError(f"{like} and {new} lie in different places; if only the headers are wrong, give --spacing")
        return Opened(new.path, other)
    return new


def reduce(masks: Masks, *, palette: Palette, reporter: Reporter) -> Drawing:
    """Go through the masks once and keep what the drawings need.

    Raises:
        InputError: a file holds no mask.
    """
    shape = masks.shape
    steps = Shape3(*(ceil(n / DRAWN_VOXELS_A_SIDE) for n in shape))
    depth = max(1, SLAB_VOXELS // (shape.y * shape.x * steps.z)) * steps.z
    pooled, sums = [], []
    counts, scores = ErrorCounts(), ErrorCounts()
    wrong, foreground = np.zeros(shape.z, dtype=np.int64), np.zeros(shape.z, dtype=np.int64)
    with reporter.progress("view", total=shape.z, unit="planes") as advance:
        for slab in slabs(shape, depth):
            codes, predicted, true = masks.read(slab)
            planes = slab.slices[0]
            foreground[planes] = np.count_nonzero(codes, axis=(1, 2))
            if true is None:
                sums.append(_block_sums(predicted, steps))
            else:
                counts += count_errors(codes)
                scores += count_errors(error_map(predicted, true)) if masks.tolerance_voxels else count_errors(codes)
                wrong[planes] = np.count_nonzero(codes > 1, axis=(1, 2))
            pooled.append(pool(codes, steps))
            advance(slab.shape.z)
    drawn = np.concatenate(pooled)
    known = masks.truth is not None
    if masks.truth is None:
        drawn, legend = _components(drawn > 0, np.concatenate(sums), masks.prediction.path.name)
    else:
        title = f"{masks.prediction.path.name} against {masks.truth.path.name}"
        legend = error_legend(title, counts, scores=scores, tolerance_voxels=masks.tolerance_voxels, palette=palette)
    voxels = f"voxels z, y, x: {_by(masks.spacing)} mm"
    cut, extent = _cut(drawn, shape, steps)
    return Drawing(
        drawn[cut.slices],
        Spacing(*(mm * step for mm, step in zip(masks.spacing, steps, strict=True))),
        replace(legend, footnotes=(voxels, *legend.footnotes)),
        extent,
        counts if known else None,
        scores if known else None,
        wrong,
        foreground,
    )


def _components(mask: NDArray[np.bool_], voxels: NDArray[np.uint32], title: str) -> tuple[NDArray[np.uint8], Legend]:
    """The largest components as codes 1, 2, ... in order of size, all others as one more."""
    found = components.label(mask)
    sizes = np.zeros(found.count + 1, dtype=np.int64)
    np.add.at(sizes, found.labels[mask], voxels[mask])
    order = np.argsort(-sizes[1:], kind="stable") + 1
    drawn = len(COMPONENT_COLOURS)
    table = np.full(found.count + 1, drawn + 1, dtype=np.uint8)
    table[order[:drawn]] = np.arange(1, len(order[:drawn]) + 1)
    table[0] = 0
    shown = [int(size) for size in sizes[order[:drawn]]]
    rest = [int(sizes[order[drawn:]].sum())] if found.count > drawn else []
    return table[found.labels], component_legend(title, shown + rest, count=found.count)


def _block_sums(mask: NDArray[np.bool_], steps: Shape3) -> NDArray[np.uint32]:
    """Foreground voxels in each block that pooling makes one voxel of."""
    total = mask.astype(np.uint32)
    for axis, step in enumerate(steps):
        if step > 1:
            total = np.add.reduceat(total, np.arange(0, total.shape[axis], step), axis=axis)
    return total


def _cut(drawn: NDArray[np.uint8], shape: Shape3, steps: Shape3) -> tuple[Box, tuple[str, ...]]:
    """The part of a pooled drawing that holds anything, with a margin, and footnotes on what it leaves out."""
    whole = Box.whole(Shape3(*drawn.shape))
    margin = max(3, round(0.04 * max(drawn.shape)))
    cut = (Box.around(drawn > 0) or whole).grown((margin, margin, margin)).intersection(whole)
    notes = []
    if cut != whole:
        ranges = (
            f"{axis} {a * step} to {min(b * step, n) - 1}"
            for axis, a, b, step, n in zip("zyx", cut.start, cut.stop, steps, shape, strict=True)
        )
        notes.append(f"shown: {', '.join(ranges)} of {_by(shape)} voxels")
    if max(steps) > 1:
        notes.append(f"drawn: one voxel for {_by(steps)}")
    return cut, tuple(notes)


def _mask(opened: Opened, box: Box, label: int | None) -> NDArray[np.bool_]:
    if opened.source.channels != 1:
        raise InputError(f"{opened.path} has {opened.source.channels} channels; expected one of integer labels")
    values = opened.source.read(box)[0]
    if values.dtype.kind not in "bui":
        whole = np.rint(values)
        with np.errstate(invalid="ignore"):
            if not bool((abs(values - whole) <= NEAR_INTEGER).all()):
                raise InputError(
                    f"{opened.path} holds no mask: expected integers, got {values.dtype} values from {values.min():g} "
                    f"to {values.max():g}; give a mask, not an image or a probability"
                )
        values = whole
    mask: NDArray[np.bool_] = values != 0 if label is None else values == label
    return mask


def _by(values: Iterable[float]) -> str:
    return " x ".join(f"{value:.4g}" if isinstance(value, float) else f"{value}" for value in values)
