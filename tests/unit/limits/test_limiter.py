"""The limiter in virtual time: its tokens, the hourly budget, a POST alone, and bulk."""

import asyncio
from typing import Any

import pytest

from springest_async.errors import ConfigurationError
from springest_async.limits.limiter import Limiter
from springest_async.sandbox.audit import most_in_any

from .virtual import ANSWER, SILENCE, New, about, in_virtual_time, now, post, post_all, probe

# --- the bucket ---


@in_virtual_time
async def test_thirty_leave_at_once_and_thirty_a_minute_later(new: New) -> None:
    assert await post_all(new(), 90) == [about(0.0)] * 30 + [about(SILENCE)] * 30 + [about(2 * SILENCE)] * 30


@in_virtual_time
async def test_a_token_rests_from_the_answer_and_not_from_the_send(new: New) -> None:
    limiter = new(posts=1)

    assert await post(limiter, lasting=10.0) == 0.0
    assert await post(limiter) == about(10.0 + SILENCE)


@pytest.mark.parametrize(
    ("lasting", "counted_until"),
    [(0.0, ANSWER), (10.0, ANSWER), (200.0, 200.0)],
    ids=["broken at once", "broken later", "longer than it may count"],
)
@in_virtual_time
async def test_a_post_without_an_answer_keeps_its_token(new: New, lasting: float, counted_until: float) -> None:
    limiter = new(posts=1)
    await post(limiter, lasting=lasting, answered=False)

    assert await post(limiter) == about(counted_until + SILENCE)


@pytest.mark.parametrize(
    ("answered", "back"), [(False, 200.0 + 5.0 + 50.0 + SILENCE), (True, 200.0 + 5.0 + 10.0 + SILENCE)]
)
@in_virtual_time
async def test_a_post_whose_body_took_long_counts_from_its_last_byte(answered: bool, back: float) -> None:
    limiter = Limiter(posts=1)
    await asyncio.sleep(5.0)
    async with limiter.post(count_window=ANSWER) as permit:
        await asyncio.sleep(200.0)
        permit.count_from_now(50.0)
        await asyncio.sleep(10.0)
        if answered:
            permit.mark_answered()

    assert await post(limiter) == about(back)


@in_virtual_time
async def test_a_post_that_fails_after_its_answer_counts_until_its_end() -> None:
    limiter = Limiter(posts=1)

    async def fail() -> None:
        async with limiter.post(count_window=ANSWER) as permit:
            await asyncio.sleep(5.0)
            permit.mark_answered()
            raise ConnectionError

    with pytest.raises(ConnectionError):
        await fail()

    assert await post(limiter) == about(5.0 + SILENCE)


