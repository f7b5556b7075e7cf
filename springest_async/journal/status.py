"""Where a migration stands, as every view shows it: the terminal, the page, JSON, metrics and reports.

Everything is read from the journal in one snapshot, so the numbers of one status agree with each other, and a migration
can be watched from any process or machine, also when nothing runs. Nothing here writes.
"""

import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from attrs import field, frozen

from springest_async.journal import manifest_rows, migrations
from springest_async.journal.certificates import moment
from springest_async.journal.doubts import DoubtfulRows, doubtful_rows
from springest_async.journal.engine import Connection
from springest_async.journal.ledger import read_bucket
from springest_async.journal.records import State, Worker
from springest_async.limits.bucket import PERIOD_SECONDS, RateLimit
from springest_async.limits.limiter import POSTS_PER_MINUTE, REQUESTS_PER_HOUR

Activity = Literal["running", "outage", "paused", "stopped", "in doubt", "done"]
"""What a migration is doing: see `MigrationStatus.activity`."""

_SHOWN = 8  # rows that are being sent, and outcomes
_LOOKED_AT = 64  # POSTs, among which the last outcomes are
_RECENT_NS = 3_600_000_000_000  # how far before its last change the last outcomes of a migration are looked for
_LATER_NS = 60_000_000_000  # and how far after it, for clocks of other machines
_AFTER_BOOT = 1.0  # a token that was back before a boot is back less than a second after it; see `SQLiteConnection`

# By an index, because the token of a POST is back long after it has left. That of one that never left was back at 0.
_SENT_SINCE = "FROM attempts WHERE budget = ? AND back_at > ? AND sent >= ?"


@frozen(kw_only=True)
class Pace:
    """What the limit allows at the moment, for all who share the budget of a migration.

    Attributes:
        posts: how many POSTs may leave in any minute.
        free: how many tokens are free now.
        next_in: seconds until the next POST may leave; 0 when it may now.
        last_minute: how many POSTs have left in the last minute.
        slow: whether POSTs leave one at a time, because the server was seen to count otherwise.
    """

    posts: int = POSTS_PER_MINUTE
    free: int = POSTS_PER_MINUTE
    next_in: float = 0.0
    last_minute: int = 0
    slow: bool = False


@frozen(kw_only=True)
class RowInProgress:
    """A row that is being sent, and for how many seconds."""

    number: int
    file: str
    seconds: float


@frozen(kw_only=True)
class RowOutcome:
    """What came of a POST of a row.

    Attributes:
        number: the row.
        file: the cell of the manifest, as written.
        state: STORED, REJECTED, IN_DOUBT, or WAITING when it was refused or not sent, and is sent again.
        at: when it was answered, or sent if it was not (UTC).
        status: the HTTP status of the answer, if there was one.
        words: what the server said, as it was sent.
        request_id: the ``X-Request-Id`` that was sent.
        reason: why it was not stored, if that is still the last word about this row.
    """

    number: int
    file: str
    state: State
    at: datetime
    status: int | None
    words: str
    request_id: str
    reason: str = ""


@frozen(kw_only=True)
class MigrationStatus:
    """Where a migration stands, as it was when it was read.

    Attributes:
        id: its key in the journal.
        name: the name of the manifest's file.
        path: where it was loaded from last.
        origin: the host that it is for.
        at: when this was read (UTC).
        moved_at: when any of its rows last changed its state, or a worker was last heard of (UTC); not after `at`, even
            if the clock of a machine that has worked on it is ahead.
        paused_at: since when it is paused (UTC); None if it is not.
        counts: the rows by state.
        faulty: how many other rows of the manifest were left out because of their faults (``--skip-faulty``).
        workers: those that work on it now.
        pace: what the limit allows.
        seconds_left: in how many seconds all rows that wait can have left, if nothing else holds them back.
        sending: the rows that are being sent, the one that left first at the beginning; at most eight.
        last: what came of the last POSTs, the latest first; at most eight, of its last hour.
        doubts: what is known of the rows in doubt.
    """

    id: int
    name: str
    path: str
    origin: str
    at: datetime
    moved_at: datetime
    paused_at: datetime | None
    counts: Counter[State]
    faulty: int = 0
    workers: tuple[Worker, ...] = ()
    pace: Pace = field(factory=Pace)
    seconds_left: float = 0.0
    sending: tuple[RowInProgress, ...] = ()
    last: tuple[RowOutcome, ...] = ()
    doubts: DoubtfulRows = field(factory=DoubtfulRows)

    @property
    def rows(self) -> int:
        """The number of rows of the manifest, without those that were left out because of their faults."""
        return self.counts.total()

    @property
    def done(self) -> int:
        """How many rows are stored, rejected or failed."""
        return sum(self.counts[state] for state in (State.STORED, State.REJECTED, State.FAILED))

    @property
    def wait_for_person(self) -> int:
        """How many rows a person must look at: rejected and failed ones, and those in doubt that no run asks about."""
        states = (State.REJECTED, State.FAILED, State.IN_DOUBT)
        return sum(self.counts[state] for state in states) - self.doubts.asked

    @property
    def trouble(self) -> Worker | None:
        """A worker that cannot send, if none of them can."""
        return self.workers[0] if self.workers and all(worker.trouble for worker in self.workers) else None

    @property
    def activity(self) -> Activity:
        """What it is doing.

        ``done``: every row is stored, rejected or failed. ``in doubt``: nothing is left to do but to settle doubts.
        Else ``paused``, ``outage`` (all who work on it cannot reach Springest), ``running``, or ``stopped`` when nobody
        works on it.
        """
        if self.done == self.rows:
            return "done"
        if self.paused_at is not None:
            return "paused"
        if self.workers:
            return "outage" if self.trouble else "running"
        return "stopped" if self.counts[State.WAITING] + self.counts[State.SENDING] else "in doubt"


