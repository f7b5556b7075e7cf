"""A manifest of the rows that need correcting, beside the first one and in its format.

Rejected and failed rows are certainly not stored, and rows that were left out were not sent. They are written with
their reasons, to be corrected there or in the first manifest and uploaded with the same journal, so that nothing is
stored twice. Rows in doubt are not among them: `UploadQueue` settles those, or a person resolves them.

There is one form of it, whoever writes it: the columns of the manifest with their titles, and the reasons in ``error``.
"""

import os
import re
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from itertools import count, takewhile
from pathlib import Path
from typing import IO, TypeAlias

from attrs import frozen

from springest_async.bulk.rows import RowSet
from springest_async.errors import ConfigurationError
from springest_async.journal import history
from springest_async.journal.engine import Connection
from springest_async.journal.history import RowHistory
from springest_async.journal.open_migration import OpenMigration
from springest_async.journal.reasons import plain_reason
from springest_async.journal.records import ColumnTitles, Entry, State
from springest_async.manifest.columns import COLUMNS, ERROR, INSTEAD, KNOWN, Columns, ColumnsError, full_name
from springest_async.manifest.csv_rows import CsvForm, csv_rows
from springest_async.manifest.csv_table import CsvTable
from springest_async.manifest.dates import NoDateError, proves, read_date
from springest_async.manifest.manifest import Manifest, Row
from springest_async.manifest.new_file import new_file

GoOn: TypeAlias = Callable[[], None]
"""What is called after each row; it may raise an error to end the writing."""

_WriteRow: TypeAlias = Callable[[Mapping[str, str], str], None]
"""Writes a row: its cells by column, and why it is not stored."""

_DATES = ("valid_from", "valid_until")


@frozen
class LeftOut:
    """The rows that were not sent because of their faults.

    Attributes:
        rows: their numbers.
        reason: returns what is wrong with a row; an empty text if nothing is.
    """

    rows: RowSet
    reason: Callable[[int], str]


async def write_failed(migration: OpenMigration, manifest: Manifest, left_out: LeftOut | None = None) -> Path | None:
    """Write the rejected and failed rows to a manifest beside the first one, so that its relative paths stay right.

    A CSV has the separator of the first one. It is UTF-8, with a byte order mark unless the first one is UTF-8 without
    one; a cell that a spreadsheet would run as a formula gets an apostrophe in front, which `Manifest` removes again. A
    workbook becomes an XLSX whose cells are text. The reasons are in a column ``error``. A date that was refused
    although it looks like one gets a question mark: what showed that it may be another is not in this file. No file is
    ever overwritten. Only the owner can read it, because it contains personal data.

    Args:
        migration: the migration of the manifest.
        manifest: the manifest.
        left_out: the rows that were not loaded, if there are any. They are read from the manifest again.

    Returns:
        The first free path of ``x.failed.csv``, ``x.failed-2.csv`` …, or the last existing one if it has the same
        content already; None when there are no such rows.

    Raises:
        ConfigurationError: when it cannot be written.
        JournalError: when the journal cannot be read; no file is left then.
        ManifestError: when rows were left out, and the manifest has changed meanwhile; no file is left then.
    """
    counts = await migration.counts()
    if not counts[State.REJECTED] and not counts[State.FAILED] and not (left_out and left_out.rows):
        return None
    try:
        with new_file(manifest.path.parent) as file:
            with _writing(manifest, file.stream) as write:
                async for cells, reason in _rows(migration, manifest, left_out):
                    write(cells, reason)
            # A long migration is interrupted often, and each run would write the same rejected rows again.
            if (last := _last(manifest)) is not None and file.equals(last):
                return last
            return file.publish(_paths(manifest))
    except OSError as error:
        reason = error.strerror or "cannot be written"
        raise ConfigurationError(f"the failed rows cannot be written beside {manifest.path}: {reason}") from None


async def _rows(
    migration: OpenMigration, manifest: Manifest, left_out: LeftOut | None
) -> AsyncIterator[tuple[Mapping[str, str], str]]:
    """Yield the cells of all rows that are not stored, in the manifest's order, and why they are not."""
    with closing(_left_out_rows(manifest, left_out)) as others:
        other = next(others, None)
        async for entry in _failed(migration):
            assert entry.number is not None
            while other is not None and other.number < entry.number:
                yield other.cells, other.reason
                other = next(others, None)
            # What the check said of its file is plainer than what reading it said.
            yield _cells(entry), (left_out.reason(entry.number) if left_out else "") or plain_reason(entry.reason)
        while other is not None:
            yield other.cells, other.reason
            other = next(others, None)


@frozen
class _LeftOutRow:
    number: int
    cells: Mapping[str, str]
    reason: str


def _left_out_rows(manifest: Manifest, left_out: LeftOut | None) -> Generator[_LeftOutRow, None, None]:
    if left_out is None or not left_out.rows:
        return
    with closing(iter(manifest)) as rows:
        for row in rows:
            if row.number in left_out.rows:
                dates = {name: _date(manifest, row, name) for name in _DATES if name in row.cells}
                yield _LeftOutRow(row.number, {**row.cells, **dates}, left_out.reason(row.number))


def _date(manifest: Manifest, row: Row, column: str) -> str:
    """Return a date as the rows of the journal have it: what shows the order of day and month may not be beside it."""
    cell = row.cells[column]
    try:
        found = manifest.date_of(row, column)
    except NoDateError:
        return f"{cell} ?" if _looks_like_a_date(cell.strip()) else cell
    return cell if found is None else found.isoformat()


def _looks_like_a_date(cell: str) -> bool:
    with suppress(NoDateError):
        return read_date(cell, "mdy" if proves(cell) == "mdy" else "dmy", day_numbers=True) is not None
    return False


