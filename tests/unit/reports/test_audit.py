"""The audit: the most POSTs in any minute by both clocks, at the edges; clocks that were set; what is stored twice."""

import itertools
import time
import tracemalloc
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from springest_async.bulk import Manifest, OpenMigration, State
from springest_async.journal import certificates
from springest_async.journal.attempts import Attempt
from springest_async.journal.engine import Connection
from springest_async.journal.records import Outcome
from springest_async.journal.status_reader import StatusReader
from springest_async.limits.bucket import Bucket
from springest_async.reports.audit import Audit, _Timeline, as_json, notes, read_audit, sentence
from tests.bulk_runs import loaded, rows_of, settle

from .summaries import audit_of

NOON = datetime(2030, 1, 31, 12, 0, tzinfo=UTC).timestamp()
BOOT = 100_000.0  # the journal's clock at noon
_names = itertools.count()


def attempt(
    at: float,
    *,
    took: float | None = 0.0,
    steady: bool = True,
    dated: bool = True,
    our_clock: float = 0.0,
    their_clock: float = 0.0,
    worker: str = "w",
    budget: str = "b",
) -> Attempt:
    """Return a POST that was sent so many seconds after noon, and answered `took` seconds later (None: never).

    `our_clock` and `their_clock` are how far the time of day of its machine and that of the server were ahead.
    """
    sent = NOON + at + our_clock
    ended = at + (took or 0.0)
    date = format_datetime(datetime.fromtimestamp(NOON + ended + their_clock, UTC), usegmt=True)
    return Attempt(
        id=f"{next(_names):032x}",
        budget=budget,
        worker=worker,
        sent_at=round(sent * 1e6),
        answered_at=None if took is None else round((sent + took) * 1e6),
        ended=BOOT + 60.1 + ended if steady and took is not None else None,
        refused=False,
        server_date=date if dated and took is not None else "",
    )


def most(attempts: Iterable[Attempt], limit: int = 30) -> tuple[int, int | None, bool]:
    """Return the most POSTs in any minute by our clock and by the server's, and whether they contradict each other."""
    with _Timeline() as timeline:
        timeline.add(evolve(each, allowed=limit) for each in attempts)
        ours, by_us = timeline.most_by_our_clock()
        theirs, by_them = timeline.most_by_server_clock()
    return ours.posts, None if theirs is None else theirs.posts, by_us or by_them


def spread(posts: int, seconds: float) -> list[float]:
    return [number * seconds / (posts - 1) for number in range(posts)]


# --- how many in any minute ---


def test_nothing_is_in_no_minute() -> None:
    assert most([]) == (0, None, False)


@pytest.mark.parametrize("steady", [True, False])
@pytest.mark.parametrize(("seconds", "by_us"), [(59.9, 31), (59.999_99, 31), (60.0, 30), (60.1, 30)])
def test_31_in_a_minute_are_found(seconds: float, by_us: int, steady: bool) -> None:
    assert most(attempt(at, steady=steady, dated=False) for at in spread(31, seconds)) == (by_us, None, False)


@pytest.mark.parametrize(("begins", "seconds", "by_them"), [(0.0, 59.9, 31), (0.0, 60.0, 30), (0.5, 59.9, 30)])
def test_the_servers_seconds_must_differ_by_less_than_60(begins: float, seconds: float, by_them: int) -> None:
    """From 0.5 to 60.4 is less than a minute, but the Dates cannot show that."""
    assert most(attempt(begins + at, steady=False) for at in spread(31, seconds))[1] == by_them


def test_bursts_as_the_limiter_sends_them_keep_the_limit() -> None:
    posts = [attempt(minute * 60.5 + 0.3, took=0.4) for minute in range(50) for _ in range(30)]

    assert most(posts) == (30, 30, False)


