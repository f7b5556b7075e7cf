"""The ways to upload that are compared: ours, and each library as its own documentation shows it.

A way is a context manager that is opened once and yields a function: given a number, it prepares so many uploads, and
returns what uploads them. All send the same form with the same file to the same server, open that file anew for each
upload, and read the answer as JSON.
"""

import asyncio
import json
import os
import shutil
import socket
import ssl
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
)
from datetime import date
from functools import partial
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx
import niquests
import pycurl
import requests
from attrs import frozen

from springest_async import CertificateUpload, Journal, Settings, Springest
from springest_async.bulk import BulkEvent, Manifest, RowDone, State, UploadQueue, load_manifest

__all__ = [
    "AIOHTTP",
    "BULK",
    "BYTES",
    "NO_LIMIT",
    "ON_UVLOOP",
    "OURS",
    "OWN_KEYS",
    "READ",
    "SENDFILE",
    "WAYS",
    "AsyncPrepare",
    "Job",
    "Prepare",
    "Run",
    "Way",
    "by_tasks",
    "on_a_loop",
]

AIOHTTP = "aiohttp as documented"
BYTES = "aiohttp with bytes in memory"
READ = "aiohttp with bytes that a thread has read"
OURS = "`Springest.upload()`"
BULK = "a bulk run"
SENDFILE = "a socket with sendfile"
ON_UVLOOP = ", uvloop"
NO_LIMIT = 10**9  # a minute and an hour

_KEY = "an-invented-key"
OWN_KEYS = (f"{_KEY}-{number}" for number in count())  # clients with one key must share one journal
_EMAIL = "employee@example.org"
_VALID_FROM = date(2026, 1, 31)
_CERTIFICATION = 1


@frozen(kw_only=True)
class Job:
    """What is to be uploaded, and where to.

    Attributes:
        origin: the address of the server.
        file: the certificate's PDF.
        in_flight: how many uploads at once.
        folder: where a way can keep files, on the disk to measure.
        ca_file: the certificate (PEM) of the CA to trust; None: the server speaks HTTP.
    """

    origin: str
    file: Path
    in_flight: int
    folder: Path
    ca_file: Path | None = None

    @property
    def url(self) -> str:
        """Return where certificates are posted to, with the key."""
        return f"{self.origin}{self.path}?api_key={_KEY}"

    @property
    def path(self) -> str:
        """Return the path of that address."""
        return "/users/certificates.json"

    @property
    def fields(self) -> dict[str, str]:
        """Return the text fields of the form."""
        return {"certification_id": str(_CERTIFICATION), "email": _EMAIL, "valid_from": _VALID_FROM.isoformat()}

    def certificate(self, email: str = _EMAIL) -> CertificateUpload:
        """Return what ours are given."""
        return CertificateUpload(file=self.file, certification_id=_CERTIFICATION, email=email, valid_from=_VALID_FROM)

    def trust(self) -> ssl.SSLContext:
        """Return what trusts the server."""
        return ssl.create_default_context(cafile=self.ca_file)

    def settings(self) -> Settings:
        """Return the settings of a client of ours, whose limit never makes it wait."""
        return Settings(
            posts_per_minute=NO_LIMIT, requests_per_hour=NO_LIMIT, concurrency=self.in_flight, ca_file=self.ca_file
        )


Prepare = Callable[[int], Callable[[], object]]
Way = Callable[[Job], AbstractContextManager[Prepare]]

Run = Callable[[], Coroutine[Any, Any, object]]
AsyncPrepare = Callable[[int], Coroutine[Any, Any, Run]]
_AsyncWay = Callable[[Job], AbstractAsyncContextManager[AsyncPrepare]]


def _check(answer: Any) -> None:
    """Raise if this is not the answer of a server that has stored the certificate."""
    assert answer["id"] > 0


# --- on an event loop ---


