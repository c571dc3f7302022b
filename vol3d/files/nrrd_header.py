"""NRRD headers: read with what ITK and 3D Slicer write, and written for both.

The format's own words: axes run fastest first (x, y, z), and one of them may hold channels.
"""

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
from vol3d.geometry.affine import Affine
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.labels import LabelSchema
from vol3d.volume.source import Says

MAGIC = b"NRRD"
END = re.compile(rb"\r?\n\r?\n")
_WORDS = re.compile(r'\([^)]*\)|"[^"]*"|\S+')
_TYPES = {
    "i1": "signed char|int8|int8_t",
    "u1": "uchar|unsigned char|uint8|uint8_t",
    "i2": "short|short int|signed short|signed short int|int16|int16_t",
    "u2": "ushort|unsigned short|unsigned short int|uint16|uint16_t",
    "i4": "int|signed int|int32|int32_t",
    "u4": "uint|unsigned int|uint32|uint32_t",
    "i8": "longlong|long long|long long int|signed long long|signed long long int|int64|int64_t",
    "u8": "ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t",
    "f4": "float",
    "f8": "double",
}
_CODES = {name: code for code, names in _TYPES.items() for name in names.split("|")}
_WORLDS = {
    "right-anterior-superior": np.ones((3, 1)),
    "left-anterior-superior": np.array([[-1.0], [1.0], [1.0]]),
    "left-posterior-superior": LPS,
}
_SHORT = {"ras": "right-anterior-superior", "las": "left-anterior-superior", "lps": "left-posterior-superior"}
_SPATIAL_KINDS = {"domain", "space", "???", "none"}
# What is given back with the geometry, and what the axis of the channels has there.
_WHOLE = ("space", "space dimension", "space units", "space origin")
_PER_AXIS = {
    "sizes": "",
    "space directions": "none",
    "spacings": "nan",
    "axis mins": "nan",
    "axis maxs": "nan",
    "centers": "???",
    "centerings": "???",
    "kinds": "list",
    "units": '""',
}


def parse(path: Path, text: str) -> RawHeader:
    """What the lines of a NRRD header say.

    Raises:
        InputError: they are damaged, or tell of what a volume cannot be.
    """
    found = _fields(text)
    for name in ("type", "dimension", "sizes", "encoding"):
        if name not in found:
            raise InputError(f"{path}: its NRRD header has no {name!r}")
    per_axis = {name: _WORDS.findall(found[name]) for name in _PER_AXIS if name in found}
    (count,) = parsed(path, "dimension", [found["dimension"]], int)
    wrong = next((name for name, words in per_axis.items() if len(words) != count), None)
    if wrong:
        raise InputError(f"{path}: expected {count} values (one per axis) as {wrong!r}, got {found[wrong][:80]!r}")
    sizes = parsed(path, "sizes", per_axis["sizes"], int)
    spatial, channel_axis = _axes(path, per_axis, sizes)
    columns, origin, steps, says, warnings = _geometry(path, found, per_axis, spatial)
    skip, skip_within, compressed = _skips(path, found)
    return RawHeader(
        shape=volume_shape(path, [sizes[axis] for axis in spatial]),
        channels=1 if channel_axis is None else sizes[channel_axis],
        interleaved=channel_axis is not None and channel_axis < spatial[0],
        dtype=_dtype(path, found),
        compressed=compressed,
        data_file=_data_file(path, found),
        skip=skip,
        skip_within=skip_within,
        directions=directions_of(columns, origin, _WORLDS.get(_space(found), LPS)),
        steps=steps,
        says=says,
        warnings=warnings,
        fields=_kept(found, per_axis, spatial),
    )


