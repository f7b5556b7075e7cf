"""The queue over real sockets on loopback and on real journals, and its bookkeeping with a client that is a model."""

import asyncio
import gc
import hashlib
import os
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, cast

import attrs
import pytest
import stamina
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from hypothesis import given, settings
from hypothesis import strategies as st

from springest_async import (
    CancelledTooLate,
    Certificate,
    CertificateUpload,
    ConfigurationError,
    Forbidden,
    InDoubt,
    InvalidUpload,
    JournalError,
    Limiter,
    NotAuthorized,
    NotFound,
    NotSent,
    Receipt,
    Redirected,
    Rejected,
    ServerError,
    Settings,
    Springest,
    SpringestError,
    Timeouts,
    UnexpectedStatus,
    UnusableFile,
)
from springest_async.api.verdicts import TRIES
from springest_async.bulk import (
    COLUMNS,
    Entry,
    Journal,
    JournalReader,
    Manifest,
    RowDone,
    RowSettling,
    RowStep,
    Siblings,
    State,
    UploadQueue,
    default_path,
)
from springest_async.sandbox import Mishap, Sandbox
from springest_async.source_file import SourceFile
from springest_async.upload import UploadListener, UploadStep
from tests.integration.raw_server import Exchange, raw_server
from tests.pdfs import archive, certificate
from tests.waiting import A_WHILE, heard

WHERE = "POST https://springest.example/users/certificates.json"
AT_ONCE = 10.0
"""Seconds, of which most are the machine's, not ours: far less than any pause that is cut short here."""
Answer = Callable[[str], Any]  # from an e-mail address to the awaitable answer to its POST
Event = RowStep | RowSettling | RowDone
Kind = Literal["waiting", "sending", "refused", "unsent"]


class Events:
    """Listens, and keeps it all."""

    def __init__(self) -> None:
        self.done: list[RowDone] = []
        self.steps: list[RowStep] = []
        self.settling: list[RowSettling] = []
        self._waiters: list[tuple[Callable[[], bool], asyncio.Event]] = []

    def __call__(self, event: Event) -> None:
        match event:
            case RowDone():
                self.done.append(event)
            case RowSettling():
                self.settling.append(event)
            case RowStep():
                self.steps.append(event)
        for condition, reached in self._waiters:
            if condition():
                reached.set()

    @property
    def states(self) -> dict[int | None, State]:
        """The state of each row that was told; fails when one was told twice."""
        for name in ("number", "id"):
            assert all(count == 1 for count in Counter(getattr(event.row, name) for event in self.done).values())
        return {event.row.number: event.state for event in self.done}

    def error(self, row: int) -> SpringestError | None:
        (event,) = (event for event in self.done if event.row.number == row)
        return event.error

    def count(self, row: int, kind: Kind) -> int:
        return sum(step.row.number == row and step.step.kind == kind for step in self.steps)

    async def until(self, condition: Callable[[], bool]) -> None:
        reached = asyncio.Event()
        self._waiters.append((condition, reached))
        async with asyncio.timeout(A_WHILE):
            while not condition():
                await reached.wait()

    def agree_with(self, journal: JournalReader, before: dict[int, State]) -> None:
        """Check that the journal says what was told, and that whatever was begun was brought to its end."""
        told = self.states
        assert states_in(journal) == before | told
        assert {step.row.number for step in self.steps} <= told.keys()
        assert {row for row, state in before.items() if state is State.IN_DOUBT} <= told.keys()
        assert journal.counts().total() == len(before)  # rows = stored + rejected + failed + in doubt + waiting
        assert {event.row.number for event in self.done if event.receipt} <= {
            row for row, state in told.items() if state is State.STORED
        }


def states_in(journal: JournalReader) -> dict[int | None, State]:
    """Give each row's state. What a run could not note any more is "sending", which is in doubt for the next one."""
    found = {entry.number: entry.state for entry in journal.entries()}
    return {row: State.IN_DOUBT if state is State.SENDING else state for row, state in found.items()}


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture(autouse=True)
def _lists_are_asked_for_again_at_once() -> Iterator[None]:
    with stamina.set_testing(True, attempts=2):
        yield


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make no test wait for a backoff."""
    monkeypatch.setattr("springest_async.bulk.queue.backoff", lambda *_, **__: 0.005)
    monkeypatch.setattr("springest_async.upload.backoff", lambda *_, **__: 0.005)


def rows_of(folder: Path, count: int, **cells: dict[int, dict[str, str]]) -> Manifest:
    """Make so many certificates and a manifest of them, with other cells where `changes` says so."""
    return Manifest.open(archive(folder, count, changes=cells.get("changes")))


def client(
    origin: str,
    *,
    key: str = "key",
    certifications_key: str | None = None,
    limiter: Limiter | None = None,
    concurrency: int = 8,
    answer: float = 30.0,
) -> Springest:
    return Springest(
        api_key=key,
        certifications_api_key=certifications_key,
        host=origin,
        settings=Settings(limiter=limiter or Limiter(), concurrency=concurrency, timeouts=Timeouts(answer=answer)),
    )


def client_of(
    sandbox: Sandbox,
    *,
    both_keys: bool = True,
    limiter: Limiter | None = None,
    concurrency: int = 8,
    answer: float = 0.3,
) -> Springest:
    """Make a client that need not wait long before it takes a certificate for not stored."""
    return client(
        sandbox.origin,
        key=sandbox.api_key,
        certifications_key=sandbox.certifications_api_key if both_keys else None,
        limiter=limiter or Limiter(posts=500, period=1.0),
        concurrency=concurrency,
        answer=answer,
    )


@contextmanager
def queue_of(springest: Springest, manifest: Manifest, events: Events) -> Iterator[UploadQueue]:
    """Make a queue on the manifest's journal; at the end, what was told is held against what the journal says."""
    with Journal.open(default_path(manifest.path)) as journal:
        journal.load(manifest, springest.origin)
        before = {entry.number: entry.state for entry in journal.entries() if entry.number is not None}
        yield UploadQueue(springest, journal, events)
        events.agree_with(journal, before)


async def run(springest: Springest, manifest: Manifest, events: Events) -> SpringestError | None:
    """Upload, or resume; fails when that does not end."""
    with queue_of(springest, manifest, events) as queue:
        async with asyncio.timeout(A_WHILE):
            return await queue.run()


def entries(manifest: Manifest) -> dict[int | None, Entry]:
    with JournalReader.open(default_path(manifest.path)) as journal:
        return {entry.number: entry for entry in journal.entries()}


def states(manifest: Manifest) -> dict[int | None, State]:
    return {number: entry.state for number, entry in entries(manifest).items()}


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[str]:
    """Serve POSTs: each body is read whole, and then answered as its e-mail address asks for. There are no lists."""

    async def post(request: web.Request) -> web.Response:
        form = await request.post()
        assert isinstance(form["file"], web.FileField)
        form["file"].file.close()
        return cast(web.Response, await answer(str(form["email"])))

    app = web.Application()
    app.router.add_post("/users/certificates.json", post)
    async with TestServer(app) as running:
        yield str(running.make_url("/")).rstrip("/")


async def created(_: str = "") -> web.Response:
    return web.json_response({"id": 1}, status=201)


async def at_once(_: web.Request) -> None:
    """Wait for nothing."""


