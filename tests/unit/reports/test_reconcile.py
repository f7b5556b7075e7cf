"""What differs between a migration and Springest's lists: every planted difference is found, and none is invented."""

import itertools
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from springest_async import Forbidden, NoAnswer, ServerError
from springest_async.bulk import OpenMigration, State
from springest_async.journal import certificates
from springest_async.journal.certificates import microseconds
from springest_async.journal.engine import Connection
from springest_async.records import Certificate, User
from springest_async.reports import matching
from springest_async.reports.matching import Doubt, Finding, Kind, Why
from springest_async.reports.reconcile import Reconciliation
from tests.bulk_runs import LATER, settle
from tests.folders import folder_in_memory

from .lists import Lists, certificate, compared, fails_with, sent, set_ids, set_times

STORED, REJECTED, IN_DOUBT, WAITING, SENDING = (
    State.STORED,
    State.REJECTED,
    State.IN_DOUBT,
    State.WAITING,
    State.SENDING,
)
JAN = "a.pdf;7;jan@example.org;2026-01-31;"
AN = "b.pdf;7;an@example.org;2026-01-31;"
AS_JAN, AS_AN = certificate(17), certificate(18, "an@example.org")


async def kinds(
    folder: Path, lists: Lists, *rows: str, states: Sequence[State] = (), **ids: int
) -> tuple[dict[int | None, str], Reconciliation]:
    """Compare stored rows (or in other `states`) with lists; return the kind of each row, and the comparison."""
    async with sent(folder, *rows) as migration:
        await settle(migration, *(states or [STORED] * len(rows)))
        await set_times(migration)
        await set_ids(migration, **ids)
        async with compared(migration, lists) as comparison:
            return {found.row: found.kind.value for found in comparison.findings()}, comparison


async def found(folder: Path, lists: Lists, *rows: str, **options: object) -> dict[int | None, str]:
    return (await kinds(folder, lists, *rows, **options))[0]  # type: ignore[arg-type] # they are those of `kinds`


async def test_a_row_is_shown_by_its_id(tmp_path: Path) -> None:
    assert await found(tmp_path, Lists([AS_JAN]), JAN, a=17) == {2: "stored and shown"}


@pytest.mark.parametrize("ids", [{}, {"a": 99}], ids=["no id", "an id that is not listed"])
async def test_a_row_is_shown_by_its_person_and_dates(tmp_path: Path, ids: dict[str, int]) -> None:
    lists = Lists([certificate(17, "Jan@Example.org")])
    assert await found(tmp_path, lists, JAN, **ids) == {2: "stored and shown"}


async def test_a_row_that_is_not_listed_is_missing(tmp_path: Path) -> None:
    shown, comparison = await kinds(tmp_path, Lists([AS_AN]), JAN, AN, a=17, b=18)
    assert shown == {2: "missing", 3: "stored and shown"}
    assert (comparison.differences, comparison.is_whole) == (1, False)
    assert comparison.not_compared == []


async def test_a_certification_that_is_not_shown_shows_nothing(tmp_path: Path) -> None:
    shown, comparison = await kinds(tmp_path, Lists([], certifications=(8,)), JAN, a=17)
    assert shown == {2: "stored, not shown"}
    assert (comparison.differences, comparison.is_whole) == (0, False)


@pytest.mark.parametrize("others", [True, False])
async def test_without_a_key_a_certification_is_shown_by_others(tmp_path: Path, others: bool) -> None:
    """Whenever they were created."""
    before = certificate(3, "an@example.org", created_at=LATER - timedelta(days=100))
    lists = Lists([before] if others else [], certifications=None)
    assert await found(tmp_path, lists, JAN, a=17) == {2: "missing" if others else "stored, not shown"}


async def test_other_dates_by_the_id(tmp_path: Path) -> None:
    lists = Lists([certificate(17, valid_until=date(2027, 1, 31))])
    assert await found(tmp_path, lists, JAN, a=17) == {2: "other dates"}


async def test_other_dates_of_an_unknown_id(tmp_path: Path) -> None:
    lists = Lists([certificate(17, valid_from=date(2025, 1, 31))])
    assert await found(tmp_path, lists, JAN) == {2: "other dates"}


async def test_what_was_created_before_is_not_the_row_with_other_dates(tmp_path: Path) -> None:
    earlier = certificate(17, valid_from=date(2025, 1, 31), created_at=LATER - timedelta(days=1, hours=1))
    assert await found(tmp_path, Lists([earlier, AS_AN]), JAN) == {2: "missing", None: "not ours"}


@pytest.mark.parametrize("change", [{"user": User(email="jansen@example.org")}, {"certification_id": 8}])
async def test_an_id_of_another_person_or_certification(tmp_path: Path, change: dict[str, Any]) -> None:
    lists = Lists([evolve(AS_JAN, **change)], filters=False)
    assert await found(tmp_path, lists, JAN, a=17) == {2: "other person"}


