"""The spreadsheet beside an archive, whose rows become certificates to upload.

What a file is made of is known to `csv_table`, and how a date may be written to `dates`; here its columns get their
meaning. Whether the files exist and are PDFs is checked in `preflight`.
"""

import hashlib
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from datetime import date
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Self

from attrs import frozen

from springest_async.errors import Fault, InvalidUpload, ManifestError
from springest_async.manifest.csv_table import CsvTable
from springest_async.manifest.dates import (
    DateOrder,
    NoDateError,
    is_ambiguous,
    is_never,
    may_be_swapped,
    proves,
    read_date,
)
from springest_async.manifest.formulas import unescape
from springest_async.records import CertificateUpload, email_fault, shown

COLUMNS = ("file", "certification_id", "email", "valid_from", "valid_until", "conversion_id")
"""The known columns, in any order and case. Other columns are kept and not sent."""

ERROR = "error"
"""The column of reasons in a manifest of failed rows, as `report` writes it; it is not sent either."""

_REQUIRED = COLUMNS[:4]

_MAX_COLUMNS = 16_384  # the limit of Excel and LibreOffice
_APOSTROPHE = "begins with an apostrophe that springest added: put the column “error” back, or remove the apostrophe"
_MAX_LISTED_CHARS = 500
_HEADER_WITHIN = 10  # rows: above the names of the columns there may be a title

MISSING = "is missing"
"""The reason of a fault in an empty cell."""

_ID = "must be a whole number such as 7"
_DATES = ("valid_from", "valid_until")