@attrs.define(kw_only=True, eq=False)
class Gateway(Sandbox):
    """A sandbox behind a gateway, which answers by itself what it does not let through, and may hold back the rest."""

    answer: Callable[[web.Request], web.Response | None] = lambda _: None
    before: Callable[[web.Request], Awaitable[None]] = at_once  # what a request waits for until it is let through
    after: Callable[[web.Request], Awaitable[None]] = at_once  # and its answer
    asked: Counter[str] = attrs.field(factory=Counter, init=False)  # how many requests came, by method

    def _application(self) -> web.Application:
        @web.middleware
        async def gateway(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            self.asked[request.method] += 1
            if (answer := self.answer(request)) is None:
                await self.before(request)
                answered = await handler(request)
                await self.after(request)
                return answered
            await request.read()
            return answer

        app = super()._application()
        app.middlewares.insert(0, gateway)
        return app


def stored_once(sandbox: Sandbox) -> list[str]:
    """Give the e-mail addresses of what is stored, sorted; fails when one is stored twice."""
    stored = [(post.fields["email"], post.sha256) for post in sandbox.audit if post.verdict == "stored"]
    assert len(set(stored)) == len(stored)
    return sorted(email for email, _ in stored)


def employees(*numbers: int) -> list[str]:
    return sorted(f"employee{number}@example.org" for number in numbers)


# --- the rows that come to their end ---


async def test_every_row_is_stored_and_told_once(tmp_path: Path, events: Events) -> None:
    manifest = rows_of(tmp_path, 12)
    async with Sandbox() as sandbox, client_of(sandbox) as springest:
        error = await run(springest, manifest, events)

        assert error is None
        assert events.states == dict.fromkeys(range(2, 14), State.STORED)
        assert {event.error for event in events.done} == {None}
        assert sandbox.summary().stored == 12
    receipts = {event.row.number: event.receipt.id for event in events.done if event.receipt}
    assert sorted(receipts.values(), key=str) == sorted(range(1, 13), key=str)
    assert {number: entry.springest_id for number, entry in entries(manifest).items()} == receipts


async def test_rows_that_fail_keep_no_others_back(tmp_path: Path, events: Events) -> None:
    manifest = rows_of(
        tmp_path,
        6,
        changes={
            1: {"email": "no address"},
            2: {"file": "none.pdf"},
            3: {"certification_id": "99"},
            5: {"certification_id": "2"},  # it requires valid_until
        },
    )
    async with Sandbox() as sandbox, client_of(sandbox, concurrency=1) as springest:
        error = await run(springest, manifest, events)

    assert error is None
    assert events.states == {
        2: State.FAILED,
        3: State.FAILED,
        4: State.REJECTED,
        5: State.STORED,
        6: State.REJECTED,
        7: State.STORED,
    }
    kinds = [type(events.error(row)) for row in (2, 3, 4, 6)]
    assert kinds == [InvalidUpload, UnusableFile, Rejected, Rejected]
    assert sandbox.summary().posts == 4
    assert [entries(manifest)[row].reason for row in (2, 3, 4, 6)] == [str(events.error(row)) for row in (2, 3, 4, 6)]


async def test_a_manifest_without_rows_is_done_at_once(tmp_path: Path, events: Events) -> None:
    async with client("http://127.0.0.1:9") as springest:
        assert await run(springest, rows_of(tmp_path, 0), events) is None

    assert (events.states, events.steps) == ({}, [])


async def test_a_manifest_whose_rows_have_all_come_to_their_end_is_done_at_once(tmp_path: Path, events: Events) -> None:
    manifest = rows_of(tmp_path, 3, changes={3: {"certification_id": "99"}})
    async with Gateway() as gateway, client_of(gateway) as springest:
        assert await run(springest, manifest, Events()) is None
        before = dict(gateway.asked)

        assert await run(springest, manifest, events) is None

    assert states(manifest) == {2: State.STORED, 3: State.STORED, 4: State.REJECTED}
    assert (events.done, events.steps, events.settling) == ([], [], [])
    assert gateway.asked == before == {"POST": 3}


async def test_an_answer_that_tells_nothing_leaves_its_row_in_doubt_and_the_run_goes_on(
    tmp_path: Path, events: Events
) -> None:
    async def answer(email: str) -> web.Response:
        return web.Response(status=500, text="oops") if email == "employee2@example.org" else await created()

    manifest = rows_of(tmp_path, 4)
    async with server(answer) as origin, client(origin, concurrency=1) as springest:
        error = await run(springest, manifest, events)

    assert error is None
    assert events.states == {2: State.STORED, 3: State.IN_DOUBT, 4: State.STORED, 5: State.STORED}
    doubt = events.error(3)
    assert isinstance(doubt, InDoubt)
    assert (doubt.email, doubt.certification_id) == ("employee2@example.org", 1)
    assert doubt.reason.startswith("the server answered 500, not 201; Springest could not be asked (GET http://127")
    assert entries(manifest)[3].reason == doubt.reason
    assert events.count(3, "sending") == 1
    assert [event.row.number for event in events.settling] == [3]


@pytest.mark.parametrize("status", [405, 410, 418])
async def test_an_unknown_refusal_fails_its_row_only(tmp_path: Path, events: Events, status: int) -> None:
    async def answer(email: str) -> web.Response:
        return web.Response(status=status) if email == "employee1@example.org" else await created()

    async with server(answer) as origin, client(origin, concurrency=1) as springest:
        assert await run(springest, rows_of(tmp_path, 2), events) is None

    assert events.states == {2: State.FAILED, 3: State.STORED}
    assert isinstance(events.error(2), UnexpectedStatus)


async def test_the_same_certificate_in_two_rows_is_posted_once(tmp_path: Path, events: Events) -> None:
    """Under two names, which the preflight tells only when it has hashed both."""
    manifest = rows_of(tmp_path, 2, changes={2: {"email": "employee1@example.org"}})
    (tmp_path / "2.pdf").write_bytes((tmp_path / "1.pdf").read_bytes())
    async with Sandbox() as sandbox, client_of(sandbox, concurrency=1) as springest:
        assert await run(springest, manifest, events) is None

    assert events.states == {2: State.STORED, 3: State.FAILED}
    assert str(events.error(3)) == f"{tmp_path / '2.pdf'}: is the same certificate as in row 2"
    assert sandbox.summary().posts == 1


# --- how many are in flight ---


class Watched(Journal):
    """A journal that counts how many of its rows were taken."""

    taken: ClassVar[int] = 0

    def next(self, exclude: Collection[int] = ()) -> Entry | None:
        entry = super().next(exclude)
        type(self).taken += entry is not None
        return entry


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_no_more_rows_are_taken_than_can_be_in_flight(tmp_path: Path, concurrency: int) -> None:
    Watched.taken = 0
    manifest = rows_of(tmp_path, 20)
    done = 0
    in_flight: list[int] = []

    def listen(event: Event) -> None:
        nonlocal done
        in_flight.append(Watched.taken - done)
        done += isinstance(event, RowDone)

    async with server(created) as origin, client(origin, concurrency=concurrency) as springest:
        with Watched.open(tmp_path / "journal") as journal:
            journal.load(manifest, origin)
            await UploadQueue(springest, journal, listen).run()

    assert done == 20
    assert max(in_flight) == concurrency


# --- stop ---


def first_sent(events: Events) -> tuple[int, int]:
    """Give which of the rows 2 and 3, of which one can leave, did, and the other one."""
    (row,) = {step.row.number for step in events.steps if step.step.kind == "sending"}
    return (2, 3) if row == 2 else (3, 2)


async def test_stop_lets_a_post_end_and_gives_up_what_waits(tmp_path: Path, events: Events) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def answer(_: str) -> web.Response:
        arrived.set()
        await go_on.wait()
        return await created()

    manifest = rows_of(tmp_path, 4)
    async with server(answer) as origin, client(origin, limiter=Limiter(posts=1), concurrency=2) as springest:
        with queue_of(springest, manifest, events) as queue:
            going = asyncio.create_task(queue.run())
            await arrived.wait()
            await events.until(lambda: sum(step.step.kind == "waiting" for step in events.steps) == 2)
            sent, waits = first_sent(events)
            assert repr(queue) == f"<UploadQueue {tmp_path / 'certificates.journal'}, 2 in flight, running>"

            queue.stop()
            await events.until(lambda: len(events.done) == 1)
            assert events.states == {waits: State.WAITING}
            assert repr(queue) == f"<UploadQueue {tmp_path / 'certificates.journal'}, 1 in flight, stopping>"
            go_on.set()
            error = await going

    assert error is None
    assert events.states == {sent: State.STORED, waits: State.WAITING}
    assert events.error(waits) is None
    assert states(manifest) == {sent: State.STORED, waits: State.WAITING, 4: State.WAITING, 5: State.WAITING}


async def test_a_queue_that_is_stopped_before_it_runs_sends_nothing(tmp_path: Path, events: Events) -> None:
    manifest = rows_of(tmp_path, 3)
    async with Sandbox() as sandbox, client_of(sandbox) as springest:
        with queue_of(springest, manifest, events) as queue:
            queue.stop()
            queue.stop()

            assert await queue.run() is None

    assert events.states == {}
    assert states(manifest) == dict.fromkeys((2, 3, 4), State.WAITING)
    assert sandbox.audit == ()


async def test_a_row_that_is_refused_after_stop_is_not_sent_again(tmp_path: Path, events: Events) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def answer(_: str) -> web.Response:
        arrived.set()
        await go_on.wait()
        return web.Response(status=400, text="Bad Request")

    async with server(answer) as origin, client(origin) as springest:
        with queue_of(springest, rows_of(tmp_path, 1), events) as queue:
            going = asyncio.create_task(queue.run())
            await arrived.wait()
            queue.stop()
            go_on.set()
            async with asyncio.timeout(AT_ONCE):
                await going

    assert events.states == {2: State.WAITING}
    assert events.count(2, "sending") == 1


# --- cancel ---


async def test_cancel_leaves_what_is_being_sent_in_doubt_and_the_rest_waiting(tmp_path: Path, events: Events) -> None:
    arrived = asyncio.Event()

    async def never(_: str) -> web.Response:
        arrived.set()
        await asyncio.Event().wait()
        raise AssertionError

    before = datetime.now(UTC)
    manifest = rows_of(tmp_path, 4)
    async with server(never) as origin, client(origin, limiter=Limiter(posts=1), concurrency=2) as springest:
        with queue_of(springest, manifest, events) as queue:
            going = asyncio.create_task(queue.run())
            await arrived.wait()
            await events.until(lambda: sum(step.step.kind == "waiting" for step in events.steps) == 2)
            sent, waits = first_sent(events)
            going.cancel()
            with pytest.raises(asyncio.CancelledError):
                await going

    assert events.states == {sent: State.IN_DOUBT, waits: State.WAITING}
    doubt = events.error(sent)
    assert isinstance(doubt, InDoubt)
    assert (doubt.email, doubt.certification_id) == (f"employee{sent - 1}@example.org", 1)
    assert doubt.reason == "cancelled before the answer came"
    assert before <= doubt.sent_at <= doubt.given_up_at <= datetime.now(UTC)
    assert states(manifest) == {sent: State.IN_DOUBT, waits: State.WAITING, 4: State.WAITING, 5: State.WAITING}


# --- what ends a run ---


async def test_a_refused_key_ends_the_run_with_all_rows_waiting(tmp_path: Path, events: Events) -> None:
    manifest = rows_of(tmp_path, 20)
    async with Sandbox() as sandbox, client(sandbox.origin, key="wrong", concurrency=2) as springest:
        error = await run(springest, manifest, events)

    assert isinstance(error, NotAuthorized)
    assert set(events.states.values()) == {State.WAITING}
    assert {type(event.error) for event in events.done} == {NotAuthorized}
    assert len(events.done) == 2
    assert sandbox.summary().posts <= 2
    assert states(manifest) == dict.fromkeys(range(2, 22), State.WAITING)


def scripted_server(statuses: list[int]) -> Any:
    """Serve POSTs one after the other with these statuses."""
    left = iter(statuses)

    async def answer(_: str) -> web.Response:
        status = next(left)
        headers = {"Location": "https://elsewhere.example"}
        return await created() if status == 201 else web.json_response({"file": ["no"]}, status=status, headers=headers)

    return server(answer)


LOOKS_LIKE_KEY_OR_HOST = pytest.mark.parametrize(
    ("status", "kind"), [(403, Forbidden), (404, NotFound), (302, Redirected), (307, Redirected)]
)


async def test_a_key_that_is_no_longer_known_ends_the_run_at_any_time(tmp_path: Path, events: Events) -> None:
    async with scripted_server([201, 401]) as origin, client(origin, concurrency=1) as springest:
        error = await run(springest, rows_of(tmp_path, 4), events)

    assert isinstance(error, NotAuthorized)
    assert events.states == {2: State.STORED, 3: State.WAITING}
    assert events.error(3) is error


@LOOKS_LIKE_KEY_OR_HOST
async def test_a_refused_host_or_key_at_the_very_beginning_ends_the_run(
    tmp_path: Path, events: Events, status: int, kind: type[SpringestError]
) -> None:
    async with scripted_server([status]) as origin, client(origin, concurrency=1) as springest:
        error = await run(springest, rows_of(tmp_path, 2), events)

    assert isinstance(error, kind)
    assert events.states == {2: State.WAITING}


@LOOKS_LIKE_KEY_OR_HOST
async def test_later_on_it_may_be_the_row_and_the_run_goes_on(
    tmp_path: Path, events: Events, status: int, kind: type[SpringestError]
) -> None:
    statuses = [201, status, 201, status, 201]
    async with scripted_server(statuses) as origin, client(origin, concurrency=1) as springest:
        assert await run(springest, rows_of(tmp_path, 5), events) is None

    stored, failed = State.STORED, State.FAILED
    assert events.states == {2: stored, 3: failed, 4: stored, 5: failed, 6: stored}
    assert isinstance(events.error(3), kind)


@LOOKS_LIKE_KEY_OR_HOST
async def test_a_second_such_answer_in_a_row_ends_the_run(
    tmp_path: Path, events: Events, status: int, kind: type[SpringestError]
) -> None:
    async with scripted_server([201, status, status]) as origin, client(origin, concurrency=1) as springest:
        error = await run(springest, rows_of(tmp_path, 4), events)

    assert isinstance(error, kind)
    assert events.states == {2: State.STORED, 3: State.FAILED, 4: State.WAITING}
    assert events.error(4) is error


async def test_a_rejected_row_in_between_shows_that_key_and_host_are_right(tmp_path: Path, events: Events) -> None:
    statuses = [201, 403, 400, 403, 201]
    async with scripted_server(statuses) as origin, client(origin, concurrency=1) as springest:
        error = await run(springest, rows_of(tmp_path, 5), events)

    assert error is None
    assert events.states == {2: State.STORED, 3: State.FAILED, 4: State.REJECTED, 5: State.FAILED, 6: State.STORED}


@pytest.mark.usefixtures("quick")
async def test_no_connection_at_the_very_beginning_ends_the_run(tmp_path: Path, events: Events) -> None:
    manifest = rows_of(tmp_path, 5)
    async with client(f"http://127.0.0.1:{unused_port()}", concurrency=2) as springest:
        error = await run(springest, manifest, events)

    assert isinstance(error, NotSent)
    assert not error.connected
    assert set(events.states.values()) == {State.WAITING}
    assert states(manifest) == dict.fromkeys(range(2, 7), State.WAITING)


async def test_a_journal_that_was_loaded_for_another_host_ends_the_run_before_anything_is_sent(
    tmp_path: Path, events: Events
) -> None:
    manifest = rows_of(tmp_path, 3)
    async with Gateway() as gateway, client_of(gateway, concurrency=2) as springest:
        with Journal.open(default_path(manifest.path)) as journal:
            journal.load(manifest, "https://elsewhere.example")
            async with asyncio.timeout(A_WHILE):
                error = await UploadQueue(springest, journal, events).run()

    assert isinstance(error, ConfigurationError)
    assert str(error) == "the journal was loaded for https://elsewhere.example: load it for this host"
    assert (events.done, events.steps, gateway.asked) == ([], [], {})
    assert states(manifest) == dict.fromkeys((2, 3, 4), State.WAITING)


@pytest.mark.parametrize("what", ["rows are inserted at the top", "it is removed"])
async def test_what_becomes_of_the_manifest_meanwhile_is_for_the_next_run(
    tmp_path: Path, events: Events, what: str
) -> None:
    manifest = rows_of(tmp_path, 20)
    header, rest = manifest.path.read_text().split("\n", 1)
    new = "".join(f"1.pdf,1,new{number}@example.org,2026-01-31,,\n" for number in range(7))
    posted: list[str] = []

    async def answer(email: str) -> web.Response:
        posted.append(email)
        if len(posted) == 5:
            manifest.path.unlink()
            if what != "it is removed":
                manifest.path.write_text(f"{header}\n{new}{rest}")
        return await created()

    async with server(answer) as origin, client(origin, concurrency=4) as springest:
        assert await run(springest, manifest, events) is None

    assert sorted(posted) == employees(*range(1, 21))
    assert events.states == dict.fromkeys(range(2, 22), State.STORED)


# --- a server that answers nothing definite ---


async def test_an_outage_is_tried_with_one_row_at_a_time_and_left_at_full_speed(
    tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[int] = []

    def pause(failures: int, *, longest: float) -> float:
        assert longest == 600
        pauses.append(failures)
        return 0.01

    monkeypatch.setattr("springest_async.bulk.queue.backoff", pause)
    last_in_doubt, concurrency = 13, 4  # the row that the server is back after
    in_flight = 0
    full = asyncio.Event()
    most: dict[int, int] = {}  # how many were in flight when a row arrived

    async def answer(email: str) -> web.Response:
        nonlocal in_flight
        row = int(email.removeprefix("employee").partition("@")[0]) + 1
        in_flight += 1
        most[row] = in_flight
        if row <= last_in_doubt + 1:
            await asyncio.sleep(0.02)
        else:  # held until as many as may be are under way at once
            if in_flight == concurrency:
                full.set()
            with suppress(TimeoutError):
                await asyncio.wait_for(full.wait(), 10)
        in_flight -= 1
        return web.Response(status=503) if row <= last_in_doubt else await created()

    async with server(answer) as origin, client(origin, concurrency=concurrency) as springest:
        assert await run(springest, rows_of(tmp_path, 28), events) is None

    in_doubt = dict.fromkeys(range(2, last_in_doubt + 1), State.IN_DOUBT)
    assert events.states == in_doubt | dict.fromkeys(range(last_in_doubt + 1, 30), State.STORED)
    # Those that were in flight when the fourth was in doubt come to their end, beside the first one that is alone.
    first_alone = 2 + 4 + concurrency - 1 + 1
    alone = range(first_alone, last_in_doubt + 2)
    assert [row for row in most if row in alone] == list(alone)
    assert {most[row] for row in alone} == {1}
    assert max(most[row] for row in range(last_in_doubt + 2, 30)) == concurrency
    assert pauses[-1] == 12  # the last one is the row that ends the outage
    assert min(pauses) >= 4
    assert last_in_doubt + 2 - first_alone < len(pauses) <= last_in_doubt + 2 - 6


@pytest.mark.parametrize(
    "error",
    [
        NotSent(WHERE, "the server answered 503 before it had the whole certificate"),
        UnexpectedStatus(WHERE, 410, "gone"),
    ],
    ids=["cut off", "unknown"],
)
async def test_a_gateway_that_takes_no_certificate_fails_a_few_rows_and_not_all(
    tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch, error: SpringestError
) -> None:
    monkeypatch.setattr("springest_async.bulk.queue.backoff", lambda *_, **__: 30.0)
    scripts = [Script(steps=("waiting", "sending"), stores=False, error=lambda _: error)] * 40
    manifest = rows_of(tmp_path, 40)

    with queue_of(cast(Springest, ModelClient(scripts, concurrency=4)), manifest, events) as queue:
        going = asyncio.create_task(queue.run())
        await events.until(lambda: len(events.done) >= 4)
        await asyncio.sleep(0.2)
        queue.stop()
        await going

    failed = [row for row, state in events.states.items() if state is State.FAILED]
    assert 4 <= len(failed) <= 8  # those that were in flight when it was noticed


async def test_rows_in_doubt_with_others_in_between_are_no_outage(
    tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("springest_async.bulk.queue.backoff")
    statuses = [503, 503, 503, 201, 503, 503, 503, 400, 503]
    async with scripted_server(statuses) as origin, client(origin, concurrency=1) as springest:
        assert await run(springest, rows_of(tmp_path, 9), events) is None

    assert list(events.states.values()).count(State.IN_DOUBT) == 7


@pytest.mark.parametrize("end", ["stop", "cancel"])
async def test_an_outage_keeps_nobody_waiting_who_wants_to_end(
    tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    paused = asyncio.Event()

    def pause(_: int, *, longest: float) -> float:
        paused.set()
        return longest

    monkeypatch.setattr("springest_async.bulk.queue.backoff", pause)
    manifest = rows_of(tmp_path, 12)
    async with scripted_server([503] * 20) as origin, client(origin, concurrency=3) as springest:
        with queue_of(springest, manifest, events) as queue:
            going = asyncio.create_task(queue.run())
            await paused.wait()
            await events.until(lambda: len(events.done) >= 4)
            if end == "stop":
                queue.stop()
            else:
                going.cancel()
            async with asyncio.timeout(AT_ONCE):
                await asyncio.wait([going])

    assert going.cancelled() == (end == "cancel")
    assert set(events.states.values()) == {State.IN_DOUBT, State.WAITING}
    assert Counter(states(manifest).values())[State.WAITING] >= 6


async def test_an_outage_at_the_last_rows_keeps_the_end_of_the_run_waiting_for_nothing(
    tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("springest_async.bulk.queue.backoff", lambda *_, **__: 30.0)
    mishaps = iter([Mishap.ERROR_AFTER_STORING] * 6)
    async with Sandbox(mishap=mishaps.__next__) as sandbox, client_of(sandbox, concurrency=6) as springest:
        async with asyncio.timeout(AT_ONCE):
            assert await run(springest, rows_of(tmp_path, 6), events) is None

    assert events.states == dict.fromkeys(range(2, 8), State.STORED)
    assert sandbox.summary().posts == 6


@pytest.mark.usefixtures("quick")
async def test_a_server_that_was_down_behind_its_gateway_has_all_rows_in_one_run(
    tmp_path: Path, events: Events
) -> None:
    manifest = rows_of(tmp_path, 25)
    down = range(5, 18)  # which of the POSTs the gateway answers itself

    def answer(_: web.Request) -> web.Response | None:
        return web.Response(status=502) if gateway.asked["POST"] in down else None

    async with Gateway(answer=answer, limit=500) as gateway, client_of(gateway, concurrency=4) as springest:
        assert await run(springest, manifest, events) is None

        assert stored_once(gateway) == employees(*range(1, 26))
    assert events.states == dict.fromkeys(range(2, 27), State.STORED)
    assert len(events.settling) == len(down)


# --- a network that fails and comes back ---


@pytest.mark.usefixtures("quick")
async def test_a_network_that_was_lost_is_waited_for(tmp_path: Path, events: Events) -> None:
    # A token that rests for a moment gives the time to take the server away between two rows.
    limiter = Limiter(posts=1, period=0.1)
    sandbox = Sandbox(port=unused_port())
    origin = f"http://127.0.0.1:{sandbox.port}"
    async with client(origin, key=sandbox.api_key, limiter=limiter, concurrency=1) as springest:
        with queue_of(springest, rows_of(tmp_path, 3), events) as queue:
            async with sandbox:
                going = asyncio.create_task(queue.run())
                await events.until(lambda: len(events.done) == 1)
            # More tries than one upload makes, so that it is the queue that waits.
            await events.until(lambda: events.count(3, "sending") == TRIES + 2)
            assert events.states == {2: State.STORED}
            async with sandbox:
                error = await going

    assert error is None
    assert events.states == dict.fromkeys((2, 3, 4), State.STORED)
    assert sandbox.summary().stored == 3


async def lose_the_network(
    events: Events, manifest: Manifest, end: Callable[[UploadQueue, asyncio.Task[Any]], object]
) -> None:
    """Store the first of three rows, take the server away until the queue waits for it, and then do `end`."""
    sandbox = Sandbox(port=unused_port())
    limiter = Limiter(posts=1, period=0.2)
    origin = f"http://127.0.0.1:{sandbox.port}"
    async with client(origin, key=sandbox.api_key, limiter=limiter, concurrency=1) as springest:
        with queue_of(springest, manifest, events) as queue:
            async with sandbox:
                going = asyncio.create_task(queue.run())
                await events.until(lambda: len(events.done) == 1)
            await events.until(lambda: events.count(3, "unsent") == TRIES)
            await heard()
            end(queue, going)
            async with asyncio.timeout(AT_ONCE):
                await asyncio.wait([going])


@pytest.fixture
def long_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an upload give up soon, and the queue wait for long."""
    monkeypatch.setattr("springest_async.bulk.queue.backoff", lambda *_, **__: 30.0)
    monkeypatch.setattr("springest_async.upload.backoff", lambda *_, **__: 0.005)


@pytest.mark.usefixtures("long_pause")
@pytest.mark.parametrize("end", ["stop", "cancel"])
async def test_who_wants_to_end_does_not_wait_for_the_network(tmp_path: Path, events: Events, end: str) -> None:
    manifest = rows_of(tmp_path, 3)
    await lose_the_network(events, manifest, lambda queue, going: queue.stop() if end == "stop" else going.cancel())

    assert events.states == {2: State.STORED, 3: State.WAITING}
    assert states(manifest) == {2: State.STORED, 3: State.WAITING, 4: State.WAITING}


# --- on disk before the first byte, and right after the answer ---


ERROR_PAGE = '{"status":500,"error":"Internal Server Error"}'  # the sandbox's


def attempts(manifest: Manifest, row: int) -> list[tuple[State | None, int | None, str]]:
    """Give what became of each POST of a row; fails when their times are in disorder."""
    entry = entries(manifest)[row]
    with JournalReader.open(default_path(manifest.path)) as journal:
        found = journal.attempts(entry.id)
    assert [attempt.number for attempt in found] == list(range(1, len(found) + 1))
    for attempt in found:
        assert attempt.ended_at is not None
        assert timedelta() <= attempt.ended_at - attempt.sent_at < timedelta(seconds=20)
    assert entry.sent_at == (found[-1].sent_at if found else None)
    return [(attempt.outcome, attempt.status, attempt.words) for attempt in found]


async def test_sending_is_on_disk_when_the_first_byte_arrives_and_the_outcome_before_the_next_row(
    tmp_path: Path, events: Events
) -> None:
    manifest = rows_of(tmp_path, 3)
    seen: list[dict[int | None, State]] = []

    async def look_into_the_journal(exchange: Exchange) -> None:
        seen.append(states(manifest))
        await exchange.read()
        await exchange.answer(201, b'{"id": %d}' % len(seen))

    async with raw_server(look_into_the_journal) as raw, client(raw.origin, concurrency=1) as springest:
        assert await run(springest, manifest, events) is None

    stored, sending, waiting = State.STORED, State.SENDING, State.WAITING
    assert seen == [
        {2: sending, 3: waiting, 4: waiting},
        {2: stored, 3: sending, 4: waiting},
        {2: stored, 3: stored, 4: sending},
    ]
    assert [attempts(manifest, row) for row in (2, 3, 4)] == [[(stored, 201, "")]] * 3


@pytest.mark.usefixtures("quick")
async def test_a_refusal_puts_the_row_back_to_waiting_on_disk(
    tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = rows_of(tmp_path, 1)
    on_disk: list[State] = []

    def listen(event: Event) -> None:
        events(event)
        if isinstance(event, RowStep):
            on_disk.append(states(manifest)[2])

    statuses = iter([400, 400, 201])

    async def answer(_: str) -> web.Response:
        status = next(statuses)
        return await created() if status == 201 else web.json_response({"error": "Bad Request"}, status=status)

    limiter = Limiter(posts=500, period=0.05)
    async with server(answer) as origin, client(origin, limiter=limiter) as springest:
        with Journal.open(default_path(manifest.path)) as journal:
            journal.load(manifest, origin)
            assert await UploadQueue(springest, journal, listen).run() is None

    kinds = [step.step.kind for step in events.steps]
    assert on_disk == [State.SENDING if kind == "sending" else State.WAITING for kind in kinds]
    assert kinds.count("refused") == 2
    refused = (State.WAITING, 400, '{"error": "Bad Request"}')
    assert attempts(manifest, 2) == [refused, refused, (State.STORED, 201, "")]


async def test_what_a_server_said_is_kept_with_the_post(tmp_path: Path, events: Events) -> None:
    manifest = rows_of(tmp_path, 2, changes={1: {"certification_id": "99"}, 2: {"certification_id": "3"}})
    script = iter([Mishap.ERROR_BEFORE_STORING])
    async with Sandbox(mishap=script.__next__) as sandbox, client_of(sandbox) as springest:
        await run(springest, manifest, events)

    rejected, doubt = events.error(2), events.error(3)
    assert isinstance(rejected, Rejected)
    assert attempts(manifest, 2) == [(State.REJECTED, 400, rejected.words)]
    assert isinstance(doubt, InDoubt)
    assert attempts(manifest, 3) == [(State.IN_DOUBT, 500, ERROR_PAGE)]


# --- again, with the same manifest or another one ---


def rewrite(manifest: Manifest, change: Callable[[list[str]], list[str]]) -> Manifest:
    header, *lines = manifest.path.read_text().splitlines()
    manifest.path.write_text("\n".join([header, *change(lines), ""]))
    return Manifest.open(manifest.path)


async def some_stored(sandbox: Sandbox, manifest: Manifest, count: int) -> None:
    """Upload the first rows, and stop."""
    events = Events()
    async with client_of(sandbox, concurrency=1) as springest:
        with queue_of(springest, manifest, events) as queue:
            events._waiters.append(
                (lambda: len(events.done) == count, cast(asyncio.Event, SimpleNamespace(set=queue.stop)))
            )
            async with asyncio.timeout(A_WHILE):
                assert await queue.run() is None
    assert Counter(states(manifest).values())[State.STORED] == count


async def resume(sandbox: Sandbox, manifest: Manifest) -> Events:
    events = Events()
    async with client_of(sandbox) as springest:
        assert await run(springest, manifest, events) is None
    return events


async def test_what_is_stored_is_not_sent_again_when_the_manifest_is_sorted_and_extended(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        manifest = rows_of(tmp_path, 6)
        await some_stored(sandbox, manifest, 3)
        new = "1.pdf,1,employee7@example.org,2026-01-31,,"
        manifest = rewrite(manifest, lambda lines: [new, *reversed(lines)])

        events = await resume(sandbox, manifest)

        assert events.states.keys() == {2, 3, 4, 5}  # the new one and those that were waiting
        assert stored_once(sandbox) == employees(*range(1, 8))
        assert (await resume(sandbox, manifest)).done == []


async def test_what_is_stored_is_not_sent_again_when_its_file_is_renamed_touched_or_gone(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        manifest = rows_of(tmp_path, 4)
        await some_stored(sandbox, manifest, 4)
        (tmp_path / "1.pdf").rename(tmp_path / "jan.pdf")
        os.utime(tmp_path / "2.pdf")
        (tmp_path / "3.pdf").unlink()
        manifest = rewrite(manifest, lambda lines: [line.replace("1.pdf", "jan.pdf") for line in lines])

        events = await resume(sandbox, manifest)

    assert events.states == {2: State.STORED, 3: State.STORED}  # by their hash; the others are not even looked at
    assert (events.steps, {event.receipt for event in events.done}) == ([], {None})
    assert not any(event.row.changed for event in events.done)
    assert {number: entry.springest_id for number, entry in entries(manifest).items()} == {2: 1, 3: 2, 4: 3, 5: 4}
    assert sandbox.summary().posts == 4


async def test_a_renamed_row_that_is_stored_already_leaves_nothing_in_hand_that_the_run_would_wait_for(
    tmp_path: Path, events: Events
) -> None:
    """The entry that `Journal.next` gave is gone by then, and another one stands for the row."""
    async with Sandbox() as sandbox:
        manifest = rows_of(tmp_path, 1)
        await some_stored(sandbox, manifest, 1)
        (tmp_path / "1.pdf").rename(tmp_path / "jan.pdf")
        manifest = rewrite(manifest, lambda lines: [lines[0].replace("1.pdf", "jan.pdf")])
        async with client_of(sandbox, concurrency=2) as springest:
            assert await run(springest, manifest, events) is None

    assert events.states == {2: State.STORED}
    assert sandbox.summary().posts == 1


async def test_a_renamed_row_that_was_rejected_under_its_old_name_is_told_with_the_reason_and_not_sent(
    tmp_path: Path, events: Events
) -> None:
    async with Sandbox() as sandbox:
        manifest = rows_of(tmp_path, 2, changes={1: {"certification_id": "99"}})
        before = await resume(sandbox, manifest)
        assert before.states == {2: State.REJECTED, 3: State.STORED}
        (tmp_path / "1.pdf").rename(tmp_path / "jan.pdf")
        manifest = rewrite(manifest, lambda lines: [lines[0].replace("1.pdf", "jan.pdf"), lines[1]])
        async with client_of(sandbox) as springest:
            assert await run(springest, manifest, events) is None

    (event,) = events.done
    assert (event.row.number, event.row.file, event.state) == (2, "jan.pdf", State.REJECTED)
    assert (event.error, event.receipt) == (None, None)
    assert event.row.reason == str(before.error(2)) == entries(manifest)[2].reason
    assert "400" in event.row.reason
    assert (events.steps, sandbox.summary().posts) == ([], 2)


async def test_another_file_or_other_fields_are_a_new_certificate(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        manifest = rows_of(tmp_path, 3)
        await some_stored(sandbox, manifest, 3)
        (tmp_path / "1.pdf").write_bytes(certificate("mended"))
        manifest = rewrite(manifest, lambda lines: [lines[0], lines[1].replace("employee2", "petra"), lines[2]])

        events = await resume(sandbox, manifest)

    assert events.states == {2: State.STORED, 3: State.STORED}
    assert {event.row.number: event.row.changed for event in events.done} == {2: True, 3: False}
    assert stored_once(sandbox) == sorted(["employee1@example.org", "petra@example.org", *employees(1, 2, 3)])
    ids = {number: entry.springest_id for number, entry in entries(manifest).items()}
    assert (ids[4], {ids[2], ids[3]}) == (3, {4, 5})


async def test_rejected_rows_rest_until_they_are_mended_and_failed_ones_have_another_turn(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        manifest = rows_of(tmp_path, 2, changes={1: {"certification_id": "99"}, 2: {"file": "late.pdf"}})
        assert (await resume(sandbox, manifest)).states == {2: State.REJECTED, 3: State.FAILED}
        (tmp_path / "late.pdf").write_bytes(certificate("late"))

        assert (await resume(sandbox, manifest)).states == {3: State.STORED}

        manifest = rewrite(manifest, lambda lines: [lines[0].replace(",99,", ",1,"), lines[1]])
        assert (await resume(sandbox, manifest)).states == {2: State.STORED}
    assert stored_once(sandbox) == employees(1, 2)


# --- in doubt ---


@pytest.mark.parametrize("mishap", Mishap)
async def test_a_doubt_about_a_certificate_that_is_shown_is_settled_and_it_is_stored_once(
    tmp_path: Path, events: Events, mishap: Mishap
) -> None:
    manifest = rows_of(tmp_path, 3)
    script = iter([mishap, mishap, None])
    async with Sandbox(mishap=script.__next__) as sandbox, client_of(sandbox) as springest:
        assert await run(springest, manifest, events) is None

        assert stored_once(sandbox) == employees(1, 2, 3)
    assert events.states == dict.fromkeys((2, 3, 4), State.STORED)
    assert {event.error for event in events.done} == {None}
    assert len(events.settling) == 2
    assert sandbox.summary().posts == (3 if mishap.stores else 5)
    ids = {post.fields["email"]: post.certificate_id for post in sandbox.audit if post.verdict == "stored"}
    assert {entry.email: entry.springest_id for entry in entries(manifest).values()} == ids
    doubtful = {event.row.number for event in events.settling}
    for row in (2, 3, 4):
        before = [(State.IN_DOUBT, mishap.status, ERROR_PAGE if mishap.status else "")]
        in_doubt = before if row in doubtful else []
        stored = [] if row in doubtful and mishap.stores else [(State.STORED, 201, "")]
        assert attempts(manifest, row) == in_doubt + stored


@pytest.mark.parametrize("both_keys", [True, False])
async def test_a_doubt_about_what_springest_does_not_show_stays_until_it_does(tmp_path: Path, both_keys: bool) -> None:
    manifest = rows_of(tmp_path, 1, changes={1: {"certification_id": "3"}})
    script = iter([Mishap.DROP_AFTER_STORING])
    async with Sandbox(mishap=script.__next__) as sandbox:
        for verified in (False, False, True):
            if verified:
                sandbox.verify(3)
            events = Events()
            async with client_of(sandbox, both_keys=both_keys) as springest:
                assert await run(springest, manifest, events) is None

            assert events.states == {2: State.STORED if verified else State.IN_DOUBT}
            if not verified:
                assert isinstance(doubt := events.error(2), InDoubt)
                # However often it was asked, it is said once.
                assert doubt.reason == (
                    "the server closed the connection without an answer;"
                    " Springest does not list it, and does not show its certification yet"
                )
                assert entries(manifest)[2].reason == doubt.reason
    assert sandbox.summary().posts == 1
    assert entries(manifest)[2].springest_id == 1


async def test_without_the_certifications_key_what_is_listed_shows_that_a_certification_is_shown(
    tmp_path: Path, events: Events
) -> None:
    script = iter([None, Mishap.DROP_BEFORE_STORING])
    async with (
        Sandbox(mishap=script.__next__) as sandbox,
        client_of(sandbox, both_keys=False, concurrency=1) as springest,
    ):
        assert await run(springest, rows_of(tmp_path, 2), events) is None

    assert events.states == {2: State.STORED, 3: State.STORED}
    assert sandbox.summary().posts == 3


async def test_four_times_no_answer_and_not_stored_is_a_failure_that_the_next_run_tries_again(
    tmp_path: Path, events: Events
) -> None:
    manifest = rows_of(tmp_path, 1)
    script = iter([Mishap.ERROR_BEFORE_STORING] * TRIES)
    async with Sandbox(mishap=script.__next__) as sandbox:
        async with client_of(sandbox, concurrency=1, answer=0.05) as springest:
            assert await run(springest, manifest, events) is None

        assert events.states == {2: State.FAILED}
        assert isinstance(error := events.error(2), NotSent)
        assert error.reason == "4 times there was no answer and it was not stored: the server answered 500, not 201"
        assert entries(manifest)[2].reason == str(error)
        assert attempts(manifest, 2) == [(State.IN_DOUBT, 500, ERROR_PAGE)] * TRIES

        assert (await resume(sandbox, manifest)).states == {2: State.STORED}
    assert sandbox.summary().posts == TRIES + 1


@pytest.mark.parametrize("both_in_doubt", [False, True])
@pytest.mark.parametrize("mishap", [Mishap.DROP_BEFORE_STORING, Mishap.DROP_AFTER_STORING])
async def test_two_certificates_of_one_person_with_the_same_dates_are_not_taken_for_each_other(
    tmp_path: Path, mishap: Mishap, both_in_doubt: bool
) -> None:
    manifest = rows_of(tmp_path, 2, changes={2: {"email": "Employee1@example.org"}})
    other = {Mishap.DROP_BEFORE_STORING: Mishap.DROP_AFTER_STORING}.get(mishap, Mishap.DROP_BEFORE_STORING)
    script = iter([other if both_in_doubt else None, mishap])
    async with Sandbox(mishap=script.__next__) as sandbox:
        for _ in range(2):
            events = Events()
            async with client_of(sandbox, concurrency=2 if both_in_doubt else 1) as springest:
                assert await run(springest, manifest, events) is None
        hashes = {post.certificate_id: post.sha256 for post in sandbox.audit if post.verdict == "stored"}
        stored_once(sandbox)

    if both_in_doubt:
        # One is there, and nothing tells which one.
        assert states(manifest) == {2: State.IN_DOUBT, 3: State.IN_DOUBT}
        assert isinstance(doubt := events.error(3), InDoubt)
        assert doubt.reason.endswith("another certificate with the same fields may be what Springest lists")
        assert (len(hashes), sandbox.summary().posts) == (1, 2)
    else:
        assert states(manifest) == {2: State.STORED, 3: State.STORED}
        found = {entry.springest_id: entry.sha256.hex() for entry in entries(manifest).values() if entry.sha256}
        assert found == hashes
        assert sandbox.summary().posts == (2 if mishap.stores else 3)


@pytest.mark.parametrize("twin", ["stored", "on its way"])
async def test_a_twin_that_comes_in_while_springest_is_asked_is_not_taken_for_the_one_in_doubt(
    tmp_path: Path, events: Events, twin: str
) -> None:
    """The first is not stored, and the second, with equal fields, comes in between the two lists that are asked for."""
    asked, arrived = asyncio.Event(), asyncio.Event()
    lists = 0

    class TwinLater(Springest):
        async def upload(self, upload: CertificateUpload, **how: Any) -> Receipt:
            if upload.file == tmp_path / "2.pdf":
                await asked.wait()
            return await super().upload(upload, **how)

        async def settle(self, doubt: InDoubt, *, known: Collection[int] = ()) -> Certificate | None:
            # Given up so long ago that the second list need not be waited for.
            return await super().settle(attrs.evolve(doubt, given_up_at=doubt.given_up_at - timedelta(1)), known=known)

    async def until_the_twin_is_listed(request: web.Request) -> None:
        nonlocal lists
        lists += (request.method, request.path) == ("GET", "/users/certificates.json")
        if lists == 2 and not asked.is_set():
            asked.set()
            if twin == "stored":
                await events.until(lambda: State.STORED in events.states.values())
            else:
                await arrived.wait()

    async def until_the_doubt_is_told(request: web.Request) -> None:
        if request.method == "POST" and asked.is_set() and twin == "on its way":
            arrived.set()
            await events.until(lambda: len(events.done) == 1)

    manifest = rows_of(tmp_path, 2, changes={2: {"email": "employee1@example.org"}})
    script = iter([Mishap.DROP_BEFORE_STORING])
    async with Gateway(
        mishap=script.__next__, before=until_the_twin_is_listed, after=until_the_doubt_is_told
    ) as gateway:
        async with TwinLater(
            api_key=gateway.api_key,
            certifications_api_key=gateway.certifications_api_key,
            host=gateway.origin,
            settings=Settings(limiter=Limiter(), concurrency=1),
        ) as springest:
            assert await run(springest, manifest, events) is None
        hashes = {post.certificate_id: post.sha256 for post in gateway.audit if post.verdict == "stored"}

    # Never lost, and never the other one's: sent again, or in doubt when the twin was still on its way.
    first = State.STORED if twin == "stored" else State.IN_DOUBT
    assert [(event.row.number, event.state) for event in events.done] == sorted(
        [(2, first), (3, State.STORED)], reverse=twin == "stored"
    )
    found = {entry.springest_id: entry.sha256.hex() for entry in entries(manifest).values() if entry.sha256}
    assert found == hashes | ({} if twin == "stored" else {None: sha256_of(tmp_path / "1.pdf")})
    assert gateway.asked["POST"] == (3 if twin == "stored" else 2)
    if twin != "stored":
        assert entries(manifest)[2].reason.endswith(
            "another certificate with the same fields may be what Springest lists"
        )


def only_lists(answer: Callable[[web.Request], web.Response | None]) -> Callable[[web.Request], web.Response | None]:
    return lambda request: None if request.method == "POST" else answer(request)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("failure", ["500", "no answer"])
async def test_springest_is_asked_again_when_it_could_not_answer(tmp_path: Path, events: Events, failure: str) -> None:
    def answer(request: web.Request) -> web.Response | None:
        if gateway.asked["GET"] > 2 * (TRIES - 1):
            return None
        if failure == "no answer" and request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)

    script = iter([Mishap.DROP_AFTER_STORING])
    async with Gateway(answer=only_lists(answer), mishap=script.__next__) as gateway, client_of(gateway) as springest:
        assert await run(springest, rows_of(tmp_path, 1), events) is None

    assert events.states == {2: State.STORED}
    assert gateway.asked == {"POST": 1, "GET": 2 * (TRIES - 1) + 1}


@pytest.mark.usefixtures("quick")
async def test_a_doubt_is_left_when_springest_cannot_be_asked_and_there_is_nothing_else_to_do(
    tmp_path: Path, events: Events
) -> None:
    manifest = rows_of(tmp_path, 2)
    script = iter([None, Mishap.DROP_BEFORE_STORING])
    down = True
    async with Gateway(
        answer=only_lists(lambda _: web.Response(status=503) if down else None), mishap=script.__next__
    ) as gateway:
        async with client_of(gateway, concurrency=1) as springest:
            assert await run(springest, manifest, events) is None

        assert events.states == {2: State.STORED, 3: State.IN_DOUBT}
        assert isinstance(doubt := events.error(3), InDoubt)
        assert "; Springest could not be asked (GET http://127.0.0.1:" in doubt.reason
        assert gateway.asked["GET"] == 2 * TRIES
        down = False
        assert (await resume(gateway, manifest)).states == {3: State.STORED}
    assert stored_once(gateway) == employees(1, 2)


async def test_a_key_that_may_not_list_leaves_the_doubt_to_a_person(tmp_path: Path, events: Events) -> None:
    manifest = rows_of(tmp_path, 1)
    script = iter([Mishap.DROP_AFTER_STORING])
    gateway = Gateway(answer=only_lists(lambda _: web.Response(status=401)), mishap=script.__next__)
    async with gateway, client_of(gateway) as springest:
        assert await run(springest, manifest, events) is None

        assert events.states == {2: State.IN_DOUBT}
        assert isinstance(doubt := events.error(2), InDoubt)
        assert "Springest could not be asked (GET http://127" in doubt.reason
        gateway.answer = lambda _: None
        assert (await resume(gateway, manifest)).states == {2: State.STORED}
    assert gateway.summary().posts == 1


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def identified(journal: Journal, entry: Entry) -> Entry:
    status = entry.path.stat()
    return journal.identify(entry, status.st_size, status.st_mtime_ns, bytes.fromhex(sha256_of(entry.path)))


def was_killed(manifest: Manifest, origin: str, count: int) -> None:
    """Leave a journal behind as a process does that is killed while it sends the first rows."""
    with Journal.open(default_path(manifest.path)) as journal:
        journal.load(manifest, origin)
        for _ in range(count):
            entry = journal.next()
            assert entry is not None
            entry = identified(journal, entry)
            journal.sending(entry.id, datetime.now(UTC))


async def test_what_a_killed_run_was_sending_is_in_doubt_and_settled_by_the_next_one(
    tmp_path: Path, events: Events
) -> None:
    manifest = rows_of(tmp_path, 3)
    async with Sandbox() as sandbox, client_of(sandbox) as springest:
        was_killed(manifest, sandbox.origin, 2)
        await springest.upload(entries(manifest)[2].upload())  # the first POST had arrived, the second one had not
        assert states(manifest) == {2: State.IN_DOUBT, 3: State.IN_DOUBT, 4: State.WAITING}

        assert await run(springest, manifest, events) is None

        assert stored_once(sandbox) == employees(1, 2, 3)
    assert events.states == dict.fromkeys((2, 3, 4), State.STORED)
    assert sandbox.summary().posts == 3
    assert attempts(manifest, 3) == [(State.IN_DOUBT, None, ""), (State.STORED, 201, "")]


async def test_a_run_with_nothing_but_doubts_settles_them_and_ends(tmp_path: Path, events: Events) -> None:
    manifest = rows_of(tmp_path, 2, changes={2: {"certification_id": "3"}})  # Springest does not show that one yet
    async with Gateway() as gateway, client_of(gateway) as springest:
        was_killed(manifest, gateway.origin, 2)
        for row in (2, 3):
            await springest.upload(entries(manifest)[row].upload())
        assert await run(springest, manifest, events) is None

    assert events.states == {2: State.STORED, 3: State.IN_DOUBT}
    assert [event.row.number for event in events.settling] == [2, 3]
    assert (events.steps, gateway.asked["POST"]) == ([], 2)


async def test_what_a_killed_run_was_sending_is_settled_though_the_manifest_names_it_no_more(
    tmp_path: Path, events: Events
) -> None:
    """Found, it is stored; not found, it waits in the journal for a manifest that names it again."""
    manifest = rows_of(tmp_path, 3)
    async with Sandbox() as sandbox:
        was_killed(manifest, sandbox.origin, 2)
        async with client_of(sandbox) as springest:
            await springest.upload(entries(manifest)[2].upload())
        whole = manifest.path.read_text()
        manifest = rewrite(manifest, lambda lines: lines[2:])
        with Journal.open(default_path(manifest.path)) as journal:
            journal.load(manifest, sandbox.origin)
            async with client_of(sandbox) as springest:
                assert await UploadQueue(springest, journal, events).run() is None
            assert journal.doubts() == []

        told = {event.row.email: event.state for event in events.done}
        assert told == dict(zip(employees(1, 2, 3), (State.STORED, State.WAITING, State.STORED), strict=True))
        assert len(events.done) == 3
        manifest.path.write_text(whole)
        assert (await resume(sandbox, Manifest.open(manifest.path))).states == {3: State.STORED}
        assert stored_once(sandbox) == employees(1, 2, 3)
    assert sandbox.summary().posts == 3


async def test_a_row_in_doubt_whose_file_was_touched_meanwhile_is_settled_as_that_row(tmp_path: Path) -> None:
    """At first the journal knows the certificate without a row, and the row without its certificate."""
    manifest = rows_of(tmp_path, 2)
    async with Sandbox() as sandbox:
        was_killed(manifest, sandbox.origin, 2)
        async with client_of(sandbox) as springest:
            await springest.upload(entries(manifest)[2].upload())
        for number in (1, 2):
            os.utime(tmp_path / f"{number}.pdf")
        events = Events()
        with Journal.open(default_path(manifest.path)) as journal:
            assert journal.load(manifest, sandbox.origin).touched == 2
            async with client_of(sandbox) as springest:
                assert await UploadQueue(springest, journal, events).run() is None

        assert stored_once(sandbox) == employees(1, 2)
    assert states(manifest) == {2: State.STORED, 3: State.STORED}
    assert {event.row.number: event.state for event in events.done if event.row.number} == states(manifest)
    assert sandbox.summary().posts == 2


@pytest.mark.parametrize("end", ["stop", "cancel"])
async def test_who_wants_to_end_does_not_wait_until_a_doubt_can_be_settled(
    tmp_path: Path, events: Events, end: str
) -> None:
    manifest = rows_of(tmp_path, 2)
    script = iter([None, Mishap.ERROR_BEFORE_STORING])
    asked = asyncio.Event()

    def answer(request: web.Request) -> None:
        if request.path.startswith("/certifications"):
            asked.set()  # it is not listed, and would be

    gateway = Gateway(answer=answer, mishap=script.__next__)
    async with gateway, client_of(gateway, answer=60.0, concurrency=1) as springest:
        with queue_of(springest, manifest, events) as queue:
            going = asyncio.create_task(queue.run())
            await asked.wait()
            await heard()
            if end == "stop":
                queue.stop()
            else:
                going.cancel()
            async with asyncio.timeout(AT_ONCE):
                await asyncio.wait([going])

    assert going.cancelled() == (end == "cancel")
    assert events.states == {2: State.STORED, 3: State.IN_DOUBT}
    assert isinstance(events.error(3), InDoubt)
    assert gateway.summary().posts == 2


async def test_stop_after_a_doubt_was_settled_tells_the_row_as_waiting(tmp_path: Path, events: Events) -> None:
    """Every row that was taken is told, also when it would have been sent again just now."""
    manifest = rows_of(tmp_path, 1)
    script = iter([Mishap.ERROR_BEFORE_STORING])

    class StopAtOnce(Journal):
        def ended(self, entry_id: int, state: State, **outcome: Any) -> None:
            super().ended(entry_id, state, **outcome)
            if state is State.WAITING:
                queue.stop()

    async with Sandbox(mishap=script.__next__) as sandbox, client_of(sandbox, answer=0.1) as springest:
        with StopAtOnce.open(default_path(manifest.path)) as journal:
            journal.load(manifest, sandbox.origin)
            queue = UploadQueue(springest, journal, events)
            assert await queue.run() is None

            events.agree_with(journal, {2: State.WAITING})
    assert events.states == {2: State.WAITING}


async def test_doubts_about_another_host_in_the_same_journal_are_left_alone(tmp_path: Path, events: Events) -> None:
    manifest = rows_of(tmp_path, 1)
    async with Sandbox() as there, Gateway() as here:
        elsewhere = there.origin
        was_killed(manifest, elsewhere, 1)
        async with client_of(here) as springest:
            with queue_of(springest, manifest, events) as queue:
                assert await queue.run() is None
        with JournalReader.open(default_path(manifest.path)) as journal:
            (doubt,) = journal.doubts()

    assert events.states == {2: State.STORED}
    assert events.settling == []
    assert (doubt.origin, doubt.number) == (elsewhere, None)
    assert (here.asked, there.audit) == ({"POST": 1}, ())


# --- a journal that cannot be written ---


class FullDisk(Journal):
    """A journal on a disk that is full from the n-th outcome of a kind on."""

    fails: ClassVar[State] = State.STORED
    after: ClassVar[int] = 0

    def ended(self, entry_id: int, state: State, **outcome: Any) -> None:
        if state is self.fails and Counter(entry.state for entry in self.entries())[state] >= self.after:
            raise JournalError(self.path, "the disk is full")
        super().ended(entry_id, state, **outcome)


async def test_what_cannot_be_noted_as_sending_is_not_sent(
    tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = rows_of(tmp_path, 6)
    free = iter([*[1 << 40] * 2])
    monkeypatch.setattr(
        "springest_async.bulk.journal.shutil.disk_usage", lambda _: SimpleNamespace(free=next(free, 9_000_000))
    )
    async with Sandbox() as sandbox, client_of(sandbox, concurrency=2) as springest:
        error = await run(springest, manifest, events)

        assert isinstance(error, JournalError)
        assert error.reason == "the disk is nearly full: free some space, then run the same command again"
        assert sandbox.summary().posts == 2
        assert Counter(states(manifest).values()) == {State.STORED: 2, State.WAITING: 4}
        (event, *_) = (event for event in events.done if event.state is State.WAITING)
        assert event.error is error
        monkeypatch.undo()
        assert set((await resume(sandbox, manifest)).states.values()) == {State.STORED}
    assert stored_once(sandbox) == employees(*range(1, 7))


async def test_a_disk_that_is_full_in_truth_ends_the_run_and_no_post_leaves_unnoted(tmp_path: Path) -> None:
    manifest = many(tmp_path, 150)
    async with Sandbox(limit=500) as sandbox:
        before = 0
        async with client_of(sandbox, concurrency=2) as springest:
            with Journal.open(default_path(manifest.path)) as journal:
                journal.load(manifest, springest.origin)
                ((pages,),) = journal._connection.execute("PRAGMA page_count").fetchall()
                for spare in (1, 3):
                    journal._connection.execute(f"PRAGMA max_page_count = {pages + spare}")
                    error = await UploadQueue(springest, journal, Events()).run()
                    assert isinstance(error, JournalError)
                    assert error.reason == "the disk is full: free some space, then run the same command again"
                    assert sum(len(journal.attempts(entry.id)) for entry in journal.entries()) == len(sandbox.audit)
                    assert before < len(sandbox.audit) < 150
                    before = len(sandbox.audit)
        await resume(sandbox, manifest)

    assert len(stored_once(sandbox)) == sandbox.summary().posts == 150
    assert Counter(states(manifest).values()) == {State.STORED: 150}


@pytest.mark.parametrize("after", [0, 2])
async def test_an_outcome_that_cannot_be_noted_ends_the_run_and_the_next_one_settles_it(
    tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    manifest = rows_of(tmp_path, 5)
    monkeypatch.setattr(FullDisk, "after", after)
    async with Sandbox() as sandbox:
        async with client_of(sandbox, concurrency=1) as springest:
            with FullDisk.open(default_path(manifest.path)) as journal:
                journal.load(manifest, sandbox.origin)
                error = await UploadQueue(springest, journal, events).run()

        assert isinstance(error, JournalError)
        assert sandbox.summary().posts == after + 1
        last = events.done[-1]
        # It is stored, which the receipt shows, and the error tells that the journal does not know.
        assert (last.state, last.error, last.receipt is not None) == (State.STORED, error, True)
        assert states(manifest)[2 + after] is State.IN_DOUBT
        assert Counter(states(manifest).values())[State.WAITING] == 5 - after - 1

        again = await resume(sandbox, manifest)
    assert again.states == dict.fromkeys(range(2 + after, 7), State.STORED)
    assert stored_once(sandbox) == employees(*range(1, 6))
    assert sandbox.summary().posts == 5


async def test_a_doubt_that_cannot_be_noted_ends_the_run_and_the_next_one_settles_it(
    tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = rows_of(tmp_path, 2)
    monkeypatch.setattr(FullDisk, "fails", State.IN_DOUBT)
    script = iter([Mishap.DROP_AFTER_STORING])
    async with Sandbox(mishap=script.__next__) as sandbox:
        async with client_of(sandbox, concurrency=1) as springest:
            with FullDisk.open(default_path(manifest.path)) as journal:
                journal.load(manifest, sandbox.origin)
                error = await UploadQueue(springest, journal, events).run()
                events.agree_with(journal, {2: State.WAITING, 3: State.WAITING})

        assert isinstance(error, JournalError)
        assert events.states == {2: State.IN_DOUBT}
        assert isinstance(events.error(2), InDoubt)
        assert (await resume(sandbox, manifest)).states == {2: State.STORED, 3: State.STORED}
    assert sandbox.summary().posts == 2


@pytest.mark.usefixtures("quick")
async def test_a_refusal_that_cannot_be_noted_ends_the_run_with_the_row_in_doubt_as_the_journal_has_it(
    tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = rows_of(tmp_path, 2)
    monkeypatch.setattr(FullDisk, "fails", State.WAITING)

    async def answer(_: str) -> web.Response:
        return web.Response(status=400, text="Bad Request")

    async with server(answer) as origin, client(origin, concurrency=1) as springest:
        with FullDisk.open(default_path(manifest.path)) as journal:
            journal.load(manifest, origin)
            error = await UploadQueue(springest, journal, events).run()
            events.agree_with(journal, {2: State.WAITING, 3: State.WAITING})

    assert isinstance(error, JournalError)
    assert events.states == {2: State.IN_DOUBT}
    assert events.error(2) is error


async def test_what_was_found_out_about_a_doubt_and_cannot_be_noted_is_asked_again_by_the_next_run(
    tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = rows_of(tmp_path, 1)
    monkeypatch.setattr(FullDisk, "fails", State.WAITING)
    script = iter([Mishap.DROP_BEFORE_STORING])
    async with Sandbox(mishap=script.__next__) as sandbox:
        async with client_of(sandbox) as springest:
            with FullDisk.open(default_path(manifest.path)) as journal:
                journal.load(manifest, sandbox.origin)
                monkeypatch.setattr(FullDisk, "after", -1)
                error = await UploadQueue(springest, journal, events).run()
                events.agree_with(journal, {2: State.WAITING})

        assert isinstance(error, JournalError)
        assert events.states == {2: State.IN_DOUBT}
        assert (await resume(sandbox, manifest)).states == {2: State.STORED}
    assert sandbox.summary().posts == 2


@pytest.mark.parametrize("looks", [0, 1], ids=["before Springest is asked", "afterwards"])
async def test_a_journal_that_cannot_be_read_while_a_doubt_is_settled_ends_the_run_with_its_error(
    tmp_path: Path, events: Events, looks: int
) -> None:
    """That is not told as if Springest could not be asked."""
    manifest = rows_of(tmp_path, 1)
    failure = JournalError(default_path(manifest.path), "the disk is gone")
    left = iter(range(looks))

    class Unreadable(Journal):
        def siblings(self, entry: Entry) -> Siblings:
            if next(left, None) is None:
                raise failure
            return super().siblings(entry)

    script = iter([Mishap.DROP_AFTER_STORING])
    async with Gateway(mishap=script.__next__) as gateway:
        async with client_of(gateway) as springest:
            with Unreadable.open(default_path(manifest.path)) as journal:
                journal.load(manifest, gateway.origin)
                async with asyncio.timeout(A_WHILE):
                    error = await UploadQueue(springest, journal, events).run()
                events.agree_with(journal, {2: State.WAITING})

        assert error is failure
        assert gateway.asked["GET"] == looks
        assert events.states == {2: State.IN_DOUBT}
        assert isinstance(doubt := events.error(2), InDoubt)
        assert doubt.reason == entries(manifest)[2].reason == "the server closed the connection without an answer"
        assert (await resume(gateway, manifest)).states == {2: State.STORED}
    assert gateway.summary().posts == 1


# --- who goes first ---


async def test_an_upload_that_somebody_waits_for_goes_before_a_hundred_rows(tmp_path: Path, events: Events) -> None:
    manifest = rows_of(tmp_path, 1)
    line = manifest.path.read_text().splitlines()[1]
    manifest = rewrite(manifest, lambda _: [line.replace("employee1", f"e{number}") for number in range(100)])
    limiter = Limiter(posts=1, period=0.1)
    async with Sandbox(limit=500) as sandbox, client_of(sandbox, limiter=limiter) as springest:
        with queue_of(springest, manifest, events) as queue:
            going = asyncio.create_task(queue.run())
            await events.until(lambda: len(events.done) == 2)
            upload = attrs.evolve(entries(manifest)[2].upload(), email="somebody@example.org")
            before = len(events.steps)
            async with asyncio.timeout(A_WHILE):
                await springest.upload(upload)
            queue.stop()
            assert await going is None

    posted = [post.fields["email"] for post in sandbox.audit]
    sent_before = sum(step.step.kind == "sending" for step in events.steps[:before])
    assert posted.index("somebody@example.org") <= sent_before + 1
    assert Counter(states(manifest).values())[State.WAITING] > 90


# --- twenty thousand rows ---


def many(folder: Path, count: int) -> Manifest:
    (folder / "1.pdf").write_bytes(certificate("the same for all"))
    rows = "".join(f"1.pdf,1,e{number}@example.org,2026-01-31,,\n" for number in range(count))
    path = folder / f"{count}.csv"
    path.write_text(",".join(COLUMNS) + "\n" + rows)
    return Manifest.open(path)


async def cost_of_rows(folder: Path, count: int) -> tuple[int, int]:
    """Give the steps (tens of SQLite's instructions) and the bytes that 250 rows take among so many waiting ones."""
    manifest = many(folder, count)
    steps = measured = done = began = cost = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    def listen(event: Event) -> None:
        nonlocal done, steps, measured, began, cost
        done += isinstance(event, RowDone)
        if done == 100 and not tracemalloc.is_tracing():
            gc.collect()
            tracemalloc.start()
            steps, began = 0, tracemalloc.get_traced_memory()[0]
        elif done == 350 and tracemalloc.is_tracing():
            gc.collect()
            measured = steps
            cost = tracemalloc.get_traced_memory()[0] - began
            tracemalloc.stop()
            queue.stop()

    with Journal.open(default_path(manifest.path)) as journal:
        journal.load(manifest, ModelClient.origin)
        journal._connection.execute("PRAGMA synchronous = OFF")  # quicker, and no power will fail
        journal._connection.set_progress_handler(step, 10)
        queue = UploadQueue(cast(Springest, ForgetfulClient([], 8)), journal, listen)
        assert await queue.run() is None
        journal._connection.set_progress_handler(None, 0)
        assert journal.counts()[State.WAITING] <= count - 350
    return measured, cost


async def test_a_row_takes_as_many_steps_and_as_little_memory_among_twenty_thousand_as_among_few(
    tmp_path: Path,
) -> None:
    few, many_rows = [await cost_of_rows(tmp_path, count) for count in (400, 20_000)]

    assert many_rows[0] < 1.1 * few[0]
    assert max(few[1], many_rows[1]) < 120_000  # what is in flight; 250 entries take more


# --- whatever happens: one end for every row, nothing lost and nothing twice ---


NOW = datetime(2026, 1, 31, tzinfo=UTC)


@attrs.frozen
class Script:
    """What an upload does: its steps, with turns of the loop between them, whether it is stored, and how it ends."""

    steps: tuple[Kind, ...] = ("waiting", "sending")
    turns: int = 0
    stores: bool = True
    error: Callable[[CertificateUpload], Exception] | None = None


def doubt_of(upload: CertificateUpload) -> InDoubt:
    return InDoubt(
        WHERE, "no answer", upload.email, upload.certification_id, upload.valid_from, upload.valid_until, NOW, NOW
    )


PLAIN = Script()
RETRIED: tuple[Kind, ...] = ("waiting", "sending", "refused", "waiting", "sending", "unsent", "waiting", "sending")
ENDS: dict[str, Script] = {
    "stored": PLAIN,
    "stored at last": Script(steps=RETRIED),
    "in doubt and stored": Script(error=doubt_of),
    "in doubt and not stored": Script(stores=False, error=doubt_of),
    "rejected": Script(stores=False, error=lambda _: Rejected(WHERE, 400, "no")),
    "rejected at last": Script(
        steps=("waiting", "sending", "refused"), stores=False, error=lambda _: Rejected(WHERE, 400, "no")
    ),
    "file gone": Script(stores=False, error=lambda upload: UnusableFile(upload.file, "gone")),
    "cut off": Script(
        steps=("waiting", "sending", "unsent"), stores=False, error=lambda _: NotSent(WHERE, "the connection broke")
    ),
    "network away": Script(
        steps=("waiting", "sending", "unsent"),
        stores=False,
        error=lambda _: NotSent(WHERE, "no connection", connected=False),
    ),
    "limit unknown": Script(steps=("waiting",), stores=False, error=lambda _: ConfigurationError("no store")),
    "key refused": Script(stores=False, error=lambda _: NotAuthorized(WHERE, 401, "no")),
    "not allowed": Script(stores=False, error=lambda _: Forbidden(WHERE, 403, "no")),
    "a bug": Script(error=lambda _: RuntimeError("nobody thought of this")),
    "a bug before": Script(steps=("waiting",), stores=False, error=lambda _: RuntimeError("nor of this")),
}
Look = Literal["tells", "cannot tell", "is down", "may not be asked"]


class ModelClient:
    """Stands in for client and server, where only the queue's bookkeeping is looked at: it does what a script says.

    `stored` is what the server has, by e-mail address; what it lists is true, if it lists anything.
    """

    origin = "https://springest.example"

    def __init__(self, scripts: list[Script], concurrency: int, looks: Collection[Look] = ()) -> None:
        self.settings = Settings(concurrency=concurrency)
        self.stored: dict[str, list[int]] = {}
        self._scripts = iter(scripts)
        self._looks = iter(looks)
        self._ids = 0

    def _store(self, upload: CertificateUpload) -> int:
        self._ids += 1
        self.stored.setdefault(upload.email, []).append(self._ids)
        return self._ids

    async def upload(
        self, upload: CertificateUpload, *, listener: UploadListener, bulk: bool, source: SourceFile
    ) -> Receipt:
        assert bulk
        assert source.path == upload.file
        script = next(self._scripts, PLAIN)
        sending = False
        try:
            for number, kind in enumerate(script.steps):
                listener(UploadStep(kind, number, datetime.now(UTC)))
                sending = kind == "sending"
                for _ in range(script.turns):
                    await asyncio.sleep(0)
        except asyncio.CancelledError as cancelled:
            cancelled.__cause__ = NotSent(WHERE, "cancelled")
            if sending:
                cancelled.__cause__ = doubt_of(upload)
                if script.stores:
                    self._store(upload)
                    if script.turns > 1:  # the status had come
                        cancelled.__cause__ = CancelledTooLate(WHERE)
            raise
        known = self._store(upload) if script.stores else 0
        if script.error is not None:
            raise script.error(upload)
        return Receipt(id=known, upload=upload, attempts=1, sent_at=NOW, answered_at=datetime.now(UTC))

    async def settle(self, doubt: InDoubt, *, known: Collection[int]) -> Certificate | None:
        await asyncio.sleep(0)
        match next(self._looks, "tells"):
            case "cannot tell":
                raise attrs.evolve(doubt, reason="nobody can tell")
            case "is down":
                raise ServerError("GET", 503, "")
            case "may not be asked":
                raise NotAuthorized("GET", 401, "")
        assert not known
        for key in self.stored.get(doubt.email, ()):
            return Certificate(id=key, certification_id=doubt.certification_id, valid_from=doubt.valid_from)
        return None


@pytest.fixture(scope="module")
def ten_rows(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return Manifest.open(archive(tmp_path_factory.mktemp("ten"), 10, changes={4: {"email": "no address"}}))


@settings(max_examples=60)
@given(
    scripts=st.lists(
        st.builds(attrs.evolve, st.sampled_from(list(ENDS)).map(ENDS.__getitem__), turns=st.integers(0, 3)),
        max_size=14,
    ),
    looks=st.lists(st.sampled_from(["tells", "cannot tell", "is down", "may not be asked"]), max_size=8),
    concurrency=st.integers(1, 4),
    stop_after=st.none() | st.integers(0, 40),
    cancel_after=st.sets(st.integers(1, 40), max_size=2),
)
def test_whatever_happens_every_row_has_one_end_and_the_next_run_stores_what_is_left_once(
    ten_rows: Manifest,
    scripts: list[Script],
    looks: list[Look],
    concurrency: int,
    stop_after: int | None,
    cancel_after: set[int],
) -> None:
    model = ModelClient(scripts, concurrency, looks)

    async def one_run(events: Events, stop_after: int | None, cancel_after: set[int]) -> None:
        heard = 0

        def listen(event: Event) -> None:
            nonlocal heard
            events(event)
            heard += 1
            if heard == stop_after:
                queue.stop()
            if heard in cancel_after:
                asyncio.get_running_loop().call_soon(going.cancel)

        with queue_of(cast(Springest, model), ten_rows, events) as queue:
            queue._report = listen
            going = asyncio.create_task(queue.run())
            if stop_after == 0:
                queue.stop()
            await asyncio.wait([going], timeout=A_WHILE)
            assert going.done()
            if not going.cancelled() and (error := going.exception()) is not None:
                assert isinstance(error, ExceptionGroup)
                assert error.split(lambda leaf: isinstance(leaf, RuntimeError) and "of this" in str(leaf))[1] is None

    async def go() -> None:
        await one_run(Events(), stop_after, cancel_after)
        for _ in range(len(scripts) + len(looks) + 1):  # whatever is left of the script
            await one_run(Events(), None, set())
            ended = {row for row, state in states(ten_rows).items() if state in (State.STORED, State.REJECTED)}
            if states(ten_rows)[5] is State.FAILED and len(ended) == 9:
                break

    path = default_path(ten_rows.path)
    path.unlink(missing_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("springest_async.bulk.queue.backoff", lambda *_, **__: 0.0002)
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(go())

    found = {entry.email: entry for entry in entries(ten_rows).values()}
    assert len(found) == 10
    assert found.pop("no address").state is State.FAILED
    stored = {email: entry.springest_id for email, entry in found.items() if entry.state is State.STORED}
    assert stored.keys() == model.stored.keys()
    for email, key in stored.items():
        (known,) = model.stored[email]
        assert key in (known, None)  # a cancellation that comes too late leaves no time to read the id
    assert {entry.state for entry in found.values()} <= {State.STORED, State.REJECTED}


class ForgetfulClient(ModelClient):
    """Stands in for a server that keeps what it has elsewhere."""

    def _store(self, _: CertificateUpload) -> int:
        self._ids += 1
        return self._ids


class StubbornClient(ModelClient):
    """Stands in for a client that takes its time to end when it is cancelled."""

    async def upload(
        self, upload: CertificateUpload, *, listener: UploadListener, bulk: bool, source: SourceFile
    ) -> Receipt:
        listener(UploadStep("sending", 1, datetime.now(UTC)))
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as cancelled:
            for _ in range(8):
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.001)
            cancelled.__cause__ = doubt_of(upload)
            raise
        raise AssertionError


@pytest.mark.parametrize("all_tasks", [False, True], ids=["the run", "all tasks"])
async def test_cancelled_twice_every_row_still_has_one_end(tmp_path: Path, events: Events, all_tasks: bool) -> None:
    """The second time is a second Ctrl-C, or the loop that is closed."""
    manifest = rows_of(tmp_path, 10)
    with queue_of(cast(Springest, StubbornClient([], 3)), manifest, events) as queue:
        going = asyncio.create_task(queue.run())
        await events.until(lambda: len(events.steps) == 3)
        going.cancel()
        await asyncio.sleep(0.002)
        assert not going.done()
        for task in asyncio.all_tasks() - {asyncio.current_task()} if all_tasks else {going}:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going

    assert events.states == dict.fromkeys((2, 3, 4), State.IN_DOUBT)
    assert Counter(states(manifest).values()) == {State.IN_DOUBT: 3, State.WAITING: 7}


class GatedClient(ModelClient):
    """Stands in for a client whose uploads wait for what they are told to wait for, by the name of the file."""

    def __init__(
        self, scripts: list[Script], concurrency: int, gates: dict[str, Callable[[], Awaitable[None]]]
    ) -> None:
        super().__init__(scripts, concurrency)
        self._gates = gates

    async def upload(
        self, upload: CertificateUpload, *, listener: UploadListener, bulk: bool, source: SourceFile
    ) -> Receipt:
        listener(UploadStep("waiting", 1, datetime.now(UTC)))
        await self._gates[source.path.name]()
        return await super().upload(upload, listener=listener, bulk=bulk, source=source)


async def test_a_row_that_gets_the_id_of_one_that_is_gone_is_taken_by_one_worker_at_a_time_and_again(
    tmp_path: Path, events: Events
) -> None:
    """SQLite gives the id of a renamed row's own entry, which is gone, to the next new one.

    That is the last row's, whose file is another one since the manifest was loaded; it is not stored at first. Its turn
    begins and ends around the end of the renamed row's.
    """
    manifest = rows_of(tmp_path, 3)
    with Journal.open(default_path(manifest.path)) as journal:
        journal.load(manifest, ModelClient.origin)
        for entry in list(journal.entries()):
            identified(journal, entry)
            if entry.number == 3:
                journal.ended(entry.id, State.FAILED, at=NOW)
    old = {number: entry.id for number, entry in entries(manifest).items()}
    (tmp_path / "2.pdf").rename(tmp_path / "jan.pdf")
    manifest = rewrite(manifest, lambda lines: [line.replace("2.pdf", "jan.pdf") for line in lines])
    model = GatedClient(
        [PLAIN, PLAIN, ENDS["in doubt and not stored"], PLAIN],
        concurrency=2,
        gates={
            "1.pdf": lambda: events.until(lambda: events.count(3, "waiting") > 0),
            "jan.pdf": lambda: events.until(lambda: events.count(4, "waiting") > 0),
            "3.pdf": lambda: events.until(lambda: any(event.row.number == 3 for event in events.done)),
        },
    )
    with queue_of(cast(Springest, model), manifest, events) as queue:
        loaded = {number: entry.id for number, entry in entries(manifest).items()}
        (tmp_path / "3.pdf").write_bytes(certificate("another one"))
        async with asyncio.timeout(A_WHILE):
            assert await queue.run() is None

    assert (loaded[2], loaded[4]) == (old[2], old[4])
    assert {event.row.number: event.row.id for event in events.done} == {2: old[2], 3: old[3], 4: loaded[3]}
    assert events.states == dict.fromkeys((2, 3, 4), State.STORED)
    assert [events.count(row, "sending") for row in (2, 3, 4)] == [1, 1, 2]
    assert [len(model.stored[email]) for email in employees(1, 2, 3)] == [1, 1, 1]


@pytest.mark.parametrize(("bug", "end"), [("a bug", State.IN_DOUBT), ("a bug before", State.WAITING)])
async def test_a_bug_in_the_client_is_raised_and_no_row_is_lost(
    tmp_path: Path, events: Events, bug: str, end: State
) -> None:
    manifest = rows_of(tmp_path, 4)
    with (
        queue_of(cast(Springest, ModelClient([ENDS[bug]], 1)), manifest, events) as queue,
        pytest.raises(ExceptionGroup) as caught,
    ):
        await queue.run()

    assert caught.group_contains(RuntimeError, match="of this")
    # When it was being sent, nobody can tell how far that went.
    assert events.states == {2: end}
    assert states(manifest) == {2: end} | dict.fromkeys((3, 4, 5), State.WAITING)


@pytest.mark.parametrize("whose", ["the client's", "the listener's"])
async def test_a_bug_stops_the_run_before_it_is_told_so_that_no_other_worker_takes_the_row_again(
    tmp_path: Path, events: Events, whose: str
) -> None:
    """The listener's bug is in the telling as well."""
    Watched.taken = 0
    manifest = rows_of(tmp_path, 1)
    seen: list[str] = []

    def listen(event: Event) -> None:
        events(event)
        seen.append(f"{type(event).__name__} {'stopping' if 'stopping' in repr(queue) else 'running'}")
        if whose == "the listener's":
            raise RuntimeError("nobody thought of this")

    model = ModelClient([ENDS["a bug before"] if whose == "the client's" else PLAIN], 2)
    with Watched.open(default_path(manifest.path)) as journal:
        journal.load(manifest, model.origin)
        queue = UploadQueue(cast(Springest, model), journal, listen)
        async with asyncio.timeout(A_WHILE):
            with pytest.raises(ExceptionGroup) as caught:
                await queue.run()

    assert caught.group_contains(RuntimeError, match="of this")
    assert seen == ["RowStep running", "RowDone stopping"]
    assert events.states == {2: State.WAITING}
    assert (Watched.taken, model.stored) == (1, {})
    assert states(manifest) == {2: State.WAITING}


async def test_a_bug_in_the_listener_is_raised_and_what_it_did_not_hear_of_is_not_sent(tmp_path: Path) -> None:
    manifest = rows_of(tmp_path, 2)

    def listen(event: Event) -> None:
        if isinstance(event, RowStep) and event.step.kind == "sending":
            raise RuntimeError("nobody thought of this")

    async with Sandbox() as sandbox, client_of(sandbox, concurrency=1) as springest:
        with Journal.open(default_path(manifest.path)) as journal:
            journal.load(manifest, sandbox.origin)
            with pytest.raises(ExceptionGroup):
                await UploadQueue(springest, journal, listen).run()

        assert sandbox.audit == ()
        assert (await resume(sandbox, manifest)).states == {2: State.STORED, 3: State.STORED}
    assert stored_once(sandbox) == employees(1, 2)
