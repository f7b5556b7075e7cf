"""At most 30 POSTs in any 60 seconds as the server counts them, and at most 4000 requests an hour.

The bucket has 30 tokens. A POST takes one, and the token rests for 60 s *from its answer* before it can be used
again. The server counts a POST somewhere between its send and its answer, so the 31st POST is sent, hence counted,
more than 60 s after the first one was counted, whatever the network does in between. (A bucket that refills as time
passes lets 59 into one minute; even pacing of the sends is bent by the network. ``python -m benchmarks limiter`` shows
it.)

`Limiter` also slows down for servers that count in another way, and sends a POST alone when its answer must be a
verdict (`Limiter.probe`). It knows no HTTP: its user reports when a POST ended, and how. This module does the waiting;
the bucket itself, which a ledger may share with other processes, is in `springest_async.limits.bucket`.
"""

import asyncio
import itertools
import logging
import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import Self
from uuid import uuid4

from aiolimiter import AsyncLimiter
from attrs import define, field, frozen

from springest_async.errors import ConfigurationError
from springest_async.limits.bucket import Bucket, Change, Intent, Ledger, RateLimit

POSTS_PER_MINUTE = 30
"""The limit of ``POST /users/certificates``, from the help page "User certificates - certifications"."""

REQUESTS_PER_HOUR = 4000
"""The limit of all requests together, from the API's introduction page."""

# Where a change is a commit, other requests than POSTs are taken so many at a time, to be used within so many seconds.
_REQUESTS_AT_ONCE = 10
_RESERVE_LASTS = 1.0

_log = logging.getLogger(__name__)


@define(eq=False)
class Permit:
    """Permission for one POST, returned by `Limiter.post` and used up when its ``async with`` ends.

    Attributes:
        name: of the POST, unique: the id of its intent, if it has one.
        position: which POST it is since the last silent period (1 is the first); 0 at the fast pace, where
            `Limiter.slow_down` learns nothing from it.
        since_silence: the same, at every pace.
        may_count_until: the time until which the server may count the POST if no answer comes, on the ledger's clock.
        count_window: the seconds from the send that were given to `Limiter.post`.
        clock: returns the time of the ledger.
        answered: whether the answer has come.
        sent: whether any byte may have reached the server.
        outcome: what the ledger records with the end of the permit.
    """

    name: str
    position: int
    since_silence: int
    may_count_until: float
    count_window: float
    clock: Callable[[], float] = field(repr=False)
    answered: bool = False
    sent: bool = True
    outcome: object | None = None

    def counted_until(self, now: float) -> float | None:
        """Return until when the server may count this POST if it ends now; None if it never had it."""
        if not self.sent:
            return None
        return now if self.answered else max(now, self.may_count_until)

    def mark_answered(self) -> None:
        """Record that the server's answer came: it has counted this POST by now."""
        self.answered = True

    def count_from_now(self, seconds: float) -> None:
        """Record that the server may count this POST for so many seconds from now on."""
        self.may_count_until = self.clock() + seconds

    def mark_unsent(self) -> None:
        """Record that no byte reached the server, so that the token is back at once."""
        self.sent = False


class _Guard:
    """A lock for what loops in several threads look at.

    A fork may copy a lock that another thread holds, so the child makes a new one.
    """

    def __init__(self) -> None:
        self._pid, self._lock = os.getpid(), threading.RLock()

    def __call__(self) -> threading.RLock:
        if self._pid != os.getpid():
            self._pid, self._lock = os.getpid(), threading.RLock()
        return self._lock


