"""Processes that share a bucket in a file, and a file that fails."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from springest_async.errors import ConfigurationError
from springest_async.limits.limiter import Limiter
from springest_async.limits.store import FileStore

from .virtual import ANSWER, SILENCE, New, Store, about, in_virtual_time, now, post, post_all, probe, slow


async def share(limiters: list[Limiter], lasting: float) -> list[int]:
    """Post from all processes as fast as they may for so long; return how many POSTs each sent."""
    made: Counter[int] = Counter()

    async def work(number: int) -> None:
        while True:
            await post(limiters[number], lasting=0.25)
            made[number] += 1

    with suppress(TimeoutError):
        async with asyncio.timeout(lasting), asyncio.TaskGroup() as group:
            for number in range(len(limiters)):
                for _ in range(8):
                    group.create_task(work(number))
    return [made[number] for number in range(len(limiters))]


@in_virtual_time
async def test_processes_take_turns_and_waste_no_token(process: New) -> None:
    first, *later = (process() for _ in range(3))
    await post_all(first, 30)

    shares = await share([first, *later], 4 * SILENCE + 3.0)

    assert sum(shares) == 4 * 30
    assert min(shares) >= 4


@in_virtual_time
async def test_at_the_slow_pace_processes_take_turns_too(process: New) -> None:
    limiters = [process(), process()]
    await slow(limiters[0])

    shares = await share(limiters, 90.0)

    assert sum(shares) >= 90 / 2.25 * 0.9
    assert min(shares) >= 10


@in_virtual_time
async def test_an_interactive_post_goes_before_bulk_of_others(process: New) -> None:
    bulk, service = process(posts=3), process(posts=3)
    await post_all(service, 3)
    waiting = [asyncio.create_task(post(bulk, bulk=True)) for _ in range(6)]
    await asyncio.sleep(SILENCE + 1.0)
    assert [task.done() for task in waiting] == [True] * 3 + [False] * 3

    # All tokens come back at once: bulk is given one of them, so that it is never without any.
    assert await post_all(service, 2) == [about(2 * SILENCE)] * 2
    assert await asyncio.gather(*waiting[3:]) == [about(2 * SILENCE), about(3 * SILENCE), about(3 * SILENCE)]


@in_virtual_time
async def test_a_process_with_both_kinds_queues_as_interactive(process: New) -> None:
    both, other = process(posts=2), process(posts=2)
    await post(other, answered=False)
    await post(both)
    waiting = []
    for limiter, bulk in [(other, True), (both, True), (both, False)]:
        waiting.append(asyncio.create_task(post(limiter, bulk=bulk)))
        await asyncio.sleep(1.0)

    assert await asyncio.gather(*waiting) == [about(ANSWER + SILENCE), about(SILENCE), about(2 * SILENCE)]


@in_virtual_time
async def test_a_restart_forgets_nothing(process: New) -> None:
    await slow(process())
    await post(process())

    assert await post(process()) == about(SILENCE + 2.0)
    assert process().slow


@in_virtual_time
async def test_the_token_of_a_killed_process_comes_back(stores: Callable[[], Store], process: New) -> None:
    store, other = stores(), process(posts=1)
    under_way = asyncio.create_task(post(Limiter(posts=1, store=store), lasting=5000.0))
    await asyncio.sleep(1000.0)
    waiting = asyncio.create_task(post(other))
    await asyncio.sleep(1.0)
    store.failure = "killed"

    # It had said that it lives at most 6 s before, and is believed for 12 s.
    assert 1001.0 + ANSWER + SILENCE < await waiting < 1001.0 + ANSWER + SILENCE + 12.0
    under_way.cancel()


@in_virtual_time
async def test_a_cancelled_waiter_leaves_the_queue(stores: Callable[[], Store]) -> None:
    store = stores()
    limiter = Limiter(posts=1, store=store)
    await post(limiter)
    waiting = [asyncio.create_task(post(limiter)) for _ in range(3)]
    await asyncio.sleep(1.0)
    assert len(store.read().queue) == 1
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)

    assert store.read().queue == []


@pytest.mark.parametrize("held", ["token", "pace", "probe"])
@in_virtual_time
async def test_a_waiter_sleeps(held: str, stores: Callable[[], Store], process: New) -> None:
    store, other = stores(), process(posts=1)
    limiter = Limiter(posts=1, store=store)
    await post(other)
    if held == "pace":
        other.slow_down(1, silence=600.0)
    waiting = asyncio.create_task(post(limiter))
    if held == "probe":
        async with other.probe():
            await asyncio.sleep(58.0)
    await waiting

    assert now() == pytest.approx(600.0 if held == "pace" else SILENCE, abs=0.1)
    assert store.changes <= (10 if held == "probe" else 5)  # while another probes, it looks after two beats


@in_virtual_time
async def test_four_waiters_of_four_processes_sleep(stores: Callable[[], Store]) -> None:
    all_stores = [stores() for _ in range(4)]
    limiters = [Limiter(store=store) for store in all_stores]
    await post_all(limiters[0], 30, lasting=0.25)
    before = sum(store.changes for store in all_stores)
    waiting = [asyncio.create_task(post(limiter)) for limiter in limiters]
    await asyncio.sleep(SILENCE)

    assert sum(store.changes for store in all_stores) - before <= 4
    await asyncio.gather(*waiting)


@in_virtual_time
async def test_a_probe_holds_other_processes_back(process: New) -> None:
    one, other = process(), process()
    async with one.probe() as post_alone:
        held = asyncio.create_task(post(other))
        also = asyncio.create_task(probe(other, pause=2.0))
        async with post_alone(count_window=ANSWER, pause=None) as permit:
            await asyncio.sleep(200.0)
            permit.mark_answered()
        assert not held.done()
        assert not also.done()

    assert 200.0 <= await held <= 205.0
    assert 200.0 <= await also <= 210.0


@in_virtual_time
async def test_a_probe_that_was_killed_holds_the_others_for_two_beats(
    stores: Callable[[], Store], process: New
) -> None:
    store = stores()
    killed = asyncio.create_task(probe(Limiter(store=store), pause=2.0, lasting=100.0))
    await asyncio.sleep(50.0)
    store.failure = "killed"
    held = asyncio.create_task(post(process()))

    assert 50.0 <= await held <= 62.0
    killed.cancel()


def test_a_repr_opens_no_file(tmp_path: Path) -> None:
    assert repr(Limiter(store=FileStore(tmp_path / "limits.sqlite3", "a budget"))).startswith("<Limiter 30 in 60 s")
    assert list(tmp_path.iterdir()) == []


@in_virtual_time
async def test_the_pace_of_one_process_is_that_of_all(process: New) -> None:
    one, other = process(), process()
    await post(one)
    one.slow_down(1)

    assert other.slow
    assert other.seconds_until(1) == about(SILENCE)
    assert await post(other) == about(SILENCE)
    assert await post(one) == about(SILENCE + 2.0)


@in_virtual_time
async def test_the_forecast_counts_what_other_processes_hold(process: New) -> None:
    one, other = process(), process()
    await post_all(one, 20)

    assert other.seconds_until(10) == 0.0
    assert other.seconds_until(11) == about(SILENCE)


# --- a store that fails ---


@in_virtual_time
async def test_a_store_that_fails_fails_a_post_before_it_is_sent(stores: Callable[[], Store]) -> None:
    store = stores()
    limiter = Limiter(store=store)
    store.failure = "the disk is full"

    with pytest.raises(ConfigurationError, match="the disk is full"):
        await post(limiter)
    with pytest.raises(ConfigurationError, match="the disk is full"):
        await probe(limiter, pause=2.0)
    store.failure = ""
    await post(limiter)


@in_virtual_time
async def test_a_store_that_fails_later_fails_nothing_that_was_sent(
    stores: Callable[[], Store], caplog: pytest.LogCaptureFixture
) -> None:
    store = stores()
    limiter = Limiter(store=store)
    async with limiter.post(count_window=ANSWER) as permit:
        store.failure = "the disk is full"
        permit.mark_answered()
    limiter.slow_down(permit.position)

    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "the disk is full" in caplog.text
    assert not limiter.slow
    assert repr(limiter).startswith("<Limiter 30 in 60 s")
    assert limiter.seconds_until(1) == 0.0
    store.failure = ""
    assert limiter.seconds_until(30) == about(SILENCE)  # until its lease is over
    assert repr(limiter) == "<Limiter 30 in 60 s, 1 under way, 0 resting, fast>"


@in_virtual_time
async def test_a_waiter_whose_store_fails_blocks_no_other(stores: Callable[[], Store]) -> None:
    store = stores()
    limiter = Limiter(posts=1, store=store)
    await post(limiter)
    waiting = [asyncio.create_task(post(limiter)) for _ in range(3)]
    await asyncio.sleep(1.0)
    store.failure = "the disk is full"
    for task in waiting:
        with pytest.raises(ConfigurationError, match="the disk is full"):
            await task

    store.failure = ""
    await post(limiter)


@in_virtual_time
async def test_a_limiter_that_is_not_used_any_more_leaves_no_timer() -> None:
    limiter = Limiter()
    await post(limiter)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(30.0):
            await post(limiter, lasting=1000.0)
    async with limiter.probe():
        await asyncio.sleep(30.0)

    timers = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined] # what else knows of timers
    assert [timer for timer in timers if not timer.cancelled() and "_beat" in repr(timer)] == []
