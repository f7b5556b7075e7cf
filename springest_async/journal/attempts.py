"""All POSTs of the budgets of a migration, in its time, for an audit of the limit; and what may be stored twice.

They are read a thousand at a time. All functions read within the caller's snapshot. Nothing here writes. The order of
the POSTs of a certificate is that of the journal's clock: an id begins with the time of day, which may be set back.
"""

from collections.abc import Collection, Iterator
from typing import Any

from attrs import frozen

from springest_async.journal.certificates import LEFT
from springest_async.journal.engine import Connection
from springest_async.journal.migrations import load_of
from springest_async.limits.limiter import POSTS_PER_MINUTE

_AT_ONCE = 1000
_SHOWN = 20  # doubles
_ROWS_SHOWN = 10  # of a double

# Of a SQLite journal whose machine was restarted since, `back_at` was counted from an earlier boot, and tells nothing.
_FIRST_SECOND = 1.0

_OURS = "(SELECT certificate FROM manifest_rows WHERE load = ? AND certificate IS NOT NULL)"
_STORED = "(a.outcome = 'stored' OR a.missing IS NOT NULL)"  # though it was not found there later
_ANSWERED_AS_STORED = (
    "(a.outcome = 'stored' OR (a.missing IS NOT NULL AND a.outcome = 'waiting' AND coalesce(a.status, 0) < 400))"
)
# What the next POST of the same certificate that was decided has shown of one that was refused without a reason.
_TOO_FAST = (
    "CASE WHEN a.outcome = 'waiting' AND a.status = 429 THEN 1 WHEN a.outcome = 'waiting' AND a.status = 400 THEN"
    " coalesce((SELECT CASE WHEN b.outcome = 'rejected' THEN 0 ELSE 1 END FROM attempts AS b"
    " WHERE b.certificate = a.certificate AND b.sent > a.sent"
    " AND (b.outcome IN ('stored', 'rejected') OR b.missing IS NOT NULL) ORDER BY b.sent LIMIT 1), 0) ELSE 0 END"
)


@frozen(kw_only=True)
class Attempt:
    """A POST that may have left.

    Attributes:
        id: its name, which was sent as ``X-Request-Id``.
        budget: the name of its budget.
        worker: who sent it.
        sent_at: when, by the clock of its machine, in microseconds since 1970.
        answered_at: when its answer came, by the same clock; None if none did.
        ended: when its token began to rest, up to a constant, in seconds on the journal's clock, which nobody sets;
            None if that is not known.
        refused: whether it was refused with 400 or 429, and not rejected for good.
        too_fast: whether it was refused only because it came too fast: with 429, or the same certificate was stored
            when it was sent again.
        server_date: the answer's ``Date``.
        allowed: how many POSTs a minute were agreed with Springest when it left: the smallest number of all who used
            the budget then, and at least the usual 30, because a program that asks for fewer is only careful.
    """

    id: str
    budget: str
    worker: str
    sent_at: int
    answered_at: int | None
    ended: float | None
    refused: bool
    server_date: str
    too_fast: bool = False
    allowed: int = POSTS_PER_MINUTE


@frozen(kw_only=True)
class Double:
    """Something that Springest may have stored twice.

    Attributes:
        rows: the first rows that name it.
        springest_id: the id that Springest gave to several certificates; None if one certificate was stored by several
            POSTs.
        request_ids: the ``X-Request-Id`` of the POSTs.
    """

    rows: tuple[int, ...]
    springest_id: int | None
    request_ids: tuple[str, ...]


@frozen(kw_only=True)
class SentAgain:
    """A certificate that was stored, and sent again because Springest certainly did not list it any more.

    Attributes:
        rows: the first rows that name it.
        springest_id: the id that it has at Springest now; None if that is not known.
        missing_ids: the ids that it had when ``springest reconcile --repair`` did not find it.
        request_ids: the ``X-Request-Id`` of the POSTs that have stored it.
    """

    rows: tuple[int, ...]
    springest_id: int | None
    missing_ids: tuple[int, ...]
    request_ids: tuple[str, ...]


