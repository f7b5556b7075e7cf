"""A program that ends while uploads are under way: it ends at once and quietly, and what is left is nothing."""

import asyncio
import re
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from springest_async import (
    CertificateUpload,
    ConfigurationError,
    InDoubt,
    Journal,
    Limiter,
    NotSent,
    Receipt,
    Springest,
)
from springest_async.journal import certificates
from springest_async.journal.records import State
from tests.pdfs import archive
from tests.waiting import A_WHILE, until

from .command import HeldSandbox, end, environment, start, until_said
from .raw_server import Behaviour, Exchange, RawServer, created, raw_server
from .wire import KEY, client_of, file_of, taken

# --- leaving `async with Springest(...)` while uploads are under way ---


class Held:
    """A server that takes everything, and answers only after `go_on`."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.taken = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        await taken(exchange)
        self.taken.set()
        await self.go_on.wait()
        if exchange.line.startswith("GET"):
            await exchange.answer(200, b"[]")
        else:
            await exchange.answer(201, b'{"id": 5001}')


@pytest.fixture
def _hardly_any_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("springest_async.limits.bucket._MARGIN", 0.01)


async def left_open_by(task: "asyncio.Task[Any]") -> set[str]:
    """Wait for a task, and tell what other tasks there are but the server's."""
    async with asyncio.timeout(A_WHILE):
        await asyncio.wait([task])
    for _ in range(3):
        await asyncio.sleep(0)  # a task that was cancelled needs a moment to be told
    names = {getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks() - {asyncio.current_task()}}
    return names - {"RawServer.serve"}


@pytest.mark.usefixtures("_hardly_any_margin")
async def test_a_client_that_is_closed_waits_for_its_uploads(
    upload: CertificateUpload,
) -> None:
    held, entered, uploads = Held(), asyncio.Event(), list["asyncio.Task[Receipt]"]()

    async def use(server: RawServer) -> Springest:
        async with client_of(server, limiter=Limiter(posts=2, period=0.1)) as springest:
            uploads.extend(asyncio.create_task(springest.upload(upload)) for _ in range(4))  # two of them wait
            listed = asyncio.create_task(anext(springest.certificates(), None))
            await held.taken.wait()
            entered.set()
        assert await listed is None
        return springest

    async with raw_server(held) as server:
        leaving = asyncio.create_task(use(server))
        await entered.wait()
        await asyncio.sleep(0.05)
        assert not leaving.done()
        held.go_on.set()
        assert await left_open_by(leaving) == set()
        springest = leaving.result()
        with pytest.raises(RuntimeError, match="the client is closed"):
            await springest.upload(upload)

    assert [task.result().id for task in uploads] == [5001] * 4


@pytest.mark.parametrize("how", ["an exception", "a cancellation"])
async def test_a_client_that_is_left_in_haste_cancels_its_uploads(how: str, upload: CertificateUpload) -> None:
    held, calls = Held(), list["asyncio.Task[Any]"]()
    limiter = Limiter(posts=1, period=30.0)

    async def use(server: RawServer) -> None:
        async with client_of(server, limiter=limiter) as springest:
            calls.extend(asyncio.create_task(springest.upload(upload)) for _ in range(2))  # the second waits
            await held.taken.wait()
            calls.append(asyncio.create_task(anext(springest.certificates())))
            await asyncio.sleep(0.05)
            if how == "an exception":
                raise ZeroDivisionError

    async with raw_server(held) as server:
        leaving = asyncio.create_task(use(server))
        if how == "a cancellation":
            await held.taken.wait()
            await asyncio.sleep(0.1)  # it waits for its uploads
            leaving.cancel()
        assert await left_open_by(leaving) == set()

    assert leaving.cancelled() if how == "a cancellation" else isinstance(leaving.exception(), ZeroDivisionError)
    causes = []
    for call in calls:
        with pytest.raises(asyncio.CancelledError) as caught:
            call.result()
        causes.append(type(caught.value.__cause__))
    assert causes == [InDoubt, NotSent, type(None)]
    assert repr(limiter) == "<Limiter 1 in 30 s, 0 under way, 1 resting, fast>"


async def test_an_upload_that_begins_while_the_client_closes_fails(upload: CertificateUpload) -> None:
    async with raw_server(created) as server:
        async with client_of(server) as springest:
            late = asyncio.create_task(springest.upload(upload))  # a task that has not begun cannot be known
        with pytest.raises(RuntimeError, match="the client is closed"):
            await late