async def test_more_than_was_sent_is_doubled(tmp_path: Path) -> None:
    async with sent(tmp_path, JAN) as migration:
        await settle(migration, STORED, springest_id=17)
        await set_times(migration)
        async with compared(migration, Lists([AS_JAN, certificate(19)])) as comparison:
            shown, doubled = comparison.findings()

    assert (shown.kind, shown.row, shown.listed and shown.listed.id) == (Kind.SHOWN, 2, 17)
    assert (doubled.kind, doubled.row, doubled.listed and doubled.listed.id) == (Kind.DOUBLED, 2, 19)
    assert comparison.counts == {Kind.SHOWN: 1, Kind.DOUBLED: 1, Kind.NOT_OURS: 0}


async def test_what_nobody_has_sent_is_not_ours(tmp_path: Path) -> None:
    shown = await found(tmp_path, Lists([AS_JAN, certificate(19, "x@example.org")]), JAN, a=17)
    assert shown == {2: "stored and shown", None: "not ours"}


async def test_of_other_certifications_and_times_nobody_is_told(tmp_path: Path) -> None:
    """Also where the server ignores what it is asked for."""
    early = certificate(19, "x@example.org", created_at=LATER - timedelta(days=9))
    lists = Lists([AS_JAN, early, certificate(20, "x@example.org", certification_id=8)], filters=False)
    assert await found(tmp_path, lists, JAN, a=17) == {2: "stored and shown"}


async def test_what_another_manifest_has_sent_is_its_own(tmp_path: Path) -> None:
    async with sent(tmp_path, JAN, AN) as migration:
        await settle(migration, STORED, STORED)
        await set_times(migration)
        await set_ids(migration, b=18)
        await migration.journal.run(lambda connection: connection.execute("DELETE FROM manifest_rows WHERE number = 3"))
        async with compared(migration, Lists([AS_JAN, AS_AN])) as comparison:
            assert [one.kind for one in comparison.findings()] == [Kind.SHOWN]


@pytest.mark.parametrize(
    ("state", "kind", "unlisted"),
    [
        (IN_DOUBT, "shown, not stored", "in doubt"),
        (REJECTED, "shown, not stored", "not stored"),
        (WAITING, "shown, not stored", "not stored"),
        (SENDING, "being sent", "being sent"),
    ],
)
async def test_rows_that_are_not_stored(tmp_path: Path, state: State, kind: str, unlisted: str) -> None:
    """What is being sent may be listed already; and of a row in doubt nobody knows that it is not stored."""
    shown = await found(tmp_path, Lists([AS_JAN, AS_AN]), JAN, AN, states=[state, STORED])
    assert shown == {2: kind, 3: "stored and shown"}
    (tmp_path / "a journal.sqlite3").unlink()
    shown = await found(tmp_path, Lists([AS_AN]), JAN, AN, states=[state, STORED])
    assert shown == {2: unlisted, 3: "stored and shown"}


@pytest.mark.parametrize(
    ("certification", "confirmed", "marked"),
    [(7, "missing", "marked stored, missing"), (9, "stored, not shown", "marked stored, not shown")],
)
async def test_what_a_person_marked_as_stored_is_told_apart(
    tmp_path: Path, certification: int, confirmed: str, marked: str
) -> None:
    """Springest has never answered that it is stored, and nobody knows its id."""
    by_answer = f"a.pdf;{certification};jan@example.org;2026-01-31;"
    by_person = f"c.pdf;{certification};piet@example.org;2026-01-31;"
    async with sent(tmp_path, by_answer, by_person, AN) as migration:
        await settle(migration, STORED, IN_DOUBT, STORED)
        await migration.resolve([3], State.STORED)
        await set_times(migration)
        async with compared(migration, Lists([AS_AN])) as comparison:
            shown = {found.row: found.kind.value for found in comparison.findings()}
            differences = comparison.differences

    assert shown == {2: confirmed, 3: marked, 4: "stored and shown"}
    assert differences == (2 if certification == 7 else 0)


async def test_what_a_person_marked_may_be_shown(tmp_path: Path) -> None:
    async with sent(tmp_path, JAN) as migration:
        await settle(migration, IN_DOUBT)
        await migration.resolve([2], State.STORED)
        await set_times(migration)
        async with compared(migration, Lists([AS_JAN])) as comparison:
            assert comparison.is_whole


async def test_rows_with_one_certificate_are_counted_each(tmp_path: Path) -> None:
    _, comparison = await kinds(tmp_path, Lists([AS_JAN]), JAN, JAN, a=17, states=[STORED])
    assert comparison.counts[Kind.SHOWN] == 1
    assert comparison.counts[Kind.NOT_STORED] == 1


async def test_nothing_is_asked_where_nothing_was_sent(tmp_path: Path) -> None:
    lists = Lists([AS_JAN])
    async with sent(tmp_path, JAN) as migration, Reconciliation(migration, lists.springest()) as comparison:
        await comparison.read_rows()
        assert await comparison.count_requests() == 0
        await comparison.fetch()
        assert (comparison.since, comparison.counts[Kind.NOT_STORED], lists.asked) == (None, 1, [])


