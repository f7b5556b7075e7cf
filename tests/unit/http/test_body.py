"""A form of exact length whose bytes any parser reads alike, and that notices when its file is no longer the same."""

import asyncio
import email.message
import email.policy
import hashlib
import os
import random
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pytest
from aiohttp.abc import AbstractStreamWriter
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import StreamWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from springest_async.errors import UnusableFile
from springest_async.http.body import CertificateBody, SendingForbidden
from springest_async.source_file import SourceFile, inspect_file
from tests.descriptors import open_files
from tests.pipes import becomes_a_pipe, let_go
from tests.waiting import A_WHILE, until

PIECE = 1024 * 1024
FIELDS = (("certification_id", "7"), ("email", "zoë@example.org"))


class Collector(AbstractStreamWriter):
    """A writer that keeps what is written, and may do something before each piece."""

    def __init__(self, before_piece: Callable[[int], Any] = lambda _: None) -> None:
        self.pieces: list[bytes] = []
        self._before_piece = before_piece

    @property
    def written(self) -> bytes:
        return b"".join(self.pieces)

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        self._before_piece(len(self.pieces))
        self.pieces.append(bytes(chunk))

    async def write_eof(self, chunk: bytes = b"") -> None:
        raise NotImplementedError

    async def drain(self) -> None:
        raise NotImplementedError

    def enable_compression(self, encoding: str = "deflate", strategy: int | None = None) -> None:
        raise NotImplementedError

    def enable_chunking(self) -> None:
        raise NotImplementedError

    async def write_headers(self, status_line: str, headers: Any) -> None:
        raise NotImplementedError


class Stuck(Collector):
    """A writer whose server has stopped reading."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = asyncio.Event()

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        self.reached.set()
        await asyncio.Event().wait()


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=1) as executor:
        executor.submit(int).result()  # its thread is running before any test counts open files
        yield executor


@pytest.fixture
def make_body(executor: ThreadPoolExecutor) -> Callable[..., CertificateBody]:
    def make(source: SourceFile, **changes: Any) -> CertificateBody:
        options: dict[str, Any] = {"executor": executor} | changes
        return CertificateBody(source, FIELDS, **options)

    return make


def content_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)  # the same each time


def file_of(folder: Path, content: bytes, name: str = "certificate.pdf") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def parts_of(body: CertificateBody, written: bytes) -> list[email.message.Message]:
    """Parse a form with the standard library's e-mail parser, which knows nothing of this library."""
    message = BytesParser(policy=email.policy.HTTP).parsebytes(
        b"Content-Type: " + body.content_type.encode() + b"\r\n\r\n" + written
    )
    assert message.is_multipart()
    parts = message.get_payload()
    assert isinstance(parts, list)
    assert not message.defects
    return [part for part in parts if isinstance(part, email.message.Message)]


# --- the bytes ---


async def test_the_form_is_what_rfc_7578_says_to_the_byte(
    tmp_path: Path, executor: ThreadPoolExecutor, make_body: Callable[..., CertificateBody]
) -> None:
    source = await inspect_file(file_of(tmp_path, b"%PDF-1.7\n\x00\xff\r\n", "jan.pdf"), executor)
    body, writer = make_body(source), Collector()

    await body.write(writer)

    boundary = body.content_type.removeprefix("multipart/form-data; boundary=")
    assert re.fullmatch("[0-9a-f]{32}", boundary)
    assert (
        writer.written
        == "\r\n".join(
            [
                f"--{boundary}",
                'Content-Disposition: form-data; name="certification_id"',
                "",
                "7",
                f"--{boundary}",
                'Content-Disposition: form-data; name="email"',
                "",
                "zoë@example.org",
                f"--{boundary}",
                'Content-Disposition: form-data; name="file"; filename="jan.pdf"',
                "Content-Type: application/pdf",
                "",
                "",
            ]
        ).encode()
        + b"%PDF-1.7\n\x00\xff\r\n"
        + f"\r\n--{boundary}--\r\n".encode()
    )