def budgets_of(connection: Connection, migration: int, since: int) -> tuple[str, ...]:
    """Return the names of the budgets that paid for the POSTs of a migration since a time in microseconds."""
    lines = connection.execute(
        f"SELECT DISTINCT a.budget FROM attempts AS a WHERE a.sent_at >= ? AND {LEFT} AND a.certificate IN"  # noqa: S608
        " (SELECT certificate FROM manifest_rows WHERE load = ? AND certificate IS NOT NULL) ORDER BY a.budget",
        (since, load_of(connection, migration)),
    )
    return tuple(budget for (budget,) in lines)


def read_attempts(connection: Connection, budgets: Collection[str], since: int, until: int) -> Iterator[Attempt]:
    """Yield all POSTs of some budgets that left between two times (microseconds since 1970), in no order."""
    after = ""
    while True:
        # In the order of the key: an id begins with a time, but a POST may leave long after it was given its id.
        lines = connection.execute(
            "SELECT a.id, a.budget, a.worker, a.sent_at, a.answered_at, a.counted_until, a.back_at, a.status,"  # noqa: S608
            f" a.outcome, a.server_date, a.allowed, {_TOO_FAST} FROM attempts AS a"
            f" WHERE a.id > ? AND a.sent_at >= ? AND a.sent_at <= ? AND {LEFT} ORDER BY a.id LIMIT ?",
            (after, since, until, _AT_ONCE),
        )
        yield from (_attempt_of(line) for line in lines if line[1] in budgets)
        if len(lines) < _AT_ONCE:
            return
        after = lines[-1][0]


def _attempt_of(line: tuple[Any, ...]) -> Attempt:
    id_, budget, worker, sent_at, answered_at, counted_until, back_at, status, outcome, server_date, allowed, fast = (
        line
    )
    # The token of any other POST rests from a guess of when the server has counted it.
    is_answered = answered_at is not None and status is not None and status < 500 and status != 408
    return Attempt(
        id=id_,
        budget=budget,
        worker=worker,
        sent_at=sent_at,
        answered_at=answered_at,
        ended=back_at if is_answered and counted_until is None and back_at > _FIRST_SECOND else None,
        refused=outcome == "waiting" and status in (400, 429),
        server_date=server_date,
        too_fast=bool(fast),
        allowed=max(POSTS_PER_MINUTE, allowed or 0),
    )


def read_sent_again(connection: Connection, migration: int) -> tuple[int, int, list[SentAgain]]:
    """Return what of a migration was stored, and put back to be sent again because Springest did not list it.

    Return how many certificates were sent again, how many wait for it, and the first that were sent again.
    """
    load = load_of(connection, migration)
    put_back = (
        " FROM (SELECT a.certificate, max(CASE WHEN a.missing IS NOT NULL THEN a.sent END) AS marked,"  # noqa: S608
        f" max(CASE WHEN a.missing IS NULL AND {LEFT} THEN a.sent END) AS last FROM attempts AS a"
        " WHERE a.certificate IN (SELECT m.certificate FROM attempts AS m WHERE m.missing IS NOT NULL)"
        f" AND a.certificate IN {_OURS} GROUP BY a.certificate) AS put_back"
        " JOIN certificates AS k ON k.id = put_back.certificate"
    )
    again = " WHERE k.state <> 'waiting' AND last > marked"
    ((waiting,),) = connection.execute(f"SELECT count(*){put_back} WHERE k.state = 'waiting'", (load,))
    ((sent_again,),) = connection.execute(f"SELECT count(*){put_back}{again}", (load,))
    first = connection.execute(f"SELECT k.id{put_back}{again} ORDER BY k.id LIMIT ?", (load, _SHOWN))
    return int(sent_again), int(waiting), [_sent_again(connection, load, certificate) for (certificate,) in first]


def _sent_again(connection: Connection, load: int, certificate: int) -> SentAgain:
    ((springest_id,),) = connection.execute("SELECT springest_id FROM certificates WHERE id = ?", (certificate,))
    posts = connection.execute(
        f"SELECT a.id, a.missing FROM attempts AS a WHERE a.certificate = ? AND {_STORED}"  # noqa: S608
        " ORDER BY a.sent, a.id LIMIT ?",
        (certificate, _ROWS_SHOWN),
    )
    return SentAgain(
        rows=_rows(connection, load, [certificate]),
        springest_id=springest_id,
        missing_ids=tuple(dict.fromkeys(missing for _, missing in posts if missing)),
        request_ids=tuple(request_id for request_id, _ in posts),
    )


