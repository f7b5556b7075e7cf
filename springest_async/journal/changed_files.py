"""Rows whose file in this folder is not the one of their certificate: their content decides when their turn comes."""

from pathlib import Path
from typing import Any

from springest_async.journal import file_hashes
from springest_async.journal.engine import Connection
from springest_async.journal.identity import CertificateFields, identity
from springest_async.journal.manifest_rows import claimed, fields_of
from springest_async.journal.migrations import Source, load_of
from springest_async.journal.records import Entry

_BATCH = 10_000  # rows in one transaction, so that others never wait long


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
        changed = [(row,) for row, file, *known in lines if _is_another(source.path_of(file), *known)]
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
                if _is_another(path := source.path_of(file), size, modified_ns) and not _is_settled_here(
                    connection, source, fields_of(*values), path
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
                rows = claimed(connection, source, worker=worker, claim=claim)
            if rows:
                return rows


def _attached(connection: Connection, load: int, after: int) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT id, file, size, modified_ns, certification_id, email, valid_from, valid_until, conversion_id"
        " FROM manifest_rows WHERE load = ? AND certificate IS NOT NULL AND state <> 'sending' AND id > ?"
        " ORDER BY id LIMIT ?",
        (load, after, _BATCH),
    )


def _is_another(path: Path, size: int | None, modified_ns: int | None, *_: object) -> bool:
    return (found := file_hashes.look_at(path)) is not None and not file_hashes.is_same(found, size, modified_ns)


def _is_settled_here(connection: Connection, source: Source, fields: CertificateFields, path: Path) -> bool:
    """Return whether the certificate of a row with this file is being sent, or will not be sent again."""
    if (found := file_hashes.look_at(path)) is None:
        return True
    sha256 = file_hashes.known_hash(connection, source.machine, path, found.size, found.modified_ns)
    return sha256 is not None and bool(
        connection.execute(
            "SELECT 1 FROM certificates WHERE identity = ? AND state IN ('stored', 'rejected', 'in doubt', 'sending')",
            (identity(fields, source.origin, sha256),),
        )
    )