def test_a_fast_server_with_slow_answers_keeps_the_limit() -> None:
    """Each token rests from its own answer, and the Dates are those of the answers."""
    took = [0.1 + number % 7 for number in range(30)]
    posts = [attempt(each + sum([60.1 + each] * minute), took=each) for minute in range(20) for each in took]

    ours, theirs, disputed = most(posts)

    assert ours <= 30
    assert theirs is not None
    assert theirs <= 30
    assert not disputed


def test_each_key_has_a_limit_of_its_own() -> None:
    posts = [attempt(at, budget=budget) for at in spread(20, 30) for budget in ("one", "other")]

    assert most(posts) == (20, 20, False)


_SECONDS = st.lists(st.floats(0, 400), max_size=80)


@given(_SECONDS, st.integers(1, 5), st.booleans())
def test_it_counts_as_each_pair_does(seconds: Sequence[float], limit: int, steady: bool) -> None:
    """What one pass counts is what one finds who looks at each minute that begins with a POST."""
    millis = [round(at * 1000) for at in seconds]

    ours, theirs, disputed = most([attempt(at / 1000, steady=steady) for at in millis], limit)

    assert ours == max((sum(0 <= b - a < 60_000 for b in millis) for a in millis), default=0)
    whole = [at // 1000 for at in millis]
    by_date = max((sum(0 <= b - a < 60 for b in whole) for a in whole), default=None)
    # Two in one minute by their seconds may be a minute apart by the milliseconds of our clock.
    assert theirs == by_date or (disputed and theirs is not None and limit <= theirs <= (by_date or 0))


# --- clocks ---


def bursts(*clocks: float, steady: bool = True, dated: bool = True) -> list[Attempt]:
    """Return a burst of 30 in each minute, of which the clock of the machine was so many seconds ahead."""
    return [
        attempt(minute * 60.5 + number / 100, took=0.2, our_clock=ahead, steady=steady, dated=dated)
        for minute, ahead in enumerate(clocks)
        for number in range(30)
    ]


@pytest.mark.parametrize("back", [20.0, 60.5, 90.0, 3600.0])
@pytest.mark.parametrize("dated", [True, False])
def test_a_clock_set_back_is_told_and_is_no_breach(back: float, dated: bool) -> None:
    with _Timeline() as timeline:
        timeline.add(iter(bursts(0, 0, -back, -back, dated=dated)))
        peak, disputed = timeline.most_by_our_clock()

    assert (peak.posts, disputed) == (30, False)
    assert timeline.set_back / 1e6 == (pytest.approx(back - 60.5, abs=0.5) if back > 70 else 0)


def test_without_the_journals_clock_the_server_shows_it() -> None:
    """The machine was restarted since, so what the journal knew of its clock is gone."""
    assert most(bursts(0, 0, -60, -60, steady=False)) == (30, 30, True)
    assert most(bursts(0, 0, -60, -60, steady=False, dated=False)) == (60, None, False)  # nothing shows it


def test_machines_whose_clocks_differ_break_no_limit() -> None:
    posts = [
        attempt(minute * 60.5 + number / 100, took=0.2, our_clock=3.0 * machine, worker=f"w{machine}")
        for minute in range(9)
        for number in range(30)
        for machine in [minute % 3]
    ]

    assert most(posts) == (30, 30, False)


@pytest.mark.parametrize("ahead", [-2.0, -59.0, -3600.0])
def test_a_servers_clock_set_back_is_no_breach(ahead: float) -> None:
    posts = [
        attempt(minute * 60.5 + number / 100, took=0.2, their_clock=ahead * (minute >= 2))
        for minute in range(5)
        for number in range(30)
    ]

    assert most(posts) == (30, 30, ahead != -3600.0)


@pytest.mark.parametrize(("steady", "by_us"), [(True, 31), (False, 16)])
def test_a_clock_set_forward_hides_no_breach(steady: bool, by_us: int) -> None:
    posts = [attempt(at, our_clock=3600.0 * (at > 20), steady=steady) for at in spread(31, 40)]

    assert most(posts) == (by_us, 31, False)


def test_a_breach_remains_one_while_the_journal_is_slow() -> None:
    """Its answers are noted late, by up to seven seconds."""
    posts = [attempt(at, took=0.1) for at in spread(40, 50)]
    late = [evolve(post, ended=(post.ended or 0.0) + number % 8) for number, post in enumerate(posts)]

    ours, theirs, disputed = most(late)

    assert ours >= 31
    assert (theirs, disputed) == (40, False)


def test_a_journal_that_was_away_is_no_clock_set_back() -> None:
    """It writes down late, and at once, what was answered at different times meanwhile."""
    posts = [attempt(0, took=0.3), attempt(1, took=0.3), attempt(8, took=20.0), attempt(70)]
    late = [evolve(post, ended=BOOT + 60.1 + 35) if post.sent_at < (NOON + 60) * 1e6 else post for post in posts]
    with _Timeline() as timeline:
        timeline.add(iter(late))
        timeline.most_by_our_clock()

    assert timeline.set_back == 0


def test_the_busiest_minute_is_told_by_the_time_of_day() -> None:
    """The machine was switched off for a night, and the journal's clock knows nothing of that."""
    night = 20 * 3600.0
    days = [attempt(at, took=0.1) for at in spread(10, 50)], [attempt(night + at, worker="next") for at in range(30)]
    started = [evolve(post, ended=(post.ended or 0.0) - night + 300) for post in days[1]]
    with _Timeline() as timeline:
        timeline.add(iter([*days[0], *started]))
        peak, _ = timeline.most_by_our_clock()

    assert (peak.posts, peak.at) == (30, datetime.fromtimestamp(NOON + night, UTC))


def test_a_post_without_an_answer_is_placed_by_its_neighbours() -> None:
    """Its machine's clock was set back by an hour before it was sent."""
    posts = [*bursts(0, 0, -3600), attempt(2 * 60.5 + 1, took=None, our_clock=-3600.0)]

    assert most(posts)[0] == 31
    assert most([*bursts(0, 0, -60.5), attempt(3 * 60.5, took=None, our_clock=-60.5)])[0] == 30


@pytest.mark.parametrize("date", ["", "yesterday", "Thu, 31 Jan 2030 25:00:00 GMT", "Thu, 31 Jan 99999 12:00:00 GMT"])
def test_a_date_that_is_none_is_not_counted(date: str) -> None:
    with _Timeline() as timeline:
        timeline.add(iter([evolve(attempt(0), server_date=date)]))

        assert timeline.most_by_server_clock() == (None, False)
        assert (timeline.posts, timeline.undated) == (1, 1)


def test_many_posts_need_little_memory() -> None:
    def peak_of(posts: int) -> int:
        tracemalloc.start()
        most(attempt(number * 2.1, took=0.3) for number in range(posts))
        (_, peak) = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    peak_of(2_000)  # what is made once

    assert peak_of(12_000) < peak_of(4_000) + 500_000


def test_thousands_are_set_apart_in_all_notes() -> None:
    audit = audit_of(in_doubt=1000, sent_again=2000, put_back=3000, doubles=4000, too_fast=5000)
    text = " ".join([sentence(audit), *notes(audit)])

    for words in (
        "1 000 rows are in doubt",
        "2 000 certificates were sent again",
        "3 000 certificates wait to be sent again",
        "4 000 certificates may be stored twice: look them up",
        "refused 5 000 POSTs as too fast",
    ):
        assert words in text


# --- of a journal ---


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return rows_of(tmp_path, 40)


async def audited(migration: OpenMigration) -> Audit:
    async with StatusReader(migration.journal) as reader:
        return await reader.read(lambda connection: read_audit(connection, migration.id))


async def plant(
    migration: OpenMigration,
    posts: Sequence[Attempt],
    *,
    outcome: str = "stored",
    status: int = 201,
    allowed: int | None = None,
) -> None:
    """Write POSTs of the first rows in place of those of `settle`."""

    def write(connection: Connection) -> None:
        keys = connection.execute("SELECT certificate FROM manifest_rows ORDER BY number")
        for post, (certificate,) in zip(posts, keys, strict=False):
            connection.execute(
                "INSERT INTO attempts (id, certificate, budget, worker, back_at, sent_at, sent, answered_at, outcome,"
                " status, server_date, allowed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    post.id,
                    certificate,
                    post.budget,
                    post.worker,
                    post.ended or 0.0,
                    post.sent_at,
                    post.sent_at / 1_000_000,
                    post.answered_at,
                    outcome,
                    status,
                    post.server_date,
                    allowed,
                ),
            )

    await migration.journal.run(write)


