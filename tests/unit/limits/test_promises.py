"""What is true of the limit whatever the network does: with one process, and with many that may be killed."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle

from aiolimiter import AsyncLimiter
from attrs import define
from hypothesis import example, given, settings
from hypothesis import strategies as st

from springest_async.limits.limiter import Limiter

from .scenarios import Plan, Scenario, adapting, few, most_possible, seconds, thirty
from .virtual import ANSWER, PERIOD, TICK, Place, SharedLedger, now, post, run_in_virtual_time


@given(few | thirty | adapting)
@example((Limiter(), ANSWER, [Plan(0.0, 0.0, "answered")] * 90))
@example((Limiter(), ANSWER, [Plan(0.0, 50.0, "answered"), *[Plan(0.0, 0.0, "answered")] * 60]))
@example((Limiter(), ANSWER, [Plan(0.0, 50.0, "answered", patience=1.0)] * 30 + [Plan(0.0, 0.0, "answered")] * 30))
def test_no_period_holds_more_than_the_limit(
    drawn: tuple[Limiter, float, list[Plan]],
) -> None:
    limiter, count_window, plans = drawn
    scenario = Scenario(limiter, count_window)

    run_in_virtual_time(scenario.run(plans))

    assert most_possible(scenario.counted(), limiter.period) <= limiter.posts


def test_that_check_finds_the_59_of_a_bucket_that_refills() -> None:
    async def send(posts: int) -> list[tuple[float, float]]:
        bucket, counted = AsyncLimiter(30, PERIOD), []
        for _ in range(posts):
            await bucket.acquire()
            counted.append((now(), now()))
        return counted

    # The 60th leaves at the other end of the same minute.
    assert most_possible(run_in_virtual_time(send(100)), PERIOD - TICK) == 59


@given(few | thirty)
def test_posts_leave_in_the_order_in_which_they_asked(drawn: tuple[Limiter, float, list[Plan]]) -> None:
    limiter, count_window, plans = drawn
    scenario = Scenario(limiter, count_window)

    run_in_virtual_time(scenario.run(plans))

    assert [id(trace) for trace in scenario.asked if trace.sent is not None] == [id(trace) for trace in scenario.sent]
    assert sum(trace.sent is not None for trace in scenario.asked) >= sum(plan.patience is None for plan in plans)


@given(few | thirty)
@example((Limiter(posts=1, period=2.0), ANSWER, [Plan(0.0, 1.0, "unsent"), Plan(0.0, 1.0, "answered")]))
@example((Limiter(), ANSWER, [Plan(0.0, 1.0, "answered", patience=0.0)] * 40 + [Plan(0.0, 1.0, "answered")] * 30))
def test_no_post_waits_while_a_token_is_free(drawn: tuple[Limiter, float, list[Plan]]) -> None:
    # Which says as well that a cancelled waiter takes no token, and that an unsent POST gives its token back at once.
    limiter, count_window, plans = drawn
    scenario = Scenario(limiter, count_window)

    run_in_virtual_time(scenario.run(plans))

    assert list(needless_waits(scenario)) == []


def needless_waits(scenario: Scenario) -> Iterator[tuple[float, float]]:
    """Yield from when to when a POST was the first in the queue and neither the bucket nor the burst held it back."""
    limiter = scenario.limiter
    spacing = limiter.period / limiter.posts
    first_at = 0.0
    for trace in scenario.asked:
        first_at = max(first_at, trace.asked)
        if trace.sent is None:
            continue
        moment = trace.sent - 0.001
        before = [other for other in scenario.sent if other.sent is not None and other.sent <= moment]
        back_at = [
            other.ended if other.counted_until is None else other.counted_until + limiter.period + 0.1
            for other in before
        ]
        held_by_bucket = sum(back > moment for back in back_at) >= limiter.posts
        held_by_burst = level([other.sent or 0.0 for other in before], moment, spacing) > limiter.burst - 1
        if first_at < moment and not held_by_bucket and not held_by_burst:
            yield first_at, trace.sent
        first_at = max(first_at, trace.sent)


def level(starts: list[float], moment: float, spacing: float) -> float:
    """How full a leaky bucket is at a moment, after it got one at each of `starts` and lost one every `spacing`."""
    full, last = 0.0, 0.0
    for start in starts:
        full, last = max(0.0, full - (start - last) / spacing) + 1, start
    return max(0.0, full - (moment - last) / spacing)


@settings(max_examples=20)
@given(st.lists(seconds(0.5), min_size=300, max_size=300), st.integers(30, 60))
def test_small_latencies_cost_at_most_one_and_a_half_percent(latencies: list[float], at_once: int) -> None:
    async def upload(waiting: Iterator[float], limiter: Limiter) -> float:
        last = 0.0
        for latency in waiting:
            last = await post(limiter, lasting=latency)
        return last

    async def upload_all() -> float:
        waiting, limiter = iter(latencies), Limiter()
        return max(await asyncio.gather(*(upload(waiting, limiter) for _ in range(at_once))))

    assert run_in_virtual_time(upload_all()) <= (300 / 30 - 1) * PERIOD * 1.015


@define
class Machine:
    """Scenarios of processes that share a bucket, some of which are killed in the middle."""

    scenarios: list[Scenario]
    kills: list[float | None]

    async def run(self, plans: list[tuple[int, Plan]]) -> None:
        async with asyncio.TaskGroup() as group:
            for number, scenario in enumerate(self.scenarios):
                group.create_task(
                    self._live(scenario, [plan for of, plan in plans if of == number], self.kills[number])
                )

    async def _live(self, scenario: Scenario, plans: list[Plan], kill_at: float | None) -> None:
        life = asyncio.create_task(scenario.run(plans))
        done, _ = await asyncio.wait([life], timeout=kill_at)
        if done:
            life.result()
        else:
            assert scenario.ledger is not None
            scenario.ledger.failure = "killed"
            life.cancel()
            with suppress(asyncio.CancelledError, ExceptionGroup):
                await life

    def counted(self) -> list[tuple[float, float]]:
        return [counted for scenario in self.scenarios for counted in scenario.counted()]


@st.composite
def machines(
    draw: st.DrawFn, *, disagree: bool = False
) -> tuple[list[Scenario], list[tuple[int, Plan]], list[float | None]]:
    """Draw processes that share a bucket; to each POST that they make, whose it is; and when each is killed.

    If they disagree, the first has the smallest limit.
    """
    limiter, count_window, plans = draw(few | adapting)
    processes = draw(st.integers(2, 3))
    kills = draw(st.lists(st.none() | seconds(2 * limiter.period), min_size=processes, max_size=processes))
    whose = draw(st.lists(st.integers(0, processes - 1), min_size=len(plans), max_size=len(plans)))
    delays = cycle(draw(st.lists(seconds(0.25), min_size=1, max_size=20))) if draw(st.booleans()) else None
    place = Place()
    scenarios = []
    for number in range(processes):
        ledger = SharedLedger(place, delays)
        # Two or four times as many, for which the virtual clock has exact ticks (see `virtual`).
        times = draw(st.sampled_from([1, 2, 4])) if disagree and number else 1
        like = Limiter(posts=limiter.posts * times, period=limiter.period, burst=limiter.burst, ledger=ledger)
        scenarios.append(Scenario(like, count_window, ledger))
    return scenarios, list(zip(whose, plans, strict=True)), kills


@settings(max_examples=60)
@given(machines())
def test_no_period_of_many_processes_holds_more_than_the_limit(
    drawn: tuple[list[Scenario], list[tuple[int, Plan]], list[float | None]],
) -> None:
    scenarios, plans, kills = drawn
    limiter, machine = scenarios[0].limiter, Machine(scenarios, kills)

    run_in_virtual_time(machine.run(plans))

    assert most_possible(machine.counted(), limiter.period) <= limiter.posts
    # No POST waited for ever: all that were neither cancelled nor killed were sent.
    for number, scenario in enumerate(machine.scenarios):
        if kills[number] is None:
            patient = sum(of == number and plan.patience is None for of, plan in plans)
            assert len(scenario.sent) >= patient


@settings(max_examples=60)
@given(machines(disagree=True))
def test_the_smallest_limit_holds_in_every_period(
    drawn: tuple[list[Scenario], list[tuple[int, Plan]], list[float | None]],
) -> None:
    """From its user's first POST until two periods after the last."""
    the_smallest_holds(*drawn)


