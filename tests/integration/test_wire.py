"""What goes over the wire, byte for byte, and what each way to break off means. On real sockets."""

import asyncio
import errno
import gc
import hashlib
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
import stamina
from aiohttp.http_parser import HttpResponseParserPy
from attrs import evolve

from springest_async import (
    CertificateUpload,
    ConfigurationError,
    InDoubt,
    Limiter,
    NoAnswer,
    NotSent,
    Redirected,
    Rejected,
    Settings,
    Springest,
    SpringestError,
    Timeouts,
    UnusableFile,
    UploadStep,
)
from springest_async.http.exchange import MAX_POST_ANSWER_BYTES
from springest_async.http.watchdog import reading_socket
from springest_async.sandbox import Sandbox
from springest_async.source_file import FileReader, SourceFile
from tests.descriptors import open_files_in
from tests.uploads import upload_in_bulk
from tests.waiting import A_WHILE, heard, leaping_clock, until

from .raw_server import Behaviour, Exchange, RawServer, created, either, form_of, raw_server
from .wire import KEY, PATH, PATIENT, client_of, closed_port, file_of, small_socket, taken

# Who hangs with it, waits for what cannot come.
FOR_EVER = evolve(PATIENT, answer=3600.0)


@pytest.fixture(autouse=True)
def _hardly_any_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("springest_async.upload.backoff", lambda _: 0.01)


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """Return a file that is larger than what all buffers between two processes can hold."""
    path = tmp_path / "big.pdf"
    with path.open("wb") as stream:
        stream.write(b"%PDF-1.7\n")
        stream.truncate(24 * 1024 * 1024)
    return path


def content_of_big() -> bytes:
    return b"%PDF-1.7\n".ljust(24 * 1024 * 1024, b"\0")


# --- what arrives ---


@pytest.mark.parametrize(
    ("key", "in_line"),
    [
        ("key-of-the-tests", "key-of-the-tests"),
        ("a+b/c=", "a%2Bb%2Fc%3D"),
        ("a&b=c%d", "a%26b%3Dc%25d"),
        ("%41", "%2541"),
        ("a b#c?d", "a%20b%23c%3Fd"),
        ("é€", "%C3%A9%E2%82%AC"),
        ("~-._", "~-._"),
    ],
)
async def test_the_key_is_the_querys_only_parameter_percent_encoded(
    key: str, in_line: str, upload: CertificateUpload
) -> None:
    async with raw_server(created) as server, client_of(server, api_key=key) as springest:
        await springest.upload(upload)

    assert server.lines == [f"POST {PATH}?api_key={in_line} HTTP/1.1"]
    assert parse_qs(urlsplit(server.lines[0].split()[1]).query) == {"api_key": [key]}


async def test_the_key_follows_a_lists_percent_encoded_query() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(200, b"[]")

    async with raw_server(answer) as server, client_of(server, api_key="a+/=&%") as springest:
        query = {"email": "jan+x&y=z@example.org", "certification_id": 7, "created_from": date(2026, 1, 5)}
        assert [item async for item in springest.certificates(**query)] == []  # type: ignore[arg-type] # mixed on purpose

    (line,) = server.lines
    target = urlsplit(line.split()[1])
    assert target.path == PATH
    assert target.query.endswith("&api_key=a%2B%2F%3D%26%25")
    assert parse_qs(target.query) == {
        "email": ["jan+x&y=z@example.org"],
        "certification_id": ["7"],
        "created_from": ["2026-01-05"],
        "size": ["100"],
        "offset": ["0"],
        "api_key": ["a+/=&%"],
    }


async def test_certifications_are_asked_for_with_their_own_key() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(200, b"[]")

    async with (
        raw_server(answer) as server,
        Springest(
            api_key="one", certifications_api_key="other", host=server.origin, settings=Settings(limiter=Limiter())
        ) as springest,
    ):
        assert [item async for item in springest.certifications()] == []

    assert server.lines == ["GET /certifications.json?size=100&offset=0&api_key=other HTTP/1.1"]


async def test_the_headers_of_a_post_are_exact(upload: CertificateUpload) -> None:
    async with raw_server(created) as server, client_of(server) as springest:
        await springest.upload(upload)

    (exchange,) = server.exchanges
    assert {name.lower() for name, _ in exchange.headers} == {
        "host",
        "user-agent",
        "accept",
        "accept-encoding",
        "content-type",
        "content-length",
        "x-request-id",
    }
    assert exchange.header("Host") == server.origin.removeprefix("http://")
    assert exchange.length == len(exchange.body)
    assert exchange.header("Accept-Encoding") == "identity"
    assert str(exchange.header("User-Agent")).startswith("springest_async/")
    assert str(exchange.header("Content-Type")).startswith("multipart/form-data; boundary=")
    assert KEY not in str(exchange.headers)


async def test_the_fields_arrive_as_they_were_given(make_upload: Callable[..., CertificateUpload]) -> None:
    upload = make_upload(email="zoë@example.org", valid_until=date(2027, 1, 31), conversion_id=12)
    async with raw_server(created) as server, client_of(server) as springest:
        await springest.upload(upload)

    form = form_of(server.exchanges[0])
    values = {name: part.get_payload(decode=True) for name, part in form.items() if name != "file"}
    assert values == {
        "certification_id": b"7",
        "email": "zoë@example.org".encode(),
        "valid_from": b"2026-01-31",
        "valid_until": b"2027-01-31",
        "conversion_id": b"12",
    }


