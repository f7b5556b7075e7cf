"""Several queues on one journal, as in several processes: each certificate is sent once, and every row gets its end."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from springest_async import Certificate, InDoubt, Journal, Rejected
from springest_async.bulk import Manifest, OpenMigration, State, UploadQueue, load_manifest
from springest_async.journal import certificates, manifest_rows
from tests.bulk_runs import Events, employees, journal_of, rewrite, rows_of, run, settle, sha256_of
from tests.pdfs import archive, certificate
from tests.unit.bulk.model import ENDS, ModelClient, Script
from tests.virtual import Clock, die

pytestmark = [pytest.mark.looptime(start=0, noop_cycles=0), pytest.mark.usefixtures("clock")]

STORED, REJECTED, FAILED, IN_DOUBT, WAITING, SENDING = (
    State.STORED,
    State.REJECTED,
    State.FAILED,
    State.IN_DOUBT,
    State.WAITING,
    State.SENDING,
)
A_LEASE = 60.0


def client(*ends: str | Script, concurrency: int = 1, **options: Any) -> Any:
    return ModelClient([ENDS[end] if isinstance(end, str) else end for end in ends], concurrency, **options)


@asynccontextmanager
async def worker(manifest: Manifest, journal: Path | None = None, machine: str = "") -> AsyncIterator[OpenMigration]:
    """Open the journal and load the manifest as another process does, perhaps of another machine."""
    opened = Journal(journal or journal_of(manifest))
    opened.machine = machine or opened.machine
    async with opened:
        migration, _ = await load_manifest(opened, manifest, ModelClient.origin)
        yield migration


async def run_all(*queues: UploadQueue) -> None:
    async with asyncio.timeout(10_000):
        assert set(await asyncio.gather(*(queue.run() for queue in queues))) == {None}


def stored_once(model: ModelClient, *numbers: int) -> bool:
    return {email: len(keys) for email, keys in model.stored.items()} == dict.fromkeys(employees(*numbers), 1)


async def test_two_queues_share_the_rows(tmp_path: Path) -> None:
    manifest, model = rows_of(tmp_path, 20), client(*[Script(turns=3)] * 20, concurrency=2)
    first, second = Events(), Events()
    async with worker(manifest) as one, worker(manifest) as other:
        await run_all(UploadQueue(model, one, first), UploadQueue(model, other, second))
        assert await one.counts() == await other.counts() == {STORED: 20}

    assert first.states.keys() | second.states.keys() == set(range(2, 22))
    assert not first.states.keys() & second.states.keys()
    assert min(len(first.done), len(second.done)) >= 5
    assert stored_once(model, *range(1, 21))


async def test_two_manifests_with_the_same_rows_share_them(tmp_path: Path) -> None:
    """A copy of a manifest under another name, which was sorted in another way, is another migration."""
    manifest, model = rows_of(tmp_path, 12), client(*[Script(turns=4)] * 12, concurrency=3)
    (tmp_path / "copy.csv").write_bytes(manifest.path.read_bytes())
    copy = rewrite(Manifest.open(tmp_path / "copy.csv"), lambda lines: lines[::-1])
    async with worker(manifest) as one, worker(copy) as other:
        await run_all(UploadQueue(model, one, Events()), UploadQueue(model, other, Events()))
        assert one.id != other.id
        assert await one.counts() == await other.counts() == {STORED: 12}

    assert stored_once(model, *range(1, 13))
    assert model.posts == 12


def enlarge(manifest: Manifest) -> None:
    """Make all files of a manifest too large to be read together."""
    for path in manifest.path.parent.glob("*.pdf"):
        path.write_bytes(path.read_bytes() + b"\n" * 3_000_000)


@pytest.mark.parametrize("large", [False, True])
async def test_rows_behind_a_slow_one_are_left_to_others(tmp_path: Path, large: bool) -> None:
    manifest = rows_of(tmp_path, 8)
    if large:
        enlarge(manifest)
    slow, quick = client(Script(at={"sending": partial(asyncio.sleep, 3600)}), concurrency=1), client(concurrency=1)
    async with worker(manifest) as one, worker(manifest) as other:
        first = asyncio.create_task(UploadQueue(slow, one, Events()).run())
        await asyncio.sleep(1)
        second = asyncio.create_task(UploadQueue(quick, other, Events()).run())
        await asyncio.sleep(60)
        assert (slow.posts, quick.posts) == (1, 7)
        assert (await first, await second) == (None, None)


async def test_rows_without_a_worker_are_left_to_others(tmp_path: Path) -> None:
    """Six of eight workers are busy for an hour when more rows come back: two are begun, and six are not kept."""
    manifest = rows_of(tmp_path, 15)
    enlarge(manifest)
    slow = client("stored", *[Script(at={"sending": partial(asyncio.sleep, 3600)})] * 14, concurrency=8)
    quick = client(concurrency=8)
    async with worker(manifest) as one, worker(manifest) as other, worker(manifest) as third:
        held = await third.claim(15)
        for entry in held[:7]:
            third.release(entry)
        first = asyncio.create_task(UploadQueue(slow, one, Events()).run())
        await asyncio.sleep(5)
        for entry in held[7:]:
            third.release(entry)
        await asyncio.sleep(5)
        second = asyncio.create_task(UploadQueue(quick, other, Events()).run())
        await asyncio.sleep(60)
        assert (slow.posts, quick.posts) == (9, 6)
        assert (await first, await second) == (None, None)


async def test_a_row_that_waits_again_may_be_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows were in doubt and are not stored; another worker takes the rows of this one, which was asleep."""
    manifest, events = rows_of(tmp_path, 6), Events()
    model, quick, asked = client(*["in doubt and not stored"] * 2, concurrency=2), client(concurrency=2), 0
    identify_all = OpenMigration.identify_all
    async with worker(manifest) as one, worker(manifest) as other:

        async def sleeps(migration: OpenMigration, rows: Any) -> Any:
            nonlocal asked
            asked += migration is one
            if migration is one and asked > 1:
                for entry, _ in rows:
                    one.release(entry)
                await run_all(UploadQueue(quick, other, Events()))
            return await identify_all(migration, rows)

        monkeypatch.setattr(OpenMigration, "identify_all", sleeps)
        await run_all(UploadQueue(model, one, events))
        assert await one.counts() == {STORED: 6}

    assert quick.posts > 0
    assert {event.state for event in events.done} == {STORED}


