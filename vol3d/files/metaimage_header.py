"""MetaImage headers (.mha, .mhd): read with what ITK's MetaIO writes, and written for it."""

import re
from pathlib import Path

import numpy as np

from vol3d.errors import InputError
from vol3d.files.raw_header import (
    LPS,
    REVERSED,
    RawHeader,
    directions_of,
    mm_per,
    one_data_file,
    parsed,
    type_of_name,
    volume_shape,
)
from vol3d.files.stored import FROM_THE_END
from vol3d.geometry.affine import Affine, spacing_of
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.source import Says

MAGIC = b"ObjectType"
END = re.compile(rb"^ElementDataFile[ \t]*=[^\n]*(\n|\Z)", re.MULTILINE)
SIZE_FIELD = "CompressedDataSize = "
SIZE_DIGITS = 20
_CODES = {
    "CHAR": "i1",
    "UCHAR": "u1",
    "SHORT": "i2",
    "USHORT": "u2",
    "INT": "i4",
    "UINT": "u4",
    "LONG": "i4",
    "ULONG": "u4",
    "LONG_LONG": "i8",
    "ULONG_LONG": "u8",
    "FLOAT": "f4",
    "DOUBLE": "f8",
}
_TYPES = {code: name for name, code in _CODES.items() if "LONG" not in name or "_" in name}
_ORIGIN, _MATRIX = ("Offset", "Position", "Origin"), ("TransformMatrix", "Rotation", "Orientation")
_STEPS = ("ElementSpacing", "ElementSize")
# What is given back with the geometry.
_KEPT = ("NDims", *_MATRIX, *_ORIGIN, "CenterOfRotation", "AnatomicalOrientation", *_STEPS, "DistanceUnits", "DimSize")


def parse(path: Path, text: str) -> RawHeader:
    """What the lines of a MetaImage header say.

    Raises:
        InputError: they are damaged, or tell of what a volume cannot be.
    """
    found = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in text.splitlines())}
    for name in ("NDims", "DimSize", "ElementType", "ElementDataFile"):
        if name not in found:
            raise InputError(f"{path}: its MetaImage header has no {name}")
    if not _true(found.get("BinaryData", "True")):
        raise InputError(f"{path}: voxels as text cannot be read; expected BinaryData = True")
    (count,) = parsed(path, "NDims", [found["NDims"]], int)
    shape, channels, samples = _sizes(path, found, count)
    directions, steps, says = _geometry(path, found, count)
    data_file, skip = _data(path, found)
    function = [found.get(f"ElementToIntensityFunction{part}") for part in ("Slope", "Offset")]
    scaled = any(value not in (None, "1", "0") for value in function)
    return RawHeader(
        shape=shape,
        channels=channels,
        interleaved=samples > 1,
        dtype=_dtype(path, found),
        compressed=_true(found.get("CompressedData", "False")),
        data_file=data_file,
        skip=skip,
        skip_within=0,
        directions=directions,
        steps=steps,
        says=says,
        warnings=(f"{path}: its intensity function is not applied, as in ITK",) if scaled else (),
        fields={name: found[name] for name in _KEPT if name in found} if count < 4 else {},
    )


def header_text(
    *, shape: Shape3, channels: int, dtype: np.dtype[np.generic], affine: Affine, fields: dict[str, str] | None = None
) -> str:
    """The header of deflated little-endian (Z, Y, X, channels) voxels in the same file.

    fields are an input's geometry, taken over as it is; without, it is made from affine. SIZE_DIGITS
    zeros stand where the size of the compressed voxels belongs.
    """
    lines = ["ObjectType = Image"]
    kept = dict(fields) if fields else _made_fields(shape, affine)
    lines.append(f"NDims = {kept.pop('NDims')}")
    lines += ["BinaryData = True", "BinaryDataByteOrderMSB = False", "CompressedData = True"]
    lines += [SIZE_FIELD + "0" * SIZE_DIGITS, *(f"{name} = {value}" for name, value in kept.items())]
    lines += [f"ElementNumberOfChannels = {channels}"] if channels > 1 else []
    lines += [f"ElementType = MET_{_TYPES[dtype.str[1:]]}", "ElementDataFile = LOCAL"]
    return "\n".join(lines) + "\n"


