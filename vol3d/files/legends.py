"""Names and colours of label values for viewers, beside masks whose format keeps none."""

from collections.abc import Iterator
from pathlib import Path

from vol3d.files.atomic import write_text
from vol3d.volume.labels import Colour, LabelSchema

ITKSNAP, SLICER = "itksnap_labels.txt", "slicer_labels.ctbl"


def write_legends(folder: Path, schema: LabelSchema) -> None:
    """Write ITK-SNAP's label descriptions and 3D Slicer's colour table for masks of a schema."""
    write_text(folder / ITKSNAP, itksnap_labels(schema))
    write_text(folder / SLICER, slicer_colours(schema))


def itksnap_labels(schema: LabelSchema) -> str:
    """Lines of index, red, green, blue (0 to 255), opacity (0 to 1), shown in slices, shown in 3D, "name"."""
    lines = ["# ITK-SnAP Label Description File", "# IDX   -R-  -G-  -B-  -A-- VIS MSH  LABEL"]
    lines.append(f'{0:5} {0:5} {0:4} {0:4} {0:5} {0:3} {0:3}    "Clear Label"')
    for value, (red, green, blue), name in _entries(schema):
        told = name.replace('"', "'")  # a quotation mark ends the name
        lines.append(f'{value:5} {red:5} {green:4} {blue:4} {1:5} {1:3} {1:3}    "{told}"')
    return "\n".join(lines) + "\n"


def slicer_colours(schema: LabelSchema) -> str:
    """Lines of value, name without spaces, red, green, blue, opacity (0 to 255)."""
    lines = [f"# Color table file {SLICER}", f"# {len(schema.regions) + 1} values", "0 Background 0 0 0 0"]
    for value, (red, green, blue), name in _entries(schema):
        lines.append(f"{value} {name.replace(' ', '_')} {red} {green} {blue} 255")
    return "\n".join(lines) + "\n"


def _entries(schema: LabelSchema) -> Iterator[tuple[int, Colour, str]]:
    """What each value is shown as, in the order of the values; a name is one line."""
    found = zip(schema.written, schema.colours, (" ".join(name.split()) for name in schema.names), strict=True)
    return iter(sorted({value: (value, colour, name) for value, colour, name in found}.values()))