@frozen
class _Memory:
    """The ledger of a bucket that only this process uses. Its clock is the event loop's, and it records no intent."""

    bucket: Bucket = field(factory=Bucket)
    guarded: _Guard = field(factory=_Guard)

    def now(self) -> float:
        try:
            return asyncio.get_running_loop().time()
        except RuntimeError:
            return time.monotonic()  # the clock of asyncio's own loops

    @contextmanager
    def peek(self) -> Iterator[Bucket]:
        with self.guarded():
            yield self.bucket

    async def change(self, change: Change, intent: Intent | None = None) -> float:
        with self.guarded():
            result = change(self.bucket, self.now())
            self.bucket.touched.clear()
        return result

    def note(self, change: Callable[[Bucket, float], object], outcome: object | None = None) -> None:
        with self.guarded():
            change(self.bucket, self.now())
            self.bucket.touched.clear()


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
        ledger: where the bucket is kept, such as a journal that other processes share. By default this limiter keeps it
            in memory. The burst is always this process's own. Limiters with different `posts` that share a ledger all
            keep to the smallest (`posts_now`), until its user has not been heard of for three periods; each of them
            logs once that there are others.

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
        ledger: Ledger | None = None,
    ) -> None:
        self.posts = posts
        self.period = period
        self.burst = posts if burst is None else burst
        self.requests_per_hour = requests_per_hour
        if posts < 1 or period <= 0 or not 1 <= self.burst <= posts or requests_per_hour < 1:
            raise ConfigurationError(
                "a limiter needs posts >= 1, period > 0, 1 <= burst <= posts and requests_per_hour >= 1,"
                f" not posts={posts}, period={period}, burst={burst}, requests_per_hour={requests_per_hour}"
            )
        self._rate = RateLimit(posts, period)
        self.ledger = ledger
        # With a ledger a change may wait, so few are made; in memory, most POSTs leave without waiting.
        self._memory = _Memory() if ledger is None else None
        self._ledger: Ledger = self._memory or ledger  # type: ignore[assignment] # one of them is there
        self._holder, self._numbers = uuid4().hex, itertools.count()
        self._state: _LoopState | None = None
        self._guarded = _Guard()
        self._reserve = _Reserve()
        self._unfinished: set[asyncio.Future[float]] = set()  # changes whose task was cancelled
        self._others: set[int] = set()  # the limits of others that the log has named

    def __repr__(self) -> str:
        with self._look() as (bucket, _):
            pace = "slow" if bucket.slow else "fast"
            under_way, resting = len(bucket.under_way), len(bucket.resting)
        return f"<Limiter {self.posts} in {self.period:g} s, {under_way} under way, {resting} resting, {pace}>"

    @property
    def slow(self) -> bool:
        """Whether the server was seen to count otherwise, so that POSTs leave one at a time."""
        with self._ledger.peek() as bucket:
            return bucket.slow

    @property
    def posts_now(self) -> int:
        """How many POSTs in any period are allowed now: `posts`, or fewer if another user of the ledger has fewer."""
        now = self._ledger.now()
        with self._ledger.peek() as bucket:
            return min([self.posts, *(posts for posts, until in bucket.limits.items() if until > now)])

    def post(
        self, *, count_window: float, bulk: bool = False, intent: Intent | None = None
    ) -> AbstractAsyncContextManager[Permit]:
        """Wait for a token and return the permit for one POST.

        Args:
            count_window: seconds from the send within which the server may count the POST if no answer comes.
            bulk: whether it belongs to a bulk run, so that interactive POSTs go first.
            intent: what the ledger records together with the token. Set `Permit.outcome` before the permit ends.

        Raises:
            SpringestError: the ledger failed (no token was taken), or another event loop has POSTs that wait or are
                being sent. Once there is a permit, failures of the ledger are only logged: a token that is not given
                back comes back by itself.
        """
        return _PostBlock(partial(self._begin_post, count_window, bulk, intent), self._end_post)

    async def request(self) -> None:
        """Wait until a request that is no POST fits into the hourly budget; `post` and `probe` count their own.

        Raises:
            SpringestError: the ledger failed.
        """
        await self._take_request()

    @asynccontextmanager
    async def probe(self) -> AsyncIterator[Callable[..., AbstractAsyncContextManager[Permit]]]:
        """Hold all other POSTs back, for one whose answer must be a verdict. One probe at a time.

        The result is called like `post`, without ``bulk``; with ``pause=2.0`` it waits until nothing is under way and
        all was silent for 2 s, with ``pause=None`` for a whole period.

        Raises:
            SpringestError: as `post`.
        """
        with self._in_use() as state:
            async with state.one_probe:
                state.probing = True
                try:
                    await self._until(state, partial(self._holding, self._holder), partial(self._release, state))
                    self._keep_alive(state)
                    yield partial(self._probe_post, state)
                finally:
                    state.probing = False
                    self._release(state)
                    if state is self._state:
                        self._stop_beating(state)
                        state.signal.notify()

    def _holding(self, holder: str) -> Change:
        return lambda bucket, now: bucket.hold(self._rate, now, holder=holder)

    def _release(self, state: "_LoopState") -> None:
        """End the probe of this process, unless another has begun meanwhile."""
        holder = self._holder
        if state is self._state and not state.probing:
            self._ledger.note(lambda bucket, _: bucket.release(holder))

    @asynccontextmanager
    async def _probe_post(
        self, state: "_LoopState", *, count_window: float, pause: float | None, intent: Intent | None = None
    ) -> AsyncIterator[Permit]:
        holder, quiet = self._holder, self._rate.silence if pause is None else pause

        def ask(bucket: Bucket, now: float) -> float:
            return bucket.ask_alone(self._rate, now, holder=holder, quiet=quiet)

        leaving = _Leaving(self._name_of(intent), holder, count_window, quiet, intent)
        permit = await self._leave(state, leaving, lambda: _Asking(ask), lambda: None, _Turn([]))
        assert permit is not None  # its turn is not shared
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
        self._ledger.note(lambda bucket, _: bucket.slow_down(self._rate, position, silence))

    def seconds_until(self, posts: int) -> float:
        """Return in how many seconds so many more POSTs can have left, if answers come at once and no other posts.

        0 when they can leave now.
        """
        if posts <= 0:
            return 0.0
        with self._look() as (bucket, now):
            by_bucket = bucket.seconds_until(self._rate, now, posts=posts, burst=self.burst)
            return max(by_bucket, bucket.hour.seconds_until(self.requests_per_hour, now, requests=posts))

    async def finish_changes(self) -> None:
        """Wait until everything is given back that was taken for POSTs whose tasks were cancelled."""
        if self._unfinished:
            await asyncio.wait(self._unfinished)

    # --- event loops, threads and forks ---

    @contextmanager
    def _in_use(self) -> Iterator["_LoopState"]:
        """Bind the limiter to the running event loop until the block ends.

        Raises:
            ConfigurationError: another loop, which is not closed, is within such a block.
        """
        state = self._enter()
        try:
            yield state
        finally:
            state.users -= 1  # only this loop's thread counts them

    def _enter(self) -> "_LoopState":
        """Bind the limiter to the running event loop until `users` of the result is lowered again."""
        with self._guarded():
            state = self._bind()
            state.users += 1
            return state

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
        # Where all tokens may leave at once, none comes back so soon that the burst would hold a POST back.
        burst_limiter = AsyncLimiter(self.burst, self.burst * self._rate.spacing) if self.burst < self.posts else None
        state = self._state = _LoopState(loop, burst_limiter)
        if before is not None and before.pid == state.pid:
            self._abandon(before)
        elif before is not None:
            # This process was forked: what was under way belongs to its parent, which does not tell how it ends.
            self._holder = uuid4().hex
            windows = {name: permit.count_window for name, permit in before.under_way.items()}
            if self._memory is not None:
                self._ledger.note(lambda bucket, now: bucket.renew(self._rate, now, holder="", under_way=windows))
        return state

    def _abandon(self, before: "_LoopState") -> None:
        """End what is left of an event loop that was closed before its POSTs had ended."""
        permits, before.under_way, holder = before.under_way, {}, self._holder

        def leave(bucket: Bucket, _: float) -> None:
            bucket.leave_queue(holder)
            bucket.release(holder)

        self._ledger.note(leave)
        for permit in permits.values():
            self._note_end(permit)

    # --- from the queue to the end of a permit ---

    async def _begin_post(self, count_window: float, bulk: bool, intent: Intent | None) -> tuple["_LoopState", Permit]:
        state = self._enter()
        try:
            permit = self._permit_at_once(state, count_window, intent)
            return state, permit or await self._permit(state, count_window, bulk, intent)
        except BaseException:
            state.users -= 1
            raise

    def _end_post(self, state: "_LoopState", permit: Permit) -> None:
        try:
            self._end(state, permit)
        finally:
            state.users -= 1

    def _permit_at_once(self, state: "_LoopState", count_window: float, intent: Intent | None) -> Permit | None:
        """Return a permit if a POST may leave now and none waits before it, else None."""
        memory, bucket = self._memory, None if self._memory is None else self._memory.bucket
        if memory is None or bucket is None or state.burst_limiter is not None or not state.is_empty:
            return None
        now = state.loop.time()
        with memory.guarded():
            if not bucket.is_open(self._rate, now) or not bucket.hour.take_now(self.requests_per_hour, now):
                return None
            name = self._name_of(intent)
            bucket.take(self._rate, now, name=name, holder=self._holder, count_window=math.inf)
            bucket.touched.clear()
            since_silence = bucket.since_silence
        permit = Permit(name, 0, since_silence, now + count_window, count_window, memory.now)
        state.under_way[name] = permit
        return permit

    def _name_of(self, intent: Intent | None) -> str:
        return f"{self._holder}-{next(self._numbers)}" if intent is None else intent.id

    async def _permit(self, state: "_LoopState", count_window: float, bulk: bool, intent: Intent | None) -> Permit:
        leaving = _Leaving(self._name_of(intent), self._holder, count_window, 0.0, intent)
        ask, undo = partial(self._asking, state, leaving), partial(self._leave_queue, state)
        waiting = state.bulk if bulk else state.interactive
        waiting.add(leaving.name)
        if not bulk and len(waiting).bit_count() == 1:
            state.signal.notify()  # so that the head of the queue asks for them too, but not anew for each of a crowd
        refused = False
        try:
            while True:
                async with _Turn([state.bulk_queue] * bulk + [state.head_of_queue]) as turn:
                    if not refused and self._has_room(state):
                        # Many POSTs may share one commit, so the next one asks while this one waits for it.
                        turn.shared = True
                        state.leaving.add(leaving.name)
                        waiting.discard(leaving.name)
                        state.loop.call_soon(turn.pass_on)
                    permit = await self._at_head(state, leaving, ask, undo, turn)
                if permit is not None:
                    break
                refused = True
                state.leaving.discard(leaving.name)
                waiting.add(leaving.name)
        except asyncio.CancelledError:
            waiting.discard(leaving.name)
            undo()
            raise
        finally:
            waiting.discard(leaving.name)
            state.leaving.discard(leaving.name)
        if state.left:
            undo()  # others that waited when it was asked may have been cancelled since
        return permit

    async def _at_head(
        self,
        state: "_LoopState",
        leaving: "_Leaving",
        ask: Callable[[], "_Asking"],
        undo: Callable[[], None],
        turn: "_Turn",
    ) -> Permit | None:
        """Wait until the POST at the head of the queue may leave; None if it has passed its turn on and must wait."""
        in_burst = turn.shared or self._is_in_burst(state)
        if not in_burst and state.burst_limiter is not None:
            # A token first: a place in the burst that is taken long before the POST leaves spaces nothing.
            await self._until(state, lambda: ask().ask, undo)
            await state.burst_limiter.acquire()
        return await self._leave(state, leaving, ask, undo, turn, in_burst=in_burst)

    def _is_in_burst(self, state: "_LoopState") -> bool:
        """Return whether the burst has a place for one more than those that leave already."""
        places = len(state.leaving) + 1
        return places <= self.burst and (state.burst_limiter is None or state.burst_limiter.has_capacity(places))

    def _has_room(self, state: "_LoopState") -> bool:
        """Return whether a POST may certainly leave now, as far as this process knows, so that no other one waits."""
        if self._memory is not None or not self._is_in_burst(state):
            return False
        with self._ledger.peek() as bucket:
            is_alone = all(ticket.holder == self._holder for ticket in bucket.queue)
            is_free = bucket.quiet == 0 and bucket.probe is None and is_alone
            return is_free and bucket.tokens_out + len(state.leaving) < bucket.agreed(self._rate).posts

    def _asking(self, state: "_LoopState", leaving: "_Leaving") -> "_Asking":
        """Return what the head of the queue asks for all that wait here, as it is now."""
        holder, bulk, wanted = leaving.holder, not state.interactive, state.wanted
        interactive_left = len(state.interactive) - (leaving.name in state.interactive)
        left = state.left = interactive_left or len(state.bulk) - (leaving.name in state.bulk)

        def ask(bucket: Bucket, now: float) -> float:
            # The first in the queue of this process has the place in the bucket's queue for all that wait here.
            return bucket.ask(self._rate, now, holder=holder, bulk=bulk, wanted=wanted)

        def go_on(bucket: Bucket, now: float) -> None:
            bucket.leave_queue(holder)
            if left:
                bucket.join_queue(self._rate, now, holder=holder, bulk=not interactive_left, wanted=left)

        return _Asking(ask, go_on)

    def _leave_queue(self, state: "_LoopState") -> None:
        """Leave the place in the bucket's queue, if nothing waits here."""
        holder = self._holder
        if state is self._state and not state.wanted:
            self._ledger.note(lambda bucket, _: bucket.leave_queue(holder))

    async def _leave(
        self,
        state: "_LoopState",
        leaving: "_Leaving",
        ask: Callable[[], "_Asking"],
        undo: Callable[[], None],
        turn: "_Turn",
        *,
        in_burst: bool = False,
    ) -> Permit | None:
        """Wait until a POST may leave; its token, its intent and its request of the hour are taken in one change.

        Return None if it may not, and has passed its turn on.
        """
        taken = _Taken()
        request_free_at: float | None = None  # when its request of the hour could leave, if that was taken before

        def abandon(wait: float) -> None:
            if wait == 0:
                self._return_unsent(leaving, taken)
                state.signal.notify()
            undo()

        try:
            while True:
                seen = state.signal.count
                change = self._departure(leaving, ask(), taken, with_request=request_free_at is None)
                wait = await self._change(change, abandon, leaving.intent)
                self._tell_of_others(taken.limits)
                if wait == 0:
                    if in_burst and state.burst_limiter is not None:
                        # It waits only if another commit overtook this one, and the POST is counted from then on.
                        try:
                            await state.burst_limiter.acquire()
                        except asyncio.CancelledError:
                            abandon(0.0)
                            raise
                    return self._begin(state, taken, leaving)
                if turn.shared:
                    return None
                if taken.hour_is_tight:
                    request_free_at = await self._take_request()
                else:
                    await state.signal.wait(seen, wait)
        except BaseException:
            if request_free_at is not None:
                self._give_back_request(request_free_at)
            raise

    def _departure(self, leaving: "_Leaving", asking: "_Asking", taken: "_Taken", *, with_request: bool) -> Change:
        """Return the change by which a POST leaves; it also takes a request of the hour if it is told to."""

        def leave(bucket: Bucket, now: float) -> float:
            taken.hour_is_tight, taken.with_request = False, with_request
            # Else a first try was kept, and only its result was lost: the token is taken already.
            if bucket.token(leaving.name) is None:
                wait = asking.ask(bucket, now)
                taken.limits = [*bucket.limits]
                if wait > 0:
                    return wait
                if with_request and not bucket.hour.take_now(self.requests_per_hour, now):
                    taken.hour_is_tight = True
                    return bucket.hour.seconds_until(self.requests_per_hour, now, requests=1)
                bucket.take(
                    self._rate,
                    now,
                    name=leaving.name,
                    holder=leaving.holder,
                    count_window=leaving.count_window if self._memory is None else math.inf,
                    quiet=leaving.quiet,
                )
                asking.go_on(bucket, now)
            taken.at, taken.since_silence, taken.slow = now, bucket.since_silence, bucket.slow
            return 0.0

        return leave

    def _tell_of_others(self, limits: list[int]) -> None:
        """Log once of each other limit that users of the bucket have: the smallest holds for all."""
        for posts in {*limits} - {self.posts, *self._others}:
            self._others.add(posts)
            if posts < self.posts:
                _log.warning(
                    "another program uses the same key and keeps to %d POSTs a minute: so does this one, instead of %d",
                    posts,
                    self.posts,
                )
            else:
                _log.warning(
                    "another program uses the same key with a limit of %d POSTs a minute: it keeps to the %d of this"
                    " one",
                    posts,
                    self.posts,
                )

    def _return_unsent(self, leaving: "_Leaving", taken: "_Taken") -> None:
        """Return everything that was taken for a POST whose task was cancelled before it could begin."""

        def give_back(bucket: Bucket, now: float) -> None:
            bucket.end(self._rate, now, name=leaving.name, counted_until=None)
            if taken.with_request:
                bucket.hour.give_back(self.requests_per_hour, now, free_at=taken.at)

        self._ledger.note(give_back, None if leaving.intent is None else leaving.intent.unsent)

    def _begin(self, state: "_LoopState", taken: "_Taken", leaving: "_Leaving") -> Permit:
        permit = Permit(
            leaving.name,
            taken.since_silence if taken.slow else 0,
            taken.since_silence,
            self._ledger.now() + leaving.count_window,
            leaving.count_window,
            self._ledger.now,
        )
        state.under_way[permit.name] = permit
        if self._memory is None:
            self._keep_alive(state)
        return permit

    def _end(self, state: "_LoopState", permit: Permit) -> None:
        if state.under_way.pop(permit.name, None) is not None:  # else it ended when its event loop was abandoned
            if self._memory is None:
                self._note_end(permit)
            else:
                now = self._memory.now()
                with self._memory.guarded():
                    self._memory.bucket.end(self._rate, now, name=permit.name, counted_until=permit.counted_until(now))
                    self._memory.bucket.touched.clear()
            state.signal.notify()
        self._stop_beating(state)

    def _note_end(self, permit: Permit) -> None:
        self._ledger.note(
            lambda bucket, now: bucket.end(self._rate, now, name=permit.name, counted_until=permit.counted_until(now)),
            permit.outcome,
        )

    # --- the budget of the hour ---

    async def _take_request(self) -> float:
        """Take a request of the hour and wait until it may leave; return when it could."""
        with self._guarded():
            reserve, now = self._reserve, self._ledger.now()
            if reserve.left and now < reserve.until:
                reserve.left -= 1
                return now
            at_once = _REQUESTS_AT_ONCE if self._memory is None and not reserve.filling else 1
            reserve.filling = reserve.filling or at_once > 1
        taken = _Taken()

        def take(bucket: Bucket, now: float) -> float:
            taken.at, taken.requests = now, 1
            if at_once > 1 and bucket.hour.take_ahead(
                self.requests_per_hour, now, requests=at_once, within=_RESERVE_LASTS
            ):
                taken.requests = at_once
                return 0.0
            return bucket.hour.take(self.requests_per_hour, now)

        try:
            wait = await self._change(take, lambda wait: self._give_back_request(taken.at + wait, taken.requests))
            if taken.requests > 1:
                with self._guarded():
                    reserve.left, reserve.until = taken.requests - 1, taken.at + _RESERVE_LASTS
        finally:
            if at_once > 1:
                reserve.filling = False
        if wait > 0:
            try:
                await asyncio.sleep(wait)
            except asyncio.CancelledError:
                self._give_back_request(taken.at + wait)
                raise
        return taken.at + wait

    def _give_back_request(self, free_at: float, requests: int = 1) -> None:
        def give_back(bucket: Bucket, now: float) -> None:
            bucket.hour.give_back(self.requests_per_hour, now, free_at=free_at, requests=requests)

        self._ledger.note(give_back)

    # --- leases ---

    def _keep_alive(self, state: "_LoopState") -> None:
        """Extend the leases of what is under way here from time to time, as a killed process would not."""
        if state.pulse is None:
            state.pulse = state.loop.call_later(self._rate.beat, self._beat, state)

    def _stop_beating(self, state: "_LoopState") -> None:
        """Stop extending leases when nothing is under way here."""
        if state.pulse is not None and not state.probing and (self._memory is not None or not state.under_way):
            state.pulse.cancel()
            state.pulse = None

    def _beat(self, state: "_LoopState") -> None:
        under_way, holder = self._leases(state), self._holder
        self._ledger.note(lambda bucket, now: bucket.renew(self._rate, now, holder=holder, under_way=under_way))
        state.pulse = None
        self._keep_alive(state)

    def _leases(self, state: "_LoopState") -> dict[str, float]:
        """Return the count window of each POST whose lease ends."""
        return {name: permit.count_window for name, permit in state.under_way.items()} if self._memory is None else {}

    # --- the ledger ---

    async def _until(self, state: "_LoopState", ask: Callable[[], Change], undo: Callable[[], None]) -> None:
        """Ask the bucket until it returns 0: again after the seconds that it returns, or when a POST ends here.

        Only the head of the queue and the probe ever wait here. `ask` returns what to ask; `undo` is called if this
        task was cancelled, and may have changed the bucket after that.
        """
        while True:
            seen = state.signal.count
            wait = await self._change(ask(), lambda _: undo())
            if wait == 0:
                return
            await state.signal.wait(seen, wait)

    async def _change(self, change: Change, abandoned: Callable[[float], None], intent: Intent | None = None) -> float:
        """Change the bucket. If this task is cancelled meanwhile, `abandoned` is called later with the result."""
        if self._memory is not None:
            return await self._ledger.change(change, intent)
        changing = asyncio.ensure_future(self._ledger.change(change, intent))

        def finish(changing: asyncio.Future[float]) -> None:
            self._unfinished.discard(changing)
            if not changing.cancelled() and changing.exception() is None:
                abandoned(changing.result())

        try:
            return await asyncio.shield(changing)
        except asyncio.CancelledError:
            self._unfinished.add(changing)
            changing.add_done_callback(finish)
            raise

    @contextmanager
    def _look(self) -> Iterator[tuple[Bucket, float]]:
        """Lend the bucket as it was seen last, without what has expired since, and the time."""
        now = self._ledger.now()
        with self._ledger.peek() as bucket:
            if self._memory is not None:
                bucket.settle(now)
            yield bucket.settled(now), now