async def test_what_was_stored_meanwhile_is_not_compared(tmp_path: Path) -> None:
    lists = Lists([certificate(20, "x@example.org")])
    async with sent(tmp_path, JAN, AN) as migration, Reconciliation(migration, lists.springest()) as comparison:
        await settle(migration, STORED)
        await set_times(migration)
        await comparison.read_rows()
        await settle(migration, STORED)
        await comparison.count_requests()
        await comparison.fetch()
        first, second, _ = comparison.findings()

    assert (first.kind, second.kind) == (Kind.MISSING, Kind.NOT_COMPARED)
    assert comparison.not_compared == ["what was stored while Springest was asked: run the same command again (1 row)"]


def _answered(connection: Connection, at: int | None) -> None:
    connection.execute("UPDATE certificates SET answered_at = ?", (at,))


async def test_what_was_answered_just_now_is_not_certainly_missing(tmp_path: Path) -> None:
    """The server may still work on what it has answered."""
    async with sent(tmp_path, JAN, AN) as migration:
        await settle(migration, STORED, STORED)
        await set_times(migration)
        await set_ids(migration, a=17, b=18)
        for answered, certain in ((datetime.now(UTC), 0), (LATER, 1)):
            at = microseconds(answered)
            await migration.journal.run(partial(_answered, at=at))
            async with compared(migration, Lists([AS_AN])) as comparison:
                assert (comparison.counts[Kind.MISSING], comparison.count_missing()) == (1, certain)
                assert comparison.doubts == ({} if certain else {Doubt.SETTLING: 1})


# --- lists that cannot be had, or not whole ---


async def test_many_rows_that_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "reasons", lambda _: {Why.INCOMPLETE: 1000})
    _, comparison = await kinds(tmp_path, Lists([AS_JAN]), JAN)
    assert comparison.not_compared == ["what may be in a list that was not read whole (1 000 rows)"]


async def test_a_list_of_unknown_length_misses_nothing(tmp_path: Path) -> None:
    shown, comparison = await kinds(tmp_path, Lists([AS_AN], says_totals=False), JAN, AN)
    assert shown == {2: "not compared", 3: "stored and shown"}
    assert comparison.not_compared == [
        "what Springest lists of certification 7 (nobody knows how long the list is)",
        "what may be in a list that was not read whole (1 row)",
    ]


@pytest.mark.parametrize("says_totals", [True, False])
async def test_a_list_without_end_ends(tmp_path: Path, says_totals: bool) -> None:
    """Each page of it is full of other certificates, and its length grows."""
    lists = Lists([AS_AN, *(certificate(n, f"x{n}@example.org") for n in range(100, 300))], says_totals=says_totals)
    numbers = itertools.count(1000)

    def grow() -> None:
        lists.certificates += [certificate(n, f"x{n}@example.org") for n in itertools.islice(numbers, 100)]

    lists.between = grow
    shown, comparison = await kinds(tmp_path, lists, JAN, AN)
    assert (shown[2], shown[3]) == ("not compared", "stored and shown")
    assert 100 < comparison.asked < 200


async def test_a_server_that_ignores_the_offset_misses_nothing(tmp_path: Path) -> None:
    people = [certificate(number, f"x{number}@example.org") for number in range(100, 250)]
    shown, comparison = await kinds(tmp_path, Lists([*people, AS_JAN], offsets=False), JAN, AN)
    assert (shown[2], shown[3]) == ("not compared", "not compared")
    assert "the list has other certificates at each reading" in comparison.not_compared[0]


async def test_a_server_that_ignores_filters_is_read_once(tmp_path: Path) -> None:
    other = "c.pdf;8;jan@example.org;2026-01-31;"
    more = [certificate(number, f"x{number}@example.org", certification_id=9) for number in range(100, 350)]
    lists = Lists([AS_JAN, certificate(19, certification_id=8), *more], filters=False)
    shown = await found(tmp_path, lists, JAN, AN, other)
    assert shown == {2: "stored and shown", 3: "missing", 4: "stored and shown"}
    assert [query for query in lists.asked if "count" not in query and query.get("certification_id") == 8] == []


async def test_a_list_that_fails_leaves_the_others(tmp_path: Path) -> None:
    other = "c.pdf;8;jan@example.org;2026-01-31;"
    error = ServerError("GET https://api.springest.nl/users/certificates.json", 500, "went wrong")
    lists = Lists([AS_AN], failing=fails_with(error, certification_id=8))
    shown, comparison = await kinds(tmp_path, lists, JAN, AN, other)
    assert shown == {2: "missing", 3: "stored and shown", 4: "not compared"}
    assert comparison.not_compared[0] == f"what Springest lists of certification 8 ({error})"
    assert not comparison.is_whole