async def test_a_doubt_that_another_worker_has_settled_is_done_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, model, events = rows_of(tmp_path, 1), client("in doubt and not stored"), Events()
    claim_doubt = OpenMigration.claim_doubt
    async with worker(manifest) as one, worker(manifest) as other:

        async def is_too_late(migration: OpenMigration, hopeless: Collection[int]) -> Any:
            if (doubt := await claim_doubt(other, hopeless)) is not None:
                await other.journal.settled(doubt[1], WAITING)
            return await claim_doubt(migration, hopeless)

        monkeypatch.setattr(OpenMigration, "claim_doubt", is_too_late)
        await run_all(UploadQueue(model, one, events))

    assert [event.state for event in events.done] == [STORED]


@pytest.mark.parametrize("end", ["stored", "rejected", "in doubt and stored", "in doubt and not stored"])
async def test_a_row_gets_the_outcome_of_the_worker_that_sends_it(tmp_path: Path, end: str) -> None:
    """The certificate is in another manifest, whose worker is just sending it."""
    manifest = rows_of(tmp_path, 1)
    (tmp_path / "copy.csv").write_text(manifest.path.read_text() + "\n")
    go_on, sent = asyncio.Event(), asyncio.Event()

    async def send() -> None:
        sent.set()
        await go_on.wait()

    slow = Script(at={"sending": send}, stores=ENDS[end].stores, error=ENDS[end].error)
    model, other_model = client(slow), client()
    other_model.stored, other_model.hashes = model.stored, model.hashes
    events = Events()
    async with worker(manifest) as one, worker(Manifest.open(tmp_path / "copy.csv")) as other:
        assert one.id != other.id
        running = asyncio.create_task(UploadQueue(model, one, Events()).run())
        await sent.wait()
        queue = UploadQueue(other_model, other, events)
        waiting = asyncio.create_task(queue.run())
        await asyncio.sleep(100)
        assert queue.waits_for_others
        assert await other.counts() == {SENDING: 1}
        assert not waiting.done()
        go_on.set()
        assert (await running, await waiting) == (None, None)
        assert await one.counts() == await other.counts() == {REJECTED if end == "rejected" else STORED: 1}

    assert model.posts + other_model.posts == (2 if end == "in doubt and not stored" else 1)
    assert {len(keys) for keys in model.stored.values()} <= {1}


