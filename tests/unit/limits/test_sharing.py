"""Processes that share a bucket, a ledger that fails, and POSTs that are cancelled within a commit."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import chain, repeat

import pytest
from attrs import frozen

from springest_async.errors import ConfigurationError
from springest_async.limits.limiter import Limiter
from springest_async.sandbox.audit import most_in_any

from .virtual import ANSWER, SILENCE, New, Place, SharedLedger, about, in_virtual_time, now, post, post_all, probe, slow


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
async def test_the_smallest_limit_is_kept_by_all_until_it_is_left(process: New) -> None:
    careful, other = process(posts=3), process(posts=5)
    assert (careful.posts_now, other.posts_now) == (3, 5)
    await post(careful)

    assert (other.posts, other.posts_now) == (5, 3)
    assert other.seconds_until(2) == 0.0
    assert other.seconds_until(3) == about(SILENCE)
    assert await post_all(other, 5) == [0.0, 0.0, *[about(SILENCE)] * 3]
    await asyncio.sleep(200.0)
    assert other.posts_now == 5
    assert len({*await post_all(other, 5)}) == 1


@in_virtual_time
async def test_both_are_told_once_of_different_limits(process: New, caplog: pytest.LogCaptureFixture) -> None:
    careful, other = process(posts=20), process()
    for _ in range(3):
        await post(careful)
        await post(other)

    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert [record.getMessage() for record in caplog.records] == [
        "another program uses the same key and keeps to 20 POSTs a minute: so does this one, instead of 30",
        "another program uses the same key with a limit of 30 POSTs a minute: it keeps to the 20 of this one",
    ]


@in_virtual_time
async def test_equal_limits_are_not_worth_a_word(process: New, caplog: pytest.LogCaptureFixture) -> None:
    limiters = [process(), process()]
    for limiter in limiters * 2:
        await post(limiter)

    assert caplog.records == []


@in_virtual_time
async def test_a_restart_forgets_nothing(process: New) -> None:
    await slow(process())
    await post(process())

    assert await post(process()) == about(SILENCE + 2.0)
    assert process().slow


@in_virtual_time
async def test_the_token_of_a_killed_process_comes_back(ledgers: Callable[[], SharedLedger], process: New) -> None:
    ledger, other = ledgers(), process(posts=1)
    under_way = asyncio.create_task(post(Limiter(posts=1, ledger=ledger), lasting=5000.0))
    await asyncio.sleep(1000.0)
    waiting = asyncio.create_task(post(other))
    await asyncio.sleep(1.0)
    ledger.failure = "killed"

    # It had said that it lives at most 6 s before, and is believed for 12 s.
    assert 1001.0 + ANSWER + SILENCE < await waiting < 1001.0 + ANSWER + SILENCE + 12.0
    under_way.cancel()


@in_virtual_time
async def test_a_cancelled_waiter_leaves_the_queue(ledgers: Callable[[], SharedLedger]) -> None:
    ledger = ledgers()
    limiter = Limiter(posts=1, ledger=ledger)
    await post(limiter)
    waiting = [asyncio.create_task(post(limiter)) for _ in range(3)]
    await asyncio.sleep(1.0)
    assert len(ledger.place.load().queue) == 1
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)

    assert ledger.place.load().queue == []


@pytest.mark.parametrize("held", ["token", "pace", "probe"])
@in_virtual_time
async def test_a_waiter_sleeps(held: str, ledgers: Callable[[], SharedLedger], process: New) -> None:
    ledger, other = ledgers(), process(posts=1)
    limiter = Limiter(posts=1, ledger=ledger)
    await post(other)
    if held == "pace":
        other.slow_down(1, silence=600.0)
    waiting = asyncio.create_task(post(limiter))
    if held == "probe":
        async with other.probe():
            await asyncio.sleep(58.0)
    await waiting

    assert now() == pytest.approx(600.0 if held == "pace" else SILENCE, abs=0.1)
    assert ledger.changes <= (10 if held == "probe" else 5)  # while another probes, it looks after two beats


@in_virtual_time
async def test_four_waiters_of_four_processes_sleep(ledgers: Callable[[], SharedLedger]) -> None:
    all_ledgers = [ledgers() for _ in range(4)]
    limiters = [Limiter(ledger=ledger) for ledger in all_ledgers]
    await post_all(limiters[0], 30, lasting=0.25)
    before = sum(ledger.changes for ledger in all_ledgers)
    waiting = [asyncio.create_task(post(limiter)) for limiter in limiters]
    await asyncio.sleep(SILENCE)

    assert sum(ledger.changes for ledger in all_ledgers) - before <= 4
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
    ledgers: Callable[[], SharedLedger], process: New
) -> None:
    ledger = ledgers()
    killed = asyncio.create_task(probe(Limiter(ledger=ledger), pause=2.0, lasting=100.0))
    await asyncio.sleep(50.0)
    ledger.failure = "killed"
    held = asyncio.create_task(post(process()))

    assert 50.0 <= await held <= 62.0
    killed.cancel()


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


# --- a ledger that fails ---


@in_virtual_time
async def test_a_ledger_that_fails_fails_a_post_before_it_is_sent(ledgers: Callable[[], SharedLedger]) -> None:
    ledger = ledgers()
    limiter = Limiter(ledger=ledger)
    ledger.failure = "the disk is full"

    with pytest.raises(ConfigurationError, match="the disk is full"):
        await post(limiter)
    with pytest.raises(ConfigurationError, match="the disk is full"):
        await probe(limiter, pause=2.0)
    ledger.failure = ""
    await post(limiter)


@in_virtual_time
async def test_a_ledger_that_fails_later_fails_nothing_that_was_sent(
    ledgers: Callable[[], SharedLedger], caplog: pytest.LogCaptureFixture
) -> None:
    ledger = ledgers()
    limiter = Limiter(ledger=ledger)
    async with limiter.post(count_window=ANSWER) as permit:
        ledger.failure = "the disk is full"
        permit.mark_answered()
    limiter.slow_down(permit.position)

    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "the disk is full" in caplog.text
    assert not limiter.slow
    assert repr(limiter).startswith("<Limiter 30 in 60 s")
    assert limiter.seconds_until(1) == 0.0
    ledger.failure = ""
    assert limiter.seconds_until(30) == about(SILENCE)  # until its lease is over
    assert repr(limiter) == "<Limiter 30 in 60 s, 1 under way, 0 resting, fast>"


@in_virtual_time
async def test_a_waiter_whose_ledger_fails_blocks_no_other(ledgers: Callable[[], SharedLedger]) -> None:
    ledger = ledgers()
    limiter = Limiter(posts=1, ledger=ledger)
    await post(limiter)
    waiting = [asyncio.create_task(post(limiter)) for _ in range(3)]
    await asyncio.sleep(1.0)
    ledger.failure = "the disk is full"
    for task in waiting:
        with pytest.raises(ConfigurationError, match="the disk is full"):
            await task

    ledger.failure = ""
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


# --- one commit for a POST ---


@frozen
class PostIntent:
    """What a journal would record of a POST."""

    id: str = "a POST"
    unsent: str = "unsent"


@in_virtual_time
async def test_a_post_is_one_commit_before_it_and_one_after(ledgers: Callable[[], SharedLedger]) -> None:
    ledger, intent = ledgers(), PostIntent()
    async with Limiter(ledger=ledger).post(count_window=ANSWER, intent=intent) as permit:
        assert permit.name in ledger.place.tokens
        assert (permit.name, ledger.changes, ledger.place.recorded) == (intent.id, 1, [intent])
        assert ledger.place.load().hour.level == 1.0
        permit.outcome = "stored"
        permit.mark_answered()

    assert (ledger.changes, ledger.place.recorded) == (2, [intent, "stored"])


@in_virtual_time
async def test_the_intent_of_a_probe_is_recorded_too(ledgers: Callable[[], SharedLedger]) -> None:
    ledger, intent = ledgers(), PostIntent()
    async with Limiter(ledger=ledger).probe() as alone, alone(count_window=ANSWER, pause=2.0, intent=intent) as permit:
        permit.outcome = "rejected"

    assert (permit.name, ledger.place.recorded) == (intent.id, [intent, "rejected"])


@in_virtual_time
async def test_a_commit_whose_result_was_lost_takes_one_token(ledgers: Callable[[], SharedLedger]) -> None:
    ledger = ledgers()
    ledger.results_are_lost = True
    limiter = Limiter(posts=1, ledger=ledger)

    assert await post(limiter) == 0.0
    assert await post(limiter) == about(SILENCE)
    assert ledger.place.load().hour.level <= 2.0


@pytest.mark.parametrize("patience", [0.0, 0.125, 0.25, 0.375, 0.5])
@pytest.mark.parametrize("alone", [False, True])
@in_virtual_time
async def test_cancelled_within_a_commit_a_post_gives_all_back(alone: bool, patience: float) -> None:
    """A quarter of a second before the commit and one after it; a probe commits its right first."""
    place, intent = Place(), PostIntent()
    limiter = Limiter(posts=1, ledger=SharedLedger(place, repeat(0.25)))

    async def send() -> None:
        if alone:
            async with limiter.probe() as probing, probing(count_window=ANSWER, pause=2.0, intent=intent):
                raise AssertionError
        async with limiter.post(count_window=ANSWER, intent=intent):
            raise AssertionError

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(patience + 0.5 * alone):
            await send()
    await asyncio.sleep(10.0)

    assert place.recorded in ([], [intent, "unsent"])
    bucket = place.load()
    assert (bucket.tokens_out, bucket.queue, bucket.probe, bucket.hour.level) == (0, [], None, 0.0)
    began = now()
    assert await post(limiter) == began + 0.5


@pytest.mark.parametrize("patience", [0.5, 1.5, 2.5])
@in_virtual_time
async def test_cancelled_while_it_commits_a_probe_holds_none_back(patience: float) -> None:
    place = Place()
    limiter = Limiter(ledger=SharedLedger(place, repeat(1.0)))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(patience), limiter.probe():
            await asyncio.sleep(100.0)
    await asyncio.sleep(5.0)

    assert place.load().probe is None


@in_virtual_time
async def test_a_post_that_ends_within_a_commit_wakes_the_next() -> None:
    limiter = Limiter(posts=3, period=6.0, ledger=SharedLedger(Place(), chain([0.0] * 6, repeat(1.0))))
    before = [asyncio.create_task(unsent_after(limiter, seconds)) for seconds in (0.5, 50.0, 50.0)]
    await asyncio.sleep(0.25)

    assert await post(limiter) < 8.0
    await asyncio.gather(*before)


async def unsent_after(limiter: Limiter, seconds: float) -> None:
    async with limiter.post(count_window=ANSWER) as permit:
        await asyncio.sleep(seconds)
        permit.mark_unsent()


# --- the budget of the hour ---


@in_virtual_time
async def test_ten_requests_are_one_commit(ledgers: Callable[[], SharedLedger]) -> None:
    ledger = ledgers()
    limiter = Limiter(ledger=ledger)
    for _ in range(20):
        await limiter.request()
    assert ledger.changes == 2

    await limiter.request()
    await asyncio.sleep(1.0)
    await limiter.request()  # what was taken for the second before has lapsed
    assert ledger.changes == 4


@in_virtual_time
async def test_processes_share_the_hour(process: New) -> None:
    limiters, sent = [process(requests_per_hour=1000) for _ in range(3)], []

    async def ask(limiter: Limiter, seconds: float) -> None:
        for _ in range(600):
            await limiter.request()
            sent.append(now())
            await asyncio.sleep(seconds)

    await asyncio.gather(*(ask(limiter, seconds) for limiter, seconds in zip(limiters, (0.0, 0.25, 3.0), strict=True)))

    assert most_in_any(sorted(sent), 3600.0) <= 1000
    assert sent[-1] <= 1700 * 4.1


@in_virtual_time
async def test_many_at_once_take_no_more_than_they_need(process: New) -> None:
    limiter = process()
    await asyncio.gather(*(limiter.request() for _ in range(100)))

    with limiter._look() as (bucket, _):
        assert bucket.hour.level <= 100 + 10 + 1


@pytest.mark.parametrize("patience", [0.0, 1.0, 5.0])
@in_virtual_time
async def test_a_cancelled_request_gives_back_what_it_took(patience: float) -> None:
    place = Place()
    limiter = Limiter(requests_per_hour=1, ledger=SharedLedger(place, repeat(1.0)))
    await limiter.request()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(patience):
            await limiter.request()
    await asyncio.sleep(5.0)

    assert place.load().hour.level == pytest.approx(1.0, abs=0.01)


@in_virtual_time
async def test_a_post_cancelled_at_the_end_of_the_hour_gives_it_back(new: New) -> None:
    limiter = new(requests_per_hour=1)
    await post(limiter)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1000.0):
            await post(limiter)

    assert await post(limiter) == about(3600.0)


@in_virtual_time
async def test_an_overtaken_post_is_counted_from_its_send() -> None:
    """The second POST takes the place in the burst that the first has not taken yet, because its commit is slow."""
    ledger = SharedLedger(Place(), chain([0.5, 0.0, 0.0, 0.0, 0.0], repeat(0.5)))
    limiter, sent, counted = Limiter(posts=2, period=8.0, burst=1, ledger=ledger), [], []

    async def leave() -> None:
        async with limiter.post(count_window=ANSWER) as permit:
            sent.append(now())
            counted.append(permit.may_count_until - ledger.now())

    await asyncio.gather(leave(), leave())

    assert counted == [ANSWER] * 2
    assert sent[1] - sent[0] >= 4.0
