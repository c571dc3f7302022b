"""The list of a data set's cases as a table, ``cases.csv``, that people can read and correct.

Columns: case, image (or one ``image CHANNEL`` each; ``image T1|FLAIR`` is one file with both), label,
organ_mask, group, source, spacing_z, spacing_y, spacing_x in mm, labelled_box such as
``z4:20 y0:512 x0:512``, and structures: the masks in a label that is a folder, in the order of their
values, ``spleen;liver``. All but case and image may be empty or left out. Paths are relative to the table.
Commas, semicolons or tabs part the columns.
"""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vol3d.datasets.cases import Case
from vol3d.datasets.dataset import UNNAMED, Dataset
from vol3d.errors import InputError
from vol3d.files.atomic import read_text, write_text
from vol3d.files.names import file_and_inside
from vol3d.files.structures import holds_masks, structures_of
from vol3d.geometry.box import Box
from vol3d.shapes import Index3, Spacing

MANIFEST = "cases.csv"
_SPACING = ("spacing_z", "spacing_y", "spacing_x")
_KNOWN = ("case", "label", "organ_mask", "group", "source", *_SPACING, "labelled_box", "structures")
_BOX = re.compile(r"\s*z(\d+):(\d+)\s+y(\d+):(\d+)\s+x(\d+):(\d+)\s*")


def write_manifest(path: Path, cases: Sequence[Case], *, channel_names: Sequence[str]) -> None:
    """Write the table; files below its folder are named relative to it."""
    folder = Path(path).parent.resolve()

    def told(file: Path | None) -> str:
        if file is None:
            return ""
        file = file.absolute()
        return str(file.relative_to(folder) if file.is_relative_to(folder) else file)

    names = list(channel_names)
    if any(len(case.images) != len(names) for case in cases):
        names = ["|".join(names)]
    images = ["image" if (name,) == UNNAMED else f"image {name}" for name in names]
    rows = [_row(["case", *images, *_KNOWN[1:]])]
    for case in cases:
        files = [told(file) for file in (*case.images, case.label, case.organ_mask)]
        rest = (*(case.spacing or ("", "", "")), box_text(case.labelled_box), ";".join(case.structures))
        row = _row([case.name, *files, case.group, case.source, *rest])
        # A line that begins with # is a remark, unless it is quoted.
        rows.append(row.replace(case.name, f'"{case.name}"', 1) if row.startswith("#") else row)
    write_text(Path(path), "".join(rows))


def _row(cells: Sequence[object]) -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue()


def is_table(path: Path) -> bool:
    """Whether the text of a file begins with a table's header."""
    return bool({"case", "image"} & {cell.split(" ")[0] for cell in rows_of(path, limit=1)[0][1]})


def rows_of(path: Path, *, limit: int | None = None) -> list[tuple[int, list[str]]]:
    """The rows of a text file with their line numbers; empty ones and those that begin with # left out.

    Columns are parted by what the first row holds first of tab, semicolon and comma, or else by spaces.

    Raises:
        InputError: it is no text file.
    """
    text = read_text(path, errors="surrogateescape").removeprefix("\ufeff")
    if "\0" in text:
        raise InputError(f"{path} is no text file")
    lines = io.StringIO(text, newline="").readlines()  # not splitlines: names may hold what that splits at
    kept = [(n, line) for n, line in enumerate(lines, start=1) if line.strip() and not line.startswith("#")][:limit]
    part = next((c for c in "\t;," if kept and c in kept[0][1]), " ")
    rows = csv.reader([line for _, line in kept], delimiter=part, skipinitialspace=True)
    # A quoted name may go over several lines.
    return [(kept[rows.line_num - 1][0], [cell.strip() for cell in row]) for row in rows] or [(1, [])]


def read_manifest(path: Path) -> Dataset:
    """The cases of a table and their channels' names.

    Raises:
        InputError: a column or a value is wrong, a name appears twice, or files are missing: all are listed.
    """
    path = Path(path)
    (_, columns), *rows = rows_of(path)
    images = [c for c in columns if c == "image" or c.startswith("image ")]
    unknown = [c for c in columns if c not in _KNOWN and c not in images]
    if "case" not in columns or not images or unknown or len(set(columns)) < len(columns):
        told = f"{', '.join(unknown)} is none of them" if unknown else f"got {', '.join(columns) or 'none'}"
        raise InputError(
            f"{path}: expected the columns case, image (or image CHANNEL ...) and some of {', '.join(_KNOWN[1:])}, "
            f"each once; {told}"
        )
    cases, wrong = [], []
    for line, cells in rows:
        try:
            if len(cells) > len(columns):
                raise ValueError(f"expected {len(columns)} columns, got {len(cells)}")
            row = dict(zip(columns, cells + [""] * len(columns), strict=False))
            cases.append(_case(path.parent, row, images))
        except ValueError as error:
            wrong.append(f"line {line}: {error}")
    if wrong or not cases:
        raise InputError(f"{path}: {'; '.join(wrong)}" if wrong else f"{path} lists no case")
    names = [n for c in images for n in (c.removeprefix("image").strip() or "image").split("|")]
    if len(names) > len(images) > 1:
        raise InputError(
            f"{path}: either each image column has one channel, or one column has all: {', '.join(images)}"
        )
    return checked_files(Dataset(path, f"the table {path.name}", tuple(cases), tuple(names)))


