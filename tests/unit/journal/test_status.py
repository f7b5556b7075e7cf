"""Where a migration stands, read from its journal: what is counted, what is being sent, and what the limit allows."""

import asyncio
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast
from unittest.mock import ANY

import attrs
import pytest

from springest_async import Journal, JournalError, Limiter
from springest_async.bulk import Manifest, OpenMigration, State, load_manifest
from springest_async.journal import status
from springest_async.journal.engine import Connection
from springest_async.journal.journal import Claim
from springest_async.journal.records import Entry, Outcome
from springest_async.journal.status_reader import StatusReader
from springest_async.random_names import new_request_id
from tests.bulk_runs import LATER, ORIGIN, found, loaded, rows_of, settle, was_killed

BUDGET = "a budget"


async def _claims(migration: OpenMigration, count: int) -> list[tuple[Entry, Claim]]:
    """Claim the first rows that wait, and their certificates."""
    claimed = []
    for entry in await migration.claim(count):
        assert entry.number is not None
        file = entry.path.stat()
        _, claim = await migration.identify(entry, file.st_size, file.st_mtime_ns, entry.number.to_bytes(32, "big"))
        assert claim is not None
        claimed.append((entry, claim))
    return claimed


async def _send(migration: OpenMigration, outcomes: Sequence[tuple[State, int]]) -> None:
    """Send the first rows that wait: each gets this outcome and status."""
    await migration.note_budget(BUDGET)
    limiter = Limiter(ledger=migration.journal.ledger(BUDGET))
    for (_, claim), (state, code) in zip(await _claims(migration, len(outcomes)), outcomes, strict=True):
        intent = claim.intent()
        async with limiter.post(count_window=30.0, intent=intent) as permit:
            permit.mark_answered()
            permit.outcome = Outcome(
                attempt=intent.id,
                state=state,
                answered_at=LATER,
                status=code,
                words=f"said {code}",
                reason="" if state in (State.STORED, State.WAITING) else f"because of {code}",
            )
        claim.release()
    await migration.journal.run(lambda _: None)


def _move(connection: Connection, migration: int, moved_at: int) -> None:
    connection.execute("UPDATE migrations SET moved_at = ? WHERE id = ?", (moved_at, migration))


async def _read(migration: OpenMigration) -> status.MigrationStatus:
    async with StatusReader(migration.journal) as reader:
        return await reader.status(migration.id)


async def test_a_migration_that_has_sent_nothing(tmp_path: Path) -> None:
    async with loaded(rows_of(tmp_path, 31)) as migration:
        read = await _read(migration)

    assert (read.rows, read.done, read.counts) == (31, 0, {State.WAITING: 31})
    assert (read.name, read.origin) == ("certificates.csv", "https://api.springest.nl")
    assert read.pace == status.Pace(posts=30, free=30, next_in=0.0, last_minute=0)
    assert read.seconds_left == pytest.approx(60.1)  # the 31st waits for the first token to rest
    assert (read.activity, read.sending, read.last, read.paused_at) == ("running", (), (), None)


async def test_what_was_sent_takes_tokens(tmp_path: Path) -> None:
    outcomes = [(State.STORED, 201), (State.REJECTED, 400), (State.WAITING, 400), (State.IN_DOUBT, 500)]
    async with loaded(rows_of(tmp_path, 5)) as migration:
        await _send(migration, outcomes)
        read = await _read(migration)
        minutes = await migration.journal.run(lambda connection: status.read_minutes(connection, BUDGET))

    assert read.counts == {State.STORED: 1, State.REJECTED: 1, State.IN_DOUBT: 1, State.WAITING: 2}
    assert read.done == 2
    assert (read.pace.free, read.pace.last_minute) == (26, 4)
    assert [(each.number, each.file, each.state, each.status, each.words) for each in read.last] == [
        (number, f"{number - 1}.pdf", state, code, f"said {code}")
        for number, (state, code) in [*enumerate(outcomes, 2)][::-1]
    ]
    assert [each.at for each in read.last] == [LATER] * 4
    # A minute may have ended meanwhile.
    assert sum(minute.posts for minute in minutes) == 4
    assert (sum(minute.stored for minute in minutes), sum(minute.refused for minute in minutes)) == (1, 1)


