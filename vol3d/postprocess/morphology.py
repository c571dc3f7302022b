"""Fill what a mask encloses, close what it nearly encloses, remove what is thin, and smooth its surface."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vol3d.postprocess.blocks import BlockStep, LocalStep, Region
from vol3d.postprocess.scene import Applied, Locality, Mask, RegionScene
from vol3d.regions.blocks import AT_EDGE, VOXELS
from vol3d.regions.distance import dilate_mm, erode_mm, reach_voxels
from vol3d.shapes import Spacing

_ONE = 1 << 17  # the sum of whole weights along an axis: float64 holds its cube


def close_gaps(mask: Mask, *, radius_mm: float, spacing: Spacing) -> Mask:
    """A (Z, Y, X) mask and the voxels that no ball of radius_mm outside it can reach (a closing in mm).

    It joins the pieces of a broken wall, so that a lumen can be filled. The volume's edge is no wall.
    """
    return erode_mm(dilate_mm(mask, radius_mm, spacing), radius_mm, spacing)


def open_mm(mask: Mask, *, radius_mm: float, spacing: Spacing) -> Mask:
    """The voxels of a (Z, Y, X) mask that balls of radius_mm inside it cover (an opening in mm).

    It cuts bridges and removes specks that are thinner. At the volume's edge the mask counts as going on.
    """
    return dilate_mm(erode_mm(mask, radius_mm, spacing), radius_mm, spacing)


def smooth_mm(mask: Mask, *, sigma_mm: float, spacing: Spacing) -> Mask:
    """Where a (Z, Y, X) mask, blurred by a Gaussian of sigma_mm, is at least one half; the volume's edge mirrors it.

    Steps of the surface vanish, and so does what is thin: a long tube of a radius below 1.18 sigma, a sheet
    thinner than 1.35 sigma, a ball of a radius below 1.54 sigma. Gaps as narrow are filled likewise.
    A tensor's is found on its device.
    """
    z, y, x = (_weights(sigma_mm / step) for step in spacing)
    if not isinstance(mask, np.ndarray):
        from vol3d.postprocess.tensor_blur import above_half  # who has a tensor has loaded torch

        return above_half(mask, (z, y, x))
    # In whole numbers, which add up to the same in any order, wherever the volume is cut.
    along_z = ndimage.correlate1d(mask, z, axis=0, output=np.int32)
    result = np.empty_like(mask)
    for plane, sums in zip(result, along_z, strict=True):
        sums = ndimage.correlate1d(ndimage.correlate1d(sums, y, axis=0, output=np.float64), x, axis=1)
        plane[:] = 2 * sums >= float(_ONE**3)
    return result


def _weights(sigma: float) -> NDArray[np.int64]:
    """A Gaussian of sigma voxels, up to four of them away, in whole numbers that add up to _ONE."""
    far = _far(sigma)
    weights = np.exp(-0.5 * (np.arange(-far, far + 1) / max(sigma, 1e-9)) ** 2)
    whole: NDArray[np.int64] = np.rint(weights / weights.sum() * _ONE).astype(np.int64)
    whole[far] += _ONE - whole.sum()
    return whole


def _far(sigma: float) -> int:
    return math.ceil(4 * sigma)


@dataclass(frozen=True, kw_only=True)
class FillHoles(BlockStep):
    """Fill enclosed background, all of it or small pieces only (inclusive, to a millionth of a voxel).

    A hole is a component of the background that does not reach the volume's edge; background voxels
    join by their faces (6), the partner of 26-connected foreground. A tube that is open at the edge
    has no hole. A volume one voxel thick has no edge along that axis: its holes lie in its plane.
    """

    name: ClassVar[str] = "fill_holes"
    locality: ClassVar[Locality] = "components"
    tensors: ClassVar[bool] = True

    max_volume_mm3: float | None = None

    def __post_init__(self) -> None:
        fine = self.max_volume_mm3 is None or self.max_volume_mm3 > 0
        self.require("max_volume_mm3", fine, "more than zero cubic millimetres, or null for any hole")

    def run(self, region: Region) -> str:
        """Add the holes."""
        voxel_mm3 = region.scene.spacing.voxel_mm3
        limit_mm3 = math.inf if self.max_volume_mm3 is None else self.max_volume_mm3
        found = region.components((VOXELS, AT_EDGE), connectivity=6, of=lambda part: ~part.mask)
        voxels, at_edge = found.measured
        region.add(found, (voxels * voxel_mm3 <= limit_mm3 + 1e-6 * voxel_mm3) & ~at_edge)
        return ""


@dataclass(frozen=True, kw_only=True)
class _ByBall(LocalStep):
    """What a closing and an opening share: dilated and eroded by one radius."""

    locality: ClassVar[Locality] = "halo"

    radius_mm: float

    def __post_init__(self) -> None:
        self.require("radius_mm", 0 <= self.radius_mm < math.inf, "zero or more millimetres")

    def reach(self, spacing: Spacing) -> int:
        """Twice the radius, once for each."""
        return 2 * reach_voxels(self.radius_mm, spacing)[0]


@dataclass(frozen=True, kw_only=True)
class CloseGaps(_ByBall):
    """Close gaps up to twice a radius wide."""

    name: ClassVar[str] = "close_gaps"
    tensors: ClassVar[bool] = True

    def apply(self, mask: Mask, scene: RegionScene) -> Applied:
        """The closed mask."""
        return Applied(close_gaps(mask, radius_mm=self.radius_mm, spacing=scene.spacing))


@dataclass(frozen=True, kw_only=True)
class RemoveThin(_ByBall):
    """Remove what no ball of a radius fits into."""

    name: ClassVar[str] = "remove_thin"
    tensors: ClassVar[bool] = True

    def apply(self, mask: Mask, scene: RegionScene) -> Applied:
        """The opened mask."""
        return Applied(open_mm(mask, radius_mm=self.radius_mm, spacing=scene.spacing))


@dataclass(frozen=True, kw_only=True)
class Smooth(LocalStep):
    """Blur the mask and take what is at least one half."""

    name: ClassVar[str] = "smooth"
    locality: ClassVar[Locality] = "halo"
    tensors: ClassVar[bool] = True

    sigma_mm: float

    def __post_init__(self) -> None:
        self.require("sigma_mm", 0 <= self.sigma_mm < math.inf, "zero or more millimetres")

    def reach(self, spacing: Spacing) -> int:
        """As far as the Gaussian goes."""
        return _far(self.sigma_mm / spacing.z)

    def apply(self, mask: Mask, scene: RegionScene) -> Applied:
        """The smoothed mask."""
        return Applied(smooth_mm(mask, sigma_mm=self.sigma_mm, spacing=scene.spacing))
