"""At most 30 POSTs in any 60 seconds as the server counts them, and at most 4000 requests an hour.

The bucket has 30 tokens. A POST takes one, and the token rests for 60 s *from its answer* before it can be used
again. The server counts a POST somewhere between its send and its answer, so the 31st POST is sent, hence counted,
more than 60 s after the first one was counted, whatever the network does in between. (A bucket that refills as time
passes lets 59 into one minute; even pacing of the sends is bent by the network. ``python -m benchmarks limiter`` shows
it.)

`Limiter` also slows down for servers that count in another way, and sends a POST alone when its answer must be a
verdict (`Limiter.probe`). It knows no HTTP: its user reports when a POST ended, and how. This module does the waiting;
the bucket itself, which a store may share with other processes, is in `springest_async.limits.bucket`.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from functools import partial
from uuid import uuid4

from aiolimiter import AsyncLimiter
from attrs import define, field, frozen

from springest_async.errors import ConfigurationError
from springest_async.limits.bucket import Bucket, BucketStore, HourlyBudget, RateLimit

POSTS_PER_MINUTE = 30
"""The limit of ``POST /users/certificates``, from the help page "User certificates - certifications"."""

REQUESTS_PER_HOUR = 4000
"""The limit of all requests together, from the API's introduction page."""

_log = logging.getLogger(__name__)


@define(eq=False)
class Permit:
    """Permission for one POST, returned by `Limiter.post` and used up when its ``async with`` ends.

    Attributes:
        name: of the POST, unique.
        position: which POST it is since the last silent period (1 is the first); 0 at the fast pace, where
            `Limiter.slow_down` learns nothing from it.
        since_silence: the same, at every pace.
        may_count_until: the time until which the server may count the POST if no answer comes, on the store's clock.
        count_window: the seconds from the send that were given to `Limiter.post`.
        clock: returns the time of the store.
        answered: whether the answer has come.
        sent: whether any byte may have reached the server.
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
        """Record that the server's answer came: it has counted this POST by now."""
        self.answered = True

    def count_from_now(self, seconds: float) -> None:
        """Record that the server may count this POST for so many seconds from now on."""
        self.may_count_until = self.clock() + seconds

    def mark_unsent(self) -> None:
        """Record that no byte reached the server, so that the token is back at once."""
        self.sent = False


@frozen
class _Memory:
    """The store of a bucket that only this process uses. Its clock is the event loop's."""

    bucket: Bucket = field(factory=Bucket)

    def now(self) -> float:
        try:
            return asyncio.get_running_loop().time()
        except RuntimeError:
            return time.monotonic()  # the clock of asyncio's own loops

    @contextmanager
    def change(self) -> Iterator[Bucket]:
        yield self.bucket

    def read(self) -> Bucket:
        return self.bucket


