"""Answers that come before the certificate was read: by haproxy, by nginx, and by servers that hang up on the rest.

Who closes a connection with bytes unread breaks it, and the answer that went before is easily lost with it.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from tests.integration.raw_server import Behaviour, Exchange, RawServer, created, raw_server
from tests.integration.servers.haproxy import haproxy_in_front_of
from tests.integration.servers.nginx import nginx_in_front_of
from tests.integration.tls import Authority

from .catalogue import Fault, Happening, Outcome, World

__all__ = ["FAULTS"]

_SIZES = {"200 KB": 200_000, "24 MB": 24_000_000}
"""A certificate that the buffers on the way can take whole, and one that they cannot."""

_WORDS = "We take no such certificate."
_INVALID = '{"errors": {"email": ["is invalid"]}}'
_ANY_RATE = "1000r/s"


# --- scripts ---


def _refuses(status: int, words: str, *, goes_on: bool = True, reads: int = 0, resets: bool = False) -> Behaviour:
    """Send 100 or not, read so much of the certificate, refuse it, and hang up with the rest unread."""

    async def behaviour(exchange: Exchange) -> None:
        if goes_on:
            await exchange.go_on()
        await exchange.read(reads)
        await exchange.answer(status, words.encode())
        if resets:
            exchange.reset()
        else:
            exchange.hang_up()

    return behaviour


async def _goes_on_and_never_reads(exchange: Exchange) -> None:
    await exchange.go_on()
    await asyncio.get_running_loop().create_future()


def _refuses_and_reads_on(status: int, words: str) -> Behaviour:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.go_on()
        await exchange.read(100_000)
        await exchange.answer(status, words.encode(), Connection="close")
        await exchange.read()

    return behaviour


def _by(behaviour: Behaviour, *, tls: bool = False) -> Happening:
    @asynccontextmanager
    async def happens() -> AsyncIterator[World]:
        with tempfile.TemporaryDirectory() as folder:
            authority = Authority(Path(folder) / "ca") if tls else None
            async with raw_server(behaviour, tls=authority.right() if authority else None) as server:
                settings = {"ca_file": authority.file} if authority else {}
                yield World(server.origin, lambda: 0, settings, posts=lambda: len(server.exchanges))

    return happens


# --- servers ---


def _by_haproxy(rules: str = "", *, behind: Behaviour = created) -> Happening:
    @asynccontextmanager
    async def happens() -> AsyncIterator[World]:
        async with raw_server(behind) as server, haproxy_in_front_of(server.origin, rules=rules) as origin:
            yield _in_front_of(server, origin)

    return happens


def _by_haproxy_with_a_full_queue() -> Happening:
    @asynccontextmanager
    async def happens() -> AsyncIterator[World]:
        busy = asyncio.Event()

        async def never_ends(_: Exchange) -> None:
            busy.set()
            await asyncio.get_running_loop().create_future()

        async with (
            raw_server(never_ends) as server,
            haproxy_in_front_of(server.origin, options="maxconn 1") as origin,
        ):
            _, writer = await asyncio.open_connection("127.0.0.1", int(origin.rpartition(":")[2]))
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await busy.wait()
            yield World(origin, lambda: 0)
            writer.transport.abort()

    return happens


def _by_nginx(rules: str = "", *, behind: Behaviour = created) -> Happening:
    @asynccontextmanager
    async def happens() -> AsyncIterator[World]:
        rules_of_all = f"server_tokens off;\n{rules}"
        async with (
            raw_server(behind) as server,
            nginx_in_front_of(server.origin, rules=rules_of_all, rate=_ANY_RATE) as origin,
        ):
            yield _in_front_of(server, origin)

    return happens


def _in_front_of(server: RawServer, origin: str) -> World:
    """Return the world of a server that stores all that arrives whole, or refuses all and sees it come."""
    if created not in server.behaviours:
        return World(origin, lambda: 0, posts=lambda: len(server.exchanges))
    return World(origin, lambda: sum(len(exchange.body) == exchange.length for exchange in server.exchanges))


# --- faults ---


def _rejected(status: int, said: str, *, tries: int = 1) -> Outcome:
    return Outcome("rejected", tries, "Rejected", f"POST … rejected the certificate ({status}): {said}")


_REFUSED = _rejected(413, _WORDS)
# Four tries of a 400 that names no field, and one alone after a silence.
_REFUSED_ALONE = _rejected(400, _WORDS, tries=5)
_IS_INVALID = _rejected(400, "email: is invalid")
_TWICE = Outcome("stored", 2)
_STALLED = Outcome("not stored", 4, "NotSent", "POST …: the upload stopped moving")


def _unsent(status: int) -> Outcome:
    reason = f"POST …: the server answered {status} before it had the whole certificate"
    return Outcome("not stored", 4, "NotSent", reason)


def _scripted() -> Iterator[tuple[str, Happening, Outcome]]:
    for status, words, outcome in ((413, _WORDS, _REFUSED), (400, _INVALID, _IS_INVALID)):
        some = f"{status} behind the first 100 KB"
        refuses = partial(_refuses, status, words)
        yield f"{status} at once, and it hangs up", _by(refuses(goes_on=False)), outcome
        yield f"{status} behind 100 Continue, and it hangs up on the rest", _by(refuses()), outcome
        yield f"{some}, and it hangs up on the rest", _by(refuses(reads=100_000)), outcome
        yield f"{some}, and a reset", _by(refuses(reads=100_000, resets=True)), outcome
        yield f"{some}, and it reads on", _by(_refuses_and_reads_on(status, words)), outcome
        unasked = _by(refuses(goes_on=False, reads=100_000))
        yield f"{some} by a server that ignores Expect, and it hangs up on the rest", unasked, outcome
        over_tls = _by(refuses(reads=100_000), tls=True)
        yield f"{some}, over TLS, and it hangs up on the rest", over_tls, outcome
    unnamed = _by(_refuses(400, _WORDS, reads=100_000))
    yield "400 that names no field behind the first 100 KB, and it hangs up on the rest", unnamed, _REFUSED_ALONE


def _scripted_for_large_ones() -> Iterator[tuple[str, Happening, Outcome]]:
    yield "100 Continue, and it never reads", _by(_goes_on_and_never_reads), _STALLED


def _haproxy() -> Iterator[tuple[str, Happening, Outcome]]:
    answer = f"http-request return status 400 content-type application/json string '{_INVALID}'"
    denial = "413 Payload Too Large The request entity exceeds the maximum allowed."
    yield "400 at once", _by_haproxy(answer), _IS_INVALID
    yield "400 with the beginning of the body read", _by_haproxy(f"option http-buffer-request\n{answer}"), _IS_INVALID
    waits = f"http-request wait-for-body time 10s at-least 100k\n{answer}"
    yield "400 with the first 100 KB read", _by_haproxy(waits), _IS_INVALID
    yield "413 by its rule", _by_haproxy("http-request deny deny_status 413"), _rejected(413, denial)
    yield "413 of the server behind it", _by_haproxy(behind=_refuses_and_reads_on(413, _WORDS)), _REFUSED
    yield "503, because its queue is full", _by_haproxy_with_a_full_queue(), _unsent(503)


def _haproxy_once() -> Iterator[tuple[str, Happening, Outcome]]:
    counts = "stick-table type ip size 1 expire 1m store http_req_cnt\nhttp-request track-sc0 src\n"
    too_fast = (
        counts + "http-request return status {} content-type text/plain string Slow {} if {{ sc0_http_req_cnt le 1 }}"
    )
    yield "429 with Retry-After, once", _by_haproxy(too_fast.format(429, "hdr Retry-After 0")), _TWICE
    yield "503, once", _by_haproxy(too_fast.format(503, "")), _TWICE


def _nginx() -> Iterator[tuple[str, Happening, Outcome]]:
    answer = f"default_type application/json; return 400 '{_INVALID}';"
    too_large = _rejected(413, "413 Request Entity Too Large nginx")
    yield "400 at once", _by_nginx(answer), _IS_INVALID
    yield "400 at once, without a lingering close", _by_nginx(f"lingering_close off; {answer}"), _IS_INVALID
    yield "413 by its largest size", _by_nginx("client_max_body_size 100k;"), too_large
    at_once = _by_nginx("client_max_body_size 100k; lingering_close off; keepalive_timeout 0;")
    yield "413 by its largest size, without a lingering close", at_once, too_large
    passed_on = _by_nginx("proxy_request_buffering off;", behind=_refuses_and_reads_on(413, _WORDS))
    yield "413 of the server behind it", passed_on, _REFUSED


def _nginx_for_large_ones() -> Iterator[tuple[str, Happening, Outcome]]:
    # nginx says "go on" before it refuses, so that a small certificate may have left whole by then, and is in doubt.
    yield "503 at once", _by_nginx("return 503 Later;"), _unsent(503)


FAULTS = tuple(
    Fault(
        name=f"{server}: {name} ({size})" if server else f"{name} ({size})",
        happens=happens,
        expected=expected,
        size=_SIZES[size],
        needs=(server,) if server else (),
        hangs_up=True,
    )
    for server, faults, sizes in (
        ("", _scripted(), _SIZES),
        ("", _scripted_for_large_ones(), ("24 MB",)),
        ("haproxy", _haproxy(), _SIZES),
        ("haproxy", _haproxy_once(), ("200 KB",)),
        ("nginx", _nginx(), _SIZES),
        ("nginx", _nginx_for_large_ones(), ("24 MB",)),
    )
    for name, happens, expected in faults
    for size in sizes
)
