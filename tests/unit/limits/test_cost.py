"""What a POST costs, counted in tasks, timers, futures and calls, which no busy machine changes."""

import asyncio
import gc
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from springest_async.limits.limiter import Limiter

from .virtual import ANSWER, SILENCE, about, in_virtual_time, post, post_all

MANY = 1_000_000


@contextmanager
def counted(*methods: str) -> Iterator[Counter[str]]:
    """Count how often each of these methods of the running event loop is called in the block."""
    loop, calls = asyncio.get_running_loop(), Counter[str]()

    def counting(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def count(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return method(*args, **kwargs)

        return count

    with pytest.MonkeyPatch.context() as patch:
        for name in methods:
            patch.setattr(loop, name, counting(name, getattr(loop, name)))
        yield calls


@in_virtual_time
async def test_with_a_free_token_a_post_needs_nothing_of_the_loop() -> None:
    limiter = Limiter(posts=MANY, requests_per_hour=10 * MANY)
    with counted("create_task", "create_future", "call_soon", "call_at", "call_later") as calls:
        for _ in range(100):
            await post_at_once(limiter)

    assert calls == {}


async def post_at_once(limiter: Limiter) -> None:
    async with limiter.post(count_window=ANSWER) as permit:
        permit.mark_answered()


@in_virtual_time
async def test_a_post_calls_as_many_functions_with_30000_tokens() -> None:
    calls = []
    for tokens in (30, 300, 3_000, 30_000):
        limiter = Limiter(posts=MANY, requests_per_hour=10 * MANY)
        for _ in range(tokens):
            await post_at_once(limiter)
        calls.append(await calls_of_a_post(limiter))

    assert calls == [calls[0]] * 4


async def calls_of_a_post(limiter: Limiter) -> int:
    with calls_counted() as calls:
        await post_at_once(limiter)
        limiter.seconds_until(1)
    return len(calls)


@contextmanager
def calls_counted() -> Iterator[list[None]]:
    """Lend a list that grows with each function that begins or ends in the block."""
    calls: list[None] = []
    gc.disable()  # pytest plugins are called by it
    sys.setprofile(lambda *_: calls.append(None))
    try:
        yield calls
    finally:
        sys.setprofile(None)
        gc.enable()


@in_virtual_time
async def test_a_thousand_waiters_need_one_timer_and_no_look() -> None:
    limiter = Limiter()
    await post_all(limiter, 30)
    waiting = [asyncio.create_task(post(limiter)) for _ in range(1000)]
    await asyncio.sleep(1.0)
    with counted("create_task", "create_future", "call_soon", "call_at") as calls:
        await asyncio.sleep(50.0)
    assert calls == {"create_future": 1, "call_at": 1, "call_soon": 1}  # of this test's own sleep

    assert (await asyncio.wait_for(waiting[29], SILENCE)) == about(SILENCE)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)


@in_virtual_time
async def test_one_that_leaves_costs_the_same_beside_any_number() -> None:
    assert len({await calls_of_a_minute(others) for others in (10, 100, 1000)}) == 1


async def calls_of_a_minute(others: int) -> int:
    """Return how many functions the POSTs of a minute call, with so many others that wait behind them."""
    limiter = Limiter()
    await post_all(limiter, 30)
    waiting = [asyncio.create_task(post(limiter)) for _ in range(30 + others)]
    await asyncio.sleep(SILENCE - 1.0)
    with calls_counted() as calls:
        await waiting[29]
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    return len(calls)
