"""Cancelled and timed out by the caller, at every point: what is said is true, and nothing is left. On real sockets."""

import asyncio
import contextlib
import json
import re
import socket
import sys
import types
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator
from contextvars import ContextVar
from datetime import UTC, date, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import aiohttp
import pytest
from attrs import define, evolve

from springest_async import (
    CancelledTooLate,
    CertificateUpload,
    InDoubt,
    Limiter,
    NotSent,
    Receipt,
    Springest,
    SpringestError,
    Timeouts,
)
from tests.descriptors import open_descriptors, open_files_in
from tests.uploads import upload_in_bulk
from tests.waiting import A_WHILE, heard

from .raw_server import Behaviour, Exchange, created, raw_server
from .wire import PATH, PATIENT, client_of, file_of, small_socket, taken


@pytest.fixture(autouse=True)
def _hardly_any_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("springest_async.upload.backoff", lambda _: 0.01)


class Objection(Exception):
    """What fails beside an upload."""


# --- at the stages that a user can name ---


class Stage:
    """A server that gets somewhere and hangs, until it is let go on and takes all that still comes."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self.reached, self.go_on, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        try:
            await self._behaviour(exchange)
            await heard()  # by the client
            self.reached.set()
            await self.go_on.wait()
            await exchange.read()
        finally:
            self.ended.set()

    async def end(self) -> None:
        """Release the server, and wait until it has all that it will ever get."""
        self.go_on.set()
        async with asyncio.timeout(A_WHILE):
            await self.ended.wait()


def says(head: str, body: bytes = b"") -> Behaviour:
    """Take all, and answer with a head and a part of its body at most."""

    async def behaviour(exchange: Exchange) -> None:
        await taken(exchange)
        await exchange.send(f"HTTP/1.1 {head}\r\nContent-Length: 100\r\n\r\n".encode() + body)

    return behaviour


def says_early(head: str) -> Behaviour:
    """Answer with a head in the middle of the body, and read no further for now."""

    async def behaviour(exchange: Exchange) -> None:
        await exchange.go_on()
        await exchange.read(1_000_000)
        await exchange.send(f"HTTP/1.1 {head}\r\nContent-Length: 100\r\n\r\n".encode())

    return behaviour


async def says_half_a_head(exchange: Exchange) -> None:
    await taken(exchange)
    await exchange.send(b"HTTP/1.1 201 Created\r\nContent-Le")


async def takes_a_part(exchange: Exchange) -> None:
    await exchange.go_on()
    await exchange.read(1_000_000)


async def says_nothing(_: Exchange) -> None:
    """Not even that the body may come."""


Canceller = Callable[[Coroutine[Any, Any, Receipt], asyncio.Event], Awaitable[BaseException | None]]


async def by_cancel(call: Coroutine[Any, Any, Receipt], reached: asyncio.Event) -> BaseException | None:
    task = asyncio.create_task(call)
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    return caught.value


async def by_timeout(call: Coroutine[Any, Any, Receipt], reached: asyncio.Event) -> BaseException | None:
    async def ring(scope: asyncio.Timeout) -> None:
        await reached.wait()
        scope.reschedule(asyncio.get_running_loop().time())

    try:
        async with asyncio.timeout(None) as scope:
            bell = asyncio.create_task(ring(scope))
            await call
    except TimeoutError as error:
        await bell
        return error.__cause__
    return None


async def by_wait_for(call: Coroutine[Any, Any, Receipt], reached: asyncio.Event) -> BaseException | None:
    task = asyncio.create_task(call)
    await reached.wait()
    with pytest.raises(TimeoutError) as caught:
        await asyncio.wait_for(task, 0.001)
    return caught.value.__cause__


async def by_a_task_group(call: Coroutine[Any, Any, Receipt], reached: asyncio.Event) -> BaseException | None:
    async def fails() -> None:
        await reached.wait()
        raise Objection

    with contextlib.suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(call)
            group.create_task(fails())
    with pytest.raises(asyncio.CancelledError) as caught:
        task.result()
    return caught.value


CANCELLERS: list[Canceller] = [by_cancel, by_timeout, by_wait_for, by_a_task_group]


def told_by(cancelled: BaseException | None) -> SpringestError:
    """Return what a cancellation says of its certificate, which is all that hangs on it."""
    assert isinstance(cancelled, asyncio.CancelledError)
    told = cancelled.__cause__
    assert isinstance(told, SpringestError)
    assert (told.__cause__, told.__context__) == (None, None)
    return told


async def assert_nothing_is_left(springest: Springest, folder: Path, *, resting: str = "1") -> None:
    """No file open, no task but the server's, no POST under way, and its token resting no longer than it must."""
    await settled_down(springest)
    assert open_files_in(folder) == []
    assert re.fullmatch(f"<Limiter 30 in 60 s, 0 under way, {resting} resting, fast>", repr(springest.limiter))
    assert springest.limiter.seconds_until(29) == 0
    assert springest.limiter.seconds_until(30) <= springest.settings.timeouts.answer + 60.1