@pytest.mark.parametrize(
    "size", [1, 1000, 64 * 1024, 1024 * 1024 - 1, 1024 * 1024, 1024 * 1024 + 1, 3 * 1024 * 1024 + 17]
)
async def test_every_byte_of_a_file_arrives(
    size: int, make_upload: Callable[..., CertificateUpload], tmp_path: Path
) -> None:
    path = file_of(size, tmp_path / "any.pdf")
    async with raw_server(created) as server, client_of(server) as springest:
        receipt = await springest.upload(make_upload(file=path))

    (exchange,) = server.exchanges
    part = form_of(exchange)["file"]
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == hashlib.sha256(content).hexdigest()
    assert exchange.length == len(exchange.body)
    assert part.get_content_type() == "application/pdf"
    assert part["Content-Transfer-Encoding"] is None
    assert (receipt.id, receipt.attempts) == (5001, 1)


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("zoë café.pdf", "zoe cafe.pdf"),
        ('quote".pdf', "quote_.pdf"),
        ("line\r\nX-Evil: 1.pdf", "line__X-Evil_ 1.pdf"),
        ("back\\slash%22.pdf", "back_slash_22.pdf"),
        ("🎓証明書.pdf", "certificate.pdf"),
        ("....", "certificate.pdf"),
        (os.fsdecode(b"caf\xe9.pdf"), "caf_.pdf"),
        ("x" * 251 + ".pdf", "x" * 100 + ".pdf"),
    ],
)
async def test_an_odd_filename_arrives_safe(
    name: str, sent: str, make_upload: Callable[..., CertificateUpload], tmp_path: Path
) -> None:
    path = file_of(1000, tmp_path / name)
    async with raw_server(created) as server, client_of(server) as springest:
        await springest.upload(make_upload(file=path))

    form = form_of(server.exchanges[0])
    assert form["file"].get_filename() == sent
    assert form["file"].get_payload(decode=True) == path.read_bytes()
    assert sorted(form) == ["certification_id", "email", "file", "valid_from"]


# --- asking first ---


async def test_a_big_body_waits_for_the_word_to_go_on(make_upload: Callable[..., CertificateUpload], big: Path) -> None:
    early: list[bytes] = []

    async def says_continue(exchange: Exchange) -> None:
        try:
            async with asyncio.timeout(0.3):
                early.append(await exchange.reader.read(1))
        except TimeoutError:
            await created(exchange)

    async with raw_server(says_continue) as server, client_of(server) as springest:
        receipt = await springest.upload(make_upload(file=big))

    (exchange,) = server.exchanges
    assert exchange.header("Expect") == "100-continue"
    assert early == []
    assert (receipt.attempts, len(exchange.body)) == (1, exchange.length)


async def test_a_server_that_ignores_expect_gets_the_body_in_a_second(
    make_upload: Callable[..., CertificateUpload], tmp_path: Path
) -> None:
    waited = 0.0

    async def ignores_expect(exchange: Exchange) -> None:
        nonlocal waited
        asked = time.monotonic()
        await exchange.read(1)
        waited = time.monotonic() - asked
        await exchange.read()
        await exchange.answer(201, b'{"id": 1}')

    path = file_of(200_000, tmp_path / "x.pdf")
    async with (
        raw_server(ignores_expect) as server,
        client_of(server, timeouts=FOR_EVER) as springest,
        asyncio.timeout(A_WHILE),
    ):
        receipt = await springest.upload(make_upload(file=path))

    assert (receipt.id, receipt.attempts) == (1, 1)
    assert waited > 0.9
    assert server.exchanges[0].length == len(server.exchanges[0].body)


async def fails_the_expectation(exchange: Exchange) -> None:
    assert exchange.header("Expect") == "100-continue"
    await exchange.answer(417, b"", Connection="close")
    exchange.hang_up()


async def test_a_server_that_ignores_expect_is_not_asked_again(
    make_upload: Callable[..., CertificateUpload], tmp_path: Path
) -> None:
    upload = make_upload(file=file_of(200_000, tmp_path / "x.pdf"))
    async with raw_server(fails_the_expectation, created) as server, client_of(server) as springest:
        first = await springest.upload(upload)
        second = await springest.upload(upload)

    refused, *stored = server.exchanges
    assert len(refused.body) == 0
    assert (first.attempts, second.attempts) == (2, 1)
    assert [exchange.header("Expect") for exchange in stored] == [None, None]
    assert [len(exchange.body) == exchange.length for exchange in stored] == [True, True]


async def test_a_server_whose_100_comes_late_is_not_asked_again(
    make_upload: Callable[..., CertificateUpload], tmp_path: Path
) -> None:
    async def fails_late(exchange: Exchange) -> None:
        assert exchange.header("Expect") == "100-continue"
        await exchange.read()
        await exchange.answer(417)

    async with raw_server(fails_late, created) as server, client_of(server) as springest:
        receipt = await springest.upload(make_upload(file=file_of(200_000, tmp_path / "x.pdf")))

    assert receipt.attempts == 2
    assert [exchange.header("Expect") for exchange in server.exchanges] == ["100-continue", None]


@pytest.mark.parametrize("keeps_open", [True, False])
async def test_an_early_400_reaches_us_and_the_body_stays_here(
    keeps_open: bool, make_upload: Callable[..., CertificateUpload], big: Path
) -> None:
    rest: list[int] = []

    async def refuses(exchange: Exchange) -> None:
        await exchange.answer(400, b'{"errors": {"file": ["is too big"]}}', Connection="close")
        if keeps_open:
            await exchange.read()
            rest.append(len(exchange.body))
        exchange.hang_up()

    async with raw_server(refuses) as server, client_of(server) as springest:
        with pytest.raises(Rejected) as caught:
            await springest.upload(make_upload(file=big))
        if keeps_open:
            await until(lambda: rest != [])

    assert str(caught.value) == f"POST {server.origin}{PATH} rejected the certificate (400): file: is too big"
    assert rest == ([0] if keeps_open else [])
    assert len(server.exchanges) == 1


@pytest.mark.parametrize("method", ["send", "sendmsg"])
def test_an_answer_is_read_before_the_broken_connection_is_seen(method: str) -> None:
    def write(data: bytes) -> int:
        return ours.send(data) if method == "send" else ours.sendmsg([data])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = reading_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", listener.getsockname()))
        with ours:
            ours.connect(listener.getsockname())
            ours.setblocking(False)
            theirs, _ = listener.accept()
            with theirs:
                assert write(b"a part of a certificate") == 23
                theirs.sendall(b"no")
            # Closed with bytes unread: the line is broken, and what was said before is still to be read.
            with pytest.raises(BlockingIOError):
                write(b"more")
            assert ours.recv(100) == b"no"
            with pytest.raises(ConnectionError):
                write(b"more")


# --- breaking off ---


async def hangs_up_after_the_body(exchange: Exchange) -> None:
    await taken(exchange)
    exchange.hang_up()


async def resets_after_the_body(exchange: Exchange) -> None:
    await taken(exchange)
    exchange.reset()


async def answers_500_after_the_body(exchange: Exchange) -> None:
    await taken(exchange)
    await exchange.answer(500, b"<html><h1>Oops</h1></html>")


