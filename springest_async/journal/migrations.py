"""Migrations: manifests that were loaded for a host, and their rows.

A manifest fills the journal; its name decides nothing. A migration is known by the host and the SHA-256 of the
manifest's bytes, wherever it lies; else by the host, the machine and the path, for a manifest that was edited; else it
is a new one. Each load of an edited manifest has rows of its own, which take over the certificates of the rows that
they replace. A file is not read here: its size and time are compared, and what is in doubt is read when its turn comes.
"""

import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from attrs import field, frozen

from springest_async.errors import ConfigurationError, JournalError
from springest_async.journal import certificates
from springest_async.journal.certificates import ClaimLost, microseconds, moment, storable
from springest_async.journal.engine import Connection
from springest_async.journal.identity import CertificateFields, identity, lookalike, place, row_fields
from springest_async.journal.records import Entry, KnownCertificate, Loaded, Migration, State

_BATCH = 10_000  # rows in one transaction, so that others never wait long
_CHANGED_SHOWN = 20
_MTIME_TOLERANCE_NS = 2_000_000_000  # FAT stores times in steps of two seconds

_ROW = (
    "SELECT r.id, r.number, r.file, r.certification_id, r.email, r.valid_from, r.valid_until, r.conversion_id,"
    " r.state, r.reason, r.certificate, r.extra, r.claim, r.size, k.springest_id, k.sent_at, k.given_up_at"
    " FROM manifest_rows AS r LEFT JOIN certificates AS k ON k.id = r.certificate"
)


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


@frozen(kw_only=True)
class Source:
    """A manifest on this machine, and the host that it is for.

    Attributes:
        origin: the host.
        sha256: of the manifest's bytes.
        path: the real path of the manifest.
        folder: what the files' paths are relative to.
        machine: the name of this machine.
    """

    origin: str
    sha256: bytes
    path: Path
    folder: Path
    machine: str

    @property
    def shown_path(self) -> str:
        """The path as text that a database can store."""
        return storable(os.fsencode(self.path).decode(errors="backslashreplace"))

    @property
    def shown_name(self) -> str:
        """The name of the manifest as text that a database can store."""
        return storable(os.fsencode(self.path.name).decode(errors="backslashreplace"))


def find(connection: Connection, source: Source) -> int | None:
    """Return the key of the migration that this manifest belongs to, if there is one."""
    found = connection.execute(
        "SELECT id FROM migrations WHERE manifest = ? AND origin = ? ORDER BY id LIMIT 1",
        (source.sha256, source.origin),
    ) or connection.execute(
        "SELECT id FROM migrations WHERE origin = ? AND machine = ? AND path = ? ORDER BY id DESC LIMIT 1",
        (source.origin, source.machine, source.shown_path),
    )
    return found[0][0] if found else None


def look_up(connection: Connection, sha256: bytes | None, machine: str, path: Path) -> list[tuple[int, str]]:
    """Return the migrations of a manifest, whatever host they are for, and their hosts.

    It is found by its content, else by its path, and when the file is gone (`sha256` is None) by its name, too.
    """
    source = Source(origin="", sha256=sha256 or b"", path=path, folder=path.parent, machine=machine)
    newest = "SELECT id, origin FROM migrations WHERE id IN (SELECT max(id) FROM migrations WHERE {} GROUP BY origin)"
    found = sha256 and connection.execute(newest.format("manifest = ?"), (sha256,))
    found = found or connection.execute(newest.format("machine = ? AND path = ?"), (machine, source.shown_path))
    if not found and sha256 is None:
        found = connection.execute(newest.format("name = ?"), (source.shown_name,))
    return [(id_, origin) for id_, origin in found]


def load_of(connection: Connection, migration: int) -> int:
    """Return the key of the load of a migration that counts.

    Raises:
        JournalError: the migration was erased since its key was read, as while this worker was asleep.
    """
    found = connection.execute("SELECT load FROM migrations WHERE id = ?", (migration,))
    if not found:
        raise JournalError(
            "the journal", "this manifest was erased from it meanwhile (springest journal forget): nothing more is sent"
        )
    return int(found[0][0])


