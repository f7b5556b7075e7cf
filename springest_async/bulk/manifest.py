"""The spreadsheet beside an archive: a CSV whose rows become certificates to upload.

Reads what Excel and LibreOffice write: UTF-8 with or without a byte order mark, ``,`` or ``;``, and Dutch dates. Rows
are read as they are asked for and have a limit, so a manifest of a million rows takes no more memory than one of ten,
and a file of another kind little more. Whether the files exist and are PDFs is `preflight`'s business.
"""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Self, TextIO

from attrs import frozen

from springest_async.bulk.formulas import unescape
from springest_async.errors import Fault, InvalidUpload, ManifestError
from springest_async.records import CertificateUpload, shown
from springest_async.source_file import open_regular

__all__ = ["COLUMNS", "ERROR", "Fields", "Manifest", "Row", "listed"]

COLUMNS = ("file", "certification_id", "email", "valid_from", "valid_until", "conversion_id")
"""The columns that mean something, in any order and case; others are kept and mean nothing."""

ERROR = "error"
"""The column of the reasons in a manifest of rows that failed, which `report` writes; it means nothing either."""

_REQUIRED = COLUMNS[:4]

_LONGEST_ROW = 128 * 1024  # characters; as much as Python's csv takes in one cell
_MOST_COLUMNS = 16_384  # those of Excel and LibreOffice
_OUR_APOSTROPHE = (
    "has the apostrophe of a manifest of failed rows: put its column “error” back, or take the apostrophe off"
)
_LONGEST_REASON = 500  # characters of the columns that are found

# Dashes and dots stand in Dutch and German dates, which begin with the day. Slashes do not say what they begin with.
_DAY_FIRST = re.compile(r"(?P<day>[0-9]{1,2})(?P<sep>[-.])(?P<month>[0-9]{1,2})(?P=sep)(?P<year>[0-9]{4})")


@frozen
class Row:
    """A row of a manifest: `number` as the spreadsheet shows it (the header is row 1), and its cells by column."""

    number: int
    cells: Mapping[str, str]


@frozen
class Fields:
    """What the known cells of a row mean, however they are written; `file` and `email` as they stand there."""

    file: str
    certification_id: int
    email: str
    valid_from: date
    valid_until: date | None
    conversion_id: int | None