def ask_for(posts: int, bucket: Bucket, now: float) -> float:
    bucket.limits[posts] = now + 1
    return 0.0


async def stored(migration: OpenMigration) -> None:
    """Store all rows, and forget their POSTs."""
    for number in range(1, 41):
        await settle(migration, State.STORED, springest_id=5000 + number)
    await migration.journal.run(lambda connection: connection.execute("DELETE FROM attempts"))


async def test_nothing_was_sent(manifest: Manifest) -> None:
    async with loaded(manifest) as migration:
        audit = await audited(migration)

    assert (audit.verdict, audit.posts, audit.first_at, audit.by_server_clock) == ("nothing sent", 0, None, None)
    assert sentence(audit) == "Nothing was sent, so there is nothing to audit."
    assert notes(audit) == []


async def test_a_journal_that_kept_the_limit(manifest: Manifest) -> None:
    async with loaded(manifest) as migration:
        await stored(migration)
        await plant(migration, [attempt(at, took=0.5) for at in (*[0.0] * 30, *[60.6] * 10)])
        audit = await audited(migration)

    assert (audit.verdict, audit.posts, audit.own_posts, audit.keys, audit.limit) == ("kept", 40, 40, 1, 30)
    assert (audit.first_at, audit.last_at) == tuple(datetime.fromtimestamp(NOON + at, UTC) for at in (0, 60.6))
    assert (audit.refused, audit.undated, audit.in_doubt, audit.doubles) == (0, 0, 0, 0)
    assert sentence(audit) == (
        "The limit was kept, and nothing was stored twice: at most 30 POSTs in any 60 s (30 in 60 s are allowed)."
    )
    assert notes(audit) == []


