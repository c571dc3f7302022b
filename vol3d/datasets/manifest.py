"""The list of a data set's cases as a table, ``cases.csv``, that people can read and correct.

Columns: name, image (or one ``image CHANNEL`` each), label, organ_mask, group, source and
spacing_z, spacing_y, spacing_x in mm. All but name and image may be empty or left out. Paths are
relative to the table.
"""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vol3d.datasets.cases import Case
from vol3d.errors import InputError
from vol3d.files.atomic import read_text, write_text
from vol3d.shapes import Spacing

MANIFEST = "cases.csv"
_SPACING = ("spacing_z", "spacing_y", "spacing_x")
_KNOWN = {"name", "label", "organ_mask", "group", "source", *_SPACING}


def write_manifest(path: Path, cases: Sequence[Case], *, channel_names: Sequence[str]) -> None:
    """Write the table; files below its folder are named relative to it."""
    folder = Path(path).parent.resolve()

    def told(file: Path | None) -> str:
        if file is None:
            return ""
        file = file.absolute()
        return str(file.relative_to(folder) if file.is_relative_to(folder) else file)

    image_columns = [f"image {name}" for name in channel_names]
    stream = io.StringIO(newline="")
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["name", *image_columns, "label", "organ_mask", "group", "source", *_SPACING])
    for case in cases:
        spacing = case.spacing or ("", "", "")
        files = [told(file) for file in (*case.images, case.label, case.organ_mask)]
        table.writerow([case.name, *files, case.group, case.source, *spacing])
    write_text(Path(path), stream.getvalue())


def read_manifest(path: Path) -> tuple[tuple[Case, ...], tuple[str, ...]]:
    """The cases and the channels' names.

    Raises:
        InputError: a column or a value is wrong, a name appears twice, or files are missing: all are listed.
    """
    path = Path(path)
    rows = csv.DictReader(io.StringIO(read_text(path)))
    columns = list(rows.fieldnames or ())
    images = [c for c in columns if c == "image" or c.startswith("image ")]
    unknown = [c for c in columns if c not in _KNOWN and c not in images]
    if "name" not in columns or not images or unknown:
        raise InputError(f"{path}: expected the columns name, image and some of {sorted(_KNOWN)}, got {columns}")
    cases = tuple(_case(path, number, row, images) for number, row in enumerate(rows, start=2))
    if not cases:
        raise InputError(f"{path} lists no case")
    twice = sorted(name for name, count in Counter(case.name for case in cases).items() if count > 1)
    if twice:
        raise InputError(f"{path}: cases listed more than once: {', '.join(twice)}")
    files = [f for case in cases for f in (*case.images, case.label, case.organ_mask) if f is not None]
    missing = [str(f) for f in files if not f.exists()]
    if missing:
        raise InputError(f"{path}: {len(missing)} files do not exist: {', '.join(missing)}")
    return cases, tuple(c.removeprefix("image").strip() or "image" for c in images)


def _case(path: Path, number: int, row: dict[str, str], images: Sequence[str]) -> Case:
    def file(column: str) -> Path | None:
        value = row.get(column) or ""
        return path.parent / value if value else None

    files = [file(column) for column in images]
    spacing = [row.get(column) or "" for column in _SPACING]
    try:
        return Case(
            name=row["name"] or "",
            images=tuple(f for f in files if f is not None) if all(files) else (),
            label=file("label"),
            organ_mask=file("organ_mask"),
            group=row.get("group") or "",
            source=row.get("source") or "",
            spacing=Spacing(*(float(v) for v in spacing)) if any(spacing) else None,
        )
    except ValueError as error:
        raise InputError(f"{path}, line {number}: {error}") from error
