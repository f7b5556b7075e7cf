"""At most 30 POSTs in any 60 seconds as the server counts them, and at most 4000 requests an hour.

The bucket holds 30 tokens. A POST takes one, and the token rests for 60 s *from its answer* before it can be used
again. The server counts a POST somewhere between its send and its answer, so the 31st POST is sent, hence counted,
more than 60 s after the first one was counted, whatever the network does in between. (A bucket that refills as time
passes lets 59 into one minute; pacing by the send is bent by the network. ``python -m benchmarks limiter`` shows it.)

`Limiter` also slows down for servers that count in another way, and gives a doubtful POST a minute of its own
(`Limiter.probe`). It knows no HTTP: who uses it says when a POST ended and how.
"""

import asyncio
import heapq
import math
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Protocol

from aiolimiter import AsyncLimiter
from attrs import define

from springest_async.errors import ConfigurationError

__all__ = ["POSTS_PER_MINUTE", "Limiter", "Turn", "shared_limiter"]

POSTS_PER_MINUTE = 30
"""The limit of ``POST /users/certificates``, from the help page "User certificates - certifications"."""

# All requests together: 4000 an hour (introduction page). 400 at once and 400 every 400 s are 4000 in the worst hour.
_HOURLY_BURST, _HOURLY_PERIOD = 400, 400.0

# Timers fire a little early or late, and a server may count both ends of its minute.
_MARGIN = 0.1

# Refused as the 31st slow POST since a silence, or nearly: the server has a count that only silence resets.
_ABOUT = 2

# Smaller waits than this are rounding errors of the clock's floats, and would make a loop spin.
_DUST = 1e-6


@define(eq=False)
class Turn:
    """Permission for one POST, given by `Limiter.post` and used up when its ``async with`` ends.

    `position` says which POST it is since the last silence (1 is the first), and is 0 at the fast pace, where nothing
    is learnt from it. `may_count_until` is the loop's time until which the server may still count this POST if no
    answer comes; it starts as the time given to `post`.
    """

    position: int
    may_count_until: float
    answered: bool = False
    sent: bool = True

    def mark_answered(self) -> None:
        """Say that the server's answer came: from now on its count cannot change."""
        self.answered = True

    def count_from_now(self, seconds: float) -> None:
        """Say that the server may count this POST for so long from now on."""
        self.may_count_until = asyncio.get_running_loop().time() + seconds

    def mark_unsent(self) -> None:
        """Say that not a byte reached the server, so that the token goes back at once."""
        self.sent = False


