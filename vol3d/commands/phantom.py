"""``vol3d phantom``: write synthetic kidneys to learn from and to test on."""

import argparse

from vol3d.commands.outcome import Outcome
from vol3d.errors import UsageError
from vol3d.shapes import Shape3

HELP = "Write synthetic kidneys (image, vessels, organ mask) that look like HiP-CT scans"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("out", metavar="OUT", help="folder to write to; new or empty")
    parser.add_argument("--kind", choices=["kidney"], default="kidney", help="what to draw (default: kidney)")
    parser.add_argument("--shape", default="96,160,160", metavar="Z,Y,X", help="voxels (default: 96,160,160)")
    parser.add_argument("--count", type=int, default=3, metavar="N", help="number of kidneys (default: 3)")
    parser.add_argument("--random-seed", type=int, default=0, metavar="S", help="0 or more (default: 0)")
    parser.add_argument(
        "--layout", choices=["sennet", "nifti"], default="sennet", help="slices as in SenNet + HOA, or NIfTI files"
    )
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that is not empty")


def run(arguments: argparse.Namespace) -> Outcome:
    """Write them and say where they are."""
    from pathlib import Path

    from vol3d.commands.console import Console
    from vol3d.tasks.phantom import phantom

    cases = phantom(
        Path(arguments.out),
        shape=_shape(arguments.shape),
        count=arguments.count,
        random_seed=arguments.random_seed,
        layout=arguments.layout,
        overwrite=arguments.overwrite,
        reporter=Console(),
    )
    kidneys = [
        {"name": case.name, "shape": list(case.shape), "foreground_share": case.foreground_share} for case in cases
    ]
    lines = [f"{case.path}: {100 * case.foreground_share:.2f} % vessels" for case in cases]
    return Outcome({"out": arguments.out, "layout": arguments.layout, "kidneys": kidneys}, "\n".join(lines))


def _shape(text: str) -> Shape3:
    try:
        z, y, x = (int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"expected --shape Z,Y,X as three whole numbers such as 96,160,160, got {text!r}") from error
    return Shape3(z, y, x)
