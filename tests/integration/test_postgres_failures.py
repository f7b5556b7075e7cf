"""PostgreSQL fails under several processes that migrate: killed, restarted, cut off, replaced, without its standby.

Whatever happens, each certificate is stored once by the sandbox's audit, no period sees more than 30 POSTs, none leaves
whose intent is not durable, and the migration ends by itself.
"""

import asyncio
import contextlib
import random
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest

from springest_async import CertificateUpload, Journal
from springest_async.journal.certificates import microseconds
from springest_async.journal.journal import Claim
from springest_async.limits.bucket import Bucket, RateLimit
from springest_async.sandbox import Sandbox
from tests.pdfs import archive, hashes
from tests.waiting import A_WHILE, until

from .command import HeldSandbox, stored, until_said
from .migration import IDLE, LEASE, PERIOD, begin
from .servers.postgresql import Cluster, Database

pytestmark = [pytest.mark.soak, pytest.mark.postgresql]

WORKERS = 3
ANSWER = 3.0  # seconds that a worker waits for an answer

_INTENTS = "SELECT k.email FROM attempts AS a JOIN certificates AS k ON k.id = a.certificate"


def intents(database: Database, before: datetime | None = None) -> Counter[str]:
    """Return how many POSTs of each certificate the journal knows, at most those from before a moment."""
    until_then = "" if before is None else f" WHERE a.sent_at < {microseconds(before)}"
    return Counter(email for (email,) in database.execute(_INTENTS + until_then))


@attrs.frozen
class Outage:
    """A time in which no intent could become durable.

    Attributes:
        intents: those that were durable before it, by certificate.
        over: when it was over.
    """

    intents: Counter[str]
    over: datetime


@attrs.define
class Migration:
    """An archive that several processes migrate, and what happened meanwhile."""

    folder: Path
    url: str
    rows: int
    sandbox: Sandbox
    workers: list[Process] = attrs.field(factory=list)
    outages: list[Outage] = attrs.field(factory=list)

    async def begin(self) -> None:
        manifest = archive(self.folder, self.rows)
        begun = (begin(manifest, self.sandbox.origin, self.url) for _ in range(WORKERS))
        self.workers += await asyncio.gather(*begun)

    async def until_sent(self, share: float) -> None:
        """Wait until so many POSTs have been made, as a share of the certificates."""
        await until(lambda: len(self.sandbox.audit) >= share * self.rows)

    async def end(self) -> None:
        """Wait until the workers have ended by themselves, and see that they only waited for the journal."""
        for worker in self.workers:
            async with asyncio.timeout(2 * A_WHILE):
                _, err = await worker.communicate()
            assert worker.returncode == 0, err.decode()
            assert [line for line in err.decode().splitlines() if "waiting for the journal: " not in line] == []

    def check(self, database: Database) -> None:
        """Check that nothing was lost, stored twice, sent too fast, or sent without a durable intent."""
        assert stored(self.sandbox) == hashes(self.folder)
        summary = self.sandbox.summary()
        assert (summary.most_in_any_period <= 30, summary.refused_for_speed) == (True, 0)
        for outage in [*self.outages, Outage(intents(database), datetime.now(UTC))]:
            posts = Counter(post.fields["email"] for post in self.sandbox.audit if post.arrived_at < outage.over)
            assert posts <= outage.intents


@contextlib.asynccontextmanager
async def migrating(folder: Path, url: str, rows: int) -> AsyncIterator[Migration]:
    """Begin a migration, and at the end of the block wait for its own end."""
    async with Sandbox(period=PERIOD, body_timeout=IDLE) as sandbox:
        migration = Migration(folder, url, rows, sandbox)
        await migration.begin()
        yield migration
        await migration.end()


@contextlib.asynccontextmanager
async def away(cluster: Cluster, stop: Callable[[], None]) -> AsyncIterator[None]:
    """Stop a server for as long as the block lasts."""
    await asyncio.to_thread(stop)
    try:
        yield
    finally:
        await asyncio.to_thread(cluster.start)


# --- it comes back ---


async def test_postgresql_is_killed_and_restarted(tmp_path: Path, postgresql: Cluster, database: Database) -> None:
    """All its processes are killed three times, for less and for more than a lease; then it is restarted."""
    chance = random.Random(1)
    async with migrating(tmp_path, database.url, 200) as migration:
        stops = (postgresql.kill, postgresql.kill, postgresql.kill, postgresql.stop)
        for number, (stop, seconds) in enumerate(zip(stops, (0.5, 1.5 * LEASE, 1.0, 0.0), strict=True), start=1):
            await migration.until_sent(0.2 * number - 0.05)
            await asyncio.sleep(chance.uniform(0.0, 0.5))
            async with away(postgresql, stop):
                down = datetime.now(UTC)
                await asyncio.sleep(seconds)
                up = datetime.now(UTC)
            migration.outages.append(Outage(intents(database, down), up))

    migration.check(database)


END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'springest' AND datname = '{}'"


async def test_a_connection_is_cut_before_the_answer(tmp_path: Path, database: Database) -> None:
    """What has an intent and no outcome yet gets it later, in the same run."""
    end_all = END.format(database.name)
    async with HeldSandbox(api_key="sandbox-key", period=PERIOD, body_timeout=IDLE) as sandbox:
        migration = Migration(tmp_path, database.url, 24, sandbox)
        await migration.begin()
        # All of the one whose first is answered, and the first of the others: how many depends on who claims what.
        await until(lambda: sandbox.held >= 8)
        database.execute(end_all)
        sandbox.go_on.set()
        await migration.end()

    migration.check(database)
    assert len(sandbox.audit) == 24


