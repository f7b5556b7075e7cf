"""Uploads with a journal: a certificate is stored once, however often and by however many it is uploaded."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

from springest_async import Certificate, CertificateUpload, InDoubt, Journal, NotSent, Receipt, Rejected, ServerError
from springest_async.journal import certificates
from springest_async.journal.certificates import ClaimLost
from springest_async.journal.journal import Claim
from springest_async.journal.records import Outcome, State
from springest_async.once import OnceUpload
from springest_async.source_file import SourceFile
from springest_async.upload import UploadStep
from tests.virtual import die, run_at_once

pytestmark = pytest.mark.looptime(start=0, noop_cycles=0)

WHERE = "POST https://springest.example/users/certificates.json"
ORIGIN = "https://springest.example"


@pytest.fixture(autouse=True)
def _in_virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    run_at_once(monkeypatch)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with Journal(tmp_path / "journal") as journal:
        yield journal


@pytest.fixture
async def other(journal: Journal) -> AsyncIterator[Journal]:
    """Return the same journal as another process has it."""
    async with Journal(journal.where) as other:
        yield other


class Server:
    """Stores certificates; `ends` are the errors of the next POSTs, None for a receipt."""

    def __init__(self, *ends: Exception | None) -> None:
        self.ends = iter(ends)
        self.posts = self.asked = 0
        self.stored: list[CertificateUpload] = []
        self.before_answer: Callable[[], Awaitable[object]] = partial(asyncio.sleep, 0)
        self.answer: Exception | int | None = None  # to `ask`

    async def send(self, upload: CertificateUpload, _: SourceFile, claim: Claim) -> Receipt:
        intent, worker = claim.intent(), claim.journal.worker
        begin = partial(certificates.begin, intent=intent, worker=worker, budget="", counted_until=0.0, back_at=0.0)
        try:
            await claim.journal.run(begin)
        except asyncio.CancelledError:
            claim.journal.note(partial(certificates.end, outcome=intent.unsent))
            raise
        self.posts += 1
        end = partial(Outcome, attempt=intent.id, answered_at=datetime.now(UTC))
        await self.before_answer()
        error = next(self.ends, None)
        match error:
            case None:
                self.stored.append(upload)
                outcome = end(state=State.STORED, springest_id=len(self.stored))
            case InDoubt(reason=reason):
                outcome = end(state=State.IN_DOUBT, reason=reason)
            case Rejected():
                outcome = end(state=State.REJECTED, reason=str(error))
            case _:
                outcome = end(state=State.WAITING)
        claim.journal.note(partial(certificates.end, outcome=outcome))
        if error is not None:
            raise error
        now = datetime.now(UTC)
        return Receipt(id=len(self.stored), upload=upload, attempts=1, sent_at=now, answered_at=now)

    async def ask(self, doubt: InDoubt, *, known: Collection[int]) -> Certificate | None:
        self.asked += 1
        await asyncio.sleep(1)
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is None or self.answer in known:
            return None
        return Certificate(id=self.answer, certification_id=doubt.certification_id, valid_from=doubt.valid_from)

    async def upload(
        self, journal: Journal, upload: CertificateUpload, listener: Callable[[UploadStep], None] = lambda _: None
    ) -> Receipt:
        with ThreadPoolExecutor(1) as executor:
            once = OnceUpload(
                journal,
                upload,
                listener,
                where=WHERE,
                origin=ORIGIN,
                executor=executor,
                send=partial(self.send, upload),
                ask=self.ask,
            )
            async with asyncio.timeout(10_000):
                return await once.run()


def no_answer() -> InDoubt:
    now = datetime.now(UTC)
    return InDoubt(WHERE, "no answer", "jan@example.org", 7, date(2026, 1, 31), None, now, now)


async def test_twice_in_a_row_is_sent_once(journal: Journal, other: Journal, upload: CertificateUpload) -> None:
    server = Server()
    first = await server.upload(journal, upload)
    second, third = await server.upload(journal, upload), await server.upload(other, upload)

    assert (first.stored_before, second.stored_before, third.stored_before) == (False, True, True)
    assert first.id == second.id == third.id == 1
    assert server.posts == 1


async def test_a_small_file_needs_two_transactions(journal: Journal, upload: CertificateUpload) -> None:
    """One claims it, and one has the intent; only a file that takes long to hash is looked up before."""
    server = Server()
    await server.upload(journal, upload)  # the journal lives from now on
    counted = [await journal.run(lambda _: journal.transaction)]

    async def count() -> None:
        counted.append(journal.transaction)

    server.before_answer = count
    await server.upload(journal, attrs.evolve(upload, certification_id=8))

    assert counted[1] - counted[0] == 2


async def test_at_the_same_time_it_is_sent_once(journal: Journal, other: Journal, upload: CertificateUpload) -> None:
    server = Server()
    server.before_answer = partial(asyncio.sleep, 100)
    calls = [server.upload(where, upload) for where in (journal, other, journal, other)]

    receipts = await asyncio.gather(*calls)

    assert {receipt.id for receipt in receipts} == {1}
    assert sorted(receipt.stored_before for receipt in receipts) == [False, True, True, True]
    assert server.posts == 1


@pytest.mark.parametrize("stored", [True, False])
async def test_in_doubt_is_settled_first(journal: Journal, upload: CertificateUpload, stored: bool) -> None:
    server = Server(no_answer())
    with pytest.raises(InDoubt):
        await server.upload(journal, upload)
    server.answer = 9 if stored else None

    receipt = await server.upload(journal, upload)

    assert (receipt.id, receipt.stored_before) == ((9, True) if stored else (1, False))
    assert (server.posts, server.asked) == (1 if stored else 2, 1)


async def test_in_doubt_that_nobody_can_tell_raises(journal: Journal, upload: CertificateUpload) -> None:
    server = Server(no_answer())
    server.answer = no_answer()
    for asked in (0, 1, 2):
        with pytest.raises(InDoubt):
            await server.upload(journal, upload)
        assert (server.posts, server.asked) == (1, asked)


async def test_a_server_that_cannot_be_asked_is_asked_again(journal: Journal, upload: CertificateUpload) -> None:
    server = Server(no_answer())
    with pytest.raises(InDoubt):
        await server.upload(journal, upload)
    server.answer = ServerError("GET", 503, "")
    with pytest.raises(ServerError):
        await server.upload(journal, upload)
    server.answer = 5

    assert (await server.upload(journal, upload)).id == 5
    assert server.posts == 1


async def test_rejected_earlier_is_sent_again(journal: Journal, upload: CertificateUpload) -> None:
    """A call is a person's word."""
    server = Server(Rejected(WHERE, 400, "no"))
    with pytest.raises(Rejected):
        await server.upload(journal, upload)

    assert (await server.upload(journal, upload)).id == 1
    assert server.posts == 2