def test_the_smaller_of_two_limits_holds_that_differ_by_one() -> None:
    """They send all that they may at once, so that no burst has to be spaced."""
    place = Place()
    ledgers = SharedLedger(place), SharedLedger(place)
    scenarios = [
        Scenario(Limiter(posts=30 + more, ledger=ledger), ANSWER, ledger) for more, ledger in enumerate(ledgers)
    ]
    the_smallest_holds(scenarios, [(number % 2, Plan(0.0, 0.0, "answered")) for number in range(90)], [None, None])


def the_smallest_holds(scenarios: list[Scenario], plans: list[tuple[int, Plan]], kills: list[float | None]) -> None:
    careful, machine = scenarios[0], Machine(scenarios, kills)

    async def run() -> None:
        await post(careful.limiter)
        await machine.run(plans)

    run_in_virtual_time(run())

    last = max((trace.sent or 0.0 for trace in careful.sent), default=0.0)
    counted = [(0.0, 0.0), *machine.counted()]
    while_heard = [(sent, until) for sent, until in counted if sent <= last + 2 * careful.limiter.period]
    assert most_possible(while_heard, careful.limiter.period) <= careful.limiter.posts
    for number, scenario in enumerate(machine.scenarios):
        if kills[number] is None:
            patient = sum(of == number and plan.patience is None for of, plan in plans)
            assert len(scenario.sent) >= patient