async def test_connections_are_cut_all_the_time(tmp_path: Path, database: Database) -> None:
    chance = random.Random(1)
    end_one = f"{END.format(database.name)} ORDER BY random() LIMIT 1"

    async def cut() -> None:
        while True:
            await asyncio.sleep(chance.uniform(0.0, 0.4))
            await asyncio.to_thread(database.execute, end_one)

    async with migrating(tmp_path, database.url, 120) as migration:
        cutting = asyncio.create_task(cut())
        await migration.until_sent(1.0)
        cutting.cancel()

    migration.check(database)


# --- another one takes its place ---


async def test_a_promoted_standby_is_used_when_trusted(tmp_path: Path, postgresql: Cluster, database: Database) -> None:
    """It is an asynchronous one, and has everything, because a server that is stopped waits for its standby."""
    with postgresql.standby() as standby:
        successor = Database(standby, database.name)
        url = database.url.replace("/test_", f",127.0.0.1:{standby.port}/test_")
        async with migrating(tmp_path, url, 90) as migration, Journal(url, lease=LEASE) as journal:
            await journal.work()
            await migration.until_sent(0.4)
            async with away(postgresql, postgresql.stop):
                down = datetime.now(UTC)
                await asyncio.to_thread(standby.promote)
                for worker in migration.workers:
                    await until_said(worker, "this is another server than before")
                await until(lambda: "this is another server than before" in journal.trouble)
                await asyncio.sleep(2 * LEASE)  # long enough for all that had a token
                trusted = datetime.now(UTC)
                await Journal(url).trust(answer=ANSWER + PERIOD - 60)  # the minute is a short one here
                migration.outages.append(Outage(intents(successor, down), trusted))
                await until(lambda: not journal.trouble)
                await migration.end()

        migration.check(successor)
        first = min(post.arrived_at for post in migration.sandbox.audit if post.arrived_at > trusted)
        assert (first - trusted).total_seconds() >= ANSWER + PERIOD


# --- without its synchronous standby ---


@contextlib.contextmanager
def synchronous_standby(cluster: Cluster) -> Iterator[Cluster]:
    with cluster.standby(synchronous=True) as standby:
        cluster.configure(synchronous_commit="remote_apply")
        try:
            yield standby
        finally:
            cluster.configure(synchronous_commit="on")


WAITING = "FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND datname = '{}'"


async def test_nothing_leaves_without_the_standby(tmp_path: Path, postgresql: Cluster, database: Database) -> None:
    """A commit waits for it."""
    waiting = f"SELECT pid {WAITING.format(database.name)}"
    with synchronous_standby(postgresql) as standby:
        async with migrating(tmp_path, database.url, 90) as migration:
            await migration.until_sent(0.4)
            async with away(standby, standby.stop):
                durable = intents(database)
                await until(lambda: bool(database.execute(waiting)))
                await asyncio.sleep(2 * LEASE)
                assert intents(database) == durable
                migration.outages.append(Outage(durable, datetime.now(UTC)))

        migration.check(database)


async def test_a_cancelled_intent_waits_for_the_standby(
    postgresql: Cluster, database: Database, upload: CertificateUpload
) -> None:
    """Found again by the next try, it still is not durable: a transaction that only reads would wait for nobody."""
    cancel = f"SELECT pg_cancel_backend(pid) {WAITING.format(database.name)}"
    async with Journal(database.url) as journal:
        known = await journal.claim(upload, "https://example.org", bytes(32), claim="one")

        def take(bucket: Bucket, now: float) -> float:
            rate = RateLimit(posts=30, period=PERIOD)
            bucket.take(rate, now, name=intent.id, holder="one", count_window=ANSWER)
            return 0.0

        intent = Claim(journal, known.id, "one").intent()
        postgresql.configure(synchronous_standby_names="nobody")
        try:
            await until(lambda: database.execute("SHOW synchronous_standby_names") == [("nobody",)])
            beginning = asyncio.ensure_future(journal.ledger("a budget").change(take, intent))
            for _ in range(3):
                await until(lambda: bool(database.execute(cancel)) or beginning.done())
                assert not beginning.done()
        finally:
            postgresql.configure(synchronous_standby_names="")
        assert await beginning == 0

    assert intents(database) == {upload.email: 1}


async def test_a_cancelled_commit_is_not_durable(tmp_path: Path, postgresql: Cluster, database: Database) -> None:
    """PostgreSQL keeps it here, and says only in a warning that no standby has it."""
    cancel = f"SELECT pg_cancel_backend(pid) {WAITING.format(database.name)}"
    with synchronous_standby(postgresql) as standby:
        async with migrating(tmp_path, database.url, 90) as migration:
            await migration.until_sent(0.4)
            async with away(standby, standby.stop):
                durable = intents(database)
                cancelled = 0
                while cancelled < 5:
                    cancelled += len(database.execute(cancel))
                    await asyncio.sleep(0.1)
                await asyncio.sleep(LEASE)
                migration.outages.append(Outage(durable, datetime.now(UTC)))

        migration.check(database)
