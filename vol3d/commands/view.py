"""``vol3d-view`` and ``vol3d view``."""

import argparse
from pathlib import Path

from vol3d.commands.outcome import Outcome
from vol3d.commands.spacing import spacing_in

HELP = "draw hits (yellow), false positives (green) and misses (red) of a prediction in 3D"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--pred", metavar="P", type=Path, required=True, help="the predicted mask")
    parser.add_argument("--truth", metavar="T", type=Path, help="the true mask; without it components are drawn")
    parser.add_argument("--image", metavar="I", type=Path, help="the image behind the slices of --montage")
    parser.add_argument("--screenshot", metavar="PNG", type=Path, help="write a 3D picture; needs no screen")
    parser.add_argument("--mips", metavar="PNG", type=Path, help="write projections along the three axes")
    parser.add_argument("--montage", metavar="PNG", type=Path, help="write slices with the masks' outlines")
    parser.add_argument(
        "--tolerance", metavar="VOXELS", type=float, default=0.0, help="draw errors so near the other mask as hits"
    )
    parser.add_argument(
        "--palette", choices=("default", "cb"), default="default", help="cb: yellow, blue and vermilion for any eye"
    )
    parser.add_argument("--label", metavar="N", type=int, help="this value is foreground (default: all but zero)")
    parser.add_argument(
        "--spacing", metavar=("Z", "Y", "X"), nargs=3, type=float, help="voxel size in mm, overrides what the files say"
    )


def run(arguments: argparse.Namespace) -> Outcome:
    """Draw, and say what was written."""
    from vol3d.commands.console import Console
    from vol3d.tasks.view import view

    result = view(
        arguments.pred,
        truth=arguments.truth,
        image=arguments.image,
        screenshot=arguments.screenshot,
        mips=arguments.mips,
        montage=arguments.montage,
        tolerance_voxels=arguments.tolerance,
        palette=arguments.palette,
        label=arguments.label,
        spacing=spacing_in(arguments),
        reporter=Console(),
    )
    return Outcome(result.record(), result.text())