async def test_an_upload_that_is_cancelled_in_its_commit_waits(
    upload: CertificateUpload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    begin = certificates.begin

    def begin_and_take_long(*arguments: Any, **options: Any) -> None:
        begin(*arguments, **options)
        begun.set()
        go_on.wait(A_WHILE)

    monkeypatch.setattr(certificates, "begin", begin_and_take_long)
    async with (
        Journal(tmp_path / "journal") as journal,
        Springest(api_key=KEY, host="http://127.0.0.1:9", journal=journal) as springest,
    ):
        uploading = asyncio.create_task(springest.upload(upload))
        await asyncio.to_thread(begun.wait, A_WHILE)
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        await springest.aclose(timeout=0)
    with pytest.raises(asyncio.CancelledError):
        await uploading

    async with Journal(tmp_path / "journal") as journal:
        known = await journal.certificate(1)
    assert (known.state, known.claim) == (State.WAITING, None)
    assert not caplog.records


async def test_a_connector_that_is_closed_meanwhile_is_refused(upload: CertificateUpload) -> None:
    connector = aiohttp.TCPConnector()
    async with raw_server(created) as server, client_of(server, connector=connector) as springest:
        await connector.close()
        with pytest.raises(ConfigurationError, match="the connector in the settings is closed"):
            await springest.upload(upload)

    assert repr(springest.limiter) == "<Limiter 30 in 60 s, 0 under way, 0 resting, fast>"


# --- whole programs ---


PROGRAM = """
import asyncio, contextlib, os, signal, sys, time
from datetime import date
from pathlib import Path

from springest_async import CertificateUpload, Limiter, Settings, Springest, Timeouts
from springest_async import source_file

origin, folder = sys.argv[1], Path(sys.argv[2])
begun, ready = 0, asyncio.Event()


def listen(step):
    global begun
    begun += step.kind == "sending"


def upload(springest, name):
    values = dict(certification_id=7, email="jan@example.org", valid_from=date(2026, 1, 31))
    return asyncio.create_task(springest.upload(CertificateUpload(file=folder / name, **values), listener=listen))


async def lists(springest):
    return [certificate async for certificate in springest.certificates()]


def client():
    # Two of the five uploads wait for their turn.
    limiter = Limiter(posts=3, period={period})
    timeouts = Timeouts(connect=30.0, answer=30.0, stall=30.0)
    return Springest(api_key={key!r}, host=origin, settings=Settings(limiter=limiter, timeouts=timeouts))


async def all_kinds(springest):
    '''Begin an upload that waits for its answer, one for the word to go on, one that writes, two that wait; a list.'''
    asyncio.get_running_loop().slow_callback_duration = 60.0  # a busy machine is no fault
    tasks = [upload(springest, name) for name in ("small.pdf", "middle.pdf", "large.pdf", "small.pdf", "large.pdf")]
    tasks.append(asyncio.create_task(lists(springest)))
    while begun < 3:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    print("ready", flush=True)
    ready.set()
    return tasks

{body}
"""

RUN = """
async def main():
    async with client() as springest:
        tasks = await all_kinds(springest)
        {ending}

{run}
"""
PLAINLY = "asyncio.run(main())"
OUT_OF_TIME = """
async def bounded():
    bound = asyncio.create_task(main())
    await ready.wait()
    await asyncio.wait_for(bound, 0.2)

with contextlib.suppress(TimeoutError):
    asyncio.run(bounded())
"""
LOOP_OF_ITS_OWN = """
loop = asyncio.new_event_loop()
with contextlib.suppress(ZeroDivisionError):
    loop.run_until_complete(main())
loop.close()
"""


AT_ONCE = 20.0
"""Seconds, for Python to end in on a busy machine: less than the program would wait for any answer or sleep."""


async def stands_still(exchange: Exchange) -> None:
    """Take small bodies, begin to take large ones, say nothing of middle ones, and answer nothing at all."""
    if exchange.length < 64 * 1024:
        await exchange.read()
    elif exchange.length > 1024 * 1024:
        await exchange.go_on()
        await exchange.read(100_000)
    await asyncio.get_running_loop().create_future()


async def ran(
    body: str,
    folder: Path,
    *,
    meanwhile: Callable[[asyncio.subprocess.Process], Awaitable[None]] | None = None,
    behaviour: Behaviour = stands_still,
    period: float = 60.0,
) -> tuple[int, str]:
    """Run a program with all of Python's warnings as errors; give its exit code and what it said on stderr."""
    for name, size in (("small", 1000), ("middle", 100_000), ("large", 24 * 1024 * 1024)):
        file_of(size, folder / f"{name}.pdf")
    program = PROGRAM.replace("{key!r}", repr(KEY)).replace("{period}", str(period)).replace("{body}", body)
    async with raw_server(behaviour) as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-X", "dev", "-W", "error", "-c",
            program, server.origin, folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        async with asyncio.timeout(A_WHILE):
            line = await process.stdout.readline()
        if line and meanwhile is not None:
            await meanwhile(process)
        try:
            async with asyncio.timeout(AT_ONCE):
                _, err = await process.communicate()
        except TimeoutError:
            process.kill()
            _, err = await process.communicate()
            raise AssertionError(f"it does not end: {err.decode()}") from None
    assert line == b"ready\n", err.decode()
    assert KEY not in err.decode()
    assert process.returncode is not None
    return process.returncode, err.decode()


def only_traceback(error: str) -> re.Pattern[str]:
    return re.compile(rf"Traceback \(most recent call last\):\n(  .*\n)+{re.escape(error)}\n")


@pytest.mark.parametrize(
    ("ending", "run", "code"),
    [
        ("sys.exit(7)", PLAINLY, 7),
        ("raise ZeroDivisionError", f"with contextlib.suppress(ZeroDivisionError): {PLAINLY}", 0),
        ("tasks[0].cancel(); await tasks[0]", f"with contextlib.suppress(asyncio.CancelledError): {PLAINLY}", 0),
        (
            "asyncio.get_running_loop().stop(); await asyncio.sleep(60)",
            f"with contextlib.suppress(RuntimeError): {PLAINLY}",
            0,
        ),
        ("asyncio.get_running_loop().call_soon(sys.exit, 7); await asyncio.sleep(60)", PLAINLY, 7),
        (
            "asyncio.get_running_loop().call_soon(signal.raise_signal, 2); await asyncio.sleep(60)",
            f"with contextlib.suppress(KeyboardInterrupt): {PLAINLY}",
            0,
        ),
        ("pass  # and it waits for its uploads, for which there is no time", OUT_OF_TIME, 0),
        (
            "raise ZeroDivisionError",
            LOOP_OF_ITS_OWN,
            0,
        ),
    ],
)
async def test_a_program_that_ends_in_the_middle_prints_nothing(
    ending: str, run: str, code: int, tmp_path: Path
) -> None:
    assert await ran(RUN.replace("{ending}", ending).replace("{run}", run), tmp_path) == (code, "")


async def test_a_program_that_fails_in_the_middle_prints_its_error(tmp_path: Path) -> None:
    program = RUN.replace("{ending}", "raise ZeroDivisionError('let out')").replace("{run}", PLAINLY)

    code, err = await ran(program, tmp_path)

    assert code == 1
    assert only_traceback("ZeroDivisionError: let out").fullmatch(err)


async def test_ctrl_c_in_the_middle_ends_the_program_at_once(tmp_path: Path) -> None:
    async def ctrl_c(process: asyncio.subprocess.Process) -> None:
        process.send_signal(signal.SIGINT)

    run = "try: asyncio.run(main())\nexcept KeyboardInterrupt: sys.exit(130)"
    program = RUN.replace("{ending}", "await asyncio.sleep(60)").replace("{run}", run)

    assert await ran(program, tmp_path, meanwhile=ctrl_c) == (130, "")


async def test_a_program_that_forgets_its_uploads_has_them_all_stored(tmp_path: Path) -> None:
    async def stores(exchange: Exchange) -> None:
        await taken(exchange)
        await asyncio.sleep(0.5)
        await exchange.answer(*((200, b"[]") if exchange.line.startswith("GET") else (201, b'{"id": 5001}')))
        stored.append(len(exchange.body))

    stored = list[int]()
    program = RUN.replace("{ending}", "pass").replace("{run}", PLAINLY)

    assert await ran(program, tmp_path, behaviour=stores, period=0.5) == (0, "")
    assert len([length for length in stored if length]) == 5


async def test_a_client_that_is_never_closed_is_reported_by_aiohttp(tmp_path: Path) -> None:
    program = """
async def main():
    springest = await client().__aenter__()
    await all_kinds(springest)

asyncio.run(main())
"""

    code, err = await ran(program, tmp_path)

    assert code == 0
    assert (
        re.findall(r"^(\w+): ([A-Za-z ]+) <", err, re.MULTILINE) == [("ResourceWarning", "Unclosed client session")] * 2
    )  # one for lists, one for POSTs
    assert err.count("Exception ignored in") == 2


SLOW_DISK = """
def at_leisure(function):
    def wrapped(*arguments):
        time.sleep(0.2)
        return function(*arguments)
    return wrapped

source_file.{what} = at_leisure(source_file.{what})

async def main():
    async with contextlib.AsyncExitStack() as stack:
        springest = client()
        await springest.__aenter__()
        stack.push_async_exit(springest)
        asyncio.get_running_loop().slow_callback_duration = 60.0
        for name in ("large.pdf", "small.pdf", "middle.pdf"):
            upload(springest, name)
        await asyncio.sleep({after})
        print("ready", flush=True)
        raise ZeroDivisionError

with contextlib.suppress(ZeroDivisionError):
    asyncio.run(main())
"""


@pytest.mark.parametrize("after", [0.1, 0.7, 1.1])
@pytest.mark.parametrize("what", ["open_source", "FileReader.read"])
async def test_a_program_that_ends_while_files_are_read_closes_them(what: str, after: float, tmp_path: Path) -> None:
    program = SLOW_DISK.replace("{what}", what).replace("{after}", str(after))

    assert await ran(program, tmp_path) == (0, "")


@pytest.mark.parametrize("signals", [1, 2])
async def test_the_command_that_is_interrupted_warns_of_nothing(signals: int, tmp_path: Path) -> None:
    manifest = archive(tmp_path, 12)
    async with HeldSandbox() as sandbox:
        process = await start("upload", manifest, env=environment(sandbox.origin, PYTHONWARNINGS="error"))
        await until(lambda: sandbox.held == 8)
        process.send_signal(signal.SIGINT)
        said = await until_said(process, "Stopping")
        if signals == 2:
            process.send_signal(signal.SIGINT)
        else:
            sandbox.go_on.set()
        ended = await end(process, within=AT_ONCE)

    assert ended.code == 130
    assert not re.search("Warning|Exception|never|pending", said + ended.err)