async def test_why_a_row_is_not_stored_is_known_until_it_goes_on(tmp_path: Path) -> None:
    async with loaded(rows_of(tmp_path, 2)) as migration:
        await _send(migration, [(State.REJECTED, 400), (State.IN_DOUBT, 500)])
        before = await _read(migration)
        await migration.resolve(None, State.WAITING)
        after = await _read(migration)

    assert [each.reason for each in before.last] == ["because of 500", "because of 400"]
    assert [(each.state, each.reason) for each in after.last if each.number == 2] == [
        (State.REJECTED, "because of 400")
    ]
    assert [each.reason for each in after.last if each.number == 3] == [""]


class _Recorded:
    """A connection that records what is asked."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.asked: list[tuple[str, Sequence[object]]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)

    def execute(self, statement: str, values: Sequence[object] = ()) -> object:
        self.asked.append((statement, values))
        return self._connection.execute(statement, values)


def _plans(connection: Connection, migration: int) -> list[str]:
    """Return how SQLite finds the POSTs of each query of a status."""
    recorded = cast(Any, _Recorded(connection))
    status.read_status(recorded, migration)
    status.read_minutes(recorded, BUDGET)
    plans = []
    for statement, values in recorded.asked:
        if " FROM attempts" in statement:
            steps = connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)
            plans.append(" / ".join(str(step[-1]) for step in steps))
    return plans


async def test_no_look_searches_all_posts_or_all_rows(tmp_path: Path) -> None:
    """A million POSTs are in the journal in the end, and a status is read every few seconds for weeks."""
    async with loaded(rows_of(tmp_path, 1)) as migration:
        plans = await migration.journal.run(lambda connection: _plans(connection, migration.id))

    tokens, last_minute, last, minutes = plans
    for plan in (tokens, last_minute, minutes):  # those that are out, at most a minute's, and those of an hour
        assert "attempts_token (budget=? AND back_at>?)" in plan, plan
    assert "(id>?" in last.split(" / ")[0]
    assert "rows_turn" not in last


async def test_the_last_answer_comes_first(tmp_path: Path) -> None:
    async with loaded(rows_of(tmp_path, 2)) as migration:
        await migration.note_budget(BUDGET)
        limiter = Limiter(ledger=migration.journal.ledger(BUDGET))
        claims = await _claims(migration, 2)
        intents = [claim.intent() for _, claim in claims]
        for intent, seconds in zip(intents, (2, 1), strict=True):  # the first to leave is answered last
            async with limiter.post(count_window=30.0, intent=intent) as permit:
                permit.mark_answered()
                at = LATER + timedelta(seconds=seconds)
                permit.outcome = Outcome(attempt=intent.id, state=State.STORED, answered_at=at, status=201)
        await migration.journal.run(lambda _: None)
        read = await _read(migration)

    assert [each.number for each in read.last] == [2, 3]


async def test_what_never_left_is_not_counted(tmp_path: Path) -> None:
    async with loaded(rows_of(tmp_path, 2)) as migration:
        await migration.note_budget(BUDGET)
        ((_, claim),) = await _claims(migration, 1)
        intent = claim.intent()
        async with Limiter(ledger=migration.journal.ledger(BUDGET)).post(count_window=30.0, intent=intent) as permit:
            permit.mark_unsent()
            permit.outcome = intent.unsent
        await migration.journal.run(lambda _: None)
        read = await _read(migration)
        minutes = await migration.journal.run(lambda connection: status.read_minutes(connection, BUDGET))

    assert (read.pace.free, read.pace.last_minute, minutes) == (30, 0, [])


async def test_rows_that_are_being_sent_are_shown(tmp_path: Path) -> None:
    async with loaded(rows_of(tmp_path, 3)) as migration:
        await migration.note_budget(BUDGET)
        ((entry, claim),) = await _claims(migration, 1)
        intent = claim.intent()
        async with Limiter(ledger=migration.journal.ledger(BUDGET)).post(count_window=30.0, intent=intent):
            read = await _read(migration)

    assert read.counts == {State.SENDING: 1, State.WAITING: 2}
    assert [(row.number, row.file) for row in read.sending] == [(entry.number, entry.file)]
    assert read.sending[0].seconds >= 0
    assert (read.pace.free, read.pace.last_minute) == (29, 1)


async def test_a_post_counts_from_when_it_left_and_not_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its id is made when it begins to wait for a token, which may take minutes."""
    async with loaded(rows_of(tmp_path, 2)) as migration:
        now = time.time_ns()
        with monkeypatch.context() as earlier:
            earlier.setattr("springest_async.random_names.time.time_ns", lambda: now - 300_000_000_000)
            waited = new_request_id()
        monkeypatch.setattr("springest_async.journal.journal.new_request_id", lambda: waited)
        await _send(migration, [(State.STORED, 201)])
        read = await _read(migration)
        async with StatusReader(migration.journal) as reader:
            minutes = await reader.read(lambda connection: status.read_minutes(connection, BUDGET, 2))

    assert read.pace.last_minute == 1
    assert sum(minute.posts for minute in minutes) == 1


