"""The rows of a migration: whose turn it is, and what became of them."""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import date
from typing import Any

from attrs import frozen

from springest_async.errors import ConfigurationError
from springest_async.journal import certificates, file_hashes
from springest_async.journal.certificates import ClaimLost, moment, storable
from springest_async.journal.engine import Connection
from springest_async.journal.identity import CertificateFields
from springest_async.journal.migrations import Source, load_of
from springest_async.journal.records import Entry, FileHash, KnownCertificate, Reason, State

ROW = (
    "SELECT r.id, r.number, r.file, r.certification_id, r.email, r.valid_from, r.valid_until, r.conversion_id,"
    " r.state, r.reason, r.certificate, r.extra, r.claim, r.size, k.springest_id, k.sent_at, k.given_up_at, k.attempt"
    " FROM manifest_rows AS r LEFT JOIN certificates AS k ON k.id = r.certificate"
)
"""The SQL that reads what an `Entry` needs."""


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
    return claimed(connection, source, worker=worker, claim=claim)


def claimed(connection: Connection, source: Source, *, worker: str, claim: str) -> list[Entry]:
    """Return the rows that a worker has under this claim, with what this machine knows of their files."""
    lines = connection.execute(f"{ROW} WHERE r.worker = ? AND r.claim = ? ORDER BY r.number", (worker, claim))
    if not lines:
        return []
    paths = [source.path_of(line[2]) for line in lines]
    known = file_hashes.known_hashes(connection, source.machine, paths)
    return [entry_of(line, source, known.get(path)) for line, path in zip(lines, paths, strict=True)]


def has_unfinished(connection: Connection, migration: int, source: Source, *, hopeless: Collection[int]) -> bool:
    """Return whether anything is left to wait for: rows that other workers have, and doubts that can be settled.

    `hopeless` has the keys of the certificates whose doubt nobody can settle at the moment.
    """
    load = load_of(connection, migration)
    if connection.execute(
        "SELECT 1 FROM manifest_rows WHERE load = ? AND state IN ('waiting', 'sending') LIMIT 1", (load,)
    ):
        return True
    return any(certificate not in hopeless for certificate in _doubts(connection, source.origin, load))


def _doubts(connection: Connection, origin: str, load: int) -> list[int]:
    """Return the keys of the certificates in doubt that a row of this load has, or that no row has."""
    lines = connection.execute(
        "SELECT k.id FROM certificates AS k WHERE k.origin = ? AND k.state = 'in doubt'"
        " AND (EXISTS (SELECT 1 FROM manifest_rows AS r WHERE r.certificate = k.id AND r.load = ?)"
        " OR NOT EXISTS (SELECT 1 FROM manifest_rows AS r WHERE r.certificate = k.id)) ORDER BY k.given_up, k.id",
        (origin, load),
    )
    return [certificate for (certificate,) in lines]


def claim_doubt(
    connection: Connection, migration: int, source: Source, *, claim: str, worker: str, hopeless: Collection[int]
) -> tuple[Entry, KnownCertificate] | None:
    """Return a certificate in doubt that this worker is to settle, and its row, if there is one that nobody settles."""
    load = load_of(connection, migration)
    for certificate in _doubts(connection, source.origin, load):
        if certificate in hopeless:
            continue
        if known := certificates.claim_doubt(connection, certificate, claim=claim, worker=worker):
            lines = connection.execute(
                f"{ROW} WHERE r.certificate = ? AND r.load = ? ORDER BY r.number LIMIT 1", (certificate, load)
            )
            return (entry_of(lines[0], source) if lines else _orphan(known, source)), known
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
        request_id=known.request_id,
    )


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
        (known.id, known.state.value, known.reason, size, file_hashes.storable_time(modified_ns), entry.id),
    )
    if entry.hashed != FileHash(size, file_hashes.storable_time(modified_ns), sha256):
        file_hashes.remember_hash(connection, source.machine, entry.path, size, modified_ns, sha256)
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


def counts(connection: Connection, migration: int) -> Counter[State]:
    """Count the rows by state."""
    lines = connection.execute(
        "SELECT state, count(*) FROM manifest_rows WHERE load = ? GROUP BY state", (load_of(connection, migration),)
    )
    return Counter({State(state): count for state, count in lines})


