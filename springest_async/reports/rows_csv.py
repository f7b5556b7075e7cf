"""The rows of a migration as CSV, all with what became of them."""

from collections.abc import Iterator
from datetime import datetime
from typing import IO

from springest_async.bulk.failed_rows import GoOn
from springest_async.journal import history
from springest_async.journal.engine import Connection
from springest_async.journal.history import RowHistory
from springest_async.journal.reasons import plain_reason
from springest_async.manifest.columns import COLUMNS
from springest_async.manifest.csv_rows import CsvForm, csv_rows

_RESULTS = (
    "outcome",
    "springest_id",
    "first_sent_utc",
    "last_sent_utc",
    "answered_utc",
    "tries",
    "http_status",
    "server_words",
    "request_id",
    "server_request_id",
    "reason",
)


def write_rows(connection: Connection, migration: int, stream: IO[bytes], form: CsvForm, go_on: GoOn) -> int:
    """Write all rows with their fields, the other cells of the manifest, and what became of them.

    The first line has the names of the columns, of the others as in the manifest. Times are in UTC. A cell that a
    spreadsheet would run as a formula gets an apostrophe in front.

    Args:
        connection: in a snapshot.
        migration: its key.
        stream: where to write.
        form: how the CSV is written.
        go_on: called after each row.

    Returns:
        How many rows there are.

    Raises:
        JournalError: the journal cannot be read, or the migration was erased from it.
        OSError: the stream cannot be written.
    """
    columns = history.read_columns(connection, migration)
    extra = [name for name, _ in columns if name not in COLUMNS]
    ours = ("row", *COLUMNS, *_RESULTS)
    titles = [f"{title} (manifest)" if title in ours else title for name, title in columns if name not in COLUMNS]
    with csv_rows(stream, form) as write:
        write(["row", *COLUMNS, *titles, *_RESULTS])
        count = 0
        for row in history.read_rows(connection, migration):
            write([str(row.number), *_fields(row), *(row.extra.get(name, "") for name in extra), *_results(row)])
            count += 1
            go_on()
    return count


def _fields(row: RowHistory) -> Iterator[str]:
    for name in COLUMNS:
        value = getattr(row, name)
        yield "" if value is None else str(value)


def _results(row: RowHistory) -> list[str]:
    return [
        row.state.value,
        "" if row.springest_id is None else str(row.springest_id),
        _time(row.first_sent_at),
        _time(row.last_sent_at),
        _time(row.answered_at),
        str(row.tries),
        "" if row.status is None else str(row.status),
        _on_one_line(row.words),
        row.request_id if row.tries else "",
        row.server_request_id,
        _on_one_line(plain_reason(row.reason)),
    ]


def _time(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}" if at else ""


def _on_one_line(words: str) -> str:
    return " ".join(words.split())
