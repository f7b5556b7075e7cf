"""One event loop after another, loops in threads, forks, and clients that share a limiter."""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from springest_async.errors import ConfigurationError
from springest_async.limits.budgets import shared_limiter
from springest_async.limits.limiter import Limiter

from .virtual import (
    ANSWER,
    SILENCE,
    New,
    Result,
    about,
    new_loop,
    now,
    post,
    probe,
    run_in_virtual_time,
)


@pytest.fixture
def abandon() -> Iterator[Callable[..., None]]:
    """Return a function that begins what it is given on an event loop, and closes the loop a second later."""
    left: list[asyncio.Task[Any]] = []

    def abandon(*mains: Coroutine[Any, Any, Any]) -> None:
        loop = new_loop()
        left.extend(loop.create_task(main) for main in mains)
        loop.run_until_complete(asyncio.sleep(1.0))
        loop.close()

    yield abandon
    for task in left:
        task._log_destroy_pending = False  # type: ignore[attr-defined] # its closed loop can never finish it


def test_a_token_goes_on_resting_in_the_next_event_loop(new: New) -> None:
    limiter = new(posts=1)

    assert run_in_virtual_time(post(limiter)) == 0.0
    assert run_in_virtual_time(post(limiter), start=10.0) == about(SILENCE)


def test_a_slow_pace_stays_slow_in_the_next_event_loop(new: New) -> None:
    limiter = new()

    async def refused() -> None:
        await post(limiter)
        limiter.slow_down(1)

    async def forecast() -> float:
        assert limiter.slow
        return limiter.seconds_until(1)

    run_in_virtual_time(refused())

    assert run_in_virtual_time(forecast(), start=10.0) == about(SILENCE - 10.0)
    assert run_in_virtual_time(post(limiter), start=10.0) == about(SILENCE)


def test_a_post_whose_loop_was_closed_counts_as_unanswered(new: New, abandon: Callable[..., None]) -> None:
    limiter = new(posts=1)
    abandon(post(limiter, lasting=1000.0))

    assert run_in_virtual_time(post(limiter), start=1.0) == about(ANSWER + SILENCE)


def test_a_probe_whose_loop_was_closed_holds_no_post_back(new: New, abandon: Callable[..., None]) -> None:
    limiter = new()
    abandon(probe(limiter, pause=2.0, lasting=1000.0))

    assert run_in_virtual_time(post(limiter), start=1.0) == 1.0


def test_a_loop_closed_with_waiters_leaves_the_limiter_usable(new: New, abandon: Callable[..., None]) -> None:
    limiter = new(posts=1)
    abandon(post(limiter, lasting=1000.0), post(limiter))

    async def use() -> float:
        sent = await post(limiter)
        with limiter._ledger.peek() as bucket:
            assert bucket.queue == []
        return sent

    assert run_in_virtual_time(use(), start=1.0) == about(ANSWER + SILENCE)


def test_the_hourly_budget_is_not_refilled_by_another_event_loop() -> None:
    limiter = Limiter()

    async def requests(number: int) -> float:
        for _ in range(number):
            await limiter.request()
        return now()

    assert run_in_virtual_time(requests(400)) == 0.0
    assert run_in_virtual_time(requests(11), start=10.0) == 11.0


async def on_another_loop(use: Coroutine[Any, Any, Result]) -> Result:
    """Run it on an event loop in another thread, while this loop runs."""
    return await asyncio.to_thread(asyncio.run, use)


async def test_a_second_loop_is_refused_while_the_first_sends(new: New) -> None:
    limiter = new()
    async with limiter.post(count_window=ANSWER) as permit:
        with pytest.raises(ConfigurationError, match="two event loops use this host and key at the same time"):
            await on_another_loop(post(limiter))
        permit.mark_answered()

    await post(limiter)  # the first loop goes on
    assert repr(limiter).startswith("<Limiter 30 in 60 s, 0 under way, 2 resting")


async def test_a_second_loop_is_refused_while_the_first_waits(new: New) -> None:
    limiter = new(posts=1)
    await post(limiter)
    for waiting in (asyncio.create_task(post(limiter)), asyncio.create_task(probe(limiter, pause=None))):
        await asyncio.sleep(0)
        with pytest.raises(ConfigurationError, match="two event loops"):
            await on_another_loop(post(limiter))
        waiting.cancel()
        await asyncio.wait([waiting])

    with pytest.raises(TimeoutError):
        await on_another_loop(asyncio.wait_for(post(limiter), 0))


async def test_loops_of_which_one_is_idle_take_turns(new: New) -> None:
    limiter = new()
    for _ in range(3):
        await post(limiter)
        await on_another_loop(post(limiter))
        await on_another_loop(probe(limiter, pause=0.0))

    assert repr(limiter).startswith("<Limiter 30 in 60 s, 0 under way, 9 resting")


async def test_requests_on_any_loop_keep_no_other_loop_out(new: New) -> None:
    limiter = new()
    async with limiter.post(count_window=ANSWER) as permit:
        await asyncio.gather(*(on_another_loop(limiter.request()) for _ in range(3)))
        await on_another_loop(asyncio.sleep(0, limiter.slow))
        permit.mark_answered()

    async def hold(entered: threading.Event, leave: threading.Event) -> None:
        await limiter.request()
        entered.set()
        leave.wait()

    entered, leave = threading.Event(), threading.Event()
    holding = asyncio.create_task(on_another_loop(hold(entered, leave)))
    await asyncio.to_thread(entered.wait)
    await post(limiter)
    leave.set()
    await holding


def test_clients_with_one_budget_share_one_limiter() -> None:
    assert shared_limiter("one budget", Limiter) is shared_limiter("one budget", Limiter)


def test_clients_with_different_budgets_do_not_share() -> None:
    assert shared_limiter("one host", Limiter) is not shared_limiter("another host", Limiter)


@pytest.mark.parametrize(
    "other",
    [Limiter(posts=60), Limiter(burst=1), Limiter(period=30.0), Limiter(requests_per_hour=5000)],
    ids=["posts", "burst", "period", "requests per hour"],
)
def test_one_budget_with_other_numbers_is_refused(other: Limiter) -> None:
    limiter = shared_limiter("one budget, two limits", Limiter)

    with pytest.raises(ConfigurationError, match="30 POSTs a minute, a burst of 30 and 4000 requests an hour"):
        shared_limiter("one budget, two limits", lambda: other)
    assert shared_limiter("one budget, two limits", Limiter) is limiter


async def test_a_forked_process_leaves_its_parents_posts_alone(new: New, monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = new()
    async with limiter.post(count_window=ANSWER) as permit:
        parent = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: parent + 1)
        await asyncio.to_thread(asyncio.run, post(limiter))
        permit.mark_answered()

    assert repr(limiter).startswith("<Limiter 30 in 60 s, 0 under way, 2 resting")


def test_a_second_loop_is_refused_while_the_first_is_paused(new: New) -> None:
    """A loop that stands still between two `run_until_complete` goes on with its POSTs later."""
    limiter = new()
    first = asyncio.new_event_loop()

    async def begin() -> asyncio.Task[None]:
        sending = asyncio.create_task(send_for_ever())
        await asyncio.sleep(0)
        return sending

    async def send_for_ever() -> None:
        async with limiter.post(count_window=ANSWER):
            await asyncio.get_running_loop().create_future()

    sending = first.run_until_complete(begin())
    with pytest.raises(ConfigurationError, match="two event loops"):
        asyncio.run(post(limiter))
    sending.cancel()
    first.run_until_complete(asyncio.wait([sending]))
    asyncio.run(post(limiter))
    first.close()
