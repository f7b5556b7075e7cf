"""A table of text in a file, whichever form the file has: a CSV, or a sheet of a workbook.

What its columns and cells mean is not known here.
"""

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Protocol, Self, TypeVar

from springest_async.errors import ManifestError
from springest_async.manifest.csv_table import CsvTable
from springest_async.manifest.table_file import opened

_WORKBOOKS = (b"PK", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")  # XLSX, XLSB and ODS are ZIPs

Found = TypeVar("Found")


class Table(Protocol):
    """A table in a file. Make one with `open_table`."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def form(self) -> str:
        """How the file is written, for people, as in ``CSV in UTF-8, separated by “;”``."""

    @property
    def has_day_numbers(self) -> bool:
        """Whether a number in a column of dates is Excel's number of a day."""

    @property
    def real_dates(self) -> frozenset[int]:
        """The columns, from 0, with cells that are dates for the spreadsheet, and no texts or numbers.

        Raises:
            ManifestError: as `rows`.
        """

    @property
    def has_sheets(self) -> bool:
        """Whether its `readings` are several sheets, of which only one may fit."""

    @property
    def sha256(self) -> bytes:
        """Read the whole file, and return its SHA-256.

        Raises:
            ManifestError: when it cannot be read, or has changed since it was opened.
        """

    def readings(self) -> Iterator[Self]:
        """Yield this table, and then what else the file may be read as: with another separator, another sheet."""

    def rows(self) -> Generator[tuple[int, list[str]], None, None]:
        """Yield the number of each row, as a spreadsheet shows it, and its cells. Close the generator to stop early.

        Real dates are ISO text, with the time of day if there is one, and whole numbers have no decimal point.

        Raises:
            ManifestError: when a row cannot be read, or the file has changed since it was opened.
        """


def open_table(path: Path, *, sheet: str | None = None) -> Table:
    """Open a table; its content shows what it is, not its name.

    Args:
        path: the file.
        sheet: the name of the sheet, if the user has named one. Without it, the first visible one that has rows.

    Raises:
        ManifestError: when it cannot be read, is neither text nor a workbook, or has no such sheet.
    """
    if path.name.startswith("~$"):
        raise ManifestError(path, "is a file that Excel makes while it has a workbook open: name the one without “~$”")
    with opened(path) as stream:
        is_workbook = stream.read(8).startswith(_WORKBOOKS)
    if not is_workbook:
        if sheet is not None:
            raise ManifestError(path, "is no workbook, so it has no sheets: leave out --sheet")
        return CsvTable.open(path)
    try:
        # Who has no workbook needs no calamine, and does not wait for its import.
        from springest_async.manifest.workbook import WorkbookTable  # noqa: PLC0415
    except ImportError as error:
        reason = "is a workbook, for which springest needs one more package: pip install 'springest-async[xlsx]'"
        raise ManifestError(path, f"{reason} (or save it as “CSV UTF-8” in Excel)") from error
    return WorkbookTable.open(path, sheet=sheet)


def fitting(table: Table, fit: Callable[[Table], Found | None], way_out: str = "Use --sheet") -> Found | None:
    """Return the result of ``fit`` for the first reading of a table that has one; None if no reading has.

    Args:
        table: the table.
        fit: returns what a reading is, or None.
        way_out: what to do when several sheets have a result, for people.

    Raises:
        ManifestError: when several sheets have one, so that only the user knows which is meant; or as ``fit`` does.
    """
    found: dict[str, Found] = {}
    for reading in table.readings():
        if (result := fit(reading)) is not None:
            if not table.has_sheets:
                return result
            found[reading.form] = result
    if len(found) > 1:
        raise ManifestError(table.path, f"has these columns in more than one place: {', '.join(found)}. {way_out}")
    return next(iter(found.values()), None)
