"""A table of a mask's components: their sizes, places, forms, probabilities, and where the organ is."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from vol3d.geometry.affine import spacing_of
from vol3d.geometry.box import Box
from vol3d.geometry.grid import planes_in, slabs
from vol3d.postprocess.blocks import BLOCK_VOXELS
from vol3d.postprocess.scene import Mask
from vol3d.regions.blocks import FIRST, VOXELS, Joined, LabelledSlab, join_slabs
from vol3d.regions.components import Connectivity, label
from vol3d.regions.measures import CORNERS, MOMENTS, counted, form, probability_peak, probability_sum
from vol3d.regions.reduce import PROBABILITY_UNITS
from vol3d.shapes import Spacing
from vol3d.volume.source import VolumeSource

POINTS_AT_ONCE = 1 << 18

Columns = dict[str, NDArray[Any]]
"""A column (n,) by its name, all with a row per component."""


def component_table(
    mask: VolumeSource,
    *,
    probability: VolumeSource | None = None,
    organ: VolumeSource | None = None,
    connectivity: Connectivity = 26,
    planes: int | None = None,
) -> Columns:
    """The components of a mask source (1, Z, Y, X), in the order of their first voxels in the flat volume.

    voxels, volume_mm3; start and stop of the half-open box, z, y, x; the centroid in voxels, and x, y, z in mm (RAS+,
    by the mask's affine); elongation and flatness as vol3d.regions.measures.form tells them. With a probability
    (1, Z, Y, X): its mean and peak. With an organ, not zero inside: organ_share of the component's voxels in it,
    and the distance of the nearest voxel centres in mm, 0 where one is shared, infinite where the organ is empty.
    All are the same wherever the volume is cut: planes are what is worked on at once (None: what memory allows).
    """
    measures = {"voxels": VOXELS, "first": FIRST, "moments": MOMENTS, "corners": CORNERS}
    if probability is not None:
        read = _reader(probability)
        measures |= {"sum": probability_sum(read), "peak": probability_peak(read)}
    if organ is not None:
        inside = _reader(organ)
        measures["shared"] = counted(lambda box: inside(box) != 0)
    cut = planes or planes_in(mask.shape, BLOCK_VOXELS)
    joined = join_slabs(_labelled(mask, cut, connectivity), tuple(measures.values()), connectivity=connectivity)
    found = dict(zip(measures, joined.measured, strict=True))
    order = np.argsort(found["first"][1:]) + 1
    ranked = {name: table[order] for name, table in found.items()}
    columns = _places(ranked, mask)
    if probability is not None:
        columns["mean_probability"] = ranked["sum"] / ranked["voxels"] / PROBABILITY_UNITS
        columns["peak_probability"] = ranked["peak"]
    if organ is not None:
        columns["organ_share"] = ranked["shared"] / ranked["voxels"]
        apart = _OrganDistance(mask, organ, cut, connectivity)
        columns["organ_distance_mm"] = apart.of(joined, found["shared"] > 0)[order]
    return columns


def _places(ranked: dict[str, NDArray[Any]], mask: VolumeSource) -> Columns:
    spacing, voxels, corners = spacing_of(mask.affine), ranked["voxels"], ranked["corners"]
    found = form(voxels, ranked["moments"], spacing)
    world = found.centroid @ mask.affine[:3, :3].T + mask.affine[:3, 3]
    columns: Columns = {"voxels": voxels, "volume_mm3": voxels * spacing.voxel_mm3}
    for n, axis in enumerate("zyx"):
        columns |= {f"start_{axis}": corners[:, n], f"stop_{axis}": -corners[:, 3 + n]}
    columns |= {f"centroid_{axis}": found.centroid[:, n] for n, axis in enumerate("zyx")}
    columns |= {f"centroid_{axis}_mm": world[:, n] for n, axis in enumerate("xyz")}
    return columns | {"elongation": found.elongation, "flatness": found.flatness}


def _reader(source: VolumeSource) -> Any:
    return lambda box: source.read(box)[0]


def _labelled(mask: VolumeSource, planes: int, connectivity: Connectivity) -> Iterator[LabelledSlab]:
    for box in slabs(mask.shape, planes):
        own = mask.read(box)[0]
        yield LabelledSlab(label(own, connectivity=connectivity), own, box.start.z, mask.shape)


class _OrganDistance:
    """How far components are from the organ; memory follows the organ's surface, time both surfaces."""

    def __init__(self, mask: VolumeSource, organ: VolumeSource, planes: int, connectivity: Connectivity) -> None:
        self.mask, self.planes, self.connectivity = mask, planes, connectivity
        self.spacing = spacing_of(mask.affine)
        points = [_points(_surface(organ, box), box, self.spacing) for box in slabs(organ.shape, planes)]
        # Unbalanced: the median splits of a balanced tree are slow on the ties of a grid.
        self.tree = cKDTree(np.concatenate(points), balanced_tree=False, compact_nodes=False)

    def of(self, joined: Joined, touching: Mask) -> NDArray[np.float64]:
        """The distance of each component, (count + 1,) in mm; touching are 0."""
        result = np.where(touching, 0.0, np.inf)
        for numbers, slab in zip(joined.numbers, _labelled(self.mask, self.planes, self.connectivity), strict=True):
            component = numbers[slab.components.labels]
            away = _surface(self.mask, slab.box) & ~touching[component]
            where, points = component[away], _points(away, slab.box, self.spacing)
            for start in range(0, len(points) if self.tree.n else 0, POINTS_AT_ONCE):
                part = slice(start, start + POINTS_AT_ONCE)
                np.minimum.at(result, where[part], self.tree.query(points[part])[0])
        return result


def _surface(source: VolumeSource, box: Box) -> Mask:
    """What in a box of whole planes is not zero but has a face neighbour that is: the nearest voxel is always such."""
    around = box.grown((1, 0, 0)).intersection(Box.whole(source.shape))
    inside = source.read(around)[0] != 0
    surface: Mask = inside & ~ndimage.binary_erosion(inside, border_value=1)
    return surface[box.start.z - around.start.z :][: box.shape.z]


def _points(mask: Mask, box: Box, spacing: Spacing) -> NDArray[np.float64]:
    """The true voxels' places, (n, 3) in mm from the volume's first voxel."""
    points: NDArray[np.float64] = (np.argwhere(mask) + np.asarray(box.start)) * np.asarray(spacing)
    return points
