"""The surface of a mask, read from its 2x2x2 cubes of voxels.

A cube's code is a byte: bit ``4 dz + 2 dy + dx`` is the voxel at (dz, dy, dx) in it. The mask goes on
with false voxels, so a (Z, Y, X) mask has (Z + 1, Y + 1, X + 1) cubes, and cube (z, y, x) ends in
voxel (z, y, x). A cube is a piece of surface when its code is neither 0 nor 255. Its area is that of
the marching-cubes triangles through the midpoints of its cut edges (Lorensen and Cline 1987; the
areas are those of DeepMind's surface-distance).
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from vol3d.shapes import Shape3, Spacing

CUBES_AT_ONCE = 1 << 19
"""A piece of work that stays in the cache."""

_Corner = tuple[int, int, int]
_CORNERS: tuple[_Corner, ...] = tuple((z, y, x) for z, y, x in product((0, 1), repeat=3))  # in bit order
_NEIGHBOURS = (slice(None, -1), slice(1, None))


def cube_codes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The code of every cube of a (Z, Y, X) mask: (Z + 1, Y + 1, X + 1) uint8."""
    shape = tuple(n + 1 for n in mask.shape)
    empty = np.zeros((1, *mask.shape[1:]), dtype=np.bool_)
    return _codes(np.concatenate([empty, mask, empty])).reshape(shape)


def paired_codes(slabs: Iterable[tuple[NDArray[np.bool_], NDArray[np.bool_]]]) -> NDArray[np.int64]:
    """How often each pair of codes occurs in the cubes of two masks: (256, 256), the first mask's code first.

    slabs are the two masks cut along z, in order: pairs of (planes, Y, X). They may be read one
    after another from masks that do not fit in memory; any cut gives the same counts. Cubes that
    are no surface in either mask are not counted.
    """
    counter = PairedCodes()
    for one, other in slabs:
        counter.add(one, other)
    return counter.finish()


class PairedCodes:
    """paired_codes of masks whose slabs are handed over one by one; only their last planes are kept."""

    def __init__(self) -> None:
        self._counts = np.zeros(1 << 16, dtype=np.int64)
        self._last: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None

    def add(self, one: NDArray[np.bool_], other: NDArray[np.bool_]) -> None:
        """The next planes, (planes, Y, X) each, along z."""
        empty = np.zeros((1, *one.shape[1:]), dtype=np.bool_)
        last = self._last or (empty, empty)
        one, other = np.concatenate([last[0], one]), np.concatenate([last[1], other])
        self._last = one[-1:], other[-1:]
        if not one.any() and not other.any():
            return
        first, second = _codes(one), _codes(other)
        # Subtracting one wraps 0 around, so that a single comparison finds both 0 and 255.
        surface = np.flatnonzero(((first - np.uint8(1)) < 254) | ((second - np.uint8(1)) < 254))
        pairs = first[surface].astype(np.uint16) << np.uint16(8) | second[surface]
        self._counts += np.bincount(pairs, minlength=1 << 16)

    def finish(self) -> NDArray[np.int64]:
        """The counts, (256, 256), of masks that end here."""
        if self._last is not None:
            empty = np.zeros_like(self._last[0])
            self.add(empty, empty)
        return self._counts.reshape(256, 256)


