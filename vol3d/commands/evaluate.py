"""``vol3d evaluate PRED TRUTH``."""

import argparse
from pathlib import Path

from vol3d.commands.outcome import Outcome
from vol3d.commands.spacing import spacing_in

HELP = "score predicted masks against the truth: overlap, surface, components"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("prediction", metavar="PRED", type=Path, help="a volume, or a folder of volumes")
    parser.add_argument(
        "truth", metavar="TRUTH", type=Path, help="the same, with the same names, or a table of cases (cases.csv)"
    )
    parser.add_argument(
        "--labels",
        metavar="NAME=VALUE[+VALUE]",
        nargs="+",
        help="what to score, e.g. liver=1+2 lesion=2 (default: every value that occurs)",
    )
    parser.add_argument("--ignore", metavar="VALUE", type=int, help="what the truth holds where it is not known")
    parser.add_argument(
        "--metrics", metavar="NAME", nargs="+", help="what to compute: metrics, or groups of them (default: default)"
    )
    parser.add_argument("--tolerance-mm", metavar="MM", type=float, help="also score surface Dice at this tolerance")
    parser.add_argument(
        "--empty",
        choices=["undefined", "one"],
        default="undefined",
        help="what Dice, IoU and surface Dice of two empty masks are",
    )
    parser.add_argument(
        "--baseline", metavar="PRED2", type=Path, help="another prediction of six cases or more, to compare with"
    )
    parser.add_argument(
        "--probability",
        metavar="DIR",
        type=Path,
        help="probabilities kept beside the prediction, for --metrics instances (average precision) or centreline",
    )
    parser.add_argument(
        "--sources", metavar="FILE", type=Path, help="a table with the columns case and source: scores by source, too"
    )
    parser.add_argument(
        "--spacing",
        metavar=("Z", "Y", "X"),
        nargs=3,
        type=float,
        help="voxel size in mm, overrides what the files say of their place",
    )
    parser.add_argument(
        "--slices", choices=["volume", "cases"], default="volume", help="what the slices of a folder are (TIFF, PNG)"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="write the scores there, as JSON, CSV and text")


def run(arguments: argparse.Namespace) -> Outcome:
    """Evaluate and show the table."""
    from vol3d.commands.console import Console
    from vol3d.tasks.evaluate import evaluate, regions

    evaluation = evaluate(
        arguments.prediction,
        arguments.truth,
        labels=regions(arguments.labels) if arguments.labels else None,
        ignore=arguments.ignore,
        metrics=arguments.metrics,
        tolerance_mm=arguments.tolerance_mm,
        empty=arguments.empty,
        baseline=arguments.baseline,
        probability=arguments.probability,
        sources=arguments.sources,
        spacing=spacing_in(arguments),
        slices=arguments.slices,
        out=arguments.out,
        reporter=Console(),
    )
    return Outcome(evaluation.record(), evaluation.table())