class _PostBlock(AbstractAsyncContextManager[Permit]):
    """The block of one POST, see `Limiter.post`: a class, because a generator costs more than the token."""

    __slots__ = ("_begin", "_end", "_permit", "_state")

    def __init__(
        self,
        begin: Callable[[], Awaitable[tuple["_LoopState", Permit]]],
        end: Callable[["_LoopState", Permit], None],
    ) -> None:
        self._begin, self._end = begin, end

    async def __aenter__(self) -> Permit:
        self._state, self._permit = await self._begin()
        return self._permit

    async def __aexit__(self, *_: object) -> None:
        self._end(self._state, self._permit)


@frozen
class _Leaving:
    """A POST that is to leave: its name, the process that sends it, and what its token depends on (`Bucket.take`)."""

    name: str
    holder: str
    count_window: float
    quiet: float
    intent: Intent | None


@frozen
class _Asking:
    """What a POST asks the bucket (see `Change`), and what else changes there when it leaves."""

    ask: Change
    go_on: Callable[[Bucket, float], None] = lambda _bucket, _now: None


@define
class _Taken:
    """What a change found in the bucket, beside its result."""

    at: float = 0.0
    since_silence: int = 0
    slow: bool = False
    with_request: bool = False
    hour_is_tight: bool = False
    requests: int = 1
    limits: list[int] = field(factory=list)


