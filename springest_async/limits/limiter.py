"""At most 30 POSTs in any 60 seconds as the server counts them, and at most 4000 requests an hour.

The bucket has 30 tokens. A POST takes one, and the token rests for 60 s *from its answer* before it can be used
again. The server counts a POST somewhere between its send and its answer, so the 31st POST is sent, hence counted,
more than 60 s after the first one was counted, whatever the network does in between. (A bucket that refills as time
passes lets 59 into one minute; even pacing of the sends is bent by the network. ``python -m benchmarks limit`` shows
it.)

`Limiter` also slows down for servers that count in another way, and sends a POST alone when its answer must be a
verdict (`Limiter.probe`). It knows no HTTP: its user reports when a POST ended, and how. The
bucket itself, which a ledger may share with other processes, is in `springest_async.limits.bucket`, and the queue in
`springest_async.limits.turns`; this module does the waiting of the first in the queue.
"""

import asyncio
import itertools
import logging
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from uuid import uuid4

from attrs import define, field, frozen

from springest_async.errors import ConfigurationError
from springest_async.limits.bucket import PERIOD_SECONDS, Bucket, Change, Intent, Ledger, RateLimit
from springest_async.limits.changes import Changes
from springest_async.limits.hour import HourlyRequests
from springest_async.limits.memory import Guard, Memory
from springest_async.limits.permit import Permit
from springest_async.limits.turns import LoopState, Turn

POSTS_PER_MINUTE = 30
"""The limit of ``POST /users/certificates``, from the help page "User certificates - certifications"."""

REQUESTS_PER_HOUR = 4000
"""The limit of all requests together, from the API's introduction page."""

