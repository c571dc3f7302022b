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
from typing import Any

from vol3d.commands.console import shown
from vol3d.commands.outcome import Outcome
from vol3d.errors import Vol3dError, is_out_of_memory
from vol3d.version import __version__

COMMANDS = (
    "train",
    "predict",
    "view",
    "evaluate",
    "cross-validate",
    "tune",
    "postprocess",
    "plan",
    "info",
    "convert",
    "grow",
    "phantom",
    "benchmark",
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        message = message.replace(", section.key=value", "")  # argparse takes all words to be required, if one is
        self.exit(2, f"{self.prog}: {shown(message)}. See {self.prog} --help.\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``vol3d COMMAND ...`` and return its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv and argv[0] in COMMANDS:
        return _run(argv[0], f"vol3d {argv[0]}", argv[1:])
    parser = _Parser(prog="vol3d", description="Native 3D volumetric segmentation.")
    parser.add_argument("--version", action="version", version=f"vol3d {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    for name in COMMANDS:
        commands.add_parser(name, help=_module(name).HELP)
    try:
        parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def main_train(argv: Sequence[str] | None = None) -> int:
    """Run ``vol3d-train``."""
    return _run("train", "vol3d-train", argv)


def main_predict(argv: Sequence[str] | None = None) -> int:
    """Run ``vol3d-predict``."""
    return _run("predict", "vol3d-predict", argv)


def main_view(argv: Sequence[str] | None = None) -> int:
    """Run ``vol3d-view``."""
    return _run("view", "vol3d-view", argv)


def _module(name: str) -> Any:
    return importlib.import_module(f"vol3d.commands.{name.replace('-', '_')}")


def _run(name: str, prog: str, argv: Sequence[str] | None) -> int:
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed by who called us; print would take one for the other
            setattr(sys, stream, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    command = _module(name)
    parser = _Parser(prog=prog, description=f"{command.HELP[0].upper()}{command.HELP[1:]}.")
    command.configure(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    try:
        # Intermixed, so that section.key=value may stand before or after the options.
        arguments = parser.parse_intermixed_args(_without_dashes(sys.argv[1:] if argv is None else list(argv)))
        outcome: Outcome = command.run(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    except Vol3dError as error:
        if arguments.debug:
            traceback.print_exc()
        print(f"{prog}: {shown(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{prog}: stopped", file=sys.stderr)
        return 130
    except Exception as error:
        told, exit_code = _explained(error)
        if not told:
            raise
        if arguments.debug:
            traceback.print_exc()
        print(f"{prog}: {shown(told)}", file=sys.stderr)
        return exit_code
    return _show(outcome, as_json=arguments.json)


def _without_dashes(argv: list[str]) -> list[str]:
    """The words without ``--``, which intermixed parsing does not know: what follows it is made no option."""
    at = argv.index("--") if "--" in argv else len(argv)
    return argv[:at] + [f"./{word}" if word.startswith("-") else word for word in argv[at + 1 :]]


def _explained(error: Exception) -> tuple[str, int]:
    """What an exception that is none of ours says to the user, and the exit code; "" where it is a bug."""
    if is_out_of_memory(error):
        first = (str(error).splitlines() or ["no more to be had"])[0]
        return f"out of memory ({first}); a smaller patch, window or batch needs less", 5
    plugins = sys.modules.get("vol3d.tasks.plugins")  # without it none is loaded
    return (plugins.fault_in_plugin(error) if plugins else ""), 2


def _show(outcome: Outcome, *, as_json: bool) -> int:
    try:
        if not outcome.told:
            return outcome.exit_code
        if as_json:
            print(json.dumps(outcome.data, allow_nan=False))
        elif outcome.text:
            _print(shown(outcome.text, lines=True))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader (head, say) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return outcome.exit_code


def _print(text: str) -> None:
    """Print a text; what stdout cannot encode as escapes."""
    try:
        print(text)
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding
        print(text.encode(encoding, "backslashreplace").decode(encoding))


if __name__ == "__main__":
    sys.exit(main())
