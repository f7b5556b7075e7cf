"""The spreadsheet beside an archive: a CSV whose rows become certificates to upload.

It reads what Excel and LibreOffice write: UTF-8 with or without a byte order mark, ``,`` or ``;``, and dates in many
forms (`dates`).
Rows are read in pieces of 64 KiB and have a maximum length, so a manifest of a million rows takes no more memory than
one of ten thousand. Whether the files exist and are PDFs is checked in `preflight`.
"""

import csv
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Self, TextIO

from attrs import frozen

from springest_async.bulk.dates import DateOrder, NoDateError, is_ambiguous, is_never, proves, read_date
from springest_async.bulk.formulas import unescape
from springest_async.errors import Fault, InvalidUpload, ManifestError
from springest_async.records import CertificateUpload, email_fault, shown
from springest_async.source_file import SourceFile, open_regular

COLUMNS = ("file", "certification_id", "email", "valid_from", "valid_until", "conversion_id")
"""The known columns, in any order and case. Other columns are kept and not sent."""

ERROR = "error"
"""The column of reasons in a manifest of failed rows, as `report` writes it; it is not sent either."""

_REQUIRED = COLUMNS[:4]

_MAX_ROW_CHARS = 128 * 1024  # also Python's limit for one CSV cell
_PIECE_CHARS = 64 * 1024  # read at a time; at most _MAX_ROW_CHARS
_MAX_COLUMNS = 16_384  # the limit of Excel and LibreOffice
_APOSTROPHE = "begins with an apostrophe that springest added: put the column “error” back, or remove the apostrophe"
_MAX_LISTED_CHARS = 500

_ID = "must be a whole number such as 7"
_DATES = ("valid_from", "valid_until")


@frozen
class Row:
    """A row of a manifest: its `number` as in the spreadsheet (the header is row 1), and its cells by column."""

    number: int
    cells: Mapping[str, str]


@frozen
class Fields:
    """The values of a row's known cells; `file` and `email` as they are written, without spaces around them."""

    file: str
    certification_id: int
    email: str
    valid_from: date
    valid_until: date | None
    conversion_id: int | None