def checked_files(found: Dataset) -> Dataset:
    """The data set with the structures of labels that are folders of masks.

    Raises:
        InputError: files are missing, or folders hold no masks: all are listed.
    """
    files = [f for case in found.cases for f in (*case.images, case.label, case.organ_mask) if f is not None]
    missing = [str(f) for f in files if not file_and_inside(f)[0].exists()]
    if missing:
        raise InputError(f"{found.path}: {len(missing)} files do not exist: {', '.join(missing)}")
    return with_structures(found)


def with_structures(found: Dataset) -> Dataset:
    """The data set in which every label that is a folder of masks knows the structures of all of them.

    A folder of slices is one volume and has none. Structures that a table tells stay in their order.

    Raises:
        InputError: folders hold no masks or some twice, or labels are of both kinds.
    """
    folders = [c.label for c in found.cases if c.label and holds_masks(c.label)]
    if not folders:
        return found
    other = [c.name for c in found.cases if c.label and c.label not in folders]
    told = {c.structures for c in found.cases if c.label and c.structures}
    if other or len(told) > 1:
        told_apart = f"labels are folders of masks, but not in {', '.join(other)}"
        raise InputError(f"{found.path}: {told_apart if other else 'structures must be the same in every row'}")
    inside = structures_of(folders)
    names = next(iter(told), inside)
    strange = sorted(set(inside) - set(names))
    if strange:
        raise InputError(f"{found.path}: masks that structures does not name: {', '.join(strange)}")
    lacking = [
        f"{case.name} has no mask of {', '.join(absent)}: taken to be nowhere in it"
        for case in found.cases
        if case.label and (absent := [name for name in names if name not in structures_of([case.label])])
    ]
    return replace(
        found,
        cases=tuple(replace(c, structures=names) if c.label else c for c in found.cases),
        label_names={name: (value,) for value, name in enumerate(names, start=1)},
        warnings=(*found.warnings, *lacking),
    )


def _case(folder: Path, row: dict[str, str], images: Sequence[str]) -> Case:
    def file(column: str) -> Path | None:
        value = row.get(column)
        return folder / value if value else None

    files = [file(column) for column in images]
    lacking = [column for column, one in zip(images, files, strict=True) if one is None]
    if lacking:
        raise ValueError(f"case {row['case']} has no {' and no '.join(lacking)}")
    spacing = [row.get(column, "") for column in _SPACING]
    return Case(
        name=row["case"],
        images=tuple(f for f in files if f is not None),
        label=file("label"),
        organ_mask=file("organ_mask"),
        group=row.get("group", ""),
        source=row.get("source", ""),
        spacing=_spacing(spacing) if any(spacing) else None,
        labelled_box=_box(row.get("labelled_box", "")),
        structures=tuple(name for name in row.get("structures", "").split(";") if name),
    )


def _spacing(cells: Sequence[str]) -> Spacing:
    try:
        spacing = Spacing(*(float(cell) for cell in cells))
    except ValueError:
        spacing = Spacing(0, 0, 0)
    if not all(0 < step < float("inf") for step in spacing):
        raise ValueError(f"expected three positive millimetres in {', '.join(_SPACING)}, got {', '.join(cells)}")
    return spacing


def box_text(box: Box | None) -> str:
    """A box as people read it: z4:20 y0:512 x0:512, half-open."""
    return "" if box is None else " ".join(f"{a}{i}:{j}" for a, i, j in zip("zyx", box.start, box.stop, strict=True))


def _box(text: str) -> Box | None:
    match = _BOX.fullmatch(text)
    if match:
        z0, z1, y0, y1, x0, x1 = (int(number) for number in match.groups())
        box = Box(Index3(z0, y0, x0), Index3(z1, y1, x1))
        if box.shape.voxels:
            return box
    if text.strip():
        raise ValueError(f"labelled_box wants voxels as z4:20 y0:512 x0:512, each from below to, got {text!r}")
    return None
