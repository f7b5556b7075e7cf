"""At most 30 POSTs in any 60 seconds as the server counts them, and at most 4000 requests an hour.

The bucket holds 30 tokens. A POST takes one, and the token rests for 60 s *from its answer* before it can be used
again. The server counts a POST somewhere between its send and its answer, so the 31st POST is sent, hence counted,
more than 60 s after the first one was counted, whatever the network does in between. (A bucket that refills as time
passes lets 59 into one minute; pacing by the send is bent by the network. ``python -m benchmarks limiter`` shows it.)

`Limiter` also slows down for servers that count in another way, and gives a doubtful POST a minute of its own
(`Limiter.probe`). It knows no HTTP: who uses it says when a POST ended and how. Here is the waiting; the bucket itself,
which a store may share with other processes, is in `springest_async.limits.bucket`.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from functools import partial
from typing import Protocol
from uuid import uuid4

from aiolimiter import AsyncLimiter
from attrs import define, field, frozen

from springest_async.errors import ConfigurationError
from springest_async.limits.bucket import Bucket, BucketStore, RateLimit

__all__ = ["POSTS_PER_MINUTE", "Limiter", "Permit", "shared_limiter"]

POSTS_PER_MINUTE = 30
"""The limit of ``POST /users/certificates``, from the help page "User certificates - certifications"."""

# All requests together: 4000 an hour (introduction page). 400 at once and 400 every 400 s are 4000 in the worst hour.
_HOURLY_BURST, _HOURLY_PERIOD = 400, 400.0

_log = logging.getLogger(__name__)


@define(eq=False)
class Permit:
    """Permission for one POST, given by `Limiter.post` and used up when its ``async with`` ends.

    `since_silence` says which POST it is since the last silent period (1 is the first). So does `position`, but it is 0
    at the fast pace, where `Limiter.slow_down` learns nothing from it. `may_count_until` is the time, on the clock of
    the limiter's store, until which the server may still count this POST if no answer comes; it starts as the time
    given to `post`.
    """

    name: str
    position: int
    since_silence: int
    may_count_until: float
    count_window: float
    clock: Callable[[], float] = field(repr=False)
    answered: bool = False
    sent: bool = True

    def mark_answered(self) -> None:
        """Say that the server's answer came: from now on its count cannot change."""
        self.answered = True

    def count_from_now(self, seconds: float) -> None:
        """Say that the server may count this POST for so long from now on."""
        self.may_count_until = self.clock() + seconds

    def mark_unsent(self) -> None:
        """Say that not a byte reached the server, so that the token goes back at once."""
        self.sent = False


@frozen
class _Memory:
    """A bucket of this process alone. Its time is the event loop's."""

    bucket: Bucket = field(factory=Bucket)

    def now(self) -> float:
        try:
            return asyncio.get_running_loop().time()
        except RuntimeError:
            return time.monotonic()  # what asyncio's own loops go by

    @contextmanager
    def change(self) -> Iterator[Bucket]:
        yield self.bucket

    def read(self) -> Bucket:
        return self.bucket


