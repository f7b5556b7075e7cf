"""How services cancel: what became of an upload reaches its listener, and a task that goes on can upload. Real sockets.

`test_cancellation` cancels at every point; here are the ways in which asyncio and anyio cancel, and go on afterwards.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from springest_async import CertificateUpload, Fault, InDoubt, Rejected, UploadStep
from tests.waiting import A_WHILE, heard

from .raw_server import Behaviour, Exchange, created, raw_server
from .wire import client_of, file_of, taken

Call = Callable[[], Coroutine[Any, Any, None]]


class Held:
    """A server that gets somewhere, sets `reached`, and does not go on."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self.reached = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        await self._behaviour(exchange)
        await heard()  # by the client
        self.reached.set()
        await asyncio.get_running_loop().create_future()


# --- what became of it reaches the listener ---


async def says_201(exchange: Exchange) -> None:
    """Take all, and answer with a head whose body never comes."""
    await taken(exchange)
    await exchange.send(b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n")


async def says_401(exchange: Exchange) -> None:
    await taken(exchange)
    await exchange.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 100\r\n\r\n")


async def by_timeout(call: Call, reached: asyncio.Event) -> None:
    async def ring() -> None:
        await reached.wait()
        scope.reschedule(0)

    with suppress(TimeoutError):
        async with asyncio.timeout(None) as scope:
            bell = asyncio.create_task(ring())
            await call()
    await bell


async def by_gather(call: Call, reached: asyncio.Event) -> None:
    task = asyncio.create_task(call())
    gathered = asyncio.gather(task, return_exceptions=True)
    await reached.wait()
    task.cancel()
    await gathered


async def by_a_task_group(call: Call, reached: asyncio.Event) -> None:
    with suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(call())
            await reached.wait()
            raise LookupError("a sibling failed")


async def by_fail_after(call: Call, reached: asyncio.Event) -> None:
    with suppress(TimeoutError), anyio.fail_after(A_WHILE) as scope:
        await by_deadline(scope, call, reached)


async def by_move_on_after(call: Call, reached: asyncio.Event) -> None:
    with anyio.move_on_after(A_WHILE) as scope:
        await by_deadline(scope, call, reached)


async def by_deadline(scope: anyio.CancelScope, call: Call, reached: asyncio.Event) -> None:
    async def ring() -> None:
        await reached.wait()
        scope.deadline = anyio.current_time()

    bell = asyncio.create_task(ring())
    try:
        await call()
    finally:
        bell.cancel()


async def by_an_anyio_task_group(call: Call, reached: asyncio.Event) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await reached.wait()
        group.cancel_scope.cancel()


CANCELLERS = [by_timeout, by_gather, by_a_task_group, by_fail_after, by_move_on_after, by_an_anyio_task_group]


@pytest.mark.parametrize(("behaviour", "kind"), [(taken, "in doubt"), (says_201, "stored"), (says_401, "not stored")])
@pytest.mark.parametrize("cancel", CANCELLERS)
async def test_a_cancelled_upload_tells_its_listener(
    cancel: Callable[[Call, asyncio.Event], Awaitable[None]],
    behaviour: Behaviour,
    kind: str,
    upload: CertificateUpload,
) -> None:
    held, steps = Held(behaviour), list[UploadStep]()
    async with raw_server(held) as server, client_of(server) as springest:

        async def call() -> None:
            await springest.upload(upload, listener=steps.append)

        async with asyncio.timeout(A_WHILE):
            await cancel(call, held.reached)

    assert [step.kind for step in steps] == ["waiting", "sending", kind]
    assert len(server.exchanges) == 1


# --- a task that was cancelled once and goes on ---


async def after_suppressing_it(work: Call) -> None:
    with suppress(asyncio.CancelledError):
        await cancelled_while_waiting()
    await work()


async def in_finally(work: Call) -> None:
    with suppress(asyncio.CancelledError):
        try:
            await cancelled_while_waiting()
        finally:
            await work()


async def cancelled_while_waiting() -> None:
    """Cancel the task that calls this, as a service does that stops its workers."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)
    await asyncio.sleep(A_WHILE)


async def in_a_task_group(work: Call) -> None:
    async def fails() -> None:
        raise LookupError("a sibling failed")

    with suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            try:
                await asyncio.sleep(A_WHILE)
            finally:
                await work()


async def in_a_shield_of_anyio(work: Call) -> None:
    with anyio.move_on_after(0):
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await work()


async def behind_a_scope_of_anyio(work: Call) -> None:
    async def worker() -> None:
        with anyio.move_on_after(0):
            await anyio.sleep_forever()
        await work()

    async with anyio.create_task_group() as group:
        group.start_soon(worker)


WAYS_TO_GO_ON = [after_suppressing_it, in_finally, in_a_task_group, in_a_shield_of_anyio, behind_a_scope_of_anyio]
GOES_ON = pytest.mark.parametrize("go_on", WAYS_TO_GO_ON)
GoOn = Callable[[Call], Coroutine[Any, Any, None]]
MakeUpload = Callable[..., CertificateUpload]


async def in_a_task(go_on: GoOn, work: Call) -> None:
    """Do the work in a task of its own that goes on after a cancellation."""
    async with asyncio.timeout(A_WHILE):
        await asyncio.create_task(go_on(work))


@GOES_ON
async def test_a_task_that_goes_on_gets_its_receipts(go_on: GoOn, make_upload: MakeUpload, tmp_path: Path) -> None:
    sizes, ids = [1_000, 300_000, 3_000_000], list[int | None]()
    uploads = [make_upload(file=file_of(size, tmp_path / f"{size}.pdf")) for size in sizes]
    async with raw_server(created) as server, client_of(server) as springest:

        async def work() -> None:
            for upload in uploads:
                ids.append((await springest.upload(upload)).id)

        await in_a_task(go_on, work)

    assert ids == [5001] * 3
    assert [len(exchange.body) > size for exchange, size in zip(server.exchanges, sizes, strict=True)] == [True] * 3


@GOES_ON
@pytest.mark.parametrize("hangs_up", [False, True])
async def test_a_task_that_goes_on_hears_an_early_refusal(
    hangs_up: bool, go_on: GoOn, make_upload: MakeUpload, tmp_path: Path
) -> None:
    async def refuses(exchange: Exchange) -> None:
        await exchange.go_on()
        await exchange.read(100_000)
        await exchange.answer(400, b'{"errors": {"email": ["is invalid"]}}')
        if hangs_up:
            exchange.hang_up()
        else:
            await exchange.read()

    refused = list[Rejected]()
    upload = make_upload(file=file_of(3_000_000, tmp_path / "x.pdf"))
    async with raw_server(refuses) as server, client_of(server) as springest:

        async def work() -> None:
            with pytest.raises(Rejected) as caught:
                await springest.upload(upload)
            refused.append(caught.value)

        await in_a_task(go_on, work)

    assert [error.faults for error in refused] == [(Fault("email", "is invalid"),)]


@GOES_ON
async def test_a_task_that_goes_on_can_be_cancelled_again(go_on: GoOn, make_upload: MakeUpload, tmp_path: Path) -> None:
    held, ends = Held(taken), list[BaseException | None]()
    upload = make_upload(file=file_of(300_000, tmp_path / "x.pdf"))
    async with raw_server(held) as server, client_of(server) as springest:

        async def work() -> None:
            task = asyncio.current_task()
            assert task is not None
            cancelling = asyncio.create_task(cancel_when(held.reached, task))
            try:
                await springest.upload(upload)
            except asyncio.CancelledError as cancelled:
                ends.append(cancelled.__cause__)
                raise
            finally:
                await cancelling

        with suppress(asyncio.CancelledError):
            await in_a_task(go_on, work)

    assert [type(end) for end in ends] == [InDoubt]


async def cancel_when(reached: asyncio.Event, task: "asyncio.Task[Any]") -> None:
    await reached.wait()
    task.cancel()
