"""Readers of step 2. In: jsonl, csv, tsv, parquet or `datasets` data. Out: `Table`, columns with row numbers.

All faults of all files are reported together, each with its line, so that a user can repair them in one go.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from aang_core.errors import TaskError
from aang_core.files import json_of

if TYPE_CHECKING:
    from datasets import Dataset

SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")
SHOWN_FAULTS = 5
DROP_HINT = (
    "rows with an empty cell can be left out: --drop-empty, or drop_empty = true in task.toml "
    "(`aang audit` counts them)"
)
UNLABELLED_HINT = 'texts without labels can be trained on: --unlabelled empty, or unlabelled = "empty" in task.toml'


class Faults:
    """What is wrong with some data, collected to be reported in one message."""

    def __init__(self) -> None:
        self.count = 0
        self.shown: list[str] = []
        self.hints: dict[str, None] = {}

    def add(self, where: str, what: str, *hints: str) -> None:
        """Note one fault; the first `SHOWN_FAULTS` are kept in words, the others counted.

        :param hints: what to do about faults of this kind; said once, at the end.
        """
        self.count += 1
        self.hints |= dict.fromkeys(hints)
        if len(self.shown) < SHOWN_FAULTS:
            self.shown.append(f"{where}: {what}")

    def raise_any(self, what: str) -> None:
        """:raises TaskError: where anything was noted."""
        if not self.count:
            return
        more = self.count - len(self.shown)
        lines = [*self.shown, *([f"… and {more} more"] if more else []), *self.hints]
        noun = "fault" if self.count == 1 else "faults"
        raise TaskError(f"{what} has {self.count} {noun}:\n  " + "\n  ".join(lines))


@attrs.frozen(eq=False, kw_only=True)
class Table:
    """One file or data set, read but not yet understood.

    :param where: what messages call it.
    :param columns: values by column name, all of one length.
    :param numbers: each row's line in the file, or its row number; from 1.
    :param by_line: whether `numbers` are lines.
    :param class_names: the declared names of columns that hold class indices.
    :param remarks: what the reader did that the user should know.
    """

    where: str
    columns: Mapping[str, list[Any]]
    numbers: Sequence[int]
    by_line: bool = True
    class_names: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    def at(self, row: int) -> str:
        """The place of a row, as messages name it."""
        number = self.numbers[row]
        return f"{self.where}:{number}" if self.by_line else f"{self.where} row {number}"

    def select(self, rows: Sequence[int]) -> Table:
        """These rows alone, under their old numbers."""
        columns = {name: [values[row] for row in rows] for name, values in self.columns.items()}
        return attrs.evolve(self, columns=columns, numbers=[self.numbers[row] for row in rows])


def file_and_column(where: str | Path) -> tuple[Path, str]:
    """``texts.csv:message`` → its file and its column; an empty column where none is named.

    Only a table has columns, and a file that has the whole name comes first: names may hold colons.
    """
    path = Path(where).expanduser()
    file, _, column = str(path).rpartition(":")
    named = column and Path(file).suffix.lower() in SUFFIXES and not path.exists()
    return (Path(file), column) if named else (path, "")


def read_lines(path: Path, faults: Faults) -> list[tuple[int, str]]:
    r"""Lines of a UTF-8 file with their numbers, without line ends; a byte order mark is dropped.

    Only ``\n`` and ``\r\n`` end a line: `str.splitlines` would also cut at characters such as U+2028,
    which texts contain.

    :raises TaskError: where the file cannot be read at all.
    """
    try:
        data = path.read_bytes()
    except OSError as cause:
        raise TaskError(f"cannot read {path}: {cause.strerror}") from cause
    return decoded_lines(data, str(path), faults)


def decoded_lines(data: bytes, where: str, faults: Faults) -> list[tuple[int, str]]:
    """The same from bytes that messages call `where`.

    :raises TaskError: where they are UTF-16.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise TaskError(f"{where} is UTF-16; expected UTF-8: save it as UTF-8 and try again")
    pieces = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not pieces[-1]:
        pieces.pop()
    lines = []
    for number, piece in enumerate(pieces, 1):
        try:
            lines.append((number, piece.removesuffix(b"\r").decode("utf-8")))
        except UnicodeDecodeError as cause:
            byte = piece[cause.start]
            faults.add(
                f"{where}:{number}", f"byte 0x{byte:02x} is not UTF-8; save the file as UTF-8"
            )
    return lines


def read_table(path: Path, header: Sequence[str], faults: Faults) -> Table:
    """Read one file by its suffix.

    :param header: column names of a csv or tsv file that has no header line; else empty.
    :raises TaskError: where the file cannot be read, or its suffix is unknown.
    """
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        return _read_jsonl(path, faults)
    if suffix in (".csv", ".tsv"):
        lines = read_lines(path, faults)
        cells = _csv_cells(path, lines, faults) if suffix == ".csv" else _tsv_cells(lines)
        return _read_cells(path, cells, header, faults)
    if suffix == ".parquet":
        return _read_parquet(path)
    raise TaskError(f"{path} is no data file; expected one of {', '.join(SUFFIXES)}")


def _blank_remark(path: Path, blank: int) -> tuple[str, ...]:
    return (f"{path}: {blank} blank lines skipped",) if blank else ()


