"""What a manifest makes of a journal: which certificates it names, which are new, and which became others.

Set-based and streamed, so that a million rows take seconds and little memory. No file is read: of those that were
uploaded or hashed before, size and time are compared. Which certificate a file is, is told at its turn.
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

__all__ = ["Loaded", "digest", "is_unchanged", "load"]

_CHANGED_SHOWN = 20


@frozen(kw_only=True)
class Loaded:
    """What a load found.

    `rows` are all rows of the manifest: those that are `new` to the journal and those that are `resumed`. Of the new
    ones, `touched` were hashed before, and their file is another one or has another time since. `changed` counts the
    waiting rows whose file was uploaded, or tried, before with other fields (another e-mail address, say);
    `changed_rows` are the first twenty of their numbers.
    """

    rows: int
    new: int
    touched: int
    changed: int
    changed_rows: tuple[int, ...]

    @property
    def resumed(self) -> int:
        """How many rows the journal knew."""
        return self.rows - self.new


def digest(fields: Fields | Entry, origin: str) -> bytes:
    """Give 16 bytes for what the certificates of one person, certification and dates have in common, however written.

    The conversion is left out: Springest lists certificates without it, so they are told apart by the rest only.
    """
    # The address comes last, since it alone could hold a newline.
    text = f"{origin}\n{fields.certification_id}\n{fields.valid_from}\n{fields.valid_until}\n{fields.email.casefold()}"
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def is_unchanged(path: Path, size: int, modified_ns: int, *, when_gone: bool) -> bool:
    """Say whether a file is what it was.

    `when_gone` is what to say of one that is not there: in the folder where it was uploaded it may have been moved away
    since, in another one it has never been.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):  # a NUL in a path is a ValueError
        return when_gone
    return (status.st_size, status.st_mtime_ns) == (size, modified_ns)


def load(connection: sqlite3.Connection, manifest: Manifest, origin: str, folder: Path, *, same_folder: bool) -> Loaded:
    """Make the journal name the manifest's rows; the caller's transaction keeps or drops it all.

    Args:
        connection: to the journal, in a transaction.
        manifest: the manifest, whose faults the preflight has told.
        origin: the host that it is for, as in ``https://api.springest.nl``.
        folder: what the files' paths are relative to.
        same_folder: whether they were relative to the same one at the last load.

    Raises:
        ManifestError: when a row cannot be read, or cannot be uploaded.
        sqlite3.Error: likewise for the journal.
    """
    _read(connection, manifest, origin)
    _match(connection)
    touched = _let_go_of_touched(connection, folder, same_folder=same_folder)
    rows, new = _name(connection)
    changed, changed_rows = _changed(connection)
    connection.execute("DROP TABLE temp.plan")
    return Loaded(rows=rows, new=new, touched=touched, changed=changed, changed_rows=changed_rows)


def _read(connection: sqlite3.Connection, manifest: Manifest, origin: str) -> None:
    connection.execute(
        "CREATE TEMP TABLE plan (number INTEGER PRIMARY KEY, file TEXT, copy INTEGER DEFAULT 1, fields BLOB,"
        " certification_id INTEGER, email TEXT, valid_from TEXT, valid_until TEXT, conversion_id INTEGER, origin TEXT,"
        " extra TEXT, entry INTEGER)"
    )
    with closing(_lines(manifest, origin)) as lines:
        connection.executemany(
            "INSERT INTO plan (number, file, fields, certification_id, email, valid_from, valid_until, conversion_id,"
            " origin, extra) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            lines,
        )
    # The same file with the same fields twice is a fault that the preflight tells; here each row has a place of its
    # own all the same, and the second one fails at its turn.
    connection.execute("CREATE INDEX temp.plan_row ON plan (file, fields, conversion_id)")
    twice = "SELECT 1 FROM plan GROUP BY file, fields, conversion_id HAVING count(*) > 1 LIMIT 1"
    if connection.execute(twice).fetchone():
        connection.execute(
            "UPDATE plan SET copy = ranked.copy FROM (SELECT number AS ranked_number,"
            " row_number() OVER (PARTITION BY file, fields, conversion_id ORDER BY number) AS copy FROM plan) AS ranked"
            " WHERE ranked_number = plan.number AND ranked.copy > 1"
        )


def _lines(manifest: Manifest, origin: str) -> Generator[tuple[object, ...], None, None]:
    known = {*COLUMNS, ""}
    has_extra = not known.issuperset(manifest.columns)
    with closing(iter(manifest)) as rows:
        for row in rows:
            try:
                fields = manifest.fields(row)
            except InvalidUpload as error:
                faults = "; ".join(map(str, error.faults))
                raise ManifestError(manifest.path, f"row {row.number}: {faults}") from None
            extra = (
                {name: cell for name, cell in row.cells.items() if cell and name not in known} if has_extra else None
            )
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


def _let_go_of_touched(connection: sqlite3.Connection, folder: Path, *, same_folder: bool) -> int:
    """Part the rows from entries whose file may be another one by now; at its turn, the hash tells."""
    connection.execute("CREATE TEMP TABLE touched (id INTEGER PRIMARY KEY)")
    hashed = connection.execute(
        "SELECT entry.id, entry.file, size, modified_ns FROM plan JOIN entry ON entry.id = plan.entry"
        " WHERE sha256 IS NOT NULL"
    )
    connection.executemany(
        "INSERT INTO touched VALUES (?)",
        (
            (key,)
            for key, file, size, modified_ns in hashed
            if not is_unchanged(folder / file, size, modified_ns, when_gone=same_folder)
        ),
    )
    connection.execute("UPDATE entry SET number = NULL, copy = 0 WHERE id IN (SELECT id FROM touched)")
    changes = connection.execute("UPDATE plan SET entry = NULL WHERE entry IN (SELECT id FROM touched)").rowcount
    connection.execute("DROP TABLE temp.touched")
    return changes


def _name(connection: sqlite3.Connection) -> tuple[int, int]:
    """Give the entries their rows and make those that are new; return the number of rows and of new ones."""
    connection.execute(
        "UPDATE entry SET number = NULL"
        " WHERE number IS NOT NULL AND NOT EXISTS (SELECT 1 FROM plan WHERE plan.entry = entry.id)"
    )
    # What failed is known not to be stored, so it gets another turn. Rows that are as they were are not written.
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