async def test_a_small_file_leaves_in_one_piece_and_its_end_alone(
    tmp_path: Path, executor: ThreadPoolExecutor, make_body: Callable[..., CertificateBody]
) -> None:
    writer = Collector()
    body = make_body(await inspect_file(file_of(tmp_path, b"%PDF-1.7 small"), executor))

    await body.write(writer)

    boundary = body.content_type.removeprefix("multipart/form-data; boundary=")
    assert len(writer.pieces) == 2
    assert writer.pieces[0].endswith(b"\r\n\r\n%PDF-1.7 small")
    assert writer.pieces[1] == f"\r\n--{boundary}--\r\n".encode()


@pytest.mark.parametrize("size", [10, PIECE, 3 * PIECE])
async def test_a_body_is_fully_written_just_before_its_end_leaves(
    size: int, tmp_path: Path, executor: ThreadPoolExecutor, make_body: Callable[..., CertificateBody]
) -> None:
    body = make_body(await inspect_file(file_of(tmp_path, content_of(size)), executor))
    fully_written: list[bool] = []
    writer = Collector(lambda _: fully_written.append(body.progress.fully_written))
    assert not body.progress.fully_written

    await body.write(writer)

    assert fully_written == [False] * (len(writer.pieces) - 1) + [True]
    assert body.progress.fully_written
    assert b"--" + body.content_type.partition("=")[2].encode() + b"--" not in b"".join(writer.pieces[:-1])


async def test_an_end_that_does_not_leave_counts_as_fully_written(
    pdf: Path, executor: ThreadPoolExecutor, make_body: Callable[..., CertificateBody]
) -> None:
    def breaks(piece: int) -> None:
        if piece == 1:
            raise ConnectionResetError

    body = make_body(await inspect_file(pdf, executor))

    with pytest.raises(ConnectionResetError):
        await body.write(Collector(breaks))

    assert body.progress.fully_written


async def test_the_texts_that_are_ours_are_told(
    tmp_path: Path, executor: ThreadPoolExecutor, make_body: Callable[..., CertificateBody]
) -> None:
    body = make_body(await inspect_file(file_of(tmp_path, b"%PDF-1.7", "zoë.pdf"), executor))

    assert body.sent_texts == ("7", "zoë@example.org", "zoë.pdf", "zoe.pdf")


@pytest.mark.parametrize(
    "size", [1, 2, 100_000, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE - 1, 2 * PIECE, 2 * PIECE + 1, 5 * PIECE + 12_345]
)
async def test_every_size_has_its_exact_length_and_its_exact_bytes(
    size: int, tmp_path: Path, executor: ThreadPoolExecutor, make_body: Callable[..., CertificateBody]
) -> None:
    content = content_of(size)
    body, writer = make_body(await inspect_file(file_of(tmp_path, content), executor)), Collector()

    await body.write_with_length(writer, body.size)

    assert len(writer.written) == body.size
    assert body.failure is None
    file = parts_of(body, writer.written)[-1].get_payload(decode=True)
    assert isinstance(file, bytes)
    assert hashlib.sha256(content).hexdigest() == hashlib.sha256(file).hexdigest()


async def test_no_piece_is_larger_than_a_mebibyte_and_the_fields(
    tmp_path: Path, executor: ThreadPoolExecutor, make_body: Callable[..., CertificateBody]
) -> None:
    writer = Collector()

    await make_body(await inspect_file(file_of(tmp_path, content_of(3 * PIECE)), executor)).write(writer)

    assert max(map(len, writer.pieces)) == PIECE
    assert len(writer.pieces) == 5


@pytest.mark.parametrize("ending", [b"\r", b"\n", b"\r\n", b"--", b"\r\n--", b"\r\n--\r\n"])
async def test_a_file_that_ends_like_a_boundary_is_kept(
    ending: bytes, tmp_path: Path, executor: ThreadPoolExecutor, make_body: Callable[..., CertificateBody]
) -> None:
    content = b"%PDF-1.7\xff" + ending
    body, writer = make_body(await inspect_file(file_of(tmp_path, content), executor)), Collector()

    await body.write(writer)

    assert parts_of(body, writer.written)[-1].get_payload(decode=True) == content


async def test_each_body_has_a_boundary_of_its_own(
    pdf: Path, executor: ThreadPoolExecutor, make_body: Callable[..., CertificateBody]
) -> None:
    source = await inspect_file(pdf, executor)

    assert make_body(source).content_type != make_body(source).content_type


