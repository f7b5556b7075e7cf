"""Whether the limit was kept and nothing was stored twice, as all POSTs of the journal show it.

What counts is every POST of the same host and key in the time of a migration, whatever manifest it was for. Each is
placed twice: by our clock when it was sent, and by the server's when it was answered (``Date``).

**Our clock** is that of the journal where the journal knows it, because nobody sets that clock: that of the machine
since it was started, or that of PostgreSQL. Elsewhere it is the time of day, which may be set back and differ between
machines. A POST that was answered takes a token that comes back a fixed time after the answer, which tells when it was
answered by the journal's clock.

**The server's clock** has whole seconds. Two POSTs can be in one minute only if their seconds differ by less than 60
(`springest_async.limits.bucket` says why they never are more than 30).

Where one clock has too many POSTs in a minute, and the other one shows that the first and the last of them were more
than a minute apart, a clock was set, and no limit was broken. Nothing is in memory for each POST.
"""

from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, Literal

from attrs import frozen

from springest_async.bulk.temporary import TemporaryDatabase
from springest_async.journal import history, manifest_rows
from springest_async.journal.attempts import (
    Attempt,
    Double,
    SentAgain,
    budgets_of,
    read_attempts,
    read_doubles,
    read_sent_again,
)
from springest_async.journal.certificates import microseconds, moment
from springest_async.journal.engine import Connection
from springest_async.journal.records import State
from springest_async.limits.bucket import PERIOD_SECONDS
from springest_async.limits.limiter import POSTS_PER_MINUTE
from springest_async.reports.numbers import count
from springest_async.reports.status_json import time_as_json

Verdict = Literal["kept", "exceeded", "stored twice", "nothing sent"]

_SECOND = 1_000_000  # in microseconds, in which all times are counted here
_PERIOD = round(PERIOD_SECONDS * _SECOND)
_DATED_PERIOD = _PERIOD - _SECOND + 1  # moments whose whole seconds differ by less are less than a period apart
_CLOCKS_AGREE = 2 * _SECOND  # a second of a Date is cut off, and an answer is on its way for a moment
_SET_BACK = 5 * _SECOND  # less may be the time that the journal took to write
_AT_ONCE = 1000

_POSTS = (
    "CREATE TABLE posts (budget TEXT, sent INTEGER, answered INTEGER, steady INTEGER, dated INTEGER, worker TEXT,"
    " time_of_day INTEGER, allowed INTEGER)"
)


@frozen(kw_only=True)
class Peak:
    """The most POSTs in any period, by one clock.

    Attributes:
        posts: how many.
        at: when the first of them was, by that clock (UTC), ours as it showed the time of day; None if there are none.
        seconds: how long after it the last of them was.
        allowed: how many were allowed then. A period in which more were sent comes before any other.
    """

    posts: int = 0
    at: datetime | None = None
    seconds: float = 0.0
    allowed: int = POSTS_PER_MINUTE

    @property
    def rank(self) -> tuple[int, int]:
        """By how many there were too many, and how many there were."""
        return max(0, self.posts - self.allowed), self.posts


