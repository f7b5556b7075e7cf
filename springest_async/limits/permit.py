"""The permission for one POST, in which its sender notes how it ended."""

from collections.abc import Callable

from attrs import define, field


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
