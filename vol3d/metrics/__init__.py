"""How good a mask is: overlap, surface, distances, centre lines, topology, components.

A function for each metric, of two masks (prediction, reference) that are (Z, Y, X) bool, with everything else by
keyword. What is not defined is None: vol3d.metrics.registry tells the policy, and has each by the name that
``vol3d evaluate`` gives it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vol3d.metrics.average_precision import instance_average_precision, instance_case
    from vol3d.metrics.centreline import centreline_overlap, cl_dice, vessel_breaks
    from vol3d.metrics.distances import assd_mm, hd95_mm
    from vol3d.metrics.instances import detection, matched_components
    from vol3d.metrics.overlap import dice, iou, precision, recall
    from vol3d.metrics.radius import recall_by_radius
    from vol3d.metrics.surface import surface_dice, surface_overlap
    from vol3d.metrics.topology import betti_errors

__all__ = [
    "assd_mm",
    "betti_errors",
    "centreline_overlap",
    "cl_dice",
    "detection",
    "dice",
    "hd95_mm",
    "instance_average_precision",
    "instance_case",
    "iou",
    "matched_components",
    "precision",
    "recall",
    "recall_by_radius",
    "surface_dice",
    "surface_overlap",
    "vessel_breaks",
]

_WHERE = {
    "assd_mm": "distances",
    "betti_errors": "topology",
    "centreline_overlap": "centreline",
    "cl_dice": "centreline",
    "detection": "instances",
    "dice": "overlap",
    "hd95_mm": "distances",
    "instance_average_precision": "average_precision",
    "instance_case": "average_precision",
    "iou": "overlap",
    "matched_components": "instances",
    "precision": "overlap",
    "recall": "overlap",
    "recall_by_radius": "radius",
    "surface_dice": "surface",
    "surface_overlap": "surface",
    "vessel_breaks": "centreline",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    # Resolved when first used: importing a module of the room loads no other.
    if name not in _WHERE:
        raise AttributeError(f"module 'vol3d.metrics' has no attribute {name!r}")
    return getattr(import_module(f"vol3d.metrics.{_WHERE[name]}"), name)