async def test_rejected_meanwhile_is_not_sent_again(
    journal: Journal, other: Journal, upload: CertificateUpload
) -> None:
    server = Server(Rejected(WHERE, 400, "no"))
    server.before_answer = partial(asyncio.sleep, 50)
    results: Any = await asyncio.gather(
        server.upload(journal, upload), server.upload(other, upload), return_exceptions=True
    )

    assert [type(result) for result in results] == [Rejected, Rejected]
    assert server.posts == 1


async def test_not_sent_is_sent_by_the_one_that_waits(
    journal: Journal, other: Journal, upload: CertificateUpload
) -> None:
    server = Server(NotSent(WHERE, "the connection broke"))
    server.before_answer = partial(asyncio.sleep, 50)
    results: Any = await asyncio.gather(
        server.upload(journal, upload), server.upload(other, upload), return_exceptions=True
    )

    assert [type(result) for result in results] == [NotSent, Receipt]
    assert server.posts == 2


async def test_a_cancelled_waiter_cancels_only_its_waiting(
    journal: Journal, other: Journal, upload: CertificateUpload
) -> None:
    server, steps = Server(), list[UploadStep]()
    server.before_answer = partial(asyncio.sleep, 100)
    sending = asyncio.create_task(server.upload(journal, upload))
    await asyncio.sleep(1)
    waiting = asyncio.create_task(server.upload(other, upload, steps.append))
    await asyncio.sleep(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await waiting

    assert isinstance(cancelled.value.__cause__, NotSent)
    assert [step.kind for step in steps] == ["not stored"]
    assert (await sending).id == 1
    assert server.posts == 1


@pytest.mark.parametrize("turns", range(12))
async def test_cancelled_at_any_moment_it_keeps_no_claim(
    journal: Journal, other: Journal, upload: CertificateUpload, turns: int
) -> None:
    server = Server()
    server.before_answer = asyncio.Event().wait
    calling = asyncio.create_task(server.upload(journal, upload))
    for _ in range(turns):
        await asyncio.sleep(0)
    if server.posts:  # it is being sent
        await _cancelled(calling)
        return
    await _cancelled(calling)
    server.before_answer = partial(asyncio.sleep, 0)

    assert (await server.upload(other, upload)).id == 1
    assert asyncio.get_running_loop().time() < 5


async def _cancelled(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_lookalikes_are_never_confused(
    journal: Journal, make_upload: Callable[..., CertificateUpload], tmp_path: Path
) -> None:
    """The same person, certification and dates, and another PDF."""
    (tmp_path / "other.pdf").write_bytes(b"%PDF-1.4 another one")
    (tmp_path / "same.pdf").write_bytes(make_upload().file.read_bytes())
    one, another, same = (
        make_upload(),
        make_upload(file=tmp_path / "other.pdf"),
        make_upload(file=tmp_path / "same.pdf"),
    )
    server = Server(None, no_answer())
    assert (await server.upload(journal, one)).id == 1
    with pytest.raises(InDoubt):
        await server.upload(journal, another)
    server.answer = 1  # that is the first one's

    assert (await server.upload(journal, another)).id == 2
    assert (await server.upload(journal, same)).id == 1
    assert server.posts == 3


async def test_a_lost_claim_goes_on(journal: Journal, upload: CertificateUpload) -> None:
    server = Server()
    send, lost = server.send, iter([ClaimLost])

    async def lose_first(*arguments: Any) -> Receipt:
        if (error := next(lost, None)) is not None:
            raise error
        return await send(*arguments)

    server.send = lose_first  # type: ignore[method-assign, assignment]

    assert (await server.upload(journal, upload)).id == 1
    assert server.posts == 1


async def test_a_dead_sender_is_waited_for_and_settled(
    journal: Journal, other: Journal, upload: CertificateUpload
) -> None:
    server = Server()
    server.before_answer = asyncio.Event().wait
    sending = asyncio.create_task(server.upload(other, upload))
    await asyncio.sleep(1)
    die(other)
    server.answer = 4

    assert (await server.upload(journal, upload)).id == 4
    assert (server.posts, server.asked) == (1, 1)
    assert 60 <= asyncio.get_running_loop().time() < 70
    sending.cancel()
    await asyncio.wait([sending])
