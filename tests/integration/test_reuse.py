"""Connections that are used again put no certificate in doubt, whenever a server closes those that are idle.

A POST that goes out on a connection that the server is just closing has no answer, so it is in doubt. The client uses a
connection again only shortly after its last answer, before common servers close it. On real sockets.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from email.message import Message

import aiohttp
import pytest
from attrs import define, field

from springest_async import CertificateUpload, InDoubt, Limiter, Receipt, Settings, Springest
from springest_async.sandbox import Sandbox

from .raw_server import Exchange, form_of, raw_server
from .servers.nginx import nginx_in_front_of
from .servers.rails import rails_server
from .wire import PATIENT, client_of, taken

MakeUpload = Callable[..., CertificateUpload]


async def upload_at_random_gaps(
    clients: list[Springest], uploads: list[CertificateUpload], *, longest_gap: float
) -> list[Receipt]:
    """Upload with two tasks for each client; each of them waits up to `longest_gap` seconds between two uploads.

    Every fourth gap is none at all, so that some connections are used again however busy the machine is.
    """
    waiting, gaps = iter(uploads), random.Random(1)

    async def upload_some(client: Springest) -> list[Receipt]:
        receipts = []
        for upload in waiting:  # which all tasks share
            receipts.append(await client.upload(upload))
            if gaps.random() > 0.25:
                await asyncio.sleep(gaps.uniform(0, longest_gap))
        return receipts

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(upload_some(client)) for client in clients for _ in range(2)]
    return [receipt for task in tasks for receipt in task.result()]


@asynccontextmanager
async def clients_of(origin: str, count: int, api_key: str) -> AsyncIterator[list[Springest]]:
    """Open several clients, each with connections of its own, and none with a limit that it could reach."""
    settings = Settings(limiter=Limiter(posts=100_000, requests_per_hour=1_000_000), timeouts=PATIENT)
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(Springest(api_key=api_key, host=origin, settings=settings))
            for _ in range(count)
        ]


def count_connections(clients: list[Springest]) -> Counter[str]:
    """Return a counter of how many requests of open clients had a new connection and how many a used one."""
    counts = Counter[str]()

    async def count_new(*_: object) -> None:
        counts["new"] += 1

    async def count_used(*_: object) -> None:
        counts["used"] += 1

    config = aiohttp.TraceConfig()
    config.on_connection_create_end.append(count_new)
    config.on_connection_reuseconn.append(count_used)
    config.freeze()
    for client in clients:
        client._transport._sessions["POST"].trace_configs.append(config)
    return counts


# --- a scripted server, 20 times as fast as a real one ---

TICK = 0.01
"""Seconds. The server counts idle time in ticks, so that a moment in which the whole machine stands still is one."""
SCALED_REUSE = 5 * TICK  # for 1 s
SCALED_GAP = 15 * TICK  # for 3 s


@define(eq=False)
class ImpatientServer:
    """Closes a connection when it was idle for 10 to 20 ticks (for 2 to 4 s).

    Half of them it closes at that moment, the others when the next request arrives afterwards, which is the worst
    moment: the request has left in full.
    """

    stored: Counter[str] = field(factory=Counter)
    closed: int = 0
    _now: int = 0
    _random: random.Random = field(factory=lambda: random.Random(2))
    _closes_at: dict[asyncio.StreamWriter, int] = field(factory=dict)
    _waits: set[asyncio.StreamWriter] = field(factory=set)

    async def __call__(self, exchange: Exchange) -> None:
        """Store a certificate, unless its connection counts as closed."""
        if self._closes_at.pop(exchange.writer, self._now) < self._now:
            self.closed += 1
            exchange.reset()
            return
        await taken(exchange)
        email: Message = form_of(exchange)["email"]
        self.stored[email.get_payload()] += 1  # type: ignore[index] # a part that is no form itself is a text
        await exchange.answer(201, b'{"id": 5001}')
        self._closes_at[exchange.writer] = self._now + self._random.randint(10, 20)
        if self._random.random() < 0.5:
            self._waits.add(exchange.writer)
        else:
            self._waits.discard(exchange.writer)

    async def tick(self) -> None:
        """Count the time, and close what was idle for too long; for a task beside the server."""
        while True:
            await asyncio.sleep(TICK)
            self._now += 1
            for writer, closes_at in [*self._closes_at.items()]:
                if writer.is_closing():
                    del self._closes_at[writer]
                elif closes_at < self._now and writer not in self._waits:
                    self.closed += 1
                    writer.close()


@asynccontextmanager
async def impatient_server() -> AsyncIterator[tuple[ImpatientServer, str]]:
    """Run an impatient server; yield it and its origin."""
    impatient = ImpatientServer()
    async with raw_server(impatient) as server:
        ticking = asyncio.create_task(impatient.tick())
        try:
            yield impatient, server.origin
        finally:
            ticking.cancel()


@pytest.mark.parametrize("count", [200, pytest.param(5_000, marks=pytest.mark.soak)])
async def test_a_used_connection_puts_nothing_in_doubt(
    count: int, make_upload: MakeUpload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("springest_async.http.transport._REUSE_WITHIN", SCALED_REUSE)
    emails = [f"u{number}@example.org" for number in range(count)]
    uploads = [make_upload(email=email) for email in emails]
    async with impatient_server() as (server, origin), clients_of(origin, 8, "key-of-the-tests") as clients:
        connections = count_connections(clients)
        receipts = await upload_at_random_gaps(clients, uploads, longest_gap=SCALED_GAP)

    assert len(receipts) == count
    assert server.stored == Counter(emails)
    assert connections["new"] > 2 * len(clients)
    assert connections["used"] > count / 10


async def upload_slowly(client: Springest, uploads: list[CertificateUpload]) -> None:
    """Upload one after the other, each when the server has closed the connection of the one before."""
    for upload in uploads:
        await client.upload(upload)
        await asyncio.sleep(25 * TICK)


async def test_a_connection_that_is_used_too_late_is_in_doubt(
    make_upload: MakeUpload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above would see it: with a longer time for reuse, the same server does put a certificate in doubt."""
    monkeypatch.setattr("springest_async.http.transport._REUSE_WITHIN", 60.0)
    async with impatient_server() as (server, origin), client_of(origin) as client:
        with pytest.raises(InDoubt):
            await upload_slowly(client, [make_upload(email=f"u{number}@example.org") for number in range(100)])

    assert server.closed > 0