async def test_nobody_is_asked_again_after_a_connection_broke(tmp_path: Path) -> None:
    rows = [f"{key}.pdf;{key};jan@example.org;2026-01-31;" for key in (7, 8, 9)]
    error = NoAnswer("GET https://api.springest.nl/users/certificates.json", "the connection broke")

    def fail(query: dict[str, object]) -> None:
        if query.get("certification_id") == 8 and "count" not in query:
            raise error

    lists = Lists([certificate(17)], failing=fail, certifications=(7, 8, 9))
    shown, comparison = await kinds(tmp_path, lists, *rows)
    assert shown == {2: "stored and shown", 3: "not compared", 4: "not compared"}
    assert comparison.not_compared[0] == (
        f"what Springest lists of certification 8 and of all that come after it ({error})"
    )


@pytest.mark.parametrize("query", [{"certification_id": 7}, {"count": True}])
async def test_a_refused_key_ends_it(tmp_path: Path, query: dict[str, object]) -> None:
    error = Forbidden("GET somewhere", 403, "no")
    with pytest.raises(Forbidden):
        await kinds(tmp_path, Lists([], failing=fails_with(error, **query)), JAN)


async def test_certifications_that_cannot_be_listed(tmp_path: Path) -> None:
    error = Forbidden("GET certifications", 403, "no")
    shown, comparison = await kinds(tmp_path, Lists([], failing=fails_with(error, certifications=True)), JAN)
    assert shown == {2: "not compared"}
    assert comparison.not_compared[0] == f"whether Springest shows the certifications ({error})"


async def test_a_certificate_of_nobody_may_be_anybodys(tmp_path: Path) -> None:
    shown, comparison = await kinds(tmp_path, Lists([certificate(19, None)], filters=False), JAN)
    assert shown == {2: "not compared"}
    assert "do not say whose they are (1 row)" in comparison.not_compared[0]


async def test_a_certificate_of_nobody_is_known_by_its_id(tmp_path: Path) -> None:
    assert await found(tmp_path, Lists([certificate(17, None)], filters=False), JAN, a=17) == {2: "stored and shown"}


@pytest.mark.parametrize("newest_first", [True, False])
async def test_pages_that_shift_while_they_are_read(tmp_path: Path, newest_first: bool) -> None:
    """Others are stored, at either end of the list, and what was there is found all the same."""
    rows = [f"{n}.pdf;7;employee{n}@example.org;2026-01-31;" for n in range(25)]
    lists = Lists([certificate(100 + n, f"employee{n}@example.org") for n in range(25)], page=5)
    numbers = itertools.count(1000)

    def store() -> None:
        number = next(numbers)
        lists.certificates.insert(0 if newest_first else 10**6, certificate(number, f"x{number}@example.org"))
        if number > 1015:
            lists.between = lambda: None

    lists.between = store
    _, comparison = await kinds(tmp_path, lists, *rows)
    assert comparison.counts[Kind.SHOWN] == 25
    assert set(comparison.counts) - {Kind.SHOWN, Kind.NOT_OURS, Kind.DOUBLED} == set()


async def test_a_page_that_shifts_by_a_removal_is_read_again(tmp_path: Path) -> None:
    """What was removed meanwhile is listed or missing; what moved to a page that was read before is not missing."""
    rows = [f"{n}.pdf;7;employee{n}@example.org;2026-01-31;" for n in range(25)]
    lists = Lists([certificate(100 + n, f"employee{n}@example.org") for n in range(25)], page=5)

    def remove() -> None:
        lists.between = lambda: None
        del lists.certificates[0]

    lists.between = remove
    _, comparison = await kinds(tmp_path, lists, *rows)
    assert comparison.counts == {Kind.SHOWN: 25, Kind.DOUBLED: 0, Kind.NOT_OURS: 0}


# --- in few requests ---


async def test_certifications_are_asked_for_since_the_first_post(tmp_path: Path) -> None:
    lists = Lists([AS_JAN, AS_AN])
    async with sent(tmp_path, JAN, AN) as migration:
        await settle(migration, STORED, STORED)
        await set_times(migration)
        async with Reconciliation(migration, lists.springest()) as comparison:
            await comparison.read_rows()
            assert await comparison.count_requests() == 2
            await comparison.fetch()
            assert comparison.asked == 2

    since = {"certification_id": 7, "created_from": date(2026, 1, 29)}
    assert lists.asked == [since | {"count": True}, since]


async def test_few_people_are_asked_for_where_lists_are_long(tmp_path: Path) -> None:
    others = [certificate(number, f"x{number}@example.org") for number in range(100, 1201)]
    lists = Lists([AS_JAN, *others])
    shown, comparison = await kinds(tmp_path, lists, JAN, AN, a=17)
    assert shown == {2: "stored and shown", 3: "missing"}
    assert comparison.asked == 1 + 2
    assert (comparison.by_person, comparison.not_compared) == (True, [])


