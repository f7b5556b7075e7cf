"""Servers that count otherwise: the silence after a refusal, and the slow pace from then on."""

import asyncio
from itertools import pairwise

import pytest

from springest_async.limits.limiter import Limiter
from springest_async.limits.permit import Permit
from springest_async.sandbox.windows import ElasticWindow, Paced, SlidingWindow, Window

from .virtual import ANSWER, PERIOD, SILENCE, New, about, in_virtual_time, now, post, post_all, probe, slow


@in_virtual_time
async def test_after_a_refusal_comes_a_silence_then_one_at_a_time(new: New) -> None:
    limiter = new()
    first = asyncio.create_task(post_all(limiter, 3, lasting=10.0))
    await asyncio.sleep(5.0)
    assert not limiter.slow
    limiter.slow_down(1)
    assert limiter.slow

    # Each begins 2 s after the answer of the one before, which takes 3 s.
    assert await post_all(limiter, 4, lasting=3.0) == [about(10.0 + SILENCE + 5.0 * turn) for turn in range(4)]
    await first


@in_virtual_time
async def test_a_waiting_post_keeps_a_silence_that_begins_meanwhile() -> None:
    limiter = Limiter()
    await post_all(limiter, 30)
    waiting = asyncio.create_task(post_all(limiter, 2))
    await asyncio.sleep(30.0)
    limiter.slow_down(30, silence=300.0)

    assert await waiting == [about(300.0), about(302.0)]


@in_virtual_time
async def test_positions_begin_anew_after_each_silence(new: New) -> None:
    limiter = await slow(new())
    assert await positions(limiter, 3) == [1, 2, 3]

    limiter.slow_down(3)
    assert await positions(limiter, 2) == [1, 2]

    await probe(limiter, pause=2.0)
    assert await positions(limiter, 1) == [4]

    await probe(limiter, pause=None)
    assert await positions(limiter, 1) == [2]


@in_virtual_time
async def test_posts_since_a_silence_are_counted_at_every_pace(new: New) -> None:
    limiter = new()
    told = [(await post_permit(limiter)).since_silence for _ in range(3)]
    async with limiter.probe() as alone:
        for pause in (2.0, None, 2.0):
            async with alone(count_window=ANSWER, pause=pause) as permit:
                permit.mark_answered()
            told.append(permit.since_silence)
    assert not limiter.slow
    limiter.slow_down(0)
    told += [(await post_permit(limiter)).since_silence for _ in range(2)]

    assert told == [1, 2, 3, 4, 1, 2, 1, 2]


async def post_permit(limiter: Limiter) -> Permit:
    """Make one POST; return its permit."""
    async with limiter.post(count_window=ANSWER) as permit:
        permit.mark_answered()
    return permit


async def positions(limiter: Limiter, posts: int) -> list[int]:
    """Make so many POSTs, one after another; return their positions."""
    return [(await post_permit(limiter)).position for _ in range(posts)]


@in_virtual_time
async def test_a_longer_silence_is_kept() -> None:
    limiter = Limiter()
    await post(limiter)
    limiter.slow_down(1, silence=300.0)

    assert await post_all(limiter, 2) == [about(300.0), about(302.0)]


@in_virtual_time
async def test_a_shorter_silence_becomes_a_whole_period() -> None:
    limiter = Limiter()
    await post(limiter)
    limiter.slow_down(1, silence=5.0)

    assert await post(limiter) == about(SILENCE)


@in_virtual_time
async def test_after_a_silence_no_other_is_added() -> None:
    limiter = Limiter()
    await post_all(limiter, 2)
    alone_at = await probe(limiter, pause=None)
    limiter.slow_down(2, silence=0.0)

    assert await post_all(limiter, 2) == [about(alone_at + 2.0), about(alone_at + 4.0)]


@in_virtual_time
async def test_a_later_refusal_does_not_shorten_the_silence() -> None:
    limiter = Limiter()
    await post_all(limiter, 2)
    limiter.slow_down(1, silence=300.0)
    limiter.slow_down(2)

    assert await post(limiter) == about(300.0)


@in_virtual_time
async def test_at_the_slow_pace_the_next_waits_for_an_unanswered_one() -> None:
    limiter = await slow(Limiter())
    unanswered_at = await post(limiter, answered=False)

    assert await post(limiter) == about(unanswered_at + ANSWER + 2.0)