async def test_a_body_can_be_written_twice(
    tmp_path: Path, executor: ThreadPoolExecutor, make_body: Callable[..., CertificateBody]
) -> None:
    body = make_body(await inspect_file(file_of(tmp_path, content_of(PIECE + 7)), executor))
    first, second = Collector(), Collector()

    await body.write(first)
    await body.write(second)

    assert first.written == second.written
    assert len(first.written) == body.size


async def test_a_streamed_body_has_no_text(
    pdf: Path, executor: ThreadPoolExecutor, make_body: Callable[..., CertificateBody]
) -> None:
    body = make_body(await inspect_file(pdf, executor))

    with pytest.raises(TypeError, match="has no text"):
        body.decode()


# --- whether it may be sent ---


async def test_it_asks_before_each_piece_and_before_the_end(
    tmp_path: Path, executor: ThreadPoolExecutor, make_body: Callable[..., CertificateBody]
) -> None:
    writer, asked = Collector(), list[int]()
    source = await inspect_file(file_of(tmp_path, content_of(3 * PIECE)), executor)

    await make_body(source, may_send=lambda: asked.append(len(writer.pieces))).write(writer)

    assert len(writer.pieces) == 5
    assert asked == [0, 2, 3, 4]  # the fields and the first piece leave together


@pytest.mark.parametrize("written", [0, 2, 3, 4])
async def test_once_it_may_not_be_sent_nothing_more_is_written(
    written: int, tmp_path: Path, executor: ThreadPoolExecutor, make_body: Callable[..., CertificateBody]
) -> None:
    writer = Collector()
    source = await inspect_file(file_of(tmp_path, content_of(3 * PIECE)), executor)
    body = make_body(source, may_send=lambda: "it is over" if len(writer.pieces) == written else None)
    before = open_files()

    with pytest.raises(SendingForbidden):
        await body.write(writer)

    assert body.forbidden == "it is over"
    assert body.failure is None
    assert len(writer.pieces) == written
    assert not body.progress.fully_written
    await asyncio.to_thread(executor.submit(int).result)  # the file is closed in its thread
    assert before == open_files()


# --- filenames ---


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("jan.pdf", "jan.pdf"),
        ("Jan de Vries (1).pdf", "Jan de Vries (1).pdf"),
        ("UPPER.PDF", "UPPER.PDF"),
        ("zoë café.pdf", "zoe cafe.pdf"),
        ('a"b.pdf', "a_b.pdf"),
        ("a'b.pdf", "a_b.pdf"),
        ("a\\b.pdf", "a_b.pdf"),
        ("a%22b.pdf", "a_22b.pdf"),
        ("a;filename=x.pdf", "a_filename_x.pdf"),
        ("a\r\nX-Header: y.pdf", "a__X-Header_ y.pdf"),
        ("a\tb\x00b.pdf".replace("\x00", "\x01"), "a_b_b.pdf"),
        ("🎓.pdf", "certificate.pdf"),
        ("証明書.pdf", "certificate.pdf"),
        ("証明書 2026.pdf", "___ 2026.pdf"),
        ("Søren Łukasz Þór Groß.pdf", "Soren Lukasz Thor Gross.pdf"),
        ("Æsa Œuvre Đặng Ħal.pdf", "AEsa OEuvre Dang Hal.pdf"),
        ("Ελένη Ω.pdf", "_____ _.pdf"),
        ("....", "certificate.pdf"),
        ("___.pdf", "certificate.pdf"),
        (".pdf", "certificate.pdf"),
        ("scan", "certificate.pdf"),
        ("scan.", "certificate.pdf"),
        ("a.b.c.pdf", "a.b.c.pdf"),
        ("x" * 251 + ".pdf", "x" * 100 + ".pdf"),
        ("x." + "y" * 200, "x." + "y" * 10),
        (os.fsdecode(b"caf\xe9.pdf"), "caf_.pdf"),
    ],
)
async def test_a_filename_is_sent_in_ascii_without_anything_to_escape(
    name: str, sent: str, tmp_path: Path, executor: ThreadPoolExecutor, make_body: Callable[..., CertificateBody]
) -> None:
    body, writer = make_body(await inspect_file(file_of(tmp_path, b"%PDF-1.7", name), executor)), Collector()

    await body.write(writer)

    parts = parts_of(body, writer.written)
    assert [part.get_param("name", header="Content-Disposition") for part in parts] == [
        "certification_id",
        "email",
        "file",
    ]
    assert parts[-1].get_filename() == sent
    assert parts[-1].items() == [
        ("Content-Disposition", f'form-data; name="file"; filename="{sent}"'),
        ("Content-Type", "application/pdf"),
    ]
    assert parts[-1].get_payload(decode=True) == b"%PDF-1.7"