_log = logging.getLogger(__name__)


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
        period: float = PERIOD_SECONDS,
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
        self._memory = Memory() if ledger is None else None
        self._ledger: Ledger = self._memory or ledger  # type: ignore[assignment] # one of them is there
        self._holder, self._numbers = uuid4().hex, itertools.count()
        self._state: LoopState | None = None
        self._guarded = Guard()
        self._changes = Changes(self._ledger, may_wait=self._memory is None)
        self._hour = HourlyRequests(requests_per_hour, self._ledger, self._changes, reserves=self._memory is None)
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
        await self._hour.take()

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

    def _release(self, state: LoopState) -> None:
        """End the probe of this process, unless another has begun meanwhile."""
        holder = self._holder
        if state is self._state and not state.probing:
            self._ledger.note(lambda bucket, _: bucket.release(holder))

    @asynccontextmanager
    async def _probe_post(
        self, state: LoopState, *, count_window: float, pause: float | None, intent: Intent | None = None
    ) -> AsyncIterator[Permit]:
        holder, quiet = self._holder, self._rate.silence if pause is None else pause

        def ask(bucket: Bucket, now: float) -> float:
            return bucket.ask_alone(self._rate, now, holder=holder, quiet=quiet)

        leaving = _Leaving(self._name_of(intent), holder, count_window, quiet, intent)
        permit = await self._leave(state, leaving, lambda: _Asking(ask), lambda: None)
        assert permit is not None  # it asks until it may leave
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

    @property
    def is_open(self) -> bool:
        """Whether a POST that asks now leaves at once. No may also mean that only the ledger knows."""
        state, memory = self._state, self._memory
        is_in_use = state is not None and not state.loop.is_closed()
        if memory is None or (state and is_in_use and not (state.is_empty and state.burst_limiter.has_capacity())):
            return False
        with memory.guarded():
            bucket, now = memory.bucket, memory.now()
            return (
                bucket.is_open(self._rate, now)
                and bucket.hour.seconds_until(self.requests_per_hour, now, requests=1) <= 0
            )

    def seconds_until(self, posts: int, *, requests: int = 0) -> float:
        """Return in how many seconds so many more POSTs can have left, if answers come at once and no other posts.

        0 when they can leave now. `requests` are others that leave before or between them.
        """
        if (posts := max(posts, 0)) + requests == 0:
            return 0.0
        with self._look() as (bucket, now):
            by_bucket = bucket.seconds_until(self._rate, now, posts=posts, burst=self.burst) if posts else 0.0
            by_hour = bucket.hour.seconds_until(self.requests_per_hour, now, requests=posts + requests)
            return max(by_bucket, by_hour)

    async def finish_changes(self) -> None:
        """Wait until everything is given back that was taken for POSTs whose tasks were cancelled."""
        await self._changes.finish()

    # --- event loops, threads and forks ---

    @contextmanager
    def _in_use(self) -> Iterator[LoopState]:
        """Bind the limiter to the running event loop until the block ends.

        Raises:
            ConfigurationError: another loop, which is not closed, is within such a block.
        """
        state = self._enter()
        try:
            yield state
        finally:
            state.users -= 1  # only this loop's thread counts them

    def _enter(self) -> LoopState:
        """Bind the limiter to the running event loop until `users` of the result is lowered again."""
        with self._guarded():
            state = self._bind()
            state.users += 1
            return state

    def _bind(self) -> LoopState:
        loop, before = asyncio.get_running_loop(), self._state
        if before is not None and before.pid == os.getpid():
            if before.loop is loop:
                return before
            if before.users and not before.loop.is_closed():
                raise ConfigurationError(
                    "two event loops use this host and key at the same time: give all uploads to one of them,"
                    " because the limit cannot be kept across both"
                )
        from aiolimiter import AsyncLimiter  # noqa: PLC0415 # it looks its version up, and only POSTs need it

        # Also where all tokens may leave at once: a token is back as soon as a server has refused the connection.
        state = self._state = LoopState(loop, AsyncLimiter(self.burst, self.burst * self._rate.spacing))
        if before is not None and before.pid == state.pid:
            self._abandon(before)
        elif before is not None:
            # This process was forked: what was under way belongs to its parent, which does not tell how it ends.
            self._holder = uuid4().hex
            windows = {name: permit.count_window for name, permit in before.under_way.items()}
            if self._memory is not None:
                self._ledger.note(lambda bucket, now: bucket.renew(self._rate, now, holder="", under_way=windows))
        return state

    def _abandon(self, before: LoopState) -> None:
        """End what is left of an event loop that was closed before its POSTs had ended."""
        permits, before.under_way, holder = before.under_way, {}, self._holder

        def leave(bucket: Bucket, _: float) -> None:
            bucket.leave_queue(holder)
            bucket.release(holder)

        self._ledger.note(leave)
        for permit in permits.values():
            self._note_end(permit)

    # --- from the queue to the end of a permit ---

    async def _begin_post(self, count_window: float, bulk: bool, intent: Intent | None) -> tuple[LoopState, Permit]:
        state = self._enter()
        try:
            permit = self._permit_at_once(state, count_window, intent)
            if permit is None:
                permit = await self._permit(state, count_window, bulk, intent)
            else:
                await state.burst_limiter.acquire()  # at once: there is room for it
        except BaseException:
            state.users -= 1
            raise
        else:
            return state, permit

    def _end_post(self, state: LoopState, permit: Permit) -> None:
        try:
            self._end(state, permit)
        finally:
            state.users -= 1

    def _permit_at_once(self, state: LoopState, count_window: float, intent: Intent | None) -> Permit | None:
        """Return a permit if a POST may leave now and none waits before it, else None."""
        memory, bucket = self._memory, None if self._memory is None else self._memory.bucket
        if memory is None or bucket is None or not state.is_empty or not state.burst_limiter.has_capacity():
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

    async def _permit(self, state: LoopState, count_window: float, bulk: bool, intent: Intent | None) -> Permit:
        leaving = _Leaving(self._name_of(intent), self._holder, count_window, 0.0, intent)
        ask, undo = partial(self._asking, state, leaving), partial(self._leave_queue, state)
        waiting = state.bulk if bulk else state.interactive
        waiting.add(leaving.name)
        if not bulk and len(waiting).bit_count() == 1:
            state.signal.notify()  # so that the head of the queue asks for them too, but not anew for each of a crowd
        permit, refused = None, False
        try:
            if state.is_empty and self._has_room(state):
                # Many POSTs may share one commit, so none waits for its turn while nothing else waits.
                state.leaving.add(leaving.name)
                waiting.discard(leaving.name)
                permit = await self._leave(state, leaving, ask, undo, once=True, in_burst=True)
                refused = permit is None
            while permit is None:
                state.leaving.discard(leaving.name)
                waiting.add(leaving.name)
                async with Turn([state.bulk_queue] * bulk + [state.head_of_queue]) as turn:
                    if not refused and self._has_room(state):
                        # So the next one asks while this one waits for its commit.
                        turn.shared = True
                        state.leaving.add(leaving.name)
                        waiting.discard(leaving.name)
                        state.loop.call_soon(turn.pass_on)
                    permit = await self._at_head(state, leaving, ask, undo, turn)
                refused = permit is None
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
        state: LoopState,
        leaving: "_Leaving",
        ask: Callable[[], "_Asking"],
        undo: Callable[[], None],
        turn: Turn,
    ) -> Permit | None:
        """Wait until the POST at the head of the queue may leave; None if it has passed its turn on and must wait."""
        in_burst = turn.shared or self._is_in_burst(state)
        if not in_burst:
            # A token first: a place in the burst that is taken long before the POST leaves spaces nothing.
            await self._until(state, lambda: ask().ask, undo)
            await state.burst_limiter.acquire()
        return await self._leave(state, leaving, ask, undo, once=turn.shared, in_burst=in_burst)

    def _is_in_burst(self, state: LoopState) -> bool:
        """Return whether the burst has a place for one more than those that leave already."""
        places = len(state.leaving) + 1
        return places <= self.burst and state.burst_limiter.has_capacity(places)

    def _has_room(self, state: LoopState) -> bool:
        """Return whether a POST may certainly leave now, as far as this process knows, so that no other one waits."""
        if self._memory is not None or not self._is_in_burst(state):
            return False
        with self._ledger.peek() as bucket:
            is_alone = all(ticket.holder == self._holder for ticket in bucket.queue)
            is_free = bucket.quiet == 0 and bucket.probe is None and is_alone
            return is_free and bucket.tokens_out + len(state.leaving) < bucket.agreed(self._rate).posts

    def _asking(self, state: LoopState, leaving: "_Leaving") -> "_Asking":
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

    def _leave_queue(self, state: LoopState) -> None:
        """Leave the place in the bucket's queue, if nothing waits here."""
        holder = self._holder
        if state is self._state and not state.wanted:
            self._ledger.note(lambda bucket, _: bucket.leave_queue(holder))

    async def _leave(
        self,
        state: LoopState,
        leaving: "_Leaving",
        ask: Callable[[], "_Asking"],
        undo: Callable[[], None],
        *,
        once: bool = False,
        in_burst: bool = False,
    ) -> Permit | None:
        """Wait until a POST may leave; its token, its intent and its request of the hour are taken in one change.

        Return None if it may not, and asks only once.
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
                wait = await self._changes.make(change, abandon, leaving.intent)
                self._tell_of_others(taken.limits)
                if wait == 0:
                    if in_burst:
                        # It waits only if another commit overtook this one, and the POST is counted from then on.
                        try:
                            await state.burst_limiter.acquire()
                        except asyncio.CancelledError:
                            abandon(0.0)
                            raise
                    return self._begin(state, taken, leaving)
                if once:
                    return None
                if taken.hour_is_tight:
                    request_free_at = await self._hour.take()
                else:
                    await state.signal.wait(seen, wait)
        except BaseException:
            if request_free_at is not None:
                self._hour.give_back(request_free_at)
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

    def _begin(self, state: LoopState, taken: "_Taken", leaving: "_Leaving") -> Permit:
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

    def _end(self, state: LoopState, permit: Permit) -> None:
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

    # --- leases ---

    def _keep_alive(self, state: LoopState) -> None:
        """Extend the leases of what is under way here from time to time, as a killed process would not."""
        if state.pulse is None:
            state.pulse = state.loop.call_later(self._rate.beat, self._beat, state)

    def _stop_beating(self, state: LoopState) -> None:
        """Stop extending leases when nothing is under way here."""
        if state.pulse is not None and not state.probing and (self._memory is not None or not state.under_way):
            state.pulse.cancel()
            state.pulse = None

    def _beat(self, state: LoopState) -> None:
        under_way, holder = self._leases(state), self._holder
        self._ledger.note(lambda bucket, now: bucket.renew(self._rate, now, holder=holder, under_way=under_way))
        state.pulse = None
        self._keep_alive(state)

    def _leases(self, state: LoopState) -> dict[str, float]:
        """Return the count window of each POST whose lease ends."""
        return {name: permit.count_window for name, permit in state.under_way.items()} if self._memory is None else {}

    # --- the ledger ---

    async def _until(self, state: LoopState, ask: Callable[[], Change], undo: Callable[[], None]) -> None:
        """Ask the bucket until it returns 0: again after the seconds that it returns, or when a POST ends here.

        Only the head of the queue and the probe ever wait here. `ask` returns what to ask; `undo` is called if this
        task was cancelled, and may have changed the bucket after that.
        """
        while True:
            seen = state.signal.count
            wait = await self._changes.make(ask(), lambda _: undo())
            if wait == 0:
                return
            await state.signal.wait(seen, wait)

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
        begin: Callable[[], Awaitable[tuple[LoopState, Permit]]],
        end: Callable[[LoopState, Permit], None],
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
    limits: list[int] = field(factory=list)