async def test_a_queue_with_nothing_to_claim_waits_and_ends(tmp_path: Path) -> None:
    manifest, model = rows_of(tmp_path, 1), client(Script(at={"sending": partial(asyncio.sleep, 300)}))
    async with worker(manifest) as one, worker(manifest) as other:
        running = asyncio.create_task(UploadQueue(model, one, Events()).run())
        await asyncio.sleep(1)
        events = Events()
        assert await UploadQueue(model, other, events).run() is None
        assert 300 <= asyncio.get_running_loop().time() <= 310
        assert await running is None

    assert (events.done, events.steps, model.posts) == ([], [], 1)


@pytest.mark.parametrize("arrived", [False, True])
async def test_what_a_dead_worker_had_is_settled_and_goes_on(tmp_path: Path, clock: Clock, arrived: bool) -> None:
    """It was sending one row, and had claimed three more."""
    manifest, model, events = rows_of(tmp_path, 5), client(concurrency=2), Events()
    async with worker(manifest) as dying, worker(manifest) as alive:
        await settle(dying, SENDING)
        assert len(await dying.claim(3)) == 3
        die(dying.journal)
        if arrived:
            entry, *_ = await alive.entries()
            model._store(entry.upload())
        running = asyncio.create_task(UploadQueue(model, alive, events).run())
        await asyncio.sleep(A_LEASE / 2)
        assert events.states == {6: STORED}
        clock.slept += A_LEASE
        assert await running is None
        assert await alive.counts() == {STORED: 5}

    assert events.states == dict.fromkeys(range(2, 7), STORED)
    assert {event.row.number for event in events.settling} == {2}
    assert stored_once(model, 1, 2, 3, 4, 5)
    assert model.posts == (4 if arrived else 5)


async def test_a_worker_that_lost_its_claims_sends_nothing_of_them(tmp_path: Path, clock: Clock) -> None:
    """It was asleep when the limit let its row leave; another worker has stored the row meanwhile."""
    manifest, model, events, woken = rows_of(tmp_path, 3), client(), Events(), Events()
    go_on = asyncio.Event()
    asleep = client(Script(at={"waiting": go_on.wait}))
    async with worker(manifest) as sleeper, worker(manifest) as alive:
        sleeping = asyncio.create_task(UploadQueue(asleep, sleeper, woken).run())
        await woken.until(lambda: woken.count(2, "waiting") == 1)
        assert sleeper.journal._beat is not None
        sleeper.journal._beat.cancel()
        clock.slept += 2 * A_LEASE
        assert await UploadQueue(model, alive, events).run() is None
        go_on.set()
        assert await sleeping is None
        assert await sleeper.counts() == {STORED: 3}

    assert events.states == dict.fromkeys((2, 3, 4), STORED)
    assert (woken.done, asleep.posts) == ([], 0)
    assert stored_once(model, 1, 2, 3)


async def test_an_answer_while_its_doubt_is_settled_is_the_end(tmp_path: Path, clock: Clock) -> None:
    """The journal was away for longer than a lease, so this worker settles what it is still sending."""
    manifest, events, go_on = rows_of(tmp_path, 1), Events(), asyncio.Event()
    model = client(Script(at={"sending": go_on.wait}))
    async with worker(manifest) as migration:
        running = asyncio.create_task(UploadQueue(model, migration, events).run())
        await events.until(lambda: events.count(2, "sending") == 1)
        assert migration.journal._beat is not None
        migration.journal._beat.cancel()
        clock.slept += 2 * A_LEASE
        await events.until(lambda: bool(events.settling))
        go_on.set()
        assert await running is None
        assert await migration.counts() == {STORED: 1}

    assert [event.state for event in events.done] == [STORED]
    assert model.posts == 1


