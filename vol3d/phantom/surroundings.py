"""What lies around and in a kidney beside its vessels, as grey levels before each scan's own scale."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vol3d.phantom import texture
from vol3d.phantom.body import WALL_CONTRAST, Body, dress
from vol3d.phantom.texture import Field
from vol3d.phantom.tree import Branch
from vol3d.phantom.tubes import Tube, draw
from vol3d.shapes import Shape3

FLUID, GEL, CORTEX, MEDULLA, PELVIS, AIR, RIM = 0.28, 0.42, 0.52, 0.44, 0.34, 0.15, 0.62


def tissue(body: Body, vessels: NDArray[np.bool_], rng: np.random.Generator) -> Field:
    """Cortex with glomeruli, rayed medulla, a dark pelvis with a bright lining, the capsule, and tufts.

    Tufts are short and belong to no tree; one by one they look like pieces of the thinnest vessels.
    """
    shape = Shape3(*body.organ.shape)
    level = np.where(body.cortex, np.float32(CORTEX), np.float32(MEDULLA))
    level += np.float32(0.012) * texture.smooth_field(shape, scale=8, rng=rng)
    level += np.where(body.cortex, np.float32(0), np.float32(0.03) * texture.streaks(body.directions, rng=rng))
    level += np.float32(0.018) * texture.grain(shape, sigma=1.0, rng=rng)
    level = np.where(body.pelvis < 0, np.float32(PELVIS), level)
    level += np.where(np.abs(body.pelvis) < 0.7, np.float32(0.6 * WALL_CONTRAST), np.float32(0))
    capsule = max(1.0, body.radius / 30) / body.radius
    level += np.where(body.depth > 1 - capsule, np.float32(0.4 * WALL_CONTRAST), np.float32(0))
    glomeruli = _some(body.cortex & body.organ & ~vessels, share=1 / 900, rng=rng)
    heights = WALL_CONTRAST * rng.uniform(0.3, 0.9, len(glomeruli))
    level += texture.specks(shape, glomeruli, sigma=0.9, heights=heights)
    tufts = [_tuft(p, rng) for p in _points(body.organ & ~vessels, share=1 / 2500, rng=rng)]
    return np.asarray(level + draw(shape, tufts).contrast)


def packing(body: Body, branches: Sequence[Branch], rng: np.random.Generator) -> Field:
    """Gel crumbs in fluid with shards and dots, the container's rim, and lobes of tissue with tubes like vessels."""
    shape = Shape3(*body.organ.shape)
    outside = body.depth > 1.06
    level = np.float32(FLUID) + np.float32(GEL - FLUID) * texture.crumbs(shape, size=12.0, rng=rng)
    level += np.float32(0.012) * texture.grain(shape, sigma=1.0, rng=rng)
    stems = [_strand(p, branches, body.radius, rng) for p in _points(outside, share=1 / 30000, rng=rng)]
    lobes = [Tube(s.points, max(3.0, 0.2 * body.radius), np.zeros(len(s.points) - 1)) for s in stems]
    lobe = draw(shape, lobes).mask & outside
    flesh = np.float32(CORTEX) + np.float32(0.02) * texture.grain(shape, sigma=1.0, rng=rng)
    level = np.where(lobe, flesh, level)
    starts = [s.points[len(s.points) // 2] + rng.normal(0, body.radius / 10, 3) for s in stems for _ in range(2)]
    strands = [_strand(p, branches, body.radius, rng) for p in starts]
    level += np.where(lobe, draw(shape, stems + strands).contrast, np.float32(0))
    shards = [_shard(p, rng) for p in _points(outside, share=1 / 15000, rng=rng)]
    level += np.where(outside, draw(shape, shards).contrast, np.float32(0))
    dots = _some(outside, share=1 / 1500, rng=rng)
    level += texture.specks(shape, dots, sigma=0.8, heights=rng.uniform(0.1, 0.4, len(dots)))
    y, x = (np.linspace(-1, 1, n) for n in shape[1:])
    wall = np.hypot(y[:, None], x)
    level = np.where(wall > 0.965, np.float32(RIM), level)
    return np.where(wall > 1.0, np.float32(AIR), level)


def _strand(start: NDArray[np.float64], branches: Sequence[Branch], reach: float, rng: np.random.Generator) -> Tube:
    """A winding tube as thick as some branch of the tree and dressed like one."""
    steps = max(6, round(rng.uniform(0.4, 1.2) * reach / 1.5))
    heading = rng.standard_normal(3)
    turns = heading / np.linalg.norm(heading) + np.cumsum(rng.normal(0, 0.15, (steps, 3)), axis=0)
    pieces = 1.5 * turns / np.linalg.norm(turns, axis=1, keepdims=True)
    thick = max(branches[int(rng.integers(len(branches)))].radius, rng.uniform(0.8, 3.0))
    return dress(Branch(-1, start + np.cumsum(pieces, axis=0), thick), rng)


def _tuft(start: NDArray[np.float64], rng: np.random.Generator) -> Tube:
    """A thin, short, straight piece."""
    along = rng.standard_normal(3)
    end = start + along / np.linalg.norm(along) * rng.uniform(1.5, 5.0)
    return Tube(np.stack([start, end]), rng.uniform(0.9, 1.2), WALL_CONTRAST * rng.uniform(0.4, 0.85, 1))


def _shard(start: NDArray[np.float64], rng: np.random.Generator) -> Tube:
    """A short, flat, bright flake."""
    side, along = rng.standard_normal((2, 3))
    side -= along * (side @ along) / (along @ along)
    z, y, x = (float(v) for v in side / np.linalg.norm(side) * 4.0)
    end = start + along / np.linalg.norm(along) * rng.uniform(2, 9)
    return Tube(np.stack([start, end]), rng.uniform(1.5, 3.5), rng.uniform(0.1, 0.3, 1), squash=(z, y, x))


def _some(where: NDArray[np.bool_], *, share: float, rng: np.random.Generator) -> NDArray[np.intp]:
    """Flat indices of a random share of the true voxels, at least four of them."""
    places = np.flatnonzero(where)
    return rng.choice(places, min(max(4, round(share * len(places))), len(places)), replace=False)


def _points(where: NDArray[np.bool_], *, share: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A random share of the true voxels as (N, 3) points."""
    return np.stack(np.unravel_index(_some(where, share=share, rng=rng), where.shape), axis=1).astype(np.float64)
