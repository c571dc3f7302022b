"""The ordered list of named steps that a plan's ``postprocess:`` holds: run it, read it, write it.

A new step is a frozen child of Step beside its code and one line in STEPS; a plugin calls
register_step.
"""

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from difflib import get_close_matches
from functools import reduce
from operator import or_
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor

from vol3d.errors import unknown_name
from vol3d.geometry.box import Box
from vol3d.postprocess.blocks import can_be_cut, run_step
from vol3d.postprocess.filter import ComponentFilter
from vol3d.postprocess.flood import GrowRange
from vol3d.postprocess.gate import OrganGate
from vol3d.postprocess.growth import GrowSlices
from vol3d.postprocess.lumens import CloseLumens
from vol3d.postprocess.morphology import CloseGaps, FillHoles, RemoveThin, Smooth
from vol3d.postprocess.neighbours import GrowNeighbours
from vol3d.postprocess.scene import Mask, Needs, RegionScene, Scene, Step, StepReport, StoredScene, store_of
from vol3d.postprocess.size import Largest, SizeFilter
from vol3d.postprocess.tensor_store import TensorStore, on_host
from vol3d.postprocess.tensors import lies_there, on_device, part_voxels, scene_on_host
from vol3d.postprocess.threshold import Hysteresis, Presence, Threshold, TopShare
from vol3d.volume.source import VolumeStore

__all__ = [
    "STEPS",
    "Needs",
    "RegionScene",
    "Scene",
    "Step",
    "StepReport",
    "StepsResult",
    "StoredScene",
    "TensorStore",
    "apply_in_blocks",
    "apply_steps",
    "gated",
    "needs",
    "register_step",
    "runs_of",
    "steps_from",
    "steps_to",
]

ALL = "all"

STEPS: dict[str, type[Step]] = {
    step.name: step
    for step in (
        Threshold,
        TopShare,
        Hysteresis,
        Presence,
        SizeFilter,
        Largest,
        ComponentFilter,
        FillHoles,
        CloseGaps,
        CloseLumens,
        RemoveThin,
        Smooth,
        OrganGate,
        GrowSlices,
        GrowRange,
        GrowNeighbours,
    )
}

StepClass = TypeVar("StepClass", bound=type[Step])


Masks = TypeVar("Masks", Mask, Tensor)


@dataclass(frozen=True)
class StepsResult(Generic[Masks]):
    """The new masks (R, Z, Y, X), and a report per step and region in the order they ran."""

    masks: Masks
    report: tuple[StepReport, ...]


def needs(steps: Sequence[Step]) -> Needs:
    """Which arrays of the scene these steps look at."""
    return reduce(or_, (step.needs() for step in steps), Needs())


def apply_steps(masks: Masks, steps: Sequence[Step], scene: Scene) -> StepsResult[Masks]:
    """Run the steps in order on masks (R, Z, Y, X), one per region of the scene; masks is not modified.

    Of a tensor they are made on its device, as apply_in_blocks tells, and come to the same.

    Raises:
        ValueError: masks do not fit the scene, a step names a region that is not there, or the scene
            lacks an array that a step needs. All of it is checked before the first step runs.
        UsageError: a step answers something else than an Applied with a bool mask of the same shape.
    """
    if masks.ndim != 4:
        raise ValueError(f"expected masks (R, Z, Y, X), got shape {tuple(masks.shape)}")
    new = masks.copy() if isinstance(masks, np.ndarray) else masks.clone()
    planes = masks.shape[1] if isinstance(masks, np.ndarray) else None
    return StepsResult(new, apply_in_blocks(store_of(new, scene.spacing), steps, scene.stored(), planes=planes))


def apply_in_blocks(
    masks: VolumeStore,
    steps: Sequence[Step],
    scene: StoredScene,
    *,
    planes: int | None = None,
    told: Callable[[StepReport], None] | None = None,
) -> tuple[StepReport, ...]:
    """Run the steps in order on a store of masks, a channel per region of the scene, which they rewrite.

    The masks come out the same for any number of planes that are worked on at once; None takes as many as
    memory of a few hundred MB allows. Steps that cannot be cut are given the whole region. told hears what
    each step did as soon as it is done.

    Masks in a TensorStore are rewritten on its device, by all steps that take tensors and find room there:
    what they need of the scene is copied to it unless it is there. The others see arrays. Masks and counts are
    the same wherever a step ran; the reports say where.

    Raises:
        ValueError, UsageError: as apply_steps, before the first step runs and while one does.
    """
    _check(masks, steps, scene)
    there = scene
    if isinstance(masks, TensorStore):
        there = on_device(scene, needs([step for step in steps if step.takes_tensors()]), masks.device)
    reports = []
    for step, number in runs_of(steps, scene.regions):
        reports.append(_run(step, masks.channel(number), there, number, planes))
        if told is not None:
            told(reports[-1])
    return tuple(reports)


def runs_of(steps: Sequence[Step], regions: Sequence[str]) -> list[tuple[Step, int]]:
    """Which step runs on which region, by its number, in order."""
    return [(step, number) for step in steps for number, region in enumerate(regions) if step.region in (ALL, region)]


