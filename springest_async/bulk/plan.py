"""Load a manifest into a journal: find which rows are known, which are new, and which have changed.

It works in SQL on whole tables, so a million rows take seconds and little memory. No file is read: for files that were
hashed before, size and time are compared. Only when a row's turn comes is its file hashed.
"""

import hashlib
import json
import sqlite3
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

from attrs import frozen

from springest_async.bulk.entries import Entry
from springest_async.bulk.manifest import COLUMNS, Fields, Manifest
from springest_async.errors import InvalidUpload, ManifestError

_CHANGED_SHOWN = 20


@frozen(kw_only=True)
class Loaded:
    """The result of loading a manifest.

    Attributes:
        rows: how many rows the manifest has.
        new: how many of them the journal did not know.
        changed: how many waiting rows name a file that was uploaded before with other fields, such as another email.
        changed_rows: the numbers of the first twenty of these.
    """

    rows: int
    new: int
    changed: int
    changed_rows: tuple[int, ...]


def digest(fields: Fields | Entry, origin: str) -> bytes:
    """Return a 16-byte digest of person, certification, dates and host, however they are written.

    The conversion is left out, because Springest's list does not show it.
    """
    # The email comes last, because it is the only value that may contain a newline.
    text = f"{origin}\n{fields.certification_id}\n{fields.valid_from}\n{fields.valid_until}\n{fields.email.casefold()}"
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def is_unchanged(path: Path, size: int, modified_ns: int, *, when_gone: bool) -> bool:
    """Return whether a file still has this size (bytes) and time (ns).

    A missing file returns `when_gone`: in the folder from which it was uploaded it may have been moved away since.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return when_gone
    return (status.st_size, status.st_mtime_ns) == (size, modified_ns)


def load(connection: sqlite3.Connection, manifest: Manifest, origin: str, folder: Path, *, same_folder: bool) -> Loaded:
    """Load the manifest's rows into the journal, within the caller's transaction.

    `folder` is what the files' paths are relative to, and `same_folder` whether the last load used the same one. A row
    that cannot be read or uploaded raises a `ManifestError`, although the preflight should have reported it.
    """
    _read(connection, manifest, origin)
    _match(connection)
    _detach_touched(connection, folder, same_folder=same_folder)
    rows, new = _assign_rows(connection)
    changed, changed_rows = _changed(connection)
    connection.execute("DROP TABLE temp.plan")
    return Loaded(rows=rows, new=new, changed=changed, changed_rows=changed_rows)


def _read(connection: sqlite3.Connection, manifest: Manifest, origin: str) -> None:
    connection.execute(
        "CREATE TEMP TABLE plan (number INTEGER PRIMARY KEY, file, fields, certification_id, email, valid_from,"
        " valid_until, conversion_id, origin, extra, copy, entry INTEGER)"
    )
    with closing(_plan_rows(manifest, origin)) as lines:
        connection.executemany("INSERT INTO plan VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, NULL)", lines)
    # The preflight reports the same file with the same fields in two rows. Here each row still gets an entry of its
    # own, and the second one fails when its turn comes.
    connection.execute("CREATE INDEX temp.plan_row ON plan (file, fields, conversion_id)")
    twice = "SELECT 1 FROM plan GROUP BY file, fields, conversion_id HAVING count(*) > 1 LIMIT 1"
    if connection.execute(twice).fetchone():
        connection.execute(
            "UPDATE plan SET copy = ranked.copy FROM (SELECT number AS ranked_number,"
            " row_number() OVER (PARTITION BY file, fields, conversion_id ORDER BY number) AS copy FROM plan) AS ranked"
            " WHERE ranked_number = plan.number AND ranked.copy > 1"
        )


def _plan_rows(manifest: Manifest, origin: str) -> Generator[tuple[object, ...], None, None]:
    known = {*COLUMNS, ""}
    with closing(iter(manifest)) as rows:
        for row in rows:
            try:
                fields = manifest.fields(row)
            except InvalidUpload as error:
                faults = "; ".join(map(str, error.faults))
                raise ManifestError(manifest.path, f"row {row.number}: {faults}") from None
            extra = {name: cell for name, cell in row.cells.items() if cell and name not in known}
            yield (
                row.number,
                fields.file,
                digest(fields, origin),
                fields.certification_id,
                fields.email,
                fields.valid_from.isoformat(),
                fields.valid_until and fields.valid_until.isoformat(),
                fields.conversion_id or 0,
                origin,
                json.dumps(extra) if extra else None,
            )


def _match(connection: sqlite3.Connection) -> None:
    connection.execute(
        "UPDATE plan SET entry = (SELECT id FROM entry WHERE entry.file = plan.file AND entry.fields = plan.fields"
        " AND entry.conversion_id = plan.conversion_id AND entry.copy = plan.copy AND entry.copy > 0)"
    )
    connection.execute("CREATE INDEX temp.plan_entry ON plan (entry) WHERE entry IS NOT NULL")


def _detach_touched(connection: sqlite3.Connection, folder: Path, *, same_folder: bool) -> None:
    """Detach rows from entries whose file may have changed; its hash decides when the row's turn comes."""
    connection.create_function(
        "is_unchanged", 3, lambda file, *known: is_unchanged(folder / file, *known, when_gone=same_folder)
    )
    connection.execute(
        "UPDATE entry SET number = NULL, copy = 0 WHERE sha256 IS NOT NULL"
        " AND id IN (SELECT entry FROM plan WHERE entry IS NOT NULL) AND NOT is_unchanged(file, size, modified_ns)"
    )
    connection.execute("UPDATE plan SET entry = NULL WHERE (SELECT copy FROM entry WHERE id = plan.entry) = 0")


