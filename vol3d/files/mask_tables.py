"""Tables of masks as text, a CSV file with a row per slice or picture: read row by row, written whole or not at all."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vol3d.errors import InputError, UsageError, some
from vol3d.files.atomic import atomic_path
from vol3d.files.masks import Plane

SIZE = ("height", "width")


@dataclass(frozen=True)
class TableRow:
    """A row by its columns; what is wrong with it is told with its line."""

    path: Path
    line: int
    cells: dict[str, str]

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Say the file and the line of a ValueError of the block.

        Raises:
            InputError: there was one.
        """
        try:
            yield
        except ValueError as error:
            raise InputError(f"{self.path}: line {self.line}: {error}") from error

    def plane(self, told: Plane | None) -> Plane:
        """Pixels along y and x by the columns height and width, or as they are told otherwise.

        Raises:
            InputError: both say it and differ, or it is no size.
            UsageError: neither says it.
        """
        given = [self.cells.get(name, "") for name in SIZE]
        if not any(given):
            if told is None:
                raise UsageError(
                    f"{self.path} does not say how large its masks are: give --shape Y,X, or --like and the images"
                )
            return told
        with self.telling():
            if not all(text.isascii() and text.isdigit() and 0 < int(text) < 1 << 20 for text in given):
                raise ValueError(f"expected height and width in pixels, got {given[0]!r} and {given[1]!r}")
            own = (int(given[0]), int(given[1]))
            if told is not None and told != own:
                raise ValueError(f"height and width are {own[0]} x {own[1]}, expected {told[0]} x {told[1]}")
        return own


class MaskTable:
    """A table whose rows are read as they are asked for: only the ids and where their rows begin stay in memory.

    columns are those it must have, the id first, more those it may have. ids are in the order of the file, with the
    lines and places of their rows; one id has one row unless repeats. Cells hold no comma.

    Raises:
        UsageError: the file cannot be read.
        InputError: columns are missing or unknown, a row has too few or too many cells, or an id comes again.
    """

    def __init__(self, path: Path, *, columns: Sequence[str], more: Sequence[str] = (), repeats: bool = False) -> None:
        self.path, self.ids = path, dict[str, list[tuple[int, int]]]()
        try:
            with path.open("rb") as stream:
                self.columns = _header(path, stream.readline(), columns, more)
                place = stream.tell()
                for line, text in enumerate(stream, start=2):
                    if text.strip():
                        name = self._row(line, text).cells[columns[0]]
                        if name in self.ids and not repeats:
                            raise InputError(
                                f"{path}: line {line}: {columns[0]} {name} is in line {self.ids[name][0][0]} already; "
                                "expected it once"
                            )
                        self.ids.setdefault(name, []).append((line, place))
                    place += len(text)
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from error

    def rows(self, name: str) -> list[TableRow]:
        """The rows of an id."""
        rows = []
        with self.path.open("rb") as stream:
            for line, place in self.ids[name]:
                stream.seek(place)
                rows.append(self._row(line, stream.readline()))
        return rows

    def _row(self, line: int, text: bytes) -> TableRow:
        cells = _cells(self.path, line, text)
        if len(cells) != len(self.columns):
            told = f"expected {len(self.columns)} columns ({', '.join(self.columns)}), got {len(cells)}"
            raise InputError(f"{self.path}: line {line}: {told}")
        return TableRow(self.path, line, dict(zip(self.columns, cells, strict=True)))


def _header(path: Path, text: bytes, columns: Sequence[str], more: Sequence[str]) -> list[str]:
    found = _cells(path, 1, text.removeprefix(b"\xef\xbb\xbf"))
    if not {*columns} <= {*found} <= {*columns, *more} or len({*found}) < len(found):
        may = f" and perhaps {', '.join(more)}" if more else ""
        raise InputError(f"{path}: line 1: expected the columns {', '.join(columns)}{may}, got {some(found)[:200]}")
    return found


def _cells(path: Path, line: int, text: bytes) -> list[str]:
    try:
        return [cell.strip().strip('"') for cell in text.decode("utf-8").strip("\r\n").split(",")]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: line {line}: expected text in UTF-8") from error


@contextmanager
def written_table(path: Path, columns: Sequence[str]) -> Iterator[Callable[..., None]]:
    """Begin a table; the yielded function takes a row's cells. It appears when the block ends well.

    Raises:
        UsageError: a cell holds what parts cells, or the place cannot be written to.
    """
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:

        def write(*cells: object) -> None:
            row = [str(cell) for cell in cells]
            if any(c in cell for cell in row for c in ',"\r\n'):
                raise UsageError(f"cannot write {path}: {row[0]!r} holds a comma, a quote or a line break; rename it")
            stream.write(",".join(row) + "\n")

        write(*columns)
        yield write
