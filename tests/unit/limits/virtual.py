"""What the tests of the limiter share: event loops with a virtual clock, a shared ledger with that clock, and POSTs.

The loops' clocks count in 2**-20 s, so that the sums of times that ``aiolimiter`` makes are exact. With decimal ticks a
rounding error of 1e-16 tokens may remain, for which it waits in steps of no time at all; a real clock moves on
meanwhile, a virtual one does not.
"""

import asyncio
import functools
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import repeat
from typing import Any, ParamSpec, TypeVar

import looptime
import pytest
from attrs import define, field

from springest_async.errors import ConfigurationError
from springest_async.limits.bucket import Bucket, Change, Intent, Lease
from springest_async.limits.limiter import Limiter

__all__ = [
    "ANSWER",
    "PERIOD",
    "SILENCE",
    "TICK",
    "New",
    "Place",
    "Result",
    "SharedLedger",
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

    @pytest.mark.looptime(start=0, resolution=TICK, noop_cycles=0)
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


@define
class Place:
    """What all processes see of one bucket: its state as text, a row for each token, and what else was recorded."""

    state: str = field(factory=lambda: json.dumps(Bucket().dump()))
    tokens: dict[str, tuple[float | None, float]] = field(factory=dict)
    recorded: list[object] = field(factory=list)

    def load(self) -> Bucket:
        return Bucket.load(json.loads(self.state), [(name, *times) for name, times in self.tokens.items()])

    def save(self, bucket: Bucket, record: object | None) -> None:
        self.state = json.dumps(bucket.dump(), allow_nan=False)
        for name in bucket.touched:
            match bucket.token(name):
                case Lease(counted_until, back_at):
                    self.tokens[name] = counted_until, back_at
                case None:
                    self.tokens.pop(name, None)
                case back_at:
                    self.tokens[name] = None, back_at
        if record is not None:
            self.recorded.append(record)


_THREAD = ThreadPoolExecutor(1)


@define(eq=False)
class SharedLedger:
    """The ledger of one process, which shares a place with others and can fail; a killed one changes nothing any more.

    Every change runs in another thread, and twice, because the first try is undone. Its clock is not that of the loop.
    `delays` are the seconds before and after each commit. With `results_are_lost`, the first try is kept too.
    """

    place: Place
    delays: Iterator[float] | None = None
    failure: str = ""
    changes: int = 0
    results_are_lost: bool = False
    _notes: list[Callable[[], None]] = field(factory=list, init=False)
    _seen: Bucket = field(factory=Bucket, init=False)

    def now(self) -> float:
        return now() + 1000.0

    @contextmanager
    def peek(self) -> Iterator[Bucket]:
        if not self.failure:
            self._seen = self.place.load()
        before = self._seen.dump(), repr(self._seen)
        yield self._seen
        assert (self._seen.dump(), repr(self._seen)) == before

    async def change(self, change: Change, intent: Intent | None = None) -> float:
        delays = repeat(0.0) if self.delays is None else self.delays
        await asyncio.sleep(next(delays))
        result = self._commit(change, lambda result: intent if result == 0 else None)
        await asyncio.sleep(next(delays))
        return result

    def note(self, change: Callable[[Bucket, float], object], outcome: object | None = None) -> None:
        def commit() -> None:
            try:
                self._commit(change, lambda _: outcome)
            except ConfigurationError as error:
                logging.getLogger(__name__).warning("not noted: %s", error)

        if self.delays is None:
            commit()
        else:
            self._notes.append(commit)
            asyncio.get_running_loop().call_later(next(self.delays), self._note_next)

    def _note_next(self) -> None:
        self._notes.pop(0)()

    def _commit(self, change: Callable[[Bucket, float], Result], record: Callable[[Result], object]) -> Result:
        if self.failure:
            raise ConfigurationError(self.failure)
        self.changes += 1
        at = self.now()
        bucket = self.place.load()
        _THREAD.submit(change, bucket, at).result()
        if self.results_are_lost:
            self.place.save(bucket, None)
        bucket = self.place.load()
        result = _THREAD.submit(change, bucket, at).result()
        self.place.save(bucket, record(result))
        return result


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
