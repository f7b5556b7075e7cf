"""The ways of keeping "30 a minute" that `benchmarks.limit` compares."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from aiolimiter import AsyncLimiter

from springest_async.limits.limiter import Limiter

__all__ = ["CLIENTS", "PERIOD", "POSTS", "Pacer"]

POSTS, PERIOD = 30, 60.0

Pacer = Callable[[], AbstractAsyncContextManager[None]]
"""Entered when the POST may leave, and exited when its answer has come."""


def _pacing(posts: int, period: float) -> Pacer:
    limiter = AsyncLimiter(posts, period)
    return lambda: limiter


def _sleeping(seconds: float) -> Pacer:
    one_at_a_time = asyncio.Lock()

    @asynccontextmanager
    async def permit() -> AsyncIterator[None]:
        async with one_at_a_time:
            yield
            await asyncio.sleep(seconds)

    return permit


def _counting_from_the_send(period: float) -> Pacer:
    sent: deque[float] = deque(maxlen=POSTS)
    head_of_queue = asyncio.Lock()

    @asynccontextmanager
    async def permit() -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        async with head_of_queue:
            if len(sent) == POSTS:
                await asyncio.sleep(sent[0] + period - loop.time())
            sent.append(loop.time())
        yield

    return permit


def _resting(period: float) -> Pacer:
    limiter = Limiter(posts=POSTS, period=period)

    @asynccontextmanager
    async def permit() -> AsyncIterator[None]:
        async with limiter.post(count_window=2 * period) as post:
            yield
            post.mark_answered()

    return permit


CLIENTS: dict[str, Callable[[float], Pacer]] = {
    "`AsyncLimiter(30, 60)`": lambda period: _pacing(POSTS, period),
    "`AsyncLimiter(1, 2)`": lambda period: _pacing(1, period / POSTS),
    "one after another, and `sleep(2)`": lambda period: _sleeping(period / POSTS),
    "30 in any 60 s, counted from the send": _counting_from_the_send,
    "**30 tokens, each resting 60 s from its answer**": _resting,
}
"""Each takes the period, in seconds."""