# --- loading ---


def load(connection: Connection, source: Source, rows: Iterable[ManifestRow], worker: str) -> Loaded:
    """Load a manifest that has passed the preflight, in several transactions.

    Rows of the migration that are no longer in the manifest are removed; their certificates stay. Failed rows wait
    again. Nothing of it is visible before the last transaction; the next load removes what a killed process leaves.

    Args:
        connection: one of its own, because this takes long.
        source: the manifest.
        rows: its rows.
        worker: the worker that loads it.
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
        forget_changed_files(connection, current, source)
        known = _attach_known_files(connection, current, source)
        with connection.transaction():
            now = _known(connection, source)
            if now == before:
                if current == own:
                    _check_load(connection, own, source, worker)
                migration = _switch(connection, before.migration, current, source)
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
    ((load, manifest),) = connection.execute("SELECT load, manifest FROM migrations WHERE id = ?", (migration,))
    return _Known(migration, load, manifest == source.sha256)


_INSERT = (
    "INSERT INTO manifest_rows (load, number, file, copy, fields, lookalike, certification_id, email, valid_from,"
    " valid_until, conversion_id, extra) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def _insert(connection: Connection, source: Source, rows: Iterable[ManifestRow], worker: str) -> int:
    """Insert the rows of a manifest as a new load, and return its key."""
    with connection.transaction():
        ((current,),) = connection.execute("INSERT INTO loads (worker) VALUES (?) RETURNING id", (worker,))
    remaining = iter(rows)
    while batch := [
        (
            current,
            row.number,
            storable(row.file),
            1,  # its copy; with only values, PostgreSQL takes a tenth of the time
            row_fields(row, source.origin, row.file),
            lookalike(row, source.origin),
            row.certification_id,
            row.email,
            row.valid_from.isoformat(),
            row.valid_until and row.valid_until.isoformat(),
            row.conversion_id,
            json.dumps(dict(row.extra)) if row.extra else None,
        )
        for row in islice(remaining, _BATCH)
    ]:
        with connection.transaction():
            _check_load(connection, current, source, worker)
            connection.executemany(_INSERT, batch)
    with connection.transaction():
        _number_copies(connection, current)
    return int(current)


def _check_load(connection: Connection, load: int, source: Source, worker: str) -> None:
    """Check that nobody has begun to remove a load, as that of a worker that seemed dead."""
    if not connection.execute("SELECT 1 FROM loads WHERE id = ? AND worker = ?", (load, worker)):
        raise JournalError(
            source.path, "this program was stopped or asleep while it loaded this manifest: run the same command again"
        )


def _number_copies(connection: Connection, current: int) -> None:
    # The preflight reports rows with the same file and fields. They have one certificate, and each gets its outcome.
    connection.execute(
        "UPDATE manifest_rows SET copy = ranked.copy FROM (SELECT id, row_number() OVER (PARTITION BY fields"
        " ORDER BY number) AS copy FROM manifest_rows WHERE load = ?) AS ranked"
        " WHERE ranked.id = manifest_rows.id AND ranked.copy > 1",
        (current,),
    )


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


def forget_changed_files(connection: Connection, load: int, source: Source) -> None:
    """Put rows back to waiting whose file in this folder is not the one of their certificate.

    Their content decides when their turn comes. A file that is gone may have been moved away since it was uploaded.
    """
    after = 0
    while True:
        with connection.snapshot():
            lines = _attached(connection, load, after)
        if not lines:
            return
        after = lines[-1][0]
        changed = [(row,) for row, file, *known in lines if _is_another(source.folder / file, *known)]
        if changed:
            with connection.transaction():
                connection.executemany(
                    "UPDATE manifest_rows SET certificate = NULL, state = 'waiting', reason = ''"
                    " WHERE id = ? AND state <> 'sending'",
                    changed,
                )


def claim_changed_files(
    connection: Connection, migration: int, source: Source, *, worker: str, claim: str, limit: int, after: int
) -> list[Entry]:
    """Claim rows that another worker has sent with a file that is not the one in this folder, and return them.

    They are this worker's at once: two that wait for such rows would take each from the other for ever. A row whose
    file here is settled as another certificate is left alone.

    Args:
        connection: one of its own.
        migration: the migration.
        source: its manifest on this machine.
        worker: the worker that claims them.
        claim: the name of the claim.
        limit: how many rows at most.
        after: the key of a row; only later ones are looked at.
    """
    with connection.snapshot():
        load = load_of(connection, migration)
    while True:
        changed: list[int] = []
        with connection.snapshot():
            lines = _attached(connection, load, after)
            if not lines:
                return []
            for row, file, size, modified_ns, *values in lines:
                after = row
                if _is_another(path := source.folder / file, size, modified_ns) and not _is_settled_here(
                    connection, source, _fields(*values), path
                ):
                    changed.append(row)
                if len(changed) == limit:
                    break
        if changed:
            with connection.transaction():
                connection.executemany(
                    "UPDATE manifest_rows SET certificate = NULL, state = 'waiting', reason = '', claim = ?, worker = ?"
                    " WHERE id = ? AND certificate IS NOT NULL AND state <> 'sending'",
                    [(claim, worker, row) for row in changed],
                )
                lines = connection.execute(
                    f"{_ROW} WHERE r.worker = ? AND r.claim = ? ORDER BY r.number", (worker, claim)
                )
            if lines:
                return [_entry(line, source) for line in lines]


def _attached(connection: Connection, load: int, after: int) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT id, file, size, modified_ns, certification_id, email, valid_from, valid_until, conversion_id"
        " FROM manifest_rows WHERE load = ? AND certificate IS NOT NULL AND state <> 'sending' AND id > ?"
        " ORDER BY id LIMIT ?",
        (load, after, _BATCH),
    )


def _is_another(path: Path, size: int | None, modified_ns: int | None, *_: object) -> bool:
    return (found := _stat(path)) is not None and not _is_same(found, size, modified_ns)


def _is_settled_here(connection: Connection, source: Source, fields: CertificateFields, path: Path) -> bool:
    """Return whether the certificate of a row with this file is being sent, or will not be sent again."""
    if (found := _stat(path)) is None:
        return True
    sha256 = known_hash(connection, source.machine, path, found.st_size, found.st_mtime_ns)
    return sha256 is not None and bool(
        connection.execute(
            "SELECT 1 FROM certificates WHERE identity = ? AND state IN ('stored', 'rejected', 'in doubt', 'sending')",
            (identity(fields, source.origin, sha256),),
        )
    )


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
                if (found := _stat(path := source.folder / file)) is None:
                    continue
                sha256 = known_hash(connection, source.machine, path, found.st_size, found.st_mtime_ns)
                if sha256 is None:
                    continue
                digest = identity(_fields(*values), source.origin, sha256)
                for certificate, state in connection.execute(
                    "SELECT id, state FROM certificates WHERE identity = ?", (digest,)
                ):
                    modified_ns = _storable_time(found.st_mtime_ns)
                    known.append((certificate, found.st_size, modified_ns, certificate, certificate, row))
                    count += state == State.STORED.value
        if known:
            with connection.transaction():
                connection.executemany(
                    "UPDATE manifest_rows SET certificate = ?, size = ?, modified_ns = ?, state = (SELECT state"
                    " FROM certificates WHERE id = ?), reason = (SELECT reason FROM certificates WHERE id = ?)"
                    " WHERE id = ? AND claim IS NULL",
                    known,
                )


def _switch(connection: Connection, migration: int | None, load: int, source: Source) -> int:
    """Make this load the one that counts; return the key of the migration."""
    now = microseconds(datetime.now(UTC))
    values = (source.sha256, source.machine, source.shown_path, source.shown_name, load, now, now)
    if migration is None:
        ((migration,),) = connection.execute(
            "INSERT INTO migrations (manifest, machine, path, name, load, loaded_at, moved_at, origin)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
            (*values, source.origin),
        )
    else:
        connection.execute(
            "UPDATE migrations SET manifest = ?, machine = ?, path = ?, name = ?, load = ?, loaded_at = ?,"
            " moved_at = ? WHERE id = ?",
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


# --- hashes of files ---


def known_hash(connection: Connection, machine: str, path: Path, size: int, modified_ns: int) -> bytes | None:
    """Return the SHA-256 of the whole file when it had this size (bytes) and time (ns), if it is known."""
    lines = connection.execute(
        "SELECT sha256 FROM file_hashes WHERE place = ? AND size = ? AND modified_ns = ?",
        (_place(machine, path), size, _storable_time(modified_ns)),
    )
    return lines[0][0] if lines else None


def remember_hash(connection: Connection, machine: str, path: Path, size: int, modified_ns: int, sha256: bytes) -> None:
    """Remember the SHA-256 of a whole file with this size (bytes) and time (ns), so that it is read only once."""
    connection.execute(
        "INSERT INTO file_hashes (place, size, modified_ns, sha256) VALUES (?, ?, ?, ?) ON CONFLICT (place) DO UPDATE"
        " SET size = excluded.size, modified_ns = excluded.modified_ns, sha256 = excluded.sha256",
        (_place(machine, path), size, _storable_time(modified_ns), sha256),
    )


def is_settled(
    connection: Connection, source: Source, migration: int | None, fields: CertificateFields, file: str
) -> bool:
    """Return whether a row's file need not be checked, because its certificate will not be sent again.

    That is so when the certificate is stored, rejected or in doubt, and the file is unchanged or was moved away.
    """
    found = _stat(path := source.folder / file)
    if found is not None:
        sha256 = known_hash(connection, source.machine, path, found.st_size, found.st_mtime_ns)
        if sha256 is not None:
            lines = connection.execute(
                "SELECT 1 FROM certificates WHERE identity = ? AND state IN ('stored', 'rejected', 'in doubt')",
                (identity(fields, source.origin, sha256),),
            )
            return bool(lines)
    if migration is None:
        return False
    lines = connection.execute(
        "SELECT size, modified_ns FROM manifest_rows WHERE fields = ? AND state IN ('stored', 'rejected', 'in doubt')"
        " AND certificate IS NOT NULL AND load = (SELECT load FROM migrations WHERE id = ?)",
        (row_fields(fields, source.origin, file), migration),
    )
    return any(found is None or _is_same(found, *line) for line in lines)


def _place(machine: str, path: Path) -> bytes:
    return place(machine, os.fsencode(os.path.abspath(path)))  # noqa: PTH100 (Path.absolute keeps "..")


def _stat(path: Path) -> os.stat_result | None:
    with suppress(OSError, ValueError):  # ValueError: a NUL in the path
        return path.stat()
    return None


def _is_same(found: os.stat_result, size: int | None, modified_ns: int | None) -> bool:
    if size is None or modified_ns is None:
        return False
    return found.st_size == size and abs(_storable_time(found.st_mtime_ns) - modified_ns) <= _MTIME_TOLERANCE_NS


def _storable_time(nanoseconds: int) -> int:
    """Return a file's time in 64 bits: from 1677 to 2262 as it is, and others, such as NTFS's 1601, turned over."""
    return (nanoseconds + 2**63) % 2**64 - 2**63


@frozen
class _Fields:
    certification_id: int
    email: str
    valid_from: date
    valid_until: date | None
    conversion_id: int | None


def _fields(
    certification_id: int, email: str, valid_from: str, valid_until: str | None, conversion_id: int | None
) -> _Fields:
    until = date.fromisoformat(valid_until) if valid_until else None
    return _Fields(certification_id, email, date.fromisoformat(valid_from), until, conversion_id)


# --- the turn of a row ---


def claim_rows(
    connection: Connection, migration: int, source: Source, *, worker: str, claim: str, limit: int
) -> list[Entry]:
    """Claim the first rows that wait for anybody, and return them.

    It runs again when the answer to its commit was lost, and returns the same rows then.
    """
    if not connection.execute("SELECT 1 FROM manifest_rows WHERE worker = ? AND claim = ? LIMIT 1", (worker, claim)):
        connection.execute(
            "UPDATE manifest_rows SET worker = ?, claim = ? WHERE id IN (SELECT r.id FROM manifest_rows AS r"
            " LEFT JOIN certificates AS k ON k.id = r.certificate WHERE r.load = ? AND r.state = 'waiting'"
            " AND r.claim IS NULL AND k.claim IS NULL AND NOT EXISTS (SELECT 1 FROM unreadable_files AS u"
            " WHERE u.manifest_row = r.id AND u.machine = ?) ORDER BY r.number LIMIT ?)",
            (worker, claim, load_of(connection, migration), source.machine, limit),
        )
    lines = connection.execute(f"{_ROW} WHERE r.worker = ? AND r.claim = ? ORDER BY r.number", (worker, claim))
    return [_entry(line, source) for line in lines]


def has_unfinished(connection: Connection, migration: int, source: Source, *, hopeless: Collection[int]) -> bool:
    """Return whether anything is left to wait for: rows that other workers have, and doubts that can be settled.

    `hopeless` has the keys of the certificates whose doubt nobody can settle at the moment.
    """
    load = load_of(connection, migration)
    if connection.execute(
        "SELECT 1 FROM manifest_rows WHERE load = ? AND state IN ('waiting', 'sending') LIMIT 1", (load,)
    ):
        return True
    return any(certificate not in hopeless for certificate, _ in _doubts(connection, source.origin, load))


def _doubts(connection: Connection, origin: str, load: int) -> list[tuple[int, bytes]]:
    """Return the keys and look-alike digests of the doubts that this load of a manifest names, or none does."""
    lines = connection.execute(
        "SELECT k.id, k.lookalike FROM certificates AS k WHERE k.origin = ? AND k.state = 'in doubt'"
        " AND (EXISTS (SELECT 1 FROM manifest_rows AS r WHERE r.certificate = k.id AND r.load = ?)"
        " OR NOT EXISTS (SELECT 1 FROM manifest_rows AS r WHERE r.certificate = k.id)) ORDER BY k.given_up, k.id",
        (origin, load),
    )
    return [(certificate, lookalike) for certificate, lookalike in lines]


def claim_doubt(
    connection: Connection, migration: int, source: Source, *, claim: str, worker: str, hopeless: Collection[int]
) -> tuple[Entry, KnownCertificate] | None:
    """Return a certificate in doubt that this worker is to settle, and its row, if there is one that nobody settles."""
    load = load_of(connection, migration)
    for certificate, _ in _doubts(connection, source.origin, load):
        if certificate in hopeless:
            continue
        if known := certificates.claim_doubt(connection, certificate, claim=claim, worker=worker):
            lines = connection.execute(
                f"{_ROW} WHERE r.certificate = ? AND r.load = ? ORDER BY r.number LIMIT 1", (certificate, load)
            )
            return (_entry(lines[0], source) if lines else _orphan(known, source)), known
    return None


def _orphan(known: KnownCertificate, source: Source) -> Entry:
    return Entry(
        id=-known.id,
        number=None,
        file="",
        path=source.folder,
        certification_id=known.certification_id,
        email=known.email,
        valid_from=known.valid_from,
        valid_until=known.valid_until,
        conversion_id=known.conversion_id,
        origin=known.origin,
        state=known.state,
        certificate=known.id,
        springest_id=known.springest_id,
        reason=known.reason,
        sent_at=known.sent_at,
        given_up_at=known.given_up_at,
    )


def has_other_workers(connection: Connection, migration: int, worker: str) -> bool:
    """Return whether other workers work on the migration now."""
    return bool(
        connection.execute("SELECT 1 FROM workers WHERE migration = ? AND id <> ? LIMIT 1", (migration, worker))
    )


def hosts(connection: Connection, migration: int, *, without: str = "") -> tuple[str, ...]:
    """Return the machines that work on the migration now, apart from one worker, each once for each of its workers."""
    lines = connection.execute(
        "SELECT host FROM workers WHERE migration = ? AND id <> ? AND lease_until >= ? ORDER BY host",
        (migration, without, connection.now()),
    )
    return tuple(host for (host,) in lines)


def identify(
    connection: Connection, entry: Entry, source: Source, *, worker: str, size: int, modified_ns: int, sha256: bytes
) -> KnownCertificate:
    """Record the certificate of a row that this worker has claimed; the claim is on the certificate from now on.

    The caller may send it if its `claim` is the row's, and else the row gets whatever becomes of it.

    Raises:
        ClaimLost: another worker has the row now.
    """
    if not connection.execute("SELECT 1 FROM manifest_rows WHERE id = ? AND claim = ?", (entry.id, entry.claim)):
        # It runs again when the answer to its commit was lost: then the row has given its claim to the certificate.
        lines = connection.execute(
            "SELECT k.id FROM manifest_rows AS r JOIN certificates AS k ON k.id = r.certificate"
            " WHERE r.id = ? AND k.claim = ?",
            (entry.id, claim_of(entry)),
        )
        if not lines:
            raise ClaimLost
        return certificates.read(connection, lines[0][0])
    known = certificates.claim(connection, entry, source.origin, sha256, claim=claim_of(entry), worker=worker)
    connection.execute(
        "UPDATE manifest_rows SET certificate = ?, state = ?, reason = ?, size = ?, modified_ns = ?, claim = NULL,"
        " worker = NULL WHERE id = ?",
        (known.id, known.state.value, known.reason, size, _storable_time(modified_ns), entry.id),
    )
    remember_hash(connection, source.machine, entry.path, size, modified_ns, sha256)
    return known


def claim_of(entry: Entry) -> str:
    """Return the name of the claim that a claimed row has on its certificate."""
    return f"{entry.claim}.{entry.id}"


def release(connection: Connection, entry: Entry, worker: str) -> None:
    """Release the claim of a row, or the one that it has on its certificate."""
    connection.execute(
        "UPDATE manifest_rows SET claim = NULL, worker = NULL WHERE id = ? AND claim = ?", (entry.id, entry.claim)
    )
    connection.execute(
        "UPDATE certificates SET claim = NULL, worker = NULL WHERE worker = ? AND claim = ?", (worker, claim_of(entry))
    )


def unreadable(connection: Connection, entry: Entry, migration: int, machine: str, host: str, reason: str) -> State:
    """Record that a row's file cannot be read on this machine; return WAITING if another worker may read it."""
    others = connection.execute(
        "SELECT 1 FROM workers AS w WHERE w.migration = ? AND w.machine <> ? AND NOT EXISTS (SELECT 1"
        " FROM unreadable_files AS u WHERE u.manifest_row = ? AND u.machine = w.machine) LIMIT 1",
        (migration, machine, entry.id),
    )
    state, words = (State.WAITING, f"not readable on {host}: {reason}") if others else (State.FAILED, reason)
    held = connection.execute(
        "UPDATE manifest_rows SET state = ?, reason = ?, claim = NULL, worker = NULL WHERE id = ? AND claim = ?"
        " RETURNING id",
        (state.value, storable(words), entry.id, entry.claim),
    )
    if held:  # else another worker has the row, or it is gone
        connection.execute(
            "INSERT INTO unreadable_files (manifest_row, machine, reason) VALUES (?, ?, ?)"
            " ON CONFLICT (manifest_row, machine) DO UPDATE SET reason = excluded.reason",
            (entry.id, machine, storable(reason)),
        )
    return state


