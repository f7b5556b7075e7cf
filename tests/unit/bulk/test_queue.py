"""The queue over real sockets on loopback, and its bookkeeping with a client that does what a script says."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import attrs
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from hypothesis import given
from hypothesis import strategies as st

from springest_async import (
    CertificateUpload,
    Forbidden,
    InDoubt,
    InvalidUpload,
    Limiter,
    ManifestError,
    NotAuthorized,
    NotFound,
    NotSent,
    Receipt,
    Redirected,
    Rejected,
    Settings,
    Springest,
    SpringestError,
    UnexpectedStatus,
    UnusableFile,
)
from springest_async.bulk import COLUMNS, Manifest, Row, RowDone, RowStep, State, UploadQueue
from springest_async.delivery import UploadListener, UploadStep
from springest_async.retry import TRIES
from springest_async.sandbox import Sandbox
from tests.pdfs import archive

Answer = Callable[[str], Any]  # from an e-mail address to the awaitable answer to its POST


class Events:
    """Listens, and keeps it all."""

    def __init__(self) -> None:
        self.done: list[RowDone] = []
        self.steps: list[RowStep] = []
        self._waiters: list[tuple[Callable[[], bool], asyncio.Event]] = []

    def __call__(self, event: RowStep | RowDone) -> None:
        if isinstance(event, RowDone):
            self.done.append(event)
        else:
            self.steps.append(event)
        for condition, reached in self._waiters:
            if condition():
                reached.set()

    @property
    def states(self) -> dict[int, State]:
        """The state of each row; fails when one was told twice."""
        assert all(count == 1 for count in Counter(event.row.number for event in self.done).values())
        return {event.row.number: event.state for event in self.done}

    def error(self, row: int) -> SpringestError | None:
        (event,) = (event for event in self.done if event.row.number == row)
        return event.error

    def count(self, row: int, kind: Literal["waiting", "sending", "refused"]) -> int:
        return sum(step.row.number == row and step.step.kind == kind for step in self.steps)

    async def until(self, condition: Callable[[], bool]) -> None:
        reached = asyncio.Event()
        self._waiters.append((condition, reached))
        async with asyncio.timeout(5):
            while not condition():
                await reached.wait()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make no test wait for a backoff."""
    monkeypatch.setattr("springest_async.bulk.queue.backoff", lambda *_, **__: 0.005)
    monkeypatch.setattr("springest_async.delivery.backoff", lambda *_, **__: 0.005)


def rows_of(folder: Path, count: int, **cells: dict[int, dict[str, str]]) -> Manifest:
    return Manifest.open(archive(folder, count, changes=cells.get("changes")))


def client(origin: str, *, key: str = "key", limiter: Limiter | None = None, concurrency: int = 8) -> Springest:
    settings = Settings(limiter=limiter or Limiter(), concurrency=concurrency)
    return Springest(api_key=key, host=origin, settings=settings)


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[str]:
    """Serve POSTs: each body is read whole, and then answered as its e-mail address asks for."""

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


# --- the rows that come to their end ---


async def test_every_row_is_stored_and_told_once(tmp_path: Path, events: Events) -> None:
    async with Sandbox() as sandbox, client(sandbox.origin, key=sandbox.api_key) as springest:
        error = await UploadQueue(springest, rows_of(tmp_path, 12), events).run()

        assert error is None
        assert events.states == dict.fromkeys(range(2, 14), State.STORED)
        assert {event.receipt.id for event in events.done if event.receipt} == set(range(1, 13))
        assert {event.error for event in events.done} == {None}
        assert sandbox.summary().stored == 12


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
    async with Sandbox() as sandbox, client(sandbox.origin, key=sandbox.api_key, concurrency=1) as springest:
        error = await UploadQueue(springest, manifest, events).run()

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


async def test_a_manifest_without_rows_is_done_at_once(tmp_path: Path, events: Events) -> None:
    async with client("http://127.0.0.1:9") as springest:
        assert await UploadQueue(springest, rows_of(tmp_path, 0), events).run() is None

    assert (events.states, events.steps) == ({}, [])