class Limiter:
    """A token bucket whose tokens rest, for one host and key.

    Usage::

        limiter = Limiter()
        async with limiter.post(count_window=120.0) as permit:  # waits until a POST may leave
            ...
            permit.mark_answered()
        await limiter.request()  # any other request: only the hourly budget

    Args:
        posts: how many POSTs in any `period` (30).
        period: seconds (60).
        burst: how many may leave at once, 1 to `posts`; fewer makes them leave evenly, ``period / posts`` s apart.
        requests_per_hour: how many requests in any hour, POSTs included (4000).
        store: where the bucket is kept, such as a `FileStore` that other processes of this machine share. By default
            this limiter keeps it in memory. The burst and the hourly budget are always this process's own.

    Raises:
        ConfigurationError: a number is out of its range.

    POSTs leave in the order in which they asked, except that POSTs of ``post(bulk=True)`` have a queue of their own, of
    which only the first stands among the others; and interactive POSTs of one process go before bulk of another.
    Cancelling a POST that waits takes no token; cancelling one that is being sent keeps its token for as long as the
    server may count it.

    One event loop at a time may have POSTs that wait or are being sent; another loop, also in another thread, can take
    over as soon as there are none. `request` works on any number of loops.
    """

    def __init__(
        self,
        *,
        posts: int = POSTS_PER_MINUTE,
        period: float = 60.0,
        burst: int | None = None,
        requests_per_hour: int = REQUESTS_PER_HOUR,
        store: BucketStore | None = None,
    ) -> None:
        self.posts = posts
        self.period = period
        self.burst = posts if burst is None else burst
        self.requests_per_hour = requests_per_hour
        self.store = store
        if posts < 1 or period <= 0 or not 1 <= self.burst <= posts or requests_per_hour < 1:
            raise ConfigurationError(
                "a limiter needs posts >= 1, period > 0, 1 <= burst <= posts and requests_per_hour >= 1,"
                f" not posts={posts}, period={period}, burst={burst}, requests_per_hour={requests_per_hour}"
            )
        self._rate = RateLimit(posts, period)
        self._hour = HourlyBudget(requests_per_hour)
        self._store: BucketStore = store or _Memory()
        self._last_seen = Bucket()
        self._holder = uuid4().hex
        self._state: _LoopState | None = None
        self._guarded_in, self._guard = os.getpid(), threading.RLock()

    def __repr__(self) -> str:
        bucket = self._last_seen  # a repr opens no file
        with self._guarded():
            bucket.settle(self._store.now())
        pace = "slow" if bucket.slow else "fast"
        under_way, resting = len(bucket.under_way), len(bucket.resting)
        return f"<Limiter {self.posts} in {self.period:g} s, {under_way} under way, {resting} resting, {pace}>"

    @property
    def slow(self) -> bool:
        """Whether the server was seen to count otherwise, so that POSTs leave one at a time."""
        return self._look().slow

    @asynccontextmanager
    async def post(self, *, count_window: float, bulk: bool = False) -> AsyncIterator[Permit]:
        """Wait for a token and return the permit for one POST.

        Args:
            count_window: seconds from the send within which the server may count the POST if no answer comes.
            bulk: whether it belongs to a bulk run, so that interactive POSTs go first.

        Raises:
            ConfigurationError: the bucket's store fails (no token was taken), or another event loop has POSTs that
                wait or are being sent. Once there is a permit, failures of the store are only logged: a token that is
                not given back comes back by itself.
        """
        with self._in_use() as state:
            permit = await self._permit(state, count_window, bulk)
            try:
                yield permit
            finally:
                self._end(state, permit)

    async def request(self) -> None:
        """Wait until a request fits into the hourly budget; `post` and `probe` call it themselves."""
        with self._guarded():
            wait = self._hour.take(self._store.now())
        if wait > 0:
            try:
                await asyncio.sleep(wait)
            except asyncio.CancelledError:
                with self._guarded():
                    self._hour.give_back()
                raise

    @asynccontextmanager
    async def probe(self) -> AsyncIterator[Callable[..., AbstractAsyncContextManager[Permit]]]:
        """Hold all other POSTs back, for one whose answer must be a verdict. One probe at a time.

        The result is called like `post`; with ``pause=2.0`` it waits until nothing is under way and all was silent
        for 2 s, with ``pause=None`` for a whole period.

        Raises:
            ConfigurationError: as `post`.
        """
        with self._in_use() as state:
            async with state.one_probe:
                await self._until(state, lambda bucket, now: bucket.hold(self._rate, now, holder=self._holder))
                state.probing = True
                self._keep_alive(state)
                try:
                    yield partial(self._probe_post, state)
                finally:
                    state.probing = False
                    if state is self._state:
                        self._note(lambda bucket, _: bucket.release(self._holder))
                        self._stop_beating(state)
                        state.notify()

    @asynccontextmanager
    async def _probe_post(
        self, state: "_LoopState", *, count_window: float, pause: float | None
    ) -> AsyncIterator[Permit]:
        name, quiet = uuid4().hex, self._rate.silence if pause is None else pause

        def leave(bucket: Bucket, now: float) -> float:
            if (wait := bucket.ask_alone(self._rate, now, holder=self._holder, quiet=quiet)) == 0:
                bucket.take(self._rate, now, name=name, holder=self._holder, count_window=count_window, quiet=quiet)
            return wait

        await self.request()
        permit = self._begin(state, await self._until(state, leave), name, count_window)
        try:
            yield permit
        finally:
            self._end(state, permit)

    def slow_down(self, position: int, *, silence: float | None = None) -> None:
        """After a refusal for speed: a silent period, then one POST at a time, each a while after the last answer.

        The pace stays slow from then on: how the server counts is unknown, so nothing shows that it may be faster.

        Args:
            position: the refused permit's `position`. When about `posts` slow POSTs have passed since a silence, the
                server has a count that only silence resets, so there will be a silence after every so many.
            silence: the seconds that the server asked for, if that is longer than the period; 0.0 when there has just
                been a silence, so that none is needed.
        """
        self._note(lambda bucket, _: bucket.slow_down(self._rate, position, silence))

    def seconds_until(self, posts: int) -> float:
        """Return in how many seconds so many more POSTs can have left, if answers come at once and no other posts.

        0 when they can leave now.
        """
        if posts <= 0:
            return 0.0
        bucket, now = self._look(), self._store.now()
        with self._guarded():
            by_bucket = bucket.seconds_until(self._rate, now, posts=posts, burst=self.burst)
            return max(by_bucket, self._hour.seconds_until(now, requests=posts))

    # --- event loops, threads and forks ---

    @contextmanager
    def _in_use(self) -> Iterator["_LoopState"]:
        """Bind the limiter to the running event loop until the block ends.

        Raises:
            ConfigurationError: another loop, which is not closed, is within such a block.
        """
        with self._guarded():
            state = self._bind()
            state.users += 1
        try:
            yield state
        finally:
            with self._guarded():
                state.users -= 1

    def _bind(self) -> "_LoopState":
        loop, before = asyncio.get_running_loop(), self._state
        if before is not None and before.pid == os.getpid():
            if before.loop is loop:
                return before
            if before.users and not before.loop.is_closed():
                raise ConfigurationError(
                    "two event loops use this host and key at the same time: give all uploads to one of them,"
                    " because the limit cannot be kept across both"
                )
        state = self._state = _LoopState(loop, AsyncLimiter(self.burst, self.burst * self._rate.spacing))
        if before is not None and before.pid == state.pid:
            self._abandon(before)
        elif before is not None:
            self._holder = uuid4().hex  # this process was forked: what was under way belongs to its parent
        return state

    def _abandon(self, before: "_LoopState") -> None:
        """End what is left of an event loop that was closed before its POSTs had ended."""
        permits, before.under_way = before.under_way, {}

        def abandon(bucket: Bucket, now: float) -> None:
            bucket.leave_queue(self._holder)
            bucket.release(self._holder)
            for permit in permits.values():
                self._end_in(bucket, now, permit)

        self._note(abandon)

    def _guarded(self) -> threading.RLock:
        """Return the lock of the bucket, which loops in several threads may look at.

        A fork may copy a lock that another thread holds, so the child makes a new one.
        """
        if self._guarded_in != os.getpid():
            self._guarded_in, self._guard = os.getpid(), threading.RLock()
        return self._guard

    # --- from the queue to the end of a permit ---

    async def _permit(self, state: "_LoopState", count_window: float, bulk: bool) -> Permit:
        name = uuid4().hex

        def ask(bucket: Bucket, now: float) -> float:
            # The first in the queue of this process has the place in the bucket's queue for all that wait here.
            return bucket.ask(self._rate, now, holder=self._holder, bulk=not state.interactive, wanted=state.wanted)

        def leave(bucket: Bucket, now: float) -> float:
            if (wait := ask(bucket, now)) == 0:
                bucket.take(self._rate, now, name=name, holder=self._holder, count_window=count_window)
                waiting.remove(name)
                bucket.leave_queue(self._holder)
                if wanted := state.wanted:
                    bulk_only = not state.interactive
                    bucket.join_queue(self._rate, now, holder=self._holder, bulk=bulk_only, wanted=wanted)
            return wait

        waiting = state.bulk if bulk else state.interactive
        waiting.add(name)
        if not bulk and len(waiting).bit_count() == 1:
            state.notify()  # so that the head of the queue asks for them too, but not anew for each of a crowd
        try:
            async with state.bulk_queue if bulk else nullcontext(), state.head_of_queue:
                await self._until(state, ask)
                await state.burst_limiter.acquire()
                await self.request()
                # Waiting for these two may have taken long enough for a silence to begin.
                bucket = await self._until(state, leave)
        except asyncio.CancelledError:
            waiting.discard(name)
            if not state.wanted:
                self._note(lambda bucket, _: bucket.leave_queue(self._holder))
            raise
        finally:
            waiting.discard(name)
        return self._begin(state, bucket, name, count_window)

    def _begin(self, state: "_LoopState", bucket: Bucket, name: str, count_window: float) -> Permit:
        position, may_count_until = bucket.since_silence if bucket.slow else 0, self._store.now() + count_window
        permit = Permit(name, position, bucket.since_silence, may_count_until, count_window, self._store.now)
        state.under_way[name] = permit
        self._keep_alive(state)
        return permit

    def _end(self, state: "_LoopState", permit: Permit) -> None:
        if state.under_way.pop(permit.name, None) is None:
            self._stop_beating(state)  # it ended already, when its event loop was abandoned
            return
        self._note(lambda bucket, now: self._end_in(bucket, now, permit))
        self._stop_beating(state)
        state.notify()

    def _end_in(self, bucket: Bucket, now: float, permit: Permit) -> None:
        until = None if not permit.sent else now if permit.answered else max(now, permit.may_count_until)
        bucket.end(self._rate, now, name=permit.name, counted_until=until)

    def _keep_alive(self, state: "_LoopState") -> None:
        """Extend the leases of what is under way here from time to time, as a killed process would not."""
        if state.pulse is None:
            state.pulse = state.loop.call_later(self._rate.beat, self._beat, state)

    def _stop_beating(self, state: "_LoopState") -> None:
        """Stop extending leases when nothing is under way here."""
        if state.pulse is not None and not state.under_way and not state.probing:
            state.pulse.cancel()
            state.pulse = None

    def _beat(self, state: "_LoopState") -> None:
        under_way = {name: permit.count_window for name, permit in state.under_way.items()}
        self._note(lambda bucket, now: bucket.renew(self._rate, now, holder=self._holder, under_way=under_way))
        state.pulse = None
        self._keep_alive(state)

    # --- the store ---

    async def _until(self, state: "_LoopState", ask: Callable[[Bucket, float], float]) -> Bucket:
        """Ask the bucket until it returns 0: again after the seconds that it returns, or when a POST ends here.

        Return the bucket as it is then. Only the head of the queue and the probe ever wait here.
        """
        while True:
            with self._guarded(), self._store.change() as bucket:
                wait = ask(bucket, self._store.now())
                self._last_seen = bucket
            if wait == 0:
                return bucket
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await state.changed.wait()

    def _note(self, change: Callable[[Bucket, float], None]) -> None:
        """Change the bucket where a failure can only be logged, and costs nothing but time."""
        try:
            with self._guarded(), self._store.change() as bucket:
                change(bucket, self._store.now())
                self._last_seen = bucket
        except ConfigurationError as error:
            _log.warning("the limit waits longer than necessary, because its state could not be written: %s", error)

    def _look(self) -> Bucket:
        """Return the bucket as it is, or as it was seen last if it cannot be read."""
        with self._guarded():
            with suppress(ConfigurationError):
                self._last_seen = self._store.read()
            self._last_seen.settle(self._store.now())
            return self._last_seen