class Limiter:
    """A token bucket whose tokens rest, for one host and key.

    Usage::

        limiter = Limiter()
        async with limiter.post(count_window=120.0) as turn:  # waits until a POST may leave
            ...
            turn.mark_answered()
        await limiter.request()  # any other request: only the hourly budget

    Args:
        posts: how many POSTs in any `period` (30).
        period: seconds (60).
        burst: how many may leave at once, 1 to `posts`; fewer makes them leave evenly, ``period / posts`` s apart.
        store: where the bucket is, such as a `FileStore` that it shares with other processes of this machine. By
            default it is this limiter's own. The burst and the hourly budget are each process's own in any case.

    POSTs leave in the order in which they asked, but that those of ``post(bulk=True)`` stand in a line of their own, of
    which only the first stands among the others. Those who share a store get equal shares of it, and who holds fewer
    tokens goes first. Cancelling a waiting POST takes no token; cancelling a running one keeps its token for as long as
    the server may count it.
    """

    def __init__(
        self,
        *,
        posts: int = POSTS_PER_MINUTE,
        period: float = 60.0,
        burst: int | None = None,
        store: BucketStore | None = None,
    ) -> None:
        self.posts = posts
        self.period = period
        self.burst = posts if burst is None else burst
        self.store = store
        if posts < 1 or period <= 0 or not 1 <= self.burst <= posts:
            raise ConfigurationError(
                f"a limiter needs posts >= 1, period > 0 and 1 <= burst <= posts,"
                f" not posts={posts}, period={period}, burst={burst}"
            )
        self._figures = RateLimit(posts, period)
        self._store: BucketStore = store or _Memory()
        self._last_seen = Bucket()
        self._spent, self._spent_at = 0.0, 0.0  # of the hour's budget, and when the last one was taken
        self._holder = uuid4().hex
        self._here: _LoopState | None = None

    def __repr__(self) -> str:
        bucket = self._last_seen  # a repr opens no file
        bucket.settle(self._store.now())
        pace = "slow" if bucket.slow else "fast"
        under_way = bucket.under_way
        resting = len(bucket.tokens) - under_way
        return f"<Limiter {self.posts} in {self.period:g} s, {under_way} under way, {resting} resting, {pace}>"

    @property
    def slow(self) -> bool:
        """Whether the server was seen to count otherwise, so that POSTs leave one at a time."""
        return self._look().slow

    @asynccontextmanager
    async def post(self, *, count_window: float, bulk: bool = False) -> AsyncIterator[Permit]:
        """Wait for a token and give the turn for one POST.

        Args:
            count_window: seconds from the send within which the server may count the POST if no answer comes.
            bulk: whether it is one of many, so that those that somebody waits for go first.

        Raises:
            ConfigurationError: when the bucket's store fails. No token was taken. Once the turn is given, the store's
                failures are logged only: a token that is not given back comes back by itself.
        """
        here = self._bind()
        turn = await self._turn(here, count_window, bulk)
        try:
            yield turn
        finally:
            self._end(here, turn)

    async def request(self) -> None:
        """Wait until a request other than a POST fits into the hourly budget."""
        await self._spend(self._bind())

    @asynccontextmanager
    async def probe(self) -> AsyncIterator["_ProbePost"]:
        """Hold all other POSTs back, for one whose answer is to be a verdict. One probe at a time.

        What it gives is called like `post`; with ``pause=2.0`` it waits until nobody is under way and all was silent
        for 2 s, with ``pause=None`` for a whole period.
        """
        here = self._bind()
        async with here.probe_door:
            await self._until(here, lambda bucket, now: bucket.hold(self._figures, now, holder=self._holder))
            here.probing = True
            self._keep_alive(here)
            try:
                yield partial(self._probe_post, here)
            finally:
                here.probing = False
                if here is self._here:
                    self._note(lambda bucket, _: bucket.release(self._holder))
                    self._rest(here)
                    here.notify()

    @asynccontextmanager
    async def _probe_post(
        self, here: "_LoopState", *, count_window: float, pause: float | None
    ) -> AsyncIterator[Permit]:
        turn = await self._turn_alone(here, count_window, self._figures.silence if pause is None else pause)
        try:
            yield turn
        finally:
            self._end(here, turn)

    def slow_down(self, position: int, *, silence: float | None = None) -> None:
        """After a refusal for speed: a silent period, then one POST at a time, each a while after the last answer.

        The pace stays slow from then on: what the server counts is not known, so nothing says that it may be faster.

        Args:
            position: the refused turn's `position`. When about `posts` slow POSTs have passed since a silence, the
                server has a count that only silence resets, so there will be a silence after every so many.
            silence: the seconds that the server asked for, if that is longer than the period; 0.0 when there has just
                been a silence, so that none is needed.
        """
        self._note(lambda bucket, _: bucket.slow_down(self._figures, position, silence))
        if self._here is not None:
            self._here.notify()

    def seconds_until(self, posts: int) -> float:
        """Tell in how many seconds so many more POSTs can have left, if answers come at once and nobody else posts.

        0 when they can now.
        """
        if posts <= 0:
            return 0.0
        self._bind()
        return self._look().seconds_until(self._figures, self._store.now(), posts=posts, burst=self.burst)

    # --- one event loop after another ---

    def _bind(self) -> "_LoopState":
        """Take the state along when the program starts another event loop, as each ``asyncio.run`` does."""
        loop, before = asyncio.get_running_loop(), self._here
        if before is not None and before.pid == os.getpid():
            if before.loop is loop:
                return before
            if before.loop.is_running():
                raise ConfigurationError(
                    "two event loops use this host and key at the same time: give all uploads to one of them,"
                    " because the limit cannot be kept across both"
                )
        here = self._here = _LoopState(loop, AsyncLimiter(self.burst, self.burst * self._figures.spacing))
        if before is not None and before.pid == here.pid:
            self._abandon(before)
        elif before is not None:
            self._holder = uuid4().hex  # this process was forked: all that was under way is its parent's
        return here

    def _abandon(self, before: "_LoopState") -> None:
        """End what is left of an event loop that was closed under it."""
        turns, before.under_way = before.under_way, {}

        def abandon(bucket: Bucket, now: float) -> None:
            bucket.leave_line(self._holder)
            bucket.release(self._holder)
            for turn in turns.values():
                self._end_in(bucket, now, turn)

        self._note(abandon)

    async def _spend(self, here: "_LoopState") -> None:
        """Take one from the hour's budget; what was spent on an earlier event loop stays spent."""
        if here.hourly_is_new:
            here.hourly_is_new = False
            await here.hourly.acquire(self._spent_now(here))  # an empty bucket has room for it: this does not wait
        await here.hourly.acquire()
        self._spent = self._spent_now(here) + 1.0
        self._spent_at = here.loop.time()

    def _spent_now(self, here: "_LoopState") -> float:
        back = (here.loop.time() - self._spent_at) * _HOURLY_BURST / _HOURLY_PERIOD
        return min(max(0.0, self._spent - back), _HOURLY_BURST)

    # --- from the line to the end of a turn ---

    async def _turn(self, here: "_LoopState", count_window: float, bulk: bool) -> Permit:
        name, position, since_silence = uuid4().hex, 0, 0

        def ask(bucket: Bucket, now: float) -> float:
            # The first at the door stands for all who wait behind it.
            return bucket.ask(self._figures, now, holder=self._holder, bulk=here.bulk_only, wanted=here.wanted)

        def leave(bucket: Bucket, now: float) -> float:
            nonlocal position, since_silence
            if (wait := ask(bucket, now)) == 0:
                position = bucket.take(self._figures, now, name=name, holder=self._holder, count_window=count_window)
                since_silence = bucket.since_silence
                waiting.remove(name)
                bucket.move_on(self._figures, now, holder=self._holder, bulk=here.bulk_only, wanted=here.wanted)
            return wait

        waiting = here.bulk if bulk else here.interactive
        waiting.add(name)
        if len(waiting).bit_count() == 1:
            here.notify()  # so that the one at the door tells the line that more are wanted, but not at each of a crowd
        try:
            async with here.bulk_line if bulk else nullcontext(), here.door:
                await self._until(here, ask)
                await here.shape.acquire()
                await self._spend(here)
                # Waiting for the shape may have taken long enough for a silence to be called.
                await self._until(here, leave)
        except asyncio.CancelledError:
            waiting.discard(name)
            if not here.wanted:
                self._note(lambda bucket, _: bucket.leave_line(self._holder))
            raise
        finally:
            waiting.discard(name)
        return self._begin(here, name, position, since_silence, count_window)

    async def _turn_alone(self, here: "_LoopState", count_window: float, quiet: float) -> Permit:
        name, position, since_silence = uuid4().hex, 0, 0

        def leave(bucket: Bucket, now: float) -> float:
            nonlocal position, since_silence
            if (wait := bucket.ask_alone(self._figures, now, holder=self._holder, quiet=quiet)) == 0:
                position = bucket.take(
                    self._figures, now, name=name, holder=self._holder, count_window=count_window, quiet=quiet
                )
                since_silence = bucket.since_silence
            return wait

        await self._spend(here)
        await self._until(here, leave)
        return self._begin(here, name, position, since_silence, count_window)

    def _begin(self, here: "_LoopState", name: str, position: int, since_silence: int, count_window: float) -> Permit:
        now = self._store.now()
        turn = Permit(name, position, since_silence, now + count_window, count_window, self._store.now)
        here.under_way[name] = turn
        self._keep_alive(here)
        return turn

    def _end(self, here: "_LoopState", turn: Permit) -> None:
        if here.under_way.pop(turn.name, None) is None:
            return  # ended already, when its event loop was left behind
        self._note(lambda bucket, now: self._end_in(bucket, now, turn))
        self._rest(here)
        here.notify()

    def _end_in(self, bucket: Bucket, now: float, turn: Permit) -> None:
        until = None if not turn.sent else now if turn.answered else max(now, turn.may_count_until)
        bucket.end(self._figures, now, name=turn.name, holder=self._holder, counted_until=until)

    def _keep_alive(self, here: "_LoopState") -> None:
        """Let the bucket know from time to time that what is under way here is not that of a killed process."""
        if here.pulse is None:
            here.pulse = here.loop.call_later(self._figures.beat, self._beat, here)

    def _rest(self, here: "_LoopState") -> None:
        """Stop that when nothing is under way here."""
        if here.pulse is not None and not here.under_way and not here.probing:
            here.pulse.cancel()
            here.pulse = None

    def _beat(self, here: "_LoopState") -> None:
        under_way = {name: turn.count_window for name, turn in here.under_way.items()}
        self._note(lambda bucket, now: bucket.renew(self._figures, now, holder=self._holder, under_way=under_way))
        here.pulse = None
        self._keep_alive(here)

    # --- the store ---

    async def _until(self, here: "_LoopState", ask: Callable[[Bucket, float], float]) -> None:
        """Ask the bucket until it says 0, after so many seconds as it says, or when something changed here.

        Only the first in the line and the one probe ever wait here.
        """
        while True:
            with self._store.change() as bucket:
                wait = ask(bucket, self._store.now())
            self._last_seen = bucket
            if wait == 0:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await here.changed.wait()

    def _note(self, change: Callable[[Bucket, float], None]) -> None:
        """Change the bucket where nothing can be done about a failure, and where all that is lost is time."""
        try:
            with self._store.change() as bucket:
                change(bucket, self._store.now())
            self._last_seen = bucket
        except ConfigurationError as error:
            _log.warning("the limit waits longer than it need, since its state could not be kept: %s", error)

    def _look(self) -> Bucket:
        """Give the bucket as it is, or as it was seen last if it cannot be read."""
        with suppress(ConfigurationError):
            self._last_seen = self._store.read()
        self._last_seen.settle(self._store.now())
        return self._last_seen