async def test_nothing_asked_for_by_person_is_certain(tmp_path: Path) -> None:
    """Jan has another address at Springest, so the list of his old one is empty; the list of all people shows him."""
    others = [certificate(number, f"x{number}@example.org") for number in range(100, 1201)]
    lists = Lists([certificate(17, "jansen@example.org"), AS_AN, *others])
    async with sent(tmp_path, JAN, AN) as migration:
        await settle(migration, STORED, STORED)
        await set_times(migration)
        await set_ids(migration, a=17, b=18)
        async with compared(migration, lists) as comparison:
            by_person = [(one.row, one.kind, one.certain) for one in comparison.findings()]
            assert (comparison.by_person, comparison.count_missing()) == (True, 0)
            assert comparison.doubts == {Doubt.BY_PERSON: 1}
        async with Reconciliation(migration, lists.springest()) as comparison:
            await comparison.read_rows()
            await comparison.count_requests(before_repair=True)
            await comparison.fetch()
            rows = {one.row: one.kind for one in comparison.findings()}
            assert (comparison.by_person, comparison.count_missing()) == (False, 0)

    assert by_person == [(2, Kind.MISSING, False), (3, Kind.SHOWN, False)]
    assert (rows[2], rows[3]) == (Kind.OTHER_PERSON, Kind.SHOWN)


async def test_what_was_sent_again_is_asked_for_of_all_people(tmp_path: Path) -> None:
    """It may be there twice: under another address it has the id that was not listed before."""
    others = [certificate(number, f"x{number}@example.org") for number in range(100, 1201)]
    lists = Lists([AS_JAN, certificate(11, "jansen@example.org"), *others])
    async with sent(tmp_path, JAN) as migration:
        await settle(migration, STORED, springest_id=11)
        await migration.journal.run(
            lambda connection: certificates.send_missing_again(
                connection, connection.execute("SELECT id, attempt FROM certificates")
            )
        )
        await settle(migration, STORED, springest_id=17)
        await set_times(migration)
        async with compared(migration, lists) as comparison:
            shown, doubled = comparison.findings(Kind.SHOWN, Kind.DOUBLED)

    assert not comparison.by_person
    assert (shown.row, shown.listed and shown.listed.id) == (2, 17)
    assert (doubled.row, doubled.file, doubled.listed and doubled.listed.id) == (2, "a.pdf", 11)
    assert doubled.email == "jansen@example.org"


async def test_people_who_are_not_asked_for_end_that(tmp_path: Path) -> None:
    others = [certificate(number, f"x{number}@example.org") for number in range(100, 1201)]
    lists = Lists([AS_JAN, *others], filters=False)
    shown, comparison = await kinds(tmp_path, lists, JAN, AN, a=17)
    assert (shown[2], shown[3]) == ("stored and shown", "missing")
    assert comparison.counts[Kind.NOT_OURS] == 1101


async def test_the_day_before_the_clock_was_right_is_asked_for(tmp_path: Path) -> None:
    """A machine was weeks ahead when it sent: what the server said counts."""
    async with sent(tmp_path, JAN) as migration:
        await settle(migration, STORED, springest_id=17)
        await set_times(migration, LATER + timedelta(days=40))
        await migration.journal.run(
            lambda connection: connection.execute("UPDATE attempts SET server_date = 'Sat, 31 Jan 2026 12:30:04 GMT'")
        )
        async with compared(migration, Lists([AS_JAN])) as comparison:
            assert comparison.counts[Kind.SHOWN] == 1
            assert comparison.since == date(2026, 1, 29)


# --- what is sent again ---


async def test_what_is_certainly_missing_waits_again(tmp_path: Path) -> None:
    async with sent(tmp_path, JAN, AN) as migration:
        await settle(migration, STORED, STORED)
        await set_times(migration)
        await set_ids(migration, a=17, b=18)
        async with compared(migration, Lists([AS_AN])) as comparison:
            assert comparison.count_missing() == 1
            assert await comparison.send_again() == 0  # it was not looked for
            await comparison.look_for_missing()
            assert await comparison.send_again() == 1
        counts = await migration.counts()
        (waiting,) = await migration.entries(WAITING)

    assert counts == {STORED: 1, WAITING: 1}
    assert (waiting.number, waiting.springest_id) == (2, None)


@pytest.mark.parametrize(
    "listed",
    [
        certificate(99, valid_from=date(2026, 2, 1)),
        certificate(99, valid_from=date(2026, 2, 1), created_at=None),
        certificate(99, valid_from=date(2025, 2, 1), created_at=LATER - timedelta(days=1, hours=2)),
    ],
)
async def test_what_may_be_listed_is_not_certainly_missing(tmp_path: Path, listed: Certificate) -> None:
    async with sent(tmp_path, JAN) as migration:
        await settle(migration, STORED, springest_id=17)
        await set_times(migration)
        async with compared(migration, Lists([listed, AS_AN])) as comparison:
            assert comparison.count_missing() == 0