@in_virtual_time
async def test_a_post_cancelled_under_way_keeps_its_token() -> None:
    limiter = Limiter(posts=1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await post(limiter, lasting=10.0)

    assert await post(limiter) == about(ANSWER + SILENCE)


@in_virtual_time
async def test_a_cancelled_waiter_takes_no_token(new: New) -> None:
    limiter = new(posts=1)
    await post(limiter)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(30.0):
            await post(limiter)

    assert await post(limiter) == about(SILENCE)


@in_virtual_time
async def test_an_unsent_post_gives_its_token_back_at_once(new: New) -> None:
    limiter = new()
    others = asyncio.create_task(post_all(limiter, 29))
    async with limiter.post(count_window=ANSWER) as permit:
        await asyncio.sleep(5.0)
        permit.mark_unsent()
    await others

    assert await post(limiter) == 5.0
    assert await post(limiter) == about(SILENCE)


@in_virtual_time
async def test_posts_that_never_reach_the_server_are_spaced(new: New) -> None:
    """Else a server that refuses all connections would be asked as often as uploads give up."""
    limiter, left = new(), list[float]()

    async def refused() -> None:
        async with limiter.post(count_window=ANSWER) as permit:
            left.append(now())
            permit.mark_unsent()

    await asyncio.gather(*(refused() for _ in range(40)))

    assert left == [0.0] * 30 + [2.0 * number for number in range(1, 11)]


@in_virtual_time
async def test_it_is_open_while_a_post_would_not_have_to_wait() -> None:
    limiter = Limiter(posts=3, requests_per_hour=20)
    assert limiter.is_open
    await post(limiter)
    assert limiter.is_open
    await limiter.request()
    assert not limiter.is_open  # two tokens are free, and no request of the hour
    await asyncio.sleep(1800.0)
    await post_all(limiter, 2)
    assert not limiter.is_open


@in_virtual_time
async def test_it_is_not_open_past_those_that_wait() -> None:
    limiter = Limiter(requests_per_hour=20)
    await post_all(limiter, 2)
    waiting = asyncio.create_task(post(limiter))
    await asyncio.sleep(1.0)

    assert not limiter.is_open
    await waiting


@in_virtual_time
async def test_a_burst_of_one_spaces_the_sends() -> None:
    assert await post_all(Limiter(burst=1), 5) == [0.0, 2.0, 4.0, 6.0, 8.0]


@in_virtual_time
async def test_a_burst_of_five_leaves_at_once_and_the_others_evenly() -> None:
    assert await post_all(Limiter(burst=5), 8) == [0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 4.0, 6.0]


@pytest.mark.parametrize(
    "numbers",
    [
        {"posts": 0},
        {"period": 0.0},
        {"period": -1.0},
        {"burst": 0},
        {"burst": 31},
        {"posts": 10, "burst": 11},
        {"requests_per_hour": 0},
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="1 <= burst <= posts and requests_per_hour >= 1"):
        Limiter(**numbers)


@pytest.mark.parametrize("burst", [1, 30])
def test_each_burst_from_one_to_all_is_accepted(burst: int) -> None:
    assert Limiter(burst=burst).burst == burst


def test_the_burst_is_the_whole_bucket_by_default() -> None:
    assert Limiter(posts=12).burst == 12


@in_virtual_time
async def test_the_repr_shows_the_numbers_and_the_state(new: New) -> None:
    limiter = new(posts=10, period=20.0)
    assert repr(limiter) == "<Limiter 10 in 20 s, 0 under way, 0 resting, fast>"

    await post_all(limiter, 2)
    async with limiter.post(count_window=ANSWER) as permit:
        permit.mark_answered()
        assert repr(limiter) == "<Limiter 10 in 20 s, 1 under way, 2 resting, fast>"

    limiter.slow_down(permit.position)
    assert repr(limiter) == "<Limiter 10 in 20 s, 0 under way, 3 resting, slow>"


@in_virtual_time
async def test_the_repr_counts_no_token_that_has_rested() -> None:
    limiter = Limiter()
    await post(limiter)
    await asyncio.sleep(SILENCE + 1.0)

    assert repr(limiter) == "<Limiter 30 in 60 s, 0 under way, 0 resting, fast>"


# --- the hourly budget ---


@in_virtual_time
async def test_no_hour_holds_more_requests_than_its_budget() -> None:
    for limiter, at_once in ((Limiter(), 400), (Limiter(requests_per_hour=1000), 100)):
        began, sent = now(), []
        for _ in range(2 * limiter.requests_per_hour):
            await limiter.request()
            sent.append(now() - began)

        assert sent[: at_once + 1] == [0.0] * at_once + [sent[at_once]]
        assert sent[-1] == 7600.0
        assert 0 <= limiter.requests_per_hour - most_in_any(sent, 3600.0) <= 1


@in_virtual_time
async def test_a_cancelled_request_leaves_its_place_to_the_next() -> None:
    limiter = Limiter()
    for _ in range(400):
        await limiter.request()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await limiter.request()

    await limiter.request()
    assert now() == 1.0


@in_virtual_time
async def test_posts_and_other_requests_share_the_hourly_budget() -> None:
    limiter = Limiter()
    await post_all(limiter, 30)
    for _ in range(370):
        await limiter.request()
    assert now() == 0.0

    await limiter.request()
    assert now() == 1.0

    await asyncio.sleep(SILENCE)
    for _ in range(62):
        await limiter.request()
    assert await post(limiter) == 64.0  # with a token free, it is the hour that this one waited for


@in_virtual_time
async def test_a_probe_is_a_request_of_the_hour_too() -> None:
    limiter = Limiter()
    for _ in range(400):
        await limiter.request()

    assert await probe(limiter, pause=2.0) == 1.0


@in_virtual_time
async def test_requests_need_no_token() -> None:
    limiter = Limiter(posts=1)
    await post(limiter)

    await limiter.request()
    assert now() == 0.0


# --- a POST alone ---


@in_virtual_time
async def test_a_probe_waits_for_posts_under_way_and_its_pause(new: New) -> None:
    limiter = new()
    others = asyncio.create_task(post_all(limiter, 3, lasting=7.0))
    await asyncio.sleep(1.0)

    assert await probe(limiter, pause=2.0) == 9.0
    await others


@in_virtual_time
async def test_a_probe_without_a_pause_waits_for_a_silent_period(new: New) -> None:
    limiter = new()
    await post_all(limiter, 3, lasting=7.0)

    assert await probe(limiter, pause=None) == about(7.0 + SILENCE)


@in_virtual_time
async def test_a_probe_leaves_at_once_where_all_was_silent_anyhow() -> None:
    assert await probe(Limiter(), pause=None) == 0.0


@in_virtual_time
async def test_a_probe_waits_longer_where_the_server_asked_for_it() -> None:
    limiter = Limiter()
    await post(limiter)
    limiter.slow_down(1, silence=300.0)

    assert await probe(limiter, pause=2.0) == about(300.0)


@in_virtual_time
async def test_a_probe_takes_a_token() -> None:
    limiter = Limiter(posts=1)
    await post(limiter)

    assert await probe(limiter, pause=2.0) == about(SILENCE)
    assert await post(limiter) == about(2 * SILENCE)


@in_virtual_time
async def test_a_probe_without_an_answer_keeps_its_token() -> None:
    limiter = Limiter(posts=1)
    async with limiter.probe() as post_alone, post_alone(count_window=ANSWER, pause=2.0):
        pass

    assert await post(limiter) == about(ANSWER + SILENCE)


@in_virtual_time
async def test_all_others_are_held_while_a_probe_lasts(new: New) -> None:
    limiter = new()
    async with limiter.probe() as post_alone:
        others = asyncio.create_task(post_all(limiter, 2))
        for pause in (2.0, 4.0):
            async with post_alone(count_window=ANSWER, pause=pause) as permit:
                await asyncio.sleep(5.0)
                permit.mark_answered()
        await asyncio.sleep(100.0)
        ended = now()

    assert await others == [ended, ended] == [5.0 + 4.0 + 5.0 + 100.0] * 2


@in_virtual_time
async def test_one_that_waits_for_the_burst_is_held_by_a_probe_too() -> None:
    limiter = Limiter(burst=1)
    await post(limiter)
    next_one = asyncio.create_task(post(limiter))
    await asyncio.sleep(1.0)
    async with limiter.probe():
        await asyncio.sleep(20.0)

    assert await next_one == 21.0


@in_virtual_time
async def test_there_is_one_probe_at_a_time() -> None:
    limiter = Limiter()

    async def hold() -> tuple[float, float]:
        async with limiter.probe():
            began = now()
            await asyncio.sleep(3.0)
            return began, now()

    assert await asyncio.gather(*(hold() for _ in range(3))) == [(0.0, 3.0), (3.0, 6.0), (6.0, 9.0)]


@in_virtual_time
async def test_a_cancelled_probe_lets_the_others_go(new: New) -> None:
    limiter = new()
    await post(limiter)
    alone = asyncio.create_task(probe(limiter, pause=None))
    await asyncio.sleep(1.0)
    other = asyncio.create_task(post(limiter))
    await asyncio.sleep(9.0)
    assert not other.done()
    alone.cancel()

    assert await other == 10.0
    with pytest.raises(asyncio.CancelledError):
        await alone


@in_virtual_time
async def test_requests_are_not_held_by_a_probe() -> None:
    limiter = Limiter()
    async with limiter.probe():
        await limiter.request()
        assert now() == 0.0


# --- bulk ---


async def order_of(limiter: Limiter, *kinds: tuple[str, bool]) -> list[str]:
    """Start POSTs one after another, by name and whether they are bulk; return the order in which they were sent."""
    sent = []

    async def one(name: str, bulk: bool) -> None:
        await post(limiter, bulk=bulk)
        sent.append(name)

    async with asyncio.TaskGroup() as group:
        for name, bulk in kinds:
            group.create_task(one(name, bulk))
            await asyncio.sleep(1.0)
    return sent


@in_virtual_time
async def test_only_the_first_of_bulk_goes_before_an_interactive_post(new: New) -> None:
    limiter = new(posts=1)
    await post(limiter)

    order = await order_of(
        limiter, ("b1", True), ("b2", True), ("b3", True), ("i1", False), ("b4", True), ("i2", False)
    )

    assert order == ["b1", "i1", "i2", "b2", "b3", "b4"]


@in_virtual_time
async def test_a_cancelled_bulk_post_makes_no_other_wait(new: New) -> None:
    limiter = new(posts=1)
    await post(limiter)
    cancelled = [asyncio.create_task(post(limiter, bulk=True)) for _ in range(3)]
    others = [asyncio.create_task(post(limiter, bulk=bulk)) for bulk in (True, False)]
    await asyncio.sleep(1.0)
    for task in cancelled:
        task.cancel()

    assert await asyncio.gather(*others) == [about(2 * SILENCE), about(SILENCE)]
