"""A kidney to post-process at full size: probability, grey values and organ around a real or drawn mask of vessels.

All is made some planes at a time, and the same each time. What is around the mask is synthetic, so that each step of a
chain has something to do: the probability is the mask, blurred, with noise (what hysteresis drops), hollow where
vessels are thick (what is filled), with specks (what is too small) and lumps (what lies outside of the organ).
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vol3d.errors import UsageError
from vol3d.files.arrays import create_npy
from vol3d.files.folders import entries
from vol3d.files.machine import cores
from vol3d.files.mask_volumes import sennet_volumes
from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.geometry.grid import slabs
from vol3d.phantom.tree import Branch, grow_tree
from vol3d.phantom.tubes import Tube, draw
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.tasks.reporter import Reporter
from vol3d.volume.source import ArraySource, View, VolumeSource, filling

SPACING = Spacing(0.05, 0.05, 0.05)
KIDNEY_SHAPE = Shape3(501, 1706, 1510)  # of SenNet's kidney_3_dense
PLANES, MAKERS = 16, 4  # made at once by each thread, which takes 0.6 GB for SenNet's planes
REACH = 2  # of the blur
CELL = 16  # voxels along each edge of the organ mask's steps
HULL_CELLS = 5
LEAVES = 600


def real_mask(data: Path) -> VolumeSource:
    """The first volume of a SenNet table, which is a file or the only .csv of a folder.

    Raises:
        UsageError: there is no such file.
        InputError: it is damaged.
    """
    tables = [p for p in entries(data) if p.suffix == ".csv"] if data.is_dir() else [data]
    if len(tables) != 1:
        raise UsageError(f"expected one .csv of masks in {data}, found {len(tables)}")
    return next(iter(sennet_volumes(tables[0]).values()))


def drawn_mask(shape: Shape3, *, leaves: int = LEAVES) -> VolumeSource:
    """A vessel tree of this shape, the same each time."""
    rng = np.random.default_rng(0)
    way = rng.normal(size=(leaves, 3))
    inside = way / np.linalg.norm(way, axis=1)[:, None] * np.cbrt(rng.random((leaves, 1)))
    half = np.array(shape) / 2
    targets, root = half + 0.85 * half * inside, half * (1.0, 1.0, 0.05)
    branches = grow_tree(root, targets, leaf_radii=rng.uniform(1.0, 2.0, leaves), rng=rng)
    return _Drawn(ArraySource(np.broadcast_to(np.uint8(0), (1, *shape)), from_spacing(SPACING)), branches)


@dataclass(frozen=True)
class _Drawn(View):
    """A tree's mask, drawn where it is read."""

    branches: tuple[Branch, ...]

    def read(self, box: Box) -> NDArray[Any]:
        tubes = [
            Tube(b.points - (box.start.z, 0, 0), b.radius, np.ones(len(b.points) - 1))
            for b in self.branches
            if b.points[:, 0].min() - b.radius < box.stop.z and b.points[:, 0].max() + b.radius > box.start.z
        ]
        planes = draw(Shape3(box.shape.z, *self.shape[1:]), tubes).mask[None].view(np.uint8)
        return planes[(slice(None), slice(None), *box.slices[1:])]


def write_scene(folder: Path, mask: VolumeSource, reporter: Reporter) -> None:
    """Write probability.npy (float16), image.npy (uint16) and organ.npy (bool), (Z, Y, X), into the folder."""
    shape, affine = mask.shape, from_spacing(SPACING)
    organ = _hull(mask)
    with (
        reporter.progress("making the volume", total=shape.z, unit="planes") as advance,
        filling(create_npy(folder / "probability.npy", shape=shape, dtype=np.float16, affine=affine)) as p_sink,
        filling(create_npy(folder / "image.npy", shape=shape, dtype=np.uint16, affine=affine)) as image_sink,
        filling(create_npy(folder / "organ.npy", shape=shape, dtype=np.bool_, affine=affine)) as organ_sink,
    ):

        def make(box: Box) -> int:
            probability, image = _planes(mask, box)
            p_sink.write(box, probability[None])
            image_sink.write(box, image[None])
            cells = [organ[z // CELL] for z in range(box.start.z, box.stop.z)]
            organ_sink.write(box, np.stack([_widened(plane, shape) for plane in cells])[None])
            return box.shape.z

        with ThreadPoolExecutor(min(MAKERS, cores())) as pool:
            for planes in pool.map(make, slabs(shape, PLANES)):
                advance(planes)


def _planes(mask: VolumeSource, box: Box) -> tuple[NDArray[np.float16], NDArray[np.uint16]]:
    """Probability and grey values of whole planes."""
    around = box.grown((REACH, 0, 0)).intersection(Box.whole(mask.shape))
    core = box.shifted(Index3(-around.start.z, 0, 0)).slices[0]
    vessels = mask.read(around)[0] > 0
    blurred = ndimage.uniform_filter(ndimage.uniform_filter(vessels.astype(np.float32), 3), 3)[core]
    deep = blurred > 1 - 0.5 / 3**6  # no corner of the 5 x 5 x 5 voxels around is outside
    probability = np.empty(blurred.shape, dtype=np.float16)
    image = np.empty(blurred.shape, dtype=np.uint16)
    for row, z in enumerate(range(box.start.z, box.stop.z)):
        rng = np.random.default_rng([1, z])
        fine = rng.standard_normal(blurred[row].shape, dtype=np.float32)
        p = np.float32(1.6) * blurred[row] + np.float32(0.18) * ndimage.uniform_filter(fine, 3)  # of deviation 0.06
        p[deep[row]] = 0.05
        for edge, count in ((3, rng.poisson(4)), (8, rng.poisson(0.5))):
            for y, x in rng.integers(0, np.maximum(1, np.array(p.shape) - edge), (count, 2)):
                p[y : y + edge, x : x + edge] = 0.9
        probability[row] = np.clip(p, 0, 1)
        image[row] = np.clip(20_000 + 6_000 * blurred[row] + 700 * fine, 0, 65_535)
    return probability, image


def _hull(mask: VolumeSource) -> NDArray[np.bool_]:
    """The cells in and between the vessels, (z, y, x) cells."""
    steps = [range(0, n, CELL) for n in mask.shape[1:]]
    rows = []
    for box in slabs(mask.shape, CELL):
        plane = mask.read(box)[0].any(axis=0)
        for axis, starts in enumerate(steps):
            plane = np.logical_or.reduceat(plane, starts, axis=axis)
        rows.append(plane)
    cells = np.pad(np.stack(rows), HULL_CELLS + 1)
    near = ndimage.distance_transform_edt(~cells) <= HULL_CELLS if cells.any() else cells
    hull = ndimage.distance_transform_edt(near) > HULL_CELLS - 1  # one more than a closing
    inside = slice(HULL_CELLS + 1, -HULL_CELLS - 1)
    result: NDArray[np.bool_] = hull[inside, inside, inside]
    return result


def _widened(cells: NDArray[np.bool_], shape: Shape3) -> NDArray[np.bool_]:
    """A plane of cells as a plane of voxels."""
    return cells.repeat(CELL, 0).repeat(CELL, 1)[: shape.y, : shape.x]