def header_text(
    *,
    shape: Shape3,
    channels: int,
    dtype: np.dtype[np.generic],
    affine: Affine,
    fields: dict[str, str] | None = None,
    labels: LabelSchema | None = None,
) -> str:
    """The header of gzipped little-endian (channels, Z, Y, X) voxels, up to and with its empty line.

    fields are an input's geometry, taken over as it is; without, it is made from affine. labels becomes
    the fields in which 3D Slicer looks for the segments of a segmentation.
    """
    kept = dict(fields) if fields else _made_fields(shape, affine)
    dimension = len(kept["sizes"].split()) + (channels > 1)
    if channels > 1:
        kept |= {name: f"{kept[name]} {word or channels}" for name, word in _PER_AXIS.items() if name in kept}
        kept.setdefault("kinds", " ".join(["domain"] * (dimension - 1) + ["list"]))
    lines = ["NRRD0004", f"type: {_TYPES[dtype.str[1:]].split('|')[-1]}", f"dimension: {dimension}"]
    lines += [f"{name}: {kept[name]}" for name in (*_WHOLE[:3], *_PER_AXIS, _WHOLE[3]) if name in kept]
    lines += ["endian: little"] if dtype.itemsize > 1 else []
    lines += ["encoding: gzip", *(_segments(labels, shape) if labels else [])]
    return "\n".join(lines) + "\n\n"


def _fields(text: str) -> dict[str, str]:
    """The fields by name in lower case; comments and key/value pairs are left out."""
    found = {}
    for line in text.splitlines()[1:]:
        name, colon, value = line.partition(":")
        if colon and not name.startswith("#") and not value.startswith("="):
            found[name.strip().lower()] = value.strip()
    return found


def _dtype(path: Path, found: dict[str, str]) -> np.dtype[np.generic]:
    endian = found.get("endian", "").lower()
    dtype = type_of_name(path, " ".join(found["type"].lower().split()), _CODES, big=endian == "big")
    if dtype.itemsize > 1 and endian not in ("little", "big"):
        raise InputError(f"{path}: expected 'endian: little' or 'endian: big', got {endian!r}")
    return dtype


def _axes(path: Path, per_axis: dict[str, list[str]], sizes: list[int]) -> tuple[list[int], int | None]:
    """The two or three axes in space, and the one of the channels, if there is any."""
    count = range(len(sizes))
    if "space directions" in per_axis:
        spatial = [axis for axis in count if per_axis["space directions"][axis].lower() != "none"]
    elif "kinds" in per_axis:
        spatial = [axis for axis in count if per_axis["kinds"][axis].lower() in _SPATIAL_KINDS]
    else:
        spatial = list(count)
    spatial = spatial[:3]
    if len(spatial) < 2:
        raise InputError(f"{path}: expected two or three axes in space, got {len(spatial)} of sizes {sizes}")
    others = [axis for axis in count if axis not in spatial and sizes[axis] != 1]
    if len(others) > 1 or any(spatial[0] < axis < spatial[-1] for axis in others):
        raise InputError(
            f"{path}: expected a volume, or channels before or after its axes in space, got sizes {sizes} "
            f"of which axes {', '.join(str(axis + 1) for axis in spatial)} lie in space"
        )
    channel = others[0] if others else None
    if channel is not None and sizes[channel] < 1:
        raise InputError(f"{path}: expected positive sizes along its axes, got {sizes}")
    if channel is not None and per_axis.get("kinds", [""] * len(sizes))[channel].lower() == "complex":
        raise InputError(f"{path}: complex voxels cannot be read; expected integers or real floats")
    return spatial, channel


def _geometry(
    path: Path, found: dict[str, str], per_axis: dict[str, list[str]], spatial: list[int]
) -> tuple[list[list[float]], list[float], Spacing, Says, tuple[str, ...]]:
    """Columns and origin in the file's world, how many of them a step is, and what was said of them."""
    names = ("space directions", "spacings")
    vectors, spacings = ([per_axis[n][axis] for axis in spatial] if n in per_axis else None for n in names)
    if vectors is None:
        unit = mm_per(per_axis["units"][spatial[0]]) if "units" in per_axis else 1.0
        steps = [unit * step for step in parsed(path, "spacings", spacings or ["1"] * len(spatial), float)]
        says: Says = "spacing" if spacings else "nothing"
        z, y, x = [*[1.0] * (3 - len(steps)), *reversed(steps)]
        return np.eye(3).tolist()[: len(spatial)], [0.0] * 3, Spacing(z, y, x), says, ()
    columns = [parsed(path, "space directions", v.strip("()").split(","), float) for v in vectors]
    length, told = len(columns[0]), found.get("space origin")
    origin = [0.0] * length if told is None else parsed(path, "space origin", told.strip("() ").split(","), float)
    if any(len(vector) != length for vector in (*columns, origin)) or not len(spatial) <= length <= 4:
        raise InputError(f"{path}: expected vectors of one length, 2 to 4, got {vectors} from {told}")
    unit = mm_per(_WORDS.findall(found["space units"])[0]) if found.get("space units") else 1.0
    scaled = [[unit * value for value in column] for column in columns]
    warnings = [f"{path}: its 'space origin' is missing; (0, 0, 0) is taken"] if told is None else []
    if _space(found) not in _WORLDS and length > 2:
        warnings.append(f"{path}: names no anatomical 'space'; left-posterior-superior is taken, as ITK does")
    return scaled, [unit * value for value in origin], Spacing(1.0, 1.0, 1.0), "place", tuple(warnings)


