"""A migration that somebody pauses: nothing is sent until it goes on, whoever works on it, and nothing is lost."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

from springest_async import JournalError, NotAuthorized
from springest_async.bulk import (
    BulkEvent,
    BulkListener,
    Entry,
    Manifest,
    OpenMigration,
    Outage,
    OutageOver,
    Paused,
    Resumed,
    RunRecorder,
    State,
    UploadQueue,
)
from springest_async.journal import migrations
from springest_async.journal.records import Worker
from tests.bulk_runs import Events, employees, found, loaded, rows_of, settle, states
from tests.unit.bulk.model import ENDS, PLAIN, ModelClient, Script

pytestmark = [pytest.mark.looptime(start=0, noop_cycles=0), pytest.mark.usefixtures("clock")]

STORED, REJECTED, FAILED = State.STORED, State.REJECTED, State.FAILED
IN_DOUBT, WAITING = State.IN_DOUBT, State.WAITING
LOST, FOUND, NO_NETWORK = ENDS["in doubt and not stored"], ENDS["in doubt and stored"], ENDS["no network"]
NOTICED = 2.0
"""Seconds within which a run notices that it is paused, or goes on."""


@pytest.fixture
def events() -> Events:
    return Events()


def client(*scripts: Script, concurrency: int = 1, **options: Any) -> Any:
    return ModelClient(scripts, concurrency, **options)


def now() -> float:
    return asyncio.get_running_loop().time()


def takes(seconds: float) -> Script:
    """Return the course of an upload that is answered so many seconds after it was sent."""
    return Script(at={"sending": partial(asyncio.sleep, seconds)})


def later(seconds: float, change: Callable[[], Awaitable[object]]) -> None:
    """Let somebody else pause a migration, or let it go on, in so many seconds."""
    loop = asyncio.get_running_loop()
    loop.call_later(seconds, lambda: loop.create_task(change()))  # type: ignore[arg-type]


def heard_by(*listeners: BulkListener) -> BulkListener:
    def listen(event: BulkEvent) -> None:
        for listener in listeners:
            listener(event)

    return listen


@asynccontextmanager
async def running(model: Any, manifest: Manifest, events: Events) -> AsyncIterator[tuple[UploadQueue, OpenMigration]]:
    """Load a manifest; at the end, compare the events of the queue with the journal."""
    async with loaded(manifest, ModelClient.origin) as migration:
        before = {entry.number: entry.state for entry in await migration.entries() if entry.number is not None}
        yield UploadQueue(model, migration, events), migration
        await events.agree_with(migration, before)


# --- paused ---


async def test_a_pause_finishes_posts_and_puts_back_the_rest(tmp_path: Path, events: Events) -> None:
    never = asyncio.Event()
    model = client(PLAIN, takes(30), Script(at={"waiting": never.wait}), concurrency=2)
    manifest = rows_of(tmp_path, 5)
    async with running(model, manifest, events) as (queue, migration):
        later(1, migration.pause)
        later(100, migration.resume)
        run = asyncio.create_task(queue.run())
        await asyncio.sleep(1 + NOTICED)
        assert repr(queue) == f"<UploadQueue {tmp_path / 'a journal.sqlite3'}, 1 in flight, paused>"
        assert [(event.row.number, event.state) for event in events.done] == [(2, STORED), (3, WAITING)]
        await asyncio.sleep(90)
        assert await states(manifest) == {2: STORED, 3: WAITING, 4: STORED, 5: WAITING, 6: WAITING}
        assert (model.posts, queue.waits_for_others) == (2, False)
        assert await run is None

    assert events.states == dict.fromkeys(range(2, 7), STORED)
    assert now() == pytest.approx(100, abs=NOTICED)
    paused, resumed = events.pauses
    assert isinstance(paused, Paused)
    assert isinstance(resumed, Resumed)
    assert (datetime.now(UTC) - paused.since).total_seconds() < 60
    assert resumed.seconds == pytest.approx(99, abs=NOTICED)


async def test_a_run_of_a_paused_migration_says_so_and_waits(tmp_path: Path, events: Events) -> None:
    model = client(concurrency=2)
    async with running(model, rows_of(tmp_path, 3), events) as (queue, migration):
        assert await migration.pause()
        since = await migration.paused_at()
        later(50, migration.resume)
        run = asyncio.create_task(queue.run())
        await asyncio.sleep(40)
        assert (events.pauses, events.steps, model.posts) == ([Paused(since)], [], 0)  # type: ignore[arg-type]
        assert await run is None

    assert events.states == dict.fromkeys((2, 3, 4), STORED)


async def test_a_row_refused_in_a_pause_is_sent_after_it(tmp_path: Path, events: Events) -> None:
    refused = Script(
        steps=("waiting", "sending", "refused", "waiting", "sending"), at={"sending": partial(asyncio.sleep, 5)}
    )
    model = client(PLAIN, refused)
    async with running(model, rows_of(tmp_path, 2), events) as (queue, migration):
        later(1, migration.pause)
        later(60, migration.resume)
        run = asyncio.create_task(queue.run())
        await asyncio.sleep(50)
        assert (model.posts, events.count(3, "refused")) == (2, 1)
        assert await run is None

    assert (events.states, model.posts) == ({2: STORED, 3: STORED}, 3)


async def test_a_migration_can_be_paused_more_than_once(tmp_path: Path, events: Events) -> None:
    async with running(client(*[takes(5)] * 9), rows_of(tmp_path, 9), events) as (queue, migration):
        for at in (10, 40):
            later(at, migration.pause)
            later(at + 20, migration.resume)
        assert await queue.run() is None

    assert [type(event) for event in events.pauses] == [Paused, Resumed] * 2
    assert now() == pytest.approx(9 * 5 + 2 * 20, abs=2 * 5 + 2 * NOTICED)


async def test_all_queues_of_a_migration_are_paused(tmp_path: Path) -> None:
    manifest, model = rows_of(tmp_path, 40), client(*[takes(1)] * 40, concurrency=2)
    first, second = Events(), Events()
    async with loaded(manifest, ModelClient.origin) as one, loaded(manifest, ModelClient.origin) as other:
        queues = [UploadQueue(model, one, first), UploadQueue(model, other, second)]
        later(2.5, one.pause)
        later(100, other.resume)
        runs = [asyncio.create_task(queue.run()) for queue in queues]
        await asyncio.sleep(2.5 + NOTICED + 1)
        sent = model.posts
        assert 0 < sent < 40
        assert [len(events.pauses) for events in (first, second)] == [1, 1]
        await asyncio.sleep(90)
        assert model.posts == sent
        assert await asyncio.gather(*runs) == [None, None]
        assert await one.counts() == {STORED: 40}

    assert {email: len(keys) for email, keys in model.stored.items()} == dict.fromkeys(employees(*range(1, 41)), 1)


# --- what ends a run all the same ---


@pytest.mark.parametrize("end", ["stop", "cancel"])
async def test_a_paused_run_can_be_ended(tmp_path: Path, events: Events, end: str) -> None:
    manifest = rows_of(tmp_path, 3)
    async with running(client(takes(5)), manifest, events) as (queue, migration):
        later(0.5, migration.pause)
        run = asyncio.create_task(queue.run())
        await asyncio.sleep(30)
        if end == "stop":
            queue.stop()
        else:
            run.cancel()
        await asyncio.wait([run])
        assert run.cancelled() == (end == "cancel")
        assert await migration.paused_at()  # the next run waits too

    assert now() == 30
    assert [type(event) for event in events.pauses] == [Paused]
    assert await states(manifest) == {2: STORED, 3: WAITING, 4: WAITING}


async def test_a_run_that_was_stopped_tells_of_no_pause(tmp_path: Path, events: Events) -> None:
    async with running(client(takes(20)), rows_of(tmp_path, 3), events) as (queue, migration):
        later(1, migration.pause)
        asyncio.get_running_loop().call_later(0.5, queue.stop)
        assert await queue.run() is None

    assert (events.pauses, now()) == ([], 20)


async def test_a_paused_migration_without_rows_to_send_ends(tmp_path: Path, events: Events) -> None:
    model = client(takes(10), concurrency=2)
    async with running(model, rows_of(tmp_path, 1), events) as (queue, migration):
        later(1, migration.pause)
        assert await queue.run() is None

    assert events.states == {2: STORED}
    assert now() < 10 + 2 * NOTICED


async def test_a_journal_that_cannot_say_so_ends_the_run(
    tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = JournalError(tmp_path, "the disk is full")
    asked = 0

    def fail_later(*_: object, **__: object) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise full

    monkeypatch.setattr(migrations, "paused_at", fail_later)
    async with running(client(PLAIN, takes(5)), rows_of(tmp_path, 4), events) as (queue, _):
        assert await queue.run() is full

    assert events.states == {2: STORED, 3: STORED}


# --- doubts and outages ---


async def test_doubts_are_settled_in_a_pause(tmp_path: Path, events: Events) -> None:
    manifest = rows_of(tmp_path, 3)
    async with loaded(manifest, ModelClient.origin) as migration:
        (entry, _) = await settle(migration, IN_DOUBT, IN_DOUBT)
    model = client()
    model._store(entry.upload())
    async with running(model, manifest, events) as (queue, migration):
        await migration.pause()
        later(50, migration.resume)
        run = asyncio.create_task(queue.run())
        await asyncio.sleep(40)
        assert (model.asked, model.posts) == (2, 0)
        assert await states(manifest) == {2: STORED, 3: WAITING, 4: WAITING}
        assert await run is None

    assert events.states == {2: STORED, 3: STORED, 4: STORED}
    assert model.posts == 2


async def test_a_server_that_is_away_does_not_end_a_pause(tmp_path: Path, events: Events) -> None:
    manifest = rows_of(tmp_path, 2)
    async with loaded(manifest, ModelClient.origin) as migration:
        await settle(migration, IN_DOUBT)
    model = client(looks=["is down"] * 9)
    async with running(model, manifest, events) as (queue, migration):
        await migration.pause()
        later(2000, migration.resume)
        assert await queue.run() is None

    assert model.asked > 4
    assert events.states[3] is STORED


@pytest.mark.parametrize(("end", "states"), [(NO_NETWORK, {STORED}), (LOST, {STORED, IN_DOUBT})])
async def test_an_outage_ends_with_a_pause(tmp_path: Path, events: Events, end: Script, states: set[State]) -> None:
    """Nobody tries whether it lasts; and it may begin anew."""
    model = client(PLAIN, *[end] * 12, concurrency=3, looks=["cannot tell"] * 12)
    recorder = RunRecorder()
    async with running(model, rows_of(tmp_path, 20), events) as (queue, migration):
        queue._listener = heard_by(recorder, events)
        later(30, migration.pause)
        later(1000, migration.resume)
        run = asyncio.create_task(queue.run())
        await asyncio.sleep(30 + NOTICED)
        told = len(events.outages)
        assert isinstance(events.outages[-1], OutageOver)
        (worker,) = await status_of(migration)
        assert worker.trouble == ""
        await asyncio.sleep(900)
        assert len(events.outages) == told
        assert await run is None
        report = await recorder.report(migration)

    assert set(events.states.values()) == states
    assert isinstance(events.outages[told], Outage)
    assert all(event.since >= 1000 for event in events.outages[told:] if isinstance(event, Outage))
    assert (report.outages, report.outage_seconds < now() - 900) == (2, True)


async def status_of(migration: OpenMigration) -> tuple[Worker, ...]:
    """Return the workers of a migration, as everybody sees them."""
    return await migration.journal.run(partial(migrations.workers, migration=migration.id))


async def test_after_a_pause_the_first_goes_alone(tmp_path: Path, events: Events) -> None:
    """The key may have been changed meanwhile."""
    refused = attrs.evolve(ENDS["key refused"], turns=5)
    model = client(takes(10), *[refused] * 20, concurrency=2)
    async with running(model, rows_of(tmp_path, 20), events) as (queue, migration):
        later(5, migration.pause)
        later(100, migration.resume)
        assert isinstance(await queue.run(), NotAuthorized)

    assert (events.states[2], model.posts) == (STORED, 2)


async def test_the_first_row_still_goes_alone_after_a_pause(tmp_path: Path, events: Events) -> None:
    """A wrong key costs one POST, also for a run that began while it was paused."""
    model = client(*[attrs.evolve(ENDS["key refused"], turns=5)] * 20, concurrency=8)
    async with running(model, rows_of(tmp_path, 20), events) as (queue, migration):
        await migration.pause()
        later(10, migration.resume)
        await queue.run()

    assert model.posts == 1


# --- at any moment ---


@pytest.mark.parametrize("turns", range(1, 40))
async def test_nothing_begins_from_the_moment_of_a_pause(tmp_path: Path, events: Events, turns: int) -> None:
    """Also while rows are claimed, read and made ready."""
    manifest, model = rows_of(tmp_path, 12), client(*[Script(turns=2)] * 12, concurrency=3)
    async with running(model, manifest, events) as (queue, migration):
        run = asyncio.create_task(queue.run())
        for _ in range(turns):
            await asyncio.sleep(0)
        await migration.pause()
        await queue._note_pause()
        sent, begun = model.posts, len(events.steps)
        await asyncio.sleep(50)
        assert (model.posts, len(events.steps)) == (sent, begun)
        await migration.resume()
        assert await run is None

    assert events.states == dict.fromkeys(range(2, 14), STORED)
    assert model.posts == 12


@pytest.mark.parametrize("seed", range(30))
async def test_pauses_at_any_moment_lose_and_double_nothing(tmp_path: Path, seed: int) -> None:
    """Two queues, uploads of any length and end, and somebody who pauses and resumes when it pleases them."""
    choose = random.Random(seed)
    count = 24

    def course(number: int) -> Script:
        # No outage at the start, which ends a run.
        rare = ENDS["rejected"] if number < count // 2 else NO_NETWORK
        end = choose.choice([PLAIN, PLAIN, PLAIN, ENDS["stored at last"], LOST, FOUND, ENDS["rejected"], rare])
        waits, sends = choose.uniform(0, 3), choose.uniform(0, 5)
        return attrs.evolve(
            end, at={"waiting": partial(asyncio.sleep, waits), "sending": partial(asyncio.sleep, sends)}
        )

    model = client(PLAIN, *map(course, range(2 * count)), concurrency=3)
    manifest, events = rows_of(tmp_path, count), [Events(), Events()]

    async def meddle(migration: OpenMigration) -> None:
        for _ in range(choose.randrange(1, 6)):
            await asyncio.sleep(choose.uniform(0, 12))
            await migration.pause()
            await asyncio.sleep(choose.uniform(0, 12))
            await migration.resume()

    async with loaded(manifest, ModelClient.origin) as one, loaded(manifest, ModelClient.origin) as other:
        meddling = asyncio.create_task(meddle(one))
        async with asyncio.timeout(20_000):
            queues = [UploadQueue(model, one, events[0]), UploadQueue(model, other, events[1])]
            ends = await asyncio.gather(*(queue.run() for queue in queues))
            await meddling
        assert ends == [None, None]
        counts = await one.counts()

    assert counts.total() == count
    assert set(counts) <= {STORED, REJECTED, FAILED}
    not_stored = {entry.email for entry in await not_stored_of(manifest)}
    expected = dict.fromkeys(set(employees(*range(1, count + 1))) - not_stored, 1)
    assert {email: len(keys) for email, keys in model.stored.items()} == expected
    done = [event for each in events for event in each.done if event.state is not WAITING]
    assert len({event.row.number for event in done}) == len(done) == count


async def not_stored_of(manifest: Manifest) -> list[Entry]:
    """Return the rows that were rejected, or have failed because four POSTs of them had no answer."""
    async with found(manifest) as migration:
        entries = await migration.entries(REJECTED, FAILED)
    assert all(entry.state is REJECTED or entry.reason.startswith("4 times there was no answer") for entry in entries)
    return entries