def _assign_rows(connection: sqlite3.Connection) -> tuple[int, int]:
    """Assign the rows to entries, and make new entries; return the number of rows and of new ones."""
    connection.execute(
        "UPDATE entry SET number = NULL"
        " WHERE number IS NOT NULL AND NOT EXISTS (SELECT 1 FROM plan WHERE plan.entry = entry.id)"
    )
    # Failed rows are certainly not stored, so they wait again. Unchanged rows are not written.
    connection.execute(
        "UPDATE entry SET number = plan.number, email = plan.email, extra = plan.extra,"
        " state = CASE state WHEN 'failed' THEN 'waiting' ELSE state END,"
        " reason = CASE state WHEN 'failed' THEN '' ELSE reason END"
        " FROM plan WHERE plan.entry = entry.id AND (entry.number IS NOT plan.number"
        " OR entry.email IS NOT plan.email OR entry.extra IS NOT plan.extra OR entry.state = 'failed')"
    )
    new = connection.execute(
        "INSERT INTO entry (number, state, file, copy, fields, certification_id, email, valid_from, valid_until,"
        " conversion_id, origin, extra) SELECT number, 'waiting', file, copy, fields, certification_id, email,"
        " valid_from, valid_until, conversion_id, origin, extra FROM plan WHERE entry IS NULL ORDER BY number"
    ).rowcount
    (rows,) = connection.execute("SELECT count(*) FROM plan").fetchone()
    return rows, new


def _changed(connection: sqlite3.Connection) -> tuple[int, tuple[int, ...]]:
    numbers = [
        number
        for (number,) in connection.execute(
            "SELECT DISTINCT new.number FROM entry AS old INDEXED BY entry_settled_file"
            " CROSS JOIN entry AS new INDEXED BY entry_row ON new.file = old.file AND new.copy > 0"
            " WHERE old.number IS NULL AND old.state IN ('stored', 'rejected', 'in doubt')"
            " AND new.number IS NOT NULL AND new.state = 'waiting' AND new.origin = old.origin"
            " AND (new.fields IS NOT old.fields OR new.conversion_id IS NOT old.conversion_id) ORDER BY new.number"
        )
    ]
    return len(numbers), tuple(numbers[:_CHANGED_SHOWN])