@frozen
class Manifest:
    """A manifest whose header is known to be good. Make it with `open`; iterate over it for its rows.

    `columns` are the header's names, in lower case. `delimiter` and `bom` are how the file is written, so that what is
    written for the same reader looks the same.
    """

    path: Path
    columns: tuple[str, ...]
    delimiter: str
    bom: bool
    _stamp: tuple[int, int, int]

    @property
    def unused(self) -> tuple[str, ...]:
        """The columns that mean nothing, among which may be one whose name was mistyped."""
        return tuple(name for name in self.columns if name not in (*COLUMNS, ERROR))

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the header.

        Raises:
            ManifestError: when it is no readable CSV in UTF-8, or a column is missing or there twice.
        """
        try:
            with open_regular(path) as stream:
                stamp = _stamp(stream)
                start = stream.read(64 * 1024)
        except OSError as error:
            raise ManifestError(path, error.strerror or "cannot be read") from None
        unquoted = re.sub(rb'"[^"]*"', b"", start.removeprefix(b"\xef\xbb\xbf"))
        header = re.split(rb"[\r\n]", unquoted, maxsplit=1)[0]
        delimiter = ";" if header.count(b";") > header.count(b",") else ","
        manifest = cls(path, (), delimiter, start.startswith(b"\xef\xbb\xbf"), stamp)
        _, cells = next(manifest._records(), (1, []))
        if len(cells) > _MOST_COLUMNS:
            raise ManifestError(path, f"the first row has {len(cells)} columns, and may have {_MOST_COLUMNS}")
        columns = _columns(cells)
        if ERROR in columns:
            columns = _columns(map(unescape, cells))
        if missing := [name for name in _REQUIRED if name not in columns]:
            raise ManifestError(path, f"the first row lacks {', '.join(missing)}; it has {listed(columns)}")
        if twice := sorted(name for name, count in Counter(columns).items() if count > 1):
            raise ManifestError(path, f"the first row has {listed(twice)} more than once")
        return cls(path, columns, delimiter, manifest.bom, stamp)

    def __iter__(self) -> Generator[Row, None, None]:
        """Read the rows; empty ones are passed over. Who may stop early closes it, and the file with it.

        Raises:
            ManifestError: when a row cannot be read as CSV in UTF-8, or the file is not what it was at `open`.
        """
        records = self._records()
        next(records, None)
        escaped = ERROR in self.columns  # by `report`; in any other manifest an apostrophe is the file name's own
        for number, cells in records:
            if any(map(str.strip, cells)):
                yield Row(number, self._named(list(map(unescape, cells)) if escaped else cells))

    def _named(self, cells: list[str]) -> dict[str, str]:
        width = len(self.columns)
        named = dict(zip(self.columns, cells + [""] * (width - len(cells)), strict=False))
        # What stands beyond the header has no name; an empty one keeps it out of the way of the others.
        named[""] = "".join(cells[width:])
        return named

    def upload(self, row: Row) -> CertificateUpload:
        """Make the certificate of a row.

        Raises:
            InvalidUpload: with all faults of the row; `Fault.field` is the column.
        """
        cells = {name: row.cells.get(name, "").strip() for name in COLUMNS}
        faults = [Fault(name, "is missing") for name in _REQUIRED if not cells[name]]
        if ERROR not in self.columns and unescape(cells["email"]) != cells["email"]:
            faults.append(Fault("email", _OUR_APOSTROPHE))
        if row.cells.get(""):
            faults.append(Fault("", f"there are more cells than columns: {shown(row.cells[''])}"))
        try:
            upload = CertificateUpload(
                file=self.path.parent / cells["file"],
                certification_id=_number(cells["certification_id"]),  # type: ignore[arg-type] # what is none is refused
                email=cells["email"],
                valid_from=_date(cells["valid_from"]),  # type: ignore[arg-type] # likewise
                valid_until=_date(cells["valid_until"]),  # type: ignore[arg-type] # likewise
                conversion_id=_number(cells["conversion_id"]),  # type: ignore[arg-type] # likewise
            )
        except InvalidUpload as error:
            missing = {fault.field for fault in faults}
            faults += [fault for fault in error.faults if fault.field not in missing]
        if faults:
            raise InvalidUpload(tuple(faults))
        return upload

    def fields(self, row: Row) -> Fields:
        """Read the known cells of a row, much faster than `upload` does: the e-mail address is not looked at.

        Raises:
            InvalidUpload: as `upload`, but for faults of the e-mail address.
        """
        cell = row.cells.get
        file, email = cell("file", "").strip(), cell("email", "").strip()
        certification_id = _number(cell("certification_id", "").strip())
        conversion_id = _number(cell("conversion_id", "").strip())
        valid_from, valid_until = _date(cell("valid_from", "").strip()), _date(cell("valid_until", "").strip())
        if (
            not file
            or not email
            or not (isinstance(certification_id, int) and certification_id)
            or not isinstance(valid_from, date)
            or isinstance(valid_until, str)
            or isinstance(conversion_id, str)
            or conversion_id == 0
            or cell("")
        ):
            self.upload(row)  # tells all faults
            raise AssertionError(f"row {row.number} is valid as a whole and not in part")
        return Fields(file, certification_id, email, valid_from, valid_until, conversion_id)

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        number = 0
        try:
            with _text(open_regular(self.path)) as stream:
                lines = _Lines(stream)
                for number, cells in enumerate(csv.reader(lines, delimiter=self.delimiter, strict=True), start=1):
                    lines.length = 0
                    # It is read for hours. What somebody saves meanwhile would shift the rows under our hands, and a
                    # row that comes twice would be posted twice.
                    self._check(stream, f"before row {number}")
                    yield number, cells
                self._check(stream, f"after row {number}")
        except OSError as error:
            raise ManifestError(self.path, error.strerror or "cannot be read") from None
        except UnicodeEncodeError:
            advice = "it is not in UTF-8 (in Excel, save as “CSV UTF-8”)"
            raise ManifestError(self.path, f"row {number + 1}: {advice}") from None
        except csv.Error as error:
            raise ManifestError(self.path, f"row {number + 1} is no CSV: {error}") from None

    def _check(self, stream: IO[Any], where: str) -> None:
        if _stamp(stream) != self._stamp:
            raise ManifestError(self.path, f"changed after it was checked ({where})")


class _Lines:
    """The lines of a file, for a CSV reader.

    `length` counts the characters since a row began, and is set back by whoever was given the row: only the reader
    knows where one ends. What is no UTF-8 is refused line by line, since the stream decodes far ahead of the rows.
    """

    def __init__(self, stream: TextIO) -> None:
        self.length = 0
        self._stream = stream

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(_LONGEST_ROW + 1)
        if not line:
            raise StopIteration
        self.length += len(line)
        if self.length > _LONGEST_ROW:
            raise csv.Error(f"it is longer than {_LONGEST_ROW} characters (is a quote in it never closed?)")
        if not line.isascii():
            line.encode()  # refuses what "surrogateescape" let through
        return line


def _text(stream: io.FileIO) -> TextIO:
    return io.TextIOWrapper(io.BufferedReader(stream), "utf-8-sig", errors="surrogateescape", newline="")


def _columns(cells: Iterable[str]) -> tuple[str, ...]:
    return tuple(cell.strip().lower() or f"column {n}" for n, cell in enumerate(cells, start=1))


def listed(names: Iterable[str]) -> str:
    """List names so that one sees why they are none of the known ones, as with a NUL in each second place."""
    text = ", ".join(name if name.isprintable() else repr(name) for name in names) or "nothing"
    return text if len(text) <= _LONGEST_REASON else text[:_LONGEST_REASON] + "…"


def _stamp(stream: IO[Any]) -> tuple[int, int, int]:
    status = os.fstat(stream.fileno())
    return status.st_size, status.st_mtime_ns, status.st_ino


def _number(cell: str) -> int | str | None:
    return int(cell) if cell.isascii() and cell.isdigit() and len(cell) <= 18 else cell or None


def _date(cell: str) -> date | str | None:
    """Read 2026-12-31, 31-12-2026 and 31.12.2026; anything else is given back for the record to refuse."""
    return _short_date(cell) if len(cell) <= len("2026-12-31") else cell


@lru_cache(maxsize=4096)  # a million rows have a few thousand dates; a long cell would stay in memory
def _short_date(cell: str) -> date | str | None:
    found = _DAY_FIRST.fullmatch(cell)
    try:
        if found:
            return date(int(found["year"]), int(found["month"]), int(found["day"]))
        return date.fromisoformat(cell) if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", cell) else cell or None
    except ValueError:
        return cell