async def test_a_claim_lost_in_the_middle_leaves_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row goes on with its next claim, and is done once."""
    manifest, model, events = rows_of(tmp_path, 3), client(), Events()
    begin, lost = certificates.begin, iter([certificates.ClaimLost])

    def begin_or_lose(connection: Any, intent: Any, **options: Any) -> None:
        if (error := next(lost, None)) is not None:
            certificates.leave(connection, options["worker"])  # as who takes over does
            connection.execute("COMMIT")
            connection.execute("BEGIN IMMEDIATE")
            raise error
        begin(connection, intent, **options)

    monkeypatch.setattr(certificates, "begin", begin_or_lose)
    async with worker(manifest) as migration:
        await run_all(UploadQueue(model, migration, events))
        assert await migration.counts() == {STORED: 3}

    assert events.states == dict.fromkeys((2, 3, 4), STORED)
    assert stored_once(model, 1, 2, 3)


async def test_a_row_lost_before_it_is_identified_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others of its batch go on."""
    manifest, model, events = rows_of(tmp_path, 4), client(), Events()
    identify_all, lost = OpenMigration.identify_all, iter([2])

    async def lose_one(migration: OpenMigration, rows: Any) -> Any:
        if (number := next(lost, None)) is not None:
            free = partial(manifest_rows.release, entry=rows[number][0], worker=migration.journal.worker)
            await migration.journal.run(free)
        return await identify_all(migration, rows)

    monkeypatch.setattr(OpenMigration, "identify_all", lose_one)
    async with worker(manifest) as migration:
        await run_all(UploadQueue(model, migration, events))

    assert [event.row.number for event in events.done] == [2, 3, 5, 4]
    assert events.states == dict.fromkeys(range(2, 6), STORED)
    assert stored_once(model, 1, 2, 3, 4)


async def test_rows_that_do_not_get_their_turn_go_to_others(tmp_path: Path) -> None:
    """A worker has claimed more than it can send now."""
    manifest, model = rows_of(tmp_path, 8), client()
    stuck = client("stored", Script(at={"sending": partial(asyncio.sleep, 300)}))
    stuck.stored, stuck.hashes = model.stored, model.hashes
    first, second = Events(), Events()
    async with worker(manifest) as one, worker(manifest) as other:
        running = asyncio.create_task(UploadQueue(stuck, one, first).run())
        await first.until(lambda: first.count(3, "sending") == 1)
        sharing = asyncio.create_task(UploadQueue(model, other, second).run())
        await second.until(lambda: len(second.done) == 6)
        assert asyncio.get_running_loop().time() < 20
        assert (await running, await sharing) == (None, None)

    assert (first.states, second.states) == (
        {2: STORED, 3: STORED},
        dict.fromkeys(range(4, 10), STORED),
    )
    assert stored_once(model, *range(1, 9))


# --- files ---


