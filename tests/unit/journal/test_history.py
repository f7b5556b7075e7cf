"""What a journal tells of all rows and POSTs of a migration: who counts, when, and in which stretch of time."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from springest_async.bulk import Manifest, OpenMigration, State
from springest_async.journal import certificates, history
from springest_async.journal.certificates import microseconds, moment
from springest_async.journal.engine import Connection
from springest_async.journal.history import AllPosts, AnswerTime, RowHistory
from springest_async.journal.status_reader import StatusReader
from springest_async.reports.summary import outcomes_of
from tests.bulk_runs import found, loaded, rows_of, settle

T = TypeVar("T")

NOON = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)
_names = itertools.count()


async def _read(migration: OpenMigration, job: Callable[[Connection], T]) -> T:
    async with StatusReader(migration.journal) as reader:
        return await reader.read(job)


async def _posts(migration: OpenMigration) -> AllPosts:
    return await _read(migration, lambda connection: history.read_posts(connection, migration.id))


async def _rows(migration: OpenMigration, *states: State) -> list[RowHistory]:
    return await _read(migration, lambda connection: list(history.read_rows(connection, migration.id, *states)))


async def _plant(
    migration: OpenMigration,
    number: int,
    at: datetime,
    outcome: str | None,
    *,
    status: int | None = None,
    took: float | None = None,
    left: bool = True,
) -> None:
    """Write a POST of a row, as one that was sent then and answered so many seconds later."""
    answered = None if took is None else microseconds(at + timedelta(seconds=took))
    await migration.journal.run(
        lambda connection: connection.execute(
            "INSERT INTO attempts (id, certificate, budget, worker, counted_until, back_at, sent_at, answered_at,"
            " outcome, status, words) SELECT ?, certificate, 'b', 'w', ?, ?, ?, ?, ?, ?, ? FROM manifest_rows"
            " WHERE number = ?",
            (
                f"{next(_names):032x}",
                1.0 if left and outcome is None else None,
                1.0 if left else 0.0,
                microseconds(at),
                answered,
                outcome,
                status,
                f"said {status}",
                number,
            ),
        )
    )


async def _known_before(migration: OpenMigration) -> None:
    """Make the certificates older than the migration."""
    await migration.journal.run(
        lambda connection: connection.execute("UPDATE migrations SET last_before = (SELECT max(id) FROM certificates)")
    )


async def _without_posts(migration: OpenMigration) -> None:
    await migration.journal.run(lambda connection: connection.execute("DELETE FROM attempts"))


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return rows_of(tmp_path, 6)


async def test_a_migration_that_has_sent_nothing(manifest: Manifest) -> None:
    async with loaded(manifest) as migration:
        posts = await _posts(migration)
        stretches = await _read(
            migration, lambda connection: history.read_stretches(connection, migration.id, posts, 60)
        )
        times = await _read(migration, lambda connection: history.read_answer_times(connection, migration.id))
        rows = await _rows(migration)

    assert (posts.posts, posts.first_at, posts.last_at, posts.others) == (0, None, None, 0)
    assert (stretches, times) == ([], [])
    assert [(row.number, row.file, row.state, row.tries) for row in rows] == [
        (number, f"{number - 1}.pdf", State.WAITING, 0) for number in range(2, 8)
    ]


async def test_an_empty_manifest_has_a_history(tmp_path: Path) -> None:
    async with loaded(rows_of(tmp_path, 1)) as migration:
        await migration.journal.run(lambda connection: connection.execute("DELETE FROM manifest_rows"))

        assert (await _posts(migration)).posts == 0
        assert await _rows(migration) == []


async def test_posts_are_counted_by_their_outcome(manifest: Manifest) -> None:
    async with loaded(manifest) as migration:
        await settle(migration, *[State.STORED] * 6)
        await _without_posts(migration)
        await _plant(migration, 2, NOON, "waiting", status=400, took=0.2)
        await _plant(migration, 2, NOON + timedelta(minutes=2), "stored", status=201, took=0.234)
        await _plant(migration, 3, NOON, "rejected", status=400, took=3.25)
        await _plant(migration, 4, NOON, "in doubt")
        await _plant(migration, 5, NOON, None)
        await _plant(migration, 6, NOON, "waiting", left=False)
        await _plant(migration, 6, NOON - timedelta(days=36500), "stored", status=201, took=1)  # for another manifest
        await _known_before(migration)
        posts = await _posts(migration)
        times = await _read(migration, lambda connection: history.read_answer_times(connection, migration.id))

    assert (posts.posts, posts.stored, posts.rejected, posts.refused, posts.unanswered) == (5, 1, 1, 1, 1)
    assert posts.others == 1  # it is under way
    assert (posts.first_at, posts.last_at) == (NOON, NOON + timedelta(minutes=2))
    assert times == [AnswerTime(0.2, 0.21, 1), AnswerTime(0.23, 0.24, 1), AnswerTime(3.2, 3.3, 1)]


async def test_a_post_that_left_counts_after_a_reboot(manifest: Manifest) -> None:
    """The clock of the journal begins anew then, and all tokens are back at 0."""
    async with loaded(manifest) as migration:
        await settle(migration, State.STORED)
        await _without_posts(migration)
        for outcome, status in (("stored", 201), ("in doubt", None), ("waiting", 400)):
            await _plant(migration, 2, NOON, outcome, status=status, left=False)

        assert (await _posts(migration)).posts == 3


async def test_an_answer_before_its_post_took_no_time(manifest: Manifest) -> None:
    """A clock that is set back makes it seem so."""
    async with loaded(manifest) as migration:
        await settle(migration, State.STORED)
        await _without_posts(migration)
        await _plant(migration, 2, NOON, "stored", status=201, took=-5)
        await _plant(migration, 2, NOON, "stored", status=201, took=5000)
        times = await _read(migration, lambda connection: history.read_answer_times(connection, migration.id))

    assert times == [AnswerTime(0.0, 0.01, 1), AnswerTime(1000.0, 2000.0, 1)]


async def test_rows_with_one_certificate_share_its_posts(tmp_path: Path) -> None:
    changes = {2: {"file": "1.pdf", "email": "employee1@example.org"}}
    async with loaded(rows_of(tmp_path, 2, changes)) as migration:
        await settle(migration, State.STORED)
        await migration.journal.run(
            lambda connection: connection.execute(
                "UPDATE manifest_rows SET state = 'stored', certificate = (SELECT max(certificate) FROM manifest_rows)"
            )
        )

        assert (await _posts(migration)).posts == 1
        assert [row.tries for row in await _rows(migration)] == [1, 1]


@pytest.mark.parametrize(
    ("minutes", "width", "stretches"),
    [(0, 1, 1), (59, 1, 60), (60, 2, 31), (23 * 1440, 720, 47), (100 * 365 * 1440, 890848, 60)],
)
async def test_stretches_are_as_long_as_is_usual(minutes: int, width: int, stretches: int, manifest: Manifest) -> None:
    async with loaded(manifest) as migration:
        await settle(migration, State.STORED)
        await _without_posts(migration)
        last = NOON + timedelta(minutes=minutes)
        for _ in range(3):
            await _plant(migration, 2, NOON + timedelta(seconds=59.9), "waiting", status=400)
        await _plant(migration, 2, last, "stored", status=201)
        posts = await _posts(migration)
        found = await _read(migration, lambda connection: history.read_stretches(connection, migration.id, posts, 60))

    assert {stretch.minutes for stretch in found} == {width}
    assert len(found) == stretches
    assert sum(stretch.posts for stretch in found) == 4
    assert (found[0].busiest, found[0].refused, found[-1].stored) == (3 if minutes else 4, 3, 1)
    assert found[0].at <= NOON
    assert found[-1].at <= last < found[-1].at + timedelta(minutes=width)


async def test_a_row_has_the_answer_that_decided(manifest: Manifest) -> None:
    async with loaded(manifest) as migration:
        await settle(migration, State.STORED, springest_id=4711)
        await _without_posts(migration)
        await _plant(migration, 2, NOON, "waiting", status=400, took=1)
        await _plant(migration, 2, NOON + timedelta(minutes=1), "stored", status=201, took=1)
        await _plant(migration, 2, NOON + timedelta(minutes=2), "in doubt")
        stored, *_ = await _rows(migration)

    assert (stored.state, stored.springest_id, stored.tries) == (State.STORED, 4711, 3)
    assert (stored.first_sent_at, stored.last_sent_at) == (NOON, NOON + timedelta(minutes=2))
    assert (stored.answered_at, stored.status, stored.words) == (NOON + timedelta(seconds=61), 201, "said 201")
    assert stored.request_id


async def test_rows_are_found_by_their_states(manifest: Manifest) -> None:
    wanted = (State.REJECTED, State.STORED, State.IN_DOUBT, State.FAILED, State.SENDING)
    async with loaded(manifest) as migration:
        await settle(migration, *wanted, reason="why")
        rows = await _rows(migration)
        rejected = await _rows(migration, State.REJECTED, State.FAILED)

    assert [row.state for row in rows] == [*wanted, State.WAITING]
    assert [(row.number, row.state, row.reason) for row in rejected] == [
        (2, State.REJECTED, "why"),
        (5, State.FAILED, "why"),
    ]


async def test_rows_are_read_over_gaps_and_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_AT_ONCE", 2)
    async with loaded(rows_of(tmp_path, 7)) as migration:
        await migration.journal.run(
            lambda connection: connection.execute("UPDATE manifest_rows SET number = number * number")
        )

        assert [row.number for row in await _rows(migration)] == [number**2 for number in range(2, 9)]


async def test_columns_have_the_titles_of_the_manifest(tmp_path: Path) -> None:
    manifest = rows_of(tmp_path, 3)
    cells = iter((",Team,note", ",A,", ",,x", ",,"))
    lines = [line + next(cells) for line in manifest.path.read_text().splitlines()]
    manifest.path.write_text("\n".join(lines))
    async with loaded(Manifest.open(manifest.path)) as migration:
        columns = await _read(migration, lambda connection: history.read_columns(connection, migration.id))
        rows = await _rows(migration)

    assert columns[-2:] == [("team", "Team"), ("note", "note")]
    assert [dict(row.extra) for row in rows] == [{"team": "A"}, {"note": "x"}, {}]


async def test_what_an_edited_manifest_was_sent_before_counts(manifest: Manifest) -> None:
    async with loaded(manifest) as migration:
        await settle(migration, State.STORED)
        before = await _posts(migration)
    manifest.path.write_text(manifest.path.read_text() + "\n")
    async with loaded(Manifest.open(manifest.path)):
        pass
    async with found(Manifest.open(manifest.path)) as migration:
        after = await _posts(migration)

    assert after == before
    assert moment(microseconds(after.begun_at)) == before.begun_at


async def test_what_is_sent_again_was_answered_all_the_same(manifest: Manifest) -> None:
    async with loaded(manifest) as migration:
        await settle(migration, State.STORED, State.STORED, springest_id=17)

        def send_again(connection: Connection) -> None:
            missing = connection.execute("SELECT id, attempt FROM certificates ORDER BY id LIMIT 1")
            certificates.send_missing_again(connection, missing)

        await migration.journal.run(send_again)
        posts = await _posts(migration)

    assert (posts.posts, posts.stored, posts.missing, posts.others) == (2, 1, 1, 0)


async def test_a_clock_that_was_put_back_hides_no_post(manifest: Manifest) -> None:
    """It was hours ahead when the manifest was loaded, and its certificates were new then."""
    async with loaded(manifest) as migration:
        await migration.journal.run(
            lambda connection: connection.execute("UPDATE migrations SET begun_at = begun_at + 7200000000")
        )
        await settle(migration, State.STORED)
        posts = await _posts(migration)
        stretches = await _read(
            migration, lambda connection: history.read_stretches(connection, migration.id, posts, 60)
        )

    assert (posts.posts, posts.stored, [stretch.posts for stretch in stretches]) == (1, 1, [1])


async def test_what_was_found_at_springest_is_counted(manifest: Manifest) -> None:
    """No answer said that it is stored."""
    async with loaded(manifest) as migration:
        await settle(migration, State.IN_DOUBT, State.IN_DOUBT, State.STORED)
        before = await _posts(migration)
        await migration.resolve([2], State.STORED)
        posts = await _posts(migration)

    assert (before.found, posts.found, posts.stored, posts.unanswered) == (0, 1, 1, 2)
    assert outcomes_of(posts) == "1 stored, 2 without a clear answer (1 of them found at Springest later)"
