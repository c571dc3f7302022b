"""``vol3d plan DATASET``."""

import argparse
from pathlib import Path

from vol3d.commands.outcome import Outcome

HELP = "look at a data set and plan a training on it, every choice with its reason"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="folder of labelled volumes, or a cases.csv")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings, over those of the file")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML settings; what is left out is planned")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write plan.yaml and a report of the data set there")
    parser.add_argument("--memory-gb", type=float, metavar="N", help="plan for a GPU with so much memory")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--plugin", type=Path, action="append", default=[], metavar="FILE.py", help="registers networks, losses ..."
    )


def run(arguments: argparse.Namespace) -> Outcome:
    """Plan."""
    from vol3d.commands.console import Console
    from vol3d.tasks.plan import plan
    from vol3d.tasks.plugins import load_plugins

    load_plugins(arguments.plugin)
    result = plan(
        arguments.dataset,
        out=arguments.out,
        config_file=arguments.config,
        overrides=arguments.overrides,
        memory_gb=arguments.memory_gb,
        device=arguments.device,
        reporter=Console(),
    )
    for name, reason in result.failed.items():
        Console().warn(f"case {name} cannot be used: {reason}")
    written = [path for path in (result.plan_file, result.report_file) if path is not None]
    text = "\n".join(map(str, written)) if written else result.planned.text().rstrip()
    return Outcome(result.record(), text, exit_code=4 if result.failed else 0)
