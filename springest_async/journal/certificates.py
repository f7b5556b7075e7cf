"""The one state machine, on the certificate: claimed, sending, and what became of it.

Each function runs in the caller's transaction. Rows of manifests only mirror the state of their certificate, in the
same transaction. A worker that is dead or cut off loses what it had: what it was sending is in doubt, and what it had
only claimed waits again. Every write names the claim or the attempt that it belongs to, so a worker that lost it
changes nothing, except that a definite answer is accepted however late it comes.
"""

from collections.abc import Collection, Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import attrs

from springest_async.errors import ConfigurationError
from springest_async.journal.engine import Connection
from springest_async.journal.identity import CertificateFields, identity, lookalike
from springest_async.journal.records import Intent, KnownCertificate, Outcome, Siblings, State

SERVER_IDLE_SECONDS = 75.0
"""How long a server may keep a connection that a vanished worker had: nginx's ``keepalive_timeout``, the longest of the
common ones. Until then, it may still read what such a worker has sent."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_COLUMNS = (
    "k.id, k.origin, k.certification_id, k.email, k.valid_from, k.valid_until, k.conversion_id, k.state, k.reason,"
    " k.springest_id, k.claim, k.attempts, k.sent_at, k.answered_at, k.given_up_at, k.given_up, k.attempt"
)
CERTIFICATE = f"SELECT {_COLUMNS} FROM certificates AS k"  # noqa: S608 # names of columns
"""The SQL that reads what a `KnownCertificate` needs."""

LEFT = (
    "NOT (coalesce(a.outcome, '') = 'waiting' AND a.status IS NULL AND a.written_at IS NULL AND a.answered_at IS NULL"
    " AND a.counted_until IS NULL AND a.back_at = 0)"
)
"""The SQL that tells which attempts ``a`` may have left. The token of any other is back, and nothing was written."""


class ClaimLost(Exception):
    """Another worker has this certificate or row now. Nothing was changed, and nothing may be sent."""


def microseconds(at: datetime | None) -> int | None:
    """Return a time as the journal stores it, in microseconds since 1970."""
    return None if at is None else (at - _EPOCH) // timedelta(microseconds=1)


def moment(stored: int | None) -> datetime | None:
    """Return a stored time."""
    return None if stored is None else _EPOCH + timedelta(microseconds=stored)


def storable(words: str) -> str:
    """Return a text without what a database cannot store: halves of surrogate pairs, and NULs."""
    return words.encode(errors="backslashreplace").decode().replace("\0", "\\0")


def certificate_of(line: tuple[Any, ...]) -> KnownCertificate:
    """Return the record of a line that `CERTIFICATE` read."""
    id_, origin, certification_id, email, valid_from, valid_until, conversion_id, state, reason, *rest = line
    springest_id, claim, attempts, sent_at, answered_at, given_up_at, given_up, attempt = rest
    return KnownCertificate(
        id=id_,
        origin=origin,
        certification_id=certification_id or 0,
        email=email or "",
        valid_from=date.fromisoformat(valid_from) if valid_from else date.min,
        valid_until=date.fromisoformat(valid_until) if valid_until else None,
        conversion_id=conversion_id,
        state=State(state),
        reason=reason,
        springest_id=springest_id,
        claim=claim,
        attempts=attempts,
        sent_at=moment(sent_at),
        answered_at=moment(answered_at),
        given_up_at=moment(given_up_at),
        given_up=given_up,
        request_id=attempt or "",
    )


# --- who sends it ---


def claim(
    connection: Connection,
    certificate: CertificateFields,
    origin: str,
    sha256: bytes,
    *,
    claim: str,
    worker: str,
    send_again: bool = False,
) -> KnownCertificate:
    """Return the certificate, claimed if it waits and nobody else has it; it is new if the journal does not know it.

    A failed certificate waits again; with `send_again`, which is a person's word, a rejected one does too.

    Args:
        connection: in a transaction.
        certificate: its fields.
        origin: the host.
        sha256: the hash of the whole file.
        claim: the name of the claim.
        worker: the worker that makes it.
        send_again: whether a rejected certificate is to be sent again.
    """
    digest = identity(certificate, origin, sha256)
    fields = (
        lookalike(certificate, origin),
        certificate.certification_id,
        certificate.email,
        certificate.valid_from.isoformat(),
        certificate.valid_until and certificate.valid_until.isoformat(),
        certificate.conversion_id,
    )
    new = connection.execute(
        "INSERT INTO certificates (lookalike, certification_id, email, valid_from, valid_until, conversion_id,"
        " identity, origin, state, claim, worker) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'waiting', ?, ?)"
        " ON CONFLICT (identity) DO NOTHING RETURNING id",
        (*fields, digest, origin, claim, worker),
    )
    if new:
        return KnownCertificate(
            id=new[0][0],
            origin=origin,
            certification_id=certificate.certification_id,
            email=certificate.email,
            valid_from=certificate.valid_from,
            valid_until=certificate.valid_until,
            conversion_id=certificate.conversion_id,
            state=State.WAITING,
            claim=claim,
        )
    known = certificate_of(connection.execute(f"{CERTIFICATE} WHERE k.identity = ?", (digest,))[0])
    if known.state is State.FAILED or (send_again and known.state is State.REJECTED):
        _set_state(connection, known.id, State.WAITING)
    elif known.state is not State.WAITING or known.claim is not None:
        return known
    # It may have been erased since, and what is sent must be what is asked about later.
    connection.execute(
        "UPDATE certificates SET lookalike = ?, certification_id = ?, email = ?, valid_from = ?, valid_until = ?,"
        " conversion_id = ?, claim = ?, worker = ? WHERE id = ?",
        (*fields, claim, worker, known.id),
    )
    return read(connection, known.id)


def read(connection: Connection, certificate: int) -> KnownCertificate:
    """Return a certificate by its key."""
    return certificate_of(connection.execute(f"{CERTIFICATE} WHERE k.id = ?", (certificate,))[0])


def release(
    connection: Connection, certificate: int, claim: str, state: State = State.WAITING, reason: str = ""
) -> None:
    """Release a claim; the certificate is certainly not stored: it waits, has failed, or was rejected for good."""
    held = connection.execute(
        "UPDATE certificates SET claim = NULL, worker = NULL WHERE id = ? AND claim = ? RETURNING state",
        (certificate, claim),
    )
    if held == [(State.WAITING.value,)] and state is not State.WAITING:
        _set_state(connection, certificate, state, reason)


def retry(connection: Connection, certificate: int) -> None:
    """Put a failed certificate back to waiting."""
    if read(connection, certificate).state is State.FAILED:
        _set_state(connection, certificate, State.WAITING)


# --- a POST ---


def begin(
    connection: Connection,
    intent: Intent,
    *,
    worker: str,
    budget: str,
    counted_until: float,
    back_at: float,
    allowed: int | None = None,
) -> None:
    """Record that a POST is about to leave, the token that it took, and how many POSTs a period were agreed then.

    It runs again when the answer to its commit was lost; the attempt's name tells whether it was durable.

    Raises:
        ClaimLost: the certificate is not this sender's (any more).
    """
    now = microseconds(datetime.now(UTC))
    held = connection.execute(
        "UPDATE certificates SET state = 'sending', reason = '', attempt = ?, attempts = attempts + 1, sent_at = ?,"
        " answered_at = NULL, given_up_at = NULL, given_up = NULL WHERE id = ? AND claim = ? AND state = 'waiting'"
        " RETURNING id",
        (intent.id, now, intent.certificate, intent.claim),
    )
    if not held:
        if was_begun(connection, intent):
            return
        raise ClaimLost
    connection.check_space()
    connection.execute(
        "INSERT INTO attempts (id, certificate, budget, worker, counted_until, back_at, sent_at, sent, allowed)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (intent.id, intent.certificate, budget, worker, counted_until, back_at, now, connection.now(), allowed),
    )
    connection.execute("UPDATE manifest_rows SET state = 'sending', reason = '' WHERE certificate = ?", (held[0][0],))


def was_begun(connection: Connection, intent: Intent) -> bool:
    """Return whether this intent is recorded already.

    Raises:
        ClaimLost: it is, but another worker has taken over since. `end` with `Intent.unsent` says that nothing left.
    """
    found = connection.execute("SELECT outcome FROM attempts WHERE id = ?", (intent.id,))
    if found and found[0][0] is not None:
        raise ClaimLost
    return bool(found)


def end(connection: Connection, outcome: Outcome, *, back_at: float | None = None) -> bool:
    """Record what became of a POST, and return whether that was written; it is not when the POST has ended before.

    A definite answer counts also when another worker has taken over meanwhile.

    Args:
        connection: in a transaction.
        outcome: what became of it.
        back_at: when its token is back, if that is to be written too.
    """
    found = connection.execute(
        "SELECT k.id, k.attempt, k.state, a.outcome FROM attempts AS a JOIN certificates AS k ON k.id = a.certificate"
        " WHERE a.id = ?",
        (outcome.attempt,),
    )
    if not found:
        return False  # its intent was undone
    certificate, current, before, earlier = found[0]
    if earlier is not None and outcome.state is State.IN_DOUBT:
        return False  # it ended before
    token = () if back_at is None else (back_at,)
    connection.execute(
        "UPDATE attempts SET outcome = ?, written_at = ?, answered_at = ?, status = ?, server_date = ?, words = ?,"  # noqa: S608
        " server_request_id = ?" + (", counted_until = NULL, back_at = ?" if token else "") + " WHERE id = ?",
        (
            outcome.state.value,
            microseconds(outcome.written_at),
            microseconds(outcome.answered_at),
            outcome.status,
            storable(outcome.server_date),
            storable(outcome.words),
            storable(outcome.server_request_id),
            *token,
            outcome.attempt,
        ),
    )
    is_current = current == outcome.attempt
    if outcome.state is not State.STORED and not (is_current and State(before) in (State.SENDING, State.IN_DOUBT)):
        return True
    is_stored = outcome.state is State.STORED or _was_stored(connection, certificate)
    state, reason = (State.STORED, "") if is_stored else (outcome.state, outcome.reason)
    if not is_current and State(before) is State.SENDING:
        state = State.SENDING  # the POST that is under way ends as stored
    keeps_claim = state in (State.SENDING, State.WAITING)
    connection.execute(
        "UPDATE certificates SET state = ?, reason = ?, answered_at = ?, springest_id = coalesce(?, springest_id)"  # noqa: S608
        + ("" if keeps_claim else ", claim = NULL, worker = NULL")
        + " WHERE id = ?",
        (
            state.value,
            storable(reason),
            microseconds(outcome.answered_at),
            storable_id(outcome.springest_id),
            certificate,
        ),
    )
    if state is State.IN_DOUBT:
        _put_in_doubt(connection, certificate, reason, connection.now())
    elif state.value != before:
        _mirror(connection, certificate, state, reason)
    return True


def _was_stored(connection: Connection, certificate: int) -> bool:
    """Return whether any of its POSTs was stored; an answer may come when the next one is under way."""
    return bool(
        connection.execute(
            "SELECT 1 FROM attempts WHERE certificate = ? AND outcome = 'stored' LIMIT 1", (certificate,)
        )
    )


def _finish(connection: Connection, certificate: int, state: State, reason: str = "") -> None:
    connection.execute("UPDATE certificates SET claim = NULL, worker = NULL WHERE id = ?", (certificate,))
    _set_state(connection, certificate, state, reason)


def storable_id(springest_id: int | None) -> int | None:
    """Return an id if a database can store it: JSON numbers have any length, theirs have 64 bits."""
    return springest_id if springest_id is not None and abs(springest_id) < 2**63 else None


def _put_in_doubt(connection: Connection, certificate: int, reason: str, given_up: float) -> None:
    connection.execute(
        "UPDATE certificates SET given_up_at = ?, given_up = ? WHERE id = ?",
        (microseconds(datetime.now(UTC)), given_up, certificate),
    )
    _finish(connection, certificate, State.IN_DOUBT, reason)


def _set_state(connection: Connection, certificate: int, state: State, reason: str = "") -> None:
    """Change the state of a certificate and of all rows that name it."""
    connection.execute(
        "UPDATE certificates SET state = ?, reason = ? WHERE id = ?", (state.value, storable(reason), certificate)
    )
    _mirror(connection, certificate, state, reason)


def _mirror(connection: Connection, certificate: int, state: State, reason: str) -> None:
    """Copy the state of a certificate to all rows that name it; their migrations have moved."""
    connection.execute(
        "UPDATE manifest_rows SET state = ?, reason = ? WHERE certificate = ?",
        (state.value, storable(reason), certificate),
    )
    connection.execute(
        "UPDATE migrations SET moved_at = ? WHERE load IN (SELECT load FROM manifest_rows WHERE certificate = ?)",
        (microseconds(datetime.now(UTC)), certificate),
    )


# --- workers ---


def renew(
    connection: Connection, worker: str, machine: str, host: str, lease: float, migration: int | None = None
) -> None:
    """Extend a worker's lease by so many seconds from now, and take over what dead workers had."""
    take_over(connection)
    now = microseconds(datetime.now(UTC))
    connection.execute(
        "INSERT INTO workers (id, machine, host, migration, heartbeat_at, lease_until)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET migration = excluded.migration,"
        " heartbeat_at = excluded.heartbeat_at, lease_until = excluded.lease_until",
        (worker, machine, host, migration, now, connection.now() + lease),
    )
    if migration is not None:
        connection.execute("UPDATE migrations SET moved_at = ? WHERE id = ?", (now, migration))