async def answers_202_after_the_body(exchange: Exchange) -> None:
    await taken(exchange)
    await exchange.answer(202, b"queued")


async def answers_408_after_the_body(exchange: Exchange) -> None:
    await taken(exchange)
    await exchange.answer(408, b"the application is slow")


async def answers_no_http(exchange: Exchange) -> None:
    await taken(exchange)
    await exchange.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    exchange.hang_up()


async def answers_a_huge_header(exchange: Exchange) -> None:
    await taken(exchange)
    await exchange.answer(201, b"", X_Huge="x" * 10_000)


async def answers_half_a_head(exchange: Exchange) -> None:
    await taken(exchange)
    await exchange.send(b"HTTP/1.1 201 Created\r\nContent-Le")
    exchange.hang_up()


async def falls_silent(exchange: Exchange) -> None:
    await taken(exchange)
    await asyncio.sleep(A_WHILE)


DOUBTS = [
    (hangs_up_after_the_body, "the server closed the connection without an answer", None, ""),
    (resets_after_the_body, "the connection broke: ", None, ""),
    (answers_500_after_the_body, "the server answered 500, not 201", 500, "Oops"),
    (answers_202_after_the_body, "the server answered 202, not 201", 202, "queued"),
    (answers_408_after_the_body, "the server answered 408, not 201", 408, "the application is slow"),
    (answers_no_http, "the answer is not HTTP", None, ""),
    (answers_a_huge_header, "the answer is not HTTP, or too long in its headers", None, ""),
    (answers_half_a_head, "the ", None, ""),
    (falls_silent, "no answer within the time allowed", None, ""),
]


@pytest.mark.parametrize("size", [1000, 1_000_000])
@pytest.mark.parametrize(
    ("behaviour", "reason", "status", "words"), DOUBTS, ids=[behaviour.__name__ for behaviour, *_ in DOUBTS]
)
async def test_without_an_answer_to_a_whole_body_it_is_in_doubt(
    behaviour: Behaviour,
    reason: str,
    status: int | None,
    words: str,
    size: int,
    make_upload: Callable[..., CertificateUpload],
    tmp_path: Path,
) -> None:
    upload = make_upload(file=file_of(size, tmp_path / "x.pdf"))
    timeouts = evolve(PATIENT, answer=0.5) if behaviour is falls_silent else PATIENT
    before = datetime.now(UTC)
    async with raw_server(behaviour) as server, client_of(server, timeouts=timeouts) as springest:
        with pytest.raises(InDoubt) as caught:
            await springest.upload(upload)

    error = caught.value
    assert error.reason.startswith(reason)
    assert (error.status, error.words) == (status, words)
    assert (error.email, error.certification_id) == (upload.email, upload.certification_id)
    assert (error.valid_from, error.valid_until) == (upload.valid_from, upload.valid_until)
    assert before <= error.sent_at <= error.given_up_at <= datetime.now(UTC)
    assert error.__cause__ is None
    assert len(server.exchanges) == 1
    assert len(server.exchanges[0].body) == server.exchanges[0].length


async def resets_in_the_middle(exchange: Exchange) -> None:
    await exchange.go_on()
    await exchange.read(1_000_000)
    exchange.reset()


async def hangs_up_in_the_middle(exchange: Exchange) -> None:
    await exchange.go_on()
    await exchange.read(1_000_000)
    exchange.hang_up()


async def hangs_up_at_once(exchange: Exchange) -> None:
    exchange.hang_up()


async def answers_503_in_the_middle(exchange: Exchange) -> None:
    await exchange.go_on()
    await exchange.read(1_000_000)
    await exchange.answer(503, b"", Connection="close")
    exchange.hang_up()


async def answers_408_in_the_middle(exchange: Exchange) -> None:
    await exchange.go_on()
    await exchange.read(1_000_000)
    await exchange.answer(408, b"", Connection="close")
    exchange.hang_up()


async def answers_408_at_once(exchange: Exchange) -> None:
    assert exchange.header("Expect") == "100-continue"
    await exchange.answer(408, b"too slow", Connection="close")
    await exchange.read()


@pytest.mark.parametrize(
    "behaviour",
    [
        resets_in_the_middle,
        hangs_up_in_the_middle,
        hangs_up_at_once,
        answers_503_in_the_middle,
        answers_408_in_the_middle,
        answers_408_at_once,
    ],
)
async def test_a_body_that_breaks_off_is_sent_again_from_the_start(
    behaviour: Behaviour, make_upload: Callable[..., CertificateUpload], big: Path
) -> None:
    async with raw_server(behaviour, created) as server, client_of(server) as springest:
        receipt = await springest.upload(make_upload(file=big))

    broken, stored = server.exchanges
    assert (receipt.id, receipt.attempts) == (5001, 2)
    assert len(broken.body) < broken.length
    assert len(stored.body) == stored.length
    assert form_of(stored)["file"].get_payload(decode=True) == content_of_big()
    assert broken.header("Content-Type") != stored.header("Content-Type")


async def test_what_breaks_in_the_middle_four_times_is_raised(
    make_upload: Callable[..., CertificateUpload], big: Path
) -> None:
    async with raw_server(resets_in_the_middle) as server, client_of(server) as springest:
        with pytest.raises(NotSent) as caught:
            await springest.upload(make_upload(file=big))

    assert caught.value.connected
    assert len(server.exchanges) == 4


async def test_a_server_that_stops_reading_is_noticed(make_upload: Callable[..., CertificateUpload], big: Path) -> None:
    async def stops_reading(exchange: Exchange) -> None:
        await exchange.go_on()
        await asyncio.get_running_loop().create_future()

    with leaping_clock():
        async with raw_server(stops_reading, created) as server, client_of(server) as springest:
            receipt = await springest.upload(make_upload(file=big))

    assert receipt.attempts == 2
    assert len(server.exchanges) == 2


