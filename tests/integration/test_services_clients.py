"""What services do with clients: threads, forks, a key for each customer, and a stop within a time. Real sockets."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from springest_async import CertificateUpload, ConfigurationError, InDoubt, Limiter, NotSent, Settings, Springest
from springest_async.sandbox import Sandbox
from tests.waiting import A_WHILE

from .raw_server import Exchange, raw_server
from .wire import client_of, taken


def on_a_loop_of_its_own(main: Coroutine[Any, Any, Any]) -> Any:
    """Run it on another event loop, in the thread that calls this; return its result or its error."""
    try:
        return asyncio.run(main)
    except Exception as error:  # noqa: BLE001 # the test looks at it
        return error


def client_for(sandbox: Sandbox, **settings: Any) -> Springest:
    return Springest(api_key=sandbox.api_key, host=sandbox.origin, settings=Settings(**settings))


async def uploads(sandbox: Sandbox, upload: CertificateUpload) -> int | None:
    async with client_for(sandbox) as springest:
        return (await springest.upload(upload)).id


async def lists(sandbox: Sandbox) -> list[int]:
    async with client_for(sandbox) as springest:
        return [certificate.id async for certificate in springest.certificates()]


@pytest.fixture
def upload(make_upload: Callable[..., CertificateUpload]) -> CertificateUpload:
    """Return an upload for a certification that the sandbox has."""
    return make_upload(certification_id=1)


# --- event loops in threads ---


async def test_threads_upload_after_the_main_loop_has(upload: CertificateUpload) -> None:
    """As a synchronous endpoint does with `asyncio.run`, while the loop of the service goes on."""
    async with Sandbox() as sandbox:
        ends = [await uploads(sandbox, upload)]
        ends += [await asyncio.to_thread(on_a_loop_of_its_own, uploads(sandbox, upload)) for _ in range(2)]
        ends += [await uploads(sandbox, upload)]

    assert ends == [1, 2, 3, 4]


async def test_threads_list_while_the_main_loop_uploads(upload: CertificateUpload) -> None:
    held = Held()
    async with raw_server(held) as server, client_of(server, limiter=None) as springest:
        sending = asyncio.create_task(springest.upload(upload))
        await held.taken.wait()

        async def other(use: str) -> list[int] | int | None:
            async with client_of(server, limiter=None) as client:
                if use == "upload":
                    return (await client.upload(upload)).id
                return [certificate.id async for certificate in client.certificates()]

        jobs = [asyncio.to_thread(on_a_loop_of_its_own, other(use)) for use in ("list", "list", "list", "upload")]
        *listed, refused = await asyncio.gather(*jobs)
        held.go_on.set()
        receipt = await sending

    assert (listed, receipt.id) == ([[], [], []], 5001)
    assert isinstance(refused, ConfigurationError)
    assert str(refused).startswith("two event loops use this host and key at the same time: give all uploads to one")


class Held:
    """A server that answers lists at once, and POSTs only after `go_on`."""

    def __init__(self) -> None:
        self.go_on, self.taken = asyncio.Event(), asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        await taken(exchange)
        if exchange.line.startswith("GET"):
            await exchange.answer(200, b"[]")
            return
        self.taken.set()
        await self.go_on.wait()
        await exchange.answer(201, b'{"id": 5001}')


# --- forks ---

FORK = """
import asyncio, os, sys
from datetime import date
from springest_async import CertificateUpload, Springest

origin, file = sys.argv[1:]
upload = CertificateUpload(file=file, certification_id=1, email="jan@example.org", valid_from=date(2026, 1, 31))
client = Springest(api_key="sandbox-key", host=origin)


async def in_the_child():
    for call in (client.upload(upload), anext(client.certificates()), client.__aenter__()):
        try:
            await call
        except RuntimeError as error:
            print(error, flush=True)
    async with Springest(api_key="sandbox-key", host=origin) as own:
        print("stored", (await own.upload(upload)).id, flush=True)


loop = asyncio.new_event_loop()
loop.run_until_complete(client.__aenter__())
loop.run_until_complete(client.upload(upload))
child = os.fork()
if child == 0:
    asyncio.run(in_the_child())
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("parent stored", loop.run_until_complete(client.upload(upload)).id)
loop.run_until_complete(client.__aexit__(None, None, None))
loop.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
async def test_a_forked_child_is_told_to_make_its_own_client(pdf: Path) -> None:
    async with Sandbox() as sandbox:
        ran = await asyncio.to_thread(
            subprocess.run,
            # Python 3.12 warns of each fork of a process that has threads.
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, sandbox.origin, str(pdf)],
            capture_output=True,
            text=True,
            timeout=A_WHILE,
            check=False,
        )

    forked = "the client was opened before this process was forked: make a client in each process"
    open_already = "the client is open already: share the open client among tasks"
    assert (ran.stderr, ran.returncode) == ("", 0)
    said = [line.partition(", and make")[0] for line in ran.stdout.splitlines()]
    assert said == [forked, forked, open_already, "stored 2", "parent stored 3"]


# --- a key for each customer ---


async def test_many_keys_leave_no_file_open(upload: CertificateUpload, tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        for number in range(20):
            sandbox.api_key = f"key-of-customer-{number:04}"
            async with client_for(sandbox) as springest:
                await springest.upload(upload)
                assert not springest.limiter.slow

    assert [name for name in open_files() if name.startswith(str(tmp_path))] == []


def open_files() -> list[str]:
    """Return the paths that this process has open, as far as the system tells."""
    found = []
    for descriptor in Path("/proc/self/fd").glob("*"):
        try:
            found.append(str(descriptor.readlink()))
        except FileNotFoundError:  # the one that listed the folder
            continue
    return found


# --- a stop within a time ---


@pytest.mark.parametrize("answered", [False, True])
async def test_a_stop_tells_each_upload_what_became_of_it(answered: bool, upload: CertificateUpload) -> None:
    held, ends = Held(), dict[str, BaseException | int | None]()
    async with raw_server(held) as server, client_of(server, limiter=Limiter(posts=1)) as springest:

        async def send(name: str) -> None:
            try:
                ends[name] = (await springest.upload(upload)).id
            except asyncio.CancelledError as cancelled:
                ends[name] = cancelled.__cause__

        sent = asyncio.create_task(send("sent"))
        await held.taken.wait()
        waiting = asyncio.create_task(send("waiting"))
        await asyncio.sleep(0)
        closing = asyncio.create_task(springest.aclose(timeout=A_WHILE if answered else 0.1))
        await waiting
        assert isinstance(ends["waiting"], NotSent)
        if answered:
            held.go_on.set()
        await closing
        await sent

    assert ends["sent"] == 5001 if answered else isinstance(ends["sent"], InDoubt)
