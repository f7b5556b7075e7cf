"""The token bucket as plain state: which tokens are out, who stands in line for one, and how the pace was adapted.

A `Bucket` is what all who share one budget must agree on, so it knows no clock, no waiting and no file: each method is
told what time it is (`now`, seconds on one clock that only goes forward) and answers at once. A `BucketStore` keeps it,
in memory or where other processes find it, and a `Limiter` does the waiting.

Whoever may be killed holds nothing for ever. A token, a place in the line and the right to be alone each end by
themselves at a time that their holder moves on while it lives, once every `RateLimit.beat`.
"""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from attrs import asdict, define, field, frozen
from attrs.validators import and_, deep_iterable, deep_mapping, ge, instance_of, optional

__all__ = ["Bucket", "BucketStore", "Probe", "RateLimit", "Ticket", "Token"]

# Timers fire a little early or late, and a server may count both ends of its minute.
_MARGIN = 0.1

# Refused as the 31st slow POST since a silence, or nearly: the server has a count that only silence resets.
_POSITION_TOLERANCE = 2

# Smaller waits than this are rounding errors of the clock's floats, and would make a loop spin.
_EPSILON = 1e-6


@frozen
class RateLimit:
    """The limit as one user of a bucket keeps it; another may keep a stricter one with the same bucket.

    Args:
        posts: how many POSTs in any `period`.
        period: seconds.
    """

    posts: int
    period: float

    @property
    def silence(self) -> float:
        """Seconds after which the server has forgotten a POST for certain."""
        return self.period + _MARGIN

    @property
    def spacing(self) -> float:
        """Seconds from one POST to the next when they leave evenly."""
        return self.period / self.posts

    @property
    def beat(self) -> float:
        """Seconds after which a holder says again that it lives; who missed two of them is dead."""
        return self.period / 10


