"""A folder of one mask per structure as one volume of label values."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError, UsageError
from vol3d.files.names import natural_key, stem_of, suffix_of
from vol3d.files.temporary import temporary_file
from vol3d.files.volumes import open_volume, volume_files, volume_paths
from vol3d.geometry.affine import agree
from vol3d.geometry.box import Box
from vol3d.geometry.grid import slabs
from vol3d.shapes import Spacing
from vol3d.volume.labels import MAX_LABEL
from vol3d.volume.source import Access, Says, VolumeSource

_SLAB_PLANES = 32
_FROM_INTEGER = 1e-3  # how far a value that went through a float format may lie from its integer


def structures_of(folders: Sequence[Path]) -> tuple[str, ...]:
    """The structures of all folders, in natural order.

    Raises:
        InputError: a folder holds no mask or two of one structure, or there are more than 255 structures.
    """
    found: set[str] = set()
    wrong = []
    for folder in folders:
        names = [stem_of(path) for path in volume_files(folder)]
        found.update(names)
        if not names:
            wrong.append(f"{folder} holds no mask")
        wrong += [f"{folder} holds {name} twice" for name in sorted({n for n in names if names.count(n) > 1})]
    if len(found) > MAX_LABEL:
        wrong.append(f"there are {len(found)} structures, and label values end at {MAX_LABEL}")
    if wrong:
        raise InputError("; ".join(wrong))
    return tuple(str(p) for p in sorted((Path(name) for name in found), key=natural_key))


def holds_masks(path: Path) -> bool:
    """Whether a path is a folder of mask files, not of the slices of one volume."""
    try:
        return path.is_dir() and not suffix_of(path) and volume_paths(path) != [path]
    except UsageError:  # a volume of another kind, or nothing
        return False


class MergedMasks:
    """Masks on one grid as label values: that of a structure is its place in structures, from 1 on.

    A structure without a mask is nowhere. Where masks overlap the later structure wins, as inner regions
    do when masks are written, and warnings tell how often. Masks that are stored as they are give the box
    asked for alone; compressed ones are merged once, into a temporary file of a byte per voxel.
    """

    access: Access = "random"
    header: object = None
    channels = 1
    dtype: np.dtype[Any] = np.dtype(np.uint8)

    def __init__(self, folder: Path, *, structures: Sequence[str], spacing: Spacing | None = None) -> None:
        paths = {stem_of(path): path for path in volume_files(folder)}
        self._folder, self._structures, self._spacing = folder, tuple(structures), spacing
        self._paths = [(value, paths[name]) for value, name in enumerate(structures, start=1) if name in paths]
        if not self._paths:
            raise InputError(f"{folder} holds none of the {len(structures)} structures: {', '.join(structures)}")
        self._sources = {value: open_volume(path, spacing=spacing) for value, path in self._paths}
        first = self._sources[self._paths[0][0]]
        self.shape, self.affine = first.shape, first.affine
        self.says: Says = first.says
        self._check()
        self._overlaps: dict[tuple[int, int], int] = {}
        self._merged: NDArray[np.uint8] | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about the masks, and the overlaps that were met."""
        overlaps = tuple(
            f"{self._folder}: {count} voxels are {self._structures[a - 1]} and {self._structures[b - 1]}; "
            f"they are taken to be {self._structures[b - 1]}"
            for (a, b), count in sorted(self._overlaps.items())
        )
        return tuple(w for s in self._sources.values() for w in s.warnings) + overlaps

    def read(self, box: Box) -> NDArray[np.uint8]:
        """The box's label values, (1, Z, Y, X)."""
        if any(path.suffix.lower() == ".gz" for _, path in self._paths):
            if self._merged is None:
                self._merged = self._merge()
            return self._merged[box.slices][None]
        labels = np.zeros(box.shape, np.uint8)
        for value, _ in self._paths:
            self._paint(labels, value, self._sources[value], box)
        return labels[None]

    def _check(self) -> None:
        value, path = self._paths[0]
        first = self._sources[value]
        wrong = [
            other.name
            for number, other in self._paths
            if (source := self._sources[number]).channels != 1
            or source.shape != first.shape
            or not agree(source.affine, first.affine, first.shape)
        ]
        if wrong:
            raise InputError(f"{self._folder}: not one mask on the grid of {path.name}: {', '.join(wrong)}")

    def _merge(self) -> NDArray[np.uint8]:
        with temporary_file(self._folder, size=self.shape.voxels) as stream:
            merged = np.memmap(stream, np.uint8, mode="w+", shape=tuple(self.shape))
        for value, path in self._paths:
            source = open_volume(path, spacing=self._spacing)  # dropped when done, with what it unpacked
            for box in slabs(self.shape, _SLAB_PLANES):
                self._paint(merged[box.slices], value, source, box)
        return merged

    def _paint(self, labels: NDArray[np.uint8], value: int, source: VolumeSource, box: Box) -> None:
        voxels = source.read(box)[0]
        if voxels.dtype.kind == "f":
            with np.errstate(invalid="ignore"):  # NaN and infinity fail the comparison, as they must
                near = np.abs(voxels - (whole := np.rint(voxels))) <= _FROM_INTEGER
            if not near.all():
                raise InputError(
                    f"{dict(self._paths)[value]}: a mask's voxels must be integers, got {voxels[~near][0]}"
                )
            voxels = whole
        mask = voxels > 0
        before = labels[mask]
        for other in np.unique(before[before > 0]):
            pair = int(other), value
            self._overlaps[pair] = self._overlaps.get(pair, 0) + int((before == other).sum())
        labels[mask] = value
