"""Grow a mask from one voxel of an image, and write it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vol3d.datasets.given import Given, Millimetres, PathLike, given_volume, millimetres, name_of
from vol3d.errors import UsageError
from vol3d.files.volumes import create_volume
from vol3d.geometry.affine import spacing_of
from vol3d.geometry.grid import slabs
from vol3d.postprocess.clicked import Clicked, grow_from
from vol3d.regions.components import Connectivity
from vol3d.shapes import Index3
from vol3d.volume.source import VolumeSource, filling

SLAB_PLANES = 32


@dataclass(frozen=True, eq=False)  # an array has no hash
class Grown:
    """The region that grew from a voxel, (z, y, x); volume_mm3 is None where the image says no spacing."""

    start: Index3
    clicked: Clicked
    volume_mm3: float | None
    max_volume_mm3: float | None = None
    out: Path | None = None

    def record(self) -> dict[str, Any]:
        """Everything for JSON."""
        return {
            "start": list(self.start),
            "voxels": self.clicked.voxels,
            "volume_mm3": self.volume_mm3,
            "low": self.clicked.low,
            "high": self.clicked.high,
            "box_start": list(self.clicked.box.start),
            "box_stop": list(self.clicked.box.stop),
            "stopped": self.clicked.stopped,
            "out": None if self.out is None else str(self.out),
        }

    def text(self) -> str:
        """The same for people."""
        volume = "" if self.volume_mm3 is None else f", {self.volume_mm3:.4g} mm^3,"
        said = (
            f"from {tuple(self.start)}: {self.clicked.voxels} voxels{volume} "
            f"of grey values {self.clicked.low:g} to {self.clicked.high:g}"
        )
        if self.clicked.stopped:
            said += f"; stopped, as it grows beyond {self.max_volume_mm3:g} mm^3: try a smaller tolerance"
        return said


def grow(
    image: Given,
    start: Sequence[int],
    *,
    tolerance: float,
    connectivity: Connectivity = 26,
    max_distance_mm: float | None = None,
    max_volume_mm3: float | None = None,
    spacing: Millimetres | None = None,
    out: PathLike | None = None,
) -> Grown:
    """Grow from a voxel (z, y, x), as the image is stored, through grey values within tolerance of its own.

    image is a path, a Volume or an array of one channel; spacing (z, y, x in mm) overrides what a file says.
    Neighbours share a face (connectivity 6), also an edge (18), also a corner (26).
    Voxels further than max_distance_mm from the start do not join; a region of more than max_volume_mm3 is
    stopped. Only what lies around the region is read. out is the mask to write, on the image's grid.

    Raises:
        UsageError: the voxel, the numbers or the place to write cannot be, or a limit is in mm and the
            image says no spacing.
        InputError: the image is damaged.
    """
    if len(start) != 3:
        raise UsageError(f"expected a voxel (z, y, x), got {tuple(start)}")
    path = None if out is None else Path(out)
    if path is not None and path.exists():
        raise UsageError(f"{path} is there already; name another file for the mask")
    source = given_volume(image, spacing=millimetres(spacing))
    known = source.says != "nothing"
    if not known and (max_distance_mm is not None or max_volume_mm3 is not None):
        raise UsageError(f"{name_of(image)} says no spacing, so no limit can be in millimetres: give the spacing")
    try:
        clicked = grow_from(
            source,
            Index3(*start),
            tolerance=tolerance,
            connectivity=connectivity,
            max_distance_mm=math.inf if max_distance_mm is None else max_distance_mm,
            max_volume_mm3=math.inf if max_volume_mm3 is None else max_volume_mm3,
        )
    except ValueError as error:
        raise UsageError(f"{name_of(image)}: {error}") from error
    if path is not None:
        _write(path, clicked, source)
    volume_mm3 = clicked.voxels * spacing_of(source.affine).voxel_mm3 if known else None
    return Grown(Index3(*start), clicked, volume_mm3, max_volume_mm3, path)


def _write(path: Path, clicked: Clicked, source: VolumeSource) -> None:
    shape = source.shape
    with filling(create_volume(path, shape=shape, dtype=np.uint8, affine=source.affine, like=source)) as sink:
        for slab in slabs(shape, SLAB_PLANES):
            voxels = np.zeros((1, *slab.shape), dtype=np.uint8)
            both = slab.intersection(clicked.box)
            if both.shape.voxels:
                here, there = (both.seen_from(box.start).slices for box in (slab, clicked.box))
                voxels[0][here] = clicked.mask[there]
            sink.write(slab, voxels)