@define(eq=False)
class _LoopState:
    """All that belongs to one event loop: what was started on it, and what wakes who waits."""

    loop: asyncio.AbstractEventLoop
    shape: AsyncLimiter
    hourly: AsyncLimiter = field(factory=lambda: AsyncLimiter(_HOURLY_BURST, _HOURLY_PERIOD))
    hourly_is_new: bool = True
    pid: int = field(factory=os.getpid)
    door: asyncio.Lock = field(factory=asyncio.Lock)
    bulk_line: asyncio.Lock = field(factory=asyncio.Lock)
    probe_door: asyncio.Lock = field(factory=asyncio.Lock)
    changed: asyncio.Event = field(factory=asyncio.Event)
    interactive: set[str] = field(factory=set)  # the names of the POSTs that wait
    bulk: set[str] = field(factory=set)
    under_way: dict[str, Permit] = field(factory=dict)
    probing: bool = False
    pulse: asyncio.TimerHandle | None = None

    @property
    def bulk_only(self) -> bool:
        """Whether no other than bulk waits."""
        return not self.interactive

    @property
    def wanted(self) -> int:
        """How many POSTs wait that may go first of all that wait here."""
        return len(self.interactive or self.bulk)

    def notify(self) -> None:
        """Wake who waits, because something may have changed for it."""
        self.changed.set()
        self.changed = asyncio.Event()