async def _failed(migration: OpenMigration) -> AsyncIterator[Entry]:
    after = 0
    while page := await migration.entries(State.REJECTED, State.FAILED, after=after):
        for entry in page:
            yield entry
        after = page[-1].number or after


@contextmanager
def _writing(manifest: Manifest, stream: IO[bytes]) -> Generator[_WriteRow, None, None]:
    """Write the header of the manifest to a stream, and yield what writes a row."""
    is_csv = isinstance(manifest.table, CsvTable)
    with csv_rows(stream, CsvForm.beside(manifest.table)) if is_csv else _rows_of_xlsx(stream) as write:
        yield _begin(write, manifest.layout.named)


@contextmanager
def _rows_of_xlsx(stream: IO[bytes]) -> Generator[Callable[[Iterable[str]], object], None, None]:
    # Who has no workbook needs no writer of workbooks.
    from springest_async.manifest.xlsx_rows import xlsx_rows  # noqa: PLC0415

    with xlsx_rows(stream) as writer:
        yield writer.writerow


def write_failed_of_journal(
    connection: Connection, migration: int, stream: IO[bytes], form: CsvForm, go_on: GoOn
) -> None:
    """Write the rejected and failed rows to a CSV as `write_failed` does, by what the journal knows alone.

    It can be uploaded with the lists of people and certifications alone, without the other options with which the first
    manifest was read: what these have added is in columns of its own, and a title that only an option explains gives
    way to our name of the column. Names are looked up again, because it is they that somebody reads and corrects.

    Args:
        connection: in a snapshot.
        migration: its key.
        stream: where to write.
        form: how the CSV is written.
        go_on: called after each row.

    Raises:
        JournalError: the journal cannot be read, or the migration was erased from it.
        OSError: the stream cannot be written.
    """
    columns = _without_options(
        history.read_columns(connection, migration),
        has_end=history.has_ends(connection, migration),
        has_conversion=history.has_conversions(connection, migration),
    )
    with csv_rows(stream, form) as write_row:
        write = _begin(write_row, columns)
        for row in history.read_rows(connection, migration, State.REJECTED, State.FAILED):
            write(_cells(row), plain_reason(row.reason))
            go_on()


def needs_users(connection: Connection, migration: int) -> bool:
    """Return whether what `write_failed_of_journal` writes can be read only with a list of people.

    Raises:
        JournalError: as `write_failed_of_journal`.
    """
    return _names_people(history.read_columns(connection, migration))


# --- the one form of both ---


def _begin(write_row: Callable[[Iterable[str]], object], columns: ColumnTitles) -> _WriteRow:
    """Write the titles of a manifest, and return what writes a row of it."""
    columns = [(name, title) for name, title in columns if name != ERROR]
    write_row([*(title for _, title in columns), ERROR])

    def write(cells: Mapping[str, str], reason: str) -> None:
        write_row([*(cells.get(name, "") for name, _ in columns), " ".join(reason.split())])

    return write


def _cells(row: Entry | RowHistory) -> dict[str, str]:
    values = {name: getattr(row, name) for name in COLUMNS}
    return dict(row.extra) | {name: "" if value is None else str(value) for name, value in values.items()}


def _without_options(columns: ColumnTitles, *, has_end: bool, has_conversion: bool) -> ColumnTitles:
    """Return the columns with which rows of the journal can be read without any option but the lists of names.

    No id or address is put beside the name that it was found by: it would be sent, whatever becomes of the name.
    """
    names = {name for name, _ in columns}
    needed = dict.fromkeys(COLUMNS, True) | {"valid_until": has_end, "conversion_id": has_conversion}
    needed |= {instead: False for name, instead in INSTEAD.items() if name in names}
    if _names_people(columns):
        needed["email"] = False
    added = [(name, name) for name in COLUMNS if name not in names and needed[name]]
    renamed = [(name, name if name in KNOWN else title) for name, title in columns]
    apart = [
        (name, title if name in KNOWN or Columns.of([title]).names[0] not in KNOWN else f"{title} (manifest)")
        for name, title in renamed
    ]
    candidates: list[ColumnTitles] = [[*some, *added] for some in (columns, renamed, apart)]
    return next(filter(_explain_themselves, candidates), candidates[-1])


def _names_people(columns: ColumnTitles) -> bool:
    """Return whether people are named in these columns, and have no addresses in them."""
    names = {name for name, _ in columns}
    return "email" not in names and ("user" in names or bool(full_name([title for _, title in columns])))


def _explain_themselves(columns: ColumnTitles) -> bool:
    """Return whether the titles alone tell which columns are sent."""
    try:
        understood = Columns.of([title for _, title in columns]).names
    except ColumnsError:
        return False
    pairs = zip((name for name, _ in columns), understood, strict=True)
    return all(name == meant for name, meant in pairs if name in KNOWN or meant in KNOWN)


# --- the files beside the manifest ---


def _paths(manifest: Manifest) -> Iterator[Path]:
    """Yield ``x.failed.csv``, ``x.failed-2.csv`` and so on."""
    stem = re.sub(r"\.failed(-[0-9]+)?$", "", manifest.path.stem)
    suffix = (manifest.path.suffix or ".csv") if isinstance(manifest.table, CsvTable) else ".xlsx"
    yield manifest.path.with_name(f"{stem}.failed{suffix}")
    for number in count(2):
        yield manifest.path.with_name(f"{stem}.failed-{number}{suffix}")


def _last(manifest: Manifest) -> Path | None:
    """Return the last file of the series, if there is one."""
    last = None
    for path in takewhile(os.path.lexists, _paths(manifest)):
        last = path
    return last
