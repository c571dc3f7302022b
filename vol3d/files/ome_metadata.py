"""What OME-Zarr says of an image beside its voxels: axes, places of its levels, colours and names of labels."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vol3d.errors import InputError
from vol3d.files.place import silent
from vol3d.files.units import millimetres_of
from vol3d.geometry.affine import Affine, from_spacing, spacing_of
from vol3d.shapes import Spacing
from vol3d.volume.labels import LabelSchema
from vol3d.volume.source import Says

SPACE = ("z", "y", "x")
_VERSION = "0.5"


@dataclass(frozen=True)
class OmePlace:
    """Where an image lies in its file's own words, along z, y, x."""

    scale: tuple[float, ...]
    translation: tuple[float, ...]
    units: tuple[str | None, ...]

    @classmethod
    def of(cls, affine: Affine) -> "OmePlace":
        """The spacing, and the first voxel's place along the grid's own axes: the format has no rotation.

        Grids that are parts of one keep their places to each other.
        """
        spacing = spacing_of(affine)
        origin = (affine[:3, :3] / np.array(spacing)).T @ affine[:3, 3]
        return cls(tuple(spacing), tuple(float(v) for v in origin), ("millimeter",) * 3)


@dataclass(frozen=True)
class OmeImage:
    """The level of full resolution: its folder inside the image's, its axes, its place in mm and as said."""

    level: Path
    axes: tuple[str, ...]
    affine: Affine
    says: Says
    place: OmePlace
    warnings: tuple[str, ...]


def read_image(path: Path, attributes: dict[str, Any]) -> OmeImage:
    """The first image that the attributes of the group at path describe, 0.4 or 0.5.

    An axis is called c where it is one of channels. Without units and with a scale of 1 nothing is
    said; without units alone mm is assumed.

    Raises:
        InputError: it has axes, transforms or units that are not read here.
    """
    multiscale = attributes.get("ome", attributes)["multiscales"][0]
    axes = tuple(_axis(path, axis) for axis in multiscale.get("axes", ()))
    if not axes:
        version = multiscale.get("version", "unknown")
        raise InputError(f"{path}: expected OME-Zarr 0.4 or 0.5, got version {version}, whose axes have no names")
    level = multiscale["datasets"][0]
    inside = Path(level["path"])
    if inside.is_absolute() or ".." in inside.parts:
        raise InputError(f"{path}: its first level is said to lie at {inside}, outside of it")
    scale, translation = np.ones(len(axes)), np.zeros(len(axes))
    for transform in (*level.get("coordinateTransformations", ()), *multiscale.get("coordinateTransformations", ())):
        kind = transform["type"]
        if kind == "scale" and kind in transform:
            factor = np.array(transform[kind], dtype=np.float64)
            scale, translation = scale * factor, translation * factor
        elif kind == "translation" and kind in transform:
            translation = translation + np.array(transform[kind], dtype=np.float64)
        elif kind != "identity":
            raise InputError(f"{path}: expected scales and translations as numbers, got {transform}")
    said = {name: (float(s), float(t), u) for (name, u), s, t in zip(axes, scale, translation, strict=True)}
    place = OmePlace(*zip(*(said.get(axis, (1.0, 0.0, "millimeter")) for axis in SPACE), strict=True))
    affine, says, warnings = _in_millimetres(path, place, attributes.get("vol3d", {}).get("affine"))
    return OmeImage(inside, tuple(name for name, _ in axes), affine, says, place, warnings)


def group_attributes(
    name: str,
    *,
    place: OmePlace,
    affine: Affine,
    channels: int,
    steps: list[tuple[int, int, int]],
    labels: LabelSchema | None,
) -> dict[str, Any]:
    """The attributes of a 0.5 image whose levels 0, 1, ... take every so many voxels (steps along z, y, x)."""
    first = [{"name": "c", "type": "channel"}] if channels > 1 else []
    space = [
        {"name": axis, "type": "space", **({"unit": unit} if unit else {})}
        for axis, unit in zip(SPACE, place.units, strict=True)
    ]
    datasets = []
    for level, step in enumerate(steps):
        scale = [s * n for s, n in zip(place.scale, step, strict=True)]
        # A voxel of a coarser level stands for those of the first that it covers: its centre is theirs.
        moved = [t + s * (n - 1) / 2 for t, s, n in zip(place.translation, place.scale, step, strict=True)]
        transforms = [
            {"type": "scale", "scale": [1.0] * len(first) + scale},
            {"type": "translation", "translation": [0.0] * len(first) + moved},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": transforms})
    multiscale = {"name": name, "axes": first + space, "datasets": datasets, "type": "nearest"}
    about: dict[str, Any] = {"version": _VERSION, "multiscales": [multiscale]}
    if labels is not None:
        told = zip(labels.written, labels.names, labels.colours, strict=True)
        shown = {value: (region, colour) for value, region, colour in told}
        about["image-label"] = {
            "colors": [{"label-value": value, "rgba": [*colour, 255]} for value, (_, colour) in shown.items()],
            "properties": [{"label-value": value, "name": region} for value, (region, _) in shown.items()],
        }
    return {"ome": about, "vol3d": {"affine": np.asarray(affine).tolist()}}


def _axis(path: Path, axis: Any) -> tuple[str, str | None]:
    """An axis's name, c for one of channels, and its unit."""
    about = {"name": axis} if isinstance(axis, str) else axis
    name, kind = str(about["name"]), about.get("type")
    if kind == "space" and name not in SPACE:
        raise InputError(f"{path}: expected axes in space named z, y, x, got {name!r}")
    return "c" if kind == "channel" else name, about.get("unit")


def _in_millimetres(path: Path, place: OmePlace, kept: Any) -> tuple[Affine, Says, tuple[str, ...]]:
    """The affine of a place, or the exact one that was kept beside it and still fits."""
    if not all(0 < s < math.inf for s in place.scale) or not all(map(math.isfinite, place.translation)):
        raise InputError(f"{path}: expected a scale above zero, got {place.scale} and {place.translation} (z, y, x)")
    mm = [1.0 if not unit else millimetres_of(unit) for unit in place.units]
    if None in mm:
        unit = place.units[mm.index(None)]
        raise InputError(f"{path}: {unit!r} is no length that is known here; expected such as micrometer, millimeter")
    spacing, origin = (np.array(v) * np.array(mm, dtype=np.float64) for v in (place.scale, place.translation))
    affine = from_spacing(Spacing(*(float(s) for s in spacing)))
    warnings: tuple[str, ...] = ()
    affine[:3, 3] = origin[::-1]
    if kept is not None:
        exact = np.array(kept, dtype=np.float64).reshape(4, 4)
        there = OmePlace.of(exact)
        if np.allclose((there.scale, there.translation), (spacing, origin), rtol=1e-6, atol=1e-9):
            return exact, "place", ()
        warnings = (f"{path}: the affine of its attribute vol3d does not fit its scale and translation: left out",)
    if all(place.units):
        return affine, "spacing", warnings
    if all(scale == 1.0 for scale in place.scale):
        return affine, "nothing", (*warnings, silent(path))
    return affine, "spacing", (*warnings, f"{path} says no unit of length; mm is assumed")
