"""The journal as a client sees it: opened, closed, its lease, and claims that end with it."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from springest_async.errors import JournalError, JournalMissing
from springest_async.journal import journal as module
from springest_async.journal.certificates import ClaimLost
from springest_async.journal.changed_files import claim_changed_files
from springest_async.journal.engine import Connection
from springest_async.journal.journal import CUT_OFF, Claim, Journal
from springest_async.journal.open_migration import OpenMigration
from springest_async.journal.records import State
from tests.waiting import A_WHILE, until

from .model import LEASE, ORIGIN, SHA256, Clock, Fields, rows, source


@pytest.fixture
async def journal(tmp_path: Path, clock: Clock) -> AsyncIterator[Journal]:
    async with Journal(tmp_path / "journal.sqlite3") as journal:
        yield journal


@pytest.fixture
async def second(journal: Journal) -> AsyncIterator[Journal]:
    async with Journal(journal.where) as second:
        yield second


async def claim(journal: Journal, name: str = "x") -> Claim:
    known = await journal.claim(Fields(), ORIGIN, SHA256, claim=name)
    assert known.claim == name
    return Claim(journal, known.id, name)


async def workers(journal: Journal) -> int:
    ((count,),) = await journal.run(lambda connection: connection.execute("SELECT count(*) FROM workers"))
    return int(count)


# --- opened and closed ---


async def test_nothing_is_opened_before_it_is_used(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite3")

    assert repr(journal) == f"<Journal {tmp_path / 'journal.sqlite3'}, closed>"
    assert not (tmp_path / "journal.sqlite3").exists()
    async with journal:
        assert repr(journal).endswith("open>")
        assert journal.trouble == ""


async def test_looking_makes_no_journal(tmp_path: Path) -> None:
    with pytest.raises(JournalMissing):
        await Journal(tmp_path / "journal.sqlite3").open(create=False)

    assert not (tmp_path / "journal.sqlite3").exists()


async def test_it_is_opened_once(journal: Journal) -> None:
    with pytest.raises(RuntimeError, match="open already"):
        await journal.open()


def test_after_its_loop_was_closed_it_can_be_opened(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite3")

    async def work() -> int:
        await journal.open()
        await journal.work()
        return await workers(journal)

    async def work_and_close() -> int:
        try:
            return await work()
        finally:
            await journal.close()

    assert asyncio.run(work()) == 1
    assert asyncio.run(work_and_close()) == 1


async def test_it_can_be_closed_again_and_opened_again(journal: Journal) -> None:
    await journal.close()
    await journal.close()

    async with journal:
        assert await journal.orphans() == []


async def test_a_closed_journal_says_so(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite3")

    with pytest.raises(RuntimeError, match="the journal is closed"):
        await journal.orphans()
    async with journal:
        pass
    with pytest.raises(RuntimeError, match="the journal is closed"):
        await journal.orphans()


async def test_what_cannot_be_opened_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite3").write_bytes(b"email,file\n" * 100)

    with pytest.raises(JournalError, match="not a journal"):
        await Journal(tmp_path / "journal.sqlite3").open()


@pytest.mark.parametrize(
    "address",
    [
        "postgresql+psycopg://jan:secret@db.example/springest",
        "POSTGRESQL://jan:secret@db.example/springest",
        "host=db.example password=secret",
        "mysql://jan:secret@db.example/springest",
    ],
)
def test_an_address_of_another_kind_is_no_file(address: str) -> None:
    with pytest.raises(JournalError, match="postgresql://USER@HOST") as raised:
        Journal(address)

    assert "secret" not in str(raised.value)


async def test_names_of_later_posts_come_later(journal: Journal) -> None:
    """Then those of many POSTs stand on few pages of the index, of which each costs a commit two writes."""
    names = []
    for _ in range(5):
        names.append(Claim(journal, 1, "claim").intent().id)
        await asyncio.sleep(0.001)

    assert names == sorted(names)
    assert {len(name) for name in names} == {32}


async def test_what_is_noted_is_written_before_it_closes(journal: Journal, second: Journal) -> None:
    journal.remember_hash(Path("/x.pdf"), 1, 2, SHA256)
    await journal.close()

    assert await second.known_hash(Path("/x.pdf"), 1, 2) == SHA256


async def test_a_failed_note_is_logged(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: object) -> None:
        raise JournalError("here", "full")

    journal.note(fail)
    await journal.run(lambda _: None)

    assert [(record.levelname, "full" in record.getMessage()) for record in caplog.records] == [("WARNING", True)]


async def test_a_cancelled_wait_disturbs_nobody(journal: Journal) -> None:
    waiting = asyncio.ensure_future(journal.orphans())
    await asyncio.sleep(0)
    waiting.cancel()

    assert await journal.orphans() == []


# --- the lease ---


async def test_a_journal_that_only_looks_is_no_worker(journal: Journal) -> None:
    await journal.orphans()

    assert await workers(journal) == 0
    assert journal.may_send() == CUT_OFF


async def test_a_worker_leaves_when_its_journal_closes(journal: Journal, second: Journal) -> None:
    await claim(journal)
    await journal.close()

    assert await workers(second) == 0
    assert (await claim(second, "y")).may_send() is None


async def test_a_worker_may_send_until_its_lease_nears_its_end(journal: Journal, clock: Clock) -> None:
    held = await claim(journal)
    clock.now += LEASE - 6
    assert held.may_send() is None

    clock.now += 2

    assert held.may_send() == journal.may_send() == CUT_OFF


async def test_the_lease_is_renewed_in_time(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BEATS", 600_000)
    async with Journal(tmp_path / "journal.sqlite3") as journal:
        held = await claim(journal)
        for _ in range(5):
            clock.now += LEASE / 2
            await is_renewed(journal, clock)

        assert held.may_send() is None


async def is_renewed(journal: Journal, clock: Clock) -> None:
    """Wait until the lease was renewed at this time."""
    query = "SELECT lease_until FROM workers"
    while await journal.run(lambda connection: connection.execute(query)) != [(clock.now + LEASE,)]:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await journal.run(lambda _: None)  # after its answer


async def test_a_claim_that_was_taken_over_stays_so(journal: Journal, second: Journal, clock: Clock) -> None:
    """A POST that went on after a sleep would arrive when the certificate is sent once more."""
    held = await claim(journal)
    clock.now += LEASE + 1
    assert (await claim(second, "y")).may_send() is None

    await journal.work(1)

    assert journal.may_send() is None
    assert held.may_send() == CUT_OFF


async def test_a_worker_that_nobody_replaced_loses_its_claims_too(journal: Journal, clock: Clock) -> None:
    held = await claim(journal)
    clock.now += LEASE + 1

    await journal.work(1)

    assert held.may_send() == CUT_OFF
    assert (await claim(journal, "y")).may_send() is None


async def test_a_claim_makes_a_worker_live_again(journal: Journal, second: Journal, clock: Clock) -> None:
    """Nobody would ever take over what it claims while it is not known."""
    await claim(journal)
    clock.now += LEASE + 1
    await second.work()

    await claim(journal, "y")

    assert await workers(journal) == 2


# --- what it composes ---


async def test_a_released_claim_can_be_claimed(journal: Journal) -> None:
    (await claim(journal)).release()

    await claim(journal, "y")


async def test_a_doubt_has_one_settler(journal: Journal, second: Journal) -> None:
    held = await claim(journal)

    def put_in_doubt(connection: Connection) -> None:
        connection.execute("UPDATE certificates SET state = 'in doubt', claim = NULL, worker = NULL")

    await journal.run(put_in_doubt)
    doubt = await journal.claim_doubt(held.certificate)
    assert doubt is not None
    assert await second.claim_doubt(held.certificate) is None
    journal.stop_settling(doubt)
    await journal.run(lambda _: None)

    doubt = await second.claim_doubt(held.certificate)
    assert doubt is not None
    assert (await second.settled(doubt, State.STORED, springest_id=5)).springest_id == 5


async def test_two_workers_share_a_migration(journal: Journal, second: Journal, tmp_path: Path) -> None:
    manifest = source(tmp_path)
    for line in rows(4):
        (tmp_path / line.file).write_bytes(line.file.encode())
    first, loaded = await OpenMigration.load(journal, manifest, rows(4), faulty=0, columns=())
    other, again = await OpenMigration.load(second, manifest, rows(4), faulty=0, columns=())
    assert (loaded.new, again.new, first.id) == (4, 0, other.id)

    mine, theirs = await first.claim(2), await other.claim(9)

    assert [entry.number for entry in mine] == [2, 3]
    assert [entry.number for entry in theirs] == [4, 5]
    assert await first.claim(9) == []
    assert await first.has_other_workers()
    assert await first.has_unfinished()
    first.release(mine[0])
    await journal.run(lambda _: None)
    (entry,) = await other.claim(9)
    known, right = await other.identify(entry, 5, 6, hashlib.sha256(b"2.pdf").digest())
    assert right is not None
    assert right.may_send() is None
    assert known.email == entry.email
    with pytest.raises(ClaimLost):
        await first.identify(mine[0], 5, 6, SHA256)
    assert await first.counts() == {State.WAITING: 4}


async def test_what_a_worker_that_slept_rechecks_goes_back(
    journal: Journal, second: Journal, tmp_path: Path, clock: Clock
) -> None:
    file = tmp_path / "2.pdf"
    file.write_bytes(b"2.pdf")
    migration, _ = await OpenMigration.load(journal, source(tmp_path), rows(2)[:1], faulty=0, columns=())
    (entry,) = await migration.claim(1)
    await migration.identify(entry, 5, file.stat().st_mtime_ns, SHA256)
    clock.now += LEASE + 1
    other, _ = await OpenMigration.load(second, source(tmp_path), rows(2)[:1], faulty=0, columns=())

    file.write_bytes(b"another one")
    assert len(await migration.recheck_files(1, after=0)) == 1
    clock.now += LEASE + 1

    assert len(await other.claim(1)) == 1


async def test_what_a_cancelled_task_rechecks_goes_back(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread looks at files, perhaps on a slow disk, and claims their rows after the cancellation."""
    begun, go_on, ended, claim = threading.Event(), threading.Event(), threading.Event(), claim_changed_files

    def slowly(*arguments: Any, **options: Any) -> Any:
        begun.set()
        assert go_on.wait(A_WHILE)
        try:
            return claim(*arguments, **options)
        finally:
            ended.set()

    file = tmp_path / "2.pdf"
    file.write_bytes(b"2.pdf")
    migration, _ = await OpenMigration.load(journal, source(tmp_path), rows(2)[:1], faulty=0, columns=())
    (entry,) = await migration.claim(1)
    await migration.identify(entry, 5, file.stat().st_mtime_ns, SHA256)
    migration.release(entry)
    file.write_bytes(b"another one")
    monkeypatch.setattr("springest_async.journal.changed_files.claim_changed_files", slowly)

    checking = asyncio.create_task(migration.recheck_files(1, after=0))
    await until(begun.is_set)
    checking.cancel()
    await asyncio.wait([checking])
    await journal.run(lambda _: None)  # and with it whatever has been noted by now
    go_on.set()
    await until(ended.is_set)

    assert checking.cancelled()
    async with asyncio.timeout(A_WHILE):
        while not await migration.claim(1):  # noqa: ASYNC110 # another thread drops the claim
            await asyncio.sleep(0.01)