@frozen
class Manifest:
    """A manifest with a valid header. Make it with `open`; iterate over it for its rows.

    Attributes:
        columns: the names in the header, in lower case.
        delimiter: the separator of the cells, so that `report` can use the same.
        bom: whether it begins with a byte order mark.
        dates: what its dates with slashes begin with, if the user has said so.
    """

    path: Path
    columns: tuple[str, ...]
    delimiter: str
    bom: bool
    dates: DateOrder | None
    _source: SourceFile

    @property
    def unused(self) -> tuple[str, ...]:
        """The unknown columns, one of which may be a typing error."""
        return tuple(name for name in self.columns if name not in (*COLUMNS, ERROR))

    @property
    def sha256(self) -> bytes:
        """Read the whole file, and return its SHA-256.

        Raises:
            ManifestError: when it cannot be read, or has changed since `open`.
        """
        try:
            with open_regular(self.path) as stream:
                digest = hashlib.file_digest(stream, "sha256").digest()
                self._check(stream, "before row 1")
        except OSError as error:
            raise ManifestError(self.path, error.strerror or "cannot be read") from None
        return digest

    @classmethod
    def open(cls, path: Path, *, dates: DateOrder | None = None) -> Self:
        """Read the header.

        Args:
            path: the file.
            dates: what dates with slashes begin with. Without it, each column of dates must show it: by some day over
                12, and none that contradicts.

        Raises:
            ManifestError: when it is not a readable CSV in UTF-8, or a column is missing or occurs twice.
        """
        try:
            with open_regular(path) as stream:
                source = SourceFile.at(path, os.fstat(stream.fileno()))
                start = stream.read(64 * 1024)
        except FileNotFoundError:
            raise ManifestError(path, "there is no such file: check its name and folder") from None
        except OSError as error:
            raise ManifestError(path, error.strerror or "cannot be read") from None
        unquoted = re.sub(rb'"[^"]*"', b"", start.removeprefix(b"\xef\xbb\xbf"))
        header = re.split(rb"[\r\n]", unquoted, maxsplit=1)[0]
        delimiter = ";" if header.count(b";") > header.count(b",") else ","
        manifest = cls(path, (), delimiter, start.startswith(b"\xef\xbb\xbf"), dates, source)
        _, cells = next(manifest._records(), (1, []))
        if len(cells) > _MAX_COLUMNS:
            raise ManifestError(path, f"row 1 has {len(cells)} columns; the maximum is {_MAX_COLUMNS}")
        columns = _columns(cells)
        if ERROR in columns:
            columns = _columns(map(unescape, cells))
        if missing := [name for name in _REQUIRED if name not in columns]:
            reason = f"row 1 lacks {', '.join(missing)} (check the names of the columns); it has {listed(columns)}"
            raise ManifestError(path, reason)
        if twice := sorted(name for name, count in Counter(columns).items() if count > 1):
            raise ManifestError(path, f"row 1 has {listed(twice)} more than once: rename or delete the other columns")
        return cls(path, columns, delimiter, manifest.bom, dates, source)

    def __iter__(self) -> Generator[Row, None, None]:
        """Yield the rows, without empty ones. Close the generator, and so the file, if you stop early.

        Raises:
            ManifestError: when a row cannot be read as CSV in UTF-8, or the file has changed since `open`.
        """
        records = self._records()
        next(records, None)
        escaped = ERROR in self.columns  # by `report`; elsewhere an apostrophe belongs to the cell
        names = (*self.columns, "")  # cells beyond the header have no column; they are kept under an empty name
        width = len(self.columns)
        for number, cells in records:
            if not any(map(str.strip, cells)):
                continue
            if escaped:
                cells[:] = map(unescape, cells)
            if len(cells) > width:
                cells[width:] = ["".join(cells[width:])]
            else:
                cells.extend([""] * (len(names) - len(cells)))
            yield Row(number, dict(zip(names, cells, strict=True)))

    def upload(self, row: Row) -> CertificateUpload:
        """Return the certificate of a row.

        Raises:
            InvalidUpload: with all faults of the row; `Fault.field` is the column.
        """
        fields = self.checked_fields(row)
        return CertificateUpload(
            file=self.path.parent / fields.file,
            certification_id=fields.certification_id,
            email=fields.email,
            valid_from=fields.valid_from,
            valid_until=fields.valid_until,
            conversion_id=fields.conversion_id,
        )

    def checked_fields(self, row: Row) -> Fields:
        """Return the values of a row's known cells.

        Raises:
            InvalidUpload: as `upload`.
        """
        fields = self._fields(row)
        email = fields.email if fields else row.cells.get("email", "").strip()
        reason = None
        if ERROR not in self.columns and unescape(email) != email:
            reason = _APOSTROPHE
        elif email:
            reason = email_fault(email)
        if fields is not None and reason is None:
            return fields
        faults = tuple(self._cell_faults(row))
        raise InvalidUpload(faults if reason is None else (*faults, Fault("email", reason)))

    def fields(self, row: Row) -> Fields:
        """Return the values of a row's known cells, faster than `checked_fields`: the email address is not checked.

        Raises:
            InvalidUpload: as `upload`, except for faults of the email address.
        """
        if (fields := self._fields(row)) is None:
            raise InvalidUpload(tuple(self._cell_faults(row)))
        return fields

    def _fields(self, row: Row) -> Fields | None:
        """Return the values of a row's known cells, or None when `_cell_faults` has something to say."""
        cells = row.cells
        file, email = cells["file"].strip(), cells["email"].strip()
        certification_id, conversion_id = _number(cells["certification_id"]), _number(cells.get("conversion_id", ""))
        try:
            valid_from, valid_until = (self._date(name, cells.get(name, "")) for name in _DATES)
        except NoDateError:
            return None
        if (
            cells[""]
            or not (file and email and certification_id and valid_from)
            or isinstance(certification_id, str)
            or isinstance(conversion_id, str)
        ):
            return None
        return Fields(file, certification_id, email, valid_from, valid_until, conversion_id)

    def _cell_faults(self, row: Row) -> Iterator[Fault]:
        """Yield the faults of a row, apart from those of its email address."""
        if extra := row.cells[""]:
            yield Fault("", f"has more cells than there are columns: {shown(extra)}")
        for name in COLUMNS:
            cell = row.cells.get(name, "").strip()
            if not cell:
                if name in _REQUIRED:
                    yield Fault(name, "is missing")
            elif name.endswith("_id") and not isinstance(_number(cell), int):
                yield Fault(name, f"{_ID}, not {shown(cell)}")
            elif name in _DATES:
                try:
                    self._date(name, cell)
                except NoDateError as error:
                    yield Fault(name, str(error))

    def _date(self, column: str, cell: str) -> date | None:
        """Return the date of a cell, or None if there is none.

        Raises:
            NoDateError: as `read_date`.
        """
        cell = cell.strip()
        if not cell or (column == "valid_until" and is_never(cell)):
            return None
        if "/" not in cell or not is_ambiguous(cell):
            return read_date(cell)
        if (order := self.dates or self._shown[column].order) is None:
            raise NoDateError(f"{shown(cell)} can be read in two ways{self._shown[column].words}")
        return read_date(cell, order)

    @cached_property
    def _shown(self) -> Mapping[str, "_ShownOrder"]:
        """What the dates with slashes of each column of dates begin with, as far as they show it.

        Raises:
            ManifestError: as the iteration over the rows.
        """
        shown: dict[str, dict[DateOrder, tuple[int, str]]] = {name: {} for name in _DATES if name in self.columns}
        for row in self:
            for name, orders in shown.items():
                if "/" in row.cells[name] and (order := proves(cell := row.cells[name].strip())) is not None:
                    orders.setdefault(order, (row.number, cell))
        return {name: _ShownOrder(orders) for name, orders in shown.items()}

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        number = 0  # of the last row that was read
        try:
            # "surrogateescape" lets invalid bytes through until their row is read.
            raw = open_regular(self.path)
            text = io.TextIOWrapper(io.BufferedReader(raw), "utf-8-sig", errors="surrogateescape", newline="")
            with text as stream:
                lines = _Lines(stream, self.delimiter, lambda: self._check(raw, f"before row {number + 1}"))
                for number, cells in enumerate(lines.rows, start=1):
                    lines.end_row()
                    yield number, cells
        except OSError as error:
            raise ManifestError(self.path, error.strerror or "cannot be read") from None
        except UnicodeEncodeError:
            reason = f"row {number + 1}: the file is not in UTF-8 (in Excel, save it as “CSV UTF-8”)"
            raise ManifestError(self.path, reason) from None
        except csv.Error as error:
            raise ManifestError(self.path, f"row {number + 1} is not valid CSV: {error}") from None

    def _check(self, stream: io.FileIO, where: str) -> None:
        if not self._source.is_still(stream):
            reason = f"was changed while springest was reading it ({where}): run the same command again"
            raise ManifestError(self.path, reason)