def gated(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Steps for a volume with an organ mask: one that none of them looks at gates as early as nothing can undo it.

    That is after the last step that looks at the probability or the image: such a step can bring
    back what lies outside.
    """
    if needs(steps).organ:
        return steps
    looking = [n for n, step in enumerate(steps, start=1) if step.needs() != Needs()]
    at = max(looking, default=0)
    return (*steps[:at], OrganGate(), *steps[at:])


def _run(step: Step, store: VolumeStore, scene: StoredScene, number: int, planes: int | None) -> StepReport:
    """Run a step where the masks lie if it takes tensors and finds room there, else in the computer's memory."""
    box = Box.whole(store.shape)
    if isinstance(store, TensorStore) and _has_room(step, store, scene):
        before = None
        try:
            before = store.tensor.clone()
            return run_step(step, store, RegionScene(scene, number, box), planes)
        except torch.OutOfMemoryError:
            if before is not None:  # some parts may have been rewritten
                store.tensor.copy_(before)
    return run_step(step, on_host(store), RegionScene(scene_on_host(scene), number, box), planes)


def _has_room(step: Step, store: TensorStore, scene: StoredScene) -> bool:
    if not (step.takes_tensors() and lies_there(scene, step.needs())):
        return False
    return can_be_cut(step) or store.shape.voxels <= part_voxels(store.device)


def _check(masks: VolumeStore, steps: Sequence[Step], scene: StoredScene) -> None:
    if masks.channels != len(scene.regions) or masks.dtype != np.bool_:
        raise ValueError(
            f"expected bool masks (R, Z, Y, X) of the regions {scene.regions}, "
            f"got {masks.dtype} of shape {(masks.channels, *masks.shape)}"
        )
    for name, grid in scene.grids():
        if grid != masks.shape:
            raise ValueError(f"expected masks on the {name}'s grid {tuple(grid)}, got {tuple(masks.shape)}")
    for step in steps:
        if step.region not in (ALL, *scene.regions):
            raise ValueError(_unknown(f"{step.name}: region", step.region, (ALL, *scene.regions)))
        if missing := scene.missing(step.needs()):
            what = {"organ": "an organ mask", "image": "the image", "probability": "the probability"}
            raise ValueError(
                f"the step {step.name} needs {' and '.join(what[name] for name in missing)}, and none was given: "
                "give it, or take the step out of postprocess"
            )


def register_step(step: StepClass) -> StepClass:
    """Make a plugin's step known by its name; returns it, so it serves as a decorator.

    Raises:
        ValueError: another step has that name.
        TypeError: it is not a concrete Step with a name and a locality.
    """
    wanted = ("name", "locality")
    child = isinstance(step, type) and issubclass(step, Step) and not inspect.isabstract(step)
    if not child or not all(hasattr(step, field) for field in wanted):
        told = getattr(step, "__name__", repr(step))
        raise TypeError(f"a step is a child of Step with name, locality and apply, got {told}")
    if STEPS.get(step.name, step) is not step:
        raise ValueError(f"there is a step {step.name!r} already: {STEPS[step.name].__name__}")
    STEPS[step.name] = step
    return step


def steps_to(steps: Sequence[Step]) -> list[dict[str, dict[str, Any]]]:
    """The steps as plain data with every field, as steps_from reads it: [{name: {field: value}}, ...]."""
    return [{step.name: asdict(step)} for step in steps]


def steps_from(plain: Any) -> tuple[Step, ...]:
    """The steps that plain data spells: a list of {name: {field: value}}, or of bare names.

    Raises:
        ValueError: another form, a name or field that is not known, a field that is missing, of
            another type or out of its range; the sentence names the step and the field.
    """
    if not isinstance(plain, list | tuple):
        raise ValueError(f"expected a list of steps such as [{{largest: {{count: 1}}}}], got {plain!r}")
    return tuple(_step(entry) for entry in plain)


def _step(entry: Any) -> Step:
    if isinstance(entry, str):
        entry = {entry: None}
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise ValueError(f"expected one step as {{name: {{field: value}}}}, got {entry!r}")
    ((name, values),) = entry.items()
    if name not in STEPS:
        raise ValueError(unknown_name("step", str(name), STEPS))
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        raise ValueError(f"{name}: expected its fields as {{field: value}}, got {values!r}")
    step, known = STEPS[name], {field.name: field for field in fields(STEPS[name])}
    for key in values:
        if key not in known:
            raise ValueError(_unknown(f"{name}: the field", key, tuple(known)))
    absent = [f.name for f in known.values() if f.default is MISSING and f.name not in values]
    if absent:
        raise ValueError(f"{name} needs {', '.join(absent)}")
    hints = get_type_hints(step)
    return step(**{key: _typed(f"{name}: {key}", value, hints[key]) for key, value in values.items()})


def _typed(what: str, value: Any, hint: Any) -> Any:
    """The value, a whole number made float where the field is one.

    Raises:
        ValueError: it is not of the field's type.
    """
    choices = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for choice in choices:
        if get_origin(choice) is Literal:
            if any(value == option and type(value) is type(option) for option in get_args(choice)):
                return value
        elif type(value) is choice:
            return value
        elif choice is float and type(value) is int:
            return float(value)
    raise ValueError(f"{what} must be {' or '.join(_said(choice) for choice in choices)}, got {value!r}")


def _said(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(str(option) for option in get_args(hint))
    return {float: "a number", int: "a whole number", str: "a name", type(None): "null"}.get(hint, str(hint))


def _unknown(what: str, name: Any, known: tuple[str, ...]) -> str:
    near = get_close_matches(str(name), known, n=1)
    return f"{what} {name!r} is not known{f'; did you mean {near[0]!r}' if near else ''} ({', '.join(known)})"
