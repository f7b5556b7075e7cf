"""The limiter in virtual time: what is true whatever the network does, and what each of its methods does.

The loops' clocks count in 2**-20 s, so that the sums of times that ``aiolimiter`` makes are exact. With decimal ticks a
rounding error of 1e-16 tokens may remain, for which it waits in steps of no time at all; a real clock moves on
meanwhile, a virtual one does not.
"""

import asyncio
import functools
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import looptime
import pytest
from aiolimiter import AsyncLimiter
from attrs import define, field, frozen
from hypothesis import example, given, settings
from hypothesis import strategies as st

from springest_async.errors import ConfigurationError
from springest_async.limits.bucket import Bucket
from springest_async.limits.limiter import Limiter, Permit, shared_limiter
from springest_async.limits.store import FileStore
from springest_async.sandbox.audit import most_in_any
from springest_async.sandbox.windows import ElasticWindow, Paced, SlidingWindow, Window

Given = ParamSpec("Given")
Result = TypeVar("Result")

TICK = 2**-20
ANSWER = 120.0  # seconds in which the server may count a POST that is never answered
PERIOD = 60.0
SILENCE = 60.1  # the period and its margin
FOR_EVER = 1_000_000.0  # virtual seconds: a test that comes so far waits for something that never happens


def in_virtual_time(test: Callable[Given, Awaitable[None]]) -> Callable[Given, Coroutine[Any, Any, None]]:
    """Run an async test on a virtual clock that starts at 0; a test that would hang fails at once."""

    @pytest.mark.looptime(start=0, resolution=TICK)
    @functools.wraps(test)
    async def limited(*args: Given.args, **kwargs: Given.kwargs) -> None:
        async with asyncio.timeout(FOR_EVER):
            await test(*args, **kwargs)

    return limited


@pytest.fixture(scope="module", autouse=True)
def _no_accidental_loop() -> None:
    # looptime asks for the current event loop also in tests that are not async. If none was ever set, Python makes a
    # new one, which is never closed; after None was set, it makes none.
    asyncio.set_event_loop(None)


def new_loop(start: float = 0.0) -> asyncio.AbstractEventLoop:
    """Make an event loop with a virtual clock of its own."""
    loop: asyncio.AbstractEventLoop = looptime.new_event_loop(start=start, resolution=TICK, noop_cycles=0)
    return loop


def run_in_virtual_time(main: Coroutine[Any, Any, Result], *, start: float = 0.0) -> Result:
    """Run `main` on an event loop of its own, as each example of a property test must."""
    with asyncio.Runner(loop_factory=lambda: new_loop(start)) as runner:
        return runner.run(asyncio.wait_for(main, FOR_EVER))


def now() -> float:
    return asyncio.get_running_loop().time()


def about(seconds: float) -> Any:
    return pytest.approx(seconds, abs=1e-4)


class Store(FileStore):
    """A file whose clock is the virtual one, and which can fail: that of a killed process changes nothing any more."""

    failure = ""
    changes = 0

    def now(self) -> float:
        return now()

    @contextmanager
    def change(self) -> Iterator[Bucket]:
        self._fail()
        self.changes += 1
        with super().change() as bucket:
            yield bucket

    def read(self) -> Bucket:
        self._fail()
        return super().read()

    def _fail(self) -> None:
        if self.failure:
            raise ConfigurationError(self.failure)


