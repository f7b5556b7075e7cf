"""Connections that cannot be made, and connections of the pool that are no good any more, on real sockets."""

import asyncio
import json
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import aiohttp
import pytest
import stamina
from aiohttp.abc import AbstractResolver, ResolveResult
from attrs import evolve

from springest_async import CertificateUpload, Limiter, NoAnswer, NotSent
from tests.waiting import heard, leaping_clock

from .command import KEY, assert_no_key_in, springest
from .raw_server import Behaviour, Exchange, created, raw_server
from .wire import PATIENT, closed_port, ids
from .wire import client_of as plain_client_of

client_of = partial(plain_client_of, api_key=KEY, certifications_api_key=KEY)


@pytest.fixture(autouse=True)
def _hardly_any_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("springest_async.upload.backoff", lambda _: 0.01)


class CountingLimiter(Limiter):
    """A limiter that tells how much of the hourly budget lists took."""

    taken = 0

    async def request(self) -> None:
        self.taken += 1
        await super().request()


# --- no connection ---


@pytest.mark.parametrize("name", ["nothing.invalid", "a..invalid", f"{'a' * 64}.invalid", "127.1"])
async def test_a_name_that_cannot_be_resolved(name: str, upload: CertificateUpload) -> None:
    async with client_of(f"https://{name}") as client:
        with pytest.raises(NotSent) as posted:
            await client.upload(upload)
        with stamina.set_testing(True, attempts=2), pytest.raises(NotSent) as asked:
            await ids(client)

    for caught in (posted, asked):
        assert caught.value.reason == "the host's name cannot be resolved"
        assert not caught.value.connected
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)
        assert_no_key_in(f"{caught.value!r} {caught.value}")
    assert repr(client.limiter) == "<Limiter 30 in 60 s, 0 under way, 0 resting, fast>"


