"""The kidney's form: a dented ellipsoid with cortex, medulla and pelvis, and the vessels that fill it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vol3d.phantom.texture import Field, smooth_field
from vol3d.phantom.tree import Branch, Points, grow_tree
from vol3d.phantom.tubes import Tube
from vol3d.shapes import Shape3

WALL_CONTRAST = 0.30  # a full vessel wall against tissue, in the grey levels of the scan
HOLLOW_FROM = 1.8  # voxels of radius; a thinner vessel shows no lumen
STIFF_FROM = 3.5  # voxels of radius; a thicker one is open and empty


@dataclass(frozen=True)
class Body:
    """Where things are, all (Z, Y, X).

    depth is 0 in the middle and 1 at the surface; directions (3, Z, Y, X) point away from the
    pelvis in voxels; pelvis is below 0 inside it, in voxels about; root is where vessels enter.
    """

    depth: Field
    organ: NDArray[np.bool_]
    cortex: NDArray[np.bool_]
    pelvis: Field
    directions: Field
    root: Points
    radius: float


def make_body(shape: Shape3, rng: np.random.Generator) -> Body:
    """A kidney that fills most of the volume and never touches its border."""
    size = np.asarray(shape, dtype=np.float64)
    semi = size * rng.uniform([0.40, 0.37, 0.34], [0.43, 0.42, 0.40])
    centre = (size - 1) / 2 + size * rng.uniform(-0.015, 0.015, 3)
    radius = float(np.cbrt(semi.prod()))
    place = [np.arange(n, dtype=np.float32) for n in shape]
    u = [((p - c) / s).astype(np.float32) for p, c, s in zip(place, centre, semi, strict=True)]
    z, y, x = u[0][:, None, None], u[1][:, None], u[2]
    angle = rng.uniform(0.0, 2 * np.pi)
    hilum = np.array([0.0, np.sin(angle), np.cos(angle)])  # the direction of the dent, in ellipsoid units
    square = z * z + y * y + x * x
    toward = (y * hilum[1] + x * hilum[2]).astype(np.float32)
    dent = 0.35 * np.exp(-(square - 2 * toward + 1) / (2 * 0.35**2))
    dents = np.clip(smooth_field(shape, scale=radius / 2, rng=rng), -1.5, 1.5)  # so that no bump reaches the border
    depth = np.sqrt(square) + dent + np.float32(0.02) * dents
    waves = smooth_field(shape, scale=radius / 3, rng=rng)
    middle = 0.40 * hilum + rng.choice([-1, 1]) * np.array([0.05, 0.22 * hilum[2], -0.22 * hilum[1]])
    away = [axis - np.float32(m) for axis, m in zip((z, y, x), middle, strict=True)]
    pelvis = np.sqrt(away[0] ** 2 + away[1] ** 2 + away[2] ** 2) - 0.20 - 0.05 * waves
    directions = np.stack([np.broadcast_to(a * np.float32(s), shape) for a, s in zip(away, semi, strict=True)])
    return Body(
        depth=depth.astype(np.float32),
        organ=depth < 1,
        cortex=depth + 0.06 * waves > 0.70,
        pelvis=(pelvis * radius).astype(np.float32),
        directions=directions,
        root=centre + semi * 0.62 * hilum,
        radius=radius,
    )


def grow_vessels(body: Body, smallest_radius: float, rng: np.random.Generator) -> tuple[Branch, ...]:
    """A tree from the hilum to points spread through the outer half of the organ; the stem is about radius / 7.5."""
    places = np.flatnonzero((body.depth > 0.5) & (body.depth < 0.95) & (body.pelvis > 2))
    leaves = min(max(16, round((body.radius / 7.5 / smallest_radius) ** 3 / 1.6)), len(places))
    targets = np.stack(np.unravel_index(rng.choice(places, leaves, replace=False), body.depth.shape), axis=1)
    leaf_radii = smallest_radius * rng.uniform(1.0, 1.3, leaves)
    return grow_tree(body.root, targets.astype(np.float64), leaf_radii=leaf_radii, rng=rng)


def dress(branch: Branch, rng: np.random.Generator) -> Tube:
    """How a branch shows: hollow, filled, collapsed or thin, and perhaps with a stretch that almost vanishes.

    A collapsed vessel is flattened to 0.45 of its thickness and has no lumen left.
    """
    r, pieces = branch.radius, len(branch.points) - 1
    strength = WALL_CONTRAST * rng.uniform(0.75, 1.15) * np.clip(r / 1.6, 0.8, 1.0)
    along = np.arange(pieces, dtype=np.float64)
    weak = np.ones(pieces)
    if pieces >= 5 and rng.random() < 0.45:
        weak -= rng.uniform(0.7, 0.95) * np.exp(-(((along - rng.uniform(0.25, 0.75) * pieces) / 1.6) ** 2))
    kind = rng.choice(["hollow", "filled", "collapsed"], p=[0.6, 0.2, 0.2])
    if r < HOLLOW_FROM:
        return Tube(branch.points, r, strength * weak)
    if kind == "filled" and r < STIFF_FROM:
        return Tube(branch.points, r, 0.65 * strength * weak)
    if kind == "collapsed" and r < STIFF_FROM:
        return Tube(branch.points, 1.15 * r, strength * weak, squash=_across(branch.points, rng, thickness=0.45))
    lumen = WALL_CONTRAST * rng.uniform(-0.5, 0.05)
    return Tube(branch.points, r, strength * weak, lumen_contrast=lumen, wall=float(np.clip(0.3 * r, 0.9, 1.6)))


def _across(points: Points, rng: np.random.Generator, *, thickness: float) -> tuple[float, float, float]:
    """The squash of a tube along points to a fraction of its thickness, in a random direction across it."""
    along = points[-1] - points[0]
    side = np.cross(along, rng.standard_normal(3))
    z, y, x = side / max(float(np.linalg.norm(side)), 1e-9) * np.sqrt(thickness**-2 - 1)
    return float(z), float(y), float(x)
