"""vol3d: native 3D volumetric segmentation.

The floor plan, top to bottom; a room imports only from the floors below it, and rooms on one line
do not meet:

    commands/                                                 argv in, exit code out
    tasks/                                                    what a user asks for, one function each
    config/                                                   strict YAML and section.key=value
    training/ viewer/ phantom/                                the loop that learns; pictures; synthetic kidneys
    datasets/ patches/ network/ inference/ postprocess/ metrics/
        cases and the plan; cubes to learn from; U-Nets; windows and blending; steps on masks and their search; scores
    preprocess/                                               orient, normalise, crop, resample: views
    regions/                                                  components and their tables, distances, centre lines,
                                                              topology, 2x2x2 cubes; of arrays and of tensors
    files/                                                    the only room that opens files
    volume/                                                   sources, sinks, the label schema
    geometry/                                                 affines, boxes, grids, blending curves
    shapes.py errors.py version.py
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vol3d.version import __version__

if TYPE_CHECKING:
    from vol3d.files.whole import load_volume, save_volume
    from vol3d.network.build import register_network
    from vol3d.patches.augmentations import register_augmentation
    from vol3d.postprocess.steps import register_step
    from vol3d.tasks.cross_validate import cross_validate
    from vol3d.tasks.evaluate import evaluate
    from vol3d.tasks.grow import grow
    from vol3d.tasks.plan import plan
    from vol3d.tasks.predict import predict
    from vol3d.tasks.run import Run, load_run
    from vol3d.tasks.sliding_window import sliding_window
    from vol3d.tasks.train import train
    from vol3d.tasks.tune import tune
    from vol3d.training.losses import register_loss
    from vol3d.viewer.error_map import error_map
    from vol3d.volume.volume import Volume

__all__ = [
    "Run",
    "Volume",
    "__version__",
    "cross_validate",
    "error_map",
    "evaluate",
    "grow",
    "load_run",
    "load_volume",
    "plan",
    "predict",
    "register_augmentation",
    "register_loss",
    "register_network",
    "register_step",
    "save_volume",
    "sliding_window",
    "train",
    "tune",
]

_WHERE = {
    "Run": "tasks.run",
    "Volume": "volume.volume",
    "cross_validate": "tasks.cross_validate",
    "error_map": "viewer.error_map",
    "evaluate": "tasks.evaluate",
    "grow": "tasks.grow",
    "load_run": "tasks.run",
    "load_volume": "files.whole",
    "plan": "tasks.plan",
    "predict": "tasks.predict",
    "register_augmentation": "patches.augmentations",
    "register_loss": "training.losses",
    "register_network": "network.build",
    "register_step": "postprocess.steps",
    "save_volume": "files.whole",
    "sliding_window": "tasks.sliding_window",
    "train": "tasks.train",
    "tune": "tasks.tune",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    # Resolved when first used: importing vol3d loads no room.
    if name not in _WHERE:
        raise AttributeError(f"module 'vol3d' has no attribute {name!r}")
    return getattr(import_module(f"vol3d.{_WHERE[name]}"), name)