def fail_unreadable(connection: Connection, migration: int) -> None:
    """Fail the rows that no living worker can read."""
    connection.execute(
        "UPDATE manifest_rows SET state = 'failed' WHERE load = ? AND state = 'waiting' AND claim IS NULL"
        " AND id IN (SELECT manifest_row FROM unreadable_files) AND NOT EXISTS (SELECT 1 FROM workers AS w"
        " WHERE w.migration = ? AND NOT EXISTS (SELECT 1 FROM unreadable_files AS u"
        " WHERE u.manifest_row = manifest_rows.id AND u.machine = w.machine))",
        (load_of(connection, migration), migration),
    )


# --- what became of it ---


def counts(connection: Connection, migration: int) -> Counter[State]:
    """Count the rows by state."""
    lines = connection.execute(
        "SELECT state, count(*) FROM manifest_rows WHERE load = ? GROUP BY state", (load_of(connection, migration),)
    )
    return Counter({State(state): count for state, count in lines})


def entries(
    connection: Connection, migration: int, source: Source, states: Collection[State], *, after: int, limit: int
) -> list[Entry]:
    """Return the next rows in these states after a row number, in the manifest's order."""
    marks = ", ".join("?" * len(states))
    lines = connection.execute(
        f"{_ROW} WHERE r.load = ? AND r.state IN ({marks}) AND r.number > ? ORDER BY r.number LIMIT ?",
        (load_of(connection, migration), *(state.value for state in states), after, limit),
    )
    return [_entry(line, source) for line in lines]