@frozen
class Row:
    """A row of a manifest: its `number` as in the spreadsheet (mostly the header is row 1), and its cells by column."""

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
        table: the file and how it is written.
        header_row: the number of the row with the names of the columns.
        columns: these names, in lower case.
        dates: what its dates with slashes begin with, if the user has said so.
    """

    table: CsvTable
    header_row: int
    columns: tuple[str, ...]
    dates: DateOrder | None

    @property
    def path(self) -> Path:
        """The file."""
        return self.table.path

    @property
    def sha256(self) -> bytes:
        """A digest of what the file says, as it is read: of its bytes, and of `dates`.

        Raises:
            ManifestError: when it cannot be read, or has changed since `open`.
        """
        of_bytes = self.table.sha256
        return hashlib.sha256(of_bytes + self.dates.encode()).digest() if self.dates else of_bytes

    @property
    def unused(self) -> tuple[str, ...]:
        """The unknown columns, one of which may be a typing error."""
        return tuple(name for name in self.columns if name not in (*COLUMNS, ERROR))

    @classmethod
    def open(cls, path: Path, *, dates: DateOrder | None = None) -> Self:
        """Read the header.

        Args:
            path: the file.
            dates: what dates with slashes begin with. Without it, each column of dates must show it: by some day over
                12, and none that contradicts.

        Raises:
            ManifestError: when it is not a readable CSV, or a column is missing or occurs twice.
        """
        table = CsvTable.open(path)
        readings = table.readings()
        likely = _header(next(readings))
        header = likely if isinstance(likely, _Header) else _first_header(map(_header, readings))
        if header is None:
            raise likely if isinstance(likely, ManifestError) else _no_header(table)
        table, number, columns = header.table, header.row, header.columns
        if twice := sorted(name for name, count in Counter(columns).items() if count > 1):
            reason = f"row {number} has {listed(twice)} more than once: rename or delete the other columns"
            raise ManifestError(path, reason)
        return cls(table, number, columns, dates)

    def __iter__(self) -> Generator[Row, None, None]:
        """Yield the rows, without empty ones. Close the generator, and so the file, if you stop early.

        Raises:
            ManifestError: when a row cannot be read as CSV, or the file has changed since `open`.
        """
        escaped = ERROR in self.columns  # by `report`; elsewhere an apostrophe belongs to the cell
        names = (*self.columns, "")  # cells beyond the header have no column; they are kept under an empty name
        width = len(self.columns)
        with closing(self.table.rows()) as rows:
            for number, cells in rows:
                if number <= self.header_row or not any(map(str.strip, cells)):
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
                    yield Fault(name, MISSING)
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
        if may_be_swapped(cell):
            self._refuse_swapped(column, cell)
        if "/" not in cell or not is_ambiguous(cell):
            return read_date(cell)
        if (order := self.dates or self._shown[column].order) is None:
            raise NoDateError(f"{shown(cell)} can be read in two ways{self._shown[column].words}")
        try:
            return read_date(cell, order)
        except NoDateError as error:
            raise NoDateError(f"{error} (--dates {order} was given)" if self.dates else str(error)) from None

    def _refuse_swapped(self, column: str, cell: str) -> None:
        """Refuse a date such as 5-6-2026 in a column whose slashes begin with the month: Excel may have made it.

        Where dates begin with the day, Excel takes 5/6/2026 for its own date, and 12/31/2026 in the next row for text.

        Raises:
            NoDateError: it is one.
        """
        month_first = self._shown[column].month_first
        if month_first or self.dates == "mdy":
            beside = f", beside {month_first}" if month_first else ", with --dates mdy"
            raise NoDateError(f"{shown(cell)} may begin with the month{beside}: write it as in 2026-12-31")

    @cached_property
    def _shown(self) -> Mapping[str, "_ShownOrder"]:
        """What the dates with slashes of each column of dates begin with, as far as they show it."""
        shown: dict[str, dict[DateOrder, tuple[int, str]]] = {name: {} for name in _DATES if name in self.columns}
        with suppress(ManifestError):  # who reads the rows is told of it at its row
            for row in self:
                for name, orders in shown.items():
                    if "/" in row.cells[name] and (order := proves(cell := row.cells[name].strip())) is not None:
                        orders.setdefault(order, (row.number, cell))
        return {name: _ShownOrder(orders) for name, orders in shown.items()}


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
        return f", because this column has both ({rows}): correct one of them"

    @property
    def month_first(self) -> str:
        """The first date that begins with the month, and its row; an empty text if there is none."""
        if "mdy" not in self._first:
            return ""
        number, cell = self._first["mdy"]
        return f"{cell} in row {number}"


@frozen
class _Header:
    """The row that names the columns, if a file is read as a table."""

    table: CsvTable
    row: int
    columns: tuple[str, ...]


def _header(table: CsvTable) -> _Header | ManifestError | None:
    """Return the row that names the columns; None if the first rows have none, or why they cannot be read."""
    row_of_data = 0
    try:
        for number, cells, columns in _first_rows(table):
            if all(name in columns for name in _REQUIRED):
                if len(cells) > _MAX_COLUMNS:
                    reason = f"row {number} has {len(cells)} columns; the maximum is {_MAX_COLUMNS}"
                    return ManifestError(table.path, reason)
                if row_of_data:
                    reason = (
                        f"row {row_of_data} stands above the names of the columns, and is no title: put it below them"
                    )
                    return ManifestError(table.path, reason)
                return _Header(table, number, columns)
            if any("@" in cell for cell in cells) and sum(map(bool, map(str.strip, cells))) >= len(_REQUIRED):
                row_of_data = row_of_data or number
    except ManifestError as error:
        return error
    return None


def _first_header(found: Iterable[_Header | ManifestError | None]) -> _Header | None:
    return next((header for header in found if isinstance(header, _Header)), None)


def _first_rows(table: CsvTable) -> Iterator[tuple[int, list[str], tuple[str, ...]]]:
    """Yield the number, the cells and the names of the columns in them of each row that may be the header."""
    with closing(table.rows()) as rows:
        for number, cells in islice(rows, _HEADER_WITHIN):
            columns = _columns(cells)
            yield number, cells, _columns(map(unescape, cells)) if ERROR in columns else columns


def _no_header(table: CsvTable) -> ManifestError:
    """Return what the row lacks that comes nearest to naming the columns."""
    rows = [(number, columns) for number, _, columns in _first_rows(table)] or [(1, ())]
    number, columns = max(rows, key=lambda row: (sum(name in row[1] for name in _REQUIRED), -row[0]))
    missing = ", ".join(name for name in _REQUIRED if name not in columns)
    reason = f"row {number} lacks {missing} (check the names of the columns); it has {listed(columns)}"
    return ManifestError(table.path, reason)


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