async def cancel_at(
    behaviour: Behaviour, size: int, by: Canceller, make_upload: Callable[..., CertificateUpload], folder: Path
) -> tuple[SpringestError, Exchange]:
    """Cancel an upload when the server has got so far; give what is said of it, and what the server has got."""
    stage = Stage(behaviour)
    path = file_of(size, folder / "x.pdf")
    async with raw_server(stage) as server, client_of(server) as springest:
        told = told_by(await by(springest.upload(make_upload(file=path)), stage.reached))
        await assert_nothing_is_left(springest, folder)
        await stage.end()

    (exchange,) = server.exchanges
    assert str(told).startswith(f"POST {server.origin}{PATH}: cancelled ")
    return told, exchange


SMALL, MIDDLE = 1000, 300_000
LARGE = 24 * 1024 * 1024  # more than what all buffers between two processes can hold
WAYS: dict[str, tuple[int, Canceller]] = {
    **{by.__name__: (SMALL, by) for by in CANCELLERS},
    "in several pieces": (MIDDLE, by_cancel),
}


def each(name: str, cases: Iterable[Any]) -> pytest.MarkDecorator:
    """Take each case in the first of `WAYS`, and the first case in each other way: none of them depends on the case."""
    first, *others = cases
    one, *ways = WAYS
    return pytest.mark.parametrize(
        (name, "way"), [(case, one) for case in (first, *others)] + [(first, w) for w in ways]
    )


NO_ANSWER: dict[str, tuple[Behaviour, int | None]] = {
    "no answer": (taken, None),
    "half a head": (says_half_a_head, None),
    "500": (says("500 Oops"), 500),
    "504": (says("504 Oops", b"<html>"), 504),
    "408": (says("408 Slow"), 408),
    "202": (says("202 Taken"), 202),
    "200": (says("200 OK", b'{"id"'), 200),
}


@each("answer", NO_ANSWER)
async def test_cancelled_when_nobody_can_tell_it_is_in_doubt(
    answer: str, way: str, make_upload: Callable[..., CertificateUpload], tmp_path: Path
) -> None:
    behaviour, status = NO_ANSWER[answer]
    before = datetime.now(UTC)

    told, exchange = await cancel_at(behaviour, *WAYS[way], make_upload, tmp_path)

    when = f"when the server answered {status}, not 201" if status else "before the answer came"
    assert isinstance(told, InDoubt)
    assert (told.reason, told.status, told.words) == (f"cancelled {when}", status, "")
    assert (told.email, told.certification_id) == ("jan@example.org", 7)
    assert (told.valid_from, told.valid_until) == (date(2026, 1, 31), None)
    assert before <= told.sent_at < told.given_up_at <= datetime.now(UTC)
    assert len(exchange.body) == exchange.length


@each("body", [b"", b'{"id": 50', b'{"id": 5001}'])
async def test_cancelled_when_the_server_has_said_201_it_is_stored(
    body: bytes, way: str, make_upload: Callable[..., CertificateUpload], tmp_path: Path
) -> None:
    told, exchange = await cancel_at(says("201 Created", body), *WAYS[way], make_upload, tmp_path)

    assert isinstance(told, CancelledTooLate)
    assert len(exchange.body) == exchange.length