def _space(found: dict[str, str]) -> str:
    """The world's long name, without its time."""
    name = found.get("space", "").lower().removesuffix("-time")
    return _SHORT.get(name, _SHORT.get(name.removesuffix("t"), name))


def _skips(path: Path, found: dict[str, str]) -> tuple[int, int, bool]:
    """Bytes to leave out of the file, then of the decompressed stream; and whether it is compressed."""
    encoding = found["encoding"].lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise InputError(f"{path}: expected the encoding raw or gzip, got {encoding!r}; convert it")
    lines, skip = (
        parsed(path, f"{n} skip", [found.get(f"{n} skip", found.get(f"{n}skip", "0"))], int)[0]
        for n in ("line", "byte")
    )
    compressed = encoding != "raw"
    if lines or skip < (0 if compressed else FROM_THE_END):
        raise InputError(f"{path}: voxels {lines} lines and {skip} bytes into the {encoding} data cannot be read")
    return (0, skip, True) if compressed else (skip, 0, False)


def _data_file(path: Path, found: dict[str, str]) -> str | None:
    name = found.get("data file", found.get("datafile"))
    return None if name is None else one_data_file(path, name)


def _kept(found: dict[str, str], per_axis: dict[str, list[str]], spatial: list[int]) -> dict[str, str]:
    """The geometry of the axes in space as it was written; nothing of a world with a fourth axis."""
    vectors = per_axis.get("space directions")
    if vectors and vectors[spatial[0]].count(",") > 2:
        return {}
    kept = {name: found[name] for name in _WHOLE if name in found}
    return kept | {name: " ".join(words[axis] for axis in spatial) for name, words in per_axis.items()}


def _made_fields(shape: Shape3, affine: Affine) -> dict[str, str]:
    world = LPS * affine[:3]
    x, y, z, origin = (f"({','.join(repr(float(v)) for v in column)})" for column in world.T[[*REVERSED, 3]])
    return {
        "space": "left-posterior-superior",
        "sizes": " ".join(str(length) for length in reversed(shape)),
        "space directions": f"{x} {y} {z}",
        "kinds": "domain domain domain",
        "space origin": origin,
    }


def _segments(labels: LabelSchema, shape: Shape3) -> list[str]:
    """Names and colours of the regions by the value that each is written as."""
    extent = " ".join(f"0 {length - 1}" for length in reversed(shape))
    by_value = dict(zip(labels.written, zip(labels.names, labels.colours, strict=True), strict=True))
    lines = []
    for number, (value, (name, colour)) in enumerate(by_value.items()):
        segment = {
            "ID": f"Segment_{value}",
            "Name": name.replace("\\", "\\\\").replace("\n", "\\n"),
            "NameAutoGenerated": 0,
            "Color": " ".join(f"{part / 255:.6g}" for part in colour),
            "ColorAutoGenerated": 0,
            "LabelValue": value,
            "Layer": 0,
            "Extent": extent,
        }
        lines += [f"Segment{number}_{key}:={said}" for key, said in segment.items()]
    return [
        *lines,
        "Segmentation_ContainedRepresentationNames:=Binary labelmap|",
        "Segmentation_MasterRepresentation:=Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset:=0 0 0",
    ]