@define
class _Reserve:
    """Requests of the hour that were taken and not used yet.

    Attributes:
        left: how many.
        until: the time until which they may be used.
        filling: whether a task is taking more.
    """

    left: int = 0
    until: float = 0.0
    filling: bool = False


class _Queue:
    """A lock that is handed over in the order in which it was asked for.

    Giving up costs the same wherever one stands (`asyncio.Lock` searches its whole queue).
    """

    def __init__(self) -> None:
        self.held = False
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    async def acquire(self) -> None:
        if not self.held:
            self.held = True
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = None
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.release()  # it was handed over meanwhile
            self._waiting.pop(turn, None)
            raise

    def release(self) -> None:
        while self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
                return
        self.held = False


class _Signal:
    """Wakes those that wait for a change; it costs nothing while none waits.

    Attributes:
        count: how many changes there were.
    """

    def __init__(self) -> None:
        self.count = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        """Wake those that wait, because something may have changed for them."""
        self.count += 1
        while self._waiting:
            _wake(self._waiting.pop())

    async def wait(self, seen: int, seconds: float) -> None:
        """Wait until there were more changes than `seen`, or for so many seconds."""
        if self.count != seen:
            return
        loop = asyncio.get_running_loop()
        change = loop.create_future()
        timer = loop.call_later(seconds, _wake, change)
        self._waiting.add(change)
        try:
            await change
        finally:
            timer.cancel()
            self._waiting.discard(change)


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