@frozen(kw_only=True)
class Audit:
    """What all POSTs of the same host and key show, in the time of a migration and one period on each side of it.

    Attributes:
        first_at: when the first POST of the migration was sent, by the clock of its machine (UTC); None if none was.
        last_at: when its last POST was sent.
        limit: how many POSTs were allowed in any `period`; if that was changed meanwhile, in the busiest one.
        limits: all such numbers, the smallest first.
        period: seconds.
        keys: how many API keys were used: each is counted by itself.
        posts: how many POSTs have left, those of other manifests too.
        own_posts: how many of them were of this migration.
        by_our_clock: the most in any period, by the time when they were sent.
        by_server_clock: the most in any period, by the ``Date`` of their answers; None if no answer had one.
        undated: how many had no answer with a ``Date``.
        refused: how many the server refused with 400 or 429, and were sent again.
        too_fast: how many of them it refused only because they came too fast for it.
        in_doubt: how many rows are in doubt now.
        doubles: how many certificates may be stored twice.
        first_doubles: the first twenty of them.
        sent_again: how many certificates were stored, and sent again because Springest certainly did not list them
            (``springest reconcile --repair``). They are no doubles.
        first_sent_again: the first twenty of them.
        put_back: how many certificates wait to be sent again for that reason.
        set_back: by how many seconds a clock of ours was set back, at most; 0 if none was seen to be.
        disputed: whether one clock showed more POSTs in a period than were allowed, and the other that this was not so.
    """

    first_at: datetime | None
    last_at: datetime | None
    limit: int
    limits: tuple[int, ...]
    period: float
    keys: int
    posts: int
    own_posts: int
    by_our_clock: Peak
    by_server_clock: Peak | None
    undated: int
    refused: int
    too_fast: int
    in_doubt: int
    doubles: int
    first_doubles: tuple[Double, ...]
    sent_again: int
    first_sent_again: tuple[SentAgain, ...]
    put_back: int
    set_back: float
    disputed: bool

    @property
    def exceeded(self) -> bool:
        """Whether there were more POSTs in any period than allowed, by any clock."""
        return self.most > self.limit

    @property
    def most(self) -> int:
        """The most POSTs in any period, by any clock."""
        return _largest(self.by_our_clock, self.by_server_clock).posts

    @property
    def verdict(self) -> Verdict:
        """What it comes to."""
        if self.exceeded:
            return "exceeded"
        if self.doubles:
            return "stored twice"
        return "kept" if self.posts else "nothing sent"


def sentence(audit: Audit) -> str:
    """Return the verdict for people, in one line."""
    allowed = f"{audit.limit} in {audit.period:g} s are allowed"
    match audit.verdict:
        case "nothing sent":
            return "Nothing was sent, so there is nothing to audit."
        case "exceeded":
            twice = f" {_doubles(audit.doubles)}" if audit.doubles else ""
            return f"The limit was NOT kept: {_peak(audit)} ({allowed}).{twice}"
    limit = "By our count, the limit" if audit.too_fast else "The limit"
    once = "" if audit.doubles else ", and nothing was stored twice"
    but = [_too_fast(audit.too_fast)] if audit.too_fast else []
    but += [_doubles(audit.doubles)] if audit.doubles else []
    return f"{limit} was kept{once}: at most {audit.most} POSTs in any {audit.period:g} s ({allowed})." + "".join(
        f" {'Also' if number else 'But'} {words}" for number, words in enumerate(but)
    )


def notes(audit: Audit) -> list[str]:
    """Return what else a reader should know to believe the verdict, a sentence or two each."""
    said: list[str] = []
    if audit.set_back:
        said.append(
            f"The clock of a machine was set back by {audit.set_back:.0f} s or more. That changes nothing here: minutes"
            " are counted by the journal's clock, which nobody sets."
        )
    if audit.disputed:
        said.append(
            f"In places, one clock shows more than {audit.limit} POSTs in {audit.period:g} s, and another one that they"
            " were further apart: a clock was set there, and no limit was broken."
        )
    if audit.too_fast:
        said.append(
            "What Springest refuses is not stored, and it was sent again. If something else uses this key, such as"
            " another program, or this one with another journal: use one journal for all of it, or one after the other."
        )
    said += notes_on_repairs(audit)
    if len(audit.limits) > 1:
        numbers = " and ".join(map(str, audit.limits))
        said.append(f"The limit was changed meanwhile: {numbers} were allowed. Each POST is held to that of its time.")
    if audit.keys > 1:
        said.append(f"{audit.keys} API keys were used. Each has a limit of its own, and is counted by itself.")
    if audit.by_server_clock is None and audit.posts:
        said.append("No answer had a Date, so the server's clock is not known.")
    if audit.in_doubt:
        are, them = ("is", "it") if audit.in_doubt == 1 else ("are", "them")
        rows = f"{count(audit.in_doubt, 'row')} {are}"
        said.append(f"{rows} in doubt: Springest may have stored {them} or not. springest status shows {them}.")
    return said