New = Callable[..., Limiter]


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Return a maker of stores of one file, each as if in a process of its own."""
    made: list[Store] = []

    def new_store() -> Store:
        made.append(Store(tmp_path / "limits.sqlite3", "a budget"))
        return made[-1]

    yield new_store
    for store in made:
        store.close()


@pytest.fixture
def process(stores: Callable[[], Store]) -> New:
    """Return a maker of limiters that share one bucket, each as if in a process of its own."""
    return lambda **numbers: Limiter(store=stores(), **numbers)


@pytest.fixture(params=["memory", "file"])
def new(request: pytest.FixtureRequest, process: New) -> New:
    """Return a maker of limiters: what one alone does is the same wherever its bucket is."""
    return Limiter if request.param == "memory" else process


async def post(limiter: Limiter, *, lasting: float = 0.0, answered: bool = True, bulk: bool = False) -> float:
    """Make one POST; return when it was sent."""
    async with limiter.post(count_window=ANSWER, bulk=bulk) as permit:
        sent = now()
        await asyncio.sleep(lasting)
        if answered:
            permit.mark_answered()
    return sent


async def post_all(limiter: Limiter, posts: int, *, lasting: float = 0.0, answered: bool = True) -> list[float]:
    """Make so many POSTs at once; return when they were sent."""
    return await asyncio.gather(*(post(limiter, lasting=lasting, answered=answered) for _ in range(posts)))


async def slow(limiter: Limiter) -> Limiter:
    """Report a refusal for speed of the first POST, and wait until the silence after it is over."""
    await post(limiter)
    limiter.slow_down(1)
    await asyncio.sleep(SILENCE)
    return limiter


# --- what holds whatever the network does ---


@frozen
class Plan:
    """One POST of a scenario: when it asks, how it goes, and after how long it is cancelled (None: never)."""

    asks_at: float
    takes: float
    ends: Literal["answered", "unanswered", "unsent"]
    patience: float | None = None
    pause: float | None = None  # of a probe: 2.0, or None for a whole period
    probes: bool = False
    refused: bool = False


@define
class Trace:
    """What became of a POST: when it asked, was sent and ended, and until when the server can have counted it."""

    asked: float
    sent: float | None = None
    ended: float = 0.0
    counted_until: float | None = None


@define
class Scenario:
    """A run of all plans through one limiter. `asked` and `sent` are in the order in which that happened."""

    limiter: Limiter
    count_window: float
    asked: list[Trace] = field(factory=list)
    sent: list[Trace] = field(factory=list)

    async def run(self, plans: list[Plan]) -> None:
        async with asyncio.TaskGroup() as group:
            for plan in plans:
                group.create_task(self._follow(plan))

    async def _follow(self, plan: Plan) -> None:
        await asyncio.sleep(plan.asks_at)
        trace = Trace(now())
        self.asked.append(trace)
        with suppress(TimeoutError):  # of a cancellation
            async with asyncio.timeout(plan.patience):
                if plan.probes:
                    async with (
                        self.limiter.probe() as probe,
                        probe(count_window=self.count_window, pause=plan.pause) as permit,
                    ):
                        await self._send(plan, trace, permit)
                else:
                    async with self.limiter.post(count_window=self.count_window) as permit:
                        await self._send(plan, trace, permit)
                if plan.refused:
                    self.limiter.slow_down(permit.position)

    async def _send(self, plan: Plan, trace: Trace, permit: Permit) -> None:
        trace.sent = now()
        self.sent.append(trace)
        try:
            await asyncio.sleep(plan.takes)
            if plan.ends == "answered":
                permit.mark_answered()
            elif plan.ends == "unsent":
                permit.mark_unsent()
        finally:
            trace.ended = now()
            if permit.answered:
                trace.counted_until = trace.ended
            elif getattr(self.limiter.store, "failure", ""):
                trace.counted_until = trace.ended + self.count_window
            elif permit.sent:
                trace.counted_until = max(trace.ended, trace.sent + self.count_window)

    def counted(self) -> list[tuple[float, float]]:
        """From when until when the server can have counted each POST that reached it."""
        return [
            (trace.sent, trace.counted_until)
            for trace in self.sent
            if trace.sent is not None and trace.counted_until is not None
        ]


def most_possible(counted: list[tuple[float, float]], period: float) -> int:
    """Return how many POSTs a server can count into one period, if it counts each at the worst possible moment.

    A period that begins at `start` can hold every POST whose range reaches into it: those from before are counted as
    late as can be, those from after as early as can be. The worst period begins where some range ends. Both ends of
    the period belong to it, which is stricter than a half-open one.
    """
    return max(
        (sum(sent <= start + period and until >= start for sent, until in counted) for _, start in counted), default=0
    )


def seconds(longest: float) -> st.SearchStrategy[float]:
    return st.integers(0, int(longest * 64)).map(lambda parts: parts / 64)


@st.composite
def scenarios(draw: st.DrawFn, posts: int, *, most: int, adapts: bool = False) -> tuple[Limiter, float, list[Plan]]:
    """Draw a limiter whose tokens are 2 s apart, the time within which POSTs are counted, and the POSTs."""
    period = 2.0 * posts
    count_window = draw(st.sampled_from([0.0, 1.0, period, 2 * period]))
    plans = st.builds(
        Plan,
        asks_at=st.just(0.0) | seconds(2 * period),
        takes=st.just(0.0) | seconds(1.0) | seconds(1.5 * period),
        ends=st.sampled_from(["answered", "answered", "unanswered", "unsent"]),
        patience=st.none() | seconds(2 * period),
        probes=st.booleans() if adapts else st.just(False),
        pause=st.sampled_from([None, 2.0]),
        refused=st.booleans() if adapts else st.just(False),
    )
    limiter = Limiter(posts=posts, period=period, burst=draw(st.just(posts) | st.integers(1, posts)))
    return limiter, count_window, draw(st.lists(plans, min_size=min(posts, 20), max_size=most))


few = st.integers(1, 4).flatmap(lambda posts: scenarios(posts, most=24))
thirty = scenarios(30, most=90)
adapting = st.integers(1, 4).flatmap(lambda posts: scenarios(posts, most=16, adapts=True))


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


async def probe(limiter: Limiter, *, pause: float | None, lasting: float = 0.0) -> float:
    """Make one POST alone; return when it was sent."""
    async with limiter.probe() as post_alone, post_alone(count_window=ANSWER, pause=pause) as permit:
        sent = now()
        await asyncio.sleep(lasting)
        permit.mark_answered()
    return sent


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


# --- servers that count otherwise ---


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


# --- the forecast ---

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


# --- many processes ---


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
            assert isinstance(scenario.limiter.store, Store)
            scenario.limiter.store.failure = "killed"
            life.cancel()
            with suppress(asyncio.CancelledError, ExceptionGroup):
                await life

    def counted(self) -> list[tuple[float, float]]:
        return [counted for scenario in self.scenarios for counted in scenario.counted()]


@st.composite
def machines(draw: st.DrawFn) -> tuple[list[Limiter], float, list[tuple[int, Plan]], list[float | None]]:
    """Draw processes with their limits, and to each POST that they make, whose it is; and when each is killed."""
    limiter, count_window, plans = draw(few | adapting)
    processes = draw(st.integers(2, 3))
    kills = draw(st.lists(st.none() | seconds(2 * limiter.period), min_size=processes, max_size=processes))
    whose = draw(st.lists(st.integers(0, processes - 1), min_size=len(plans), max_size=len(plans)))
    return [limiter] * processes, count_window, list(zip(whose, plans, strict=True)), kills


@settings(max_examples=60)
@given(machines())
def test_no_period_of_many_processes_holds_more_than_the_limit(
    drawn: tuple[list[Limiter], float, list[tuple[int, Plan]], list[float | None]],
) -> None:
    like, count_window, plans, kills = drawn

    def process(store: Store) -> Limiter:
        return Limiter(posts=like[0].posts, period=like[0].period, burst=like[0].burst, store=store)

    with tempfile.TemporaryDirectory() as folder:
        stores = [Store(Path(folder) / "limits.sqlite3", "a budget") for _ in like]
        machine = Machine([Scenario(process(store), count_window) for store in stores], kills)

        run_in_virtual_time(machine.run(plans))

        for store in stores:
            store.close()
    assert most_possible(machine.counted(), like[0].period) <= like[0].posts
    # No POST waited for ever: all that were neither cancelled nor killed were sent.
    for number, scenario in enumerate(machine.scenarios):
        if kills[number] is None:
            patient = sum(of == number and plan.patience is None for of, plan in plans)
            assert len(scenario.sent) >= patient


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


# --- more than one event loop, and more than one client ---


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
        assert limiter._store.read().queue == []
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


def test_a_look_at_an_idle_bucket_leaves_no_file_open(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "limits.sqlite3", "a budget")
    limiter = Limiter(store=store)
    for use in (lambda: limiter.slow, lambda: limiter.seconds_until(1), lambda: limiter.slow_down(1)):
        use()
        assert store._opened is None

    assert limiter.slow


@in_virtual_time
async def test_the_file_is_open_while_posts_wait_or_are_sent(stores: Callable[[], Store]) -> None:
    store = stores()
    limiter = Limiter(posts=1, store=store)
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(post(limiter, lasting=1.0))
        await asyncio.sleep(2.0)
        assert store._opened is not None
        await limiter.request()
        assert not limiter.slow
        assert store._opened is not None
    assert store._opened is None

    await probe(limiter, pause=2.0)
    assert store._opened is None


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


@pytest.mark.parametrize("first_shares", [False, True])
def test_one_budget_shared_by_one_client_only_is_refused(first_shares: bool, tmp_path: Path) -> None:
    budget, store = f"one budget, {first_shares}", FileStore(tmp_path / "limits.sqlite3", "a budget")
    limiters = [Limiter(store=store), Limiter()]
    first, other = limiters if first_shares else reversed(limiters)
    shared_limiter(budget, lambda: first)

    with pytest.raises(ConfigurationError, match="let both do the same"):
        shared_limiter(budget, lambda: other)
    assert shared_limiter(budget, lambda: Limiter(store=first.store)) is first


async def test_a_forked_process_leaves_its_parents_posts_alone(new: New, monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = new()
    async with limiter.post(count_window=ANSWER) as permit:
        parent = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: parent + 1)
        await asyncio.to_thread(asyncio.run, post(limiter))
        permit.mark_answered()

    assert repr(limiter).startswith("<Limiter 30 in 60 s, 0 under way, 2 resting")