def on_a_loop(way: _AsyncWay, new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> Way:
    """Return a way that runs on an event loop of its own, which stands still between its turns."""

    @contextmanager
    def opened(job: Job) -> Iterator[Prepare]:
        stack = AsyncExitStack()

        async def enter() -> AsyncPrepare:
            return await stack.enter_async_context(way(job))

        with asyncio.Runner(loop_factory=new_loop) as runner:
            prepare = runner.run(enter())

            def prepared(uploads: int) -> Callable[[], object]:
                upload = runner.run(prepare(uploads))
                return lambda: runner.run(upload())

            try:
                yield prepared
            finally:
                runner.run(stack.aclose())

    return opened


def by_tasks(one: Run, in_flight: int) -> AsyncPrepare:
    """Prepare uploads that are made one by one, by as many tasks as may be in flight."""

    async def work(left: Iterator[int]) -> None:
        for _ in left:
            await one()

    async def run(uploads: int) -> None:
        left = iter(range(uploads))
        async with asyncio.TaskGroup() as tasks:
            for _ in range(in_flight):
                tasks.create_task(work(left))

    async def prepare(uploads: int) -> Run:
        return partial(run, uploads)

    return prepare


@asynccontextmanager
async def _aiohttp(job: Job) -> AsyncIterator[AsyncPrepare]:
    tls = job.trust() if job.ca_file else True
    async with aiohttp.ClientSession() as session:

        async def one() -> None:
            with job.file.open("rb") as stream:
                form = aiohttp.FormData()
                for name, value in job.fields.items():
                    form.add_field(name, value)
                form.add_field("file", stream, filename=job.file.name, content_type="application/pdf")
                async with session.post(job.url, data=form, ssl=tls) as response:
                    _check(await response.json())

        yield by_tasks(one, job.in_flight)


@asynccontextmanager
async def _aiohttp_with_bytes(job: Job, *, reads: bool) -> AsyncIterator[AsyncPrepare]:
    """Upload bytes that are in memory already, or (`reads`) the file that a thread has read whole in one hop.

    Nothing on aiohttp can cost less than the first, nor less than the second if its loop must not wait for a disk.
    """
    tls = job.trust() if job.ca_file else True
    preamble, epilogue = _around_file(job)
    headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
    body = preamble + job.file.read_bytes() + epilogue
    loop = asyncio.get_running_loop()

    def read() -> bytes:
        return preamble + job.file.read_bytes() + epilogue

    with ThreadPoolExecutor(1) as thread:
        async with aiohttp.ClientSession() as session:

            async def one() -> None:
                data = await loop.run_in_executor(thread, read) if reads else body
                async with session.post(job.url, data=data, headers=headers, ssl=tls) as response:
                    _check(await response.json())

            yield by_tasks(one, job.in_flight)


@asynccontextmanager
async def _springest(job: Job) -> AsyncIterator[AsyncPrepare]:
    async with Springest(api_key=next(OWN_KEYS), host=job.origin, settings=job.settings()) as springest:

        async def one() -> None:
            assert (await springest.upload(job.certificate())).id

        yield by_tasks(one, job.in_flight)


@asynccontextmanager
async def _bulk_run(job: Job) -> AsyncIterator[AsyncPrepare]:
    """Upload a manifest of different certificates, whose rows are in the journal before the clock starts.

    Their files are links to one, each with a path of its own, so each is read and hashed.
    """
    folder = Path(tempfile.mkdtemp(prefix="bulk-", dir=job.folder))
    numbers = count(1)
    async with (
        Journal(folder / "journal.sqlite3") as journal,
        Springest(api_key=next(OWN_KEYS), host=job.origin, settings=job.settings(), journal=journal) as springest,
    ):

        async def prepare(uploads: int) -> Run:
            archive = folder / str(next(numbers))
            path = _write_archive(archive, job.file, uploads)
            migration, _ = await load_manifest(journal, Manifest.open(path), springest.origin)

            async def run() -> None:
                states: Counter[State] = Counter()

                def listen(event: BulkEvent) -> None:
                    if isinstance(event, RowDone):
                        states[event.state] += 1

                error = await UploadQueue(springest, migration, listen).run()
                assert error is None, error
                assert states == {State.STORED: uploads}, states

            return run

        yield prepare
    shutil.rmtree(folder)


def _write_archive(folder: Path, file: Path, uploads: int) -> Path:
    """Write a manifest and its files; the addresses tell its certificates from those of other folders."""
    folder.mkdir()
    manifest = folder / "certificates.csv"
    with manifest.open("w", encoding="utf-8") as stream:
        stream.write("file,certification_id,email,valid_from\n")
        for number in range(uploads):
            link = folder / f"{number}.pdf"
            try:
                link.hardlink_to(file)
            except OSError:  # the disk knows no links, or no more of them to one file
                shutil.copyfile(file, link)
            email = f"employee{folder.name}.{number}@example.org"
            stream.write(f"{link.name},{_CERTIFICATION},{email},{_VALID_FROM}\n")
    return manifest


@asynccontextmanager
async def _httpx(job: Job) -> AsyncIterator[AsyncPrepare]:
    limits = httpx.Limits(max_connections=job.in_flight, max_keepalive_connections=job.in_flight)
    tls = job.trust() if job.ca_file else True
    async with httpx.AsyncClient(limits=limits, timeout=60.0, trust_env=False, verify=tls) as client:

        async def one() -> None:
            with job.file.open("rb") as stream:
                files = {"file": (job.file.name, stream, "application/pdf")}
                response = await client.post(job.url, data=job.fields, files=files)
            _check(response.json())

        yield by_tasks(one, job.in_flight)


@asynccontextmanager
async def _niquests(job: Job) -> AsyncIterator[AsyncPrepare]:
    async with niquests.AsyncSession(pool_maxsize=job.in_flight) as session:
        session.trust_env = False
        if job.ca_file:
            session.verify = str(job.ca_file)

        async def one() -> None:
            with job.file.open("rb") as stream:
                response = await session.post(
                    job.url, data=job.fields, files={"file": (job.file.name, stream, "application/pdf")}
                )
            _check(response.json())

        yield by_tasks(one, job.in_flight)


# --- without an event loop ---


def _by_threads(one: Callable[[], object], in_flight: int, pool: ThreadPoolExecutor) -> Prepare:
    """Prepare uploads that are made one by one, by as many threads as may be in flight."""

    def work(left: Iterator[int]) -> None:
        for _ in left:
            one()

    def run(uploads: int) -> None:
        left = iter(range(uploads))
        for thread in [pool.submit(work, left) for _ in range(in_flight)]:
            thread.result()

    return lambda uploads: partial(run, uploads)


@contextmanager
def _requests(job: Job) -> Iterator[Prepare]:
    mine = threading.local()

    def one() -> None:
        if not hasattr(mine, "session"):
            mine.session = sessions.enter_context(requests.Session())  # which is not for several threads
            mine.session.trust_env = False
            mine.session.verify = str(job.ca_file) if job.ca_file else True
        with job.file.open("rb") as stream:
            files = {"file": (job.file.name, stream, "application/pdf")}
            response = mine.session.post(job.url, data=job.fields, files=files)
        _check(response.json())

    with ExitStack() as sessions, ThreadPoolExecutor(job.in_flight) as pool:
        yield _by_threads(one, job.in_flight, pool)


_BOUNDARY = "0123456789abcdef0123456789abcdef"


def _around_file(job: Job) -> tuple[bytes, bytes]:
    """Return what stands before the file in the form, and behind it."""
    fields = "".join(
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in job.fields.items()
    )
    preamble = (
        f'{fields}--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{job.file.name}"\r\n'
        "Content-Type: application/pdf\r\n\r\n"
    )
    return preamble.encode(), f"\r\n--{_BOUNDARY}--\r\n".encode()


@contextmanager
def _sendfile(job: Job) -> Iterator[Prepare]:
    """Upload by a socket in each thread, and no library, to see what the system itself needs."""
    mine = threading.local()
    address = urlsplit(job.url)
    preamble, epilogue = _around_file(job)

    def one() -> None:
        if not hasattr(mine, "socket"):
            mine.socket = sockets.enter_context(socket.create_connection((address.hostname, address.port)))
            mine.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with job.file.open("rb", buffering=0) as stream:
            size = os.fstat(stream.fileno()).st_size
            head = (
                f"POST {address.path}?{address.query} HTTP/1.1\r\nHost: {address.netloc}\r\n"
                f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\n"
                f"Content-Length: {len(preamble) + size + len(epilogue)}\r\n\r\n"
            )
            mine.socket.sendall(head.encode() + preamble, getattr(socket, "MSG_MORE", 0))
            mine.socket.sendfile(stream)
            mine.socket.sendall(epilogue)
        answer = mine.socket.recv(4096)
        assert answer.startswith(b"HTTP/1.1 201 "), answer
        _check(json.loads(answer.partition(b"\r\n\r\n")[2]))

    with ExitStack() as sockets, ThreadPoolExecutor(job.in_flight) as pool:
        yield _by_threads(one, job.in_flight, pool)


@contextmanager
def _pycurl(job: Job) -> Iterator[Prepare]:
    multi = pycurl.CurlMulti()
    handles = [pycurl.Curl() for _ in range(job.in_flight)]

    def begin(handle: Any) -> None:
        handle.answer = BytesIO()
        handle.reset()
        handle.setopt(pycurl.URL, job.url)
        form = pycurl.CurlMime(handle)
        for name, value in job.fields.items():
            form.add_field(name, value)
        form.add_file("file", str(job.file), filename=job.file.name, content_type="application/pdf")
        handle.setopt(pycurl.MIMEPOST, form)
        handle.setopt(pycurl.WRITEDATA, handle.answer)
        handle.setopt(pycurl.PROXY, "")
        if job.ca_file:
            handle.setopt(pycurl.CAINFO, str(job.ca_file))
        multi.add_handle(handle)

    def ended() -> list[Any]:
        """Return the handles whose uploads have ended."""
        _, done, failed = multi.info_read()
        assert not failed, failed
        for handle in done:
            _check(json.loads(handle.answer.getvalue()))
            multi.remove_handle(handle)
        return list(done)

    def run(uploads: int) -> None:
        left = uploads
        running = 0
        idle = list(handles)
        while left or running:
            while left and idle:
                begin(idle.pop())
                left -= 1
                running += 1
            multi.perform()
            done = ended()
            idle += done
            running -= len(done)
            if not done:
                multi.select(1.0)

    yield lambda uploads: partial(run, uploads)
    for handle in handles:
        handle.close()
    multi.close()


def _uvloop() -> asyncio.AbstractEventLoop:
    import uvloop  # noqa: PLC0415 (there is none for Windows)

    return uvloop.new_event_loop()


WAYS: Mapping[str, Way] = {
    AIOHTTP: on_a_loop(_aiohttp),
    BYTES: on_a_loop(partial(_aiohttp_with_bytes, reads=False)),
    READ: on_a_loop(partial(_aiohttp_with_bytes, reads=True)),
    OURS: on_a_loop(_springest),
    BULK: on_a_loop(_bulk_run),
    "httpx": on_a_loop(_httpx),
    "requests in threads": _requests,
    "niquests": on_a_loop(_niquests),
    "pycurl": _pycurl,
    SENDFILE: _sendfile,
    f"{AIOHTTP}{ON_UVLOOP}": on_a_loop(_aiohttp, _uvloop),
    f"{OURS}{ON_UVLOOP}": on_a_loop(_springest, _uvloop),
    f"{BULK}{ON_UVLOOP}": on_a_loop(_bulk_run, _uvloop),
}