def notes_on_repairs(audit: Audit) -> list[str]:
    """Return what was sent again because Springest did not list it, or waits for that, a sentence or two each."""
    said: list[str] = []
    if again := audit.sent_again:
        were, them, are = ("was", "it", "it is") if again == 1 else ("were", "them", "each is")
        rows = f"{count(again, 'certificate')} {were}"
        said.append(
            f"{rows} sent again (springest reconcile --repair), because Springest did not list {them} any more."
            f" springest reconcile shows whether {are} there once."
        )
    if waiting := audit.put_back:
        wait, them = ("waits", "it") if waiting == 1 else ("wait", "them")
        rows = f"{count(waiting, 'certificate')} {wait}"
        said.append(
            f"{rows} to be sent again (springest reconcile --repair), because Springest did not list {them} any more."
        )
    return said


def _largest(ours: Peak, theirs: Peak | None) -> Peak:
    return ours if theirs is None or theirs.rank <= ours.rank else theirs


def _peak(audit: Audit) -> str:
    peak = _largest(audit.by_our_clock, audit.by_server_clock)
    clock = "by our clock" if peak is audit.by_our_clock else "by the server's clock"
    return f"{peak.posts} POSTs within {peak.seconds:.1f} s from {peak.at:%Y-%m-%d %H:%M:%S} UTC {clock}"


def _too_fast(number: int) -> str:
    posts = count(number, "POST")
    return f"Springest refused {posts} as too fast: something else uses this key, or Springest counts in another way."


def _doubles(doubles: int) -> str:
    them = "it" if doubles == 1 else "them"
    return f"{count(doubles, 'certificate')} may be stored twice: look {them} up at Springest."


def as_json(audit: Audit) -> dict[str, Any]:
    """Return an audit of what JSON knows only; times are ISO 8601 in UTC, durations are seconds."""
    return {
        "verdict": audit.verdict.replace(" ", "_"),
        "sentence": sentence(audit),
        "notes": notes(audit),
        "first_at": time_as_json(audit.first_at),
        "last_at": time_as_json(audit.last_at),
        "limit": audit.limit,
        "limits": [*audit.limits],
        "period": audit.period,
        "keys": audit.keys,
        "posts": audit.posts,
        "own_posts": audit.own_posts,
        "by_our_clock": _peak_as_json(audit.by_our_clock),
        "by_server_clock": None if audit.by_server_clock is None else _peak_as_json(audit.by_server_clock),
        "undated": audit.undated,
        "refused": audit.refused,
        "too_fast": audit.too_fast,
        "in_doubt": audit.in_doubt,
        "doubles": audit.doubles,
        "first_doubles": [
            {
                "rows": [*double.rows],
                "springest_id": double.springest_id,
                "request_ids": [*double.request_ids],
            }
            for double in audit.first_doubles
        ],
        "sent_again": audit.sent_again,
        "first_sent_again": [
            {
                "rows": [*one.rows],
                "springest_id": one.springest_id,
                "missing_ids": [*one.missing_ids],
                "request_ids": [*one.request_ids],
            }
            for one in audit.first_sent_again
        ],
        "put_back": audit.put_back,
        "set_back": round(audit.set_back, 1),
        "disputed": audit.disputed,
    }


def _peak_as_json(peak: Peak) -> dict[str, Any]:
    return {"posts": peak.posts, "at": time_as_json(peak.at), "seconds": round(peak.seconds, 3)}