async def test_two_that_look_the_same_are_not_told_apart(tmp_path: Path) -> None:
    """Nobody knows which of two certificates without an id is the one that is listed."""
    async with sent(tmp_path, JAN, "z.pdf;7;jan@example.org;2026-01-31;", AN) as migration:
        await settle(migration, STORED, STORED, STORED)
        await set_times(migration)
        await set_ids(migration, b=18)
        async with compared(migration, Lists([AS_JAN, AS_AN])) as comparison:
            assert (comparison.counts[Kind.MISSING], comparison.count_missing()) == (1, 0)
        await set_ids(migration, a=17, z=19)
        async with compared(migration, Lists([AS_JAN, AS_AN])) as comparison:
            assert (comparison.counts[Kind.MISSING], comparison.count_missing()) == (1, 1)


@pytest.mark.parametrize(
    ("appeared", "kind"),
    [
        (AS_JAN, Kind.SHOWN),
        (certificate(17, certification_id=8), Kind.OTHER_PERSON),  # somebody has moved it to another certification
        (certificate(17, valid_from=date(2026, 2, 1)), Kind.OTHER_DATES),
        (certificate(99), Kind.MISSING),
        (certificate(99, created_at=LATER - timedelta(days=400)), Kind.MISSING),
        (certificate(99, valid_from=date(2026, 2, 1)), Kind.MISSING),
    ],
)
async def test_what_is_listed_when_asked_for_is_not_sent_again(
    tmp_path: Path, appeared: Certificate, kind: Kind
) -> None:
    """The whole list was complete, and yet it was not: the person is asked for once more, whenever it was created."""
    lists = Lists([AS_AN])
    async with sent(tmp_path, JAN, AN) as migration:
        await settle(migration, STORED, STORED)
        await set_times(migration)
        await set_ids(migration, a=17, b=18)
        async with compared(migration, lists) as comparison:
            assert comparison.count_missing() == 1
            lists.certificates.append(appeared)
            await comparison.look_for_missing()
            (one,) = comparison.found_after_all()
            assert await comparison.send_again() == 0
            assert (comparison.count_missing(), comparison.counts[kind]) == (0, 2 if kind is Kind.SHOWN else 1)

    assert (one.row, one.kind, one.listed and one.listed.id) == (2, kind, appeared.id)
    assert comparison.doubts == ({Doubt.MAY_BE_LISTED: 1} if kind is Kind.MISSING else {})
    assert comparison.is_whole == (kind is Kind.SHOWN)


async def test_its_id_is_looked_for_on_all_pages(tmp_path: Path) -> None:
    """What comes before it may be it too, as far as anybody knows."""
    lists = Lists([AS_AN], page=1)
    async with sent(tmp_path, JAN, AN) as migration:
        await settle(migration, STORED, STORED)
        await set_times(migration)
        await set_ids(migration, a=17, b=18)
        async with compared(migration, lists) as comparison:
            lists.certificates += [certificate(99), certificate(17, certification_id=8)]
            await comparison.look_for_missing()
            (one,) = comparison.found_after_all()

    assert (one.kind, one.listed and one.listed.id) == (Kind.OTHER_PERSON, 17)


async def test_what_was_found_before_a_failure_stays_found(tmp_path: Path) -> None:
    piet = "c.pdf;7;piet@example.org;2026-01-31;"
    lists = Lists([AS_AN])
    async with sent(tmp_path, JAN, AN, piet) as migration:
        await settle(migration, STORED, STORED, STORED)
        await set_times(migration)
        await set_ids(migration, a=17, b=18, c=19)
        async with compared(migration, lists) as comparison:
            assert comparison.count_missing() == 2
            lists.certificates.append(certificate(17, certification_id=8))
            lists.failing = fails_with(
                NoAnswer("GET /users/certificates", "the connection broke"), email="piet@example.org"
            )
            with pytest.raises(NoAnswer):
                await comparison.look_for_missing()
            assert (comparison.counts[Kind.OTHER_PERSON], comparison.count_missing()) == (1, 1)
            assert await comparison.send_again() == 0


async def test_what_has_no_id_is_not_certainly_missing(tmp_path: Path) -> None:
    """Springest may list the person under another address, and nobody can find it by its id."""
    async with sent(tmp_path, JAN, AN) as migration:
        await settle(migration, STORED, STORED)
        await set_times(migration)
        await set_ids(migration, b=18)
        async with compared(migration, Lists([AS_AN])) as comparison:
            assert (comparison.counts[Kind.MISSING], comparison.count_missing()) == (1, 0)
            assert comparison.doubts == {Doubt.NO_ID: 1}