@frozen
class _ShownOrder:
    """The first row and date of a column that show an order of day and month."""

    _first: Mapping[DateOrder, tuple[int, str]]

    @property
    def order(self) -> DateOrder | None:
        """The order, if there are not two."""
        return next(iter(self._first)) if len(self._first) == 1 else None

    @property
    def words(self) -> str:
        """What to say where no order is known."""
        if not self._first:
            return ", and no other date of this column shows which: use --dates dmy (the day first) or --dates mdy"
        rows = " and ".join(f"{cell} in row {number}" for number, cell in self._first.values())
        return f", because this column has both ({rows}): correct one, or use --dates dmy (the day first) or mdy"


class _Lines:
    """The lines of a manifest, many at a time, for a CSV reader; what is wrong in a row is raised when it is its turn.

    Only the CSV reader knows where a row ends. A row that ends in the piece in which it begins is no longer than the
    piece, so only the length of one that goes on in the next is counted. Each piece is checked before any of its rows
    is read: a file that is saved while it is read would let rows shift, and one could come twice.

    Attributes:
        rows: the CSV reader; call `end_row` after each row.
    """

    def __init__(self, stream: TextIO, delimiter: str, check: Callable[[], None]) -> None:
        self._stream = stream
        self._check = check
        self._length = 0  # characters of the row that is being read
        self._ended = 0  # how many lines had been read when the last row ended
        self.rows = csv.reader(chain.from_iterable(self), delimiter=delimiter, strict=True)

    def end_row(self) -> None:
        """Remember that the row that was just read ends here."""
        self._ended = self.rows.line_num

    def __iter__(self) -> Iterator[Sequence[str]]:
        rest = ""
        while True:
            piece = self._stream.read(_PIECE_CHARS)
            self._check()
            text = rest + piece
            lines = io.StringIO(text, newline="").readlines()
            # A line may go on in the next piece, and one that ends with a return may have a newline there.
            rest = lines.pop() if piece and lines and not lines[-1].endswith("\n") else ""
            yield from self._checked(lines, _is_text(text))
            self._refuse_long(rest)
            if not piece:
                return

    def _checked(self, lines: list[str], is_text: bool) -> Iterator[Sequence[str]]:
        for index, line in enumerate(lines):
            if index and is_text and not self._open_lines():
                yield lines[index:]
                self._length = sum(map(len, lines[len(lines) - self._open_lines() :]))
                return
            self._refuse_long(line)
            if not is_text:
                line.encode()  # raises for invalid UTF-8
            self._length += len(line)
            yield (line,)
            if not self._open_lines():
                self._length = 0

    def _open_lines(self) -> int:
        """Return how many lines of an unfinished row the CSV reader has read."""
        return self.rows.line_num - self._ended

    def _refuse_long(self, line: str) -> None:
        if self._length + len(line) > _MAX_ROW_CHARS:
            raise csv.Error(f"it is longer than {_MAX_ROW_CHARS} characters (is a closing quote missing?)")


def _is_text(text: str) -> bool:
    """Return whether all of it was valid UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _columns(cells: Iterable[str]) -> tuple[str, ...]:
    return tuple(cell.strip().lower() or f"column {n}" for n, cell in enumerate(cells, start=1))


def listed(names: Iterable[str]) -> str:
    """Return names as a list for a message, with invisible characters escaped, and shortened."""
    text = ", ".join(name if name.isprintable() else repr(name) for name in names) or "none"
    return text if len(text) <= _MAX_LISTED_CHARS else text[:_MAX_LISTED_CHARS] + "…"


def _number(cell: str) -> int | str | None:
    """Return a positive number of up to 18 digits as an int, any other cell as it is, and an empty one as None."""
    cell = cell.strip()
    return (int(cell) or cell) if cell.isascii() and cell.isdigit() and len(cell) <= 18 else cell or None