@define(eq=False)
class _LoopState:
    """Everything that belongs to one event loop: its queues, its POSTs, and the event that wakes those that wait."""

    loop: asyncio.AbstractEventLoop
    burst_limiter: AsyncLimiter
    pid: int = field(factory=os.getpid)
    users: int = 0  # blocks of `Limiter._in_use`
    head_of_queue: asyncio.Lock = field(factory=asyncio.Lock)
    bulk_queue: asyncio.Lock = field(factory=asyncio.Lock)
    one_probe: asyncio.Lock = field(factory=asyncio.Lock)
    changed: asyncio.Event = field(factory=asyncio.Event)
    interactive: set[str] = field(factory=set)  # the names of the POSTs that wait
    bulk: set[str] = field(factory=set)
    under_way: dict[str, Permit] = field(factory=dict)
    probing: bool = False
    pulse: asyncio.TimerHandle | None = None

    @property
    def wanted(self) -> int:
        """How many POSTs wait, of the kind that goes first."""
        return len(self.interactive or self.bulk)

    def notify(self) -> None:
        """Wake those that wait, because something may have changed for them."""
        self.changed.set()
        self.changed = asyncio.Event()


_shared: dict[Hashable, Limiter] = {}


def shared_limiter(budget: Hashable, make: Callable[[], Limiter]) -> Limiter:
    """Return the limiter that all clients of this process share for a budget, which is a host and a key's digest.

    It lives as long as the process, so that a client that is closed and opened again forgets no POST.

    Raises:
        ConfigurationError: another client opened the same budget with other numbers, or only one of the two shares it
            with other processes.
    """
    wanted = make()
    limiter = _shared.setdefault(budget, wanted)
    if _settings(limiter) != _settings(wanted):
        shares = "shares it with other processes" if limiter.store else "keeps it to itself"
        raise ConfigurationError(
            f"another client of this process uses this host and key with {limiter.posts} POSTs a minute, a burst of"
            f" {limiter.burst} and {limiter.requests_per_hour} requests an hour, and {shares}: let both do the same,"
            " because they share one budget"
        )
    return limiter


def _settings(limiter: Limiter) -> tuple[object, ...]:
    return limiter.posts, limiter.period, limiter.burst, limiter.requests_per_hour, limiter.store is None