@frozen(kw_only=True)
class MinutePosts:
    """The POSTs of one minute.

    Attributes:
        at: when the minute began (UTC), by the clock of this machine.
        posts: how many have left.
        stored: how many of them were stored.
        refused: how many were refused with 400 or 429, and not rejected.
        allowed: how many POSTs a minute were agreed with Springest when they left; the largest number, if it changed.
    """

    at: datetime
    posts: int
    stored: int
    refused: int
    allowed: int


class _Budget:
    """What the limit allows to all who share a budget, as it was read once."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._now = connection.now()
        _, _, self._bucket = read_bucket(connection, name)
        self._bucket.settle(self._now)
        # Nobody who uses the bucket now: what a run without settings asks for.
        self._rate = RateLimit(min(self._bucket.limits, default=POSTS_PER_MINUTE), PERIOD_SECONDS)
        # The tokens of these are not back yet.
        values = (name, self._now, self._now - PERIOD_SECONDS)
        ((last_minute,),) = connection.execute(f"SELECT count(*) {_SENT_SINCE}", values)
        self.pace = Pace(
            posts=self._rate.posts,
            free=max(0, self._rate.posts - self._bucket.tokens_out),
            next_in=self.seconds_until(1),
            last_minute=last_minute,
            slow=self._bucket.slow,
        )

    def seconds_until(self, posts: int) -> float:
        """Return in how many seconds so many POSTs can have left."""
        if not posts:
            return 0.0
        by_hour = self._bucket.hour.seconds_until(REQUESTS_PER_HOUR, self._now, requests=posts)
        return max(self._bucket.seconds_until(self._rate, self._now, posts=posts, burst=self._rate.posts), by_hour)


def read_status(connection: Connection, migration: int) -> MigrationStatus:
    """Return where a migration stands; within a snapshot or transaction.

    Raises:
        JournalError: the journal cannot be read, or the migration was erased from it.
    """
    return _read(connection, migration, {})


def _read(connection: Connection, migration: int, budgets: dict[str, _Budget]) -> MigrationStatus:
    """Return where a migration stands; `budgets` are those that were read before, by name."""
    load = migrations.load_of(connection, migration)
    ((name, path, origin, budget, faulty, paused_at, moved_at),) = connection.execute(
        "SELECT name, path, origin, budget, faulty, paused_at, moved_at FROM migrations WHERE id = ?", (migration,)
    )
    at, moved = datetime.now(UTC), moment(moved_at)
    assert moved is not None
    counts = manifest_rows.counts(connection, migration)
    if budget not in budgets:
        budgets[budget] = _Budget(connection, budget)
    return MigrationStatus(
        id=migration,
        name=name,
        path=path,
        origin=origin,
        at=at,
        moved_at=min(moved, at),
        paused_at=moment(paused_at),
        counts=counts,
        faulty=faulty,
        workers=migrations.workers(connection, migration),
        pace=budgets[budget].pace,
        seconds_left=budgets[budget].seconds_until(counts[State.WAITING]),
        sending=_sending(connection, load),
        last=_last(connection, load, moved_at * 1000),
        doubts=doubtful_rows(connection, migration) if counts[State.IN_DOUBT] else DoubtfulRows(),
    )


def read_all(connection: Connection) -> list[MigrationStatus]:
    """Return where each migration stands, the one that moved last first; within a snapshot or transaction.

    Those of which a machine's clock says that they move later than now come first.
    """
    now = int(time.time() * 1e6)
    lines = connection.execute(
        "SELECT id FROM migrations ORDER BY CASE WHEN moved_at > ? THEN ? ELSE moved_at END DESC, id DESC", (now, now)
    )
    budgets: dict[str, _Budget] = {}
    return [_read(connection, migration, budgets) for (migration,) in lines]


def read_minutes(connection: Connection, budget: str, minutes: int = 60) -> list[MinutePosts]:
    """Return the POSTs of a budget in each of the last minutes, the oldest first; those without any are left out.

    They are placed by the journal's clock, so that it does not matter if that of a machine is wrong. In SQLite, this
    does not go back before the machine was booted.

    Args:
        connection: in a snapshot or transaction.
        budget: the name of the budget: `budget_of`.
        minutes: how many.
    """
    wall, now = time.time(), connection.now()
    since = (int(wall / PERIOD_SECONDS) - minutes + 1) * PERIOD_SECONDS
    begin = now - (wall - since)  # the same on the journal's clock
    period_us = int(PERIOD_SECONDS * 1e6)
    lines = connection.execute(
        "SELECT CAST((sent - ?) * 1000000 AS BIGINT) / ? AS minute, count(*),"
        " sum(CASE WHEN outcome = 'stored' THEN 1 ELSE 0 END),"
        " sum(CASE WHEN outcome = 'waiting' AND status IN (400, 429) THEN 1 ELSE 0 END), max(coalesce(allowed, ?))"
        f" {_SENT_SINCE} GROUP BY minute ORDER BY minute",
        (begin, period_us, POSTS_PER_MINUTE, budget, max(begin, _AFTER_BOOT), begin),
    )
    return [
        MinutePosts(
            at=datetime.fromtimestamp(since + minute * PERIOD_SECONDS, UTC),
            posts=posts,
            stored=stored,
            refused=refused,
            allowed=allowed,
        )
        for minute, posts, stored, refused, allowed in lines
    ]


def budget_of(connection: Connection, migration: int) -> str:
    """Return the name of the budget that the last run of a migration used; empty before the first."""
    lines = connection.execute("SELECT budget FROM migrations WHERE id = ?", (migration,))
    return str(lines[0][0]) if lines else ""


def has_dead_workers(connection: Connection) -> bool:
    """Return whether some worker is dead and `certificates.take_over` has not run since; within a snapshot."""
    return bool(connection.execute("SELECT 1 FROM workers WHERE lease_until < ? LIMIT 1", (connection.now(),)))


def _sending(connection: Connection, load: int) -> tuple[RowInProgress, ...]:
    lines = connection.execute(
        "SELECT r.number, r.file, a.sent FROM manifest_rows AS r JOIN certificates AS k ON k.id = r.certificate"
        " JOIN attempts AS a ON a.id = k.attempt WHERE r.load = ? AND r.state = 'sending'"
        " ORDER BY a.sent, r.number LIMIT ?",
        (load, _SHOWN),
    )
    now = connection.now()
    return tuple(RowInProgress(number=number, file=file, seconds=max(0.0, now - sent)) for number, file, sent in lines)


def _last(connection: Connection, load: int, moved_ns: int) -> tuple[RowOutcome, ...]:
    # Between two ids, so that a journal with a million later POSTs of other manifests is not searched. SQLite joins in
    # this order; without CROSS it would begin with all rows of the manifest.
    lines: Sequence[tuple[object, ...]] = connection.execute(
        "SELECT r.number, r.file, a.outcome, coalesce(a.answered_at, a.sent_at), a.status, a.words, a.id,"
        " CASE WHEN k.attempt = a.id AND k.state = a.outcome THEN k.reason ELSE '' END"
        " FROM attempts AS a CROSS JOIN certificates AS k CROSS JOIN manifest_rows AS r"
        " WHERE k.id = a.certificate AND r.certificate = a.certificate AND r.load = ?"
        " AND a.id >= ? AND a.id < ? AND a.outcome IS NOT NULL ORDER BY a.id DESC LIMIT ?",
        (load, _first_id(moved_ns - _RECENT_NS), _first_id(moved_ns + _LATER_NS), _LOOKED_AT),
    )
    # An id is as old as the wait for its token, and answers come in another order.
    outcomes = sorted((_outcome_of(line) for line in lines), key=lambda outcome: outcome.at, reverse=True)
    return tuple(outcomes[:_SHOWN])


def _outcome_of(line: tuple[object, ...]) -> RowOutcome:
    number, file, outcome, at, status, words, request_id, reason = line
    assert isinstance(number, int)
    assert isinstance(at, int)
    assert status is None or isinstance(status, int)
    answered = moment(at)
    assert answered is not None
    return RowOutcome(
        number=number,
        file=str(file),
        state=State(outcome),
        at=answered,
        status=status,
        words=str(words),
        request_id=str(request_id),
        reason=str(reason),
    )


def _first_id(ns: int) -> str:
    """Return what the ids of all attempts since a time are greater than; see `Claim.intent`."""
    return f"{max(0, ns):016x}"
