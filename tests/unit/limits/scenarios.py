"""Scenarios of POSTs for the property tests of the limiter, and what a server can count of them."""

import asyncio
from contextlib import suppress
from typing import Literal

from attrs import define, field, frozen
from hypothesis import strategies as st

from springest_async.limits.limiter import Limiter
from springest_async.limits.permit import Permit

from .virtual import SharedLedger, now

__all__ = ["Plan", "Scenario", "Trace", "adapting", "few", "most_possible", "scenarios", "seconds", "thirty"]


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
    ledger: SharedLedger | None = None
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
            elif self.ledger is not None and self.ledger.failure:
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