def _finite(_: object, attribute: Any, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{attribute.name} is no number: {value!r}")


def _whole(_: object, attribute: Any, value: Any) -> None:
    if type(value) is not int or value.bit_length() > 32:
        raise ValueError(f"{attribute.name} is no whole number: {value!r}")


@define
class Token:
    """A token that is out, for a POST that the server may still count.

    Args:
        holder: who took it.
        under_way: whether its POST has not ended yet, as far as is known.
        counted_until: the time until which the server may still count the POST.
        back_at: the time when the token is back.
    """

    holder: str = field(validator=instance_of(str))
    under_way: bool = field(validator=instance_of(bool))
    counted_until: float = field(validator=_finite)
    back_at: float = field(validator=_finite)


@define
class Ticket:
    """A place in the line.

    Args:
        holder: whose POSTs wait; each has one ticket at most.
        bulk: whether it lets those that are not go first.
        wanted: how many POSTs of this holder wait.
        wakes_at: the time at which the holder will ask again.
        expires: the time after which the holder must be dead, because it has not asked.
    """

    holder: str = field(validator=instance_of(str))
    bulk: bool = field(validator=instance_of(bool))
    wanted: int = field(validator=and_(_whole, ge(1)))
    wakes_at: float = field(validator=_finite)
    expires: float = field(validator=_finite)


@define
class Probe:
    """The right of one holder to send while all others wait, until it `expires`."""

    holder: str = field(validator=instance_of(str))
    expires: float = field(validator=_finite)


@define
class Bucket:
    """All state of a token bucket whose tokens rest. A new one is full, and its pace is fast.

    `quiet` is the silence that the next POST needs before it, in seconds; `batch` is how many POSTs pass after a
    silence at the slow pace, if that is known, and `since_silence` how many did.
    """

    tokens: dict[str, Token] = field(
        factory=dict, validator=deep_mapping(instance_of(str), instance_of(Token), instance_of(dict))
    )
    line: list[Ticket] = field(factory=list, validator=deep_iterable(instance_of(Ticket), instance_of(list)))
    probe: Probe | None = field(default=None, validator=optional(instance_of(Probe)))
    last_answer: float | None = field(default=None, validator=optional(_finite))
    slow: bool = field(default=False, validator=instance_of(bool))
    quiet: float = field(default=0.0, validator=and_(_finite, ge(0)))
    batch: int | None = field(default=None, validator=optional(and_(_whole, ge(1))))
    since_silence: int = field(default=0, validator=and_(_whole, ge(0)))

    # --- as plain data ---

    def dump(self) -> dict[str, Any]:
        """Give the state as plain data that JSON can hold."""
        return asdict(self)

    @classmethod
    def load(cls, data: Any) -> "Bucket":
        """Make a bucket of what `dump` gave.

        Raises:
            ValueError: when the data is anything else.
        """
        try:
            values = dict(**data)
            probe = values.pop("probe")
            return cls(
                tokens={name: Token(**token) for name, token in values.pop("tokens").items()},
                line=[Ticket(**ticket) for ticket in values.pop("line")],
                probe=None if probe is None else Probe(**probe),
                **values,
            )
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise ValueError(f"this is no bucket's state: {error}") from None

    def shift(self, seconds: float) -> None:
        """Move all times, for a clock that counts from another moment."""
        for token in self.tokens.values():
            token.counted_until += seconds
            token.back_at += seconds
        for ticket in self.line:
            ticket.wakes_at += seconds
            ticket.expires += seconds
        if self.probe is not None:
            self.probe.expires += seconds
        if self.last_answer is not None:
            self.last_answer += seconds

    def holds_until(self, since: float) -> float:
        """Give the time by which all that could hold a POST back from `since` on has ended, if nothing is added."""
        ends = [since + self.quiet]
        ends += [token.back_at for token in self.tokens.values()] + [ticket.expires for ticket in self.line]
        if self.probe is not None:
            ends.append(self.probe.expires)
        if self.last_answer is not None:
            ends.append(self.last_answer + self.quiet)
        return max(ends)

    # --- looking ---

    def settle(self, now: float) -> None:
        """Drop what has ended by itself: tokens that are back, and all that the dead have held. Changes no answer."""
        for token in self.tokens.values():
            if token.under_way and token.counted_until < now:
                token.under_way = False
                self._heard(token.counted_until)
        self.tokens = {name: token for name, token in self.tokens.items() if token.back_at > now + _EPSILON}
        self.line = [ticket for ticket in self.line if ticket.expires > now + _EPSILON]
        if self.probe is not None and self.probe.expires <= now + _EPSILON:
            self.probe = None

    def is_idle(self, now: float) -> bool:
        """Tell whether nothing in it would hold a POST back, now or later, but for its pace."""
        self.settle(now)
        quiet_until = -math.inf if self.last_answer is None else self.last_answer + self.quiet
        return not self.tokens and not self.line and self.probe is None and quiet_until <= now

    @property
    def under_way(self) -> int:
        """How many POSTs have not ended yet."""
        return sum(token.under_way for token in self.tokens.values())

    def seconds_until(self, figures: RateLimit, now: float, *, posts: int, burst: int) -> float:
        """Tell in how many seconds so many more POSTs can have left, if answers come at once and nobody else posts."""
        self.settle(now)
        held = 0.0 if self.probe is None else figures.silence
        if self.slow:
            since = 0 if self.quiet >= figures.silence else self.since_silence
            silences = (since + posts - 1) // self.batch if self.batch else 0
            return (
                held
                + (self.quiet if self.under_way else self._quiet_left(now, self.quiet))
                + figures.spacing * (posts - 1)
                + (figures.silence - figures.spacing) * silences
            )
        back = self._back(figures, now)
        free = figures.posts - len(back)
        rounds, last = divmod(posts - 1, figures.posts)
        by_bucket = 0.0 if last < free else back[last - free] - now
        by_burst = (last + 1 - burst) * figures.spacing
        return held + max(0.0, by_bucket, by_burst) + rounds * figures.silence

    # --- a POST: it asks, leaves and ends ---

    def ask(self, figures: RateLimit, now: float, *, holder: str, bulk: bool, wanted: int) -> float:
        """Tell whether a POST may leave: 0 when it may now, else the seconds after which to ask again.

        Who has to wait stands in the line from then on, until it has moved on or leaves the line. Who holds fewer
        tokens goes first, and of those with as many, who came first; bulk lets others go first, unless it holds none.
        """
        self.settle(now)
        me = Ticket(holder, bulk, wanted, wakes_at=now, expires=now + figures.beat)
        stood = [ticket.holder for ticket in self.line]
        place = stood.index(holder) if holder in stood else len(stood)
        self.line[place : place + 1] = [me]
        wait = self._wait(figures, now, me)
        if wait > 0:
            me.wakes_at += wait
            me.expires += wait
        elif holder not in stood:
            self.line.remove(me)
        return wait

    def move_on(self, figures: RateLimit, now: float, *, holder: str, bulk: bool, wanted: int) -> None:
        """Let the next of a holder stand at the end of the line, once the first has left; none is `wanted`, none does.

        So nobody slips in before the next has asked.
        """
        self.leave_line(holder)
        if wanted:
            self.line.append(Ticket(holder, bulk, wanted, wakes_at=now, expires=now + figures.beat))

    def leave_line(self, holder: str) -> None:
        """Take a holder out of the line, if it stands in it."""
        self.line = [ticket for ticket in self.line if ticket.holder != holder]

    def take(
        self, figures: RateLimit, now: float, *, name: str, holder: str, count_window: float, quiet: float = 0.0
    ) -> int:
        """Take a token; give the POST's position since the last silence, or 0 at the fast pace.

        Args:
            figures: the limit.
            now: the time.
            name: of the POST.
            holder: whose it is.
            count_window: seconds within which the server may count it if its holder is killed.
            quiet: the silence that was before it, in seconds, if that was longer than the pace asks for.
        """
        if max(quiet, self.quiet) >= figures.silence:
            self.since_silence = 0
        self.since_silence += 1
        self.renew(figures, now, holder=holder, under_way={name: count_window})
        self.quiet = figures.spacing if self.slow else 0.0
        if self.batch and self.since_silence >= self.batch:
            self.quiet = figures.silence
        return self.since_silence if self.slow else 0

    def renew(self, figures: RateLimit, now: float, *, holder: str, under_way: Mapping[str, float]) -> None:
        """Say that a holder lives, and that these POSTs of it (with how long each may count) have not ended yet."""
        for name, count_window in under_way.items():
            # It may be killed at any time up to its next beat, which may be late.
            counted_until = now + count_window + 2 * figures.beat
            self.tokens[name] = Token(holder, under_way=True, counted_until=counted_until, back_at=0.0)
            self.tokens[name].back_at = counted_until + figures.silence
        if self.probe is not None and self.probe.holder == holder:
            self.probe.expires = now + 2 * figures.beat

    def end(self, figures: RateLimit, now: float, *, name: str, holder: str, counted_until: float | None) -> None:
        """End a POST that the server may count until `counted_until`; None when the server cannot have it."""
        self.tokens.pop(name, None)
        if counted_until is not None:
            back_at = counted_until + figures.silence
            if back_at > now:
                self.tokens[name] = Token(holder, under_way=False, counted_until=counted_until, back_at=back_at)
            self._heard(counted_until)

    # --- a POST alone ---

    def hold(self, figures: RateLimit, now: float, *, holder: str) -> float:
        """Hold all others back: 0 when they are, else the seconds after which to ask again."""
        self.settle(now)
        if self.probe is not None and self.probe.holder != holder:
            return min(self.probe.expires - now, figures.spacing)
        self.probe = Probe(holder, now + 2 * figures.beat)
        return 0.0

    def ask_alone(self, figures: RateLimit, now: float, *, holder: str, quiet: float) -> float:
        """Tell whether a POST may leave now that nobody is under way and all was silent for `quiet` seconds.

        It is 0 when it may, else the seconds after which to ask again. All others are held, as `hold` does.
        """
        wait = self.hold(figures, now, holder=holder)
        if wait > 0:
            return wait
        quiet = max(quiet, self.quiet)
        if len(self.tokens) >= figures.posts:
            return self._back(figures, now)[len(self.tokens) - figures.posts] - now
        if self.under_way:
            return quiet  # it cannot be over any sooner
        return self._quiet_left(now, quiet)

    def release(self, holder: str) -> None:
        """Let the others go again."""
        if self.probe is not None and self.probe.holder == holder:
            self.probe = None

    # --- a server that counts otherwise ---

    def slow_down(self, figures: RateLimit, position: int, silence: float | None) -> None:
        """After a refusal for speed: a silence, and the slow pace from then on. See `Limiter.slow_down`."""
        if self.slow and position > 1 and abs(position - 1 - figures.posts) <= _POSITION_TOLERANCE:
            self.batch = min(figures.posts, position - 1)
        self.slow = True
        # Of several that are refused at once, the one that was told to wait longest counts.
        self.quiet = max(self.quiet, figures.spacing if silence == 0 else max(figures.silence, silence or 0.0))

    # --- how long to wait ---

    def _wait(self, figures: RateLimit, now: float, me: Ticket) -> float:
        if self.probe is not None:
            left = self.probe.expires - now
            return left if self.probe.holder == me.holder else min(left, figures.spacing)
        ahead = self._ahead(me)
        # Who sleeps wants nothing now: it knew of no token that could be its own. Who is awake goes, unless it is dead.
        awake = [ticket for ticket in ahead if ticket.wakes_at <= now + _EPSILON]
        until_dead = min((ticket.expires - now for ticket in awake), default=math.inf)
        free = figures.posts - len(self.tokens)
        if self.quiet == 0 or free <= 0:
            if free > sum(self._due(figures, ticket, me) for ticket in awake):
                return 0.0
            back = self._back(figures, now)
            nth = min(len(back), max(1, len(ahead) + 1 - free))
            return min(until_dead, back[nth - 1] - now if back else math.inf)
        if self.under_way:
            return self.quiet  # it cannot be over any sooner, and whose own POST ends is woken
        wait = self._quiet_left(now, self.quiet)
        if wait > 0:
            return wait + len(ahead) * figures.spacing
        return min(until_dead, figures.spacing) if awake else 0.0

    def _ahead(self, me: Ticket) -> list[Ticket]:
        """Give who goes before `me`."""

        def order(ticket: Ticket) -> tuple[bool, int]:
            held = self._held(ticket)
            return ticket.bulk and held > 0, held

        in_order = sorted(self.line, key=order)
        return in_order[: in_order.index(me)]

    def _held(self, ticket: Ticket) -> int:
        return sum(token.holder == ticket.holder for token in self.tokens.values())

    def _due(self, figures: RateLimit, ticket: Ticket, me: Ticket) -> int:
        """How many tokens `me` keeps free for one that goes first: all that it wants of its share, and one at least.

        Bulk has no share that it would keep from others.
        """
        if ticket.bulk != me.bulk:
            return 1 if ticket.bulk else ticket.wanted
        share = figures.posts // len(self.line)
        return max(1, min(ticket.wanted, share - self._held(ticket)))

    def _back(self, figures: RateLimit, now: float) -> list[float]:
        """When each token that is out can be back at the earliest, in order of time."""
        return sorted(
            min(token.back_at, now + figures.silence) if token.under_way else token.back_at
            for token in self.tokens.values()
        )

    def _quiet_left(self, now: float, quiet: float) -> float:
        left = 0.0 if self.last_answer is None else self.last_answer + quiet - now
        return left if left > _EPSILON else 0.0

    def _heard(self, moment: float) -> None:
        self.last_answer = moment if self.last_answer is None else max(self.last_answer, moment)


class BucketStore(Protocol):
    """Whoever keeps the bucket of one budget, and the clock that its times are read from.

    Both methods raise `ConfigurationError` when the bucket cannot be read or kept.
    """

    def now(self) -> float:
        """Tell the time, in seconds; it only goes forward, and means the same to all who share the bucket."""

    def change(self) -> AbstractContextManager[Bucket]:
        """Give the bucket to nobody else meanwhile, and keep what was made of it when the block ends normally."""

    def read(self) -> Bucket:
        """Give the bucket as it is, to look at only."""
