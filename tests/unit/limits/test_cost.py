"""What a POST costs, counted in tasks, timers, futures and calls, which no busy machine changes."""

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from springest_async.limits.limiter import Limiter

from .virtual import ANSWER, in_virtual_time

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

    assert len({*calls}) == 1


async def calls_of_a_post(limiter: Limiter) -> int:
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        await post_at_once(limiter)
        limiter.seconds_until(1)
    finally:
        sys.setprofile(None)
    return calls