class Limiter:
    """A token bucket whose tokens rest, for one host and key.

    Usage::

        limiter = Limiter()
        async with limiter.post(counted_within=120.0) as turn:  # waits until a POST may leave
            ...
            turn.mark_answered()
        await limiter.request()  # any other request: only the hourly budget

    Args:
        posts: how many POSTs in any `period` (30).
        period: seconds (60).
        burst: how many may leave at once, 1 to `posts`; fewer makes them leave evenly, ``period / posts`` s apart.

    POSTs leave in the order in which they asked. Cancelling a waiting one takes no token; cancelling a running one
    keeps its token for as long as the server may count it.
    """

    def __init__(self, *, posts: int = POSTS_PER_MINUTE, period: float = 60.0, burst: int | None = None) -> None:
        self.posts = posts
        self.period = period
        self.burst = posts if burst is None else burst
        if posts < 1 or period <= 0 or not 1 <= self.burst <= posts:
            raise ConfigurationError(
                f"a limiter needs posts >= 1, period > 0 and 1 <= burst <= posts,"
                f" not posts={posts}, period={period}, burst={burst}"
            )
        self._silence = period + _MARGIN
        self._spacing = period / posts
        # All state of the bucket: when the resting tokens are back (a heap of loop times), and who is under way.
        self._resting: list[float] = []
        self._under_way: set[Turn] = set()
        self._last_answer = -math.inf
        # How the pace was adapted: `_quiet` is the silence that the next POST needs before it, in seconds.
        self._slow = False
        self._quiet = 0.0
        self._batch: int | None = None
        self._since_silence = 0
        self._probing = False
        self._spent, self._spent_at = 0.0, 0.0  # of the hour's budget, and when the last one was taken
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        pace = "slow" if self._slow else "fast"
        now = 0.0 if self._loop is None else self._loop.time()
        resting = sum(back > now + _DUST for back in self._resting)  # what is back is dropped by the next POST only
        return (
            f"<Limiter {self.posts} in {self.period:g} s, {len(self._under_way)} under way, {resting} resting, {pace}>"
        )

    @property
    def slow(self) -> bool:
        """Whether the server was seen to count otherwise, so that POSTs leave one at a time."""
        return self._slow

    @asynccontextmanager
    async def post(self, *, counted_within: float) -> AsyncIterator[Turn]:
        """Wait for a token and give the turn for one POST.

        Args:
            counted_within: seconds from the send within which the server may count the POST if no answer comes.
        """
        self._bind()
        async with self._door:
            await self._until_clear()
            await self._shape.acquire()
            await self._spend()
            # Waiting for the shape may have taken long enough for a silence to be called.
            await self._until_clear()
            turn = self._take(counted_within)
        try:
            yield turn
        finally:
            self._end(turn)

    async def request(self) -> None:
        """Wait until a request other than a POST fits into the hourly budget."""
        self._bind()
        await self._spend()

    @asynccontextmanager
    async def probe(self) -> AsyncIterator["_ProbePost"]:
        """Hold all other POSTs back, for one whose answer is to be a verdict. One probe at a time.

        What it gives is called like `post`; with ``pause=2.0`` it waits until nobody is under way and all was silent
        for 2 s, with ``pause=None`` for a whole period.
        """
        self._bind()
        async with self._probe_door:
            self._probing = True
            try:
                yield self._probe_post
            finally:
                self._probing = False
                self._notify()

    @asynccontextmanager
    async def _probe_post(self, *, counted_within: float, pause: float | None) -> AsyncIterator[Turn]:
        quiet = self._silence if pause is None else pause
        await self._spend()
        await self._until_clear(probe=True, quiet=quiet)
        turn = self._take(counted_within, quiet)
        try:
            yield turn
        finally:
            self._end(turn)

    def slow_down(self, position: int, *, silence: float | None = None) -> None:
        """After a refusal for speed: a silent period, then one POST at a time, each a while after the last answer.

        The pace stays slow from then on: what the server counts is not known, so nothing says that it may be faster.

        Args:
            position: the refused turn's `position`. When about `posts` slow POSTs have passed since a silence, the
                server has a count that only silence resets, so there will be a silence after every so many.
            silence: the seconds that the server asked for, if that is longer than the period; 0.0 when there has just
                been a silence, so that none is needed.
        """
        if self._slow and abs(position - 1 - self.posts) <= _ABOUT:
            self._batch = min(self.posts, position - 1)
        self._slow = True
        # Of several that are refused at once, the one that was told to wait longest counts.
        self._quiet = max(self._quiet, self._spacing if silence == 0 else max(self._silence, silence or 0.0))
        self._notify()

    def seconds_until(self, posts: int) -> float:
        """Tell in how many seconds so many more POSTs can have left, if answers come at once. 0 when they can now."""
        if posts <= 0:
            return 0.0
        self._bind()
        now = asyncio.get_running_loop().time()
        held = self._silence if self._probing else 0.0
        if self._slow:
            first = (now if self._under_way else self._last_answer) + self._quiet
            since = 0 if self._quiet >= self._silence else self._since_silence
            silences = (since + posts - 1) // self._batch if self._batch else 0
            return (
                held + max(0.0, first - now) + self._spacing * (posts - 1) + (self._silence - self._spacing) * silences
            )
        back = sorted(self._resting + [now + self._silence] * len(self._under_way))
        free = self.posts - len(back)
        rounds, last = divmod(posts - 1, self.posts)
        by_bucket = 0.0 if last < free else back[last - free] - now
        by_burst = (last + 1 - self.burst) * self._spacing
        return held + max(0.0, by_bucket, by_burst) + rounds * self._silence

    # --- the state, changed by synchronous functions only ---

    def _bind(self) -> None:
        """Take the state along when the program starts another event loop, as each ``asyncio.run`` does."""
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._loop is not None and self._loop.is_running():
            raise ConfigurationError(
                "two event loops use this host and key at the same time: give all uploads to one of them,"
                " because the limit cannot be kept across both"
            )
        self._loop = loop
        self._probing = False
        self._door = asyncio.Lock()
        self._probe_door = asyncio.Lock()
        self._changed = asyncio.Event()
        self._shape = AsyncLimiter(self.burst, self.burst * self._spacing)
        self._hourly = AsyncLimiter(_HOURLY_BURST, _HOURLY_PERIOD)
        self._hourly_is_new = True
        # Its loop was closed under it. Last, because this wakes who waits for `_changed`, which must be the new one.
        for turn in tuple(self._under_way):
            self._end(turn)

    async def _spend(self) -> None:
        """Take one from the hour's budget; what was spent on an earlier event loop stays spent."""
        if self._hourly_is_new:
            self._hourly_is_new = False
            await self._hourly.acquire(self._spent_now())  # an empty bucket has room for it: this does not wait
        await self._hourly.acquire()
        self._spent = self._spent_now() + 1.0
        self._spent_at = asyncio.get_running_loop().time()

    def _spent_now(self) -> float:
        back = (asyncio.get_running_loop().time() - self._spent_at) * _HOURLY_BURST / _HOURLY_PERIOD
        return min(max(0.0, self._spent - back), _HOURLY_BURST)

    def _blocked(self, now: float, *, probe: bool = False, quiet: float = 0.0) -> float:
        """Seconds until the next POST may leave: 0 when it may now, infinite when something must happen first."""
        while self._resting and self._resting[0] <= now + _DUST:
            heapq.heappop(self._resting)
        if self._probing and not probe:
            return math.inf
        if len(self._under_way) + len(self._resting) >= self.posts:
            return self._resting[0] - now if self._resting else math.inf
        quiet = max(quiet, self._quiet)
        if quiet == 0:
            return 0.0
        if self._under_way:
            return math.inf
        wait = self._last_answer + quiet - now
        return wait if wait > _DUST else 0.0

    def _take(self, counted_within: float, quiet: float = 0.0) -> Turn:
        assert self._loop is not None
        if max(quiet, self._quiet) >= self._silence:
            self._since_silence = 0
        self._since_silence += 1
        turn = Turn(self._since_silence if self._slow else 0, self._loop.time() + counted_within)
        self._under_way.add(turn)
        self._quiet = self._spacing if self._slow else 0.0
        if self._batch and self._since_silence >= self._batch:
            self._quiet = self._silence
        return turn

    def _end(self, turn: Turn) -> None:
        if self._loop is None or turn not in self._under_way:
            return  # ended already, when its event loop was left behind
        self._under_way.remove(turn)
        if turn.sent:
            now = self._loop.time()
            counted = now if turn.answered else max(now, turn.may_count_until)
            heapq.heappush(self._resting, counted + self._silence)
            self._last_answer = max(self._last_answer, counted)
        self._notify()

    # --- the waiting: only the first in the line and the one probe ever wait here ---

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _until_clear(self, *, probe: bool = False, quiet: float = 0.0) -> None:
        loop = asyncio.get_running_loop()
        while (wait := self._blocked(loop.time(), probe=probe, quiet=quiet)) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(None if math.isinf(wait) else wait):
                    await self._changed.wait()


class _ProbePost(Protocol):
    """The right to send while all others wait."""

    def __call__(self, *, counted_within: float, pause: float | None) -> AbstractAsyncContextManager[Turn]: ...


_shared: dict[Hashable, Limiter] = {}


def shared_limiter(budget: Hashable, make: Callable[[], Limiter]) -> Limiter:
    """Give the limiter that all clients of this process share for a budget, which is a host and a key's digest.

    It lives as long as the process, so that a client that is closed and opened again forgets no POST.

    Raises:
        ConfigurationError: when another client opened the same budget with other figures.
    """
    wanted = make()
    limiter = _shared.setdefault(budget, wanted)
    if (limiter.posts, limiter.period, limiter.burst) != (wanted.posts, wanted.period, wanted.burst):
        raise ConfigurationError(
            f"another client of this process uses this host and key with {limiter.posts} POSTs a minute"
            f" and a burst of {limiter.burst}: use the same figures, since they share one budget"
        )
    return limiter
