"""``vol3d grow IMAGE --at Z Y X``."""

import argparse
from pathlib import Path

from vol3d.commands.outcome import Outcome
from vol3d.commands.spacing import spacing_in

HELP = "grow a mask from one voxel through grey values like its own"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("image", metavar="IMAGE", type=Path, help="a volume of one channel, or a folder of slices")
    parser.add_argument(
        "--at", metavar=("Z", "Y", "X"), nargs=3, type=int, required=True, help="the voxel to begin with, from 0 on"
    )
    parser.add_argument(
        "--tolerance", metavar="GREY", type=float, required=True, help="how far grey values may be from its own"
    )
    parser.add_argument(
        "--out", metavar="MASK", type=Path, required=True, help="file of the mask, on the image's grid; new"
    )
    parser.add_argument(
        "--connectivity", type=int, choices=[6, 18, 26], default=26, help="neighbours by faces, edges, corners"
    )
    parser.add_argument("--max-distance-mm", metavar="MM", type=float, help="nothing further from the voxel joins")
    parser.add_argument("--max-volume-mm3", metavar="MM3", type=float, help="stop a region that grows beyond this")
    parser.add_argument(
        "--spacing", metavar=("Z", "Y", "X"), nargs=3, type=float, help="voxel size in mm, overrides what the file says"
    )


def run(arguments: argparse.Namespace) -> Outcome:
    """Grow, write, and say what grew."""
    from vol3d.shapes import Index3
    from vol3d.tasks.grow import grow

    grown = grow(
        arguments.image,
        Index3(*arguments.at),
        tolerance=arguments.tolerance,
        connectivity=arguments.connectivity,
        max_distance_mm=arguments.max_distance_mm,
        max_volume_mm3=arguments.max_volume_mm3,
        spacing=spacing_in(arguments),
        out=arguments.out,
    )
    return Outcome(grown.record(), grown.text())