@each("status", [302, 400, 401, 403, 404, 413, 417, 422, 429])
async def test_cancelled_after_a_refusal_it_was_not_stored(
    status: int, way: str, make_upload: Callable[..., CertificateUpload], tmp_path: Path
) -> None:
    told, exchange = await cancel_at(says(f"{status} No", b"said"), *WAYS[way], make_upload, tmp_path)

    assert isinstance(told, NotSent)
    assert told.reason == f"cancelled after the server had refused it ({status})"
    assert len(exchange.body) == exchange.length


IN_THE_MIDDLE: dict[str, Behaviour] = {
    "before it may be sent": says_nothing,
    "in the middle": takes_a_part,
    "400 in the middle": says_early("400 No"),
    "503 in the middle": says_early("503 No"),
    "408 in the middle": says_early("408 No"),
    "200 in the middle": says_early("200 OK"),
}


@each("where", IN_THE_MIDDLE)
async def test_cancelled_in_the_middle_of_the_body_it_arrives_in_part(
    where: str, way: str, make_upload: Callable[..., CertificateUpload], tmp_path: Path
) -> None:
    _, by = WAYS[way]

    told, exchange = await cancel_at(IN_THE_MIDDLE[where], LARGE, by, make_upload, tmp_path)

    assert isinstance(told, NotSent)
    assert len(exchange.body) < exchange.length


async def test_cancelled_after_an_early_201_it_is_in_doubt(
    make_upload: Callable[..., CertificateUpload], tmp_path: Path
) -> None:
    told, exchange = await cancel_at(says_early("201 Created"), LARGE, by_cancel, make_upload, tmp_path)

    assert isinstance(told, InDoubt)
    assert (told.reason, told.status) == ("cancelled when the server had answered 201 too early", 201)
    assert len(exchange.body) < exchange.length


@pytest.mark.parametrize("by", CANCELLERS)
async def test_cancelled_before_there_is_a_connection_it_was_not_sent(by: Canceller, upload: CertificateUpload) -> None:
    reached = asyncio.Event()

    def connecting(address: Any) -> socket.socket:
        reached.set()
        return socket.socket(*address[:3])

    connector = aiohttp.TCPConnector(socket_factory=connecting)
    async with raw_server(created) as server:
        server.origin = server.origin.replace("http:", "https:")  # which it does not speak, so it says nothing
        async with connector, client_of(server, connector=connector) as springest:
            told = told_by(await by(springest.upload(upload), reached))
            await assert_nothing_is_left(springest, upload.file.parent, resting="0")

    assert isinstance(told, NotSent)
    assert server.exchanges == []


async def test_many_that_are_cancelled_at_once_leave_nothing_behind(
    make_upload: Callable[..., CertificateUpload], tmp_path: Path
) -> None:
    stages = [Stage(behaviour) for behaviour in (taken, says("201 Created"), says("401 No"), takes_a_part) * 2]
    upload = make_upload(file=file_of(LARGE, tmp_path / "x.pdf"))
    async with raw_server(*stages) as server, client_of(server) as springest:
        tasks = [asyncio.create_task(springest.upload(upload)) for _ in stages]
        async with asyncio.timeout(A_WHILE):
            for stage in stages:
                await stage.reached.wait()
        for task in tasks:
            task.cancel()
        causes = []
        for task in tasks:
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            causes.append(type(told_by(caught.value)).__name__)

        await settled_down(springest)
        assert open_files_in(tmp_path) == []
        assert repr(springest.limiter) == "<Limiter 30 in 60 s, 0 under way, 8 resting, fast>"
        for stage in stages:
            await stage.end()

    assert Counter(causes) == {"InDoubt": 2, "CancelledTooLate": 2, "NotSent": 4}


