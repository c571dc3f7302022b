"""An input's geometry in its file's own words, kept for what is written on the same grid in the same format."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vol3d.geometry.affine import Affine
from vol3d.shapes import Shape3
from vol3d.volume.source import VolumeSource


@dataclass(frozen=True)
class KeptHeader:
    """What a file of a kind says of its geometry, and the grid that this means."""

    kind: str
    words: Any
    shape: Shape3
    affine: Affine


def kept_words(like: VolumeSource | None, kind: str, *, shape: Shape3, affine: Affine) -> Any:
    """The words of the file that like came from, if it was of this kind and very grid; else None."""
    header = like.header if like is not None else None
    if not isinstance(header, KeptHeader) or header.kind != kind or header.shape != shape:
        return None
    return header.words if np.array_equal(header.affine, affine) else None