def put_back_ids(connection: Connection, migration: int, *, after: int, limit: int) -> list[tuple[int, int]]:
    """Return the next certificates after a key that were put back because Springest did not list them any more.

    Return each with the ids that it had there (0 if one is not known), in the order of their keys.
    """
    lines = connection.execute(
        "SELECT DISTINCT a.certificate, a.missing FROM attempts AS a WHERE a.missing IS NOT NULL AND a.certificate IN"  # noqa: S608
        " (SELECT DISTINCT m.certificate FROM attempts AS m WHERE m.missing IS NOT NULL"
        f" AND m.certificate IN {_OURS} AND m.certificate > ? ORDER BY m.certificate LIMIT ?) ORDER BY a.certificate",
        (load_of(connection, migration), after, limit),
    )
    return [(certificate, missing) for certificate, missing in lines]


def read_doubles(connection: Connection, migration: int) -> tuple[int, list[Double]]:
    """Return how much of a migration may be stored twice, and the first of it.

    That is a certificate of which several POSTs were stored, and an id of Springest's that several certificates have.
    What was stored before ``springest reconcile --repair`` certainly did not find it there is no double of what was
    stored afterwards.
    """
    load = load_of(connection, migration)
    several = (
        " FROM (SELECT DISTINCT certificate FROM (SELECT a.certificate FROM attempts AS a"  # noqa: S608
        f" WHERE {_ANSWERED_AS_STORED} AND a.certificate IN {_OURS}"
        " GROUP BY a.certificate, a.missing HAVING count(*) > 1) AS together) AS several"
    )
    shared = (
        " FROM (SELECT k.origin, k.springest_id FROM certificates AS k WHERE k.springest_id IS NOT NULL"  # noqa: S608
        " GROUP BY k.origin, k.springest_id HAVING count(*) > 1"
        f" AND max(CASE WHEN k.id IN {_OURS} THEN 1 ELSE 0 END) = 1) AS shared"
    )
    by_posts, found = _first_of(connection, "certificate", several, load)
    doubles = [_double(connection, load, None, [certificate]) for (certificate,) in found]
    by_id, found = _first_of(connection, "springest_id, origin", shared, load)
    for springest_id, origin in found[: _SHOWN - len(doubles)]:
        lines = connection.execute(
            "SELECT id FROM certificates WHERE springest_id = ? AND origin = ? ORDER BY id LIMIT ?",
            (springest_id, origin, _ROWS_SHOWN),
        )
        doubles.append(_double(connection, load, springest_id, [certificate for (certificate,) in lines]))
    return by_posts + by_id, doubles


def _first_of(connection: Connection, columns: str, doubles: str, load: int) -> tuple[int, list[tuple[Any, ...]]]:
    """Return how many doubles a query finds, and the first of them; each query looks at all POSTs or certificates."""
    found = connection.execute(f"SELECT {columns}{doubles} ORDER BY {columns} LIMIT ?", (load, _SHOWN))
    if len(found) < _SHOWN:
        return len(found), found
    ((number,),) = connection.execute(f"SELECT count(*){doubles}", (load,))
    return number, found


def _double(connection: Connection, load: int, springest_id: int | None, certificates: list[int]) -> Double:
    marks = ", ".join("?" * len(certificates))
    ids = connection.execute(
        f"SELECT a.id FROM attempts AS a WHERE a.certificate IN ({marks}) AND {_STORED}"  # noqa: S608
        " ORDER BY a.sent, a.id LIMIT ?",
        (*certificates, _ROWS_SHOWN),
    )
    return Double(
        rows=_rows(connection, load, certificates),
        springest_id=springest_id,
        request_ids=tuple(request_id for (request_id,) in ids),
    )


def _rows(connection: Connection, load: int, certificates: list[int]) -> tuple[int, ...]:
    """Return the first rows that name one of these certificates."""
    marks = ", ".join("?" * len(certificates))
    rows = connection.execute(
        f"SELECT number FROM manifest_rows WHERE load = ? AND certificate IN ({marks}) ORDER BY number LIMIT ?",  # noqa: S608
        (load, *certificates, _ROWS_SHOWN),
    )
    return tuple(number for (number,) in rows)
