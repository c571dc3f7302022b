"""Which source each case comes from, as a table: the columns case and source, and any others."""

from pathlib import Path

from vol3d.datasets.manifest import rows_of
from vol3d.errors import InputError


def read_sources(path: Path) -> dict[str, str]:
    """Sources by case; a cases.csv with a source column is such a table, too.

    Raises:
        InputError: a column is missing, a case appears twice, or has no source: all are listed.
    """
    (_, columns), *rows = rows_of(path)
    if not {"case", "source"} <= set(columns):
        raise InputError(f"{path}: expected the columns case and source, got {', '.join(columns) or 'none'}")
    found: dict[str, str] = {}
    wrong = []
    for line, cells in rows:
        row = dict(zip(columns, cells, strict=False))
        case, source = row.get("case", ""), row.get("source", "")
        if not case or not source or case in found:
            wrong.append(f"line {line}: {'case ' + case + ' appears twice' if case in found else 'expected both'}")
        found[case] = source
    if wrong:
        raise InputError(f"{path}: {'; '.join(wrong)}")
    return found
