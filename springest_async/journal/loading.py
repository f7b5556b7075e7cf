"""Load a manifest into a journal: its rows, and the certificates that they name already.

Each load of an edited manifest has rows of its own, which take over the certificates of the rows that they replace. A
file is not read here: its size and time are compared, and one that may have changed is read when its turn comes.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from itertools import islice

from attrs import field, frozen

from springest_async.errors import JournalError
from springest_async.journal import certificates, changed_files, file_hashes
from springest_async.journal.certificates import microseconds, storable
from springest_async.journal.engine import Connection
from springest_async.journal.identity import CertificateFields, identity, row_digests
from springest_async.journal.manifest_rows import fields_of
from springest_async.journal.migrations import Source, find
from springest_async.journal.records import ColumnTitles, Loaded, State
from springest_async.journal.repeats import SeenDigests

_BATCH = 10_000  # rows in one transaction, so that others never wait long
_CHANGED_SHOWN = 20
_DIGESTS_AT_ONCE = 500


@frozen(kw_only=True)
class ManifestRow:
    """A row of a manifest, as it is loaded.

    Attributes:
        number: which row it is; the header is row 1.
        file: the cell, as written.
        extra: the cells of unknown columns, by column.
    """

    number: int
    file: str
    certification_id: int
    email: str
    valid_from: date
    valid_until: date | None
    conversion_id: int | None
    extra: Mapping[str, str] = field(factory=dict)


def load(
    connection: Connection,
    source: Source,
    rows: Iterable[ManifestRow],
    worker: str,
    *,
    faulty: int,
    columns: ColumnTitles,
) -> Loaded:
    """Load a manifest that has passed the preflight, in several transactions.

    Rows of the migration that are no longer in the manifest are removed; their certificates stay. Failed rows wait
    again. Nothing of it is visible before the last transaction; the next load removes what a killed process leaves.

    Args:
        connection: one of its own, because this takes long.
        source: the manifest.
        rows: its rows.
        worker: the worker that loads it.
        faulty: how many rows are not among them because of their faults.
        columns: the names and titles of its columns.
    """
    own: int | None = None
    changed: list[int] = []
    new = 0
    with connection.transaction():
        before = _known(connection, source)
    _remove_abandoned(connection)
    while True:
        if before.is_unchanged:
            current = before.load
        else:
            current = own = own or _insert(connection, source, rows, worker)
            with connection.transaction():
                if before.load is not None:
                    _inherit(connection, own, before.load)
                    changed = _changed(connection, own, before.load)
                new = _count_new(connection, own, before.load)
        assert current is not None
        changed_files.forget_changed_files(connection, current, source)
        known = _attach_known_files(connection, current, source)
        with connection.transaction():
            now = _known(connection, source)
            if now == before:
                if current == own:
                    _check_load(connection, own, source, worker)
                migration = _switch(connection, before.migration, current, source, faulty, columns)
                _retry_failed(connection, current, source.machine)
                ((count,),) = connection.execute("SELECT count(*) FROM manifest_rows WHERE load = ?", (current,))
                break
        before = now  # another worker has loaded it, or another edition of it, meanwhile
    for obsolete in (own, before.load):
        if obsolete not in (None, current):
            _remove(connection, obsolete)
    return Loaded(
        migration=migration,
        rows=count,
        new=new,
        known=known,
        changed=len(changed),
        changed_rows=tuple(changed[:_CHANGED_SHOWN]),
    )


@frozen
class _Known:
    migration: int | None = None
    load: int | None = None
    is_unchanged: bool = False


def _known(connection: Connection, source: Source) -> _Known:
    """Return the migration of a manifest, its load, and whether that is of the same content."""
    migration = find(connection, source)
    if migration is None:
        return _Known()
    ((load, *content),) = connection.execute(
        "SELECT load, manifest, reading FROM migrations WHERE id = ?", (migration,)
    )
    return _Known(migration, load, content == [source.sha256, source.reading])


_INSERT = (
    "INSERT INTO manifest_rows (load, number, file, copy, fields, lookalike, certification_id, email, valid_from,"
    " valid_until, conversion_id, extra) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def _insert(connection: Connection, source: Source, rows: Iterable[ManifestRow], worker: str) -> int:
    """Insert the rows of a manifest as a new load, and return its key."""
    with connection.transaction():
        ((current,),) = connection.execute("INSERT INTO loads (worker) VALUES (?) RETURNING id", (worker,))
    remaining = iter(rows)
    copies = _Copies(current)
    while batch := [(row, *row_digests(row, source.origin, row.file)) for row in islice(remaining, _BATCH)]:
        with connection.transaction():
            _check_load(connection, current, source, worker)
            numbers = copies.number(connection, [fields for _, fields, _ in batch])
            connection.executemany(
                _INSERT,
                [
                    (
                        current,
                        row.number,
                        storable(row.file),
                        copy,
                        fields,
                        looks,
                        row.certification_id,
                        row.email,
                        row.valid_from.isoformat(),
                        row.valid_until and row.valid_until.isoformat(),
                        row.conversion_id,
                        json.dumps(dict(row.extra)) if row.extra else None,
                    )
                    for (row, fields, looks), copy in zip(batch, numbers, strict=True)
                ],
            )
    return int(current)


def _check_load(connection: Connection, load: int, source: Source, worker: str) -> None:
    """Check that nobody has begun to remove a load, as that of a worker that seemed dead."""
    if not connection.execute("SELECT 1 FROM loads WHERE id = ? AND worker = ?", (load, worker)):
        raise JournalError(
            source.path, "this program was stopped or asleep while it loaded this manifest: run the same command again"
        )


class _Copies:
    """The numbers of the rows of a load that have the same file and fields, which the preflight reports.

    They have one certificate, and each gets its outcome. Memory: 16 MiB, and 0.2 KB for each row that has copies.
    """

    def __init__(self, load: int) -> None:
        self._load = load
        self._seen = SeenDigests()
        self._counts: dict[bytes, int] = {}  # of those that came before, or seemed to

    def number(self, connection: Connection, batch: Sequence[bytes]) -> list[int]:
        """Return which copy each row is, by the digests of their fields; all rows before them are in the journal."""
        counts = self._counts
        again = {fields for fields in batch if self._seen.add(fields)}
        if not again:
            return [1] * len(batch)
        unknown = list(again - counts.keys())
        counts.update(dict.fromkeys(unknown, 0))
        for start in range(0, len(unknown), _DIGESTS_AT_ONCE):
            some = unknown[start : start + _DIGESTS_AT_ONCE]
            marks = ", ".join("?" * len(some))
            # With the plus, SQLite looks for the fields; else it would look at all rows of the load.
            lines = connection.execute(
                f"SELECT fields, count(*) FROM manifest_rows WHERE fields IN ({marks}) AND +load = ? GROUP BY fields",  # noqa: S608 # question marks
                (*some, self._load),
            )
            counts.update((bytes(fields), count) for fields, count in lines)
        numbers = []
        for fields in batch:
            if fields in counts:
                counts[fields] += 1
            numbers.append(counts.get(fields, 1))
        return numbers


def _inherit(connection: Connection, current: int, before: int) -> None:
    """Hand the certificates of rows to those that replace them."""
    connection.execute(
        "UPDATE manifest_rows SET certificate = old.certificate, size = old.size, modified_ns = old.modified_ns,"
        " state = old.state, reason = old.reason FROM manifest_rows AS old WHERE manifest_rows.load = ?"
        " AND old.load = ? AND old.fields = manifest_rows.fields AND old.copy = manifest_rows.copy"
        " AND old.certificate IS NOT NULL",
        (current, before),
    )


def _count_new(connection: Connection, current: int, before: int | None) -> int:
    if before is None:
        ((count,),) = connection.execute("SELECT count(*) FROM manifest_rows WHERE load = ?", (current,))
        return int(count)
    ((count,),) = connection.execute(
        "SELECT count(*) FROM manifest_rows AS new WHERE new.load = ? AND NOT EXISTS"
        " (SELECT 1 FROM manifest_rows AS old WHERE old.fields = new.fields AND old.copy = new.copy AND old.load = ?)",
        (current, before),
    )
    return int(count)


def _changed(connection: Connection, current: int, before: int) -> list[int]:
    """Return the waiting rows whose file was uploaded with other fields, by a row that is gone."""
    # IN, and no join: the files of the old rows are gathered once, where a join would look at all new rows for each.
    lines = connection.execute(
        "SELECT number FROM manifest_rows WHERE load = ? AND certificate IS NULL AND file IN (SELECT old.file"
        " FROM manifest_rows AS old WHERE old.load = ? AND old.state IN ('stored', 'rejected', 'in doubt')"
        " AND NOT EXISTS (SELECT 1 FROM manifest_rows AS kept WHERE kept.load = ? AND kept.fields = old.fields"
        " AND kept.copy = old.copy)) ORDER BY number",
        (current, before, current),
    )
    return [number for (number,) in lines]


def _attach_known_files(connection: Connection, load: int, source: Source) -> int:
    """Attach rows to certificates that the journal knows, where this machine knows the hash of their file.

    Return how many of these certificates are stored.
    """
    after = count = 0
    while True:
        with connection.snapshot():
            lines = connection.execute(
                "SELECT DISTINCT r.id, r.file, r.certification_id, r.email, r.valid_from, r.valid_until,"
                " r.conversion_id FROM manifest_rows AS r JOIN certificates AS k ON k.lookalike = r.lookalike"
                " WHERE r.load = ? AND r.certificate IS NULL AND r.claim IS NULL AND r.id > ? ORDER BY r.id LIMIT ?",
                (load, after, _BATCH),
            )
            if not lines:
                return count
            after = lines[-1][0]
            known = []
            for row, file, *values in lines:
                if (found := file_hashes.look_at(path := source.path_of(file))) is None:
                    continue
                sha256 = file_hashes.known_hash(connection, source.machine, path, found.size, found.modified_ns)
                if sha256 is None:
                    continue
                digest = identity(fields_of(*values), source.origin, sha256)
                for certificate, state in connection.execute(
                    "SELECT id, state FROM certificates WHERE identity = ?", (digest,)
                ):
                    modified_ns = file_hashes.storable_time(found.modified_ns)
                    known.append((certificate, found.size, modified_ns, certificate, certificate, row))
                    count += state == State.STORED.value
        if known:
            with connection.transaction():
                connection.executemany(
                    "UPDATE manifest_rows SET certificate = ?, size = ?, modified_ns = ?, state = (SELECT state"
                    " FROM certificates WHERE id = ?), reason = (SELECT reason FROM certificates WHERE id = ?)"
                    " WHERE id = ? AND claim IS NULL",
                    known,
                )


def _switch(
    connection: Connection, migration: int | None, load: int, source: Source, faulty: int, columns: ColumnTitles
) -> int:
    """Make this load the one that counts; return the key of the migration."""
    now = microseconds(datetime.now(UTC))
    values = (
        source.sha256,
        source.reading,
        source.machine,
        source.shown_path,
        source.shown_name,
        load,
        faulty,
        json.dumps(columns),
        now,
        now,
    )
    if migration is None:
        ((migration,),) = connection.execute(
            "INSERT INTO migrations (manifest, reading, machine, path, name, load, faulty, columns, loaded_at,"
            " moved_at, begun_at, origin, last_before) SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, coalesce(max(id), 0)"
            " FROM certificates RETURNING id",
            (*values, now, source.origin),
        )
    else:
        connection.execute(
            "UPDATE migrations SET manifest = ?, reading = ?, machine = ?, path = ?, name = ?, load = ?, faulty = ?,"
            " columns = ?, loaded_at = ?, moved_at = ? WHERE id = ?",
            (*values, migration),
        )
    return migration


def _retry_failed(connection: Connection, load: int, machine: str) -> None:
    """Put failed rows back to waiting: they are certainly not stored."""
    connection.execute(
        "DELETE FROM unreadable_files WHERE machine = ? AND manifest_row IN"
        " (SELECT id FROM manifest_rows WHERE load = ? AND state IN ('waiting', 'failed'))",
        (machine, load),
    )
    for (certificate,) in connection.execute(
        "SELECT DISTINCT certificate FROM manifest_rows WHERE load = ? AND state = 'failed'"
        " AND certificate IS NOT NULL",
        (load,),
    ):
        certificates.retry(connection, certificate)
    connection.execute(
        "UPDATE manifest_rows SET state = 'waiting', reason = '' WHERE load = ? AND state = 'failed'", (load,)
    )


def _remove_abandoned(connection: Connection) -> None:
    """Remove what killed processes have loaded in part."""
    with connection.transaction():
        abandoned = connection.execute(
            "SELECT id FROM loads WHERE id NOT IN (SELECT load FROM migrations)"
            " AND worker NOT IN (SELECT id FROM workers)"
        )
    for (load,) in abandoned:
        _remove(connection, load)


def _remove(connection: Connection, load: int) -> None:
    with connection.transaction():
        connection.execute("UPDATE loads SET worker = '' WHERE id = ?", (load,))
    while True:
        with connection.transaction():
            removed = connection.execute(
                "DELETE FROM manifest_rows WHERE id IN (SELECT id FROM manifest_rows WHERE load = ? LIMIT ?)"
                " RETURNING id",
                (load, 10 * _BATCH),
            )
            if not removed:
                connection.execute(
                    "DELETE FROM unreadable_files WHERE manifest_row NOT IN (SELECT id FROM manifest_rows)"
                )
                connection.execute("DELETE FROM loads WHERE id = ?", (load,))
                return


def settled_state(
    connection: Connection, source: Source, migration: int | None, fields: CertificateFields, file: str
) -> State | None:
    """Return the state of a row whose file need not be checked, because its certificate will not be sent again.

    It is stored, rejected or in doubt, and the file is unchanged or was moved away. None is any other row.
    """
    found = file_hashes.look_at(path := source.path_of(file))
    if found is not None:
        sha256 = file_hashes.known_hash(connection, source.machine, path, found.size, found.modified_ns)
        if sha256 is not None:
            lines = connection.execute(
                "SELECT state FROM certificates WHERE identity = ? AND state IN ('stored', 'rejected', 'in doubt')",
                (identity(fields, source.origin, sha256),),
            )
            return State(lines[0][0]) if lines else None
    if migration is None:
        return None
    lines = connection.execute(
        "SELECT state, size, modified_ns FROM manifest_rows WHERE fields = ? AND certificate IS NOT NULL"
        " AND state IN ('stored', 'rejected', 'in doubt') AND load = (SELECT load FROM migrations WHERE id = ?)",
        (row_digests(fields, source.origin, file)[0], migration),
    )
    return next((State(state) for state, *line in lines if found is None or file_hashes.is_same(found, *line)), None)