def outline_counts(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The paired_codes of a mask that is one slice as those of prisms: of the cubes, those that its outline cuts.

    The prisms go on above and below the slice, so that it has no surface there. Their area is the length
    of the outline, as marching squares draw it, times the slice's thickness.
    """
    prisms = np.zeros_like(counts)
    # Cubes that begin in the slice have codes below 16; of those that end in it one is 16 or more.
    prisms[::17, ::17] = counts[:16, :16]
    return prisms


def outline_codes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The codes of the prisms of outline_counts, for a (1, Y, X) mask: (1, Y + 1, X + 1)."""
    return cube_codes(mask)[1:] * np.uint8(17)


def uneven_corners(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The eight corners, (8, n) in bit order, of the cubes between planes (D, Y, X) whose corners differ.

    For whole numbers up to 255 rather than masks: whatever is asked of the corners, all others answer 0 or 255.
    """
    low = high = planes
    for axis in range(3):
        before, after = (tuple(part if a == axis else slice(None) for a in range(3)) for part in _NEIGHBOURS)
        low, high = np.minimum(low[before], low[after]), np.maximum(high[before], high[after])
    uneven: NDArray[np.bool_] = np.zeros(planes.shape, dtype=np.bool_)  # in the planes' own places
    uneven[:-1, :-1, :-1] = low != high
    first = np.flatnonzero(uneven)
    _, height, width = planes.shape
    flat, corners = planes.reshape(-1), np.empty((8, len(first)), dtype=np.uint8)
    for bit, (dz, dy, dx) in enumerate(_CORNERS):
        flat.take(first + ((dz * height + dy) * width + dx), out=corners[bit])
    return corners


def codes_of_corners(corners: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The codes (n,) of cubes whose corners (8, n) are in a mask or not."""
    codes = np.zeros(corners.shape[1], dtype=np.uint8)
    for bit, corner in enumerate(corners.view(np.uint8)):
        codes |= corner << np.uint8(bit)
    return codes


def slab_depth(shape: Shape3) -> int:
    """How many z planes of a volume make a slab that is quick to work on."""
    return max(1, CUBES_AT_ONCE // ((shape.y + 1) * (shape.x + 1)))


def area_table(spacing: Spacing) -> NDArray[np.float64]:
    """The surface in a cube of each code, in mm2: (256,), zero for 0 and 255."""
    codes, normals = _triangles()
    # Stretching space by the spacing stretches each component of an area by the other two steps.
    stretch = spacing.voxel_mm3 / np.asarray(spacing)
    table = np.zeros(256)
    np.add.at(table, codes, np.linalg.norm(normals * stretch, axis=1))
    return table


def _codes(planes: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The codes of the cubes between D + 1 planes (D + 1, Y, X), flat: D (Y + 1) (X + 1)."""
    depth, height, width = planes.shape[0], planes.shape[1] + 1, planes.shape[2] + 1
    # One false column and row behind each plane also stand before the next row and plane, so a
    # neighbour is a fixed number of bytes away, and all the work is on long runs of bytes.
    start = height * width + width + 1 - (height * width + width + 1) % -8  # whole words
    size = start + depth * height * width
    run = np.zeros(size + (-size) % 8, dtype=np.uint8)
    run[start:size].reshape(depth, height, width)[:, :-1, :-1] = planes
    for away, bits in ((1, 1), (width, 2), (height * width, 4)):
        # No bit leaves its byte, so eight bytes are shifted at once.
        moved = (run.view(np.uint64) << np.uint64(bits)).view(np.uint8)
        moved[away:] |= run[:-away]
        run = moved
    return run[start + height * width : size]


@lru_cache(maxsize=1)
def _triangles() -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The triangles of all codes: which code each belongs to, and its area vector at unit spacing."""
    codes, normals = [], []
    for code in range(256):
        inside = {corner for bit, corner in enumerate(_CORNERS) if code >> bit & 1}
        # Where the surface may be joined in two ways, the fewer voxels are kept apart.
        fewer = inside if len(inside) <= 4 else set(_CORNERS) - inside
        for part in _parts(fewer):
            for triangle in _triangulation(_outline(part)):
                a, b, c = np.asarray(triangle)
                codes.append(code)
                normals.append(np.cross(b - a, c - a) / 8)  # half, in coordinates that are doubled
    return np.asarray(codes), np.asarray(normals)


def _parts(corners: set[_Corner]) -> Iterator[set[_Corner]]:
    """The corners that hang together along the cube's edges."""
    left = set(corners)
    while left:
        part = {left.pop()}
        while grown := {c for c in left if any(_distance(c, p) == 1 for p in part)}:
            part |= grown
            left -= grown
        yield part


def _outline(part: set[_Corner]) -> list[_Corner]:
    """The polygon around a part, through the midpoints of the edges that leave it (coordinates doubled).

    On every face of the cube a part of at most four corners has no cut edge or two; the polygon
    goes from one to the other.
    """
    midpoints = [
        (a[0] + b[0], a[1] + b[1], a[2] + b[2])
        for a in part
        for b in _CORNERS
        if b not in part and _distance(a, b) == 1
    ]
    polygon = [midpoints.pop()]
    while midpoints:
        following = next(m for m in midpoints if _share_a_face(polygon[-1], m))
        midpoints.remove(following)
        polygon.append(following)
    return polygon


def _triangulation(polygon: list[_Corner]) -> list[tuple[_Corner, _Corner, _Corner]]:
    """The triangulation of largest area: of the surfaces through a bent polygon, the one with the flattest pieces."""
    if len(polygon) < 3:
        return []
    candidates = [
        [(polygon[0], polygon[k], polygon[-1]), *_triangulation(polygon[: k + 1]), *_triangulation(polygon[k:])]
        for k in range(1, len(polygon) - 1)
    ]
    return max(candidates, key=_area)


def _area(triangles: list[tuple[_Corner, _Corner, _Corner]]) -> float:
    return sum(float(np.linalg.norm(np.cross(np.subtract(b, a), np.subtract(c, a)))) for a, b, c in triangles)


def _distance(a: _Corner, b: _Corner) -> int:
    return sum(abs(i - j) for i, j in zip(a, b, strict=True))


def _share_a_face(a: _Corner, b: _Corner) -> bool:
    return any(i == j != 1 for i, j in zip(a, b, strict=True))
