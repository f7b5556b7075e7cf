"""The rows of a sheet of a workbook: XLSX, XLS or ODS, read by calamine.

A workbook can only be read whole. So a sheet is read once, and its rows are kept in a temporary file without a name: a
million rows take the memory for as long as that reading lasts, and can be read again and again. What was checked is
then what is sent. What the cells mean is not known here.
"""

import json
import tempfile
import threading
import weakref
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import IO, Self, TypeAlias

from attrs import evolve, frozen
from python_calamine import CalamineError, CalamineWorkbook, PasswordError, SheetTypeEnum, SheetVisibleEnum

from springest_async.errors import ManifestError
from springest_async.manifest.table_file import TableFile, opened

_IN_MEMORY_BYTES = 1024 * 1024  # of kept rows; more of them go to a temporary file
_ROWS_AT_ONCE = 500
_EXACT = 10**15  # a spreadsheet keeps 15 digits of a number

_Cell: TypeAlias = int | float | str | bool | date | datetime | time | timedelta


@frozen
class WorkbookTable:
    """A sheet of a workbook. Make it with `open`.

    Attributes:
        sheet: its name.
        kind: of the workbook: ``XLSX``, ``XLS`` or ``ODS``.
        others: the other visible sheets that have rows.
        has_day_numbers: whether a number in a column of dates is Excel's number of a day.
    """

    sheet: str
    kind: str
    others: tuple[str, ...]
    has_day_numbers: bool
    _file: TableFile

    @classmethod
    def open(cls, path: Path, *, sheet: str | None = None) -> Self:
        """Read which sheets there are, and take the one of this name, else the first visible one that has rows.

        Raises:
            ManifestError: when it cannot be read, is encrypted or damaged, or has no such sheet.
        """
        with opened(path) as stream:
            file = TableFile.of(path, stream)
            kind = "XLSX" if stream.read(2) == b"PK" else "XLS"
            stream.seek(0)
            with _translated(path):
                workbook = CalamineWorkbook.from_filelike(stream)
                sheets = [known for known in workbook.sheets_metadata if known.typ == SheetTypeEnum.WorkSheet]
                named = [known.name for known in sheets]
                if sheet is None:
                    visible = (known.name for known in sheets if known.visible == SheetVisibleEnum.Visible)
                    filled = [name for name in visible if workbook.get_sheet_by_name(name).height]
                elif sheet in named:
                    filled = [sheet]
                else:
                    raise ManifestError(path, f"has no sheet “{sheet}”; it has {', '.join(named)}")
        if not filled:
            raise ManifestError(path, "has no sheet with rows that is not hidden")
        return cls(filled[0], kind, tuple(filled[1:]), True, file)

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    @property
    def form(self) -> str:
        """How the file is written, for people, as in ``sheet “Blad1” of an XLSX workbook``."""
        return f"sheet “{self.sheet}” of an {self.kind} workbook"

    @property
    def has_sheets(self) -> bool:
        """Whether there are other visible sheets with rows."""
        return bool(self.others)

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
        for name in self.others:
            yield evolve(self, sheet=name)

    def rows(self) -> Generator[tuple[int, list[str]], None, None]:
        """Yield the number of each row, as a spreadsheet shows it, and its cells. Close the generator to stop early.

        Raises:
            ManifestError: when the sheet cannot be read, or the file has changed since `open`.
        """
        yield from self._kept.rows()

    @cached_property
    def _kept(self) -> "_KeptRows":
        with opened(self.path) as stream:
            self._file.check(stream)
            with _translated(self.path):
                sheet = CalamineWorkbook.from_filelike(stream).get_sheet_by_name(self.sheet)
                left = [""] * (sheet.start or (0, 0))[1]
                kept = _KeptRows([*left, *map(_text, cells)] for cells in sheet.iter_rows())
            self._file.check(stream)
        return kept


@contextmanager
def _translated(path: Path) -> Generator[None, None, None]:
    """Raise what calamine raises within the block as a `ManifestError`, in words for people."""
    try:
        yield
    except PasswordError:
        reason = "is protected with a password: save it without one (in Excel: File, Info, Protect Workbook)"
        raise ManifestError(path, reason) from None
    except CalamineError as error:
        reason = "is damaged, or not a workbook that springest can read: open it in Excel and save it as XLSX"
        raise ManifestError(path, f"{reason} ({error})") from None


class _KeptRows:
    """The rows of a sheet in a file without a name, which threads may read at the same time."""

    def __init__(self, rows: Iterable[list[str]]) -> None:
        self._stream: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 # see finalize
        weakref.finalize(self, self._stream.close)
        self._lock = threading.Lock()
        self._ends = [0]
        numbered = enumerate(rows, start=1)
        while some := list(islice(numbered, _ROWS_AT_ONCE)):
            self._stream.write(json.dumps(some).encode())
            self._ends.append(self._stream.tell())

    def rows(self) -> Generator[tuple[int, list[str]], None, None]:
        start = 0
        for end in self._ends[1:]:
            with self._lock:
                self._stream.seek(start)
                some = self._stream.read(end - start)
            start = end
            yield from map(tuple, json.loads(some))


def _text(cell: _Cell) -> str:
    """Return a cell as text."""
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