@pytest.mark.parametrize("more", [{}, {"an@example.org": LATER - timedelta(days=100)}, {"x@example.org": LATER}])
async def test_a_certification_without_a_known_one_misses_none(tmp_path: Path, more: dict[str, datetime]) -> None:
    """Springest may list others of it, and none of ours to this key."""
    listed = [certificate(99, email, created_at=at) for email, at in more.items()]
    async with sent(tmp_path, JAN) as migration:
        await settle(migration, STORED)
        await set_times(migration)
        await set_ids(migration, a=17)
        async with compared(migration, Lists(listed, certifications=(7,))) as comparison:
            assert (comparison.counts[Kind.MISSING], comparison.count_missing()) == (1, 0)
            assert comparison.doubts == {Doubt.NONE_LISTED: 1}


@pytest.mark.parametrize(
    ("listed", "certain"),
    [
        (certificate(19, "jansen@example.org"), 0),
        (certificate(19, "jansen@example.org", created_at=None), 0),
        (certificate(19, "jansen@example.org", created_at=LATER - timedelta(days=1, hours=2)), 0),
        (certificate(19, "jansen@example.org", valid_from=date(2026, 2, 1)), 1),
        (certificate(19, "an@example.org"), 0),  # doubled
    ],
)
async def test_what_is_of_no_row_may_be_what_is_missing(tmp_path: Path, listed: Certificate, certain: int) -> None:
    """The person may have got another address, and the clock that sent it may have been ahead."""
    async with sent(tmp_path, JAN, AN) as migration:
        await settle(migration, STORED, STORED)
        await set_times(migration)
        await set_ids(migration, a=17, b=18)
        async with compared(migration, Lists([AS_AN, listed])) as comparison:
            assert (comparison.counts[Kind.MISSING], comparison.count_missing()) == (1, certain)
            assert comparison.doubts == ({} if certain else {Doubt.MAY_BE_LISTED: 1})


async def test_another_key_misses_nothing(tmp_path: Path) -> None:
    """A key sees the certifications that Springest configured for it."""
    async with sent(tmp_path, JAN) as migration:
        await settle(migration, STORED)
        await set_times(migration)
        await set_ids(migration, a=17)
        async with compared(migration, Lists([], budget="of another key")) as comparison:
            assert comparison.is_of_other_key
            assert [one.kind for one in comparison.findings()] == [Kind.NOT_COMPARED]
            assert comparison.not_compared == [
                "what was sent with another API key, as far as Springest may not list it to this one (1 row)"
            ]
        async with compared(migration, Lists([])) as comparison:
            assert not comparison.is_of_other_key


async def test_another_key_that_sees_others_is_not_certain(tmp_path: Path) -> None:
    """The key was changed, perhaps."""
    async with sent(tmp_path, JAN, AN) as migration:
        await settle(migration, STORED, STORED)
        await set_times(migration)
        await set_ids(migration, a=17, b=18)
        async with compared(migration, Lists([AS_AN], budget="of another key")) as comparison:
            assert (comparison.counts[Kind.SHOWN], comparison.counts[Kind.MISSING]) == (1, 1)
            assert (comparison.doubts, comparison.count_missing()) == ({Doubt.OTHER_KEY: 1}, 0)


@pytest.mark.parametrize("change", [{"says_totals": False}, {"filters": False}])
async def test_a_doubtful_answer_sends_nothing_again(tmp_path: Path, change: dict[str, bool]) -> None:
    lists = Lists([AS_AN])
    async with sent(tmp_path, JAN, AN) as migration:
        await settle(migration, STORED, STORED)
        await set_times(migration)
        await set_ids(migration, a=17, b=18)
        async with compared(migration, lists) as comparison:
            for name, value in change.items():
                setattr(lists, name, value)
            await comparison.look_for_missing()
            assert comparison.doubts == {Doubt.UNCLEAR: 1}
            assert await comparison.send_again() == 0


async def test_an_older_certificate_of_the_person_is_another(tmp_path: Path) -> None:
    old = certificate(3, valid_from=date(2020, 1, 31), created_at=LATER - timedelta(days=2000))
    async with sent(tmp_path, JAN, AN) as migration:
        await settle(migration, STORED, STORED)
        await set_times(migration)
        await set_ids(migration, a=17, b=18)
        async with compared(migration, Lists([old, AS_AN])) as comparison:
            await comparison.look_for_missing()
            assert comparison.count_missing() == 1


# --- what was planted is found ---

Plant = st.sampled_from(
    [
        "shown by id",
        "shown by looks",
        "under another id",
        "missing",
        "other dates by id",
        "other dates",
        "other person",
        "doubled",
        "not shown",
        "in doubt, shown",
        "in doubt",
        "rejected, shown",
        "waiting",
    ]
)
_EXPECTED = {
    "shown by id": (STORED, Kind.SHOWN),
    "shown by looks": (STORED, Kind.SHOWN),
    "under another id": (STORED, Kind.SHOWN),
    "missing": (STORED, Kind.MISSING),
    "other dates by id": (STORED, Kind.OTHER_DATES),
    "other dates": (STORED, Kind.OTHER_DATES),
    "other person": (STORED, Kind.OTHER_PERSON),
    "doubled": (STORED, Kind.SHOWN),
    "not shown": (STORED, Kind.NOT_SHOWN),
    "in doubt, shown": (IN_DOUBT, Kind.NOT_EXPECTED),
    "in doubt": (IN_DOUBT, Kind.IN_DOUBT),
    "rejected, shown": (REJECTED, Kind.NOT_EXPECTED),
    "waiting": (WAITING, Kind.NOT_STORED),
}


