"""The rows of a sheet of a workbook: XLSX, XLS or ODS, read by calamine.

calamine reads a sheet whole. So it is read once, and its rows are kept in a temporary file without a name, from which
they are read as often as they are needed: what was checked is what is sent. Error cells are shown as a spreadsheet
shows them, and a workbook with formulas that were never computed is refused (`sheet_facts`). What the cells mean is
not known here.
"""

import json
import tempfile
import threading
import weakref
import zlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from functools import cached_property
from io import FileIO
from itertools import islice, pairwise
from pathlib import Path
from typing import IO, Protocol, Self, TypeAlias
from zipfile import BadZipFile, ZipFile

from attrs import evolve, frozen
from python_calamine import CalamineError, CalamineWorkbook, SheetMetadata, SheetTypeEnum, SheetVisibleEnum

from springest_async.errors import ManifestError
from springest_async.manifest.ids import MERGED
from springest_async.manifest.ods_facts import OdsFacts
from springest_async.manifest.sheet_facts import MAX_CELLS, BadPartError, Merged, SheetFacts, column_name
from springest_async.manifest.table_file import TableFile, opened
from springest_async.manifest.xls_facts import CompoundFile, XlsFacts
from springest_async.manifest.xlsx_facts import XlsxFacts

_MAX_BYTES = 2 << 30  # unpacked; a million rows of six columns have 0.3 GB
_IN_MEMORY_BYTES = 1024 * 1024  # of kept rows; more of them go to a temporary file
_ROWS_AT_ONCE = 500
_DATES = {date, datetime}
_EXACT = 10**15  # a spreadsheet keeps 15 digits of a number

_ODS = b"application/vnd.oasis.opendocument.spreadsheet"
_PROTECTED = "is protected with a password: open it in Excel, remove the password (File, Info) and save it"
_DAMAGED = "is damaged, or not a workbook that springest can read: open it in Excel and save it as XLSX"
_OTHER_ZIPS = {
    "xl/workbook.bin": "is an XLSB workbook: open it in Excel and save it as XLSX",
    "Index/Document.iwa": "is a spreadsheet of Numbers: export it as Excel or CSV",
    "word/document.xml": "is a text of Word: copy its table to Excel and save it as XLSX",
}
_OTHER_ZIP = "is a ZIP and no workbook: unpack the spreadsheet, and name the ZIP with --files if the PDFs are in it"

_Cell: TypeAlias = int | float | str | bool | date | datetime | time | timedelta


class _Parts(Protocol):
    """What is known of the sheets of a workbook beside what calamine says."""

    counts_from_1904: bool

    def facts(self, index: int) -> SheetFacts: ...


@frozen
class _Sheet:
    name: str
    facts: SheetFacts