async def test_an_answer_that_tells_nothing_leaves_its_row_in_doubt_and_the_run_goes_on(
    tmp_path: Path, events: Events
) -> None:
    async def answer(email: str) -> web.Response:
        return web.Response(status=500, text="oops") if email == "employee2@example.org" else await created()

    async with server(answer) as origin, client(origin, concurrency=1) as springest:
        error = await UploadQueue(springest, rows_of(tmp_path, 4), events).run()

    assert error is None
    assert events.states == {2: State.STORED, 3: State.IN_DOUBT, 4: State.STORED, 5: State.STORED}
    doubt = events.error(3)
    assert isinstance(doubt, InDoubt)
    assert (doubt.email, doubt.certification_id, doubt.status) == ("employee2@example.org", 1, 500)
    assert events.count(3, "sending") == 1


@pytest.mark.parametrize("status", [405, 410, 418])
async def test_an_unknown_refusal_fails_its_row_only(tmp_path: Path, events: Events, status: int) -> None:
    async def answer(email: str) -> web.Response:
        return web.Response(status=status) if email == "employee1@example.org" else await created()

    async with server(answer) as origin, client(origin, concurrency=1) as springest:
        assert await UploadQueue(springest, rows_of(tmp_path, 2), events).run() is None

    assert events.states == {2: State.FAILED, 3: State.STORED}
    assert isinstance(events.error(2), UnexpectedStatus)


# --- how many are in flight ---


class Watched(Manifest):
    """A manifest that counts how many of its rows were taken."""

    taken: ClassVar[int] = 0

    def __iter__(self) -> Iterator[Row]:
        for row in super().__iter__():
            type(self).taken += 1
            yield row


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_no_more_rows_are_taken_than_can_be_in_flight(tmp_path: Path, concurrency: int) -> None:
    Watched.taken = 0
    manifest = Watched.open(archive(tmp_path, 20))
    done = 0
    in_flight: list[int] = []

    def listen(event: RowStep | RowDone) -> None:
        nonlocal done
        in_flight.append(Watched.taken - done)
        done += isinstance(event, RowDone)

    async with server(created) as origin, client(origin, concurrency=concurrency) as springest:
        await UploadQueue(springest, manifest, listen).run()

    assert done == 20
    assert max(in_flight) == concurrency


# --- stop ---


async def test_stop_lets_a_post_end_and_gives_up_what_waits(tmp_path: Path, events: Events) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def answer(_: str) -> web.Response:
        arrived.set()
        await go_on.wait()
        return await created()

    async with server(answer) as origin, client(origin, limiter=Limiter(posts=1), concurrency=2) as springest:
        queue = UploadQueue(springest, rows_of(tmp_path, 4), events)
        run = asyncio.create_task(queue.run())
        await arrived.wait()
        await events.until(lambda: events.count(3, "waiting") == 1)
        assert repr(queue) == f"<UploadQueue {tmp_path / 'certificates.csv'}, 2 in flight, going>"

        queue.stop()
        await events.until(lambda: len(events.done) == 1)
        assert events.states == {3: State.WAITING}
        assert repr(queue) == f"<UploadQueue {tmp_path / 'certificates.csv'}, 1 in flight, stopping>"
        go_on.set()
        error = await run

    assert error is None
    assert events.states == {2: State.STORED, 3: State.WAITING, 4: State.WAITING, 5: State.WAITING}
    assert events.error(3) is None


async def test_a_queue_that_is_stopped_before_it_runs_sends_nothing(tmp_path: Path, events: Events) -> None:
    async with Sandbox() as sandbox, client(sandbox.origin, key=sandbox.api_key) as springest:
        queue = UploadQueue(springest, rows_of(tmp_path, 3), events)
        queue.stop()
        queue.stop()

        assert await queue.run() is None

    assert events.states == dict.fromkeys((2, 3, 4), State.WAITING)
    assert sandbox.audit == ()


async def test_a_row_that_is_refused_after_stop_is_not_sent_again(tmp_path: Path, events: Events) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def answer(_: str) -> web.Response:
        arrived.set()
        await go_on.wait()
        return web.Response(status=400, text="Bad Request")

    async with server(answer) as origin, client(origin) as springest:
        queue = UploadQueue(springest, rows_of(tmp_path, 1), events)
        run = asyncio.create_task(queue.run())
        await arrived.wait()
        queue.stop()
        go_on.set()
        async with asyncio.timeout(1):
            await run

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
    async with server(never) as origin, client(origin, limiter=Limiter(posts=1), concurrency=2) as springest:
        run = asyncio.create_task(UploadQueue(springest, rows_of(tmp_path, 4), events).run())
        await arrived.wait()
        await events.until(lambda: events.count(3, "waiting") == 1)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

    assert events.states == {2: State.IN_DOUBT, 3: State.WAITING, 4: State.WAITING, 5: State.WAITING}
    doubt = events.error(2)
    assert isinstance(doubt, InDoubt)
    assert (doubt.email, doubt.certification_id) == ("employee1@example.org", 1)
    assert before <= doubt.sent_at <= datetime.now(UTC)