class _Turn:
    """The turn of a POST at the head of its queues; `shared` if it ends before the POST has left."""

    def __init__(self, queues: list[_Queue]) -> None:
        self._queues = queues
        self._held: list[_Queue] = []
        self.shared = False

    async def __aenter__(self) -> Self:
        try:
            for queue in self._queues:
                await queue.acquire()
                self._held.append(queue)
        except BaseException:
            self.pass_on()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.pass_on()

    def pass_on(self) -> None:
        """End the turn; ending it again does nothing."""
        while self._held:
            self._held.pop().release()


@define(eq=False)
class _LoopState:
    """Everything that belongs to one event loop: its queues, its POSTs, and the signal that wakes those that wait."""

    loop: asyncio.AbstractEventLoop
    burst_limiter: AsyncLimiter | None
    pid: int = field(factory=os.getpid)
    users: int = 0  # blocks of `Limiter._in_use`
    head_of_queue: _Queue = field(factory=_Queue)
    bulk_queue: _Queue = field(factory=_Queue)
    one_probe: asyncio.Lock = field(factory=asyncio.Lock)
    signal: _Signal = field(factory=_Signal)
    interactive: set[str] = field(factory=set)  # the names of the POSTs that wait
    bulk: set[str] = field(factory=set)
    leaving: set[str] = field(factory=set)  # the names of those that leave with one of the next commits
    left: int = 0  # how many the bucket was last told to wait behind the head of the queue
    under_way: dict[str, Permit] = field(factory=dict)
    probing: bool = False
    pulse: asyncio.TimerHandle | None = None

    @property
    def wanted(self) -> int:
        """How many POSTs wait, of the kind that goes first."""
        return len(self.interactive or self.bulk)

    @property
    def is_empty(self) -> bool:
        """Whether no POST waits here."""
        return not self.head_of_queue.held and not self.bulk_queue.held