async def test_31_in_a_minute_are_no_proof(manifest: Manifest) -> None:
    async with loaded(manifest) as migration:
        await stored(migration)
        await plant(migration, [attempt(at) for at in spread(31, 59.9)])
        audit = await audited(migration)

    assert (audit.verdict, audit.by_our_clock.posts, audit.most) == ("exceeded", 31, 31)
    assert sentence(audit) == (
        "The limit was NOT kept: 31 POSTs within 59.9 s from 2030-01-31 12:00:00 UTC by our clock"
        " (30 in 60 s are allowed)."
    )
    assert as_json(audit)["by_our_clock"] == {
        "posts": 31,
        "at": "2030-01-31T12:00:00.000+00:00",
        "seconds": 59.9,
    }


async def test_a_breach_by_the_servers_clock_is_said_as_such(manifest: Manifest) -> None:
    """Our clock was set forward; and one certificate was stored twice, too."""
    async with loaded(manifest) as migration:
        await stored(migration)
        await plant(migration, [attempt(at, our_clock=3600.0 * (at > 20), steady=False) for at in spread(31, 40)])
        await plant(migration, [attempt(8000)])
        audit = await audited(migration)

    assert sentence(audit) == (
        "The limit was NOT kept: 31 POSTs within 40.0 s from 2030-01-31 12:00:00 UTC by the server's clock"
        " (30 in 60 s are allowed). 1 certificate may be stored twice: look it up at Springest."
    )