class Ghost:
    """A server that says "go on", reads nothing for a while, and then takes all that it can still get."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.ends: list[asyncio.Event] = []

    async def __call__(self, exchange: Exchange) -> None:
        transport: Any = exchange.writer.transport
        end = asyncio.Event()
        self.ends.append(end)
        try:
            transport.pause_reading()  # asyncio would read ahead
            await exchange.go_on()
            await asyncio.sleep(self.seconds)
            transport.resume_reading()
            await exchange.read()
            await exchange.answer(201, b'{"id": 5001}')
        finally:
            end.set()

    async def left(self) -> None:
        """Wait until no request is being read any more."""
        async with asyncio.timeout(A_WHILE):
            for end in self.ends:
                await end.wait()


@pytest.mark.parametrize(
    "timeouts",
    [evolve(PATIENT, stall=0.3), evolve(PATIENT, answer=0.3)],
    ids=["stall", "answer"],
)
@pytest.mark.parametrize("send_buffer", [4096, 128 * 1024, None])
@pytest.mark.parametrize("size", [40_000, 300_000])
async def test_what_is_reported_as_not_sent_never_arrives_whole(
    size: int,
    send_buffer: int | None,
    timeouts: Timeouts,
    make_upload: Callable[..., CertificateUpload],
    tmp_path: Path,
) -> None:
    outcome: SpringestError | None = None
    ghost = Ghost(0.7)
    connector = aiohttp.TCPConnector(socket_factory=partial(small_socket, send_buffer))
    async with (
        raw_server(ghost, receive_buffer=4096) as server,
        connector,
        client_of(server, timeouts=timeouts, connector=connector) as springest,
    ):
        try:
            await springest.upload(make_upload(file=file_of(size, tmp_path / "x.pdf")))
        except (NotSent, InDoubt) as error:
            outcome = error
        await heard()  # the server may not have seen the last of them yet
        await ghost.left()

    whole = [len(exchange.body) == exchange.length for exchange in server.exchanges]
    assert not any(whole[:-1]), "it was sent again after it had arrived"
    if isinstance(outcome, NotSent):
        assert not any(whole)
        assert len(whole) == 4
    elif outcome is None:
        assert whole[-1]


async def test_a_server_that_does_not_read_gets_nothing_whole(
    make_upload: Callable[..., CertificateUpload], tmp_path: Path
) -> None:
    ghost = Ghost(8.0)
    timeouts = evolve(PATIENT, stall=3.0)
    connector = aiohttp.TCPConnector(socket_factory=partial(small_socket, 4096))
    with leaping_clock():
        async with (
            raw_server(ghost, ghost, created, receive_buffer=4096) as server,
            connector,
            client_of(server, timeouts=timeouts, connector=connector) as springest,
        ):
            receipt = await springest.upload(make_upload(file=file_of(300_000, tmp_path / "x.pdf")))
            await ghost.left()

    assert (receipt.id, receipt.attempts) == (5001, 3)
    assert [len(exchange.body) == exchange.length for exchange in server.exchanges] == [False, False, True]


async def test_a_slow_server_is_no_stalled_one(make_upload: Callable[..., CertificateUpload], tmp_path: Path) -> None:
    async def reads_slowly(exchange: Exchange) -> None:
        await exchange.go_on()
        while len(exchange.body) < exchange.length:
            await exchange.read(min(4_000_000, exchange.length - len(exchange.body)))
            await asyncio.sleep(10.0)
        await exchange.answer(201)

    path = tmp_path / "x.pdf"
    with path.open("wb") as stream:
        stream.truncate(16_000_000)
    with leaping_clock():
        before = asyncio.get_running_loop().time()
        async with raw_server(reads_slowly, receive_buffer=65536) as server, client_of(server) as springest:
            receipt = await springest.upload(make_upload(file=path))
        assert asyncio.get_running_loop().time() - before > PATIENT.answer
    assert receipt.attempts == 1
    assert len(server.exchanges) == 1


async def test_a_file_that_changes_on_the_way_is_reported(
    make_upload: Callable[..., CertificateUpload], big: Path
) -> None:
    async def truncates(exchange: Exchange) -> None:
        await exchange.go_on()
        await exchange.read(1_000_000)
        os.truncate(big, 1_000_000)
        await exchange.read()

    async with raw_server(truncates) as server, client_of(server) as springest:
        with pytest.raises(UnusableFile) as caught:
            await springest.upload(make_upload(file=big))

    assert caught.value.file == big
    assert caught.value.reason == "became shorter while it was being read"
    (exchange,) = server.exchanges
    assert len(exchange.body) < exchange.length


@pytest.fixture(params=["C", "Python"])
def _each_of_aiohttp_s_parsers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse answers in both ways; the one in C is not there on every system."""
    if request.param == "Python":
        monkeypatch.setattr("aiohttp.client_proto.HttpResponseParser", HttpResponseParserPy)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 17, 61])
@pytest.mark.usefixtures("_each_of_aiohttp_s_parsers")
async def test_an_answer_is_the_same_in_whatever_pieces_it_comes(size: int, upload: CertificateUpload) -> None:
    answer = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        b'7;of="two"\r\n{"id": \r\n5\r\n5001}\r\n0\r\nX-Sum: 12\r\n\r\n'
    )

    async def in_pieces(exchange: Exchange) -> None:
        await taken(exchange)
        for begun in range(0, len(answer), size):
            await exchange.send(answer[begun : begun + size])
            await asyncio.sleep(0)

    async with raw_server(in_pieces) as server, client_of(server) as springest:
        assert (await springest.upload(upload)).id == 5001


@pytest.mark.parametrize("told", [b"", b'{"id":', b'{"id": 5001}'])
async def test_a_201_whose_body_breaks_off_is_stored(told: bytes, upload: CertificateUpload) -> None:
    async def breaks_off(exchange: Exchange) -> None:
        await taken(exchange)
        await exchange.send(b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n" + told)
        exchange.hang_up()

    async with raw_server(breaks_off) as server, client_of(server) as springest:
        receipt = await springest.upload(upload)

    assert receipt.id == (5001 if told.endswith(b"}") else None)
    assert len(server.exchanges) == 1


# --- a file that was looked at before ---


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(path.read_bytes() + b"more"),
        lambda path: path.write_bytes(b"%PDF"),
        lambda path: os.utime(path, ns=(1, 1)),
        lambda path: path.rename(path.with_name("other")) and path.write_bytes(path.with_name("other").read_bytes()),
        lambda path: path.unlink(),
    ],
    ids=["grew", "shrank", "was rewritten", "was replaced", "vanished"],
)
@pytest.mark.parametrize("size", [1000, 3_000_000])
async def test_a_file_that_changed_since_its_check_is_not_sent(
    size: int, change: Callable[[Path], Any], make_upload: Callable[..., CertificateUpload], tmp_path: Path
) -> None:
    path = file_of(size, tmp_path / "x.pdf")
    source = SourceFile.at(path, path.stat())
    change(path)
    async with raw_server(created) as server, client_of(server) as springest:
        with pytest.raises(UnusableFile) as caught:
            await upload_in_bulk(springest, make_upload(file=path), source=source)

    assert caught.value.file == path
    assert [exchange.line for exchange in server.exchanges if len(exchange.body) == exchange.length] == []
    assert open_files_in(tmp_path) == []