_shared: dict[Hashable, Limiter] = {}


def keep_budget_in(budget: Hashable, place: str) -> None:
    """Note where this process keeps a budget, which is a host and a key's digest.

    Raises:
        ConfigurationError: another client of this process keeps it elsewhere, so neither would keep the limit.
    """
    if (other := _places.setdefault(budget, place)) != place:
        raise ConfigurationError(
            f"another client of this process uses this host and key and keeps its limit in {other}, not in {place}:"
            " give both the same journal, or none"
        )


_places: dict[Hashable, str] = {}


def shared_limiter(budget: Hashable, make: Callable[[], Limiter]) -> Limiter:
    """Return the limiter that all clients of this process share for a budget, which is a host and a key's digest.

    It lives as long as the process, so that a client that is closed and opened again forgets no POST.

    Raises:
        ConfigurationError: another client opened the same budget with other numbers.
    """
    wanted = make()
    limiter = _shared.setdefault(budget, wanted)
    if _settings(limiter) != _settings(wanted):
        raise ConfigurationError(
            f"another client of this process uses this host and key with {limiter.posts} POSTs a minute, a burst of"
            f" {limiter.burst} and {limiter.requests_per_hour} requests an hour: let both do the same,"
            " because they share one budget"
        )
    return limiter


def _settings(limiter: Limiter) -> tuple[object, ...]:
    return limiter.posts, limiter.period, limiter.burst, limiter.requests_per_hour