def orphans(connection: Connection, source: Source) -> list[Entry]:
    """Return the certificates in doubt at this host that no manifest names."""
    return [_orphan(known, source) for known in all_orphans(connection) if known.origin == source.origin]


def all_orphans(connection: Connection) -> list[KnownCertificate]:
    """Return the certificates in doubt that no manifest names, at all hosts."""
    lines = connection.execute(
        f"{certificates.CERTIFICATE} WHERE k.state = 'in doubt'"  # noqa: S608 # names of columns
        " AND NOT EXISTS (SELECT 1 FROM manifest_rows AS r WHERE r.certificate = k.id) ORDER BY k.id"
    )
    return [certificates.certificate_of(line) for line in lines]


def resolve(
    connection: Connection, migration: int, source: Source, numbers: Collection[int] | None, state: State
) -> int:
    """Record a person's word on rows in doubt; see `OpenMigration.resolve`."""
    sent_again = numbers is not None and state is State.WAITING
    found: list[tuple[int | None, int]] = [
        (number, certificate)
        for number, certificate in connection.execute(
            "SELECT number, certificate FROM manifest_rows WHERE load = ? AND state IN ('in doubt', ?)",
            (load_of(connection, migration), "rejected" if sent_again else "in doubt"),
        )
    ]
    if numbers is None:
        found += [(None, -entry.id) for entry in orphans(connection, source)]
    else:
        if wrong := sorted(set(numbers) - {number for number, _ in found}):
            rows = ", ".join(map(str, wrong))
            raise ConfigurationError(f"not in doubt: row {rows} of the manifest. Nothing was changed.")
        found = [(number, certificate) for number, certificate in found if number in numbers]
    certificates.resolve(connection, {certificate for _, certificate in found}, state)
    return len(found)


