"""Decide what a failure means and how long to wait; nothing here awaits, sends or reads a clock.

The hard case is a 400 that names no field: Springest answers 400 both for "too fast" and for "invalid". Nothing was
stored, so sending again cannot store it twice; but a wrong guess either fails a row for speed or wastes the budget. An
experiment decides: the same certificate is sent again after 2, 4 and 8 seconds, and a last time alone, after a silent
minute. If it is stored then, it was the limit; if it is refused even then, it is invalid. `Verdicts` remembers the
result by the body of the answer.
"""

import enum
import random

from attrs import define

from springest_async.api.protocol import Refusal
from springest_async.errors import NoAnswer, NotSent, ServerError, UnexpectedStatus

# How many refusals of a row mean "invalid" without a silent minute: for a body that has meant nothing else so far, and
# for one that has also meant "too fast". The pauses between six refusals add up to a minute.
_REFUSALS_IF_INVALID = 2
_REFUSALS_IF_BOTH = 6

TRIES = 4
"""How often a POST is tried before the try that decides: at once, and after 2, 4 and 8 seconds."""


def backoff(failures: int, *, longest: float = 60.0) -> float:
    """Return the seconds to wait after so many failures in a row: 2, 4, 8 … plus up to half as much, at random.

    The jitter is only ever added, because a POST that comes too early is refused again.
    """
    pause = min(longest, float(2 ** min(failures, 30)))
    return min(longest, pause * random.uniform(1.0, 1.5))


def ask_again(error: Exception, retry_after: float | None) -> bool | float:
    """Return whether to ask for a list again after this error, or how many seconds the server asks us to wait first."""
    # Some servers end an idle connection with a 408, and then do not read a request that arrives at that moment.
    passing = isinstance(error, UnexpectedStatus) and error.status in (408, 429)
    untrusted = isinstance(error, NotSent) and not error.trusted
    if untrusted or not (passing or isinstance(error, NotSent | NoAnswer | ServerError)):
        return False
    return True if retry_after is None else min(retry_after, 300.0)


class RefusalCause(enum.Enum):
    """What a 400 that names no field means, as far as we know."""

    UNKNOWN = "unknown"
    TOO_FAST = "too fast"
    INVALID = "invalid"


class Action(enum.Enum):
    """What to do after a refusal."""

    AGAIN = "send it again after a pause"
    SLOW_DOWN = "slow down, and send it again"
    PROBE = "send it again alone, the last time after a silence"
    REJECT = "it is invalid"


@define
class RefusalHistory:
    """How many refusals of one certificate may mean "invalid", and how many POSTs were sent before the last of them."""

    refusals: int = 0
    sent_before: int = 0


class Verdicts:
    """What the bodies of earlier 400s turned out to mean, so that not every row costs a silent minute.

    A body of unknown meaning is tested (`Action.PROBE`). After that, evidence decides:

    * It was proved to mean "invalid" in a silence, and no POST has been accepted since: invalid, at once at the slow
      pace; at the fast pace when the row is refused alone as well. The proof holds only until more POSTs have been sent
      since a silence than the limit allows: after that, a server whose count is reset only by silence would refuse
      valid rows as well.
    * It has only ever meant "invalid": the row is sent once more. If it is refused again, although a POST that was sent
      in between was accepted, it is invalid. If it is accepted, the body can also mean "too fast", for good.
    * It has meant "too fast": the row must be refused six times, over more than a minute, with other POSTs accepted
      between each two of them.
    * No POST was accepted in between: only a silence can decide.
    """

    def __init__(self) -> None:
        self._known: dict[str, RefusalCause] = {}
        self._believed: set[str] = set()  # proved invalid in a silence, and no POST accepted since
        self._sent = 0
        self._accepted = 0  # the number of the last sent POST that was accepted
        self.tests = 0  # how many tests have ended; a row that waited sees whether another was tested meanwhile

    def __repr__(self) -> str:
        return f"<Verdicts {len(self._known)} known, {self._sent} sent, {self.tests} tests>"

    def sending(self) -> int:
        """Count a POST that is being sent, and return its number."""
        self._sent += 1
        return self._sent

    def was_accepted(self, number: int) -> None:
        """Note that the POST of this number was stored."""
        self._accepted = max(self._accepted, number)
        self._believed.clear()

    def meaning(self, refusal: Refusal) -> RefusalCause:
        """Return what this refusal's body means, as far as we know."""
        return self._known.get(refusal.signature, RefusalCause.UNKNOWN)

    def believed(self, refusal: Refusal) -> bool:
        """Return whether a silence proved that this body means "invalid", and no POST was accepted since."""
        return refusal.signature in self._believed

    def judge(self, refusal: Refusal, history: RefusalHistory, *, slow: bool, over_limit: bool = False) -> Action:
        """Return what to do after a refusal, and note it in the certificate's history.

        `slow`: POSTs leave at the slow pace. `over_limit`: since the last silence, more POSTs were sent than the limit
        allows.
        """
        if refusal.names_limit:
            return Action.SLOW_DOWN
        meaning = self.meaning(refusal)
        if meaning is RefusalCause.UNKNOWN:
            return Action.PROBE
        if self.believed(refusal):
            # At the fast pace the row may have come too early for a server that wants a distance: send it alone.
            return Action.REJECT if slow and not over_limit else Action.PROBE
        if meaning is RefusalCause.TOO_FAST and not slow:
            return Action.SLOW_DOWN
        accepted_between = self._accepted > history.sent_before
        history.refusals += 1
        history.sent_before = self._sent
        if history.refusals == 1:
            return Action.AGAIN
        if not accepted_between:
            return Action.PROBE
        enough = _REFUSALS_IF_INVALID if meaning is RefusalCause.INVALID else _REFUSALS_IF_BOTH
        return Action.REJECT if history.refusals >= enough else Action.AGAIN

    def settle(self, refusal: Refusal, meaning: RefusalCause) -> None:
        """Note the result of a test."""
        self.tests += 1
        if meaning is RefusalCause.INVALID:
            self._believed.add(refusal.signature)
        if self.meaning(refusal) is not RefusalCause.TOO_FAST:
            self._known[refusal.signature] = meaning
