"""A volume's normalised grey values on its own turned grid: what steps look at."""

from dataclasses import replace

import numpy as np

from vol3d.geometry.grid import slabs
from vol3d.preprocess.pipeline import PreprocessSettings, image_view, network_grid
from vol3d.tasks.storage import Storage
from vol3d.volume.source import VolumeSource

COPIED_PLANES = 16


def grey_values(
    source: VolumeSource, settings: PreprocessSettings, storage: Storage, *, organ: VolumeSource | None = None
) -> VolumeSource:
    """The source, turned, on its own grid with normalised grey values, so that a plan's tolerances hold for all.

    storage is of the turned grid; organ is on the source's. What is large is normalised again wherever it is
    read: in float32 it takes four times a mask's room.
    """
    plain = replace(settings, spacing="stored")
    grid = network_grid(source, plain)
    view = image_view(source, plain, grid, organ=organ)
    if view.shape == storage.shape:
        return view if storage.on_disk else storage.copy(view)
    whole = storage.zeros(view.channels, np.float32)
    for slab in slabs(view.shape, COPIED_PLANES):
        whole.write(slab.shifted(grid.box.start), view.read(slab))
    return whole