def set_trouble(
    connection: Connection, worker: str, trouble: str, reason: str, since: float | None, again_at: float | None
) -> None:
    """Record what keeps a worker from sending, for other processes to show; times are on the journal's clock.

    Args:
        connection: in a transaction.
        worker: the worker.
        trouble: what it is; empty when it is over.
        reason: why.
        since: when it began.
        again_at: when the worker tries again; None while it does.
    """
    connection.execute(
        "UPDATE workers SET trouble = ?, reason = ?, trouble_since = ?, again_at = ? WHERE id = ?",
        (trouble, storable(reason), since, again_at, worker),
    )


def is_alive(connection: Connection, worker: str) -> bool:
    """Return whether nobody has taken over what this worker has."""
    return bool(connection.execute("SELECT 1 FROM workers WHERE id = ?", (worker,)))


def take_over(connection: Connection) -> None:
    """Put in doubt what dead workers were sending, and free what they had only claimed."""
    for worker, lease_until in connection.execute(
        "SELECT id, lease_until FROM workers WHERE lease_until < ?", (connection.now(),)
    ):
        # The worker sends nothing after its lease, but the server may still have what it sent before.
        _remove(connection, worker, given_up=lease_until + SERVER_IDLE_SECONDS)


def drop(connection: Connection, claim: str, worker: str) -> None:
    """Free what a worker has claimed under this name, because its caller was cancelled meanwhile."""
    for table in ("certificates", "manifest_rows"):
        connection.execute(
            f"UPDATE {table} SET claim = NULL, worker = NULL WHERE worker = ? AND claim = ?",  # noqa: S608
            (worker, claim),
        )
    connection.execute("DELETE FROM settlers WHERE worker = ? AND claim = ?", (worker, claim))


