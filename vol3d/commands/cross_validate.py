"""``vol3d cross-validate RUN``."""

import argparse
from pathlib import Path

from vol3d.commands.outcome import Outcome

HELP = "predict every case by the fold that held it out, and score them as one table"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", metavar="RUN", type=Path, help="what vol3d-train wrote, with one fold or more")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings of inference, postprocess")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder of masks and scores (default: RUN/out_of_fold)")
    parser.add_argument("--tolerance-mm", metavar="MM", type=float, help="also score surface Dice at this tolerance")
    parser.add_argument("--overwrite", action="store_true", help="replace results that were made otherwise")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N; several GPUs: cuda:0,cuda:1")
    parser.add_argument(
        "--plugin", type=Path, action="append", default=[], metavar="FILE.py", help="registers networks, losses ..."
    )


def run(arguments: argparse.Namespace) -> Outcome:
    """Predict, evaluate and show the table."""
    from vol3d.commands.console import Console
    from vol3d.tasks.cross_validate import cross_validate
    from vol3d.tasks.plugins import load_plugins

    load_plugins(arguments.plugin)
    found = cross_validate(
        arguments.run,
        out=arguments.out,
        overrides=arguments.overrides,
        tolerance_mm=arguments.tolerance_mm,
        overwrite=arguments.overwrite,
        device=arguments.device,
        reporter=Console(),
    )
    return Outcome(found.record(), found.table())