# --- what ends a run ---


async def test_a_refused_key_ends_the_run_with_all_rows_waiting(tmp_path: Path, events: Events) -> None:
    async with Sandbox() as sandbox, client(sandbox.origin, key="wrong", concurrency=2) as springest:
        error = await UploadQueue(springest, rows_of(tmp_path, 20), events).run()

    assert isinstance(error, NotAuthorized)
    assert events.states == dict.fromkeys(range(2, 22), State.WAITING)
    assert {type(event.error) for event in events.done} == {NotAuthorized}
    assert sandbox.summary().posts <= 2


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
        error = await UploadQueue(springest, rows_of(tmp_path, 4), events).run()

    assert isinstance(error, NotAuthorized)
    assert events.states == {2: State.STORED, 3: State.WAITING, 4: State.WAITING, 5: State.WAITING}
    assert [events.error(row) for row in (3, 4, 5)] == [error] * 3


@LOOKS_LIKE_KEY_OR_HOST
async def test_a_refused_host_or_key_at_the_very_beginning_ends_the_run(
    tmp_path: Path, events: Events, status: int, kind: type[SpringestError]
) -> None:
    async with scripted_server([status]) as origin, client(origin, concurrency=1) as springest:
        error = await UploadQueue(springest, rows_of(tmp_path, 2), events).run()

    assert isinstance(error, kind)
    assert events.states == {2: State.WAITING, 3: State.WAITING}


@LOOKS_LIKE_KEY_OR_HOST
async def test_later_on_it_may_be_the_row_and_the_run_goes_on(
    tmp_path: Path, events: Events, status: int, kind: type[SpringestError]
) -> None:
    statuses = [201, status, 201, status, 201]
    async with scripted_server(statuses) as origin, client(origin, concurrency=1) as springest:
        assert await UploadQueue(springest, rows_of(tmp_path, 5), events).run() is None

    stored, failed = State.STORED, State.FAILED
    assert events.states == {2: stored, 3: failed, 4: stored, 5: failed, 6: stored}
    assert isinstance(events.error(3), kind)


@LOOKS_LIKE_KEY_OR_HOST
async def test_a_second_such_answer_in_a_row_ends_the_run(
    tmp_path: Path, events: Events, status: int, kind: type[SpringestError]
) -> None:
    async with scripted_server([201, status, status]) as origin, client(origin, concurrency=1) as springest:
        error = await UploadQueue(springest, rows_of(tmp_path, 4), events).run()

    assert isinstance(error, kind)
    assert events.states == {2: State.STORED, 3: State.FAILED, 4: State.WAITING, 5: State.WAITING}
    assert [events.error(row) for row in (4, 5)] == [error] * 2


async def test_a_rejected_row_in_between_shows_that_key_and_host_are_right(tmp_path: Path, events: Events) -> None:
    statuses = [201, 403, 400, 403, 201]
    async with scripted_server(statuses) as origin, client(origin, concurrency=1) as springest:
        error = await UploadQueue(springest, rows_of(tmp_path, 5), events).run()

    assert error is None
    assert events.states == {2: State.STORED, 3: State.FAILED, 4: State.REJECTED, 5: State.FAILED, 6: State.STORED}


@pytest.mark.usefixtures("quick")
async def test_no_connection_at_the_very_beginning_ends_the_run(tmp_path: Path, events: Events) -> None:
    async with client(f"http://127.0.0.1:{unused_port()}", concurrency=2) as springest:
        error = await UploadQueue(springest, rows_of(tmp_path, 5), events).run()

    assert isinstance(error, NotSent)
    assert not error.connected
    assert events.states == dict.fromkeys(range(2, 7), State.WAITING)


async def test_a_manifest_that_breaks_off_ends_the_run_and_harms_no_row(tmp_path: Path, events: Events) -> None:
    path = archive(tmp_path, 2)
    with path.open("ab") as stream:
        stream.write(b'"3.pdf,1,')
    manifest = Manifest.open(path)
    slow = asyncio.Event()

    async def answer(email: str) -> web.Response:
        if email == "employee1@example.org":
            slow.set()
            await events.until(lambda: len(events.done) == 1)
            await asyncio.sleep(0.02)
        else:
            await slow.wait()  # so that the row that is answered last is under way when the manifest breaks off
        return await created()

    async with server(answer) as origin, client(origin, concurrency=2) as springest:
        error = await UploadQueue(springest, manifest, events).run()

    assert isinstance(error, ManifestError)
    assert error.reason == "row 4 is no CSV: unexpected end of data"
    assert events.states == {2: State.STORED, 3: State.STORED}