@given(st.text(st.characters(exclude_characters="/\x00"), min_size=1).filter(lambda name: name not in (".", "..")))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_filename_the_header_has_nothing_to_escape(executor: ThreadPoolExecutor, name: str) -> None:
    source = SourceFile(Path("/archive") / name, size=1, modified_ns=0, inode=0, device=0)

    body = CertificateBody(source, (), executor=executor)

    # Reading is not the matter here, so the header is taken from where the body keeps it.
    (sent,) = re.findall(rb'; filename="(.*)"\r\n', body._preamble, re.DOTALL)
    assert re.fullmatch(rb"[A-Za-z0-9 ._()+,-]{1,100}\.[A-Za-z0-9 _()+,-]{1,10}", sent)
    assert not sent.startswith((b".", b" "))
    assert body.size == len(body._preamble) + 1 + len(body._epilogue)


# --- a file that does not stay the same ---


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def rewrite(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.write(b"X")
    os.utime(path, ns=(1, 1))  # the clock of some file systems is too coarse for a test


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes() + b"more"), "changed between its check and its sending"),
        (lambda path: path.write_bytes(b"%PDF"), "changed between its check and its sending"),
        (rewrite, "changed between its check and its sending"),
        (replace, "changed between its check and its sending"),
        (lambda path: path.unlink(), "there is no such file"),
        (lambda path: path.unlink() or path.mkdir(), "is a folder"),
        (lambda path: path.unlink() or path.symlink_to("/dev/zero"), "is not a regular file"),
        (lambda path: path.unlink() or path.symlink_to(path), "is a link that leads in a circle"),
        (lambda path: path.unlink() or path.symlink_to("none.pdf"), "there is no such file"),
        (lambda path: path.unlink() or path.symlink_to("/proc/self/mem"), "changed between its check and its sending"),
    ],
    ids=[
        *("grows", "shrinks", "is rewritten", "is replaced", "vanishes", "becomes a directory", "becomes a device"),
        *("becomes a loop", "becomes a link to nothing", "becomes the memory of a process"),
    ],
)
async def test_a_file_that_changes_before_it_is_sent_is_not_sent(
    change: Callable[[Path], Any],
    reason: str,
    tmp_path: Path,
    executor: ThreadPoolExecutor,
    make_body: Callable[..., CertificateBody],
) -> None:
    path = file_of(tmp_path, content_of(1000))
    body, writer = make_body(await inspect_file(path, executor)), Collector()
    change(path)
    before = open_files()

    with pytest.raises(UnusableFile) as caught:
        await body.write(writer)

    assert caught.value is body.failure
    assert (caught.value.file, caught.value.reason) == (path, reason)
    assert writer.written == b""
    assert before == open_files()


async def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(
    tmp_path: Path, executor: ThreadPoolExecutor, make_body: Callable[..., CertificateBody]
) -> None:
    path = file_of(tmp_path, content_of(1000))
    body, writer = make_body(await inspect_file(path, executor)), Collector()
    becomes_a_pipe(path)
    before = open_files()

    try:
        with pytest.raises(UnusableFile, match="is not a regular file") as caught:
            async with asyncio.timeout(A_WHILE):
                await body.write(writer)
    finally:
        let_go(path)

    assert caught.value is body.failure
    assert writer.written == b""
    assert before == open_files()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: os.truncate(path, PIECE), "became shorter while it was being read"),
        (lambda path: os.truncate(path, 2 * PIECE + 5), "became shorter while it was being read"),
        (lambda path: os.truncate(path, 9 * PIECE), "changed while it was being read"),
        (rewrite, "changed while it was being read"),
    ],
    ids=["shrinks to what was sent", "shrinks", "grows", "is rewritten"],
)
async def test_a_file_that_changes_on_the_way_is_never_sent_whole(
    change: Callable[[Path], Any],
    reason: str,
    tmp_path: Path,
    executor: ThreadPoolExecutor,
    make_body: Callable[..., CertificateBody],
) -> None:
    path = file_of(tmp_path, content_of(4 * PIECE))
    body = make_body(await inspect_file(path, executor))
    writer = Collector(lambda piece: change(path) if piece == 0 else None)
    before = open_files()

    with pytest.raises(UnusableFile) as caught:
        await body.write(writer)

    assert caught.value is body.failure
    assert caught.value.reason == reason
    assert body.size is not None
    assert len(writer.written) < body.size
    assert not body.progress.fully_written
    assert before == open_files()