class _Addresses(AbstractResolver):
    """Resolves every name to the same addresses."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        kinds = [(address, socket.AF_INET6 if ":" in address else socket.AF_INET) for address in self._addresses]
        return [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=0)
            for address, kind in kinds
        ]

    async def close(self) -> None:
        """Close nothing."""


# Nobody listens at the one, and the other nobody can reach, which the system tells in other words.
@pytest.mark.parametrize("other", ["::1", "ff02::1"])
async def test_a_name_with_two_addresses_that_both_refuse(other: str, upload: CertificateUpload) -> None:
    resolver = _Addresses(other, "127.0.0.1")
    async with (
        aiohttp.TCPConnector(resolver=resolver) as connector,
        client_of(f"https://springest.test:{closed_port()}", connector=connector) as client,
    ):
        with pytest.raises(NotSent) as caught:
            await client.upload(upload)

    kind, _, words = caught.value.reason.partition(": ")
    assert (kind, "Connection refused" in words.split(", ")) == ("no connection", True)
    assert not caught.value.connected


@contextmanager
def silent_port(*addresses: str, port: int = 0) -> Iterator[int]:
    """Yield a port, or take this one, that answers nobody at these addresses, as a firewall that drops what comes."""
    with ExitStack() as stack:
        for address in addresses:
            listener = stack.enter_context(socket.socket())
            listener.bind((address, port))
            listener.listen(0)
            port = listener.getsockname()[1]
            for _ in range(4):  # which fill its queue
                caller = stack.enter_context(socket.socket())
                caller.setblocking(False)
                caller.connect_ex((address, port))
        yield port


def told_by_the_system(monkeypatch: pytest.MonkeyPatch, *addresses: str, after: float = 0.0) -> None:
    """Resolve every name to these addresses, `after` so many seconds."""

    async def getaddrinfo(_: object, port: int, **__: object) -> list[tuple[Any, ...]]:
        await asyncio.sleep(after)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


SILENT = ("127.0.0.2", "127.0.0.3", "127.0.0.4")


@pytest.mark.skipif(sys.platform != "linux", reason="only there all of 127.0.0.0/8 is loopback")
@pytest.mark.parametrize(("told_after", "addresses"), [(0.0, SILENT), (40.0, SILENT[:1])])
@pytest.mark.parametrize("behind_a_proxy", [False, True])
async def test_a_connection_is_given_up_in_time_whatever_its_name(
    told_after: float,
    addresses: tuple[str, ...],
    behind_a_proxy: bool,
    upload: CertificateUpload,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("springest_async.upload.TRIES", 1)
    told_by_the_system(monkeypatch, *addresses, after=told_after)
    timeouts = evolve(PATIENT, connect=20.0)
    with silent_port(*addresses) as port, leaping_clock():
        proxy = f"http://proxy.test:{port}" if behind_a_proxy else None
        async with client_of(f"https://springest.test:{port}", timeouts=timeouts, proxy=proxy) as client:
            before = asyncio.get_running_loop().time()
            with pytest.raises(NotSent) as caught:
                await client.upload(upload)
        # And not three times as long, nor beginning when the name is known.
        assert asyncio.get_running_loop().time() - before < 50.0
    through = " through the proxy" if behind_a_proxy else ""
    assert caught.value.reason == f"no connection{through} within the time allowed"
    assert not caught.value.connected


@pytest.mark.skipif(sys.platform != "linux", reason="only there all of 127.0.0.0/8 is loopback")
async def test_a_name_is_reached_at_the_one_address_that_answers(
    upload: CertificateUpload, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with raw_server(created) as server:
        port = int(server.origin.rpartition(":")[2])
        told_by_the_system(monkeypatch, *SILENT[:2], "127.0.0.1")
        with silent_port(*SILENT[:2], port=port):
            async with client_of(f"http://localhost:{port}") as client:
                receipt = await client.upload(upload)

    assert receipt.attempts == 1
    assert len(server.exchanges) == 1


async def test_the_command_tells_plainly_why_there_is_no_connection() -> None:
    unknown, silent = "https://nothing.invalid", f"http://localhost:{closed_port()}"
    advice = "Springest cannot be reached. Check the internet connection, then run the same command again."

    with stamina.set_testing(True, attempts=2):  # without its waits
        ran = [await springest("certifications", origin=origin) for origin in (unknown, silent)]

    assert [(one.code, one.out) for one in ran] == [(1, ""), (1, "")]
    assert [" ".join(one.err.split()) for one in ran] == [
        f"springest: {advice} (GET {unknown}/certifications.json: the host's name cannot be resolved)",
        f"springest: {advice} (GET {silent}/certifications.json: no connection: Connection refused)",
    ]


# --- connections of the pool ---


def answer(number: int) -> bytes:
    body = json.dumps({"certifications": [{"id": number, "name": "VCA"}], "meta": {"results": 1}}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


async def lists(exchange: Exchange) -> None:
    """Answer, and stay connected; the list has the number of the connection."""
    await exchange.send(answer(exchange.connection))


async def hangs_up(exchange: Exchange) -> None:
    exchange.hang_up()


async def resets(exchange: Exchange) -> None:
    exchange.reset()


TIMED_OUT = b"HTTP/1.1 408 Request Time-out\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


async def says_408(exchange: Exchange) -> None:
    """Answer that the connection was idle for too long, when the next request is on its way already."""
    await exchange.send(TIMED_OUT)
    exchange.hang_up()


def lists_and_then(more: bytes, *, hangs_up: bool) -> Behaviour:
    async def behaviour(exchange: Exchange) -> None:
        await lists(exchange)
        await asyncio.sleep(0.03)
        await exchange.send(more)
        if hangs_up:
            exchange.hang_up()

    return behaviour


STALE: list[tuple[str, Behaviour, Behaviour, list[int]]] = [
    # What is done with the first request and with the second one; the connections of the requests that arrived.
    ("closed when it is used again", lists, hangs_up, [1, 1, 2]),
    ("reset when it is used again", lists, resets, [1, 1, 2]),
    ("408 when it is used again", lists, says_408, [1, 1, 2]),
    ("closed while it is idle", lists_and_then(b"", hangs_up=True), lists, [1, 2]),
    ("408 and closed while it is idle", lists_and_then(TIMED_OUT, hangs_up=True), lists, [1, 2]),
    ("408 and open while it is idle", lists_and_then(TIMED_OUT, hangs_up=False), lists, [1, 2]),
    ("an answer that nobody asked for", lists_and_then(answer(666), hangs_up=False), lists, [1, 2]),
]


@pytest.mark.parametrize(("first", "second", "arrived"), [case[1:] for case in STALE], ids=[case[0] for case in STALE])
async def test_a_stale_connection_costs_a_list_nothing(first: Behaviour, second: Behaviour, arrived: list[int]) -> None:
    limiter = CountingLimiter()
    # Without stamina's waits.
    with stamina.set_testing(True, attempts=2):
        async with raw_server(first, second, lists) as server, client_of(server.origin, limiter=limiter) as client:
            assert await ids(client) == [1]
            await asyncio.sleep(0.1)  # idle
            await heard()
            assert await ids(client) == [2]

    assert [exchange.connection for exchange in server.exchanges] == arrived
    assert limiter.taken == len(server.exchanges)


async def test_what_is_asked_for_again_by_aiohttp_counts_too() -> None:
    limiter = CountingLimiter()
    with stamina.set_testing(True, attempts=3):
        async with raw_server(hangs_up) as server, client_of(server.origin, limiter=limiter) as client:
            with pytest.raises(NoAnswer, match="the server closed the connection without an answer"):
                await ids(client)

    assert limiter.taken == len(server.exchanges) == 6