async def test_cancelled_while_nobody_reads_it_leaves_no_connection(
    make_upload: Callable[..., CertificateUpload], tmp_path: Path
) -> None:
    stage = Stage(takes_a_part)
    upload = make_upload(file=file_of(LARGE, tmp_path / "x.pdf"))
    async with raw_server(stage) as server, client_of(server) as springest:
        descriptors = open_descriptors()
        await by_cancel(springest.upload(upload), stage.reached)
        await settled_down(springest)
        assert open_descriptors() == descriptors + 1  # the server's end
        stage.go_on.set()


async def test_a_cancelled_upload_can_be_called_again(upload: CertificateUpload) -> None:
    stage = Stage(says("401 No"))
    async with raw_server(stage, created) as server, client_of(server) as springest:
        await by_cancel(springest.upload(upload), stage.reached)
        stage.go_on.set()

        assert (await springest.upload(upload)).id == 5001


# --- at each await, one after the other ---


@define(eq=False)
class Interruption:
    """What happens to a task when it, or a task that it began, is at its n-th await (`at`; 0 is the first).

    It is `strike`, which is called as soon as the task waits, or (`late`) when what it waits for has just come, in the
    same iteration of the loop. `landed` is what that gave.
    """

    at: int
    late: bool
    strike: Callable[[], Any] = lambda: None
    awaits: int = 0
    landed: Any = None

    def waits_for(self, awaited: Any) -> None:
        self.awaits += 1
        if self.awaits == self.at + 1:
            if self.late and asyncio.isfuture(awaited):
                awaited.add_done_callback(self._strike)  # before the task's own, which wakes it
            else:
                asyncio.get_running_loop().call_soon(self._strike, None)

    def _strike(self, _: Any) -> None:
        self.landed = self.strike()


interruption_of: ContextVar[Interruption | None] = ContextVar("interruption_of", default=None)


@types.coroutine
def _stepping(coroutine: Coroutine[Any, Any, Any], interruption: Interruption) -> Generator[Any, Any, Any]:
    """Run a coroutine as it runs by itself, and tell of each of its awaits."""
    go_on: Callable[[Any], Any] = coroutine.send
    given: Any = None
    while True:
        try:
            awaited = go_on(given)
        except StopIteration as end:
            return end.value
        interruption.waits_for(awaited)
        try:
            given = yield awaited
            go_on = coroutine.send
        except BaseException as error:  # noqa: BLE001 # the coroutine's own business
            given, go_on = error, coroutine.throw


async def _stepped(coroutine: Coroutine[Any, Any, Any], interruption: Interruption) -> Any:
    return await _stepping(coroutine, interruption)


