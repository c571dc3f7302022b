"""Centre lines of masks."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vol3d.geometry.box import Box
from vol3d.regions.components import component_boxes, label


def skeleton(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The centre lines of a (Z, Y, X) mask: one voxel thin, inside it, as connected as it is (26 neighbours).

    Made by thinning (Lee et al. 1994, scikit-image's). That loses components of even thickness altogether, such as a
    vessel of 2x2 voxels: of these the voxels stay that are deepest in them, which are two voxels wide. In a volume
    one voxel thick the lines are those of the picture. Time and memory follow the box around the mask.
    """
    from skimage.morphology import skeletonize

    result = np.zeros_like(mask)
    box = Box.around(mask)
    if box is None:
        return result
    lines, whole = result[box.slices], label(mask[box.slices])
    lines |= skeletonize(mask[box.slices], method="lee") > 0
    kept = np.bincount(whole.labels[lines], minlength=whole.count + 1)
    boxes = component_boxes(whole)
    for number in np.flatnonzero(kept[1:] == 0) + 1:
        around = boxes[number - 1].slices
        lines[around] |= _deepest(whole.labels[around] == number)
    return result


def _deepest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The voxels that are the most steps away from the background, of which there is some beyond the mask's edge."""
    steps = ndimage.distance_transform_cdt(np.pad(mask, 1), metric="chessboard")[1:-1, 1:-1, 1:-1]
    deepest: NDArray[np.bool_] = steps == steps.max()
    return deepest