@pytest.mark.parametrize("padding", [0, 3000], ids=["read at once", "read in pieces"])
@pytest.mark.parametrize("concurrency", [1, 4])
async def test_rows_inserted_at_the_top_meanwhile_double_nothing(
    tmp_path: Path, events: Events, concurrency: int, padding: int
) -> None:
    """The rows below shift, and those that were posted would come again."""
    path = archive(tmp_path, 20, changes={n: {"note": "x" * padding} for n in range(1, 21)}, columns=(*COLUMNS, "note"))
    manifest = Manifest.open(path)
    header, rest = path.read_text().split("\n", 1)
    new = "".join(f"1.pdf,1,new{number}@example.org,2026-01-31,,,{'y' * padding}\n" for number in range(7))
    posted: list[str] = []

    async def answer(email: str) -> web.Response:
        posted.append(email)
        if len(posted) == 5:
            path.write_text(f"{header}\n{new}{rest}")
        return await created()

    async with server(answer) as origin, client(origin, concurrency=concurrency) as springest:
        async with asyncio.timeout(5):
            error = await UploadQueue(springest, manifest, events).run()

    assert isinstance(error, ManifestError)
    assert "changed after it was checked" in error.reason
    assert len(set(posted)) == len(posted) < 5 + concurrency
    assert not any(email.startswith("new") for email in posted)
    assert set(events.states.values()) == {State.STORED}


async def test_a_manifest_that_changes_before_a_cancelled_run_ends_is_no_other_exception(
    tmp_path: Path, events: Events
) -> None:
    arrived = asyncio.Event()

    async def never(_: str) -> web.Response:
        arrived.set()
        await asyncio.Event().wait()
        raise AssertionError

    manifest = rows_of(tmp_path, 3)
    async with server(never) as origin, client(origin, concurrency=1) as springest:
        run = asyncio.create_task(UploadQueue(springest, manifest, events).run())
        await arrived.wait()
        manifest.path.write_text("")
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

    assert events.states == {2: State.IN_DOUBT}


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
    flow: list[tuple[int, str]] = []

    def listen(event: RowStep | RowDone) -> None:
        events(event)
        if isinstance(event, RowDone):
            flow.append((event.row.number, "done"))
        elif event.step.kind == "sending":
            flow.append((event.row.number, "sending"))

    async def answer(email: str) -> web.Response:
        if int(email.removeprefix("employee").partition("@")[0]) < last_in_doubt:
            return web.Response(status=503)
        await asyncio.sleep(0.02)
        return await created()

    async with server(answer) as origin, client(origin, concurrency=concurrency) as springest:
        assert await UploadQueue(springest, rows_of(tmp_path, 28), listen).run() is None

    in_doubt = dict.fromkeys(range(2, last_in_doubt + 1), State.IN_DOUBT)
    assert events.states == in_doubt | dict.fromkeys(range(last_in_doubt + 1, 30), State.STORED)
    # Those that were in flight when the fourth was in doubt come to their end; from then on there is one at a time.
    first_alone = 2 + 4 + concurrency - 1
    alone = [step for step in flow if first_alone <= step[0] <= last_in_doubt + 1]
    assert alone == [(row, step) for row in range(first_alone, last_in_doubt + 2) for step in ("sending", "done")]
    assert pauses[-1] == 12  # the last one is the row that ends the outage
    assert min(pauses) >= 4
    assert last_in_doubt + 2 - first_alone <= len(pauses) <= last_in_doubt + 2 - 6
    in_flight = [0]
    for row, step in flow:
        if row > last_in_doubt + 1:
            in_flight.append(in_flight[-1] + (1 if step == "sending" else -1))
    assert max(in_flight) == concurrency