def _read_jsonl(path: Path, faults: Faults) -> Table:
    records: list[dict[str, Any]] = []
    numbers: list[int] = []
    names: dict[str, None] = {}  # ordered, so that messages list columns as the file does
    blank = 0
    for number, line in read_lines(path, faults):
        if not line.strip():
            blank += 1
            continue
        try:
            record = json_of(line)
        except ValueError as cause:
            faults.add(f"{path}:{number}", f"not JSON ({cause})")
            continue
        if not isinstance(record, dict):
            faults.add(f"{path}:{number}", f"expected a JSON object, found {line.strip()[:40]!r}")
            continue
        if "\\ud" in line.lower() and not _is_unicode(record):
            faults.add(f"{path}:{number}", "holds half of a surrogate pair, which is no character")
            continue
        records.append(record)
        numbers.append(number)
        names |= dict.fromkeys(record)
    columns = {name: [record.get(name) for record in records] for name in names}
    remarks = _blank_remark(path, blank)
    return Table(where=str(path), columns=columns, numbers=numbers, remarks=remarks)


def _is_unicode(record: Mapping[str, Any]) -> bool:
    """Whether every string can be written as UTF-8; JSON's escapes can name half a character."""
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


Cells = Iterator[tuple[int, list[str]]]


def _tsv_cells(lines: Sequence[tuple[int, str]]) -> Cells:
    """Cells between tabs. Quotation marks mean themselves, as GLUE's files need."""
    return ((number, line.split("\t") if line.strip() else []) for number, line in lines)


def _csv_cells(path: Path, lines: Sequence[tuple[int, str]], faults: Faults) -> Cells:
    """Cells of a csv file; a quoted cell may hold line ends. The number is that of a row's first line."""
    limit = csv.field_size_limit(sys.maxsize)  # the library's default refuses texts over 128 KiB
    try:
        reader = csv.reader((line + "\n" for _, line in lines), strict=True)
        while True:
            start = reader.line_num
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as cause:
                faults.add(f"{path}:{lines[min(start, len(lines) - 1)][0]}", f"not csv ({cause})")
                return  # what follows an open quotation cannot be told apart
            yield lines[start][0], cells if any(cell.strip() for cell in cells) else []
    finally:
        csv.field_size_limit(limit)


def _read_cells(path: Path, cells: Cells, header: Sequence[str], faults: Faults) -> Table:
    rows = list(cells)
    blank = sum(not row for _, row in rows)
    rows = [(number, row) for number, row in rows if row]
    remarks = _blank_remark(path, blank)
    names = list(header)
    if rows and not header:
        names = [cell.strip() for cell in rows[0][1]]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            faults.add(
                f"{path}:{rows[0][0]}", f"the header names {', '.join(map(repr, twice))} twice"
            )
        rows = rows[1:]
    elif rows and _is_header([row for _, row in rows], header):
        first = ", ".join(cell.strip() for cell in rows[0][1])
        remarks += (f"{path}:{rows[0][0]} was read as a header line, not as data: {first}",)
        rows = rows[1:]
    good = []
    for number, row in rows:
        if len(row) == len(names):
            good.append((number, row))
        else:
            faults.add(f"{path}:{number}", f"expected {len(names)} cells, found {len(row)}")
    columns = {name: [row[i] for _, row in good] for i, name in enumerate(names)}
    numbers = [number for number, _ in good]
    return Table(where=str(path), columns=columns, numbers=numbers, remarks=remarks)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_header(rows: Sequence[Sequence[str]], header: Sequence[str]) -> bool:
    """Whether the first line of a file declared header-less is a header all the same.

    Some publishers give one split of three a header. The first line is taken for one where its cells
    are the declared names, or where there are columns of numbers and not one of them holds a number
    there (and no cell is empty or repeated, as in a row with missing values).
    """
    first = [cell.strip() for cell in rows[0]]
    if [cell.casefold() for cell in first] == [name.strip().casefold() for name in header]:
        return True
    others = [row for row in rows[1:] if len(row) == len(first)]
    if len(others) < 2 or "" in first or len(set(first)) < len(first):
        return False
    numeric = [i for i in range(len(first)) if all(_is_number(row[i]) for row in others)]
    return bool(numeric) and not any(_is_number(first[i]) for i in numeric)


def _read_parquet(path: Path) -> Table:
    import pyarrow as pa  # about a second to import, and most tasks are text files
    import pyarrow.parquet
    from datasets import Dataset

    try:
        table = pa.parquet.read_table(path)
    except (OSError, pa.ArrowInvalid) as cause:
        raise TaskError(f"cannot read {path} as parquet: {cause}") from cause
    return table_of(Dataset(table), str(path))


def table_of(dataset: Dataset, where: str) -> Table:
    """A `datasets.Dataset` as a `Table`; declared class names are kept."""
    class_names = {}
    for column, feature in dataset.features.items():
        names = getattr(getattr(feature, "feature", feature), "names", None)
        if names:
            class_names[column] = tuple(names)
    return Table(
        where=where,
        columns={name: dataset[name][:] for name in dataset.column_names},
        numbers=range(1, len(dataset) + 1),
        by_line=False,
        class_names=class_names,
    )
