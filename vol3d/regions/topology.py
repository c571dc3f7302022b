"""How a mask hangs together: its components, tunnels and cavities.

Voxels are closed cubes, so that those which share a corner hang together (26 neighbours), and the background
hangs together through faces alone (6 neighbours). Beyond the volume there is background.
"""

from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vol3d.regions.components import label


class Betti(NamedTuple):
    """The Betti numbers of a mask: components, tunnels through them, and cavities enclosed by them."""

    components: int
    tunnels: int
    cavities: int


def betti_numbers(mask: NDArray[np.bool_], *, euler: int) -> Betti:
    """The Betti numbers of a (Z, Y, X) mask whose Euler number is known.

    Components and cavities are counted, tunnels follow: components - tunnels + cavities is the Euler number.
    """
    components, background = label(mask, connectivity=26).count, label(~mask, connectivity=6)
    enclosed: NDArray[np.bool_] = np.ones(background.count + 1, dtype=np.bool_)
    enclosed[0] = False
    for axis, end in product(range(3), (0, -1)):
        enclosed[background.labels.take(end, axis=axis)] = False
    cavities = int(np.count_nonzero(enclosed))
    return Betti(components, components + cavities - euler, cavities)


def euler_number(codes: NDArray[np.int64]) -> int:
    """The Euler number of a mask by how often each code of vol3d.regions.cubes occurs in it, (256,).

    How often 0 and 255 occur does not matter. Counts of slabs add up.
    """
    return int(_eighths() @ codes) // 8


@lru_cache(maxsize=1)
def _eighths() -> NDArray[np.int64]:
    """What a cube of each code adds to the Euler number (vertices - edges + faces - voxels), in eighths.

    A cube lies around one vertex of the voxels' grid. Of what meets there it has the whole vertex, half of each
    edge, a quarter of each face and an eighth of each voxel; each is there if a voxel around it is true.
    """
    table = np.zeros(256, dtype=np.int64)
    voxels = (np.arange(256)[:, None] >> np.arange(8) & 1).astype(np.bool_).reshape(256, 2, 2, 2)
    for sides in product((None, 0, 1), repeat=3):  # along an axis: on the vertex, before or behind it
        around = (slice(None), *(slice(None) if side is None else slice(side, side + 1) for side in sides))
        dimension = sum(side is not None for side in sides)
        table += voxels[around].any(axis=(1, 2, 3)) * (-1) ** dimension * (8 >> dimension)
    return table
