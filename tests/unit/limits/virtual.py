"""What the tests of the limiter share: event loops with a virtual clock, a file with that clock, and POSTs.

The loops' clocks count in 2**-20 s, so that the sums of times that ``aiolimiter`` makes are exact. With decimal ticks a
rounding error of 1e-16 tokens may remain, for which it waits in steps of no time at all; a real clock moves on
meanwhile, a virtual one does not.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import looptime
import pytest

from springest_async.errors import ConfigurationError
from springest_async.limits.bucket import Bucket
from springest_async.limits.limiter import Limiter
from springest_async.limits.store import FileStore

__all__ = [
    "ANSWER",
    "PERIOD",
    "SILENCE",
    "TICK",
    "New",
    "Result",
    "Store",
    "about",
    "in_virtual_time",
    "new_loop",
    "now",
    "post",
    "post_all",
    "probe",
    "run_in_virtual_time",
    "slow",
]

Given = ParamSpec("Given")
Result = TypeVar("Result")

TICK = 2**-20
ANSWER = 120.0  # seconds in which the server may count a POST that is never answered
PERIOD = 60.0
SILENCE = 60.1  # the period and its margin
FOR_EVER = 1_000_000.0  # virtual seconds: a test that comes so far waits for something that never happens


def in_virtual_time(test: Callable[Given, Awaitable[None]]) -> Callable[Given, Coroutine[Any, Any, None]]:
    """Run an async test on a virtual clock that starts at 0; a test that would hang fails at once."""

    @pytest.mark.looptime(start=0, resolution=TICK)
    @functools.wraps(test)
    async def limited(*args: Given.args, **kwargs: Given.kwargs) -> None:
        async with asyncio.timeout(FOR_EVER):
            await test(*args, **kwargs)

    return limited


def new_loop(start: float = 0.0) -> asyncio.AbstractEventLoop:
    """Make an event loop with a virtual clock of its own."""
    loop: asyncio.AbstractEventLoop = looptime.new_event_loop(start=start, resolution=TICK, noop_cycles=0)
    return loop


def run_in_virtual_time(main: Coroutine[Any, Any, Result], *, start: float = 0.0) -> Result:
    """Run `main` on an event loop of its own, as each example of a property test must."""
    with asyncio.Runner(loop_factory=lambda: new_loop(start)) as runner:
        return runner.run(asyncio.wait_for(main, FOR_EVER))


def now() -> float:
    return asyncio.get_running_loop().time()


def about(seconds: float) -> Any:
    return pytest.approx(seconds, abs=1e-4)


class Store(FileStore):
    """A file whose clock is the virtual one, and which can fail: that of a killed process changes nothing any more."""

    failure = ""
    changes = 0

    def now(self) -> float:
        return now()

    @contextmanager
    def change(self) -> Iterator[Bucket]:
        self._fail()
        self.changes += 1
        with super().change() as bucket:
            yield bucket

    def read(self) -> Bucket:
        self._fail()
        return super().read()

    def _fail(self) -> None:
        if self.failure:
            raise ConfigurationError(self.failure)


New = Callable[..., Limiter]


async def post(limiter: Limiter, *, lasting: float = 0.0, answered: bool = True, bulk: bool = False) -> float:
    """Make one POST; return when it was sent."""
    async with limiter.post(count_window=ANSWER, bulk=bulk) as permit:
        sent = now()
        await asyncio.sleep(lasting)
        if answered:
            permit.mark_answered()
    return sent


async def post_all(limiter: Limiter, posts: int, *, lasting: float = 0.0, answered: bool = True) -> list[float]:
    """Make so many POSTs at once; return when they were sent."""
    return await asyncio.gather(*(post(limiter, lasting=lasting, answered=answered) for _ in range(posts)))


async def slow(limiter: Limiter) -> Limiter:
    """Report a refusal for speed of the first POST, and wait until the silence after it is over."""
    await post(limiter)
    limiter.slow_down(1)
    await asyncio.sleep(SILENCE)
    return limiter


async def probe(limiter: Limiter, *, pause: float | None, lasting: float = 0.0) -> float:
    """Make one POST alone; return when it was sent."""
    async with limiter.probe() as post_alone, post_alone(count_window=ANSWER, pause=pause) as permit:
        sent = now()
        await asyncio.sleep(lasting)
        permit.mark_answered()
    return sent