async def test_an_unchanged_file_is_sent_without_another_check(
    make_upload: Callable[..., CertificateUpload], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file_of(200_000, tmp_path / "x.pdf")
    source = SourceFile.at(path, path.stat())
    monkeypatch.setattr("springest_async.upload.open_file", None)
    async with raw_server(hangs_up_at_once, created) as server, client_of(server) as springest:
        receipt = await upload_in_bulk(springest, make_upload(file=path), source=source)

    assert (receipt.id, receipt.attempts) == (5001, 2)
    assert form_of(server.exchanges[1])["file"].get_payload(decode=True) == path.read_bytes()


async def test_a_file_that_changes_between_two_tries_is_not_sent(
    make_upload: Callable[..., CertificateUpload], tmp_path: Path
) -> None:
    path = file_of(200_000, tmp_path / "x.pdf")

    async def changes_it(exchange: Exchange) -> None:
        os.utime(path, ns=(1, 1))
        exchange.hang_up()

    async with raw_server(changes_it, created) as server, client_of(server) as springest:
        with pytest.raises(UnusableFile, match="changed between its check and its sending"):
            await springest.upload(make_upload(file=path))

    assert [len(exchange.body) for exchange in server.exchanges] == [0] * len(server.exchanges)


# --- a listener that objects ---


class Objection(Exception):
    """What a listener raises, such as a journal that cannot write to its disk."""


def objects_to_sending(step: UploadStep) -> None:
    if step.kind == "sending":
        raise Objection


async def test_when_a_listener_objects_to_sending_nothing_is_sent(upload: CertificateUpload) -> None:
    async with raw_server(created) as server, client_of(server) as springest:
        with pytest.raises(Objection):
            await springest.upload(upload, listener=objects_to_sending)
        await heard()

        assert server.connections == 0
        assert repr(springest.limiter) == "<Limiter 30 in 60 s, 0 under way, 0 resting, fast>"
        assert springest.limiter.seconds_until(30) == 0


async def test_when_a_listener_objects_no_file_stays_open(
    make_upload: Callable[..., CertificateUpload], tmp_path: Path
) -> None:
    upload = make_upload(file=file_of(3_000_000, tmp_path / "x.pdf"))
    async with raw_server(created) as server, client_of(server) as springest:
        with pytest.raises(Objection):
            await springest.upload(upload, listener=objects_to_sending)

    assert open_files_in(tmp_path) == []


async def test_what_was_in_a_file_is_not_kept_for_the_next_try(
    make_upload: Callable[..., CertificateUpload], tmp_path: Path
) -> None:
    """Thousands may wait for their next try."""

    def kept() -> int:
        return sum(len(item.beginning) for item in gc.get_objects() if isinstance(item, FileReader))

    upload = make_upload(file=file_of(200_000, tmp_path / "x.pdf"))
    seen: list[int] = []

    def listen(step: UploadStep) -> None:
        if step.kind == "unsent":
            seen.append(kept())

    async with raw_server(hangs_up_at_once, created) as server, client_of(server) as springest:
        await springest.upload(upload, listener=listen)
    async with client_of(f"http://127.0.0.1:{closed_port()}") as springest:
        with pytest.raises(NotSent):
            await springest.upload(upload, listener=listen)

    assert seen == [0] * 5


async def test_when_a_listener_fails_nothing_more_is_sent(
    make_upload: Callable[..., CertificateUpload], tmp_path: Path
) -> None:
    upload = make_upload(file=file_of(200_000, tmp_path / "x.pdf"))

    def objects_to_the_second(step: UploadStep) -> None:
        if step.attempts == 2:
            objects_to_sending(step)

    async with raw_server(hangs_up_at_once, created) as server, client_of(server) as springest:
        with pytest.raises(Objection):
            await springest.upload(upload, listener=objects_to_the_second)
        await heard()

    assert server.connections == 1


# --- in doubt, and settled by asking ---


class Gateway:
    """A gateway before a sandbox, of which a test says what becomes of each POST; lists always get through.

    It has `taken` a POST that is "delayed" or "slow" whole, and passes it on some time after it may `go_on`.
    """

    def __init__(self, sandbox: Sandbox, *fates: str) -> None:
        self._sandbox = sandbox
        self._fates = list(fates)
        self.taken, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.go_on()
        await exchange.read()
        fate = self._fates.pop(0) if exchange.line.startswith("POST") else "passed on"
        if fate == "delayed":
            exchange.hang_up()
        if fate in ("delayed", "slow"):
            self.taken.set()
            await self.go_on.wait()
            await asyncio.sleep(0.2)
        if fate != "lost":
            answer = await self._passed_on(exchange)
            if fate == "passed on":
                await exchange.send(answer)
        exchange.hang_up()

    async def _passed_on(self, exchange: Exchange) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self._sandbox.origin.rpartition(":")[2]))
        headers = [pair for pair in exchange.headers if pair[0].lower() not in ("connection", "expect")]
        head = [exchange.line, *(f"{name}: {value}" for name, value in headers), "Connection: close", "", ""]
        writer.write("\r\n".join(head).encode("latin-1") + exchange.body)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer


@asynccontextmanager
async def client_behind(gateway: Gateway, *, both_keys: bool = True) -> AsyncIterator[Springest]:
    timeouts = evolve(PATIENT, answer=0.8)  # as long as a doubt is waited for
    sandbox = gateway._sandbox
    async with (
        raw_server(gateway) as server,
        Springest(
            api_key=sandbox.api_key,
            certifications_api_key=sandbox.certifications_api_key if both_keys else None,
            host=server.origin,
            settings=Settings(limiter=Limiter(), timeouts=timeouts),
        ) as springest,
    ):
        yield springest


async def doubt_of(springest: Springest, upload: CertificateUpload) -> InDoubt:
    with pytest.raises(InDoubt) as caught:
        await springest.upload(upload)
    return caught.value


