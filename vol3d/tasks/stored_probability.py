"""The probabilities that were kept beside predictions, as an evaluation looks at them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError, UsageError, some
from vol3d.files.volumes import find_volumes, open_volume
from vol3d.geometry.box import Box
from vol3d.preprocess.orient import turned_onto
from vol3d.tasks.label_pair import LabelPair
from vol3d.volume.source import told_grid


def find_probabilities(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """The volume of each case, by name; a single file is that of a single case.

    Raises:
        UsageError: there is none.
        InputError: cases have none: all are listed.
    """
    found = {volume.name: volume.paths[0] for volume in find_volumes(folder)}
    if len(names) == len(found) == 1:
        return dict(zip(names, found.values(), strict=True))
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(names)} cases have no probability of their name in {folder}: {some(missing)}"
        )
    return found


def read_probability(path: Path, box: Box, *, pair: LabelPair, labels: Sequence[str]) -> NDArray[np.floating[Any]]:
    """The box of a stored probability, (labels, Z, Y, X), turned as the truth is stored.

    Raises:
        UsageError: it has not one channel for each label that is scored.
        InputError: it lies on another grid, or holds no probabilities.
    """
    source = turned_onto(open_volume(path), pair.sources[1])
    if source.shape != pair.shape:
        raise InputError(
            f"{path} ({told_grid(source)}) lies on another grid than {pair.names[1]} of {tuple(pair.shape)}"
        )
    if source.channels != len(labels):
        raise UsageError(
            f"{path} has {source.channels} channels; expected one for each label that is scored, in their order: "
            f"{some(labels)}; name the labels that it was predicted for with --labels"
        )
    values = source.read(box)
    if values.dtype.kind != "f" or not (values.min() >= 0 and values.max() <= 1):
        raise InputError(f"{path} holds no probabilities: expected fractions from 0 to 1, got {values.dtype} values")
    return values