def all_migrations(connection: Connection) -> list[Migration]:
    """Return all migrations, the one that moved last first."""
    found: dict[int, Counter[str]] = {}
    for load, state, count in connection.execute(
        "SELECT load, state, count(*) FROM manifest_rows GROUP BY load, state"
    ):
        found.setdefault(load, Counter())[state] = count
    migrations = []
    for id_, name, path, origin, load, moved_at in connection.execute(
        "SELECT id, name, path, origin, load, moved_at FROM migrations ORDER BY moved_at DESC, id DESC"
    ):
        states = found.get(load, Counter())
        at = moment(moved_at)
        assert at is not None
        migrations.append(
            Migration(
                id=id_,
                name=name,
                path=path,
                origin=origin,
                stored=states[State.STORED.value],
                rows=states.total(),
                moved_at=at,
                workers=hosts(connection, id_),
            )
        )
    return migrations


def _entry(line: tuple[Any, ...], source: Source) -> Entry:
    id_, number, file, certification_id, email, valid_from, valid_until, conversion_id, *rest = line
    state, reason, certificate, extra, claim, size, springest_id, sent_at, given_up_at = rest
    return Entry(
        id=id_,
        number=number,
        file=file,
        path=source.folder / file,
        certification_id=certification_id,
        email=email,
        valid_from=date.fromisoformat(valid_from),
        valid_until=date.fromisoformat(valid_until) if valid_until else None,
        conversion_id=conversion_id,
        origin=source.origin,
        state=State(state),
        certificate=certificate,
        springest_id=springest_id,
        reason=reason,
        sent_at=moment(sent_at),
        given_up_at=moment(given_up_at),
        extra=json.loads(extra) if extra else {},
        claim=claim,
        changed=certificate is None and size is not None,
    )
