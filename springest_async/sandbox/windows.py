"""Six ways in which a server may count "30 a minute".

Springest does not say how it counts, so a client has to keep the limit under each of these. They are pure: each gets
the time of an arrival and returns whether it is within the limit. They know no clock, no HTTP and no waiting, so a
simulation can run days of virtual time in a second.

Each has a `limit` (arrivals) and a `period` (seconds), and raises `ValueError` for a limit below 1 or a period that is
not above 0. All times are seconds on one clock, which never goes backwards.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import Literal, Protocol, get_args

from attrs import Factory, define, field
from attrs.setters import frozen as frozen_attribute
from attrs.validators import ge, gt

Counting = Literal["fixed", "first-hit", "elastic", "sliding", "bucket", "paced"]


class Window(Protocol):
    """A rule that admits arrivals or refuses them."""

    def admit(self, now: float) -> bool:
        """Count an arrival at `now` (seconds); return whether it is within the limit."""


@define(eq=False)
class _Limit:
    """The arguments of every way of counting: `limit` arrivals in `period` seconds."""

    limit: int = field(validator=ge(1), on_setattr=frozen_attribute)
    period: float = field(validator=gt(0), on_setattr=frozen_attribute)


@define(eq=False)
class FixedWindow(_Limit):
    """Counts from zero in every period, as throttles with one counter a minute do, such as Rack::Attack.

    The periods are those of the clock: each begins at a multiple of `period`, so on a clock that counts from the epoch,
    like Rack::Attack's, a period of 60 is a minute of the wall clock. Up to twice the limit can therefore pass within
    the length of a period, half on each side of a boundary. Refused arrivals do not count.
    """

    _number: int | None = field(init=False, default=None)
    _admitted: int = field(init=False, default=0)

    def admit(self, now: float) -> bool:
        """Count an arrival at `now` in the period that contains `now`."""
        number = math.floor(now / self.period)
        if number != self._number:
            self._number, self._admitted = number, 0
        if self._admitted >= self.limit:
            return False
        self._admitted += 1
        return True


@define(eq=False)
class FirstHitWindow(_Limit):
    """Counts from zero in a period that begins with its first hit; the first hit after its end begins the next one.

    So does a counter whose expiry is set only once: `INCR` in Redis, and `EXPIRE` when that returned 1. Rails' own
    `rate_limit`, @fastify/rate-limit and the "fixed window" of Python's limits do it. Nearly twice the limit can pass
    within the length of a period. Refused arrivals do not count.
    """

    _began: float = field(init=False, default=-math.inf)
    _hits: int = field(init=False, default=0)

    def admit(self, now: float) -> bool:
        """Count an arrival at `now` in the current period, or begin a new one."""
        if now - self._began >= self.period:
            self._began, self._hits = now, 0
        self._hits += 1
        return self._hits <= self.limit


@define(eq=False)
class ElasticWindow(FirstHitWindow):
    """Counts until nothing has arrived for a whole period: every hit extends the period, a refused one too.

    So do `INCR` and `EXPIRE` at each hit in Redis (its page about `INCR` describes it), and the "fixed window with
    elastic expiry" of Python's limits. A stream that never pauses for a period gets `limit` arrivals in total.
    """

    def admit(self, now: float) -> bool:
        """Count an arrival at `now`, from zero if the last one was a whole period ago."""
        is_within = super().admit(now)
        self._began = now
        return is_within


@define(eq=False)
class SlidingWindow(_Limit):
    """At most `limit` in any period, wherever it begins: the strictest meaning of "30 a minute".

    A hit counts for one period and no longer. With `count_refusals`, a refused arrival is a hit too, so a client that
    keeps trying is never admitted.
    """

    count_refusals: bool = field(default=False, on_setattr=frozen_attribute)
    # The last `limit` hits decide: the limit is reached when the oldest of them still counts.
    _hits: deque[float] = field(init=False, default=Factory(lambda self: deque(maxlen=self.limit), takes_self=True))

    def admit(self, now: float) -> bool:
        """Count an arrival at `now` if fewer than `limit` hits lie within the period before it."""
        full = len(self._hits) == self.limit and now - self._hits[0] < self.period
        if not full or self.count_refusals:
            self._hits.append(now)
        return not full


@define(eq=False)
class TokenBucket(_Limit):
    """A bucket of `limit` tokens that starts full and refills evenly, `limit` in a period; an arrival takes one.

    It is equivalent to a leaky bucket. A full bucket and its refill let nearly twice the limit pass in one period. A
    refusal takes no token.
    """

    _tokens: float = field(init=False, default=0.0)
    _counted_at: float = field(init=False, default=-math.inf)  # so it is full when the first one arrives

    def admit(self, now: float) -> bool:
        """Take a token at `now` if there is a whole one."""
        refill = (now - self._counted_at) * self.limit / self.period
        self._tokens = min(float(self.limit), self._tokens + refill)
        self._counted_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@define(eq=False)
class Paced(_Limit):
    """Strict spacing: one arrival every ``period / limit`` seconds, like nginx's ``limit_req`` without ``burst``.

    The distance counts from the last admitted arrival; a refusal does not extend it.
    """

    _admitted_at: float = field(init=False, default=-math.inf)

    def admit(self, now: float) -> bool:
        """Admit an arrival at `now` if the last admitted one was long enough ago."""
        if now - self._admitted_at < self.period / self.limit:
            return False
        self._admitted_at = now
        return True


_OTHERS: dict[str, Callable[[int, float], Window]] = {
    "fixed": FixedWindow,
    "first-hit": FirstHitWindow,
    "elastic": ElasticWindow,
    "bucket": TokenBucket,
    "paced": Paced,
}


def make_window(counting: Counting, limit: int, period: float, *, count_refusals: bool = False) -> Window:
    """Return a new window of the kind `counting`, for `limit` arrivals in `period` seconds.

    Raises:
        ValueError: when there is no such kind, when the limit or the period is out of range, or when
            `count_refusals` is used with a kind other than ``"sliding"``.
    """
    if counting == "sliding":
        return SlidingWindow(limit, period, count_refusals=count_refusals)
    if count_refusals:
        raise ValueError(f"only a sliding window can count refusals, not a {counting!r} one")
    if counting not in _OTHERS:  # a type checker excludes this; not every caller uses one
        raise ValueError(f"there is no way of counting called {counting!r}: {', '.join(get_args(Counting))}")
    return _OTHERS[counting](limit, period)
