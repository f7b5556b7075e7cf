"""The row of a manifest that names its columns, or what it lacks.

Above it there may be a title, but no row of data. Lists of people and of certifications have headers of their own
(`headers`).
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from itertools import islice

from attrs import frozen

from springest_async.errors import ManifestError
from springest_async.manifest.columns import ERROR, Columns, ColumnsError, listed
from springest_async.manifest.csv_table import CsvTable
from springest_async.manifest.formulas import unescape
from springest_async.manifest.headers import HEADER_WITHIN
from springest_async.manifest.reading import Reading
from springest_async.manifest.table import Table, fitting

_MAX_COLUMNS = 16_384  # the limit of Excel and LibreOffice
_CELLS_OF_DATA = 4  # and an address among them: a row with so many is no title


@frozen
class Header:
    """The row of a table that names its columns.

    Attributes:
        table: the table, as it must be read.
        row: the number of the row.
        columns: what its titles mean.
    """

    table: Table
    row: int
    columns: Columns


def find_header(table: Table, reading: Reading) -> Header:
    """Return the row that names the columns, in whichever way a table can be read.

    Raises:
        ManifestError: when there is none, when it is in several sheets, or when the first rows cannot be read.
    """

    def fit(candidate: Table) -> Header | None:
        found = _header(candidate, reading)
        return found if isinstance(found, Header) else None

    if (header := fitting(table, fit)) is None:
        likely = _header(table, reading)
        raise likely if isinstance(likely, ManifestError) else _no_header(table, reading)
    return header


def _header(table: Table, reading: Reading) -> Header | ManifestError | None:
    """Return the row that names the columns; None if the first rows have none, or why they cannot be read."""
    row_of_data = 0
    try:
        for number, titles in _first_rows(table):
            with suppress(ColumnsError):  # `_no_header` says which, if no other row names the columns
                columns = _columns(titles, reading)
                if not _missing(columns, reading):
                    if len(titles) > _MAX_COLUMNS:
                        reason = f"row {number} has {len(titles)} columns; the maximum is {_MAX_COLUMNS}"
                        return ManifestError(table.path, reason)
                    if row_of_data:
                        reason = (
                            f"row {row_of_data} stands above the names of the columns, and is no title: put it below"
                            " them"
                        )
                        return ManifestError(table.path, reason)
                    return Header(table, number, columns)
            if any("@" in cell for cell in titles) and sum(map(bool, map(str.strip, titles))) >= _CELLS_OF_DATA:
                row_of_data = row_of_data or number
    except ManifestError as error:
        return error
    return None


def _columns(titles: Sequence[str], reading: Reading) -> Columns:
    """Return what these titles mean.

    Raises:
        ColumnsError: as `Columns.of`.
    """
    # With one certification for all rows, it does not matter which column names it.
    unneeded = {"certification": ""} if reading.certification else {}
    return Columns.of(titles, {**reading.columns, **unneeded})


def _missing(columns: Columns, reading: Reading) -> list[str]:
    """Return the columns without which no row is a certificate."""
    is_there = {
        "file": "file" in columns,
        "certification_id": reading.certification or "certification_id" in columns or "certification" in columns,
        "email": "email" in columns or "user" in columns,
        "valid_from": "valid_from" in columns,
    }
    return [name for name, there in is_there.items() if not there]


def _first_rows(table: Table) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each row that may be the header."""
    with closing(table.rows()) as rows:
        for number, cells in islice(rows, HEADER_WITHIN):
            is_escaped = isinstance(table, CsvTable) and any(cell.strip().lower() == ERROR for cell in cells)
            yield number, [*map(unescape, cells)] if is_escaped else cells


def _no_header(table: Table, reading: Reading) -> ManifestError:
    """Return what the row lacks that comes nearest to naming the columns."""
    if not (rows := [*_first_rows(table)]):
        return ManifestError(
            table.path, "is empty: it must have a row for each certificate, below the names of the columns"
        )
    number, titles = max(rows, key=lambda row: (len(_plainly_known(row[1])), -row[0]))
    try:
        columns = _columns(titles, reading)
    except ColumnsError as error:
        return ManifestError(table.path, f"row {number}: {error}")
    missing = _missing(columns, reading)
    examples = [f'{name}="{title}"' for name in missing for title in columns.possible(name)] or [f'{missing[0]}="…"']
    reason = (
        f"row {number} lacks {', '.join(missing)} (check the names of the columns, or say which they are, as in --map"
        f" {examples[0]}); it has {listed(filter(None, map(str.strip, titles)))}"
    )
    return ManifestError(table.path, reason)


def _plainly_known(titles: Sequence[str]) -> Sequence[object]:
    with suppress(ColumnsError):
        return Columns.of(titles).understood
    return titles  # several that mean the same are many
