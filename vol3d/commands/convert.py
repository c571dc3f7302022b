"""``vol3d convert KIND SRC DST``."""

import argparse
from pathlib import Path
from typing import Any

from vol3d.commands.outcome import Outcome
from vol3d.commands.spacing import spacing_in

HELP = "turn masks as text (run lengths, polygons) into volumes, and volumes into such text"
KINDS = ("sennet-rle", "siim-rle", "hubmap-rle", "hubmap-polygons")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("kind", metavar="KIND", choices=KINDS, help=f"the form of the text: {', '.join(KINDS)}")
    add("source", metavar="SRC", type=Path, help="the text, a .csv or .jsonl file; or a folder of masks, or one mask")
    add("target", metavar="DST", type=Path, help="a folder for the masks; or the text to write of them")
    add("--shape", metavar="Y,X", help="size of masks in pixels, where the text does not say it")
    add("--like", metavar="DIR", type=Path, help="the images of the masks: they say size, place and slices")
    add("--spacing", metavar=("Z", "Y", "X"), nargs=3, type=float, help="voxel size of the masks in mm")
    formats = ["auto", "nii.gz", "nii", "nrrd", "mha", "tif", "png", "ome.zarr", "h5", "npy"]
    add("--format", choices=formats, default="auto", help="of the masks (default: auto)")
    add("--overwrite", action="store_true", help="replace what is there")


def run(arguments: argparse.Namespace) -> Outcome:
    """Convert, and say what was written."""
    from vol3d.commands.console import Console
    from vol3d.tasks.convert import convert

    converted = convert(
        arguments.kind,
        arguments.source,
        arguments.target,
        plane=_plane(arguments.shape),
        like=arguments.like,
        spacing=spacing_in(arguments),
        format=arguments.format,
        overwrite=arguments.overwrite,
        reporter=Console(),
    )
    masks = [{"name": c.name, "output": str(c.output), "shape": list(c.shape), "voxels": c.voxels} for c in converted]
    told = f"{arguments.target}: {len(masks)} masks, {sum(c.shape.z for c in converted)} slices"
    return Outcome({"kind": arguments.kind, "out": str(arguments.target), "masks": masks}, told)


def _plane(text: str | None) -> tuple[int, int] | None:
    from vol3d.errors import UsageError

    parts: list[Any] = text.split(",") if text is not None else []
    if text is None:
        return None
    if len(parts) != 2 or not all(p.isascii() and p.isdigit() and 0 < int(p) < 1 << 20 for p in parts):
        raise UsageError(f"expected --shape Y,X as two whole numbers such as 1024,1024, got {text!r}")
    return int(parts[0]), int(parts[1])
