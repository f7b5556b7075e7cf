"""A watchdog ends what stands still and nothing else, in virtual time."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from springest_async.http.watchdog import Progress, Watchdog

pytestmark = pytest.mark.looptime

STALL, ANSWER = 60.0, 120.0


class Line(asyncio.Transport):
    """A connection whose buffer has a size that a test sets, above a socket if it has one."""

    def __init__(self, size: Callable[[], int], connection: socket.socket | None = None) -> None:
        super().__init__()
        self.size = size
        self.connection = connection
        self.aborted = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.connection

    def get_write_buffer_size(self) -> int:
        return self.size()

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        self.aborted = True


def now() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def watched(progress: Progress | None) -> AsyncIterator[Watchdog]:
    """Watch what the block does, from its beginning."""
    with suppress(TimeoutError):
        async with asyncio.timeout(None) as limit:
            with Watchdog(limit, stall_timeout=STALL, answer_timeout=ANSWER, progress=progress) as watchdog:
                watchdog.start()
                yield watchdog
                await asyncio.sleep(1e6)
        pytest.fail("it was not ended")


async def ends_after(progress: Progress | None) -> tuple[float, str]:
    """Return when a request is ended, in seconds, and why."""
    began = now()
    async with watched(progress) as watchdog:
        pass
    return now() - began, watchdog.verdict


def seconds(expected: float) -> Any:
    return pytest.approx(expected, abs=1.1)  # it looks once a second


async def test_a_request_without_a_body_has_the_time_for_an_answer() -> None:
    assert await ends_after(None) == (seconds(ANSWER), "no answer within the time allowed")


async def test_a_body_of_which_nothing_moves_is_ended() -> None:
    line = Line(lambda: 1000)

    assert await ends_after(Progress(line, bytes_given=1000)) == (seconds(STALL), "the upload stopped moving")
    assert line.aborted


async def test_a_line_that_moves_is_given_the_time_it_needs() -> None:
    began = now()
    line = Line(lambda: max(0, int(300 - (now() - began))))
    progress = Progress(line, bytes_given=1_000_000, fully_written=True)

    assert await ends_after(progress) == (seconds(300 + ANSWER), "no answer within the time allowed")


async def test_a_line_that_hardly_moves_is_ended() -> None:
    line = Line(lambda: int(1e9 - now()))

    assert await ends_after(Progress(line, bytes_given=102_400)) == (
        seconds(5 * STALL + 100),
        "the upload stopped moving",
    )


async def test_a_slow_disk_is_not_taken_for_a_slow_line() -> None:
    progress = Progress(reading=True)
    async with watched(progress) as watchdog:
        await asyncio.sleep(3600)
        assert watchdog.verdict == ""
        progress.reading = False
        began = now()

    assert now() - began == seconds(STALL)


async def test_the_time_for_an_answer_begins_when_all_has_arrived() -> None:
    progress = Progress(Line(lambda: 0), bytes_given=1000)
    async with watched(progress) as watchdog:
        await asyncio.sleep(50)
        progress.fully_written = True
        began = now()

    assert now() - began == seconds(ANSWER)
    assert watchdog.verdict == "no answer within the time allowed"


@pytest.mark.parametrize("connection", [None, socket.socket])
async def test_where_the_system_tells_nothing_asyncio_does(connection: type[socket.socket] | None) -> None:
    made = connection() if connection else None
    if made is not None:
        made.close()  # a socket that is closed by now tells nothing either
    began = now()
    line = Line(lambda: int(now() - began < 100), made)

    progress = Progress(line, made, bytes_given=10, fully_written=True)

    assert await ends_after(progress) == (seconds(STALL), "the upload stopped moving")


async def test_a_watchdog_that_is_stopped_ends_nothing() -> None:
    async with asyncio.timeout(None) as limit:
        with Watchdog(limit, stall_timeout=STALL, answer_timeout=ANSWER, progress=None) as watchdog:
            watchdog.start()
            await asyncio.sleep(ANSWER - 10)
            watchdog.stop()
            await asyncio.sleep(1000)

    assert watchdog.verdict == ""


async def test_an_answer_that_comes_in_the_last_moment_counts() -> None:
    line = Line(lambda: 0)
    async with asyncio.timeout(None) as limit:
        with Watchdog(limit, stall_timeout=STALL, answer_timeout=ANSWER, progress=Progress(line)) as watchdog:
            await asyncio.sleep(0)
            watchdog.start()
            watchdog._gives_up_at = 0.0  # the loop stood still for longer than is allowed, and the answer came then
            watchdog._check()

    assert watchdog.verdict != ""
    assert not line.aborted


async def test_what_was_given_up_is_aborted() -> None:
    line = Line(lambda: 0)
    with (
        suppress(asyncio.CancelledError),
        Watchdog(asyncio.timeout(None), stall_timeout=STALL, answer_timeout=ANSWER, progress=Progress(line)),
    ):
        raise asyncio.CancelledError

    assert line.aborted