def leave(connection: Connection, worker: str) -> None:
    """Free everything that a worker has claimed, and forget the worker."""
    # Normally it sends nothing any more, but the outcome of a POST may have been impossible to write.
    _remove(connection, worker, given_up=connection.now() + SERVER_IDLE_SECONDS)


def _remove(connection: Connection, worker: str, *, given_up: float) -> None:
    running = connection.execute(
        "UPDATE attempts SET outcome = 'in doubt' WHERE worker = ? AND outcome IS NULL RETURNING id, certificate",
        (worker,),
    )
    for attempt, certificate in running:
        if not connection.execute(
            "SELECT 1 FROM certificates WHERE id = ? AND attempt = ? AND state = 'sending'", (certificate, attempt)
        ):
            continue
        if _was_stored(connection, certificate):
            _finish(connection, certificate, State.STORED)
        else:
            _put_in_doubt(connection, certificate, "interrupted while it was being sent", given_up)
    for table in ("certificates", "manifest_rows"):
        connection.execute(
            f"UPDATE {table} SET claim = NULL, worker = NULL WHERE worker = ?",  # noqa: S608
            (worker,),
        )
    for table, column in (("settlers", "worker"), ("workers", "id")):
        connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (worker,))  # noqa: S608


# --- doubts ---