_LISTED_BY_ID = ("shown by id", "other dates by id", "other person", "doubled")
_UNCLAIMED = ("other dates", "doubled")  # of which it is not known that they are of another row


def _listed(number: int, plant: str) -> list[Certificate]:
    """Return what Springest lists of row `number`."""
    one = certificate(number, f"employee{number}@example.org", certification_id=7 + number % 2)
    match plant:
        case "shown by id" | "shown by looks" | "in doubt, shown" | "rejected, shown":
            return [one]
        case "under another id":
            return [evolve(one, id=number + 5000)]
        case "other dates by id" | "other dates":
            return [evolve(one, valid_until=date(2030, 1, 1))]
        case "other person":
            return [evolve(one, user=User(email=f"new{number}@example.org"))]
        case "doubled":
            return [one, evolve(one, id=number + 9000)]
    return []


async def _plant(migration: OpenMigration, plants: Sequence[str]) -> None:
    for number, plant in enumerate(plants, start=2):
        state, _ = _EXPECTED[plant]
        if state is not WAITING:
            await settle(migration, state)
        if plant not in ("shown by looks", "other dates") and state is STORED:
            await set_ids(migration, **{str(number): number})
    await set_times(migration)


@given(st.lists(Plant, max_size=12), st.integers(0, 3), st.randoms(use_true_random=False))
@settings(max_examples=40)
async def test_each_planted_difference_is_found_and_none_invented(
    plants: list[str], foreign: int, order: Random
) -> None:
    plants.sort(key=lambda plant: _EXPECTED[plant][0] is WAITING)  # the first that wait are settled first
    rows = [
        f"{n}.pdf;{9 if plant == 'not shown' else 7 + n % 2};employee{n}@example.org;2026-01-31;"
        for n, plant in enumerate(plants, start=2)
    ]
    listed = [one for n, plant in enumerate(plants, start=2) for one in _listed(n, plant)]
    keys = {7 + n % 2 for n, plant in enumerate(plants, start=2) if plant != "not shown"}
    sent_some = any(_EXPECTED[plant][0] is not WAITING for plant in plants)
    foreign = foreign if keys and sent_some else 0
    listed += [certificate(7000 + n, f"x{n}@example.org", certification_id=min(keys)) for n in range(foreign)]
    order.shuffle(listed)
    with folder_in_memory() as folder:
        async with sent(folder, *rows) as migration:
            await _plant(migration, plants)
            async with compared(migration, Lists(listed, page=5)) as comparison:
                findings = list(comparison.findings())

    def of(found: Finding) -> tuple[int | None, Kind]:
        return found.row, found.kind

    expected: Counter[tuple[int | None, Kind]] = Counter(
        (n, _EXPECTED[plant][1]) for n, plant in enumerate(plants, start=2)
    )
    expected.update((n, Kind.DOUBLED) for n, plant in enumerate(plants, start=2) if plant == "doubled")
    expected.update({(None, Kind.NOT_OURS): foreign})
    assert Counter(map(of, findings)) == +expected
    assert comparison.not_compared == []
    assert comparison.is_whole == (foreign == 0 and all(plant.startswith(("shown", "under")) for plant in plants))
    certain = [found.row for found in findings if found.certain]
    assert (
        certain
        == [
            n
            for n, plant in enumerate(plants, start=2)
            if plant == "missing"
            and any(other in _LISTED_BY_ID for other in plants[n % 2 :: 2])  # of the same certification
            and not any(other in _UNCLAIMED for other in plants[n % 2 :: 2])
            and not (foreign and 7 + n % 2 == min(keys))
        ]
    )


@given(st.lists(st.booleans(), min_size=1, max_size=5), st.integers(0, 6))
@settings(max_examples=20)
async def test_a_listed_certificate_stands_for_one_row(has_id: list[bool], listed: int) -> None:
    """Of certificates that look the same, as many are shown as are listed, whoever's ids are known."""
    rows = [f"{n}.pdf;7;jan@example.org;2026-01-31;" for n in range(len(has_id))]
    with folder_in_memory() as folder:
        async with sent(folder, *rows) as migration:
            await settle(migration, *[STORED] * len(rows))
            await set_times(migration)
            await set_ids(migration, **{str(n): 100 + n for n, known in enumerate(has_id) if known})
            lists = Lists([certificate(100 + n) for n in range(listed)])
            async with compared(migration, lists) as comparison:
                counts = comparison.counts

    shown = min(len(rows), listed)
    assert +counts == +Counter(
        {Kind.SHOWN: shown, Kind.MISSING: len(rows) - shown, Kind.DOUBLED: max(0, listed - len(rows))}
    )