# --- real servers, at their own pace ---


async def upload_for_a_minute(origin: str, api_key: str, uploads: list[CertificateUpload]) -> None:
    """Upload 200 certificates with gaps of up to 3 s; all are stored at the first try."""
    async with clients_of(origin, 2, api_key) as clients:
        connections = count_connections(clients)
        receipts = await upload_at_random_gaps(clients, uploads, longest_gap=3.0)

    assert len({receipt.id for receipt in receipts}) == len(uploads)
    assert connections["new"] > 2 * len(clients)
    assert connections["used"] > len(uploads) / 10


@pytest.mark.soak
@pytest.mark.nginx
async def test_nginx_that_closes_after_two_seconds(make_upload: MakeUpload) -> None:
    uploads = [make_upload(certification_id=1, email=f"u{number}@example.org") for number in range(200)]
    # The rate of this nginx is only looked at, not kept.
    rules = "keepalive_timeout 2s;\nlimit_req_dry_run on;"
    async with Sandbox(limit=10_000) as sandbox, nginx_in_front_of(sandbox.origin, rules=rules) as origin:
        await upload_for_a_minute(origin, sandbox.api_key, uploads)

    assert [post.verdict for post in sandbox.audit] == ["stored"] * len(uploads)


@pytest.mark.soak
@pytest.mark.rails
async def test_puma_with_its_own_idle_time(make_upload: MakeUpload) -> None:
    uploads = [make_upload(certification_id=103, email=f"u{number}@example.org") for number in range(200)]
    async with rails_server(limit=10_000) as rails:
        await upload_for_a_minute(rails.origin, rails.key, uploads)
        audit = await rails.audit()

    assert audit.verdicts() == ["stored"] * len(uploads)