def claim_doubt(connection: Connection, certificate: int, *, claim: str, worker: str) -> KnownCertificate | None:
    """Return a certificate in doubt with this claim if this worker may settle it: one of its look-alikes at a time.

    It runs again when the answer to its commit was lost, and returns the same then.
    """
    connection.execute(
        "INSERT INTO settlers (lookalike, worker, claim) SELECT lookalike, ?, ? FROM certificates"
        " WHERE id = ? AND state = 'in doubt' ON CONFLICT (lookalike) DO NOTHING",
        (worker, claim, certificate),
    )
    known = read(connection, certificate)
    if known.state is State.IN_DOUBT and _is_settler(connection, certificate, claim):
        return attrs.evolve(known, claim=claim)
    return None


def _is_settler(connection: Connection, certificate: int, claim: str | None) -> bool:
    return bool(
        connection.execute(
            "SELECT 1 FROM settlers WHERE claim = ? AND lookalike = (SELECT lookalike FROM certificates WHERE id = ?)",
            (claim, certificate),
        )
    )


def settled(
    connection: Connection,
    certificate: KnownCertificate,
    state: State,
    *,
    reason: str = "",
    springest_id: int | None = None,
) -> KnownCertificate:
    """Record what Springest said of a certificate in doubt: STORED, WAITING, FAILED, or still IN_DOUBT.

    Return the certificate as it is now. Nothing changes when a late answer has settled it before, or when another
    worker has taken over: it may have been sent again since Springest was asked.

    Args:
        connection: in a transaction.
        certificate: as `claim_doubt` returned it.
        state: what it is from now on.
        reason: why, for a person to read.
        springest_id: Springest's id of it, when it is stored.
    """
    if not _is_settler(connection, certificate.id, certificate.claim):
        return read(connection, certificate.id)
    connection.execute("DELETE FROM settlers WHERE claim = ?", (certificate.claim,))
    if read(connection, certificate.id).state is State.IN_DOUBT:
        if state is State.STORED:
            connection.execute(
                "UPDATE certificates SET springest_id = ? WHERE id = ?", (storable_id(springest_id), certificate.id)
            )
        _set_state(connection, certificate.id, state, reason)
    return read(connection, certificate.id)


