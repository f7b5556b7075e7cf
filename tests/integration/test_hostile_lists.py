"""Lists from servers that answer anything else: each ends, with the error that says so, and costs little memory."""

import asyncio
import gzip
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import stamina
from attrs import evolve

from springest_async import (
    NoAnswer,
    Redirected,
    ServerError,
    Springest,
    SpringestError,
    UnexpectedStatus,
    UnreadableAnswer,
)
from tests.waiting import A_WHILE

from .raw_server import Behaviour, Exchange, RawServer, raw_server
from .wire import PATIENT
from .wire import client_of as plain_client_of

LIST = b'{"certificates": [{"id": 5001, "certification_id": 1, "valid_from": "2026-01-31"}]}'
LONG = LIST + b" " * 6_000_000
SPACES = b" " * 200_000_000
GZIP = "Content-Encoding: gzip"


def answer(status: int, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join((*lines, "", "")).encode("latin-1") + body


def chunked(body: bytes, *headers: str) -> bytes:
    head = "\r\n".join(("HTTP/1.1 200 Whatever", "Transfer-Encoding: chunked", *headers, "", ""))
    return head.encode("latin-1") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def sends(data: bytes) -> Behaviour:
    return sends_what(lambda: data)


def sends_what(make: Callable[[], bytes]) -> Behaviour:
    """Send what is made only when it is asked for, because it takes a while."""

    async def behaviour(exchange: Exchange) -> None:
        await exchange.read()
        await exchange.send(make())
        exchange.hang_up()

    return behaviour


async def goes_on_and_falls_silent(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    await asyncio.get_running_loop().create_future()


async def processes_without_end(exchange: Exchange) -> None:
    while not exchange.writer.is_closing():
        await exchange.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        await asyncio.sleep(0.05)


async def trickles(exchange: Exchange) -> None:
    await exchange.send(answer(200, length=1_000_000))
    while not exchange.writer.is_closing():
        await exchange.send(b" ")
        await asyncio.sleep(0.05)


class Endless:
    """A server whose answer does not end; `sent` is how many bytes it got rid of."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.sent = 0

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.go_on()
        await exchange.read()
        await exchange.send(b"HTTP/1.1 %d Whatever\r\nTransfer-Encoding: chunked\r\n\r\n" % self.status)
        while not exchange.writer.is_closing():
            await exchange.send(b"8000\r\n" + b" " * 0x8000 + b"\r\n")
            self.sent += 0x8000


@asynccontextmanager
async def client_of(server: RawServer) -> AsyncIterator[Springest]:
    """Return a client that waits for nobody who is never done, and for all others as long as a busy machine takes."""
    never_done = {goes_on_and_falls_silent, processes_without_end, trickles}
    timeouts = PATIENT if never_done.isdisjoint(server.behaviours) else evolve(PATIENT, answer=0.3)
    with stamina.set_testing(True, attempts=2):
        async with plain_client_of(server, timeouts=timeouts) as springest:
            yield springest


async def error_of(springest: Springest) -> SpringestError:
    async with asyncio.timeout(A_WHILE):
        with pytest.raises(SpringestError) as caught:
            await anext(springest.certificates())
    return caught.value


BROKEN = "{}: the connection broke in the middle of the answer"
NO_HTTP = "{}: the answer is not HTTP, or too long in its headers"
SILENT = "{}: no answer within the time allowed"
UNREADABLE = "{} answered 200, which cannot be read: expected "
TOO_LONG = f"{UNREADABLE}the whole answer, which is too long."
ERRORS: dict[str, tuple[Behaviour, type[SpringestError], str, int]] = {
    # what is answered: how, the error, how its text begins, and how often it is asked for
    "nothing": (sends(answer(200)), UnreadableAnswer, f"{UNREADABLE}JSON", 1),
    "a web page": (sends(answer(200, b"<html>Our Wi-Fi</html>")), UnreadableAnswer, f"{UNREADABLE}JSON", 1),
    "JSON that breaks off": (sends(answer(200, LIST[:-3])), UnreadableAnswer, f"{UNREADABLE}JSON", 1),
    "no list": (sends(answer(200, b"3")), UnreadableAnswer, f"{UNREADABLE}an array of certificates, not 3", 1),
    "a body that breaks off": (sends(answer(200, LIST, length=999)), NoAnswer, BROKEN, 2),
    "a body that is too long": (Endless(200), UnreadableAnswer, TOO_LONG, 1),
    "a body that trickles": (trickles, NoAnswer, BROKEN, 2),
    "a gzip bomb": (sends_what(lambda: answer(200, gzip.compress(SPACES), GZIP)), UnreadableAnswer, TOO_LONG, 1),
    "a deflate bomb": (
        sends_what(lambda: answer(200, zlib.compress(SPACES), "Content-Encoding: deflate")),
        UnreadableAnswer,
        TOO_LONG,
        1,
    ),
    "a bomb in a bomb": (
        sends_what(lambda: answer(200, gzip.compress(gzip.compress(SPACES)), GZIP)),
        UnreadableAnswer,
        f"{UNREADABLE}JSON",
        1,
    ),
    "gzip that breaks off": (sends(answer(200, gzip.compress(LIST)[:-12], GZIP)), UnreadableAnswer, UNREADABLE, 1),
    "no gzip that says so": (sends(answer(200, LIST, GZIP)), NoAnswer, "{}: ", 2),
    "100 and silence": (goes_on_and_falls_silent, NoAnswer, SILENT, 2),
    "102 without end": (processes_without_end, NoAnswer, SILENT, 2),
    "no HTTP": (sends(b"SSH-2.0-OpenSSH_9.2\r\n"), NoAnswer, NO_HTTP, 2),
    "a header of 9 KB": (sends(answer(200, LIST, "X-Long: " + "x" * 9_000)), NoAnswer, NO_HTTP, 2),
    "1000 headers": (sends(answer(200, LIST, *["X-Odd: x"] * 1000)), NoAnswer, NO_HTTP, 2),
    "201": (sends(answer(201, LIST)), UnexpectedStatus, "{} answered 201", 1),
    "204": (sends(answer(204)), UnexpectedStatus, "{} answered 204", 1),
    "206": (sends(answer(206, LIST)), UnexpectedStatus, "{} answered 206", 1),
    "302": (sends(answer(302, b"", "Location: /x")), Redirected, "{} answered 302", 1),
    "a long 404": (Endless(404), SpringestError, "{} answered 404", 1),
    "a long 500": (Endless(500), ServerError, "{} answered 500", 2),
}


@pytest.mark.parametrize("name", ERRORS)
async def test_what_is_no_list_is_an_error_that_says_so(name: str) -> None:
    behaviour, kind, text, asked = ERRORS[name]
    async with raw_server(behaviour) as server, client_of(server) as springest:
        error = await error_of(springest)

    assert isinstance(error, kind)
    assert str(error).startswith(text.format(f"GET {server.origin}/users/certificates.json"))
    assert len(str(error)) < 1000
    assert len(server.exchanges) == asked


@pytest.mark.parametrize(
    "data",
    [
        answer(200, LIST, "Content-Type: application/json; charset=nonsense"),
        answer(200, LIST, "Content-Type: application/json; charset=base64"),
        answer(200, LIST.decode().encode("utf-16"), "Content-Type: application/json; charset=utf-8"),
        answer(200, b"\xef\xbb\xbf" + LIST),
        answer(200, gzip.compress(LIST), GZIP),
        answer(200, gzip.compress(LONG), GZIP),
        chunked(gzip.compress(LONG), GZIP),
        chunked(zlib.compress(LONG), "Content-Encoding: deflate"),
        answer(200, LIST, "Content-Encoding: rot13"),
        b"HTTP/1.1 102 Processing\r\n\r\n" * 20 + answer(200, LIST),
        b"HTTP/1.0 200 OK\r\n\r\n" + LIST,
    ],
    ids=[
        "no charset",
        "no text",
        "utf-16",
        "byte order mark",
        "gzip",
        "6 MB, gzip",
        "6 MB, gzip, chunked",
        "6 MB, deflate, chunked",
        "no encoding",
        "interim",
        "HTTP/1.0",
    ],
)
async def test_what_is_a_list_after_all_is_read(data: bytes) -> None:
    async with raw_server(sends(data)) as server, client_of(server) as springest:
        (certificate, *_) = [certificate async for certificate in springest.certificates()]

    assert certificate.id == 5001


async def test_a_list_that_comes_slowly_and_keeps_coming_is_read() -> None:
    listed = LIST[:-1] + b', "meta": {"results": 1}}'

    async def slowly(exchange: Exchange) -> None:
        await exchange.send(answer(200, length=20 * 2_000 + len(listed)))
        for _ in range(20):
            await exchange.send(b" " * 2_000)
            await asyncio.sleep(0.1)
        await exchange.send(listed)

    patience = evolve(PATIENT, answer=1.0)
    async with raw_server(slowly) as server, plain_client_of(server, timeouts=patience) as springest:
        assert [certificate.id async for certificate in springest.certificates()] == [5001]

    assert len(server.exchanges) == 1


async def test_a_second_answer_is_not_taken_for_the_next_request() -> None:
    async def answers_twice(exchange: Exchange) -> None:
        await exchange.send(answer(200, b"[]") + answer(200, LIST))

    async with raw_server(answers_twice) as server, client_of(server) as springest:
        for _ in range(3):
            assert [certificate async for certificate in springest.certificates()] == []

    assert server.connections == 3


ASKER = """
import asyncio, re, sys
from datetime import date
from pathlib import Path
from springest_async import CertificateUpload, Limiter, Settings, Springest, SpringestError

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

async def main(origin, file):
    settings = Settings(limiter=Limiter())
    async with Springest(api_key="key-of-the-tests", host=origin, settings=settings) as springest:
        before = peak()
        try:
            if file:
                await springest.upload(
                    CertificateUpload(file=file, certification_id=1, email="j@example.org", valid_from=date(2026, 1, 1))
                )
            else:
                await anext(springest.certificates())
        except SpringestError as error:
            print(type(error).__name__, peak() - before)

asyncio.run(main(*sys.argv[1:]))
"""


MIB = 1024 * 1024


async def asked(behaviour: Behaviour, file: Path | None) -> str:
    """Ask for a list, or post a file, in a process of its own that must stay small; give the name of its error."""
    async with raw_server(behaviour) as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ASKER, server.origin, file or "", stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(A_WHILE):
            said, _ = await process.communicate()
    name, grown = said.split()
    assert int(grown) < 64 * 1024  # KiB
    return name.decode()


async def test_an_endless_answer_is_given_up_and_disconnected(pdf: Path) -> None:
    server_of_lists, server_of_errors = Endless(200), Endless(404)

    assert await asked(server_of_lists, None) == "UnreadableAnswer"
    assert await asked(server_of_errors, pdf) == "NotFound"

    # What is beyond our bound (8 MiB and 256 KiB) is what the system took in before the connection was closed.
    assert server_of_lists.sent < 24 * MIB
    assert server_of_errors.sent < 16 * MIB


@pytest.mark.parametrize("posted", [True, False])
async def test_a_bomb_is_not_decompressed_whole(posted: bool, pdf: Path) -> None:
    bomb = sends(answer(422 if posted else 200, gzip.compress(SPACES), GZIP))

    assert await asked(bomb, pdf if posted else None) == ("Rejected" if posted else "UnreadableAnswer")
