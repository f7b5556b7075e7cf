"""The spreadsheet beside an archive: a CSV whose rows become certificates to upload.

It reads what Excel and LibreOffice write: UTF-8 with or without a byte order mark, ``,`` or ``;``, and Dutch dates.
Rows are read one at a time and have a maximum length, so a manifest of a million rows takes no more memory than one of
ten. Whether the files exist and are PDFs is checked in `preflight`.
"""

import csv
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, Self, TextIO

from attrs import frozen

from springest_async.bulk.formulas import unescape
from springest_async.errors import Fault, InvalidUpload, ManifestError
from springest_async.records import CertificateUpload, shown
from springest_async.source_file import SourceFile, open_regular

COLUMNS = ("file", "certification_id", "email", "valid_from", "valid_until", "conversion_id")
"""The known columns, in any order and case. Other columns are kept and not sent."""

ERROR = "error"
"""The column of reasons in a manifest of failed rows, as `report` writes it; it is not sent either."""

_REQUIRED = COLUMNS[:4]

_MAX_ROW_CHARS = 128 * 1024  # also Python's limit for one CSV cell
_MAX_COLUMNS = 16_384  # the limit of Excel and LibreOffice
_APOSTROPHE = "begins with an apostrophe that springest added: put the column “error” back, or remove the apostrophe"
_MAX_LISTED_CHARS = 500

_ID = "must be a whole number such as 7"
_DATE = "must be a date such as 2026-12-31 or 31-12-2026"

# Dutch and German dates, which begin with the day, have dashes or dots. With slashes, the order is unclear.
_DAY_FIRST = re.compile(r"(?P<day>[0-9]{1,2})(?P<sep>[-.])(?P<month>[0-9]{1,2})(?P=sep)(?P<year>[0-9]{4})")


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
    """

    path: Path
    columns: tuple[str, ...]
    delimiter: str
    bom: bool
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
    def open(cls, path: Path) -> Self:
        """Read the header.

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
        manifest = cls(path, (), delimiter, start.startswith(b"\xef\xbb\xbf"), source)
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
        return cls(path, columns, delimiter, manifest.bom, source)

    def __iter__(self) -> Generator[Row, None, None]:
        """Yield the rows, without empty ones. Close the generator, and so the file, if you stop early.

        Raises:
            ManifestError: when a row cannot be read as CSV in UTF-8, or the file has changed since `open`.
        """
        records = self._records()
        next(records, None)
        escaped = ERROR in self.columns  # by `report`; elsewhere an apostrophe belongs to the cell
        for number, cells in records:
            if any(map(str.strip, cells)):
                yield Row(number, self._named(list(map(unescape, cells)) if escaped else cells))

    def _named(self, cells: list[str]) -> dict[str, str]:
        width = len(self.columns)
        named = dict(zip(self.columns, cells + [""] * (width - len(cells)), strict=False))
        # Cells beyond the header have no column; they are kept under an empty name.
        named[""] = "".join(cells[width:])
        return named

    def upload(self, row: Row) -> CertificateUpload:
        """Return the certificate of a row.

        Raises:
            InvalidUpload: with all faults of the row; `Fault.field` is the column.
        """
        cells = _known_cells(row)
        faults = list(_cell_faults(row, cells))
        if ERROR not in self.columns and unescape(cells["email"]) != cells["email"]:
            faults.append(Fault("email", _APOSTROPHE))
        try:
            upload = CertificateUpload(**_values(cells) | {"file": self.path.parent / cells["file"]})
        except InvalidUpload as error:
            reported = {fault.field for fault in faults}
            faults += [fault for fault in error.faults if fault.field not in reported]
        if faults:
            raise InvalidUpload(tuple(faults))
        return upload

    def fields(self, row: Row) -> Fields:
        """Return the values of a row's known cells, much faster than `upload`: the email address is not checked.

        Raises:
            InvalidUpload: as `upload`, except for faults of the email address.
        """
        cells = _known_cells(row)
        if faults := tuple(_cell_faults(row, cells)):
            raise InvalidUpload(faults)
        return Fields(**_values(cells))

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        number = length = 0

        def lines(stream: TextIO) -> Iterator[str]:
            nonlocal length
            while line := stream.readline(_MAX_ROW_CHARS + 1):
                length += len(line)
                if length > _MAX_ROW_CHARS:
                    raise csv.Error(f"it is longer than {_MAX_ROW_CHARS} characters (is a closing quote missing?)")
                if not line.isascii():
                    line.encode()  # raises for invalid UTF-8: the stream decodes far ahead of the rows
                yield line

        try:
            # "surrogateescape" lets invalid bytes through until their row is read.
            raw = open_regular(self.path)
            text = io.TextIOWrapper(io.BufferedReader(raw), "utf-8-sig", errors="surrogateescape", newline="")
            with text as stream:
                rows = csv.reader(lines(stream), delimiter=self.delimiter, strict=True)
                for number, cells in enumerate(rows, start=1):
                    length = 0  # only the CSV reader knows where a row ends
                    # Reading takes hours. If the file is saved meanwhile, rows may shift, and one could come twice.
                    self._check(raw, f"before row {number}")
                    yield number, cells
                self._check(raw, f"after row {number}")
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


