"""The token bucket as plain state: which tokens are out, which processes queue for one, and how fast POSTs may leave.

A `Bucket` is what all processes that share one budget must agree on, so it has no clock, waits for nothing and opens no
file: each method takes the time (`now`, in seconds on one clock that only goes forward) and returns at once. A `Ledger`
keeps the bucket, in memory or where other processes see it, and a `Limiter` does the waiting.

Every lease of a token, place in the queue and probe expires, unless its holder extends it once every `RateLimit.beat`.
So a killed process does not block others for long.
"""

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from attrs import asdict, define, field, frozen

PERIOD_SECONDS = 60.0
"""The period of Springest's limit: at most 30 POSTs a minute (its help page "User certificates - certifications")."""

# Timers fire a little early or late, and a server may count both ends of its minute.
_MARGIN = 0.1

# A refusal of about the 31st slow POST since a silence: the server has a count that only silence resets.
_POSITION_TOLERANCE = 2

# A user of the bucket is believed to keep its limit for so many periods after it was last heard of. That is noted only
# when at least one of them is over, so it changes at most once in each.
_LIMIT_LASTS = 3

# Shorter waits are rounding errors of the clock's floats, and would make a loop spin.
_EPSILON = 1e-6


@frozen
class RateLimit:
    """The limit that one user of a bucket asks for; all keep to the smallest of those that use it (`Bucket.limits`).

    Args:
        posts: how many POSTs in any `period`.
        period: seconds.
    """

    posts: int
    period: float

    @property
    def silence(self) -> float:
        """Seconds after which the server has certainly forgotten a POST."""
        return self.period + _MARGIN

    @property
    def spacing(self) -> float:
        """Seconds from one POST to the next when they leave evenly."""
        return self.period / self.posts

    @property
    def beat(self) -> float:
        """Seconds between two extensions of a lease; a process that misses two of them counts as dead."""
        return self.period / 10


@define
class Lease:
    """A token whose POST has not ended yet, as far as is known.

    Attributes:
        counted_until: the time until which the server may count the POST if its process has been killed.
        back_at: the time when the token is back in that case.
    """

    counted_until: float
    back_at: float


@define
class Ticket:
    """A place in the queue.

    Attributes:
        holder: the process whose POSTs wait; each has at most one ticket.
        bulk: whether tickets that are not bulk go first.
        wanted: how many POSTs of this kind wait in that process.
        wakes_at: the time when the holder asks again.
        expires: the time after which the holder counts as dead, because it has not asked.
    """

    holder: str
    bulk: bool
    wanted: int
    wakes_at: float
    expires: float


@define
class Probe:
    """The right of one process, the `holder`, to send while all others wait, until it `expires`."""

    holder: str
    expires: float


@define
class HourlyBudget:
    """How much of the budget of an hour has been used: at most so many requests in any hour (`per_hour`).

    A tenth of them may leave at once and the others evenly (of 4000: 400, and one a second), which together are
    `per_hour` in the worst hour.

    Attributes:
        level: that of a leaky bucket, in requests.
        at: the time of that level.
    """

    level: float = 0.0
    at: float = 0.0

    def seconds_until(self, per_hour: int, now: float, *, requests: int) -> float:
        """Return in how many seconds so many more requests can have left."""
        spacing = _hour_spacing(per_hour)
        return max(0.0, (self._level_at(now, spacing) + requests - _burst(per_hour)) * spacing)

    def take(self, per_hour: int, now: float) -> float:
        """Take one request, and return the seconds to wait until it may leave."""
        spacing = _hour_spacing(per_hour)
        self.level, self.at = self._level_at(now, spacing) + 1, now
        return max(0.0, (self.level - _burst(per_hour)) * spacing)

    def take_now(self, per_hour: int, now: float) -> bool:
        """Take one request if it may leave now, and return whether it was taken."""
        level = self._level_at(now, _hour_spacing(per_hour)) + 1
        if level > _burst(per_hour):
            return False
        self.level, self.at = level, now
        return True

    def take_ahead(self, per_hour: int, now: float, *, requests: int, within: float) -> bool:
        """Take so many requests that may leave at any time within so many seconds, if all are free now.

        What the level would lose in that time is paid in advance, so that no hour has more than its requests.
        """
        spacing = _hour_spacing(per_hour)
        level = self._level_at(now, spacing) + requests + within / spacing
        if level > _burst(per_hour):
            return False
        self.level, self.at = level, now
        return True

    def give_back(self, per_hour: int, now: float, *, free_at: float, requests: float = 1.0) -> None:
        """Put back requests that did not leave, and could have since `free_at`.

        Too late, they are not put back, because the level may have lost them.
        """
        if now < free_at + _hour_spacing(per_hour):
            self.level = max(0.0, self.level - requests)

    def _level_at(self, now: float, spacing: float) -> float:
        level = self.level - (now - self.at) / spacing if now > self.at else self.level
        return level if level > 0 else 0.0