async def test_what_a_reader_should_know_is_noted(manifest: Manifest) -> None:
    """A clock was set back, and two keys were used."""
    async with loaded(manifest) as migration:
        await stored(migration)
        posts = [attempt(number * 2.0, our_clock=-90.0 * (number > 15)) for number in range(31)]
        await plant(migration, [*posts, attempt(70, budget="another")])
        audit = await audited(migration)

    assert (audit.keys, audit.verdict) == (2, "kept")
    assert [each.split(".")[0] for each in notes(audit)] == [
        "The clock of a machine was set back by 88 s or more",
        "2 API keys were used",
    ]


async def test_contradictions_are_noted(manifest: Manifest) -> None:
    async with loaded(manifest) as migration:
        await stored(migration)
        burst = [attempt(number / 100) for number in range(20)]
        later = [attempt(61 + number / 100, their_clock=-30.0) for number in range(20)]
        await plant(migration, burst + later)
        audit = await audited(migration)

    assert (audit.verdict, audit.disputed, audit.by_our_clock.posts) == ("kept", True, 20)
    (note,) = notes(audit)
    assert note == (
        "In places, one clock shows more than 30 POSTs in 60 s, and another one that they were further apart: a clock"
        " was set there, and no limit was broken."
    )


async def test_thousands_of_posts_are_read_in_turn(manifest: Manifest) -> None:
    async with loaded(manifest) as migration:
        await stored(migration)
        await plant(migration, [attempt(0), attempt(9000)])
        await migration.journal.run(
            lambda connection: connection.execute(
                "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 3000)"
                " INSERT INTO attempts (id, certificate, budget, worker, back_at, sent_at, outcome, status)"
                " SELECT 'x' || n, 999999, 'b', 'other', 1, sent_at + n * 2500000, 'stored', 201 FROM numbers,"
                " (SELECT min(sent_at) AS sent_at FROM attempts)"
            )
        )
        audit = await audited(migration)

    assert (audit.posts, audit.by_our_clock.posts, audit.undated) == (3002, 24, 3000)


async def test_what_others_sent_on_the_same_key_counts(manifest: Manifest) -> None:
    """Up to a minute before and after; not what another key sent, nor what never left."""
    async with loaded(manifest) as migration:
        await stored(migration)
        await plant(migration, [attempt(at) for at in spread(20, 30)])
        others = [attempt(at) for at in (*spread(11, 29), -50, -61, 89, 91)]
        others += [attempt(at, budget="another") for at in spread(20, 30)]

        def write(connection: Connection) -> None:
            for other in others:
                connection.execute(
                    "INSERT INTO attempts (id, certificate, budget, worker, back_at, sent_at, outcome, status)"
                    " VALUES (?, 999999, ?, 'other', 1.0, ?, 'stored', 201)",
                    (other.id, other.budget, other.sent_at),
                )
            connection.execute(
                "INSERT INTO attempts (id, certificate, budget, worker, back_at, sent_at, outcome)"
                " SELECT 'never left ' || id, 999999, 'b', 'other', 0, sent_at, 'waiting' FROM attempts"
            )

        await migration.journal.run(write)
        audit = await audited(migration)

    assert (audit.posts, audit.own_posts, audit.by_our_clock.posts) == (33, 20, 31)


@pytest.mark.parametrize(
    ("agreed", "limit"),
    [(None, 30), (30, 30), (10, 30), (60, 60)],  # who asks for fewer than 30 is only careful
)
async def test_the_limit_is_what_was_agreed(agreed: int | None, limit: int, manifest: Manifest) -> None:
    async with loaded(manifest) as migration:
        await stored(migration)
        await plant(migration, [attempt(0)], allowed=agreed)
        audit = await audited(migration)

    assert (audit.limit, audit.limits) == (limit, (limit,))


