"""The forecast, which must come true."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from springest_async.limits.limiter import Limiter

from .virtual import SILENCE, about, in_virtual_time, now, post, post_all, slow

AMOUNTS = [1, 5, 29, 30, 31, 60, 61, 200]


async def assert_forecast_comes_true(limiter: Limiter, posts: int, *, within: float = 0.01) -> None:
    began, forecast = now(), limiter.seconds_until(posts)
    sent = await post_all(limiter, posts)
    assert forecast == pytest.approx(sent[-1] - began, abs=within)


@pytest.mark.parametrize("posts", AMOUNTS)
@in_virtual_time
async def test_the_forecast_of_a_fresh_bucket_comes_true(posts: int) -> None:
    await assert_forecast_comes_true(Limiter(), posts)


@pytest.mark.parametrize("posts", AMOUNTS)
@in_virtual_time
async def test_the_forecast_of_a_used_bucket_comes_true(posts: int) -> None:
    limiter = Limiter()
    for pause in (0.0, 3.0, 10.0, 65.0):
        await asyncio.sleep(pause)
        await post_all(limiter, 9)
    await asyncio.sleep(5.0)

    await assert_forecast_comes_true(limiter, posts)


@pytest.mark.parametrize("posts", AMOUNTS)
@in_virtual_time
async def test_the_forecast_with_some_under_way_comes_true(posts: int) -> None:
    limiter = Limiter()
    others = asyncio.create_task(post_all(limiter, 20, lasting=0.005))
    await asyncio.sleep(0.001)

    await assert_forecast_comes_true(limiter, posts)
    await others


@in_virtual_time
async def test_one_long_rest_does_not_delay_the_whole_forecast() -> None:
    limiter = Limiter()
    await post(limiter, answered=False)
    others = asyncio.create_task(post_all(limiter, 29, lasting=0.005))
    await asyncio.sleep(0.001)

    await assert_forecast_comes_true(limiter, 1)
    await others


@pytest.mark.parametrize("burst", [1, 5])
@pytest.mark.parametrize("posts", AMOUNTS)
@in_virtual_time
async def test_the_forecast_knows_the_burst(posts: int, burst: int) -> None:
    await assert_forecast_comes_true(Limiter(burst=burst), posts)


@pytest.mark.parametrize("posts", AMOUNTS)
@in_virtual_time
async def test_the_forecast_knows_the_hourly_budget(posts: int) -> None:
    limiter = Limiter(requests_per_hour=100)  # 10 at once, and one every 40 s
    for _ in range(4):
        await limiter.request()
    await asyncio.sleep(20.0)

    await assert_forecast_comes_true(limiter, posts)


@pytest.mark.parametrize("posts", AMOUNTS)
@in_virtual_time
async def test_the_forecast_at_the_slow_pace_comes_true(posts: int) -> None:
    limiter = await slow(Limiter())
    await post(limiter)

    # A token rests 0.1 s longer than thirty POSTs at the slow pace take.
    await assert_forecast_comes_true(limiter, posts, within=1.0)


@pytest.mark.parametrize("posts", AMOUNTS)
@in_virtual_time
async def test_the_forecast_right_after_a_refusal_knows_the_silence(posts: int) -> None:
    limiter = Limiter()
    await post(limiter)
    limiter.slow_down(1)

    await assert_forecast_comes_true(limiter, posts, within=1.0)


@pytest.mark.parametrize("posts", AMOUNTS)
@in_virtual_time
async def test_the_forecast_knows_the_silences_after_every_so_many(posts: int) -> None:
    limiter = await slow(Limiter())
    await post_all(limiter, 31)
    limiter.slow_down(31)
    await post_all(limiter, 7)

    await assert_forecast_comes_true(limiter, posts, within=1.0)


@pytest.mark.parametrize("posts", AMOUNTS)
@pytest.mark.parametrize("make", [None, slow], ids=["fast", "slow"])
@in_virtual_time
async def test_the_forecast_counts_a_silence_while_a_probe_is_on(
    make: Callable[[Limiter], Awaitable[Limiter]] | None, posts: int
) -> None:
    limiter = Limiter() if make is None else await make(Limiter())
    without = limiter.seconds_until(posts)
    async with limiter.probe():
        assert limiter.seconds_until(posts) == about(without + SILENCE)
        assert limiter.seconds_until(0) == 0.0

    assert limiter.seconds_until(posts) == about(without)


@in_virtual_time
async def test_nothing_to_send_takes_no_time() -> None:
    limiter = Limiter()
    await post_all(limiter, 30)

    assert [limiter.seconds_until(0), limiter.seconds_until(-1)] == [0.0, 0.0]


@in_virtual_time
async def test_other_requests_take_of_the_hour_only() -> None:
    limiter = Limiter()
    assert limiter.seconds_until(0, requests=400) == 0.0
    assert limiter.seconds_until(0, requests=500) == about(100.0)
    assert limiter.seconds_until(60, requests=10) == limiter.seconds_until(60)
    assert limiter.seconds_until(1, requests=500) == about(101.0)