class _ProbePost(Protocol):
    """The right to send while all others wait."""

    def __call__(self, *, count_window: float, pause: float | None) -> AbstractAsyncContextManager[Permit]: ...


_shared: dict[Hashable, Limiter] = {}


def shared_limiter(budget: Hashable, make: Callable[[], Limiter]) -> Limiter:
    """Give the limiter that all clients of this process share for a budget, which is a host and a key's digest.

    It lives as long as the process, so that a client that is closed and opened again forgets no POST.

    Raises:
        ConfigurationError: when another client opened the same budget with other figures, or one of the two shares it
            with other processes and the other does not.
    """
    wanted = make()
    limiter = _shared.setdefault(budget, wanted)
    if (limiter.posts, limiter.period, limiter.burst) != (wanted.posts, wanted.period, wanted.burst):
        raise ConfigurationError(
            f"another client of this process uses this host and key with {limiter.posts} POSTs a minute"
            f" and a burst of {limiter.burst}: use the same figures, since they share one budget"
        )
    if (limiter.store is None) != (wanted.store is None):
        one, other = ("does not share", "shares") if limiter.store is None else ("shares", "does not share")
        raise ConfigurationError(
            f"another client of this process {one} this host and key's limit with other processes, and this one"
            f" {other} it: let both do the same, since they share one budget"
        )
    return limiter