def _true(word: str) -> bool:
    return word[:1] in ("T", "t", "1")


def _sizes(path: Path, found: dict[str, str], count: int) -> tuple[Shape3, int, int]:
    """The shape, the channels, and how many of these lie side by side: a fourth axis has them apart."""
    (samples,) = parsed(path, "ElementNumberOfChannels", [found.get("ElementNumberOfChannels", "1")], int)
    sizes = parsed(path, "DimSize", found["DimSize"].split(), int)
    if count not in (2, 3, 4) or len(sizes) != count or samples < 1 or (count == 4 and min(samples, sizes[3]) > 1):
        raise InputError(
            f"{path}: expected a volume or channels of one, got NDims = {count}, DimSize = {sizes} "
            f"and ElementNumberOfChannels = {samples}"
        )
    shape = volume_shape(path, sizes[:3])
    channels = samples * (sizes[3] if count == 4 else 1)
    if channels < 1:
        raise InputError(f"{path}: expected positive sizes along its axes, got {sizes}")
    return shape, channels, samples


def _dtype(path: Path, found: dict[str, str]) -> np.dtype[np.generic]:
    big = _true(found.get("BinaryDataByteOrderMSB", found.get("ElementByteOrderMSB", "False")))
    return type_of_name(path, found["ElementType"].removeprefix("MET_"), _CODES, big=big)


def _geometry(path: Path, found: dict[str, str], count: int) -> tuple[Affine, Spacing, Says]:
    """Unit directions and the origin, the spacing, and what was said of them; ITK's defaults for the rest."""

    def values(names: tuple[str, ...], default: list[float]) -> tuple[bool, list[float]]:
        name = next((n for n in names if n in found), None)
        if name is None:
            return False, default
        result = parsed(path, name, found[name].split(), float)
        if len(result) != len(default):
            raise InputError(f"{path}: expected {len(default)} numbers as {name}, got {found[name][:80]!r}")
        return True, result

    turned, matrix = values(_MATRIX, np.eye(count).reshape(-1).tolist())
    moved, origin = values(_ORIGIN, [0.0] * count)
    spaced, steps = values(_STEPS, [1.0] * count)
    unit = mm_per(found.get("DistanceUnits", ""))
    rows = np.array(matrix).reshape(count, count)[:3, :3].tolist()  # a row is where an axis leads
    x, y, z = [unit * step for step in [*steps, 1.0][:3]]
    says: Says = "place" if turned or moved else "spacing" if spaced else "nothing"
    return directions_of(rows, [unit * value for value in origin], LPS), Spacing(z, y, x), says


def _data(path: Path, found: dict[str, str]) -> tuple[str | None, int]:
    """The file of the voxels, None for this one, and the bytes before them."""
    name = one_data_file(path, found["ElementDataFile"])
    (skip,) = parsed(path, "HeaderSize", [found.get("HeaderSize", "0")], int)
    local = name.upper() == "LOCAL"
    compressed = _true(found.get("CompressedData", "False"))
    if skip < (0 if compressed else FROM_THE_END) or (local and skip > 0):
        raise InputError(f"{path}: HeaderSize = {skip} cannot be told for the data in {name}")
    return (None if local else name), skip


def _made_fields(shape: Shape3, affine: Affine) -> dict[str, str]:
    def told(values: "np.typing.ArrayLike") -> str:
        return " ".join(repr(float(v)) for v in np.ravel(values))

    world = LPS * affine[:3]
    spacing = np.array(spacing_of(affine))
    return {
        "NDims": "3",
        "TransformMatrix": told((world[:, :3] / spacing).T[REVERSED]),
        "Offset": told(world[:, 3]),
        "CenterOfRotation": "0 0 0",
        "ElementSpacing": told(spacing[::-1]),
        "DimSize": " ".join(str(length) for length in reversed(shape)),
    }