def read_audit(connection: Connection, migration: int) -> Audit:
    """Audit a migration. It takes seconds for each million POSTs.

    Args:
        connection: in a snapshot, which must last until it has ended.
        migration: its key.

    Raises:
        JournalError: the journal cannot be read, or the migration was erased from it.
        ConfigurationError: the folder for temporary files has no space left.
    """
    own = history.read_posts(connection, migration)
    doubles, first_doubles = read_doubles(connection, migration)
    sent_again, put_back, first_sent_again = read_sent_again(connection, migration)
    begins, ends = microseconds(own.first_at), microseconds(own.last_at)
    budgets = () if begins is None else budgets_of(connection, migration, begins)
    with _Timeline() as timeline:
        if begins is not None and ends is not None:
            timeline.add(read_attempts(connection, budgets, begins - _PERIOD, ends + _PERIOD))
        ours, by_us = timeline.most_by_our_clock()
        theirs, by_them = timeline.most_by_server_clock()
        return Audit(
            first_at=own.first_at,
            last_at=own.last_at,
            limit=_largest(ours, theirs).allowed,
            limits=tuple(sorted(timeline.limits)),
            period=PERIOD_SECONDS,
            keys=len(budgets),
            posts=timeline.posts,
            own_posts=own.posts,
            by_our_clock=ours,
            by_server_clock=theirs,
            undated=timeline.undated,
            refused=timeline.refused,
            too_fast=timeline.too_fast,
            in_doubt=manifest_rows.counts(connection, migration)[State.IN_DOUBT],
            doubles=doubles,
            first_doubles=tuple(first_doubles),
            sent_again=sent_again,
            first_sent_again=tuple(first_sent_again),
            put_back=put_back,
            set_back=timeline.set_back / _SECOND,
            disputed=by_us or by_them,
        )


@frozen
class _Post:
    """A POST on our timeline: when it was sent and answered. All times are in microseconds since 1970.

    Attributes:
        steady: whether these are times of the journal's clock.
        dated: the server's ``Date``, or None.
        time_of_day: when it was sent, as the clock of its machine had it.
        allowed: how many POSTs a period were agreed then.
    """

    budget: str
    sent: int
    answered: int | None
    steady: bool
    dated: int | None
    worker: str
    time_of_day: int
    allowed: int

    @property
    def ahead(self) -> int | None:
        """How far the server's clock was ahead of ours, when the answer came."""
        return None if self.dated is None or self.answered is None else self.dated - self.answered


class _Timeline:
    """The POSTs of an audit, in a temporary database, and what was counted of them."""

    def __init__(self) -> None:
        self.posts = self.refused = self.too_fast = self.undated = self.set_back = 0
        self.limits: set[int] = set()
        self._database = TemporaryDatabase(_POSTS)

    def __enter__(self) -> "_Timeline":
        self._database.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._database.__exit__(*raised)

    def add(self, attempts: Iterator[Attempt]) -> None:
        """Add POSTs, and place them on one timeline."""
        zero: int | None = None  # how far the journal's clock was ahead of the time of day, when that was first known
        ahead: dict[str, int] = {}  # the same, as it was known last, for each worker
        some: list[tuple[object, ...]] = []
        for attempt in attempts:
            self.posts += 1
            self.refused += attempt.refused
            self.too_fast += attempt.too_fast
            self.limits.add(attempt.allowed)
            dated = _moment_of(attempt.server_date)
            self.undated += dated is None
            sent, answered = attempt.sent_at, attempt.answered_at
            # A clock that was set while the answer was on its way tells neither when it was sent nor when answered.
            steady = attempt.ended is not None and answered is not None and answered >= sent
            if steady:
                assert attempt.ended is not None
                assert answered is not None
                ahead[attempt.worker] = round(attempt.ended * _SECOND) - answered
                zero = ahead[attempt.worker] if zero is None else zero
            shift = ahead.get(attempt.worker, zero or 0) - (zero or 0)
            some.append(
                (
                    attempt.budget,
                    sent + shift,
                    None if answered is None else answered + shift,
                    steady,
                    dated,
                    attempt.worker,
                    sent,
                    attempt.allowed,
                )
            )
            if len(some) == _AT_ONCE:
                self._write(some)
        self._write(some)

    def _write(self, some: list[tuple[object, ...]]) -> None:
        self._database.change("INSERT INTO posts VALUES (?, ?, ?, ?, ?, ?, ?, ?)", some)
        some.clear()

    def _read(self, order: str) -> Iterator[_Post]:
        for line in self._database.select(f"SELECT * FROM posts {order}"):  # noqa: S608 # one of two
            yield _Post(*line)

    def most_by_our_clock(self) -> tuple[Peak, bool]:
        """Return the most POSTs in any period by our clock, and whether the server's has contradicted it."""
        posts = self._seen(self._read("ORDER BY budget, sent"))
        return _most(posts, lambda post: post.sent, _PERIOD, _apart_by_server, lambda post: post.time_of_day)

    def most_by_server_clock(self) -> tuple[Peak | None, bool]:
        """Return the same by the server's clock; no peak if there is no Date, or a period is too short for it."""
        if _PERIOD < _SECOND:
            return None, False
        posts = self._read("WHERE dated IS NOT NULL ORDER BY budget, dated, sent")

        def dated(post: _Post) -> int:
            return post.dated or 0

        peak, disputed = _most(posts, dated, _DATED_PERIOD, _apart_by_us, dated)
        return (peak if peak.posts else None), disputed

    def _seen(self, posts: Iterator[_Post]) -> Iterator[_Post]:
        """Pass POSTs on in the order of our timeline, and note where the time of day went backward meanwhile."""
        last: dict[str, _Post] = {}  # by worker
        for post in posts:
            if post.steady:
                before = last.get(post.worker, post)
                back = before.time_of_day - post.time_of_day
                # If the server's clock went backward as well, the journal wrote down late what it had first.
                if back > _SET_BACK and (post.dated or 0) >= (before.dated or 0):
                    self.set_back = max(self.set_back, back)
                last[post.worker] = post
            yield post