async def test_a_token_without_an_answer_rests_for_the_whole_timeout(
    upload: CertificateUpload,
) -> None:
    """The server may still be working on it, so its token rests behind that time and not before it."""

    async def falls_silent(exchange: Exchange) -> None:
        await exchange.read()
        await asyncio.get_running_loop().create_future()

    limiter, timeouts = Limiter(posts=1, period=0.3), evolve(PATIENT, answer=1.5)
    async with (
        raw_server(falls_silent, created) as server,
        client_of(server, limiter=limiter, timeouts=timeouts) as springest,
    ):
        await doubt_of(springest, upload)
        before = time.monotonic()
        await springest.upload(upload)

    assert time.monotonic() - before > timeouts.answer + limiter.period


VERIFIED, NEEDS_AN_END, UNVERIFIED = 1, 2, 3  # of the sandbox's certifications


@pytest.mark.parametrize("both_keys", [True, False])
@pytest.mark.parametrize(
    "changes",
    [
        {"certification_id": VERIFIED},
        {"certification_id": VERIFIED, "email": "Zoë.O'Neill+x@Example.ORG"},
        {"certification_id": NEEDS_AN_END, "valid_until": date(2027, 1, 31)},
    ],
    ids=["no end", "an odd address", "an end"],
)
async def test_a_doubt_that_was_stored_is_found_and_not_sent_again(
    changes: dict[str, Any], both_keys: bool, make_upload: Callable[..., CertificateUpload]
) -> None:
    upload = make_upload(**changes)
    async with Sandbox() as sandbox, client_behind(Gateway(sandbox, "unanswered"), both_keys=both_keys) as springest:
        doubt = await doubt_of(springest, upload)

        found = await springest.settle(doubt)

    (post,) = sandbox.audit
    assert found is not None
    assert (found.id, found.certification_id) == (post.certificate_id, upload.certification_id)
    assert (found.valid_from, found.valid_until) == (upload.valid_from, upload.valid_until)
    assert found.user is not None
    assert found.user.email == upload.email


async def test_a_doubt_that_was_not_stored_can_be_sent_again(
    make_upload: Callable[..., CertificateUpload],
) -> None:
    upload = make_upload(certification_id=VERIFIED)
    async with Sandbox() as sandbox, client_behind(Gateway(sandbox, "lost", "passed on")) as springest:
        doubt = await doubt_of(springest, upload)

        assert await springest.settle(doubt) is None
        waited = datetime.now(UTC) - doubt.given_up_at
        receipt = await springest.upload(upload)

    assert waited.total_seconds() > 0.95 * springest.settings.timeouts.answer
    assert [post.certificate_id for post in sandbox.audit] == [receipt.id]


async def test_what_is_stored_only_after_the_client_gave_up_is_found(
    make_upload: Callable[..., CertificateUpload],
) -> None:
    upload = make_upload(certification_id=VERIFIED)
    async with Sandbox() as sandbox, client_behind(gateway := Gateway(sandbox, "delayed")) as springest:
        doubt = await doubt_of(springest, upload)
        stored_before = len(sandbox.audit)
        gateway.go_on.set()

        found = await springest.settle(doubt)

    assert found is not None
    assert stored_before == 0
    assert [post.certificate_id for post in sandbox.audit] == [found.id]


@pytest.mark.parametrize("fate", ["lost", "unanswered"])
@pytest.mark.parametrize("both_keys", [True, False])
async def test_a_hidden_certification_settles_nothing_until_shown(
    fate: str, both_keys: bool, make_upload: Callable[..., CertificateUpload]
) -> None:
    upload = make_upload(certification_id=UNVERIFIED)
    gateway = Gateway(sandbox := Sandbox(), fate, "passed on")
    async with sandbox, client_behind(gateway, both_keys=both_keys) as springest:
        doubt = await doubt_of(springest, upload)
        with pytest.raises(InDoubt, match="does not show its certification yet"):
            await springest.settle(doubt)
        # Another employee's, by which alone a client without the other key can tell that it is shown.
        other = await springest.upload(make_upload(certification_id=UNVERIFIED, email="piet@example.org"))

        sandbox.verify(UNVERIFIED)
        found = await springest.settle(doubt)

    assert other.id is not None
    if fate == "lost":
        assert found is None
    else:
        assert found is not None
        assert found.id == sandbox.audit[0].certificate_id != other.id


async def test_of_two_alike_of_which_one_is_known_the_other_is_found(
    make_upload: Callable[..., CertificateUpload],
) -> None:
    upload = make_upload(certification_id=VERIFIED)
    async with Sandbox() as sandbox, client_behind(Gateway(sandbox, "passed on", "lost", "unanswered")) as springest:
        receipt = await springest.upload(upload)
        assert receipt.id is not None
        lost = await doubt_of(springest, upload)
        assert await springest.settle(lost, known=[receipt.id]) is None
        stored = await doubt_of(springest, upload)
        found = await springest.settle(stored, known=[receipt.id])

    assert found is not None
    assert [post.certificate_id for post in sandbox.audit] == [receipt.id, found.id]


async def test_a_cancelled_upload_is_settled_as_any_other(make_upload: Callable[..., CertificateUpload]) -> None:
    upload = make_upload(certification_id=VERIFIED)
    async with Sandbox() as sandbox, client_behind(gateway := Gateway(sandbox, "slow")) as springest:
        task = asyncio.create_task(springest.upload(upload))
        await gateway.taken.wait()
        with pytest.raises(TimeoutError) as caught:
            await asyncio.wait_for(task, 0.001)
        gateway.go_on.set()
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        told = caught.value.__cause__.__cause__
        assert isinstance(told, InDoubt)

        found = await springest.settle(told)

    assert found is not None
    assert [post.certificate_id for post in sandbox.audit] == [found.id]


# --- redirects ---


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_told_and_never_followed(status: int, upload: CertificateUpload) -> None:
    async with raw_server(created) as elsewhere:

        async def redirects(exchange: Exchange) -> None:
            await taken(exchange)
            path = exchange.line.split()[1]
            await exchange.answer(status, b"", Location=f"{elsewhere.origin}{path}")

        async with raw_server(redirects) as server, client_of(server) as springest:
            with pytest.raises(Redirected) as posted:
                await springest.upload(upload)
            with pytest.raises(Redirected) as listed:
                await anext(springest.certificates())

    assert elsewhere.connections == 0
    for error in (posted.value, listed.value):
        assert error.target == elsewhere.origin
        assert error.status == status
        assert KEY not in str(error)
    assert [line.split()[0] for line in server.lines] == ["POST", "GET"]


