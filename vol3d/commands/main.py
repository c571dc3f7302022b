"""The ``vol3d`` command: finds the subcommand, runs it, turns errors into a sentence and an exit code.

A subcommand is a module of this room with ``HELP`` (one line), ``configure(parser)`` and
``run(arguments) -> Outcome``. It imports what is heavy inside ``run``, so that ``--help`` stays fast.
"""

import argparse
import importlib
import json
import os
import sys
import traceback
from collections.abc import Sequence

from vol3d.commands.outcome import Outcome
from vol3d.errors import Vol3dError
from vol3d.version import __version__

COMMANDS = ("train", "predict", "view", "evaluate", "phantom", "benchmark")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"{self.prog}: {message}. See {self.prog} --help.\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``vol3d COMMAND ...`` and return its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = _Parser(prog="vol3d", description="Native 3D volumetric segmentation.")
    parser.add_argument("--version", action="version", version=f"vol3d {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    # Only the command that was asked for is configured in full; of the others the list shows one line.
    for name in COMMANDS:
        module = importlib.import_module(f"vol3d.commands.{name}")
        _configure(subparsers.add_parser(name, help=module.HELP, description=module.HELP), name)
    return _parse_and_run(parser, argv)


def main_train(argv: Sequence[str] | None = None) -> int:
    """Run ``vol3d-train``."""
    return _single("train", argv)


def main_predict(argv: Sequence[str] | None = None) -> int:
    """Run ``vol3d-predict``."""
    return _single("predict", argv)


def main_view(argv: Sequence[str] | None = None) -> int:
    """Run ``vol3d-view``."""
    return _single("view", argv)


def _single(name: str, argv: Sequence[str] | None) -> int:
    module = importlib.import_module(f"vol3d.commands.{name}")
    parser = _Parser(prog=f"vol3d-{name}", description=module.HELP)
    _configure(parser, name)
    return _parse_and_run(parser, sys.argv[1:] if argv is None else list(argv))


def _configure(parser: argparse.ArgumentParser, name: str) -> None:
    importlib.import_module(f"vol3d.commands.{name}").configure(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(command_module=f"vol3d.commands.{name}")


def _parse_and_run(parser: argparse.ArgumentParser, argv: Sequence[str]) -> int:
    try:
        # Intermixed, so that section.key=value may stand before or after the options.
        arguments = parser.parse_args(argv)
    except SystemExit as exit_:
        return int(exit_.code or 0)
    try:
        outcome: Outcome = importlib.import_module(arguments.command_module).run(arguments)
    except Vol3dError as error:
        if arguments.debug:
            traceback.print_exc()
        print(f"vol3d: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("vol3d: stopped", file=sys.stderr)
        return 130
    except MemoryError as error:
        print(f"vol3d: out of memory: {error}", file=sys.stderr)
        return 5
    try:
        if arguments.json:
            print(json.dumps(outcome.data, allow_nan=False))
        elif outcome.text:
            print(outcome.text)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader (head, say) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return outcome.exit_code


if __name__ == "__main__":
    sys.exit(main())