@pytest.mark.parametrize(("earlier", "exceeded"), [(60, False), (30, True)])
@pytest.mark.parametrize("later", [30, 60])
async def test_each_post_is_held_to_the_limit_of_its_time(
    earlier: int, exceeded: bool, later: int, manifest: Manifest
) -> None:
    """Who uses the budget now changes nothing of what was sent before."""
    async with loaded(manifest) as migration:
        await stored(migration)
        await plant(migration, [attempt(at) for at in spread(35, 10)], allowed=earlier)
        await migration.journal.ledger("b").change(partial(ask_for, later))
        await migration.journal.run(lambda connection: connection.execute("UPDATE attempts SET certificate = 1"))
        await plant(migration, [attempt(1000 + at) for at in range(3)], allowed=later)
        audit = await audited(migration)

    assert (audit.exceeded, audit.most, audit.limit) == (exceeded, 35, earlier)
    assert any("The limit was changed meanwhile" in note for note in notes(audit)) == (earlier != later)


async def test_the_worst_minute_is_the_one_with_too_many(manifest: Manifest) -> None:
    """More were sent in another one, when more were agreed."""
    async with loaded(manifest) as migration:
        await stored(migration)
        await plant(migration, [attempt(at) for at in spread(40, 10)], allowed=60)
        await plant(migration, [attempt(1000 + at) for at in spread(32, 10)])
        audit = await audited(migration)

    assert sentence(audit).startswith(
        "The limit was NOT kept: 32 POSTs within 10.0 s from 2030-01-31 12:16:40 UTC by our clock"
        " (30 in 60 s are allowed)."
    )


async def test_a_certificate_that_two_posts_stored(manifest: Manifest) -> None:
    async with loaded(manifest) as migration:
        await stored(migration)
        twice = [attempt(0), attempt(5)]
        await plant(migration, twice[:1])
        await plant(migration, twice[1:])
        audit = await audited(migration)

    (double,) = audit.first_doubles
    assert (audit.verdict, audit.doubles) == ("stored twice", 1)
    assert (double.rows, double.springest_id, double.request_ids) == ((2,), None, tuple(post.id for post in twice))
    assert "But 1 certificate may be stored twice: look it up at Springest." in sentence(audit)


async def test_of_many_doubles_the_first_are_shown(manifest: Manifest) -> None:
    async with loaded(manifest) as migration:
        await stored(migration)
        await plant(migration, [attempt(0) for _ in range(30)])
        await plant(migration, [attempt(100) for _ in range(30)])
        audit = await audited(migration)

    assert (audit.doubles, len(audit.first_doubles)) == (30, 20)
    assert [double.rows for double in audit.first_doubles] == [(number,) for number in range(2, 22)]


async def test_one_id_of_springests_for_two_certificates(manifest: Manifest) -> None:
    async with loaded(manifest) as migration:
        await settle(migration, State.STORED, State.STORED, State.STORED, springest_id=77)
        await settle(migration, State.STORED, springest_id=78)
        audit = await audited(migration)

    (double,) = audit.first_doubles
    assert (double.rows, double.springest_id, len(double.request_ids)) == ((2, 3, 4), 77, 3)
    assert as_json(audit)["first_doubles"][0]["rows"] == [2, 3, 4]


async def test_refusals_and_doubts_are_counted(manifest: Manifest) -> None:
    async with loaded(manifest) as migration:
        await settle(migration, State.STORED, State.IN_DOUBT)
        await plant(migration, [attempt(0), attempt(1)], outcome="waiting", status=400)
        await plant(migration, [attempt(2)], outcome="rejected", status=422)
        audit = await audited(migration)

    assert (audit.refused, audit.in_doubt) == (2, 1)
    assert notes(audit)[-1].startswith("1 row is in doubt")


async def test_refusals_of_what_was_stored_later_were_for_speed(manifest: Manifest) -> None:
    """Something else used the key, so Springest refused what this journal sent within the limit."""
    async with loaded(manifest) as migration:
        await stored(migration)
        await plant(migration, [attempt(number) for number in range(4)], outcome="waiting", status=400)
        await plant(migration, [attempt(100 + number) for number in range(2)])
        await plant(migration, [attempt(200 + number) for number in range(3)], outcome="rejected", status=400)
        await plant(migration, [attempt(300)], outcome="waiting", status=429)
        audit = await audited(migration)

    assert (audit.verdict, audit.refused, audit.too_fast) == ("kept", 5, 3)
    assert sentence(audit) == (
        "By our count, the limit was kept, and nothing was stored twice: at most 4 POSTs in any 60 s (30 in 60 s are"
        " allowed). But Springest refused 3 POSTs as too fast: something else uses this key, or Springest counts in"
        " another way."
    )
    assert notes(audit)[0].startswith("What Springest refuses is not stored, and it was sent again.")
    assert as_json(audit)["too_fast"] == 3


