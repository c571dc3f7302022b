"""A mask whose surface is moved by a margin in millimetres, or fades out beyond it, box by box."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vol3d.geometry.affine import spacing_of
from vol3d.geometry.box import Box
from vol3d.regions.distance import distance_mm, offset_mm, reach_voxels
from vol3d.volume.source import View


@dataclass(frozen=True)
class MarginView(View):
    """A mask source dilated by a margin above zero (the distance is inclusive), eroded by one below.

    Of several channels the first counts, and in it what is above zero.
    """

    margin_mm: float = 0.0

    @property
    def channels(self) -> int:
        """One."""
        return 1

    @property
    def dtype(self) -> np.dtype[np.bool_]:
        """A mask's."""
        return np.dtype(np.bool_)

    def read(self, box: Box) -> NDArray[np.bool_]:
        """The box of the moved mask, from as much around it as the margin reaches."""
        spacing = spacing_of(self.affine)
        around = box.grown(reach_voxels(abs(self.margin_mm), spacing)).intersection(Box.whole(self.shape))
        mask = self.source.read(around)[0] > 0
        own = box.seen_from(around.start)
        result: NDArray[np.bool_] = offset_mm(mask, self.margin_mm, spacing)[None, *own.slices]
        return result


@dataclass(frozen=True)
class FalloffView(View):
    """1 in a mask that is moved by a margin, and outside it linearly down to 0 at falloff_mm from its nearest voxel."""

    margin_mm: float
    falloff_mm: float

    @property
    def channels(self) -> int:
        """One."""
        return 1

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """float32."""
        return np.dtype(np.float32)

    def read(self, box: Box) -> NDArray[np.float32]:
        """The box of the shares, from as much around it as they reach."""
        spacing = spacing_of(self.affine)
        around = box.grown(reach_voxels(self.falloff_mm, spacing)).intersection(Box.whole(self.shape))
        moved = MarginView(self.source, self.margin_mm).read(around)[0]
        own = box.seen_from(around.start)
        share: NDArray[np.float32] = 1 - distance_mm(moved, spacing)[own.slices] / np.float32(self.falloff_mm)
        return np.maximum(share, 0)[None]
