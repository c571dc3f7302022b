"""Connected components of a mask, with the same types whatever the data.

cc3d labels where it is installed; SciPy stands in. Both number the components 1, 2, ... in an
order of their own: only the partition is promised.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array, csgraph

from vol3d.geometry.box import Box
from vol3d.shapes import Index3

Connectivity = Literal[6, 18, 26]
"""How many neighbours a voxel has: those that share a face, also an edge, also a corner."""

Labeller = Literal["cc3d", "scipy"]

VOXELS_AT_ONCE = 1 << 22

# cc3d takes 0 for background: grey values of 0 become this, whose distance to every other value is that of 0.
NOUGHT = 1e-300


@dataclass(frozen=True)
class Components:
    """labels is (Z, Y, X) int32: 0 is background, components are 1 to count."""

    labels: NDArray[np.int32]
    count: int


def label(
    mask: NDArray[np.bool_],
    *,
    connectivity: Connectivity = 26,
    grey: NDArray[Any] | None = None,
    tolerance: float = 0.0,
    labeller: Labeller | None = None,
) -> Components:
    """The components of a (Z, Y, X) mask. labeller None takes cc3d where it is installed, else SciPy.

    Of grey values (Z, Y, X), neighbours join only where theirs differ by at most tolerance (inclusive, as
    float64); NaN joins nothing.

    Raises:
        ValueError: the mask is not a three-dimensional bool array, grey has another shape, or connectivity is
            not 6, 18 or 26.
    """
    if mask.ndim != 3 or mask.dtype != np.bool_:
        raise ValueError(f"expected a (Z, Y, X) bool mask, got {mask.dtype} of shape {mask.shape}")
    if grey is not None and grey.shape != mask.shape:
        raise ValueError(f"expected grey values of the mask's shape {mask.shape}, got {grey.shape}")
    if connectivity not in (6, 18, 26):
        raise ValueError(f"connectivity must be 6, 18 or 26, got {connectivity}")
    if (labeller or _installed()) == "scipy":
        if grey is not None:
            return _joined(mask, grey.astype(np.float64), tolerance, connectivity)
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


def component_sizes(components: Components) -> NDArray[np.int64]:
    """Voxels of each component: (count + 1,), indexed by label. The background's entry is 0."""
    sizes = np.zeros(components.count + 1, dtype=np.int64)
    flat = components.labels.reshape(-1)
    # In pieces, because bincount widens what it counts to int64; large enough that the tables do not dominate.
    step = max(VOXELS_AT_ONCE, components.count)
    for start in range(0, flat.size, step):
        sizes += np.bincount(flat[start : start + step], minlength=components.count + 1)
    sizes[0] = 0
    return sizes


def component_boxes(components: Components) -> list[Box]:
    """The smallest box around each component, components 1 to count in order."""
    found = ndimage.find_objects(components.labels, max_label=components.count)
    return [Box(Index3(*(s.start for s in box)), Index3(*(s.stop for s in box))) for box in found]


def keep(components: Components, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask (Z, Y, X) of the components whose entry in kept (count + 1,) is true; never background.

    Raises:
        ValueError: kept has not one entry for the background and one for each component.
    """
    if kept.shape != (components.count + 1,):
        raise ValueError(f"expected {components.count + 1} entries (background first), got shape {kept.shape}")
    table = kept.astype(np.bool_)
    table[0] = False
    return table[components.labels]


def _values(mask: NDArray[np.bool_], grey: NDArray[Any]) -> NDArray[np.float64]:
    values = grey.astype(np.float64, order="C")
    values[values == 0] = NOUGHT
    values[~mask] = 0
    return values


def _joined(
    mask: NDArray[np.bool_], grey: NDArray[np.float64], tolerance: float, connectivity: Connectivity
) -> Components:
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
