"""The rows in doubt of a migration, for a person who looks at them for a while: runs go on meanwhile."""

import hashlib

from attrs import frozen

from springest_async.journal.engine import Connection
from springest_async.journal.migrations import load_of


@frozen(kw_only=True)
class DoubtfulRows:
    """What is known of all rows in doubt of a migration.

    Attributes:
        version: a text that is another one when its rows in doubt, or what is known of one of them, are others; empty
            if there are none.
        asked: about how many of them a run is asking Springest now.
    """

    version: str = ""
    asked: int = 0


def doubtful_rows(connection: Connection, migration: int) -> DoubtfulRows:
    """Return what is known of all rows in doubt of a migration.

    Raises:
        JournalError: the migration was erased.
    """
    # The remainder keeps the sum of a million times within 64 bits. (A % means something else to psycopg.)
    ((asked, *all_of_them),) = connection.execute(
        "SELECT count(s.claim), count(*), sum(r.number), max(k.attempt),"
        " sum(k.sent_at - k.sent_at / 1000000007 * 1000000007), sum(length(r.reason)), min(r.reason), max(r.reason),"
        " sum(CASE WHEN s.claim IS NULL THEN 0 ELSE r.number END)"
        " FROM manifest_rows AS r JOIN certificates AS k ON k.id = r.certificate"
        " LEFT JOIN settlers AS s ON s.lookalike = k.lookalike WHERE r.load = ? AND r.state = 'in doubt'",
        (load_of(connection, migration),),
    )
    known = ", ".join(map(str, all_of_them))  # PostgreSQL's sums are decimals
    return DoubtfulRows(version=hashlib.sha256(known.encode()).hexdigest()[:16], asked=asked)


def reasons_of_doubts(connection: Connection, origin: str) -> dict[str, str]:
    """Return why the certificates in doubt at a host are so, by the ``X-Request-Id`` of their last POST."""
    lines = connection.execute(
        "SELECT attempt, reason FROM certificates WHERE origin = ? AND state = 'in doubt' AND attempt IS NOT NULL",
        (origin,),
    )
    return dict(lines)


def asked_about(connection: Connection) -> dict[int, str]:
    """Return the certificates in doubt that Springest is being asked about now, and the machine of the run that asks.

    All look-alikes of one are among them, because an answer about one may be about each.
    """
    lines = connection.execute(  # there are few settlers, and there may be many certificates
        "SELECT k.id, coalesce(w.host, '') FROM settlers AS s CROSS JOIN certificates AS k LEFT JOIN workers AS w"
        " ON w.id = s.worker WHERE k.lookalike = s.lookalike AND k.state = 'in doubt'"
    )
    return dict(lines)
