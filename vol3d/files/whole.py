"""Whole volumes from files to memory and back."""

import os
from pathlib import Path

from vol3d.files.volumes import create_volume, open_volume
from vol3d.geometry.box import Box
from vol3d.shapes import Spacing, positive_spacing
from vol3d.volume.labels import LabelSchema
from vol3d.volume.source import filling, read_all
from vol3d.volume.volume import Volume


def load_volume(path: str | os.PathLike[str], *, spacing: Spacing | tuple[float, float, float] | None = None) -> Volume:
    """The file at path, or the folder of slices, as vol3d reads any format: (C, Z, Y, X) in the file's own type.

    spacing (z, y, x in mm) overrides what the file says. The file's header goes along, so that save_volume
    gives it back where the format is the same.

    Raises:
        UsageError: it is missing or cannot be read.
        InputError: it is damaged, or of no known format.
        ValueError: the spacing is not three positive numbers.
    """
    source = open_volume(Path(path), spacing=None if spacing is None else positive_spacing(spacing))
    voxels = read_all(source)
    return Volume(voxels, source.affine, header=source.header, says=source.says, warnings=source.warnings)


def save_volume(volume: Volume, path: str | os.PathLike[str], *, labels: LabelSchema | None = None) -> None:
    """Write a volume in the format that the path's suffix says, whole or not at all; none is a folder of slices.

    labels says what the values of a label volume mean (a Run's schema), for formats that keep names and colours.

    Raises:
        UsageError: no such format, or the place is not writable.
    """
    with filling(
        create_volume(
            Path(path),
            shape=volume.shape,
            channels=volume.channels,
            dtype=volume.dtype,
            affine=volume.affine,
            like=volume,
            labels=labels,
        )
    ) as sink:
        sink.write(Box.whole(volume.shape), volume.array)