async def test_the_journals_clock_tells_what_was_sent_later(manifest: Manifest) -> None:
    """The clock of the machine was set back, so the id of the POST that was stored comes before that of the refused."""
    async with loaded(manifest) as migration:
        await stored(migration)
        await plant(migration, [evolve(attempt(0), id="9")], outcome="waiting", status=400)
        await plant(migration, [evolve(attempt(100), id="1")])
        audit = await audited(migration)

    assert (audit.refused, audit.too_fast) == (1, 1)


async def test_refusals_of_what_is_invalid_say_nothing_of_speed(manifest: Manifest) -> None:
    async with loaded(manifest) as migration:
        await stored(migration)
        await plant(migration, [attempt(0), attempt(1)], outcome="waiting", status=400)
        await plant(migration, [attempt(100)], outcome="rejected", status=400)
        audit = await audited(migration)

    assert (audit.refused, audit.too_fast) == (2, 0)
    assert sentence(audit).startswith("The limit was kept, and nothing was stored twice: ")


async def test_a_late_answer_that_doubles_is_found(manifest: Manifest) -> None:
    """A POST was given up and the certificate sent again, and then both were stored after all."""
    async with loaded(manifest) as migration:
        await settle(migration, State.IN_DOUBT)
        await migration.resolve([2], State.WAITING)
        await settle(migration, State.STORED)
        ((first,),) = await migration.journal.run(
            lambda connection: connection.execute("SELECT id FROM attempts WHERE outcome = 'in doubt'")
        )
        outcome = Outcome(attempt=first, state=State.STORED, answered_at=datetime.now(UTC) + timedelta(hours=1))
        await migration.journal.run(partial(certificates.end, outcome=outcome))
        audit = await audited(migration)

    assert audit.doubles == 1


async def sent_again(migration: OpenMigration) -> None:
    """Put what is stored back to waiting, as `springest reconcile --repair` does."""

    def change(connection: Connection) -> None:
        missing = connection.execute("SELECT id, attempt FROM certificates WHERE state = 'stored'")
        certificates.send_missing_again(connection, missing)

    await migration.journal.run(change)


async def test_what_a_repair_sent_again_is_no_double(manifest: Manifest) -> None:
    """The first answer said that it is stored, and Springest certainly did not list it later."""
    async with loaded(manifest) as migration:
        await settle(migration, State.STORED, springest_id=77)
        await sent_again(migration)
        before = await audited(migration)
        await settle(migration, State.STORED, springest_id=78)
        audit = await audited(migration)

    assert (before.doubles, before.sent_again, before.put_back) == (0, 0, 1)
    assert notes(before)[0] == (
        "1 certificate waits to be sent again (springest reconcile --repair), because Springest did not list it any"
        " more."
    )
    (one,) = audit.first_sent_again
    assert (audit.verdict, audit.doubles, audit.sent_again, audit.put_back) == ("kept", 0, 1, 0)
    assert (one.rows, one.missing_ids, one.springest_id, len(one.request_ids)) == ((2,), (77,), 78, 2)
    assert as_json(audit)["first_sent_again"][0]["missing_ids"] == [77]
    assert notes(audit)[0] == (
        "1 certificate was sent again (springest reconcile --repair), because Springest did not list it any more."
        " springest reconcile shows whether it is there once."
    )


