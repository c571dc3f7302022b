"""A synthetic kidney that looks like a HiP-CT scan, with its vessels and organ mask.

It shows what makes real scans hard (SenNet + HOA, 50 um): walls hardly brighter than the tissue
around dark or filled lumens, thin vessels that fade, weak stretches, collapsed vessels, glomeruli,
capsule and pelvis lining as bright as vessels, vessel-like strands, flakes and a container rim
outside the organ, ring artefacts, noise, and a grey scale of its own in each kidney.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vol3d.phantom.body import dress, grow_vessels, make_body
from vol3d.phantom.surroundings import packing, tissue
from vol3d.phantom.texture import Field, grain, rings, smooth_field
from vol3d.phantom.tubes import draw
from vol3d.shapes import Shape3, Spacing

SMALLEST_AXIS = 16  # voxels
NOISE = 0.030  # standard deviation, in the grey levels of surroundings.py
POINT_SPREAD = 0.6  # voxels


@dataclass(frozen=True)
class KidneySettings:
    """How a kidney is drawn. Its difficulty is part of the generator, not a setting.

    shape is (z, y, x) voxels, at least 16 each. voxel_mm is the isotropic spacing.
    smallest_radius_mm is that of the thinnest vessels; under 0.75 voxel they would break up.
    """

    shape: Shape3
    voxel_mm: float = 0.05
    smallest_radius_mm: float = 0.05

    def __post_init__(self) -> None:
        if min(self.shape) < SMALLEST_AXIS:
            raise ValueError(f"expected at least {SMALLEST_AXIS} voxels along z, y and x, got {tuple(self.shape)}")
        if not 0 < 0.75 * self.voxel_mm <= self.smallest_radius_mm:
            raise ValueError(
                f"smallest_radius_mm must be at least 0.75 of voxel_mm ({self.voxel_mm:g}), "
                f"got {self.smallest_radius_mm:g}"
            )


@dataclass(frozen=True)
class Kidney:
    """A scan and its truth: image uint16, vessels (lumen and wall) and organ bool, all (Z, Y, X)."""

    image: NDArray[np.uint16]
    vessels: NDArray[np.bool_]
    organ: NDArray[np.bool_]
    spacing: Spacing


def make_kidney(settings: KidneySettings, rng: np.random.Generator) -> Kidney:
    """Draw one kidney; the same settings and generator state give the same bytes."""
    body = make_body(settings.shape, rng)
    branches = grow_vessels(body, settings.smallest_radius_mm / settings.voxel_mm, rng)
    drawing = draw(settings.shape, [dress(branch, rng) for branch in branches])
    vessels = drawing.mask & body.organ
    inside = tissue(body, vessels, rng) + drawing.contrast
    image = _scan(np.where(body.organ, inside, packing(body, branches, rng)), rng)
    return Kidney(image, vessels, body.organ, Spacing(*(settings.voxel_mm,) * 3))


def _scan(clean: Field, rng: np.random.Generator) -> NDArray[np.uint16]:
    """The scanner: blur, shading, rings, noise, and this scan's own offset and gain as 16-bit integers."""
    shape = Shape3(*clean.shape)
    image = ndimage.gaussian_filter(clean, POINT_SPREAD)
    image *= 1 + np.float32(0.05) * smooth_field(shape, scale=max(shape), rng=rng)
    image += np.float32(0.012) * rings(shape, rng=rng)
    image += np.float32(NOISE) * grain(shape, sigma=0.5, rng=rng)
    offset, gain = rng.uniform(2_000, 18_000), rng.uniform(5_000, 25_000)
    return np.asarray(np.clip(np.rint(offset + gain * image), 0, 65_535), dtype=np.uint16)
