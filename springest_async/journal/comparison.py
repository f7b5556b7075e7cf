"""What a journal knows of certificates, for a comparison with what Springest lists.

It is read in pages, so that nobody waits for a migration of a million rows. Each function runs in the caller's
snapshot.
"""

from datetime import datetime

from attrs import frozen

from springest_async.journal.certificates import moment
from springest_async.journal.engine import Connection
from springest_async.journal.migrations import load_of
from springest_async.journal.records import State


@frozen
class ComparedRow:
    """A row of a manifest and its certificate, as they were when they were read.

    Attributes:
        looks: the digest of `identity.lookalike`.
        state: the row's.
        confirmed: whether Springest has answered that it is stored, or has listed it. A row that is stored without
            that was marked by a person (``springest resolve --stored``).
        id: the key of the row.
        number: which row it is; the header is row 1.
        file: the cell, as written.
        valid_from: the first day (2026-12-31).
        valid_until: the last day, or None.
        certificate: the key of the certificate; None until the file has been read.
        springest_id: Springest's id of the certificate, if it is known.
        attempt: the name of the last POST of the certificate, if there was one.
        sent_at: when that was sent (microseconds since 1970).
        settled_at: when that was answered or given up (microseconds since 1970).
        budget: the name of the budget of all its POSTs, which tells one key from another; None if they had several.
    """

    looks: bytes
    state: State
    confirmed: bool
    id: int
    number: int
    file: str
    certification_id: int
    email: str
    valid_from: str
    valid_until: str | None
    certificate: int | None
    springest_id: int | None
    attempt: str | None
    sent_at: int | None
    settled_at: int | None
    budget: str | None


@frozen
class KnownLooks:
    """A certificate of any migration, as Springest may list it.

    Attributes:
        id: its key.
        springest_id: Springest's id, if it is known.
        looks: the digest of `identity.lookalike`; None after `springest journal forget`.
    """

    id: int
    springest_id: int | None
    looks: bytes | None
    state: State


@frozen
class FirstPosts:
    """When the first POSTs of a migration were sent.

    Attributes:
        sent_at: by the clocks of the machines that sent them (UTC); None if nothing was sent.
        server_dates: the ``Date`` of the first answer that each worker got, as the server wrote it.
    """

    sent_at: datetime | None
    server_dates: tuple[str, ...]


def rows(connection: Connection, migration: int, *, after: int, limit: int) -> list[ComparedRow]:
    """Return the next rows of a migration after a key, in the order of their keys.

    Raises:
        JournalError: the migration was erased.
    """
    # With the plus, no database looks at all rows of the load for each page.
    lines = connection.execute(
        "SELECT r.lookalike, r.state, CASE WHEN k.springest_id IS NOT NULL OR EXISTS (SELECT 1 FROM attempts AS a"
        " WHERE a.certificate = k.id AND a.outcome = 'stored') THEN 1 ELSE 0 END,"
        " r.id, r.number, r.file, r.certification_id, r.email, r.valid_from, r.valid_until,"
        " r.certificate, k.springest_id, k.attempt, k.sent_at, coalesce(k.answered_at, k.given_up_at),"
        " (SELECT CASE WHEN count(DISTINCT a.budget) = 1 THEN min(a.budget) END FROM attempts AS a"
        " WHERE a.certificate = k.id)"
        " FROM manifest_rows AS r LEFT JOIN certificates AS k ON k.id = r.certificate"
        " WHERE +r.load = ? AND r.id > ? ORDER BY r.id LIMIT ?",
        (load_of(connection, migration), after, limit),
    )
    return [ComparedRow(bytes(looks), State(state), bool(confirmed), *rest) for looks, state, confirmed, *rest in lines]


def known(connection: Connection, origin: str, *, after: int, limit: int) -> list[KnownLooks]:
    """Return the next certificates of a host after a key that Springest may list, in the order of their keys."""
    lines = connection.execute(
        "SELECT id, springest_id, lookalike, state FROM certificates WHERE origin = ? AND id > ?"
        " AND state IN ('stored', 'in doubt', 'sending') ORDER BY id LIMIT ?",
        (origin, after, limit),
    )
    return [KnownLooks(key, id_, looks and bytes(looks), State(state)) for key, id_, looks, state in lines]


def first_posts(connection: Connection, migration: int) -> FirstPosts:
    """Return when the first POSTs of the certificates of a migration were sent.

    Raises:
        JournalError: the migration was erased.
    """
    of_migration = "a.certificate IN (SELECT certificate FROM manifest_rows WHERE load = ?)"
    load = load_of(connection, migration)
    ((sent_at,),) = connection.execute(f"SELECT min(a.sent_at) FROM attempts AS a WHERE {of_migration}", (load,))  # noqa: S608
    # The name of an attempt begins with its time.
    dates = connection.execute(
        "SELECT server_date FROM attempts WHERE id IN (SELECT min(a.id) FROM attempts AS a"  # noqa: S608
        f" WHERE {of_migration} AND a.server_date <> '' GROUP BY a.worker)",
        (load,),
    )
    return FirstPosts(moment(sent_at), tuple(server_date for (server_date,) in dates))