# --- connections ---


async def test_a_refused_connection_is_not_sent(upload: CertificateUpload) -> None:
    server = RawServer([created], origin=f"http://127.0.0.1:{closed_port()}")
    async with client_of(server) as springest:
        with pytest.raises(NotSent) as caught:
            await springest.upload(upload)

    assert not caught.value.connected
    assert caught.value.reason == f"no connection: {os.strerror(errno.ECONNREFUSED)}"
    assert repr(springest.limiter) == "<Limiter 30 in 60 s, 0 under way, 0 resting, fast>"


@pytest.mark.parametrize(
    ("greeting", "reason"),
    [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "no TLS connection"), (b"", "no connection within the time allowed")],
    ids=["speaks plainly", "says nothing"],
)
async def test_a_server_without_tls_is_not_sent_anything(
    greeting: bytes, reason: str, upload: CertificateUpload
) -> None:
    timeouts = PATIENT if greeting else evolve(PATIENT, connect=0.1)
    async with raw_server(created, greeting=greeting) as server:
        server.origin = server.origin.replace("http:", "https:")
        async with client_of(server, timeouts=timeouts) as springest:
            with pytest.raises(NotSent) as caught:
                await springest.upload(upload)

    assert not caught.value.connected
    assert caught.value.reason.startswith(reason)
    assert server.connections == 4
    assert server.exchanges == []


async def list_all(springest: Springest) -> list[int]:
    return [certification.id async for certification in springest.certifications()]


async def test_posts_share_a_connection_and_lists_another(upload: CertificateUpload) -> None:
    async with raw_server(either) as server, client_of(server, certifications_api_key=KEY) as springest:
        for _ in range(2):
            await list_all(springest)
            await springest.upload(upload)

    seen = [(exchange.line.split()[0], exchange.connection) for exchange in server.exchanges]
    assert seen == [("GET", 1), ("POST", 2), ("GET", 1), ("POST", 2)]