@in_virtual_time
async def test_at_the_slow_pace_no_post_waits_for_an_unsent_one() -> None:
    limiter = await slow(Limiter())
    began = now()
    async with limiter.post(count_window=ANSWER) as permit:
        await asyncio.sleep(1.0)
        permit.mark_unsent()

    assert await post_all(limiter, 2) == [about(began + 1.0), about(began + 3.0)]


def silences(times: list[float]) -> list[int]:
    """How many left before each silence, and after the last one."""
    breaks = [index for index, (before, after) in enumerate(pairwise(times), 1) if after - before >= PERIOD]
    return [after - before for before, after in pairwise([0, *breaks, len(times)])]


@in_virtual_time
async def test_refused_late_there_is_a_silence_after_every_so_many(new: New) -> None:
    limiter = await slow(new())
    assert silences(await post_all(limiter, 31)) == [31]
    limiter.slow_down(31)

    assert silences(await post_all(limiter, 65)) == [30, 30, 5]


@in_virtual_time
async def test_refused_even_earlier_there_is_a_silence_after_fewer() -> None:
    limiter = await slow(Limiter())
    await post_all(limiter, 31)
    limiter.slow_down(31)
    await post_all(limiter, 30)
    limiter.slow_down(30)

    assert silences(await post_all(limiter, 60)) == [29, 29, 2]


@pytest.mark.parametrize(
    ("position", "batch"),
    [(16, None), (21, None), (28, None), (29, 28), (30, 29), (31, 30), (32, 30), (33, 30), (34, None), (60, None)],
)
@in_virtual_time
async def test_only_a_refusal_after_about_thirty_gives_the_batch(position: int, batch: int | None) -> None:
    limiter = await slow(Limiter())
    await post_all(limiter, position)
    limiter.slow_down(position)

    assert silences(await post_all(limiter, 40)) == ([40] if batch is None else [batch, 40 - batch])


@in_virtual_time
async def test_refused_early_there_is_no_batch() -> None:
    limiter = await slow(Limiter())
    await post_all(limiter, 15)
    limiter.slow_down(15)

    assert silences(await post_all(limiter, 65)) == [65]


@in_virtual_time
async def test_a_crowd_refused_at_the_fast_pace_gives_no_batch() -> None:
    limiter = Limiter()
    for position in await positions(limiter, 30):
        limiter.slow_down(position)

    assert silences(await post_all(limiter, 65)) == [65]


async def migrate(limiter: Limiter, server: Window, uploads: int) -> tuple[list[float], int]:
    """Upload so many, eight at once, slowing down at every refusal; return when each was sent, and the refusals."""
    waiting, sent, refused = iter(range(uploads)), [], 0

    async def work() -> None:
        nonlocal refused
        for _ in waiting:
            accepted = False
            while not accepted:
                async with limiter.post(count_window=ANSWER) as permit:
                    sent.append(now())
                    await asyncio.sleep(0.125)
                    accepted = server.admit(now())
                    await asyncio.sleep(0.125)
                    permit.mark_answered()
                if not accepted:
                    refused += 1
                    limiter.slow_down(permit.position)

    await asyncio.gather(*(work() for _ in range(8)))
    return sent, refused


@in_virtual_time
async def test_strict_spacing_refuses_only_the_first_crowd() -> None:
    sent, refused = await migrate(Limiter(), Paced(30, PERIOD), 200)

    # Eight and the one that follows the first answer leave before a refusal is known; one of these nine is accepted.
    assert refused == 8
    assert silences(sent) == [9, 199]
    assert sent[-1] < SILENCE + 1.0 + 199 * 2.25


@in_virtual_time
async def test_an_elastic_window_refuses_one_more_after_the_crowd() -> None:
    sent, refused = await migrate(Limiter(), ElasticWindow(30, PERIOD), 200)

    assert refused <= 9 + 1
    assert silences(sent)[-5:-1] == [30, 30, 30, 30]


@pytest.mark.parametrize("count_refusals", [False, True])
@in_virtual_time
async def test_a_sliding_window_refuses_nothing(count_refusals: bool) -> None:
    limiter = Limiter()

    _, refused = await migrate(limiter, SlidingWindow(30, PERIOD, count_refusals=count_refusals), 200)

    assert refused == 0
    assert not limiter.slow
