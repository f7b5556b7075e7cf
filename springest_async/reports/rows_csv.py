"""The rows of a migration as CSV: all with what became of them, or those to correct as a manifest."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import IO

from springest_async.journal import history
from springest_async.journal.engine import Connection
from springest_async.journal.history import RowHistory
from springest_async.journal.reasons import plain_reason
from springest_async.journal.records import State
from springest_async.manifest.columns import COLUMNS, ERROR
from springest_async.manifest.formulas import escape

GoOn = Callable[[], None]
"""What is called after each row; it may raise an error to end the writing."""

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


def write_rows(connection: Connection, migration: int, stream: IO[bytes], separator: str, go_on: GoOn) -> int:
    """Write all rows with their fields, the other cells of the manifest, and what became of them.

    The first line has the names of the columns. Times are in UTC. It is UTF-8 with a byte order mark, as Excel needs
    it, and a cell that a spreadsheet would run as a formula gets an apostrophe in front.

    Args:
        connection: in a snapshot.
        migration: its key.
        stream: where to write.
        separator: what stands between two cells.
        go_on: called after each row.

    Returns:
        How many rows there are.

    Raises:
        JournalError: the journal cannot be read, or the migration was erased from it.
        OSError: the stream cannot be written.
    """
    extra = history.read_extra_columns(connection, migration)
    ours = ("row", *COLUMNS, *_RESULTS)
    titles = [f"{name} (manifest)" if name in ours else name for name in extra]
    with _csv(stream, separator) as write:
        write(["row", *COLUMNS, *titles, *_RESULTS])
        count = 0
        for row in history.read_rows(connection, migration):
            write([str(row.number), *_fields(row), *(row.extra.get(name, "") for name in extra), *_results(row)])
            count += 1
            go_on()
    return count


def write_failed_rows(connection: Connection, migration: int, stream: IO[bytes], separator: str, go_on: GoOn) -> int:
    """Write the rejected and failed rows as a manifest with a column ``error``; otherwise as `write_rows`.

    They are certainly not stored: corrected, they can be uploaded from there with the same journal.
    """
    extra = [name for name in history.read_extra_columns(connection, migration) if name != ERROR]
    with _csv(stream, separator) as write:
        write([*COLUMNS, *extra, ERROR])
        count = 0
        for row in history.read_rows(connection, migration, State.REJECTED, State.FAILED):
            write([*_fields(row), *(row.extra.get(name, "") for name in extra), _on_one_line(plain_reason(row.reason))])
            count += 1
            go_on()
    return count


@contextmanager
def _csv(stream: IO[bytes], separator: str) -> Iterator[Callable[[Iterable[str]], object]]:
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="backslashreplace", newline="")
    try:
        writer = csv.writer(text, delimiter=separator)
        yield lambda cells: writer.writerow(map(escape, cells))
        text.flush()
    finally:
        text.detach()


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