def reasons(connection: Connection, migration: int, limit: int) -> tuple[list[Reason], int]:
    """Return the most frequent reasons of rejected and failed rows, the first ones first, and how many there are."""
    lines = connection.execute(
        "SELECT state, said, count(*), count(*) OVER () FROM (SELECT state, replace(replace(reason, file, '…'), email,"
        " '…') AS said FROM manifest_rows WHERE load = ? AND state IN ('rejected', 'failed')) AS found"
        " GROUP BY state, said ORDER BY count(*) DESC, said LIMIT ?",
        (load_of(connection, migration), limit),
    )
    return [Reason(State(state), said, rows) for state, said, rows, _ in lines], lines[0][3] if lines else 0


def entries(
    connection: Connection, migration: int, source: Source, states: Collection[State], *, after: int, limit: int
) -> list[Entry]:
    """Return the next rows in these states after a row number, in the manifest's order."""
    marks = ", ".join("?" * len(states))
    lines = connection.execute(
        f"{ROW} WHERE r.load = ? AND r.state IN ({marks}) AND r.number > ? ORDER BY r.number LIMIT ?",
        (load_of(connection, migration), *(state.value for state in states), after, limit),
    )
    return [entry_of(line, source) for line in lines]


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
    connection: Connection,
    migration: int,
    source: Source,
    numbers: Collection[int] | None,
    state: State,
    *,
    requests: Mapping[int, str],
) -> int:
    """Record a person's word on rows in doubt; see `OpenMigration.resolve`."""
    sent_again = numbers is not None and state is State.WAITING
    found: list[tuple[int | None, int]] = []
    newer: list[int] = []
    for number, certificate, request_id in connection.execute(
        "SELECT r.number, r.certificate, coalesce(k.attempt, '') FROM manifest_rows AS r LEFT JOIN certificates AS k"
        " ON k.id = r.certificate WHERE r.load = ? AND r.state IN ('in doubt', ?)",
        (load_of(connection, migration), "rejected" if sent_again else "in doubt"),
    ):
        found.append((number, certificate))
        if requests.get(number, request_id) != request_id:
            newer.append(number)
    if numbers is None:
        found += [(None, -entry.id) for entry in orphans(connection, source)]
    else:
        if wrong := sorted(set(numbers) - {number for number, _ in found}):
            rows = ", ".join(map(str, wrong))
            raise ConfigurationError(f"not in doubt: row {rows} of the manifest. Nothing was changed.")
        if newer:
            rows = ", ".join(map(str, sorted(newer)))
            raise ConfigurationError(
                f"sent again since you looked: row {rows} of the manifest. Look it up once more, by the number of its"
                " new request. Nothing was changed."
            )
        found = [(number, certificate) for number, certificate in found if number in numbers]
    certificates.resolve(connection, {certificate for _, certificate in found}, state)
    return len(found)


def entry_of(line: tuple[Any, ...], source: Source, hashed: FileHash | None = None) -> Entry:
    """Return the record of a line that `ROW` read, and of what is known of its file."""
    id_, number, file, certification_id, email, valid_from, valid_until, conversion_id, *rest = line
    state, reason, certificate, extra, claim, size, springest_id, sent_at, given_up_at, attempt = rest
    return Entry(
        id=id_,
        number=number,
        file=file,
        path=source.path_of(file),
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
        request_id=attempt or "",
        extra=json.loads(extra) if extra else {},
        claim=claim,
        hashed=hashed,
        changed=certificate is None and size is not None,
    )


@frozen
class _Fields:
    certification_id: int
    email: str
    valid_from: date
    valid_until: date | None
    conversion_id: int | None


def fields_of(
    certification_id: int, email: str, valid_from: str, valid_until: str | None, conversion_id: int | None
) -> CertificateFields:
    """Return the fields of a certificate from the columns of a row."""
    until = date.fromisoformat(valid_until) if valid_until else None
    return _Fields(certification_id, email, date.fromisoformat(valid_from), until, conversion_id)