@frozen
class WorkbookTable:
    """A sheet of a workbook. Make it with `open`.

    Attributes:
        kind: of the workbook: ``XLSX``, ``XLS`` or ``ODS``.
        has_day_numbers: whether a number in a column of dates is Excel's number of a day.
    """

    kind: str
    has_day_numbers: bool
    _sheet: _Sheet
    _others: tuple[_Sheet, ...]
    _file: TableFile

    @classmethod
    def open(cls, path: Path, *, sheet: str | None = None) -> Self:
        """Look through the sheet of this name, or else through all visible ones, and take the first one with rows.

        Raises:
            ManifestError: when it cannot be read, is encrypted or damaged, or has no such sheet.
        """
        with opened(path) as stream, _translated(path):
            file = TableFile.of(path, stream)
            kind, parts = _parts(path, stream)
            stream.seek(0)
            known = CalamineWorkbook.from_filelike(stream).sheets_metadata
            sheets = [(one, parts.facts(index)) for index, one in enumerate(known) if _is_meant(one, sheet)]
            filled = [_Sheet(one.name, facts) for one, facts in sheets if facts.width]
            others = [one.name for index, one in enumerate(known) if parts.facts(index).width] if not filled else []
            file.check(stream)
        if not filled:
            raise ManifestError(path, _without_rows(sheet, others, exists=bool(sheets)))
        first, *rest = filled
        # Numbers that count from 1904 are rare, and not always meant so: they must be formatted as dates.
        return cls(kind, not parts.counts_from_1904, first, tuple(rest), file)

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    @property
    def sheet(self) -> str:
        """The name of the sheet."""
        return self._sheet.name

    @property
    def form(self) -> str:
        """How the file is written, for people, as in ``sheet “Blad1” of an XLSX workbook``."""
        hidden = self._sheet.facts.hidden_rows
        also = f" (also its {hidden} hidden rows)" if hidden > 1 else " (also its hidden row)" if hidden else ""
        return f"sheet “{self.sheet}” of an {self.kind} workbook{also}"

    @property
    def real_dates(self) -> frozenset[int]:
        """The columns, from 0, with cells that are dates for the spreadsheet.

        Raises:
            ManifestError: as `rows`.
        """
        return self._kept.real_dates

    @property
    def has_sheets(self) -> bool:
        """Whether there are other visible sheets with rows."""
        return bool(self._others)

    @property
    def sha256(self) -> bytes:
        """Read the whole file, and return its SHA-256.

        Raises:
            ManifestError: when it cannot be read, or has changed since `open`.
        """
        return self._file.sha256

    def readings(self) -> Iterator[Self]:
        """Yield this sheet, and the other visible ones that have rows."""
        yield self
        for other in self._others:
            yield evolve(self, sheet=other)

    def rows(self) -> Generator[tuple[int, list[str]], None, None]:
        """Yield the number of each row, as a spreadsheet shows it, and its cells. Close the generator to stop early.

        Raises:
            ManifestError: when the sheet cannot be read or is too large, a formula has no value, or the file has
                changed since `open`.
        """
        yield from self._kept.rows()

    @cached_property
    def _kept(self) -> "_KeptRows":
        facts = self._sheet.facts
        if facts.uncomputed:
            reason = f"the formula in {facts.uncomputed} of sheet “{self.sheet}” has no value yet"
            raise ManifestError(self.path, f"{reason}: open the file in Excel or LibreOffice, and save it again")
        _refuse_large(self.path, self.sheet, facts)
        with opened(self.path) as stream, _translated(self.path):
            self._file.check(stream)
            sheet = CalamineWorkbook.from_filelike(stream).get_sheet_by_name(self.sheet)
            left = [""] * (sheet.start or (0, 0))[1]
            real_dates: set[int] = set()

            def rows() -> Iterator[list[str]]:
                for cells in sheet.iter_rows():
                    if not _DATES.isdisjoint(map(type, cells)):
                        real_dates.update(index for index, cell in enumerate(cells, len(left)) if type(cell) in _DATES)
                    yield [*left, *map(_text, cells)]

            kept = _KeptRows(_with_merged(_with_errors(enumerate(rows(), start=1), facts), facts), real_dates)
            self._file.check(stream)
        return kept


def _parts(path: Path, stream: FileIO) -> tuple[str, _Parts]:
    """Return the kind of a workbook, and what knows its parts.

    Raises:
        ManifestError: it is of a kind that springest cannot read, or encrypted.
        BadPartError: it is damaged.
    """
    if stream.read(2) != b"PK":
        stream.seek(0)
        file = CompoundFile(stream.read())
        if "EncryptedPackage" in file:
            raise ManifestError(path, _PROTECTED)
        xls = XlsFacts(file)
        if xls.is_encrypted:
            raise ManifestError(path, _PROTECTED)
        return "XLS", xls
    archive = ZipFile(stream)
    if sum(member.file_size for member in archive.infolist()) > _MAX_BYTES:
        raise ManifestError(path, f"is larger than the {_MAX_BYTES >> 30} GB that springest reads: save it as a CSV")
    names = set(archive.namelist())
    for name, reason in _OTHER_ZIPS.items():
        if name in names:
            raise ManifestError(path, reason)
    if "[Content_Types].xml" in names:
        return "XLSX", XlsxFacts(archive)
    said, contents = (archive.read(name) if name in names else b"" for name in ("mimetype", "META-INF/manifest.xml"))
    if _ODS not in said + contents:
        raise ManifestError(path, _OTHER_ZIP)
    if "encrypted-package" in names or b"encryption-data" in contents:
        raise ManifestError(path, _PROTECTED)
    ods = OdsFacts(archive)
    for name, facts in ods.sheets:  # before calamine reads all of them at once
        _refuse_large(path, name, facts)
    return "ODS", ods


def _refuse_large(path: Path, sheet: str, facts: SheetFacts) -> None:
    if facts.is_too_large:
        last = f"{column_name(facts.width)}{facts.height}"
        reason = f"sheet “{sheet}” has a last cell {last}, and springest reads up to {MAX_CELLS} cells"
        raise ManifestError(path, f"{reason}: delete what stands far below or beside the table")


