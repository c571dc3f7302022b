"""``vol3d info PATH...``."""

import argparse
from pathlib import Path

from vol3d.commands.outcome import Outcome
from vol3d.commands.spacing import spacing_in

HELP = "tell what files hold: format, shape, place, values, memory, and what is odd"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "paths", metavar="PATH", nargs="+", type=Path, help="a volume, a folder of slices, or a folder of volumes"
    )
    parser.add_argument("--verify", action="store_true", help="read every voxel, however large the file is")
    parser.add_argument(
        "--spacing", metavar=("Z", "Y", "X"), nargs=3, type=float, help="voxel size in mm, overrides what the files say"
    )


def run(arguments: argparse.Namespace) -> Outcome:
    """Look, and tell."""
    from vol3d.commands.console import Console, shown
    from vol3d.tasks.info import info

    result = info(arguments.paths, verify=arguments.verify, spacing=spacing_in(arguments), reporter=Console())
    told = [volume.text() for volume in result.volumes]
    told += [f"{shown(path)}\n  FAILED   {shown(reason)}" for path, reason in result.failed.items()]
    data = {
        "volumes": [volume.record() for volume in result.volumes],
        **({"failed": result.failed} if result.failed else {}),
    }
    return Outcome(data, "\n".join(told), exit_code=4 if result.failed else 0)