async def test_a_file_unreadable_here_is_left_to_another_machine(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    there = rows_of(tmp_path / "there", 3)
    here = rows_of(tmp_path / "here", 3)
    (tmp_path / "here" / "2.pdf").unlink()
    first, second = Events(), Events()
    model, slow = client(), client(Script(at={"waiting": partial(asyncio.sleep, 20)}))
    journal = tmp_path / "journal"
    async with worker(here, journal, "here") as one, worker(there, journal, "there") as other:
        assert one.id == other.id
        # The other machine has begun, but is slow.
        running = asyncio.create_task(UploadQueue(slow, other, second).run())
        await second.until(lambda: second.steps != [])
        await run_all(UploadQueue(model, one, first))
        assert await running is None
        assert await one.counts() == {STORED: 3}

    assert WAITING in first.states.values() or 3 in second.states
    assert Counter([*model.stored, *slow.stored]) == dict.fromkeys(employees(1, 2, 3), 1)


async def test_what_no_living_worker_can_read_fails(tmp_path: Path) -> None:
    manifest, events = rows_of(tmp_path, 2), Events()
    (tmp_path / "1.pdf").unlink()
    model = client()
    async with worker(manifest, machine="here") as one, worker(manifest, machine="there") as other:
        await run_all(UploadQueue(model, one, events), UploadQueue(model, other, Events()))
        assert await one.counts() == {FAILED: 1, STORED: 1}
        failed, _ = await one.entries()
        assert "there is no such file" in failed.reason


@pytest.mark.parametrize("together", [False, True])
async def test_two_folders_with_other_pdfs_lose_none(tmp_path: Path, together: bool) -> None:
    """The same manifest lies in two folders, and its names mean other files there: they are all sent."""
    manifests = []
    for year in ("2024", "2025"):
        (tmp_path / year).mkdir()
        manifests.append(Manifest.open(archive(tmp_path / year, 4)))
        for number in range(1, 5):
            (tmp_path / year / f"{number}.pdf").write_bytes(certificate(f"No. {number} of {year}"))
            os.utime(tmp_path / year / f"{number}.pdf", (int(year), int(year) * 1_000_000))
    (tmp_path / "2025" / "4.pdf").write_bytes((tmp_path / "2024" / "4.pdf").read_bytes())
    model, journal = client(*[Script(turns=3)] * 8), tmp_path / "journal"
    if together:
        async with worker(manifests[0], journal) as one, worker(manifests[1], journal) as other:
            assert one.id == other.id
            await run_all(UploadQueue(model, one, Events()), UploadQueue(model, other, Events()))
            assert await one.counts() == {STORED: 4}
    else:
        for manifest in manifests:
            async with worker(manifest, journal) as migration:
                await run_all(UploadQueue(model, migration, Events()))

    files = {sha256_of(manifest.path.with_name(f"{number}.pdf")) for manifest in manifests for number in range(1, 5)}
    assert len(files) == 7
    assert sorted(model.hashes.values()) == sorted(files)


# --- before ---


async def test_what_another_manifest_stored_is_not_sent(tmp_path: Path) -> None:
    manifest, model, events = rows_of(tmp_path, 3), client("stored", "rejected"), Events()
    assert await run(model, manifest, Events()) is None
    (tmp_path / "copies").mkdir()
    for number in (1, 2, 3):
        (tmp_path / "copies" / f"{number}.pdf").write_bytes((tmp_path / f"{number}.pdf").read_bytes())
    text = manifest.path.read_text()
    (tmp_path / "copy.csv").write_text(
        "".join(f"copies/{line}\n" if ".pdf" in line else f"{line}\n" for line in text.splitlines())
    )

    assert await run(model, Manifest.open(tmp_path / "copy.csv"), events) is None

    assert events.states == {2: STORED, 3: REJECTED, 4: STORED}
    stored, rejected = events.done[0], events.done[1]
    assert (stored.stored_before, stored.receipt, stored.error) == (True, None, None)
    assert rejected.row.reason == str(Rejected("POST https://springest.example/users/certificates.json", 400, "no"))
    assert (model.posts, events.steps) == (3, [])


# --- doubts ---


async def test_a_doubt_is_settled_by_one_of_two_queues(tmp_path: Path) -> None:
    manifest = rows_of(tmp_path, 4)

    class Slow(ModelClient):
        asking = most = 0

        async def settle(self, doubt: InDoubt, *, known: Collection[int]) -> Certificate | None:
            Slow.asking += 1
            Slow.most = max(Slow.most, Slow.asking)
            await asyncio.sleep(30)
            Slow.asking -= 1
            return await super().settle(doubt, known=known)

    model: Any = Slow()
    first, second = Events(), Events()
    async with worker(manifest) as gone:
        await settle(gone, IN_DOUBT)
        entry, *_ = await gone.entries()
        model._store(entry.upload())
    async with worker(manifest) as one, worker(manifest) as other:
        await run_all(UploadQueue(model, one, first), UploadQueue(model, other, second))
        assert await one.counts() == {STORED: 4}

    assert (model.asked, Slow.most) == (1, 1)
    assert len(first.settling) + len(second.settling) == 1
    assert stored_once(model, 1, 2, 3, 4)


# --- stop and cancel ---


@pytest.mark.parametrize("cancel", [False, True])
@pytest.mark.parametrize("turns", range(1, 30, 3))
async def test_stop_and_cancel_free_the_claims_at_once(tmp_path: Path, cancel: bool, turns: int) -> None:
    """The stopped queue's journal stays open and its worker alive, and another queue stores all rows, at any moment."""
    manifest, events = rows_of(tmp_path, 6), Events()
    model, stopped = client(), client(*[Script(turns=2)] * 6, concurrency=3)
    async with worker(manifest) as one, worker(manifest) as other:
        queue = UploadQueue(stopped, one, Events())
        running = asyncio.create_task(queue.run())
        for _ in range(turns):
            await asyncio.sleep(0)
        if cancel:
            running.cancel()
        else:
            queue.stop()
        await asyncio.wait([running])
        model.stored, model.hashes = stopped.stored, stopped.hashes
        before = asyncio.get_running_loop().time()
        assert await UploadQueue(model, other, events).run() is None
        assert asyncio.get_running_loop().time() - before < 10
        assert await other.counts() == {STORED: 6}

    assert stored_once(model, *range(1, 7))