def _most(
    posts: Iterator[_Post],
    time_of: Callable[[_Post], int],
    period: int,
    apart: Callable[[_Post, _Post], bool],
    shown: Callable[[_Post], int],
) -> tuple[Peak, bool]:
    """Return the most POSTs of one budget in any period, and whether `apart` has contradicted the clock somewhere.

    A period with more than were allowed when its last POST left comes before any other.

    Args:
        posts: in the order of budgets and times.
        time_of: returns the time of one.
        period: two POSTs whose times differ by less are in one period.
        apart: returns whether another clock shows that the first and the last of too many are not in one period.
        shown: returns the time of one for people, which may be set, and differ between machines.
    """
    peak, disputed = Peak(), False
    window: deque[_Post] = deque()
    for post in posts:
        if window and window[-1].budget != post.budget:
            window.clear()
        window.append(post)
        now = time_of(post)
        while now - time_of(window[0]) >= period:
            window.popleft()
        while len(window) > post.allowed and apart(window[0], post):
            window.popleft()
            disputed = True
        if (max(0, len(window) - post.allowed), len(window)) > peak.rank:
            first = window[0]
            peak = Peak(
                posts=len(window),
                at=moment(shown(first)),
                seconds=(now - time_of(first)) / _SECOND,
                allowed=post.allowed,
            )
    return peak, disputed


def _apart_by_server(first: _Post, last: _Post) -> bool:
    """Return whether the time of day was set between two POSTs, and the server's clock has them in two periods."""
    if (first.steady and last.steady) or first.dated is None or last.dated is None or _run_together(first, last):
        return False
    return last.dated - first.dated >= _DATED_PERIOD


def _apart_by_us(first: _Post, last: _Post) -> bool:
    """Return whether our clock shows that two POSTs were not in one period, though the server's says so."""
    if first.answered is None or last.sent - first.answered < _PERIOD:
        return False
    return (first.steady and last.steady) or _run_together(first, last)


def _run_together(first: _Post, last: _Post) -> bool:
    """Return whether our clock and the server's were as far apart at the one as at the other."""
    return first.ahead is not None and last.ahead is not None and abs(first.ahead - last.ahead) < _CLOCKS_AGREE


@lru_cache(maxsize=1024)
def _moment_of(date: str) -> int | None:
    """Return the time of a ``Date`` (RFC 9110, section 6.6.1), or None if it is not one."""
    try:
        at = parsedate_to_datetime(date)
        return microseconds(at if at.tzinfo else at.replace(tzinfo=UTC))
    except (ValueError, TypeError, OverflowError):
        return None
