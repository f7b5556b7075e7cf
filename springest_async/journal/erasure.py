"""Erase what identifies people, and say how much a journal holds.

Email addresses, paths, names of manifests and files, other cells of a manifest, what a server said, hashes of files and
the digests by which certificates look alike are removed. The identity, the state and Springest's id of a certificate
stay, so that it is never sent again: they are pseudonymous. Each function runs in the caller's transaction; what was
deleted stays on the disk until `Connection.erase`.
"""

import unicodedata
from collections.abc import Sequence
from datetime import datetime

from attrs import frozen

from springest_async.errors import ConfigurationError
from springest_async.journal.certificates import microseconds, moment
from springest_async.journal.engine import Connection

_UNFINISHED = "('waiting', 'sending', 'in doubt')"
_AT_ONCE = 500  # values in one statement


@frozen(kw_only=True)
class Forgotten:
    """What was erased.

    Attributes:
        migrations: how many migrations.
        certificates: how many certificates.
        kept: the names of the migrations that are old enough, and were kept because they are not finished.
        doubts: how many certificates of no manifest were kept because they are in doubt.
    """

    migrations: int = 0
    certificates: int = 0
    kept: tuple[str, ...] = ()
    doubts: int = 0


@frozen(kw_only=True)
class Info:
    """How much a journal holds.

    Attributes:
        size: its bytes on the disk.
        certificates: how many it knows, those of which everything personal was erased included.
        migrations: how many manifests were loaded, each for a host.
        oldest: when the first of its certificates was sent (UTC); None if none was.
    """

    size: int
    certificates: int
    migrations: int
    oldest: datetime | None


def info(connection: Connection) -> Info:
    """Return how much the journal holds."""
    ((certificates,),) = connection.execute("SELECT count(*) FROM certificates")
    ((migrations,),) = connection.execute("SELECT count(*) FROM migrations")
    ((oldest,),) = connection.execute("SELECT min(sent_at) FROM attempts")
    return Info(size=connection.size(), certificates=certificates, migrations=migrations, oldest=moment(oldest))


def forget_migration(connection: Connection, migration: int) -> Forgotten:
    """Erase a migration, and its certificates but those that other manifests name.

    Raises:
        ConfigurationError: it is not finished. Nothing is erased then.
    """
    if reason := _unfinished(connection, migration):
        raise ConfigurationError(f"{reason}. Nothing was erased.")
    certificates = _remove_migration(connection, migration)
    _forget_files(connection)
    return Forgotten(migrations=1, certificates=_erase(connection, certificates))


def forget_older(connection: Connection, before: datetime) -> Forgotten:
    """Erase the migrations in which nothing has moved since a moment, and the certificates of no manifest likewise.

    What is not finished is kept, and named in the result.
    """
    at = microseconds(before)
    forgotten, kept = 0, []
    certificates: list[int] = []
    for migration, name in connection.execute("SELECT id, name FROM migrations WHERE moved_at < ? ORDER BY id", (at,)):
        if _unfinished(connection, migration):
            kept.append(name)
        else:
            certificates += _remove_migration(connection, migration)
            forgotten += 1
    without_manifest = (
        " WHERE claim IS NULL AND coalesce(answered_at, sent_at, 0) < ? AND NOT EXISTS"
        " (SELECT 1 FROM manifest_rows AS r WHERE r.certificate = certificates.id)"
    )
    lines = connection.execute(
        f"SELECT id FROM certificates{without_manifest} AND email IS NOT NULL"  # noqa: S608
        " AND state IN ('stored', 'rejected', 'failed', 'waiting')",
        (at,),
    )
    certificates += [certificate for (certificate,) in lines]
    ((doubts,),) = connection.execute(
        f"SELECT count(*) FROM certificates{without_manifest} AND state = 'in doubt'",  # noqa: S608
        (at,),
    )
    erased = _erase(connection, sorted(set(certificates)))
    if forgotten or erased:
        _forget_files(connection)
    return Forgotten(migrations=forgotten, certificates=erased, kept=tuple(kept), doubts=doubts)