def watching(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> "asyncio.Task[Any]":
    """Make a task; what a watched task begins is watched with it."""
    interruption = interruption_of.get()
    return asyncio.Task(coroutine if interruption is None else _stepped(coroutine, interruption), loop=loop, **options)


async def struck(call: Coroutine[Any, Any, Any], interruption: Interruption, *, by_timeout: bool) -> Any:
    """Interrupt a call; give what it returned, or the error that it raised."""

    async def bounded() -> Any:
        task = asyncio.current_task()
        assert task is not None
        try:
            async with asyncio.timeout(None) as scope:
                if by_timeout:
                    interruption.strike = partial(scope.reschedule, 0)
                return await call
        finally:
            if by_timeout:
                assert task.cancelling() == 0  # who catches the TimeoutError can go on
                assert not isinstance(sys.exception(), asyncio.CancelledError)

    asyncio.get_running_loop().set_task_factory(watching)
    token = interruption_of.set(interruption)
    task = asyncio.create_task(bounded())
    interruption_of.reset(token)
    if not by_timeout:
        interruption.strike = task.cancel
    async with asyncio.timeout(A_WHILE):
        await asyncio.wait([task])
    asyncio.get_running_loop().set_task_factory(None)
    if not by_timeout:
        assert task.cancelled() == bool(interruption.landed), "a cancellation was lost"
    try:
        return task.result()
    except (asyncio.CancelledError, TimeoutError, SpringestError) as error:
        return error


class Keeper:
    """A server's behaviour that counts what it stored: what arrived whole, before it says so."""

    def __init__(self) -> None:
        self.stored = 0

    async def __call__(self, exchange: Exchange) -> None:
        await self.keep(exchange)
        await exchange.answer(201, b'{"id": 5001}')

    async def bit_by_bit(self, exchange: Exchange) -> None:
        await self.keep(exchange)
        for piece in (b"HTTP/1.1 201 Cre", b"ated\r\nContent-Length: 12\r\n", b"\r\n", b'{"id":', b" 5001}"):
            await exchange.send(piece)
            await asyncio.sleep(0.002)

    async def unasked(self, exchange: Exchange) -> None:
        """Do not say that the body may come."""
        await exchange.read()
        self.stored += len(exchange.body) == exchange.length
        await exchange.answer(201, b'{"id": 5001}')

    async def keep(self, exchange: Exchange) -> None:
        await taken(exchange)
        if len(exchange.body) < exchange.length:
            raise asyncio.IncompleteReadError(b"", None)
        self.stored += 1


async def hangs_up(exchange: Exchange) -> None:
    exchange.hang_up()


async def refuses(exchange: Exchange) -> None:
    """Refuse it and do not say why, so that it is sent again alone."""
    await taken(exchange)
    await exchange.answer(400, b"No")


async def knows_no_key(exchange: Exchange) -> None:
    await taken(exchange)
    await exchange.answer(401)


def rests(limiter: Limiter) -> int:
    found = re.search(r" 0 under way, (\d+) resting", repr(limiter))
    assert found is not None, limiter
    return int(found[1])


async def settled_down(springest: Springest) -> None:
    """See that nothing of a call goes on: no task but the servers', and no file once the thread is through."""
    for _ in range(3):
        await asyncio.sleep(0)  # a task that was cancelled needs a moment to be told
    ours = [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__qualname__", "") != "RawServer.serve"]
    assert ours == [asyncio.current_task()]
    assert springest._opened is not None
    await asyncio.get_running_loop().run_in_executor(springest._opened.executor, lambda: None)


STORED = {"Receipt", "InDoubt", "NotSent"}


@define
class Scene:
    """An upload of so many bytes, what the server does with its `most` POSTs, and what is told by some interruption."""

    size: int
    behaviours: Callable[[Keeper], list[Behaviour]]
    most: int = 1
    told: set[str] = STORED


SCENES = {
    "small": Scene(SMALL, lambda keeper: [keeper]),
    "large": Scene(1_200_000, lambda keeper: [keeper]),
    "without the word to go on": Scene(100_000, lambda keeper: [keeper.unasked]),
    "an answer bit by bit": Scene(SMALL, lambda keeper: [keeper.bit_by_bit], told=STORED | {"CancelledTooLate"}),
    "a connection that breaks": Scene(100_000, lambda keeper: [hangs_up, keeper], most=2),
    "refused for good": Scene(SMALL, lambda keeper: [knows_no_key], told={"NotAuthorized", "InDoubt", "NotSent"}),
}


def each_await(by_timeout: bool) -> Iterator[Interruption]:
    """Return interruptions at each await until one comes too late."""
    for late in (False, True):
        for at in range(1000):
            interruption = Interruption(at, late)
            yield interruption
            if interruption.awaits <= at:
                assert at > 3
                break
        else:
            raise AssertionError("it never ends")


WAYS_OUT = pytest.mark.parametrize("by_timeout", [False, True], ids=["cancelled", "timed out"])


@pytest.fixture
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("springest_async.limits.bucket._MARGIN", 0.005)


def told_of_it(outcome: Any) -> Any:
    """Return what an interrupted upload says of its certificate."""
    cancelled = outcome.__cause__ if isinstance(outcome, TimeoutError) else outcome
    return told_by(cancelled) if isinstance(cancelled, asyncio.CancelledError) else outcome


@WAYS_OUT
@pytest.mark.parametrize("name", SCENES)
async def test_interrupted_at_any_await_an_upload_tells_the_truth(
    name: str,
    by_timeout: bool,
    make_upload: Callable[..., CertificateUpload],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("springest_async.http.exchange._ASK_WAIT", 0.02)
    scene = SCENES[name]
    upload = make_upload(file=file_of(scene.size, tmp_path / "x.pdf"))
    told_of = Counter[str]()
    for interruption in each_await(by_timeout):
        keeper, descriptors = Keeper(), open_descriptors()
        connector = aiohttp.TCPConnector(socket_factory=partial(small_socket, 4096))
        async with (
            raw_server(*scene.behaviours(keeper), receive_buffer=4096) as server,
            connector,
            client_of(server, connector=connector) as springest,
        ):
            outcome = await struck(springest.upload(upload), interruption, by_timeout=by_timeout)
            await settled_down(springest)
            assert not connector._acquired
            resting, back = rests(springest.limiter), springest.limiter.seconds_until(30)
            seen = len(server.exchanges)
            server.behaviours = [keeper]
            assert (await springest.upload(upload)).id == 5001
        async with asyncio.timeout(A_WHILE):
            while open_descriptors() > descriptors:  # noqa: ASYNC110 # the server's end of a connection
                await asyncio.sleep(0)
        stored = keeper.stored - 1

        told = told_of_it(outcome)
        told_of[type(told).__name__] += 1
        match told:
            case Receipt():
                assert (stored, resting) == (1, scene.most)
                assert back <= 60.2 + PATIENT.answer * (scene.most - 1)  # what broke off keeps its token longer
            case CancelledTooLate():
                assert (stored, resting) == (1, scene.most)
            case InDoubt():
                assert stored <= 1
                assert resting == scene.most
                assert 60.2 < back <= 60.2 + PATIENT.answer
            case NotSent(connected=False):
                assert stored == 0
                assert resting == seen < scene.most
            case _:
                assert stored == 0
                assert seen <= resting <= scene.most
    if not by_timeout:  # which comes a turn of the loop later, when some moments have passed
        assert told_of.keys() >= scene.told


@WAYS_OUT
@pytest.mark.parametrize("bulk", [False, True])
@pytest.mark.usefixtures("_short_waits")
async def test_interrupted_at_any_await_in_the_queue_no_token_is_lost(
    bulk: bool, by_timeout: bool, upload: CertificateUpload
) -> None:
    async def keep_the_time(exchange: Exchange) -> None:
        await keeper.keep(exchange)
        counted.append(asyncio.get_running_loop().time())
        await exchange.answer(201, b'{"id": 5001}')

    timeouts = evolve(PATIENT, answer=4.0)
    for interruption in each_await(by_timeout):
        keeper, counted = Keeper(), list[float]()
        limiter = Limiter(posts=1, period=0.03)
        async with (
            raw_server(keep_the_time) as server,
            client_of(server, limiter=limiter, timeouts=timeouts) as springest,
        ):
            await springest.upload(upload)
            behind = asyncio.create_task(asyncio.sleep(0, lambda: upload_in_bulk(springest, upload, bulk=bulk)))
            ahead = struck(upload_in_bulk(springest, upload, bulk=bulk), interruption, by_timeout=by_timeout)
            outcome, _ = await asyncio.gather(ahead, (await behind)())
            await settled_down(springest)

        told = told_of_it(outcome)
        sent = isinstance(told, Receipt | InDoubt | CancelledTooLate)
        assert len(counted) == 2 + sent or isinstance(told, InDoubt)
        assert all(later - earlier >= 0.03 for earlier, later in pairwise(counted))
        # A token that were held though nobody is in doubt would come back after the whole time for an answer.
        assert counted[-1] - counted[0] < 0.035 * (1 + sent) + timeouts.answer * (0.5 + isinstance(told, InDoubt))


@WAYS_OUT
@pytest.mark.usefixtures("_short_waits")
async def test_interrupted_at_any_await_a_probe_lets_the_others_go(by_timeout: bool, upload: CertificateUpload) -> None:
    for interruption in each_await(by_timeout):
        keeper, limiter = Keeper(), Limiter(posts=5, period=0.05)
        timeouts = evolve(PATIENT, answer=0.2)
        async with (
            raw_server(*[refuses] * 4, keeper) as server,
            client_of(server, limiter=limiter, timeouts=timeouts) as springest,
        ):
            outcome = await struck(springest.upload(upload), interruption, by_timeout=by_timeout)
            await settled_down(springest)
            assert rests(limiter) <= len(server.exchanges) + 1  # which may be on its way to the server
            stored, server.behaviours = keeper.stored, [keeper]
            async with asyncio.timeout(A_WHILE):
                assert (await springest.upload(upload)).id == 5001

        match told_of_it(outcome):
            case Receipt() | CancelledTooLate():
                assert stored == 1
            case InDoubt():
                assert stored <= 1
            case told:
                assert isinstance(told, NotSent)
                assert stored == 0


@WAYS_OUT
async def test_interrupted_at_any_await_a_handshake_leaves_no_socket(
    by_timeout: bool, upload: CertificateUpload
) -> None:
    for interruption in each_await(by_timeout):
        descriptors = open_descriptors()
        async with raw_server(created) as server:
            server.origin = server.origin.replace("http:", "https:")  # which it does not speak, so it says nothing
            async with client_of(server, timeouts=Timeouts(connect=0.01)) as springest:
                outcome = await struck(springest.upload(upload), interruption, by_timeout=by_timeout)
                await settled_down(springest)
                assert rests(springest.limiter) == 0
                assert springest.limiter.seconds_until(30) == 0
        async with asyncio.timeout(A_WHILE):
            while open_descriptors() > descriptors:  # noqa: ASYNC110 # the server's end of a connection
                await asyncio.sleep(0)

        told = told_of_it(outcome)
        assert isinstance(told, NotSent)
        assert not told.connected
        assert server.exchanges == []


async def lists_slowly(exchange: Exchange) -> None:
    """Return three pages, a piece at a time."""
    offset = int(parse_qs(exchange.line.split()[1]).get("offset", ["0"])[0])
    body = json.dumps([LISTED | {"id": offset + n} for n in range(1, 3 if offset < 4 else 0)]).encode()
    await exchange.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode())
    await exchange.send(body[:10])
    await asyncio.sleep(0.001)
    await exchange.send(body[10:])


LISTED = {"certification_id": 8, "valid_from": "2026-01-31", "user": {"email": "jan@example.org"}}


async def list_all(springest: Springest) -> list[int]:
    return [certificate.id async for certificate in springest.certificates()]


async def settle(springest: Springest) -> list[int]:
    now = datetime.now(UTC)
    doubt = InDoubt("POST", "lost", "jan@example.org", 8, date(2020, 1, 1), None, sent_at=now, given_up_at=now)
    found = await springest.settle(doubt)
    return [] if found is None else [found.id]


@WAYS_OUT
@pytest.mark.parametrize(("call", "given"), [(list_all, [1, 2, 3, 4]), (settle, [])])
async def test_interrupted_at_any_await_a_list_leaves_nothing(
    call: Callable[[Springest], Coroutine[Any, Any, list[int]]], given: list[int], by_timeout: bool
) -> None:
    timeouts = evolve(PATIENT, answer=0.05)
    for interruption in each_await(by_timeout):
        async with raw_server(lists_slowly) as server, client_of(server, timeouts=timeouts) as springest:
            outcome = await struck(call(springest), interruption, by_timeout=by_timeout)
            await settled_down(springest)
            assert not springest._transport._sessions["GET"].connector._acquired  # type: ignore[union-attr] # it is open
            assert await list_all(springest) == [1, 2, 3, 4]

        assert outcome == given or isinstance(outcome, asyncio.CancelledError | TimeoutError)


async def test_a_list_that_is_left_early_leaves_nothing() -> None:
    async with raw_server(lists_slowly) as server, client_of(server) as springest:
        async for certificate in springest.certificates():
            if certificate.id == 3:
                break
        await settled_down(springest)
        with contextlib.suppress(Objection):
            async for _ in springest.certificates():
                raise Objection
        await settled_down(springest)
        certificates = springest.certificates()
        assert (await anext(certificates)).id == 1
        await certificates.aclose()
        await settled_down(springest)
        assert not springest._transport._sessions["GET"].connector._acquired  # type: ignore[union-attr] # it is open
        assert await list_all(springest) == [1, 2, 3, 4]

    assert server.connections == 1