def _burst(per_hour: int) -> int:
    return max(1, per_hour // 10)


def _hour_spacing(per_hour: int) -> float:
    return 3600 / max(1, per_hour - _burst(per_hour))


@define
class Bucket:
    """The whole state of a token bucket whose tokens rest. A new one is full, and its pace is fast.

    Every token that is out has the name of its POST, so that a ledger can keep each as a row of its own (`token`), and
    write only those that changed (`touched`) and the little that is left (`dump`).

    Attributes:
        under_way: the token of each POST that has not ended, by the name of the POST.
        resting: when each other token is back and the name of its POST, in order: most POSTs are answered in the order
            of time, so that their tokens join at the end, and all leave at the beginning.
        queue: the processes that wait, in the order in which they came.
        probe: the probe, if there is one.
        last_answer: the last time when the server can have counted a POST; None before the first.
        slow: whether POSTs leave one at a time.
        quiet: the silence that the next POST needs before it, in seconds.
        batch: how many POSTs pass after a silence at the slow pace, if that is known.
        since_silence: how many have passed since the last one.
        hour: what all requests of the last hour have used of its budget.
        limits: how many POSTs in a period its users ask for, each number with the time until which it holds, unless
            one of them is heard of again.
        touched: the names of the tokens that changed since a ledger last saved them, which is for it to clear. A token
            that only expired is not among them, because `settle` does the same to what was saved.
    """

    under_way: dict[str, Lease] = field(factory=dict)
    resting: deque[tuple[float, str]] = field(factory=deque)
    queue: list[Ticket] = field(factory=list)
    probe: Probe | None = None
    last_answer: float | None = None
    slow: bool = False
    quiet: float = 0.0
    batch: int | None = None
    since_silence: int = 0
    hour: HourlyBudget = field(factory=HourlyBudget)
    limits: dict[int, float] = field(factory=dict)
    touched: set[str] = field(factory=set, init=False, eq=False, repr=False)
    # When each of the resting tokens is back, by the name of its POST.
    _back: dict[str, float] = field(factory=dict, init=False, eq=False, repr=False)
    # No lease ends before this time, so `settle` need not look at each of them.
    _first_end: float = field(default=-math.inf, init=False, eq=False, repr=False)

    # --- as plain data ---

    def dump(self) -> dict[str, Any]:
        """Return everything but the tokens as plain data that JSON can hold."""
        return {
            "queue": [asdict(ticket) for ticket in self.queue],
            "probe": None if self.probe is None else asdict(self.probe),
            "last_answer": self.last_answer,
            "slow": self.slow,
            "quiet": self.quiet,
            "batch": self.batch,
            "since_silence": self.since_silence,
            "hour": asdict(self.hour),
            "limits": [[posts, until] for posts, until in self.limits.items()],
        }

    @classmethod
    def load(cls, data: dict[str, Any], tokens: Iterable[tuple[str, float | None, float]]) -> "Bucket":
        """Make a bucket of what `dump` returned and its tokens.

        Args:
            data: what `dump` returned.
            tokens: the name of each, `counted_until` of its lease (None if it rests), and when it is back. Those that
                have expired must be among them: `settle` learns from them when the server was last heard.
        """
        bucket = cls(
            **data
            | {
                "queue": [Ticket(**ticket) for ticket in data["queue"]],
                "probe": data["probe"] and Probe(**data["probe"]),
                "hour": HourlyBudget(**data["hour"]),
                "limits": dict(data["limits"]),
            }
        )
        for name, counted_until, back_at in tokens:
            if counted_until is None:
                bucket._back[name] = back_at
            else:
                bucket.under_way[name] = Lease(counted_until, back_at)
        bucket.resting.extend(sorted((back_at, name) for name, back_at in bucket._back.items()))
        return bucket

    def settled(self, now: float) -> "Bucket":
        """Return the bucket as it is now, to look at only: itself if nothing has expired, else a copy."""
        if not self._has_expired(now):
            return self
        copied = Bucket.load(self.dump(), [(name, None, back_at) for back_at, name in self.resting])
        copied.under_way = {**self.under_way}
        copied.settle(now)
        return copied

    def _has_expired(self, now: float) -> bool:
        soon = now + _EPSILON
        return (
            self._first_end < now
            or bool(self.resting and self.resting[0][0] < soon)
            or any(ticket.expires <= soon for ticket in self.queue)
            or (self.probe is not None and self.probe.expires <= soon)
            or any(until <= now for until in self.limits.values())
        )

    def shift(self, seconds: float) -> None:
        """Move all times, for a clock that counts from another moment."""
        for lease in self.under_way.values():
            lease.counted_until += seconds
            lease.back_at += seconds
        self._first_end += seconds
        self.resting = deque((back_at + seconds, name) for back_at, name in self.resting)
        self._back = {name: back_at for back_at, name in self.resting}
        self.touched.update(self.under_way, self._back)
        for ticket in self.queue:
            ticket.wakes_at += seconds
            ticket.expires += seconds
        if self.probe is not None:
            self.probe.expires += seconds
        if self.last_answer is not None:
            self.last_answer += seconds
        self.hour.at += seconds
        self.limits = {posts: until + seconds for posts, until in self.limits.items()}

    # --- what it holds ---

    def settle(self, now: float) -> None:
        """Remove what has expired: tokens that are back, and all that dead processes held. Changes no answer."""
        if self._first_end < now:
            for name, lease in [*self.under_way.items()]:
                if lease.counted_until < now:
                    del self.under_way[name]
                    self._rest(name, lease.back_at)
                    self._heard(lease.counted_until)
            self._first_end = min((lease.counted_until for lease in self.under_way.values()), default=math.inf)
        soon = now + _EPSILON
        while self.resting and self.resting[0][0] < soon:
            del self._back[self.resting.popleft()[1]]
        if self.queue:
            self.queue = [ticket for ticket in self.queue if ticket.expires > soon]
        if self.probe is not None and self.probe.expires <= soon:
            self.probe = None
        for until in self.limits.values():
            if until <= now:
                self.limits = {posts: until for posts, until in self.limits.items() if until > now}
                break

    def agreed(self, rate: RateLimit) -> RateLimit:
        """Return the limit that all users of the bucket keep to: the smallest of theirs and this one."""
        posts = min(self.limits) if self.limits else rate.posts
        return rate if posts >= rate.posts else RateLimit(posts, rate.period)

    def _keep(self, rate: RateLimit, now: float, wait: float = 0.0) -> RateLimit:
        """Note that a user of this limit runs, and asks again after `wait` seconds; return what it has to keep to."""
        if self.limits.get(rate.posts, -math.inf) < now + wait + (_LIMIT_LASTS - 1) * rate.period:
            self.limits[rate.posts] = now + wait + _LIMIT_LASTS * rate.period
        return self.agreed(rate)

    @property
    def tokens_out(self) -> int:
        """How many tokens are out: of POSTs under way, and resting."""
        return len(self.under_way) + len(self.resting)

    def token(self, name: str) -> Lease | float | None:
        """Return the lease of a POST that is under way, the time when a resting token is back, or None if it is."""
        return self.under_way.get(name) or self._back.get(name)

    def seconds_until(self, rate: RateLimit, now: float, *, posts: int, burst: int) -> float:
        """Return in how many seconds so many more POSTs can have left, if answers come at once and no other posts."""
        self.settle(now)
        rate = self.agreed(rate)
        held = 0.0 if self.probe is None else rate.silence
        if self.slow:
            since = 0 if self.quiet >= rate.silence else self.since_silence
            silences = (since + posts - 1) // self.batch if self.batch else 0
            return (
                held
                + (self.quiet if self.under_way else self._quiet_left(now, self.quiet))
                + rate.spacing * (posts - 1)
                + (rate.silence - rate.spacing) * silences
            )
        free = rate.posts - self.tokens_out
        rounds, last = divmod(posts - 1, rate.posts)
        by_bucket = 0.0 if last < free else self._back_at(rate, now, last - free + 1) - now
        by_burst = (last + 1 - burst) * rate.spacing
        return held + max(0.0, by_bucket, by_burst) + rounds * rate.silence

    # --- a POST: it asks, leaves and ends ---

    def is_open(self, rate: RateLimit, now: float) -> bool:
        """Return whether any POST may leave now: a token is free, and neither the pace nor another POST goes before."""
        self.settle(now)
        at_once = self.quiet == 0 and self.probe is None and not self.queue
        return at_once and len(self.under_way) + len(self.resting) < self.agreed(rate).posts

    def ask(self, rate: RateLimit, now: float, *, holder: str, bulk: bool, wanted: int = 1) -> float:
        """Return 0 if a POST may leave now, else the seconds after which to ask again.

        A holder that has to wait stands in the queue from then on, until it leaves it. All interactive POSTs go before
        bulk; otherwise each holder sends one when its turn comes, first come, first served.
        """
        self.settle(now)
        holders = [ticket.holder for ticket in self.queue]
        place = holders.index(holder) if holder in holders else len(holders)
        before, after = self.queue[:place], self.queue[place + 1 :]
        ahead = [ticket for ticket in before if bulk or not ticket.bulk]
        ahead += [ticket for ticket in after if bulk and not ticket.bulk]
        wait = self._wait(self.agreed(rate), now, holder, ahead, bulk=bulk)
        self._keep(rate, now, wait)
        if wait > 0 or holder in holders:
            ticket = Ticket(holder, bulk, wanted, wakes_at=now + wait, expires=now + wait + rate.beat)
            self.queue = [*before, ticket, *after]
        return wait

    def join_queue(self, rate: RateLimit, now: float, *, holder: str, bulk: bool, wanted: int = 1) -> None:
        """Put a holder at the end of the queue, because other POSTs wait behind the one that has just left."""
        self.queue.append(Ticket(holder, bulk, wanted, wakes_at=now, expires=now + rate.beat))

    def leave_queue(self, holder: str) -> None:
        """Remove a holder from the queue, if it is there."""
        self.queue = [ticket for ticket in self.queue if ticket.holder != holder]

    def take(
        self, rate: RateLimit, now: float, *, name: str, holder: str, count_window: float, quiet: float = 0.0
    ) -> None:
        """Take a token for a POST that leaves now.

        Args:
            rate: the limit.
            now: the time.
            name: of the POST.
            holder: the process that sends it.
            count_window: seconds within which the server may count it if its process is killed; infinite where the
                bucket goes with its process, so that the lease needs no extension.
            quiet: the silence that was before it, in seconds, if that was longer than the pace asks for.
        """
        if max(quiet, self.quiet) >= rate.silence:
            self.since_silence = 0
        self.since_silence += 1
        agreed = self._keep(rate, now)
        self._lease(rate, now, name, count_window)
        if self.probe is not None and self.probe.holder == holder:
            self.probe.expires = now + 2 * rate.beat
        rate = agreed
        self.quiet = rate.spacing if self.slow else 0.0
        if self.batch and self.since_silence >= self.batch:
            self.quiet = rate.silence

    def renew(self, rate: RateLimit, now: float, *, holder: str, under_way: Mapping[str, float]) -> None:
        """Extend the leases of a process that runs: its probe, and these POSTs (by name, with their count window)."""
        self._keep(rate, now)
        for name, count_window in under_way.items():
            self._lease(rate, now, name, count_window)
        if self.probe is not None and self.probe.holder == holder:
            self.probe.expires = now + 2 * rate.beat

    def _lease(self, rate: RateLimit, now: float, name: str, count_window: float) -> None:
        # It may be killed at any time up to its next beat, which may be late.
        counted_until = now + count_window + 2 * rate.beat
        self._remove(name)  # a lease that expired because this process was stopped for long
        self.under_way[name] = Lease(counted_until, counted_until + rate.silence)
        self.touched.add(name)
        self._first_end = min(self._first_end, counted_until)

    def end(self, rate: RateLimit, now: float, *, name: str, counted_until: float | None) -> None:
        """End a POST that the server may count until `counted_until`; None when it did not reach the server."""
        self._remove(name)
        if counted_until is not None:
            back_at = counted_until + rate.silence
            if back_at > now:
                self.touched.add(name)
                self._rest(name, back_at)
            self._heard(counted_until)

    # --- a POST alone ---

    def hold(self, rate: RateLimit, now: float, *, holder: str) -> float:
        """Hold all others back: return 0 once they are, else the seconds after which to ask again."""
        self.settle(now)
        rate = self._keep(rate, now)
        if self.probe is not None and self.probe.holder != holder:
            return min(self.probe.expires - now, rate.spacing)
        self.probe = Probe(holder, now + 2 * rate.beat)
        return 0.0

    def ask_alone(self, rate: RateLimit, now: float, *, holder: str, quiet: float) -> float:
        """Return 0 if a POST may leave now: nothing is under way and all was silent for `quiet` seconds.

        Else return the seconds after which to ask again. All others are held back, as `hold` does.
        """
        wait = self.hold(rate, now, holder=holder)
        if wait > 0:
            return wait
        rate, quiet = self.agreed(rate), max(quiet, self.quiet)
        if self.tokens_out >= rate.posts:
            return self._back_at(rate, now, self.tokens_out - rate.posts + 1) - now
        if self.under_way:
            return quiet  # it cannot be over any sooner
        return self._quiet_left(now, quiet)

    def release(self, holder: str) -> None:
        """End the probe of this process, so that the others go on."""
        if self.probe is not None and self.probe.holder == holder:
            self.probe = None

    # --- a server that counts otherwise ---

    def slow_down(self, rate: RateLimit, position: int, silence: float | None) -> None:
        """After a refusal for speed: a silence, and the slow pace from then on. See `Limiter.slow_down`."""
        if self.slow and position > 1 and abs(position - 1 - rate.posts) <= _POSITION_TOLERANCE:
            self.batch = min(rate.posts, position - 1)
        self.slow = True
        # Of several refusals at once, the one that asks for the longest silence counts.
        self.quiet = max(self.quiet, self.agreed(rate).spacing if silence == 0 else max(rate.silence, silence or 0.0))

    # --- how long to wait ---

    def _wait(self, rate: RateLimit, now: float, holder: str, ahead: list[Ticket], *, bulk: bool) -> float:
        if self.probe is not None:
            left = self.probe.expires - now
            return left if self.probe.holder == holder else min(left, rate.spacing)
        # A holder that sleeps knew of no token that it could take. One that is awake takes its own, unless it is dead.
        awake = [ticket for ticket in ahead if ticket.wakes_at <= now + _EPSILON]
        until_dead = min((ticket.expires - now for ticket in awake), default=math.inf)
        free = rate.posts - self.tokens_out
        if self.quiet == 0 or free <= 0:
            if free > sum(ticket.wanted if bulk and not ticket.bulk else 1 for ticket in awake):
                return 0.0
            nth = min(self.tokens_out, max(1, len(ahead) + 1 - free))
            return min(until_dead, self._back_at(rate, now, nth) - now if nth else math.inf)
        if self.under_way:
            return self.quiet  # it cannot be over any sooner, and the end of a POST of this process wakes it
        wait = self._quiet_left(now, self.quiet)
        if wait > 0:
            return wait + len(ahead) * rate.spacing
        return min(until_dead, rate.spacing) if awake else 0.0

    def _back_at(self, rate: RateLimit, now: float, nth: int) -> float:
        """Return the earliest time when the nth of the tokens that are out (1 is the first) can be back."""
        soonest = now + rate.silence  # of those under way, if their answers come at once
        sooner = self._place_of((soonest, ""))
        if sooner < nth <= sooner + len(self.under_way):
            return soonest
        return self.resting[nth - 1 if nth <= sooner else nth - 1 - len(self.under_way)][0]

    def _rest(self, name: str, back_at: float) -> None:
        token = back_at, name
        if not self.resting or self.resting[-1] <= token:
            self.resting.append(token)
        else:
            self.resting.insert(self._place_of(token), token)
        self._back[name] = back_at

    def _place_of(self, token: tuple[float, str]) -> int:
        """Return before how many of the resting tokens none is back sooner than this one."""
        if not self.resting or self.resting[-1] < token:
            return len(self.resting)
        return bisect_left(self.resting, token)

    def _remove(self, name: str) -> None:
        """Remove a token, whether its POST is under way or it rests."""
        if self.under_way.pop(name, None) is not None:
            self.touched.add(name)
        elif (back_at := self._back.pop(name, None)) is not None:
            self.touched.add(name)
            del self.resting[self._place_of((back_at, name))]

    def _quiet_left(self, now: float, quiet: float) -> float:
        left = 0.0 if self.last_answer is None else self.last_answer + quiet - now
        return left if left > _EPSILON else 0.0

    def _heard(self, moment: float) -> None:
        if self.last_answer is None or self.last_answer < moment:
            self.last_answer = moment


Change = Callable[[Bucket, float], float]
"""Called with the bucket and the time; returns the seconds to wait, or 0."""


class Intent(Protocol):
    """What is to be recorded together with the token of a POST, before the POST begins."""

    @property
    def id(self) -> str:
        """The name of the POST, unique."""

    @property
    def unsent(self) -> object:
        """The outcome to record when the POST never began."""


class Ledger(Protocol):
    """The place where the bucket of one budget is kept, and the clock of its times."""

    def now(self) -> float:
        """Return the time in seconds; it only goes forward, and is the same for all who share the bucket."""

    def peek(self) -> AbstractContextManager[Bucket]:
        """Return the bucket as it was seen last, locked for the block, to look at only."""

    def change(self, change: Change, intent: Intent | None = None) -> Awaitable[float]:
        """Run `change` on the bucket and the time, keep its changes, and return its result.

        It may run in another thread, and again if the first try was undone, so it changes nothing but the bucket. (It
        may set variables that only its caller reads, after the result has come.) With a result of 0, the `intent` is
        recorded too.

        Raises:
            SpringestError: nothing was changed or recorded.
        """

    def note(self, change: Callable[[Bucket, float], object], outcome: object | None = None) -> None:
        """Do the same later, in order, without waiting for it; record the `outcome` with it. Failures are logged."""