def forget_email(connection: Connection, email: str) -> Forgotten:
    """Erase everything about a person, in all migrations.

    Raises:
        ConfigurationError: something of that person waits, is being sent, or is in doubt. Nothing is erased then.
    """
    wanted = _canonical(email)
    spellings = [
        spelling
        for (spelling,) in connection.execute("SELECT email FROM certificates UNION SELECT email FROM manifest_rows")
        if spelling is not None and _canonical(spelling) == wanted
    ]
    certificates: list[int] = []
    for spelling in spellings:
        for table in ("manifest_rows", "certificates"):
            if connection.execute(
                f"SELECT 1 FROM {table} WHERE email = ? AND state IN {_UNFINISHED} LIMIT 1",  # noqa: S608
                (spelling,),
            ):
                raise ConfigurationError(
                    f"a certificate of {email} waits, is being sent, or is in doubt: finish that first, with springest"
                    " upload or springest resolve. Nothing was erased."
                )
        connection.execute(
            "DELETE FROM unreadable_files WHERE manifest_row IN (SELECT id FROM manifest_rows WHERE email = ?)",
            (spelling,),
        )
        connection.execute("DELETE FROM manifest_rows WHERE email = ?", (spelling,))
        certificates += [
            certificate
            for (certificate,) in connection.execute("SELECT id FROM certificates WHERE email = ?", (spelling,))
        ]
    if spellings:
        _forget_files(connection)
    return Forgotten(certificates=_erase(connection, certificates))


def _unfinished(connection: Connection, migration: int) -> str:
    """Return why a migration is not finished; empty if it is."""
    found = connection.execute("SELECT name, load FROM migrations WHERE id = ?", (migration,))
    if not found:
        return "it was erased already"
    ((name, load),) = found
    if connection.execute("SELECT 1 FROM workers WHERE migration = ? LIMIT 1", (migration,)):
        return f"a run works on {name}: wait for it, or stop it"
    ((count,),) = connection.execute(
        f"SELECT count(*) FROM manifest_rows WHERE load = ? AND state IN {_UNFINISHED}",  # noqa: S608
        (load,),
    )
    if not count:
        return ""
    rows = "1 row waits or is" if count == 1 else f"{count} rows wait or are"
    return f"{rows} in doubt in {name}: finish it first, with springest upload or springest resolve"


def _remove_migration(connection: Connection, migration: int) -> list[int]:
    """Remove a migration and its rows; return the keys of their certificates."""
    ((load,),) = connection.execute("SELECT load FROM migrations WHERE id = ?", (migration,))
    certificates = connection.execute(
        "SELECT DISTINCT certificate FROM manifest_rows WHERE load = ? AND certificate IS NOT NULL", (load,)
    )
    connection.execute(
        "DELETE FROM unreadable_files WHERE manifest_row IN (SELECT id FROM manifest_rows WHERE load = ?)", (load,)
    )
    connection.execute("DELETE FROM manifest_rows WHERE load = ?", (load,))
    connection.execute("DELETE FROM migrations WHERE id = ?", (migration,))
    connection.execute("DELETE FROM loads WHERE id = ?", (load,))
    return [certificate for (certificate,) in certificates]


def _forget_files(connection: Connection) -> None:
    # No file can be told from its line, and a file that is needed again is only read once more.
    connection.execute("DELETE FROM file_hashes")


def _erase(connection: Connection, certificates: Sequence[int]) -> int:
    """Erase what identifies people in certificates that no manifest names; return how many these are."""
    erased = 0
    for start in range(0, len(certificates), _AT_ONCE):
        some = certificates[start : start + _AT_ONCE]
        marks = ", ".join("?" * len(some))
        lines = connection.execute(
            "UPDATE certificates SET email = NULL, lookalike = NULL, reason = '' WHERE claim IS NULL"  # noqa: S608
            f" AND state NOT IN ('sending', 'in doubt') AND id IN ({marks}) AND NOT EXISTS"
            " (SELECT 1 FROM manifest_rows AS r WHERE r.certificate = certificates.id) RETURNING id",
            some,
        )
        gone = [certificate for (certificate,) in lines]
        erased += len(gone)
        if gone:
            marks = ", ".join("?" * len(gone))
            connection.execute(f"UPDATE attempts SET words = '' WHERE certificate IN ({marks})", gone)  # noqa: S608
    return erased


def _canonical(email: str) -> str:
    return unicodedata.normalize("NFC", email.strip().casefold())