async def test_a_connection_that_was_idle_takes_no_post(
    upload: CertificateUpload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("springest_async.http.transport._REUSE_WITHIN", 0.05)
    async with raw_server(either) as server, client_of(server, certifications_api_key=KEY) as springest:
        for _ in range(3):
            await springest.upload(upload)
            await list_all(springest)
            await asyncio.sleep(0.1)

    seen = [exchange.connection for exchange in server.exchanges]
    assert seen == [1, 2, 3, 2, 4, 2]  # the list's is kept as usual


TIMED_OUT = b"HTTP/1.1 408 Request Time-out\r\nContent-Length: 0\r\n\r\n"


async def test_what_is_said_while_it_is_idle_answers_no_post(upload: CertificateUpload) -> None:
    async def says_more(exchange: Exchange) -> None:
        await created(exchange)
        await exchange.send(TIMED_OUT)

    async with raw_server(says_more, created) as server, client_of(server) as springest:
        await springest.upload(upload)
        await heard()
        receipt = await springest.upload(upload)

    assert receipt.attempts == 1
    assert [exchange.connection for exchange in server.exchanges] == [1, 2]


async def test_an_early_answer_keeps_its_connection_for_itself(
    make_upload: Callable[..., CertificateUpload], tmp_path: Path, upload: CertificateUpload
) -> None:
    """The next POST would wait behind the rest of the body, and closing the client would wait for it."""
    released = asyncio.Event()

    async def refuses_and_reads_no_more(exchange: Exchange) -> None:
        await exchange.go_on()
        await exchange.read(1000)
        await exchange.answer(400, b'{"errors": {"email": ["is invalid"]}}')
        await released.wait()

    async with raw_server(refuses_and_reads_no_more, created, receive_buffer=4096) as server:
        async with asyncio.timeout(A_WHILE), client_of(server, timeouts=FOR_EVER) as springest:
            with pytest.raises(Rejected):
                await springest.upload(make_upload(file=file_of(1_000_000, tmp_path / "x.pdf")))
            assert (await springest.upload(upload)).attempts == 1
        released.set()

    assert [exchange.connection for exchange in server.exchanges] == [1, 2]


async def test_what_is_left_of_a_refused_body_stays_here(
    make_upload: Callable[..., CertificateUpload], tmp_path: Path
) -> None:
    """Also when asyncio holds it, which tells that only before the connection is closed."""
    refused, was_reset = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def refuses_at_length(exchange: Exchange) -> None:
        await exchange.go_on()
        await exchange.read(1000)
        await exchange.send(b"HTTP/1.1 413 Too big\r\nContent-Length: 300000\r\n\r\n" + b" " * MAX_POST_ANSWER_BYTES)
        await refused.wait()
        try:
            await exchange.read()
            was_reset.set_result(False)
        except ConnectionResetError:
            was_reset.set_result(True)

    connector = aiohttp.TCPConnector(socket_factory=partial(small_socket, 4096))
    async with (
        raw_server(refuses_at_length, receive_buffer=4096) as server,
        connector,
        client_of(server, connector=connector) as springest,
    ):
        with pytest.raises(Rejected):
            await springest.upload(make_upload(file=file_of(60_000, tmp_path / "x.pdf")))
        refused.set()
        async with asyncio.timeout(A_WHILE):
            assert await was_reset


async def test_what_was_given_up_never_arrives(make_upload: Callable[..., CertificateUpload], tmp_path: Path) -> None:
    """Also when all of it stands in buffers: it may have been settled as not stored, and sent again."""
    ended = asyncio.Event()
    given_up = asyncio.Event()

    async def reads_late(exchange: Exchange) -> None:
        await exchange.go_on()
        await given_up.wait()
        try:
            await exchange.read()
        finally:
            ended.set()

    async with raw_server(reads_late, receive_buffer=4096) as server, client_of(server) as springest:
        task = asyncio.create_task(springest.upload(make_upload(file=file_of(1_000_000, tmp_path / "x.pdf"))))
        await until(lambda: [call.waiting for call in springest._opened.calls] == [False])  # type: ignore[union-attr] # it is open
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.wait([task])
        given_up.set()
        async with asyncio.timeout(A_WHILE):
            await ended.wait()

    (exchange,) = server.exchanges
    assert len(exchange.body) < exchange.length


async def test_a_short_stall_leaves_time_to_ask(make_upload: Callable[..., CertificateUpload], tmp_path: Path) -> None:
    async def ignores_expect(exchange: Exchange) -> None:
        await exchange.read()
        await exchange.answer(201, b'{"id": 5001}')

    upload = make_upload(file=file_of(100_000, tmp_path / "x.pdf"))
    async with (
        raw_server(ignores_expect) as server,
        client_of(server, timeouts=evolve(PATIENT, stall=0.9)) as springest,
    ):
        assert (await springest.upload(upload)).attempts == 1


async def test_a_server_that_closes_without_a_word_costs_one_doubt(upload: CertificateUpload) -> None:
    async def hangs_up_later(exchange: Exchange) -> None:
        await taken(exchange)
        if server.exchanges.index(exchange) == 1:
            exchange.hang_up()  # the second request on the connection: as if it had closed it right before
        else:
            await exchange.answer(201, b'{"id": 5001}')

    async with raw_server(hangs_up_later) as server, client_of(server) as springest:
        await springest.upload(upload)
        with pytest.raises(InDoubt):
            await springest.upload(upload)
        for _ in range(3):
            await springest.upload(upload)

    assert [exchange.connection for exchange in server.exchanges] == [1, 1, 2, 3, 4]


async def test_many_at_once_arrive_each_whole(make_upload: Callable[..., CertificateUpload], tmp_path: Path) -> None:
    uploads = [
        make_upload(file=file_of(1 + 70_000 * n, tmp_path / f"{n}.pdf"), certification_id=n + 1) for n in range(20)
    ]
    async with raw_server(created) as server, client_of(server) as springest:
        await asyncio.gather(*map(springest.upload, uploads))

    arrived = {}
    for exchange in server.exchanges:
        form = form_of(exchange)
        arrived[form["certification_id"].get_payload()] = form["file"].get_payload(decode=True)
    assert arrived == {str(upload.certification_id): upload.file.read_bytes() for upload in uploads}


# --- a connector of one's own ---


async def test_a_connector_of_ones_own_is_used_and_left_open(upload: CertificateUpload) -> None:
    async with raw_server(either) as server, aiohttp.TCPConnector(keepalive_timeout=1) as own:
        async with client_of(server, certifications_api_key=KEY, connector=own) as springest:
            assert [item.id async for item in springest.certifications()] == [7]
            await springest.upload(upload)

        assert not own.closed
        async with aiohttp.ClientSession(connector=own, connector_owner=False) as session:
            assert (await session.get(f"{server.origin}/anything")).status == 200

    assert server.connections == 1


async def test_a_place_in_the_pool_is_not_waited_for_for_ever(
    upload: CertificateUpload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("springest_async.upload.TRIES", 1)
    released = asyncio.Event()

    async def streams(exchange: Exchange) -> None:
        await released.wait()

    async with (
        raw_server(streams) as elsewhere,
        raw_server(created) as server,
        aiohttp.TCPConnector(limit=1) as own,
        aiohttp.ClientSession(connector=own, connector_owner=False) as session,
    ):
        stream = asyncio.create_task(session.get(elsewhere.origin))
        await until(lambda: elsewhere.connections == 1)
        async with client_of(server, connector=own, timeouts=evolve(PATIENT, connect=0.1)) as springest:
            with pytest.raises(NotSent) as caught:
                await springest.upload(upload)
        stream.cancel()
        released.set()

    assert caught.value.reason == "no connection within the time allowed"
    assert server.connections == 0
    assert repr(springest.limiter) == "<Limiter 30 in 60 s, 0 under way, 0 resting, fast>"


async def test_a_connector_that_is_closed_is_refused(upload: CertificateUpload) -> None:
    own = aiohttp.TCPConnector()
    await own.close()
    client = Springest(api_key=KEY, settings=Settings(connector=own))

    with pytest.raises(ConfigurationError, match="the connector in the settings is closed"):
        await client.__aenter__()


async def test_a_list_is_asked_for_again_on_a_real_line() -> None:
    async def refuses(exchange: Exchange) -> None:
        await exchange.answer(503, b"", Retry_After="0")

    async def breaks_off(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nRetry-After: 0\r\n\r\n[")
        exchange.hang_up()

    async def answers(exchange: Exchange) -> None:
        rows = [{"id": 1, "certification_id": 7, "valid_from": "2026-01-31"}]
        await exchange.answer(200, json.dumps({"certificates": rows, "meta": {"results": 1}}).encode())

    # Without stamina's waits.
    with stamina.set_testing(True, attempts=3):
        async with raw_server(refuses, breaks_off, answers) as server, client_of(server) as springest:
            found = [certificate.id async for certificate in springest.certificates()]

    assert found == [1]
    assert len(server.exchanges) == 3


_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "pieces",
    [(_HEAD + b"1\r\n[]\r\n",), (_HEAD, b"1\r\n[]\r\n"), (_HEAD + b"1\r\n[", b"]\r\n")],
    ids=["in one piece", "behind the head", "behind its beginning"],
)
@pytest.mark.usefixtures("_each_of_aiohttp_s_parsers")
async def test_a_list_that_miscounts_is_asked_for_again(pieces: tuple[bytes, ...]) -> None:
    async def miscounts(exchange: Exchange) -> None:
        for piece in pieces:
            await exchange.send(piece)
            await asyncio.sleep(0.05)

    timeouts = evolve(PATIENT, answer=0.5)
    with stamina.set_testing(True, attempts=2):
        async with raw_server(miscounts) as server, client_of(server, timeouts=timeouts) as springest:
            with pytest.raises(NoAnswer) as caught:
                await anext(springest.certificates())

    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert len(server.exchanges) == 2


async def test_a_closed_client_leaves_no_connection_open(upload: CertificateUpload) -> None:
    ended = asyncio.Event()

    async def keeps_open(exchange: Exchange) -> None:
        await exchange.answer(200, b"[]")
        assert await exchange.reader.read(1) == b""
        ended.set()

    async with raw_server(keeps_open) as server:
        async with client_of(server) as springest:
            assert [item async for item in springest.certificates()] == []
            assert not ended.is_set()
        async with asyncio.timeout(A_WHILE):
            await ended.wait()

    assert server.connections == 1