def siblings(connection: Connection, certificate: int) -> Siblings:
    """Return what is known of the other certificates that Springest lists in the same way as this one."""
    lines = connection.execute(
        "SELECT springest_id FROM certificates WHERE state IN ('stored', 'in doubt', 'sending') AND id <> ?"
        " AND lookalike = (SELECT lookalike FROM certificates WHERE id = ?)",
        (certificate, certificate),
    )
    ids = [springest_id for (springest_id,) in lines]
    return Siblings(frozenset(ids) - {None}, uncertain=None in ids)


def listed_as(connection: Connection, looks: bytes) -> list[int | None]:
    """Return Springest's ids of all certificates that its list may show in this way; None is an unknown id.

    Args:
        connection: the journal.
        looks: a digest as `identity.lookalike` makes it.
    """
    lines = connection.execute(
        "SELECT springest_id FROM certificates WHERE state IN ('stored', 'in doubt', 'sending') AND lookalike = ?",
        (looks,),
    )
    return [springest_id for (springest_id,) in lines]


def has_id(connection: Connection, certificate: KnownCertificate, springest_id: int) -> bool:
    """Return whether another certificate of the same host has this id at Springest."""
    return bool(
        connection.execute(
            "SELECT 1 FROM certificates WHERE springest_id = ? AND origin = ? AND id <> ? LIMIT 1",
            (springest_id, certificate.origin, certificate.id),
        )
    )


def resolve(connection: Connection, certificates: Collection[int], state: State) -> None:
    """Record a person's word on certificates in doubt: STORED, or WAITING when they are to be sent again.

    One that was rejected or has failed can be sent again, too.

    Raises:
        ConfigurationError: one of them is not in doubt, or Springest is being asked about it just now.
    """
    reason = f"a person found it {'stored' if state is State.STORED else 'not stored'} at Springest"
    again = (State.REJECTED, State.FAILED) if state is State.WAITING else ()
    for certificate in dict.fromkeys(certificates):
        if read(connection, certificate).state not in (State.IN_DOUBT, *again):
            raise ConfigurationError("one of these rows is not in doubt (any more). Nothing was changed.")
        if connection.execute(
            "SELECT 1 FROM settlers AS s JOIN certificates AS k ON k.lookalike = s.lookalike"
            " WHERE k.id = ? AND k.state = 'in doubt'",
            (certificate,),
        ):
            raise ConfigurationError(
                "a run is asking Springest about one of these rows just now: wait for it, or stop it."
                " Nothing was changed."
            )
        _set_state(connection, certificate, state, reason)


def send_missing_again(connection: Connection, missing: Iterable[tuple[int, str]]) -> list[int]:
    """Put certificates back to waiting that are stored by this journal, and that Springest certainly does not have.

    None of their POSTs decides anything from now on: only a new answer can make them stored again. Those that have
    stored them keep the id that they had, for audits and reports.

    Args:
        connection: in a transaction.
        missing: the keys of the certificates, each with the name of its last POST when Springest was asked.

    Returns:
        The keys of those that wait now. One that was sent again or settled meanwhile is not changed.
    """
    again = []
    for certificate, attempt in missing:
        found = connection.execute(
            "SELECT state, springest_id FROM certificates WHERE id = ? AND attempt = ?", (certificate, attempt)
        )
        state = [state for state, _ in found]
        if state == [State.STORED.value]:
            connection.execute("UPDATE certificates SET springest_id = NULL WHERE id = ?", (certificate,))
            # The last one has stored it, too, if that is known from Springest's lists or from a person.
            connection.execute(
                "UPDATE attempts SET missing = ?, outcome = CASE outcome WHEN 'stored' THEN 'waiting' ELSE outcome END"
                " WHERE certificate = ? AND (outcome = 'stored' OR id = ?)",
                (found[0][1] or 0, certificate, attempt),
            )
            _set_state(connection, certificate, State.WAITING, "it was stored, and Springest does not list it any more")
        elif state != [State.WAITING.value]:  # which it is if the answer to this commit was lost
            continue
        again.append(certificate)
    return again