async def test_a_file_that_is_deleted_while_it_is_sent_is_sent_whole(
    tmp_path: Path, executor: ThreadPoolExecutor, make_body: Callable[..., CertificateBody]
) -> None:
    path = file_of(tmp_path, content_of(3 * PIECE))
    body = make_body(await inspect_file(path, executor))
    writer = Collector(lambda _: path.unlink(missing_ok=True))

    await body.write(writer)

    assert parts_of(body, writer.written)[-1].get_payload(decode=True) == content_of(3 * PIECE)


# --- what is left behind ---


@pytest.mark.parametrize("size", [10, PIECE, 3 * PIECE])
async def test_no_file_is_left_open(
    size: int, tmp_path: Path, executor: ThreadPoolExecutor, make_body: Callable[..., CertificateBody]
) -> None:
    before = open_files()
    path = file_of(tmp_path, content_of(size))
    writer = Collector()

    await make_body(await inspect_file(path, executor)).write(writer)

    assert before == open_files()


class Recorded(asyncio.Transport):
    """A transport that keeps what is done with it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def write(self, data: Any) -> None:
        self.calls.append("write")

    def get_write_buffer_size(self) -> int:
        return 1

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        self.calls.append("abort")

    def close(self) -> None:
        self.calls.append("close")


async def test_a_body_that_is_cancelled_aborts_its_connection(
    tmp_path: Path, executor: ThreadPoolExecutor, make_body: Callable[..., CertificateBody]
) -> None:
    loop = asyncio.get_running_loop()
    transport, protocol = Recorded(), BaseProtocol(loop)
    protocol.connection_made(transport)
    protocol.pause_writing()
    body = make_body(await inspect_file(file_of(tmp_path, content_of(100_000)), executor))
    task = asyncio.create_task(body.write(StreamWriter(protocol, loop)))
    await until(lambda: transport.calls != [])

    task.cancel()
    await body.wait_written()

    assert transport.calls == ["write", "write", "abort"]
    assert not body.progress.fully_written


async def test_cancelling_closes_the_file(
    tmp_path: Path, executor: ThreadPoolExecutor, make_body: Callable[..., CertificateBody]
) -> None:
    before = open_files()
    writer = Stuck()
    source = await inspect_file(file_of(tmp_path, content_of(2 * PIECE)), executor)
    task = asyncio.create_task(make_body(source).write(writer))
    await writer.reached.wait()
    assert len(open_files()) == len(before) + 1

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert before == open_files()


class HeldBack(Executor):
    """An executor whose results are held back until `go` is set, as those of a slow disk are."""

    def __init__(self, inner: Executor) -> None:
        self.inner = inner
        self.done, self.go = threading.Event(), threading.Event()

    def submit(self, function: Any, /, *args: Any, **options: Any) -> Future[Any]:
        def held() -> Any:
            result = function(*args, **options)
            self.done.set()
            self.go.wait(A_WHILE)
            return result

        return self.inner.submit(held)


async def test_cancelling_while_the_file_is_being_opened_closes_it(
    tmp_path: Path, executor: ThreadPoolExecutor, make_body: Callable[..., CertificateBody]
) -> None:
    before = open_files()
    slow = HeldBack(executor)
    body = make_body(await inspect_file(file_of(tmp_path, content_of(10)), executor), executor=slow)
    task = asyncio.create_task(body.write(Collector()))
    await asyncio.to_thread(slow.done.wait, A_WHILE)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    slow.go.set()
    await asyncio.to_thread(executor.submit(int).result)

    # A file that nobody closed warns of itself when it is collected, and a warning fails this test.
    assert {name.partition(" ")[2] for name in open_files() - before} <= {"/proc/self/fd"}
