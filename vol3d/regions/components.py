"""Connected components of a mask, with the same types whatever the data.

cc3d labels where it is installed; SciPy stands in. Both number the components 1, 2, ... in an
order of their own: only the partition is promised.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vol3d.geometry.box import Box
from vol3d.regions.reduce import counts
from vol3d.shapes import Index3

if TYPE_CHECKING:
    from torch import Tensor

Connectivity = Literal[6, 18, 26]
"""How many neighbours a voxel has: those that share a face, also an edge, also a corner."""

Labeller = Literal["cc3d", "scipy"]


@dataclass(frozen=True)
class Components:
    """labels is (Z, Y, X) int32: 0 is background, components are 1 to count."""

    labels: NDArray[np.int32]
    count: int


@dataclass(frozen=True)
class TensorComponents:
    """Components as a tensor: labels is (Z, Y, X) int32 on the mask's device, else as in Components."""

    labels: "Tensor"
    count: int


@overload
def label(
    mask: NDArray[np.bool_], *, connectivity: Connectivity = 26, labeller: Labeller | None = None
) -> Components: ...
@overload
def label(mask: "Tensor", *, connectivity: Connectivity = 26, labeller: Labeller | None = None) -> TensorComponents: ...
def label(
    mask: "NDArray[np.bool_] | Tensor", *, connectivity: Connectivity = 26, labeller: Labeller | None = None
) -> Components | TensorComponents:
    """The components of a (Z, Y, X) mask. labeller None takes cc3d where it is installed, else SciPy.

    The components of a tensor are a tensor on its device.

    Raises:
        ValueError: the mask is not a three-dimensional bool array, or connectivity is not 6, 18 or 26.
    """
    if not isinstance(mask, np.ndarray):
        return _label_tensor(mask, connectivity, labeller)
    if mask.ndim != 3 or mask.dtype != np.bool_:
        raise ValueError(f"expected a (Z, Y, X) bool mask, got {mask.dtype} of shape {mask.shape}")
    if connectivity not in (6, 18, 26):
        raise ValueError(f"connectivity must be 6, 18 or 26, got {connectivity}")
    if (labeller or _installed()) == "scipy":
        structure = ndimage.generate_binary_structure(3, (6, 18, 26).index(connectivity) + 1)
        labels, count = ndimage.label(mask, structure, output=np.int32)
    else:
        import cc3d

        # uint32 is the widest type that cc3d and int32 share: fewer than 2^31 components fit both.
        # Not as bool: for binary images cc3d 4.1.1 reserves too few labels where an axis is odd and
        # the components lie as densely as they can, and fails. Writable: it refuses read-only arrays.
        labels, count = cc3d.connected_components(
            np.require(mask, requirements=["C", "W"]).view(np.uint8),
            connectivity=connectivity,
            out_dtype=np.uint32,
            return_N=True,
        )
    return Components(labels.view(np.int32), int(count))


def _label_tensor(mask: "Tensor", connectivity: Connectivity, labeller: Labeller | None) -> TensorComponents:
    import torch

    found = label(mask.cpu().numpy(), connectivity=connectivity, labeller=labeller)
    return TensorComponents(torch.from_numpy(found.labels).to(mask.device), found.count)


def component_sizes(components: Components) -> NDArray[np.int64]:
    """Voxels of each component: (count + 1,), indexed by label. The background's entry is 0."""
    return counts(components.labels, components.count)


def component_boxes(components: Components) -> list[Box]:
    """The smallest box around each component, components 1 to count in order."""
    found = ndimage.find_objects(components.labels, max_label=components.count)
    return [Box(Index3(*(s.start for s in box)), Index3(*(s.stop for s in box))) for box in found]


@overload
def keep(components: Components, kept: NDArray[np.bool_]) -> NDArray[np.bool_]: ...
@overload
def keep(components: TensorComponents, kept: NDArray[np.bool_]) -> "Tensor": ...
def keep(components: Components | TensorComponents, kept: NDArray[np.bool_]) -> "NDArray[np.bool_] | Tensor":
    """The mask (Z, Y, X) of the components whose entry in kept (count + 1,) is true; never background.

    It lies where the labels lie.

    Raises:
        ValueError: kept has not one entry for the background and one for each component.
    """
    if kept.shape != (components.count + 1,):
        raise ValueError(f"expected {components.count + 1} entries (background first), got shape {kept.shape}")
    table = kept.astype(np.bool_)
    table[0] = False
    if isinstance(components, Components):
        return table[components.labels]
    import torch

    labels = components.labels
    return torch.from_numpy(table).to(labels.device).index_select(0, labels.reshape(-1)).reshape(labels.shape)


@lru_cache(maxsize=1)
def _installed() -> Labeller:
    try:
        import cc3d  # noqa: F401
    except ModuleNotFoundError:
        return "scipy"
    return "cc3d"
