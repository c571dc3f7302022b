"""Where TIFF keeps millimetres: OME-XML, or ImageJ's description."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from vol3d.errors import UsageError
from vol3d.files.place import checked
from vol3d.files.units import millimetres_of
from vol3d.shapes import Shape3, Spacing

_OME_TYPES = {"uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"}


def spacing_inside(path: Path, file: Any) -> Spacing | None:
    """What the OME-XML or the ImageJ description of an open TiffFile says; None where it is silent.

    Raises:
        InputError: it says zero, NaN or a negative number.
    """
    values = _from_ome(file.ome_metadata) if file.is_ome else _from_imagej(file) if file.is_imagej else None
    return None if values is None else checked(path, values)


def ome_xml(shape: Shape3, *, channels: int, dtype: np.dtype[Any], spacing: Spacing) -> str:
    """A minimal OME-XML with the spacing; without the random identifiers that would change every file.

    Raises:
        UsageError: OME-TIFF has no such type.
    """
    if dtype.name not in _OME_TYPES:
        raise UsageError(f"TIFF cannot hold {dtype}; expected one of {', '.join(sorted(_OME_TYPES))}")
    kind = {"float32": "float", "float64": "double"}.get(dtype.name, dtype.name)
    sizes = " ".join(f'Size{a}="{n}"' for a, n in zip("XYZCT", (*shape[::-1], channels, 1), strict=True))
    physical = " ".join(
        f'PhysicalSize{a}="{v!r}" PhysicalSize{a}Unit="mm"' for a, v in zip("ZYX", spacing, strict=True)
    )
    each = "".join(f'<Channel ID="Channel:0:{c}" SamplesPerPixel="1"/>' for c in range(channels))
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="{kind}" {sizes} {physical}>'
        f'{each}<TiffData IFD="0" PlaneCount="{channels * shape.z}"/></Pixels></Image></OME>'
    )


def _from_ome(xml: str) -> Spacing | None:
    values = []
    for axis in "ZYX":
        size = re.search(rf'PhysicalSize{axis}="([^"]+)"', xml)
        unit = re.search(rf'PhysicalSize{axis}Unit="([^"]+)"', xml)
        scale = millimetres_of(unit[1] if unit else "um")  # micrometres unless said otherwise
        if size is None or scale is None:
            return None
        values.append(_number(size[1]) * scale)
    return Spacing(*values)


def _from_imagej(file: Any) -> Spacing | None:
    described, tags = file.imagej_metadata, file.pages[0].tags
    scale = millimetres_of(str(described.get("unit", "")))
    if scale is None or "spacing" not in described or "XResolution" not in tags or "YResolution" not in tags:
        return None
    y, x = (tags[name].value for name in ("YResolution", "XResolution"))  # pixels per unit, as a fraction
    if not y[0] or not x[0]:
        return None
    return Spacing(_number(described["spacing"]) * scale, y[1] / y[0] * scale, x[1] / x[0] * scale)


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return float("nan")
