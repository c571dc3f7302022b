"""``vol3d benchmark NAME`` and ``vol3d benchmark --report``."""

import argparse
from pathlib import Path
from typing import Any

from vol3d.commands.outcome import Outcome

HELP = "measure a claim beside its peers on this machine, or write BENCHMARKS.md"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        help="surface-dice, inference, training, hippocampus, ...: see docs/cli.md",
    )
    parser.add_argument("--data", metavar="PATH", type=Path, help="data set to train on; an image for inference")
    parser.add_argument("--run", metavar="DIR", type=Path, help="a folder to work in; the trained run of inference")
    parser.add_argument(
        "--against", metavar="PEERS", default="monai,nnunet", help="whom inference and training are measured beside"
    )
    parser.add_argument("--size", metavar="N", type=int, default=160, help="edge of inference's volume, voxels")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write the record there, e.g. benchmarks/NAME.json")
    parser.add_argument(
        "--peer-python", metavar="PATH", type=Path, help="an interpreter that has the peers vol3d does not install"
    )
    parser.add_argument(
        "--report", action="store_true", help="write BENCHMARKS.md (or --out) from benchmarks/*.json instead"
    )


def run(arguments: argparse.Namespace) -> Outcome:
    """Run one benchmark, or write the page of all."""
    from vol3d.commands.console import Console
    from vol3d.errors import UsageError
    from vol3d.tasks.benchmark import NAMES, rows_table, run_benchmark
    from vol3d.tasks.benchmarks_page import write_page

    if arguments.report == (arguments.name is not None):
        raise UsageError(f"expected either --report or a benchmark's name: {', '.join(NAMES)}")
    if arguments.report:
        page = arguments.out or Path("BENCHMARKS.md")
        text = write_page(Path("benchmarks"), page)
        return Outcome({"page": str(page)}, text)
    record = run_benchmark(
        arguments.name,
        peer_python=arguments.peer_python,
        data=arguments.data,
        run=arguments.run,
        out=arguments.out,
        against=_peers(arguments.against),
        size=arguments.size,
        reporter=Console(),
    )
    return Outcome(record, rows_table(record))


def _peers(names: str) -> list[Any]:
    from vol3d.errors import UsageError

    found = [name for name in names.split(",") if name]
    if wrong := [name for name in found if name not in ("monai", "nnunet")]:
        raise UsageError(f"--against: unknown peer {wrong[0]!r}, expected monai and nnunet with a comma between them")
    return found