@pytest.mark.parametrize("seconds", [-600.0, 600.0])
async def test_the_clock_of_a_viewer_may_be_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Another machine watches, whose time of day is ten minutes off."""
    async with loaded(rows_of(tmp_path, 4)) as migration:
        await _send(migration, [(State.STORED, 201), (State.WAITING, 400)])
        ((_, claim),) = await _claims(migration, 1)
        intent = claim.intent()
        async with Limiter(ledger=migration.journal.ledger(BUDGET)).post(count_window=30.0, intent=intent):
            wall, right = time.time() + seconds, time.time
            monkeypatch.setattr("time.time", lambda: right() + seconds)
            monkeypatch.setattr("time.time_ns", lambda: int((right() + seconds) * 1e9))
            read = await _read(migration)
            async with StatusReader(migration.journal) as reader:
                minutes = await reader.read(lambda connection: status.read_minutes(connection, BUDGET, 2))
            monkeypatch.undo()

    assert read.pace.last_minute == 3
    assert read.sending[0].seconds < 300
    assert sum(minute.posts for minute in minutes) == 3
    assert all(abs(minute.at.timestamp() - wall) < 300 for minute in minutes)  # on the axis of the viewer's own clock


async def test_the_clock_of_a_sender_may_have_been_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was set back since, or it is that of another machine: what was sent before the last minute is not in it."""
    right = time.time
    async with loaded(rows_of(tmp_path, 3)) as migration:
        monkeypatch.setattr("time.time", lambda: right() + 5 * 3600)
        await _send(migration, [(State.STORED, 201), (State.STORED, 201)])
        monkeypatch.undo()
        later = int((right() + 5 * 3600) * 1e6)
        await migration.journal.run(
            lambda connection: connection.execute("UPDATE attempts SET sent = sent - 61, sent_at = ?", (later,))
        )
        await _send(migration, [(State.STORED, 201)])
        read = await _read(migration)

    assert read.pace.last_minute == 1