async def test_rows_in_doubt_with_others_in_between_are_no_outage(
    tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("springest_async.bulk.queue.backoff")
    statuses = [503, 503, 503, 201, 503, 503, 503, 400, 503]
    async with scripted_server(statuses) as origin, client(origin, concurrency=1) as springest:
        assert await UploadQueue(springest, rows_of(tmp_path, 9), events).run() is None

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
    async with scripted_server([503] * 20) as origin, client(origin, concurrency=3) as springest:
        queue = UploadQueue(springest, rows_of(tmp_path, 12), events)
        run = asyncio.create_task(queue.run())
        await paused.wait()
        await events.until(lambda: len(events.done) >= 4)
        if end == "stop":
            queue.stop()
        else:
            run.cancel()
        async with asyncio.timeout(1):
            await asyncio.wait([run])

    assert run.cancelled() == (end == "cancel")
    assert events.states.keys() == set(range(2, 14))
    assert set(events.states.values()) == {State.IN_DOUBT, State.WAITING}
    assert list(events.states.values()).count(State.WAITING) >= 6


# --- a network that fails and comes back ---


@pytest.mark.usefixtures("quick")
async def test_a_network_that_was_lost_is_waited_for(tmp_path: Path, events: Events) -> None:
    # A token that rests for a moment gives the time to take the server away between two rows.
    limiter = Limiter(posts=1, period=0.1)
    sandbox = Sandbox(port=unused_port())
    origin = f"http://127.0.0.1:{sandbox.port}"
    async with client(origin, key=sandbox.api_key, limiter=limiter, concurrency=1) as springest:
        async with sandbox:
            run = asyncio.create_task(UploadQueue(springest, rows_of(tmp_path, 3), events).run())
            await events.until(lambda: len(events.done) == 1)
        # More tries than one upload makes, so that it is the queue that waits.
        await events.until(lambda: events.count(3, "sending") == TRIES + 2)
        assert events.states == {2: State.STORED}
        async with sandbox:
            error = await run

    assert error is None
    assert events.states == dict.fromkeys((2, 3, 4), State.STORED)
    assert sandbox.summary().stored == 3


async def lose_the_network(
    events: Events, folder: Path, end: Callable[[UploadQueue, asyncio.Task[Any]], object]
) -> None:
    """Store the first of three rows, take the server away until the queue waits for it, and then do `end`."""
    sandbox = Sandbox(port=unused_port())
    limiter = Limiter(posts=1, period=0.2)
    origin = f"http://127.0.0.1:{sandbox.port}"
    async with client(origin, key=sandbox.api_key, limiter=limiter, concurrency=1) as springest:
        queue = UploadQueue(springest, rows_of(folder, 3), events)
        async with sandbox:
            run = asyncio.create_task(queue.run())
            await events.until(lambda: len(events.done) == 1)
        await events.until(lambda: events.count(3, "sending") == TRIES)
        await asyncio.sleep(0.05)
        end(queue, run)
        async with asyncio.timeout(1):
            await asyncio.wait([run])


@pytest.fixture
def long_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an upload give up soon, and the queue wait for long."""
    monkeypatch.setattr("springest_async.bulk.queue.backoff", lambda *_, **__: 30.0)
    monkeypatch.setattr("springest_async.delivery.backoff", lambda *_, **__: 0.005)


@pytest.mark.usefixtures("long_pause")
async def test_stop_does_not_wait_for_the_network(tmp_path: Path, events: Events) -> None:
    await lose_the_network(events, tmp_path, lambda queue, _: queue.stop())

    assert events.states == {2: State.STORED, 3: State.WAITING, 4: State.WAITING}


@pytest.mark.usefixtures("long_pause")
async def test_cancel_while_the_network_is_away_loses_no_row(tmp_path: Path, events: Events) -> None:
    await lose_the_network(events, tmp_path, lambda _, run: run.cancel())

    assert events.states == {2: State.STORED, 3: State.WAITING, 4: State.WAITING}


# --- whatever happens: one end for every row ---


@attrs.frozen
class Script:
    """What an upload does: its steps, with turns of the loop between them, and how it ends."""

    steps: tuple[Literal["waiting", "sending", "refused"], ...]
    turns: int
    end: Callable[[CertificateUpload], Receipt | Exception]


class StubbornClient:
    """Stands in for the client: it sends, and takes its time to end when it is cancelled."""

    origin = "https://springest.example"
    settings = Settings(concurrency=3)

    async def upload(self, _: CertificateUpload, *, listener: UploadListener) -> Receipt:
        listener(UploadStep("sending", 1))
        try:
            await asyncio.Event().wait()
        finally:
            for _turn in range(8):
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.001)
        raise AssertionError


class ScriptedClient:
    """Stands in for the client, where only the queue's bookkeeping is looked at."""

    origin = "https://springest.example"

    def __init__(self, scripts: list[Script], concurrency: int) -> None:
        self.settings = Settings(concurrency=concurrency)
        self._scripts = iter(scripts)

    async def upload(self, upload: CertificateUpload, *, listener: UploadListener) -> Receipt:
        script = next(self._scripts, Script(("sending",), 0, receipt))
        for number, kind in enumerate(script.steps):
            listener(UploadStep(kind, number))
            for _ in range(script.turns):
                await asyncio.sleep(0)
        end = script.end(upload)
        if isinstance(end, Receipt):
            return end
        raise end


WHERE = "POST https://springest.example/users/certificates.json"
NOW = datetime(2026, 1, 31, tzinfo=UTC)


def receipt(upload: CertificateUpload) -> Receipt:
    return Receipt(id=1, upload=upload, attempts=1, sent_at=NOW, answered_at=NOW)


def doubt(upload: CertificateUpload) -> InDoubt:
    return InDoubt(WHERE, "no answer", upload.email, upload.certification_id, NOW)


ENDS: dict[str, Callable[[CertificateUpload], Receipt | Exception]] = {
    "stored": receipt,
    "in doubt": doubt,
    "rejected": lambda _: Rejected(WHERE, 400, "no"),
    "file gone": lambda upload: UnusableFile(upload.file, "gone"),
    "cut off": lambda _: NotSent(WHERE, "the connection broke"),
    "network away": lambda _: NotSent(WHERE, "no connection", connected=False),
    "key refused": lambda _: NotAuthorized(WHERE, 401, "no"),
    "a bug": lambda _: RuntimeError("nobody thought of this"),
}
SCRIPTS = st.builds(
    Script,
    steps=st.sampled_from(
        [("waiting", "sending"), ("waiting", "sending", "refused", "waiting", "sending"), ("waiting",)]
    ),
    turns=st.integers(0, 3),
    end=st.sampled_from(list(ENDS)).map(ENDS.__getitem__),
)


@pytest.fixture(scope="module")
def ten_rows(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return Manifest.open(archive(tmp_path_factory.mktemp("ten"), 10, changes={4: {"email": "no address"}}))


@given(
    scripts=st.lists(SCRIPTS, max_size=12),
    concurrency=st.integers(1, 4),
    stop_after=st.none() | st.integers(0, 12),
    cancel_after=st.sets(st.integers(1, 12), max_size=2),
)
def test_whatever_happens_every_row_has_one_end(
    ten_rows: Manifest, scripts: list[Script], concurrency: int, stop_after: int | None, cancel_after: set[int]
) -> None:
    events = Events()

    async def go() -> None:
        scripted = cast(Springest, ScriptedClient(scripts, concurrency))
        queue = UploadQueue(scripted, ten_rows, events)
        run = asyncio.create_task(queue.run())
        for turn in range(13):
            if turn == stop_after:
                queue.stop()
            if turn in cancel_after:
                run.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([run], timeout=5)
        assert run.done()
        if not run.cancelled():
            run.exception()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("springest_async.bulk.queue.backoff", lambda *_, **__: 0.0002)
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(go())

    assert sorted(events.states) == list(range(2, 12))


@pytest.mark.parametrize("all_tasks", [False, True], ids=["the run", "all tasks"])
async def test_cancelled_twice_every_row_still_has_one_end(ten_rows: Manifest, events: Events, all_tasks: bool) -> None:
    """The second time is a second Ctrl-C, or the loop that is closed."""
    run = asyncio.create_task(UploadQueue(cast(Springest, StubbornClient()), ten_rows, events).run())
    await events.until(lambda: len(events.steps) == 3)
    run.cancel()
    await asyncio.sleep(0.002)
    assert not run.done()
    for task in asyncio.all_tasks() - {asyncio.current_task()} if all_tasks else {run}:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run

    assert sorted(events.states) == list(range(2, 12))
    assert Counter(events.states.values())[State.IN_DOUBT] == 3


async def test_a_bug_in_the_client_is_raised_and_no_row_is_lost(ten_rows: Manifest, events: Events) -> None:
    scripts = [Script(("waiting", "sending"), 1, ENDS["a bug"])]
    queue = UploadQueue(cast(Springest, ScriptedClient(scripts, 1)), ten_rows, events)

    with pytest.raises(ExceptionGroup) as caught:
        await queue.run()

    assert caught.group_contains(RuntimeError, match="nobody thought of this")
    assert sorted(events.states) == list(range(2, 12))
    # It was being sent, and nobody can tell how far that went.
    assert events.states[2] is State.IN_DOUBT
