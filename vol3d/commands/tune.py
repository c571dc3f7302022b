"""``vol3d tune RUN``."""

import argparse
from pathlib import Path

from vol3d.commands.outcome import Outcome

HELP = "search post-processing settings on held-out cases, and keep those that help on held-out folds"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("run", metavar="RUN", type=Path, help="what vol3d-train wrote, best with --fold each")
    add("overrides", nargs="*", metavar="section.key=value", help="settings of inference, postprocess")
    add("--fold", nargs="+", default=[], metavar="K", help="the folds that count (default: all that are trained)")
    add("--metric", default="dice", metavar="NAME", help="dice, iou or surface_dice")
    add("--organ-mask", metavar="DIR", type=Path, help="masks of equal names, or a table of cases: try an organ gate")
    add("--growth", action="store_true", help="try growth along grey values behind the best settings, which takes long")
    add("--accept", action="store_true", help="write the settings even if held-out folds do not say that they help")
    add("--out", metavar="DIR", type=Path, help="folder of probabilities and tables (default: RUN/tuning)")
    add("--overwrite", action="store_true", help="replace probabilities that were made otherwise")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N; several GPUs: cuda:0,cuda:1")
    add("--plugin", type=Path, action="append", default=[], metavar="FILE.py", help="registers networks, losses ...")


def run(arguments: argparse.Namespace) -> Outcome:
    """Predict, search and show what was found."""
    from vol3d.commands.console import Console
    from vol3d.tasks.plugins import load_plugins
    from vol3d.tasks.tune import tune

    load_plugins(arguments.plugin)
    found = tune(
        arguments.run,
        folds=arguments.fold,
        metric=arguments.metric,
        organ_mask=arguments.organ_mask,
        growth=arguments.growth,
        accept=arguments.accept,
        out=arguments.out,
        overrides=arguments.overrides,
        overwrite=arguments.overwrite,
        device=arguments.device,
        reporter=Console(),
    )
    return Outcome(found.record(), found.table())
