"""Connected components of a mask, with the same types whatever the data.

cc3d labels where it is installed; SciPy stands in. Both number the components 1, 2, ... in an
order of their own: only the partition is promised.
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array, csgraph

from vol3d.geometry.box import Box
from vol3d.regions.reduce import counts
from vol3d.shapes import Index3

if TYPE_CHECKING:
    from torch import Tensor

Connectivity = Literal[6, 18, 26]
"""How many neighbours a voxel has: those that share a face, also an edge, also a corner."""

Labeller = Literal["cc3d", "scipy"]

# cc3d takes 0 for background: grey values of 0 become this, whose distance to every other value is that of 0.
NOUGHT = 1e-30


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
    mask: NDArray[np.bool_],
    *,
    connectivity: Connectivity = 26,
    grey: NDArray[Any] | None = None,
    tolerance: float = 0.0,
    labeller: Labeller | None = None,
) -> Components: ...
@overload
def label(
    mask: "Tensor",
    *,
    connectivity: Connectivity = 26,
    grey: "Tensor | None" = None,
    tolerance: float = 0.0,
    labeller: Labeller | None = None,
) -> TensorComponents: ...
def label(
    mask: "NDArray[np.bool_] | Tensor",
    *,
    connectivity: Connectivity = 26,
    grey: Any = None,
    tolerance: float = 0.0,
    labeller: Labeller | None = None,
) -> Components | TensorComponents:
    """The components of a (Z, Y, X) mask. labeller None takes cc3d where it is installed, else SciPy.

    Of grey values (Z, Y, X), neighbours join only where theirs differ by at most tolerance (inclusive, in
    their own precision, but at least float32); NaN joins nothing.

    The components of a tensor are a tensor on its device. On a CUDA device, where Triton is installed
    and no labeller is asked for, they are found there and numbered in the order of their first voxels.

    Raises:
        ValueError: the mask is not a three-dimensional bool array, grey has another shape, or connectivity
            is not 6, 18 or 26; one that is labelled on a CUDA device has 2^31 voxels or more.
    """
    if not isinstance(mask, np.ndarray):
        return _label_tensor(mask, connectivity, grey, tolerance, labeller)
    if mask.ndim != 3 or mask.dtype != np.bool_:
        raise ValueError(f"expected a (Z, Y, X) bool mask, got {mask.dtype} of shape {mask.shape}")
    if grey is not None and grey.shape != mask.shape:
        raise ValueError(f"expected grey values of the mask's shape {mask.shape}, got {grey.shape}")
    if connectivity not in (6, 18, 26):
        raise ValueError(f"connectivity must be 6, 18 or 26, got {connectivity}")
    if (labeller or _installed()) == "scipy":
        if grey is not None:
            return _joined(mask, comparable(grey), tolerance, connectivity)
        structure = ndimage.generate_binary_structure(3, (6, 18, 26).index(connectivity) + 1)
        labels, count = ndimage.label(mask, structure, output=np.int32)
        return Components(labels, int(count))
    import cc3d

    # uint32 is the widest type that cc3d and int32 share: fewer than 2^31 components fit both.
    # Not as bool: for binary images cc3d 4.1.1 reserves too few labels where an axis is odd and
    # the components lie as densely as they can, and fails. Writable: it refuses read-only arrays.
    values = np.require(mask, requirements=["C", "W"]).view(np.uint8) if grey is None else _values(mask, grey)
    # Never 0: asked for equal values, cc3d 4.1.1 tells values as small as NOUGHT apart from themselves.
    delta = 0 if grey is None else max(tolerance, NOUGHT)
    labels, count = cc3d.connected_components(
        values, connectivity=connectivity, delta=delta, out_dtype=np.uint32, return_N=True
    )
    return Components(labels.view(np.int32), int(count))


def label_planes(mask: NDArray[np.bool_], axis: int) -> Components:
    """The components of each plane of a (Z, Y, X) mask across an axis by itself; pixels join by their sides."""
    apart = np.zeros([2 * n - 1 if a == axis else n for a, n in enumerate(mask.shape)], dtype=np.bool_)
    planes = tuple(slice(None, None, 2 if a == axis else None) for a in range(3))
    apart[planes] = mask  # with an empty plane between any two
    found = label(apart, connectivity=6)
    return Components(np.ascontiguousarray(found.labels[planes]), found.count)


def comparable(grey: NDArray[Any]) -> NDArray[Any]:
    """A copy of grey values in the precision that they are compared in: float32, or float64 if that is more exact."""
    return grey.astype(np.result_type(grey.dtype, np.float32), order="C")


def _label_tensor(
    mask: "Tensor", connectivity: Connectivity, grey: "Tensor | None", tolerance: float, labeller: Labeller | None
) -> TensorComponents:
    import torch

    graded = grey is None or grey.dtype in (torch.float16, torch.float32)
    if mask.is_cuda and labeller is None and graded and find_spec("triton"):
        from vol3d.regions.labeller import label_on_device

        return TensorComponents(*label_on_device(mask, connectivity, grey, None if grey is None else tolerance))
    values = None if grey is None else grey.cpu().numpy()
    found = label(mask.cpu().numpy(), connectivity=connectivity, grey=values, tolerance=tolerance, labeller=labeller)
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


def _values(mask: NDArray[np.bool_], grey: NDArray[Any]) -> NDArray[Any]:
    values = comparable(grey)
    values[values == 0] = NOUGHT
    values[~mask] = 0
    return values


def _joined(mask: NDArray[np.bool_], grey: NDArray[Any], tolerance: float, connectivity: Connectivity) -> Components:
    """The components of the graph whose edges join neighbours in the mask with grey values within tolerance."""
    numbers = np.zeros(mask.shape, dtype=np.int32)
    numbers[mask] = np.arange(np.count_nonzero(mask))
    pairs = [np.empty((2, 0), dtype=np.int32)]
    for step in product((-1, 0, 1), repeat=3):
        if step > (0, 0, 0) and sum(map(abs, step)) <= (6, 18, 26).index(connectivity) + 1:
            one = tuple(slice(max(0, -d), min(0, -d) or None) for d in step)
            other = tuple(slice(max(0, d), min(0, d) or None) for d in step)
            alike = mask[one] & mask[other] & (abs(grey[one] - grey[other]) <= tolerance)
            pairs.append(np.stack([numbers[one][alike], numbers[other][alike]]))
    edges, inside = np.concatenate(pairs, axis=1), np.count_nonzero(mask)
    graph = coo_array((np.ones(edges.shape[1], dtype=np.bool_), tuple(edges)), shape=(inside, inside))
    count, groups = csgraph.connected_components(graph, directed=False) if inside else (0, 0)
    labels = np.zeros(mask.shape, dtype=np.int32)
    labels[mask] = groups + 1
    return Components(labels, int(count))


@lru_cache(maxsize=1)
def _installed() -> Labeller:
    try:
        import cc3d  # noqa: F401
    except ModuleNotFoundError:
        return "scipy"
    return "cc3d"
