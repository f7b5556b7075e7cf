"""What became of all rows and POSTs of a migration, for reports.

Rows are read some hundred at a time and POSTs are counted in the database, so that a million of each need little
memory. All functions read within the caller's snapshot, which makes their numbers agree. Nothing here writes.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

from attrs import field, frozen

from springest_async.journal.certificates import LEFT, moment
from springest_async.journal.engine import Connection
from springest_async.journal.migrations import load_of
from springest_async.journal.records import ColumnTitles, State
from springest_async.limits.bucket import PERIOD_SECONDS

_AT_ONCE = 500  # rows
_CLOCKS_APART_US = 3_600_000_000  # at most, between the machine that loaded the manifest and one that sent its rows
_PERIOD_US = int(PERIOD_SECONDS * 1e6)
_WIDTHS = (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 7200, 14400, 43200)  # minutes of a stretch

_POSTS = (
    " FROM attempts AS a WHERE (a.sent_at >= ? OR a.certificate > ?) AND a.certificate IN"  # noqa: S608 # no values
    f" (SELECT certificate FROM manifest_rows WHERE load = ? AND certificate IS NOT NULL) AND {LEFT}"
)
_OUTCOMES = (
    " sum(CASE WHEN a.outcome = 'stored' THEN 1 ELSE 0 END) AS stored,"
    " sum(CASE WHEN a.outcome = 'rejected' THEN 1 ELSE 0 END) AS rejected,"
    " sum(CASE WHEN a.outcome = 'waiting' AND a.status IN (400, 429) THEN 1 ELSE 0 END) AS refused,"
    " sum(CASE WHEN a.outcome = 'in doubt' AND a.missing IS NULL THEN 1 ELSE 0 END) AS unanswered,"
    " sum(CASE WHEN a.missing IS NOT NULL THEN 1 ELSE 0 END) AS missing"
)


@frozen(kw_only=True)
class Posts:
    """Some POSTs of a migration, and what their answers were.

    Attributes:
        posts: how many have left.
        stored: how many of them were stored.
        rejected: how many were rejected for good.
        refused: how many were refused with 400 or 429, so that they are sent again.
        unanswered: how many had no answer that says what became of them; most of these are settled later.
        missing: how many were stored, and were not at Springest any more later, so that they are sent again.
    """

    posts: int = 0
    stored: int = 0
    rejected: int = 0
    refused: int = 0
    unanswered: int = 0
    missing: int = 0

    @property
    def others(self) -> int:
        """How many ended otherwise: with an error, such as a refused key, or they are under way."""
        return self.posts - self.stored - self.rejected - self.refused - self.unanswered - self.missing


@frozen(kw_only=True)
class AllPosts(Posts):
    """All POSTs of a migration since it was loaded for the first time; none that was sent for another one before.

    Attributes:
        found: how many certificates without such an answer are stored all the same: they were found in Springest's
            lists, or a person has found them.
        begun_at: when it was loaded for the first time (UTC).
        first_at: when the first of the POSTs was sent, by the clock of its machine (UTC).
        last_at: when the last of them was sent.
    """

    found: int = 0
    begun_at: datetime
    first_at: datetime | None
    last_at: datetime | None


@frozen(kw_only=True)
class Stretch(Posts):
    """The POSTs of a stretch of time.

    Attributes:
        at: when it began (UTC).
        minutes: how long it is, in periods of the limit.
        busiest: how many POSTs left in the minute with the most.
    """

    at: datetime
    minutes: int
    busiest: int


@frozen
class AnswerTime:
    """How many POSTs were answered in about so many seconds: at least so many, and less than ``until``."""

    seconds: float
    until: float
    posts: int


@frozen(kw_only=True)
class RowHistory:
    """A row of a manifest, and all that became of it.

    Attributes:
        number: the row.
        file: the cell of the manifest, as written.
        extra: the cells of unknown columns, by column.
        state: its state.
        reason: why it is in this state, for a person to read.
        springest_id: Springest's id of the certificate, if it is known.
        first_sent_at: when its certificate was sent for the first time (UTC), perhaps for another manifest.
        last_sent_at: when it was sent for the last time.
        answered_at: when the POST that decided was answered: the one that was stored, else the last.
        tries: how many POSTs of it have left.
        status: the HTTP status of that answer.
        words: what the server said in it.
        request_id: the ``X-Request-Id`` of that POST.
        server_request_id: the one that the server sent back.
        asked: whether it is in doubt and a run is asking Springest about it now.
    """

    number: int
    file: str
    certification_id: int
    email: str
    valid_from: date
    valid_until: date | None
    conversion_id: int | None
    state: State
    reason: str
    extra: Mapping[str, str] = field(factory=dict)
    springest_id: int | None = None
    first_sent_at: datetime | None = None
    last_sent_at: datetime | None = None
    answered_at: datetime | None = None
    tries: int = 0
    status: int | None = None
    words: str = ""
    request_id: str = ""
    server_request_id: str = ""
    asked: bool = False


def read_posts(connection: Connection, migration: int) -> AllPosts:
    """Count the POSTs of a migration.

    Raises:
        JournalError: the journal cannot be read, or the migration was erased from it.
    """
    own = _own(connection, migration)
    ((count, first_at, last_at, *outcomes),) = connection.execute(
        f"SELECT count(*), min(a.sent_at), max(a.sent_at),{_OUTCOMES}{_POSTS}", own
    )
    ((found,),) = connection.execute(
        f"SELECT count(DISTINCT a.certificate){_POSTS} AND a.outcome = 'in doubt' AND a.missing IS NULL AND EXISTS"  # noqa: S608
        " (SELECT 1 FROM certificates AS k WHERE k.id = a.certificate AND k.state = 'stored') AND NOT EXISTS"
        " (SELECT 1 FROM attempts AS s WHERE s.certificate = a.certificate AND s.outcome = 'stored')",
        own,
    )
    begun_at = moment(own[0] + _CLOCKS_APART_US)
    assert begun_at is not None
    return AllPosts(
        **_counts(count, outcomes),
        found=found,
        begun_at=begun_at,
        first_at=moment(first_at),
        last_at=moment(last_at),
    )


def read_stretches(connection: Connection, migration: int, posts: AllPosts, most: int) -> list[Stretch]:
    """Divide the time from the first to the last POST into stretches of equal length, and count the POSTs of each.

    Args:
        connection: in a snapshot.
        migration: its key.
        posts: as `read_posts` returned them.
        most: how many stretches there are at most.

    Returns:
        The stretches in order, those without a POST too; an empty list if nothing was sent.
    """
    if posts.first_at is None or posts.last_at is None:
        return []
    first, last = (int(at.timestamp() // PERIOD_SECONDS) for at in (posts.first_at, posts.last_at))
    width = _width(first, last, most)
    start = first // width
    lines = connection.execute(
        "SELECT CAST(minute / ? AS INTEGER) AS stretch, max(posts), sum(posts), sum(stored), sum(rejected),"  # noqa: S608
        " sum(refused), sum(unanswered), sum(missing) FROM"
        f" (SELECT CAST(a.sent_at / ? AS INTEGER) AS minute, count(*) AS posts,{_OUTCOMES}{_POSTS} GROUP BY minute)"
        " AS minutes GROUP BY stretch",
        (width, _PERIOD_US, *_own(connection, migration)),
    )
    found = {stretch: (busiest, _counts(count, outcomes)) for stretch, busiest, count, *outcomes in lines}
    return [
        Stretch(
            at=datetime.fromtimestamp(stretch * width * PERIOD_SECONDS, UTC),
            minutes=width,
            busiest=found[stretch][0] if stretch in found else 0,
            **(found[stretch][1] if stretch in found else {}),
        )
        for stretch in range(start, last // width + 1)
    ]


def read_answer_times(connection: Connection, migration: int) -> list[AnswerTime]:
    """Count the answered POSTs of a migration by the time from their beginning to their answer, the fastest first.

    The times are exact to 10 ms below a second, and to a tenth above.
    """
    took = "CASE WHEN a.answered_at > a.sent_at THEN a.answered_at - a.sent_at ELSE 0 END"
    cases = " ".join(f"WHEN took < {step * 100} THEN took / {step} * {step}" for step in _STEPS_US)
    lines = connection.execute(
        f"SELECT CAST(CASE {cases} ELSE {_STEPS_US[-1] * 100} END AS BIGINT) AS least, count(*) FROM"  # noqa: S608
        f" (SELECT {took} AS took{_POSTS} AND a.answered_at IS NOT NULL) AS answers GROUP BY least ORDER BY least",
        _own(connection, migration),
    )
    return [AnswerTime(least / 1e6, (least + _step(least)) / 1e6, posts) for least, posts in lines]


_STEPS_US = (10_000, 100_000, 1_000_000, 10_000_000)


def _step(least: int) -> int:
    return next((step for step in _STEPS_US if least < step * 100), _STEPS_US[-1] * 100)


def read_rows(connection: Connection, migration: int, *states: State) -> Iterator[RowHistory]:
    """Yield the rows of a migration in these states (default: all), in the manifest's order.

    Args:
        connection: in a snapshot, which must last as long as this is read.
        migration: its key.
        states: the states.

    Raises:
        JournalError: as `read_posts`.
    """
    wanted = [state.value for state in states or State]
    posts = f"FROM attempts AS a WHERE a.certificate = r.certificate AND {LEFT}"
    query = (
        "SELECT r.number, r.file, r.certification_id, r.email, r.valid_from, r.valid_until, r.conversion_id, r.state,"  # noqa: S608
        " r.reason, r.extra, k.springest_id, d.id, d.answered_at, d.status, d.words, d.server_request_id,"
        f" (SELECT min(a.sent_at) {posts}), (SELECT max(a.sent_at) {posts}), (SELECT count(*) {posts}),"
        " r.state = 'in doubt' AND EXISTS (SELECT 1 FROM settlers AS g WHERE g.lookalike = k.lookalike)"
        " FROM manifest_rows AS r LEFT JOIN certificates AS k ON k.id = r.certificate"
        " LEFT JOIN attempts AS d ON d.id = coalesce((SELECT max(s.id) FROM attempts AS s WHERE s.certificate = k.id"
        " AND s.outcome = 'stored'), k.attempt)"
        f" WHERE r.load = ? AND r.state IN ({', '.join('?' * len(wanted))}) AND r.number > ? AND r.number <= ?"
        " ORDER BY r.number"
    )
    for load, after, until in _pages(connection, migration):
        for line in connection.execute(query, (load, *wanted, after, until)):
            yield _row_of(line)


def read_columns(connection: Connection, migration: int) -> ColumnTitles:
    """Return the columns of the manifest, as it was loaded last.

    Raises:
        JournalError: as `read_posts`.
    """
    load_of(connection, migration)
    ((columns,),) = connection.execute("SELECT columns FROM migrations WHERE id = ?", (migration,))
    return [(name, title) for name, title in json.loads(columns)]


def has_ends(connection: Connection, migration: int) -> bool:
    """Return whether any row has a last day of validity."""
    return _has_any(connection, migration, "valid_until")


def has_conversions(connection: Connection, migration: int) -> bool:
    """Return whether any row has the id of a conversion."""
    return _has_any(connection, migration, "conversion_id")


def _has_any(connection: Connection, migration: int, column: str) -> bool:
    query = f"SELECT 1 FROM manifest_rows WHERE load = ? AND {column} IS NOT NULL LIMIT 1"  # noqa: S608 # see above
    return bool(connection.execute(query, (load_of(connection, migration),)))


def _pages(connection: Connection, migration: int) -> Iterator[tuple[int, int, int]]:
    """Yield the load of a migration, and ranges of rows that are found by an index whatever their states are."""
    load = load_of(connection, migration)
    ((last,),) = connection.execute("SELECT max(number) FROM manifest_rows WHERE load = ?", (load,))
    for after in range(0, last or 0, _AT_ONCE):
        yield load, after, after + _AT_ONCE


def _row_of(line: Sequence[Any]) -> RowHistory:
    number, file, certification_id, email, valid_from, valid_until, conversion_id, state, reason, extra, *rest = line
    springest_id, request_id, answered_at, status, words, server_request_id, *times, tries, asked = rest
    first_sent_at, last_sent_at = times
    return RowHistory(
        number=number,
        file=file,
        certification_id=certification_id,
        email=email,
        valid_from=date.fromisoformat(valid_from),
        valid_until=date.fromisoformat(valid_until) if valid_until else None,
        conversion_id=conversion_id,
        state=State(state),
        reason=reason,
        extra=json.loads(extra) if extra else {},
        springest_id=springest_id,
        first_sent_at=moment(first_sent_at),
        last_sent_at=moment(last_sent_at),
        answered_at=moment(answered_at),
        tries=tries,
        status=status,
        words=words or "",
        request_id=request_id or "",
        server_request_id=server_request_id or "",
        asked=bool(asked),
    )


def _own(connection: Connection, migration: int) -> tuple[int, int, int]:
    """Return what `_POSTS` needs: since when POSTs count, after which certificate all of them do, and the load."""
    load = load_of(connection, migration)
    ((begun_at, last_before),) = connection.execute(
        "SELECT begun_at, last_before FROM migrations WHERE id = ?", (migration,)
    )
    return begun_at - _CLOCKS_APART_US, last_before, load


def _counts(posts: int, outcomes: Sequence[Any]) -> dict[str, int]:
    names = ("stored", "rejected", "refused", "unanswered", "missing")
    return {"posts": posts} | {name: int(count or 0) for name, count in zip(names, outcomes, strict=True)}


def _width(first: int, last: int, most: int) -> int:
    """Return the length of the stretches in minutes: a usual one, so that they begin at full hours or days."""
    return next(
        (width for width in _WIDTHS if last // width - first // width < most),
        -(-(last - first + 1) // (most - 1)),
    )
