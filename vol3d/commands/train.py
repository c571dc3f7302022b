"""``vol3d-train DATASET``."""

import argparse
import sys
from pathlib import Path

from vol3d.commands.console import Console
from vol3d.commands.outcome import Outcome

HELP = "learn a segmentation from labelled volumes"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="folder of labelled volumes, or a cases.csv")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings, over those of the file")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML settings; what is left out is planned")
    parser.add_argument("--out", type=Path, metavar="RUN", help="run folder (default: runs/NAME-OF-DATASET)")
    parser.add_argument("--fold", default="0", help="number of the held-out fold, each, or full (default: 0)")
    parser.add_argument("--resume", action="store_true", help="continue a stopped or killed run")
    parser.add_argument("--init", type=Path, metavar="RUN|WEIGHTS", help="begin with these weights, ours or others'")
    parser.add_argument("--trust-pickle", action="store_true", help="open others' weights even if they can run code")
    parser.add_argument("--cascade", type=Path, metavar="RUN", help="an earlier run; what it says become channels")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--memory-gb", type=float, metavar="N", help="memory that a step may take (default: 8 GB of a GPU)"
    )
    parser.add_argument(
        "--plugin", type=Path, action="append", default=[], metavar="FILE.py", help="registers networks, losses ..."
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")


def run(arguments: argparse.Namespace) -> Outcome:
    """Train."""
    from vol3d.tasks.plugins import load_plugins
    from vol3d.tasks.torchrun import launched
    from vol3d.tasks.train import train

    load_plugins(arguments.plugin)
    with launched() as launch:
        results = train(
            arguments.dataset,
            out=arguments.out or Path("runs") / arguments.dataset.resolve().name,
            config_file=arguments.config,
            overrides=arguments.overrides,
            fold=arguments.fold,
            resume=arguments.resume,
            init=arguments.init,
            cascade=arguments.cascade,
            device=arguments.device,
            memory_gb=arguments.memory_gb,
            trust_pickle=arguments.trust_pickle,
            dry_run=arguments.dry_run,
            reporter=Console(),
            launch=launch,
        )
    if not results:
        return Outcome({"run": None, "best": {}, "seconds": 0.0}, told=launch.team.first)
    runs = [{"run": str(r.run), "best": r.best, "seconds": round(r.seconds, 1)} for r in results]
    lines = [f"{r.run}: {r.seconds:.0f} s, best {_told(r.best)}" for r in results]
    return Outcome(runs[0] if len(runs) == 1 else {**runs[0], "runs": runs}, "\n".join(lines))


def _told(best: dict[str, float]) -> str:
    return ", ".join(f"{k.replace('_', ' ')} {v:g}" for k, v in best.items()) or "not validated"


if __name__ == "__main__":  # torchrun -m vol3d.commands.train
    from vol3d.commands.main import main_train

    sys.exit(main_train())