def _without_rows(sheet: str | None, others: Sequence[str], *, exists: bool) -> str:
    """Return why no rows were found, and where there are some."""
    if not others:
        return "is empty: no sheet has any rows"
    if sheet is None:
        lack = "has rows in hidden sheets only"
    else:
        lack = f"has an empty sheet “{sheet}”" if exists else f"has no sheet “{sheet}”"
    return f"{lack}: name one of these with --sheet: {', '.join(f'“{name}”' for name in others)}"


def _is_meant(known: SheetMetadata, name: str | None) -> bool:
    if name is not None:
        return known.name.strip().casefold() == name.strip().casefold()
    return known.visible == SheetVisibleEnum.Visible and known.typ == SheetTypeEnum.WorkSheet


@contextmanager
def _translated(path: Path) -> Generator[None, None, None]:
    """Raise what is raised for a damaged workbook within the block as a `ManifestError`, in words for people."""
    try:
        yield
    except (
        BadPartError,
        BadZipFile,
        CalamineError,
        EOFError,
        LookupError,
        OverflowError,
        RuntimeError,
        zlib.error,
    ) as error:
        raise ManifestError(path, f"{_DAMAGED} ({error})") from None
    except BaseException as error:
        if type(error).__name__ == "PanicException":  # of Rust, which is no Exception
            raise ManifestError(path, f"{_DAMAGED} ({error})") from None
        raise


def _with_errors(rows: Iterable[tuple[int, list[str]]], facts: SheetFacts) -> Iterator[tuple[int, list[str]]]:
    """Put the texts of error cells into their rows."""
    errors = facts.errors()
    row, column, error = next(errors, (0, 0, ""))
    for number, cells in rows:
        while row == number:
            cells.extend([""] * (column - len(cells)))
            cells[column - 1] = error
            row, column, error = next(errors, (0, 0, ""))
        yield number, cells


def _with_merged(rows: Iterable[tuple[int, list[str]]], facts: SheetFacts) -> Iterator[tuple[int, list[str]]]:
    """Put `MERGED` into the cells below the first one of merged cells: whom its value is for can only be guessed."""
    beginning: dict[int, list[Merged]] = {}
    for merged in facts.merged:
        beginning.setdefault(merged.top, []).append(merged)
    open_ones: list[Merged] = []
    for number, cells in rows:
        open_ones = [merged for merged in open_ones if merged.bottom >= number]
        for merged in open_ones:
            right = min(merged.right, facts.width)
            cells.extend([""] * (right - len(cells)))
            cells[merged.left - 1 : right] = [MERGED] * (right - merged.left + 1)
        open_ones += [merged for merged in beginning.get(number, ()) if any(cells[merged.left - 1 : merged.left])]
        yield number, cells


class _KeptRows:
    """The rows of a sheet in a file without a name, which threads may read at the same time.

    Args:
        rows: are read at once.
        real_dates: is complete when they are read.
    """

    def __init__(self, rows: Iterable[tuple[int, list[str]]], real_dates: set[int]) -> None:
        self._stream: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 # see finalize
        weakref.finalize(self, self._stream.close)
        self._lock = threading.Lock()
        self._ends = [0]
        left = iter(rows)
        while some := list(islice(left, _ROWS_AT_ONCE)):
            self._stream.write(json.dumps(some).encode())
            self._ends.append(self._stream.tell())
        self.real_dates = frozenset(real_dates)

    def rows(self) -> Generator[tuple[int, list[str]], None, None]:
        for start, end in pairwise(self._ends):
            with self._lock:
                self._stream.seek(start)
                some = self._stream.read(end - start)
            yield from map(tuple, json.loads(some))


def _text(cell: _Cell) -> str:
    """Return a cell as text: a date as in ISO 8601, a number with the digits that a spreadsheet keeps."""
    match cell:
        case str():
            return cell
        case bool():
            return "TRUE" if cell else "FALSE"
        case int() | float():
            return str(int(cell)) if abs(cell) < _EXACT and cell == int(cell) else format(cell, ".15g")
        case datetime():
            return cell.isoformat(" ", "seconds") if cell.time() != time() else cell.date().isoformat()
        case date() | time():
            return cell.isoformat()
        case timedelta():
            return str(cell)
