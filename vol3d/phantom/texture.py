"""What fills a scan between its vessels: smooth fields, crumbs of gel, streaks, specks and rings."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from vol3d.shapes import Shape3

Field = NDArray[np.float32]


def smooth_field(shape: Shape3, *, scale: float, rng: np.random.Generator) -> Field:
    """A wavy field (Z, Y, X) of about unit standard deviation whose waves are about scale voxels long."""
    coarse = tuple(max(2, int(np.ceil(n / scale)) + 1) for n in shape)
    return stretch(rng.standard_normal(coarse, dtype=np.float32), shape) * np.float32(1.6)


def grain(shape: Shape3, *, sigma: float, rng: np.random.Generator) -> Field:
    """Noise (Z, Y, X) of unit standard deviation, blurred by a Gaussian of sigma voxels."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap")
    return np.asarray(noise / noise.std(), dtype=np.float32)


def stretch(coarse: Field, shape: Shape3) -> Field:
    """A coarse (Z, Y, X) field drawn out to shape, linearly, corner to corner."""
    result = coarse
    for axis, n in enumerate(shape):
        place = np.linspace(0.0, result.shape[axis] - 1, n)
        low = np.minimum(place.astype(int), result.shape[axis] - 2)
        part = (place - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        result = result.take(low, axis=axis) * (1 - part) + result.take(low + 1, axis=axis) * part
    return result


def crumbs(shape: Shape3, *, size: float, rng: np.random.Generator) -> Field:
    """Angular pieces about size voxels wide with gaps between: 0 in the gaps, around 1 in a piece.

    The gel in which an organ is packed is chopped; in a slice it looks like gravel.
    """
    half = Shape3(*(max(2, -(-n // 2)) for n in shape))
    count = max(4, int(shape.voxels / size**3))
    # Pieces are longer than thick: distances along z and y shrink a little.
    metric = np.array([1.0, 0.75, 1.1])
    seeds = rng.uniform(0.0, 1.0, (count, 3)) * half * metric
    voxels = np.stack(np.meshgrid(*(np.arange(n) for n in half), indexing="ij"), axis=-1).reshape(-1, 3) * metric
    distance, nearest = cKDTree(seeds).query(voxels, k=2)
    level = np.where(rng.random(count) < 0.25, 0.0, rng.normal(1.0, 0.15, count))
    gap = np.clip((distance[:, 1] - distance[:, 0]) * 1.5 - 0.3, 0.0, 1.0)
    coarse = (level[nearest[:, 0]] * gap).reshape(half).astype(np.float32)
    return stretch(coarse, shape)


def streaks(directions: Field, *, rng: np.random.Generator) -> Field:
    """Fine rays (Z, Y, X) of about unit deviation along directions (3, Z, Y, X), which point away from a middle."""
    length = np.sqrt((directions**2).sum(axis=0)) + np.float32(1e-6)
    cells = 48
    table = rng.standard_normal((cells + 1,) * 3, dtype=np.float32)
    place = ((directions / length + 1) * np.float32(cells / 2)).astype(np.intp)
    return np.asarray(table[place[0], place[1], place[2]])


def specks(shape: Shape3, where: NDArray[np.intp], *, sigma: float, heights: NDArray[np.float64]) -> Field:
    """Small round dots: at each flat index of where (N,) one of that height (N,) and width sigma voxels."""
    dots = np.zeros(shape, dtype=np.float32)
    dots.ravel()[where] = heights
    return np.asarray(ndimage.gaussian_filter(dots, sigma) * np.float32((2 * np.pi) ** 1.5 * sigma**3))


def rings(shape: Shape3, *, rng: np.random.Generator) -> Field:
    """Circles around the turning axis (z) through the middle, about unit height, as (1, Y, X).

    Each detector column errs a little, and a few err much.
    """
    y, x = np.ogrid[: shape.y, : shape.x]
    radius = np.hypot(y - (shape.y - 1) / 2, x - (shape.x - 1) / 2)
    columns = int(radius.max()) + 2
    error = rng.standard_normal(columns) * np.where(rng.random(columns) < 0.08, 3.0, 0.7)
    return np.interp(radius, np.arange(columns), error).astype(np.float32)[None]
