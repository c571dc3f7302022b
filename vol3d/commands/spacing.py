"""What --spacing says, in every command that has it."""

import argparse

from vol3d.errors import UsageError
from vol3d.shapes import Spacing, positive_spacing


def spacing_in(arguments: argparse.Namespace) -> Spacing | None:
    """Millimetres (z, y, x); None where the argument is left out.

    Raises:
        UsageError: they are not positive.
    """
    try:
        return None if arguments.spacing is None else positive_spacing(arguments.spacing)
    except ValueError as error:
        raise UsageError(f"--spacing: {error}") from error
