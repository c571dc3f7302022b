"""What the regions of a case are made of, and what is odd about its label: what a report tells beside the plan."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vol3d.datasets.views import BoxedView
from vol3d.geometry.affine import spacing_of
from vol3d.geometry.box import Box
from vol3d.geometry.grid import slabs
from vol3d.preprocess.orient import TurnedView, ras_turn
from vol3d.regions.components import component_sizes, label
from vol3d.regions.distance import distance_mm
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.volume.labels import LabelSchema
from vol3d.volume.source import VolumeSource

MOST_VOXELS = 1 << 26
"""Labels are looked at whole up to here, beyond in the middle planes."""
LEAST_PADDING = 0.01
"""The share of a volume that must have its lowest value for that to be padding."""
PLANES = 16
BUMP = 0.6
"""A voxel of a region's middle is so much as far inside as any within three voxels."""


@dataclass(frozen=True)
class RegionFacts:
    """One region of a case. Components are those of 26 neighbours, their sizes mm^3.

    Radii (mm) are distances to the nearest voxel outside, less half the finest spacing: the largest, and the
    median along the region's middle, where no voxel nearby is much further inside. All are 0 where the region is empty.
    """

    volume_mm3: float = 0.0
    components: int = 0
    mean_mm3: float = 0.0
    smallest_mm3: float = 0.0
    largest_mm3: float = 0.0
    radius_mm: float = 0.0
    median_radius_mm: float = 0.0


@dataclass(frozen=True)
class CaseDetails:
    """One case: its regions by name, the SHA-256 of its image's voxels, and how its label fits its image.

    padding is the share of voxels with the image's lowest value, on_padding the share of the foreground that
    lies there; 0 where there is none. looked_at is the share of the planes whose labels were looked at; slice is the
    plane along z with the most foreground.
    """

    name: str
    regions: dict[str, RegionFacts]
    sha256: str
    padding: float
    on_padding: float
    looked_at: float
    slice: int


def case_details(
    name: str, image: VolumeSource, labels: VolumeSource, schema: LabelSchema, *, labelled_box: Box | None = None
) -> CaseDetails:
    """Look at one case. image (C, Z, Y, X), labels (1, Z, Y, X); both are turned to RAS.

    Beyond labelled_box (as stored) labels are not known.
    """
    turn = ras_turn(image)
    drawn = labels if labelled_box is None else BoxedView(labels, labelled_box, schema.ignore or 0)
    turned, turned_labels = TurnedView(image, turn), TurnedView(drawn, turn)
    planes = max(1, min(turned.shape.z, MOST_VOXELS // (turned.shape.y * turned.shape.x)))
    first = (turned.shape.z - planes) // 2
    middle = Box(Index3(first, 0, 0), Index3(first + planes, turned.shape.y, turned.shape.x))
    values, spacing = turned_labels.read(middle)[0], spacing_of(turned.affine)
    tables = schema.tables()  # one region's mask at a time: there may be a hundred
    anything: NDArray[np.bool_] = np.logical_or.reduce(tables)
    foreground = anything[values]
    sha256, padding, on_padding = _content(turned, foreground, first)
    return CaseDetails(
        name,
        {region: region_facts(table[values], spacing) for region, table in zip(schema.names, tables, strict=True)},
        sha256,
        padding,
        on_padding,
        planes / turned.shape.z,
        first + int(foreground.sum(axis=(1, 2)).argmax()),
    )


def region_facts(mask: NDArray[np.bool_], spacing: Spacing) -> RegionFacts:
    """What a (Z, Y, X) mask is made of."""
    box = Box.around(mask)
    if box is None:
        return RegionFacts()
    cut = mask[box.grown((1, 1, 1)).intersection(Box.whole(Shape3(*mask.shape))).slices]
    voxel = float(np.prod(spacing))
    found = label(np.ascontiguousarray(cut))
    sizes = component_sizes(found)[1:] * voxel
    inside = distance_mm(~cut, spacing)
    if not np.isfinite(inside).all():  # it fills the volume
        return RegionFacts(float(sizes.sum()), found.count, *[float(sizes[0])] * 3)
    # Furthest inside of its neighbours; a bump of the surface is that too, but there is much more further in.
    near, further = (ndimage.maximum_filter(inside, size=size) for size in (3, 7))
    ridge = cut & (inside >= near) & (inside >= BUMP * further)
    radii = inside[ridge] - min(spacing) / 2
    return RegionFacts(
        volume_mm3=float(sizes.sum()),
        components=found.count,
        mean_mm3=float(sizes.mean()),
        smallest_mm3=float(sizes.min()),
        largest_mm3=float(sizes.max()),
        radius_mm=float(radii.max()),
        median_radius_mm=float(np.median(radii)),
    )


def _content(image: VolumeSource, foreground: NDArray[np.bool_], first: int) -> tuple[str, float, float]:
    """The hash of an image, the share of it that is padding, and the share of the foreground that lies there.

    foreground (planes, Y, X) begins at plane first.
    """
    total, lowest = hashlib.sha256(repr((image.shape, image.channels)).encode()), np.full(image.channels, np.inf)
    for box in slabs(image.shape, PLANES):
        voxels = image.read(box)
        total.update(np.ascontiguousarray(voxels).data)
        lowest = np.minimum(lowest, voxels.min(axis=(1, 2, 3)))
    padding = on_padding = 0
    for box in slabs(image.shape, PLANES):
        empty = (image.read(box) == lowest[:, None, None, None]).all(axis=0)
        padding += int(empty.sum())
        start, stop = max(box.start.z, first), min(box.stop.z, first + len(foreground))
        if start < stop:
            here = empty[start - box.start.z : stop - box.start.z]
            on_padding += int((here & foreground[start - first : stop - first]).sum())
    share = padding / image.shape.voxels
    if share < LEAST_PADDING:
        return total.hexdigest(), 0.0, 0.0
    return total.hexdigest(), share, on_padding / max(1, int(foreground.sum()))