async def test_a_clock_set_back_hides_nothing_sent_again(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ids begin with the time of day, so that of the second POST comes before that of the first."""
    earlier = time.time_ns() - 5 * 3600 * 10**9
    async with loaded(manifest) as migration:
        await settle(migration, State.STORED, springest_id=77)
        await sent_again(migration)
        monkeypatch.setattr(time, "time_ns", lambda: earlier)
        await settle(migration, State.STORED, springest_id=78)
        audit = await audited(migration)

    (one,) = audit.first_sent_again
    assert (audit.sent_again, audit.put_back, audit.doubles) == (1, 0, 0)
    assert (one.missing_ids, one.springest_id) == ((77,), 78)
    assert one.request_ids == tuple(sorted(one.request_ids, reverse=True))


async def test_what_was_refused_after_a_repair_waits(manifest: Manifest) -> None:
    """Something else uses the key, so it is sent once more; and then it is refused for good."""
    async with loaded(manifest) as migration:
        await settle(migration, State.STORED, springest_id=77)
        await sent_again(migration)
        await again(migration, "waiting")
        refused = await audited(migration)
        await settle(migration, State.REJECTED)
        rejected = await audited(migration)

    assert (refused.sent_again, refused.put_back) == (0, 1)
    assert (rejected.sent_again, rejected.put_back) == (1, 0)


async def test_a_double_is_one_before_and_after_a_repair(manifest: Manifest) -> None:
    """Nobody has looked for the id of its first POST, and a repair sends once."""
    async with loaded(manifest) as migration:
        await settle(migration, State.STORED, springest_id=77)
        await again(migration, "stored")
        before = await audited(migration)
        await sent_again(migration)
        await settle(migration, State.STORED, springest_id=78)
        repaired = await audited(migration)

    assert (before.verdict, before.doubles) == ("stored twice", 1)
    assert (repaired.verdict, repaired.doubles, repaired.sent_again) == ("stored twice", 1, 1)


async def test_what_is_stored_twice_after_a_repair_is_a_double(manifest: Manifest) -> None:
    async with loaded(manifest) as migration:
        await settle(migration, State.STORED, springest_id=77)
        await sent_again(migration)
        await settle(migration, State.STORED, springest_id=78)
        await again(migration, "stored")
        audit = await audited(migration)

    assert (audit.verdict, audit.doubles, audit.sent_again) == ("stored twice", 1, 1)


async def test_a_doubt_before_a_repair_doubles_nothing(manifest: Manifest) -> None:
    """The last POST is in doubt, and an earlier one has stored the certificate after all."""
    async with loaded(manifest) as migration:
        await settle(migration, State.STORED, springest_id=77)
        await again(migration, "in doubt")
        await migration.journal.run(
            lambda connection: connection.execute("UPDATE certificates SET attempt = (SELECT max(id) FROM attempts)")
        )
        await sent_again(migration)
        await settle(migration, State.STORED, springest_id=78)
        audit = await audited(migration)

    assert (audit.doubles, audit.sent_again) == (0, 1)


async def again(migration: OpenMigration, outcome: str) -> None:
    """Add a POST of each certificate that ended so, after those that there are."""
    await migration.journal.run(
        lambda connection: connection.execute(
            "INSERT INTO attempts (id, certificate, budget, worker, back_at, sent_at, sent, answered_at, outcome)"
            " SELECT max(id) || '+', certificate, '', 'other', 0, max(sent_at), max(sent), max(sent_at), ?"
            " FROM attempts"
            " GROUP BY certificate",
            (outcome,),
        )
    )


async def test_what_was_found_listed_and_sent_again_is_no_double(manifest: Manifest) -> None:
    """No answer said that it is stored, but Springest's lists did."""
    async with loaded(manifest) as migration:
        await settle(migration, State.IN_DOUBT)
        await migration.resolve([2], State.STORED)
        await sent_again(migration)
        await settle(migration, State.STORED, springest_id=78)
        audit = await audited(migration)

    assert (audit.verdict, audit.doubles, audit.sent_again) == ("kept", 0, 1)