def _columns(cells: Iterable[str]) -> tuple[str, ...]:
    return tuple(cell.strip().lower() or f"column {n}" for n, cell in enumerate(cells, start=1))


def listed(names: Iterable[str]) -> str:
    """Return names as a list for a message, with invisible characters escaped, and shortened."""
    text = ", ".join(name if name.isprintable() else repr(name) for name in names) or "none"
    return text if len(text) <= _MAX_LISTED_CHARS else text[:_MAX_LISTED_CHARS] + "…"


def _known_cells(row: Row) -> dict[str, str]:
    return {name: row.cells.get(name, "").strip() for name in COLUMNS}


def _cell_faults(row: Row, cells: Mapping[str, str]) -> Iterator[Fault]:
    """Yield the faults of a row that can be explained better from its cells than from their values."""
    if extra := row.cells.get(""):
        yield Fault("", f"has more cells than there are columns: {shown(extra)}")
    for name, cell in cells.items():
        if not cell:
            if name in _REQUIRED:
                yield Fault(name, "is missing")
        elif name.endswith("_id") and not isinstance(_number(cell), int):
            yield Fault(name, f"{_ID}, not {shown(cell)}")
        elif name.startswith("valid_") and isinstance(_date(cell), str):
            slashes = " (with slashes, day and month can be confused)" if "/" in cell else ""
            yield Fault(name, f"{_DATE}, not {shown(cell)}{slashes}")


def _values(cells: Mapping[str, str]) -> dict[str, Any]:
    """Return the value of each known cell; one with a fault has another type."""
    return {name: _PARSERS[name](cell) for name, cell in cells.items()}


def _number(cell: str) -> int | str | None:
    """Return a positive number of up to 18 digits as an int, any other cell as it is, and an empty one as None."""
    return (int(cell) or cell) if cell.isascii() and cell.isdigit() and len(cell) <= 18 else cell or None


def _date(cell: str) -> date | str | None:
    """Return the date of 2026-12-31, 31-12-2026 or 31.12.2026; any other cell is returned as it is."""
    return _short_date(cell) if len(cell) <= len("2026-12-31") else cell


@lru_cache(maxsize=4096)  # a million rows have a few thousand dates; long cells are not cached
def _short_date(cell: str) -> date | str | None:
    found = _DAY_FIRST.fullmatch(cell)
    try:
        if found:
            return date(int(found["year"]), int(found["month"]), int(found["day"]))
        return date.fromisoformat(cell) if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", cell) else cell or None
    except ValueError:
        return cell


_PARSERS: Mapping[str, Callable[[str], object]] = {
    "file": str,
    "certification_id": _number,
    "email": str,
    "valid_from": _date,
    "valid_until": _date,
    "conversion_id": _number,
}