async def test_nothing_has_moved_later_than_now(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal.sqlite3") as journal:
        ids = []
        for rows in (1, 2, 3):
            (folder := tmp_path / str(rows)).mkdir()
            migration, _ = await load_manifest(journal, rows_of(folder, rows), ORIGIN)
            ids.append(migration.id)
        now = int(time.time() * 1e6)
        for migration_id, moved_at in zip(ids, (now + 7_200_000_000, now + 3_600_000_000, now), strict=True):
            await journal.run(partial(_move, migration=migration_id, moved_at=moved_at))
        async with StatusReader(journal) as reader:
            found = await reader.all()

    assert all(each.moved_at <= each.at for each in found)
    # What is later than now is as good as now: the order is that in which they were begun.
    assert [each.id for each in found] == [ids[1], ids[0], ids[2]]


async def test_a_post_of_the_minute_before_is_not_counted(tmp_path: Path) -> None:
    """Its token is out longer, because it rests from the answer."""
    async with loaded(rows_of(tmp_path, 2)) as migration:
        await _send(migration, [(State.STORED, 201), (State.STORED, 201)])
        await migration.journal.run(
            lambda connection: connection.execute("UPDATE attempts SET sent = sent - 61 WHERE certificate = 1")
        )
        read = await _read(migration)

    assert (read.pace.last_minute, read.pace.free) == (1, 28)


async def test_it_is_paused_until_it_is_resumed(tmp_path: Path) -> None:
    async with loaded(rows_of(tmp_path, 1)) as migration:
        assert await migration.pause()
        paused = await _read(migration)
        assert not await migration.pause()
        assert paused.paused_at == await migration.paused_at()
        assert await migration.resume()
        assert not await migration.resume()
        resumed = await _read(migration)

    assert (paused.activity, resumed.activity, resumed.paused_at) == ("paused", "running", None)


async def test_an_outage_is_one_if_nobody_can_send(tmp_path: Path) -> None:
    manifest = rows_of(tmp_path, 1)
    async with loaded(manifest) as migration:
        migration.journal.note_trouble("no connection", "Connection refused", seconds=40.0, again_in=8.0)
        await migration.journal.run(lambda _: None)
        alone = await _read(migration)
        async with Journal(migration.journal.where) as other:
            await other.work(migration.id)
            together = await _read(migration)

    assert alone.activity == "outage"
    assert alone.trouble is not None
    assert (alone.trouble.trouble, alone.trouble.reason) == ("no connection", "Connection refused")
    assert (together.activity, together.trouble, len(together.workers)) == ("running", None, 2)


async def test_nobody_works_on_it(tmp_path: Path) -> None:
    manifest = rows_of(tmp_path, 2)
    async with loaded(manifest) as migration:
        await _send(migration, [(State.STORED, 201)])
    async with found(manifest) as migration:
        assert (await _read(migration)).activity == "stopped"
    async with loaded(manifest) as migration:
        await _send(migration, [(State.IN_DOUBT, 500)])
    async with found(manifest) as migration:
        assert (await _read(migration)).activity == "in doubt"
        await migration.resolve(None, State.STORED)
        assert (await _read(migration)).activity == "done"


async def test_what_a_dead_worker_was_sending_is_in_doubt(tmp_path: Path) -> None:
    manifest = rows_of(tmp_path, 3)
    await was_killed(manifest, "https://api.springest.nl", 2)

    async with found(manifest) as migration:
        read = await _read(migration)

    assert read.counts == {State.IN_DOUBT: 2, State.WAITING: 1}


async def test_rows_that_a_run_asks_about_wait_for_nobody(tmp_path: Path) -> None:
    async with loaded(rows_of(tmp_path, 4)) as migration:
        await settle(migration, State.IN_DOUBT, State.REJECTED, State.IN_DOUBT)
        before = await _read(migration)
        claimed = await migration.claim_doubt(())
        read = await _read(migration)

    assert claimed is not None
    assert (before.doubts.asked, before.wait_for_person) == (0, 3)
    assert (read.counts[State.IN_DOUBT], read.doubts.asked, read.wait_for_person) == (2, 1, 2)


async def test_it_moves_with_each_outcome_and_each_answer_of_a_person(tmp_path: Path) -> None:
    """A worker writes it down with its heartbeats only."""

    async def moved(migration: OpenMigration) -> bool:
        read = await _read(migration)
        await migration.journal.run(lambda connection: connection.execute("UPDATE migrations SET moved_at = 1"))
        return read.moved_at.year > 1970

    async with loaded(rows_of(tmp_path, 1)) as migration:
        assert [await moved(migration), await moved(migration)] == [True, False]
        await _send(migration, [(State.IN_DOUBT, 500)])
        assert [await moved(migration), await moved(migration)] == [True, False]
        await migration.resolve(None, State.STORED)
        assert [await moved(migration), await moved(migration)] == [True, False]


async def test_all_migrations_the_latest_first(tmp_path: Path) -> None:
    first = rows_of(tmp_path, 1)
    async with loaded(first) as migration:
        await OpenMigration.of(migration.journal, migration.id)
        await migration.journal.run(lambda connection: connection.execute("UPDATE migrations SET moved_at = 1"))
        other = tmp_path / "other"
        other.mkdir()
        second, _ = await _load_into(migration.journal, rows_of(other, 2).path)
        await settle(second, State.STORED)
        async with Journal(migration.journal.where) as journal, StatusReader(journal) as reader:
            await journal.work(second.id)
            read = await reader.all()

    assert [each.id for each in read] == [second.id, migration.id]
    assert [(each.rows, each.counts[State.STORED], len(each.workers)) for each in read] == [(2, 1, 2), (1, 0, 0)]


async def test_a_budget_of_many_migrations_is_read_once(tmp_path: Path) -> None:
    async with loaded(rows_of(tmp_path, 1)) as migration:
        (tmp_path / "other").mkdir()
        other, _ = await _load_into(migration.journal, rows_of(tmp_path / "other", 32).path)
        await migration.note_budget(BUDGET)
        await other.note_budget(BUDGET)

        def read(connection: Connection) -> tuple[int, list[int]]:
            recorded = _Recorded(connection)
            found = status.read_all(cast(Any, recorded))
            asked = [statement for statement, _ in recorded.asked if "FROM budgets" in statement]
            return len(asked), [round(each.seconds_left) for each in found]

        asked, seconds_left = await migration.journal.run(read)

    assert (asked, seconds_left) == (1, [60, 0])


async def _load_into(journal: Journal, path: Path) -> tuple[OpenMigration, object]:
    return await load_manifest(journal, Manifest.open(path), "https://api.springest.nl")


async def test_a_migration_is_found_by_its_key(tmp_path: Path) -> None:
    manifest = rows_of(tmp_path, 2)
    async with loaded(manifest) as migration:
        same = await OpenMigration.of(migration.journal, migration.id)

        assert same.source == migration.source
        assert [entry.path for entry in await same.entries()] == [tmp_path / "1.pdf", tmp_path / "2.pdf"]
        with pytest.raises(JournalError, match="erased"):
            await OpenMigration.of(migration.journal, migration.id + 1)


async def test_a_reader_connects_anew_after_a_failure(tmp_path: Path) -> None:
    def fail(_: Connection) -> None:
        raise JournalError("the journal", "is away")

    async with loaded(rows_of(tmp_path, 1)) as migration, StatusReader(migration.journal) as reader:
        before = await reader.status(migration.id)
        with pytest.raises(JournalError, match="is away"):
            await reader.read(fail)
        assert (await reader.status(migration.id)).counts == before.counts


async def test_a_cancelled_read_does_not_wait_for_the_journal(tmp_path: Path) -> None:
    """Its database may answer nothing for hours, as one whose disk hangs."""
    answers, ended = threading.Event(), threading.Event()
    used: list[Connection] = []

    def hang(connection: Connection) -> None:
        used.append(connection)
        answers.wait()

    async with loaded(rows_of(tmp_path, 1)) as migration:
        async with StatusReader(migration.journal) as reader:
            before = await reader.status(migration.id)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await reader.read(hang)
            assert not answers.is_set()
            assert await reader.status(migration.id) == attrs.evolve(before, at=ANY, seconds_left=ANY)
            close = used[0].close

            def note_and_close() -> None:
                close()
                ended.set()

            used[0].close = note_and_close  # type: ignore[method-assign]
            answers.set()
        assert ended.is_set()


async def test_a_read_that_ends_when_cancelled_keeps_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Connection] = []

    async with loaded(rows_of(tmp_path, 1)) as migration, StatusReader(migration.journal) as reader:
        monkeypatch.setattr(threading.Thread, "start", threading.Thread.run)  # so that it has ended when it is awaited
        reading = asyncio.create_task(reader.read(used.append))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await reader.read(used.append)
        monkeypatch.undo()

    assert used[0] is used[1]
