"""What a journal knows, for a comparison with Springest's lists, and what is sent again because Springest lacks it."""

from pathlib import Path

import pytest

from springest_async import JournalError
from springest_async.bulk import OpenMigration, State
from springest_async.journal import certificates, comparison
from springest_async.journal.certificates import microseconds
from springest_async.journal.engine import Connection
from springest_async.journal.identity import lookalike
from tests.bulk_runs import LATER, ORIGIN, loaded, rows_of, settle

STORED, REJECTED, IN_DOUBT, WAITING = State.STORED, State.REJECTED, State.IN_DOUBT, State.WAITING


async def _rows(migration: OpenMigration, **page: int) -> list[comparison.ComparedRow]:
    page = {"after": 0, "limit": 100} | page
    return await migration.journal.run(lambda connection: comparison.rows(connection, migration.id, **page))


async def _last_posts(migration: OpenMigration, *rows: comparison.ComparedRow) -> list[tuple[int, str]]:
    return [(row.certificate, row.attempt) for row in rows if row.certificate and row.attempt]


async def test_rows_are_read_with_what_is_known_of_them(tmp_path: Path) -> None:
    async with loaded(rows_of(tmp_path, 3)) as migration:
        await settle(migration, STORED, REJECTED, springest_id=17)
        first, second, third = await _rows(migration)
        (entry,) = await migration.entries(STORED)

    assert (first.number, first.file, first.state, first.springest_id) == (2, "1.pdf", STORED, 17)
    assert (first.email, first.looks) == (entry.email, lookalike(entry, ORIGIN))
    assert (first.certificate, first.sent_at) == (entry.certificate, microseconds(entry.sent_at))
    assert first.settled_at == microseconds(LATER)
    assert (second.state, third.state, third.certificate, third.attempt) == (REJECTED, WAITING, None, None)


async def test_rows_are_read_in_pages(tmp_path: Path) -> None:
    async with loaded(rows_of(tmp_path, 3)) as migration:
        first = await _rows(migration, limit=2)
        last = await _rows(migration, after=first[-1].id, limit=2)
        none = await _rows(migration, after=last[-1].id, limit=2)

    assert [row.number for row in first] == [2, 3]
    assert ([row.number for row in last], none) == ([4], [])


async def test_certificates_that_may_be_listed_are_known(tmp_path: Path) -> None:
    async with loaded(rows_of(tmp_path, 4)) as migration:
        await settle(migration, STORED, IN_DOUBT, REJECTED, springest_id=17)

        def read(connection: Connection) -> tuple[list[comparison.KnownLooks], list[comparison.KnownLooks]]:
            elsewhere = comparison.known(connection, "https://api.springest.de", after=0, limit=9)
            return comparison.known(connection, ORIGIN, after=0, limit=9), elsewhere

        known, elsewhere = await migration.journal.run(read)
        looks = [row.looks for row in await _rows(migration)]

    assert [(one.looks, one.state) for one in known] == [(looks[0], STORED), (looks[1], IN_DOUBT)]
    assert elsewhere == []


async def test_the_first_posts_are_those_of_each_clock(tmp_path: Path) -> None:
    async with loaded(rows_of(tmp_path, 2)) as migration:
        read = lambda connection: comparison.first_posts(connection, migration.id)  # noqa: E731
        before = await migration.journal.run(read)
        await settle(migration, STORED)
        await migration.journal.run(
            lambda connection: connection.execute("UPDATE attempts SET server_date = 'Sat, 31 Jan 2026 12:30:01 GMT'")
        )
        await settle(migration, STORED)
        first, _ = await _rows(migration)
        after = await migration.journal.run(read)

    assert before == comparison.FirstPosts(None, ())
    assert microseconds(after.sent_at) == first.sent_at
    assert after.server_dates == ("Sat, 31 Jan 2026 12:30:01 GMT",)


async def test_an_erased_migration_is_not_compared(tmp_path: Path) -> None:
    async with loaded(rows_of(tmp_path, 1)) as migration:
        await migration.journal.run(lambda connection: connection.execute("DELETE FROM migrations"))
        with pytest.raises(JournalError, match="erased"):
            await _rows(migration)


async def test_what_is_missing_waits_again_with_all_its_rows(tmp_path: Path) -> None:
    async with loaded(rows_of(tmp_path, 2)) as migration:
        await settle(migration, STORED, STORED, springest_id=17)
        first, second = await _rows(migration)
        again = await migration.send_missing_again(await _last_posts(migration, first))
        rows = await _rows(migration)
        outcomes = await migration.journal.run(
            lambda connection: connection.execute("SELECT certificate, outcome FROM attempts ORDER BY sent_at")
        )

    assert again == 1
    assert [(row.state, row.springest_id) for row in rows] == [(WAITING, None), (STORED, 17)]
    assert outcomes == [(first.certificate, "waiting"), (second.certificate, "stored")]


async def test_the_next_post_of_it_decides_alone(tmp_path: Path) -> None:
    """What was stored before must not make a doubt, or a worker's death, count as stored."""
    async with loaded(rows_of(tmp_path, 1)) as migration:
        await settle(migration, STORED)
        await migration.send_missing_again(await _last_posts(migration, *await _rows(migration)))
        await settle(migration, IN_DOUBT)
        counts = await migration.counts()

    assert counts == {IN_DOUBT: 1}


async def test_what_changed_meanwhile_is_not_sent_again(tmp_path: Path) -> None:
    async with loaded(rows_of(tmp_path, 2)) as migration:
        await settle(migration, STORED, STORED)
        first, second = await _last_posts(migration, *await _rows(migration))
        await migration.send_missing_again([first])
        await settle(migration, STORED)  # as another worker, which saw that it waits
        again = await migration.send_missing_again([first, (second[0], "another attempt")])
        counts = await migration.counts()

    assert (again, counts) == (0, {STORED: 2})


async def test_a_repair_whose_answer_was_lost_is_the_same(tmp_path: Path) -> None:
    async with loaded(rows_of(tmp_path, 1)) as migration:
        await settle(migration, STORED)
        missing = await _last_posts(migration, *await _rows(migration))

        def twice(connection: Connection) -> list[list[int]]:
            return [certificates.send_missing_again(connection, missing) for _ in range(2)]

        first, second = await migration.journal.run(twice)

    assert first == second == [missing[0][0]]
