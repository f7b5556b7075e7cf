"""The budget in the journal: the token and the intent of a POST are one commit, and all workers share the bucket."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from springest_async.errors import JournalError
from springest_async.journal.certificates import ClaimLost
from springest_async.journal.engine import Connection
from springest_async.journal.journal import Journal
from springest_async.journal.ledger import JournalLedger
from springest_async.journal.records import Intent, KnownCertificate, Outcome, State
from springest_async.journal.sqlite import SQLiteConnection
from springest_async.limits.bucket import Bucket, RateLimit

from .model import ORIGIN, Clock, Fields, set_clock

RATE = RateLimit(30, 60.0)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    with set_clock(Clock()):
        async with Journal(tmp_path / "journal.sqlite3") as journal:
            yield journal


@pytest.fixture
async def second(tmp_path: Path, journal: Journal) -> AsyncIterator[Journal]:
    async with Journal(tmp_path / "journal.sqlite3") as second:
        yield second


async def claim(journal: Journal, number: int = 0) -> KnownCertificate:
    return await journal.claim(Fields(), ORIGIN, bytes([number]) * 32, claim=f"claim {number}")


def intent_of(known: KnownCertificate) -> Intent:
    assert known.claim is not None
    return Intent(id=uuid4().hex, certificate=known.id, claim=known.claim)


def taking(intent: Intent, holder: str = "x") -> Callable[[Bucket, float], float]:
    def take(bucket: Bucket, now: float) -> float:
        wait = bucket.ask(RATE, now, holder=holder, bulk=False)
        if not wait:
            bucket.take(RATE, now, name=intent.id, holder=holder, count_window=30)
        return wait

    return take


def ending(intent: Intent, counted_until: float | None) -> Callable[[Bucket, float], object]:
    return lambda bucket, now: bucket.end(RATE, now, name=intent.id, counted_until=counted_until)


async def post(journal: Journal, ledger: JournalLedger, number: int = 0) -> Intent:
    """Begin a POST, and return its intent."""
    intent = intent_of(await claim(journal, number))
    assert await ledger.change(taking(intent), intent) == 0
    return intent


async def tokens_out(journal: Journal) -> int:
    """Return how many tokens are out, as they are read from the journal."""
    ledger = JournalLedger(journal, "budget")
    await ledger.change(lambda bucket, _: 0.0)
    with ledger.peek() as bucket:
        return bucket.tokens_out


async def attempts(journal: Journal) -> list[tuple[str, str | None]]:
    return await journal.run(lambda connection: connection.execute("SELECT id, outcome FROM attempts"))


async def test_token_and_intent_are_one_commit(journal: Journal) -> None:
    intent = await post(journal, journal.ledger("budget"))

    assert await attempts(journal) == [(intent.id, None)]
    assert (await journal.certificate(intent.certificate)).state is State.SENDING
    assert await tokens_out(journal) == 1


async def test_a_post_keeps_what_was_agreed_when_it_left(journal: Journal) -> None:
    def agree(posts: int, bucket: Bucket, now: float) -> float:
        bucket.limits[posts] = now + 1000
        return 0.0

    ledger = journal.ledger("budget")
    for number, posts in enumerate((RATE.posts + 1, RATE.posts - 1)):
        await ledger.change(partial(agree, posts))
        await post(journal, ledger, number)
    allowed = await journal.run(lambda connection: connection.execute("SELECT allowed FROM attempts ORDER BY sent_at"))

    assert allowed == [(RATE.posts,), (RATE.posts - 1,)]


async def test_all_workers_share_the_bucket(journal: Journal, second: Journal) -> None:
    ledgers = [journal.ledger("budget"), second.ledger("budget")]
    for number in range(RATE.posts):
        await post([journal, second][number % 2], ledgers[number % 2], number)
    intent = intent_of(await claim(second, 99))

    assert await ledgers[1].change(taking(intent), intent) > 0

    assert await tokens_out(journal) == RATE.posts
    assert (await second.certificate(intent.certificate)).state is State.WAITING


@pytest.mark.parametrize("counted_until", [None, 1e9])
async def test_an_outcome_and_its_token_are_one_statement(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, counted_until: float | None
) -> None:
    ledger = journal.ledger("budget")
    intent = await post(journal, ledger)
    statements: list[str] = []
    execute = SQLiteConnection.execute

    def note(self: SQLiteConnection, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        statements.append(sql)
        return execute(self, sql, values)

    monkeypatch.setattr(SQLiteConnection, "execute", note)
    ledger.note(ending(intent, counted_until), intent.unsent)
    await journal.run(lambda _: None)

    assert sum(sql.startswith("UPDATE attempts") for sql in statements) == 1
    assert await tokens_out(journal) == (counted_until is not None)


async def test_budgets_are_apart(journal: Journal) -> None:
    await post(journal, journal.ledger("another"))

    assert await tokens_out(journal) == 0


async def test_without_the_claim_nothing_is_changed(journal: Journal) -> None:
    ledger, known = journal.ledger("budget"), await claim(journal)
    intent = Intent(id=uuid4().hex, certificate=known.id, claim="another")

    with pytest.raises(ClaimLost):
        await ledger.change(taking(intent), intent)

    assert await tokens_out(journal) == 0
    assert await attempts(journal) == []
    intent = await post(journal, ledger)
    assert await tokens_out(journal) == 1


async def test_a_full_disk_takes_no_token(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise JournalError("here", "full")

    ledger, intent = journal.ledger("budget"), intent_of(await claim(journal))
    monkeypatch.setattr(SQLiteConnection, "check_space", full)
    beside = [
        asyncio.ensure_future(ledger.change(taking(intent), intent)),
        asyncio.ensure_future(journal.run(lambda connection: connection.execute("SELECT 1"))),
    ]

    failed, other = await asyncio.gather(*beside, return_exceptions=True)

    assert isinstance(failed, JournalError)
    assert other == [(1,)]
    assert await tokens_out(journal) == 0
    with ledger.peek() as bucket:
        bucket_of_this = bucket.tokens_out
    await ledger.change(lambda bucket, _: 0.0)
    with ledger.peek() as bucket:
        assert bucket.tokens_out == 0, bucket_of_this


async def test_an_end_and_its_outcome_are_one_commit(journal: Journal) -> None:
    ledger = journal.ledger("budget")
    intent = await post(journal, ledger)

    ledger.note(ending(intent, None), Outcome(attempt=intent.id, state=State.STORED, springest_id=5))
    await journal.run(lambda _: None)

    assert await tokens_out(journal) == 0
    assert await attempts(journal) == [(intent.id, "stored")]


async def test_a_token_rests_after_the_end(journal: Journal, second: Journal) -> None:
    ledger = journal.ledger("budget")
    intent = await post(journal, ledger)

    ledger.note(ending(intent, ledger.now()), Outcome(attempt=intent.id, state=State.STORED))
    await journal.run(lambda _: None)

    assert await tokens_out(second) == 1
    with second.ledger("budget").peek() as bucket:
        bucket.settle(ledger.now() + RATE.silence + 1)
        assert bucket.tokens_out == 0


async def test_ends_are_written_when_the_journal_closes(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    async with Journal(path) as journal:
        ledger = journal.ledger("budget")
        intent = await post(journal, ledger)
        ledger.note(ending(intent, None), Outcome(attempt=intent.id, state=State.STORED, springest_id=5))

    async with Journal(path) as again:
        known = await again.certificate(intent.certificate)
        assert (known.state, known.springest_id) == (State.STORED, 5)
        assert await tokens_out(again) == 0


async def test_an_intent_whose_answer_was_lost_is_one_post(journal: Journal) -> None:
    """Its own token may be the last one, so a second look at the bucket would have it wait for itself."""
    ledger = journal.ledger("budget")
    for number in range(RATE.posts - 1):
        await post(journal, ledger, number)
    intent = intent_of(await claim(journal, 99))
    for _ in range(2):
        assert await ledger.change(taking(intent), intent) == 0

    assert await tokens_out(journal) == RATE.posts
    assert (await journal.certificate(intent.certificate)).attempts == 1


async def test_an_intent_that_was_taken_over_waits_again(journal: Journal, second: Journal) -> None:
    ledger = journal.ledger("budget")
    intent = await post(journal, ledger)

    def take_over(connection: Connection) -> None:
        from springest_async.journal import certificates  # noqa: PLC0415

        connection.execute("UPDATE workers SET lease_until = 0 WHERE id = ?", (journal.worker,))
        certificates.take_over(connection)

    await second.run(take_over)
    assert (await second.certificate(intent.certificate)).state is State.IN_DOUBT

    with pytest.raises(ClaimLost):
        await ledger.change(taking(intent), intent)
    await journal.run(lambda _: None)

    assert (await second.certificate(intent.certificate)).state is State.WAITING


async def test_a_change_that_changes_nothing_writes_nothing(journal: Journal) -> None:
    await journal.ledger("budget").change(lambda bucket, _: 0.0)

    assert await journal.run(lambda connection: connection.execute("SELECT * FROM budgets")) == []


async def test_clients_of_one_journal_share_a_ledger(journal: Journal) -> None:
    assert journal.ledger("budget") is journal.ledger("budget")
    assert journal.ledger("budget") is not journal.ledger("another")


async def test_a_repr_shows_no_budget(journal: Journal) -> None:
    assert repr(journal.ledger("secret")) == f"<JournalLedger of {journal!r}>"
