"""What a failure means, and how long to wait: decisions only, nothing here awaits, sends or reads a clock.

The hard one is a 400 that names no field: Springest answers 400 both for "too fast" and for "invalid". Nothing was
stored, so sending it again cannot double; but guessing wrong either fails a row for speed or burns the budget. The
verdict is reached by experiment: the same certificate is sent again after 2, 4 and 8 seconds and at last alone after a
silent minute. Stored then: it was the limit. Refused even then: it is invalid. `Verdicts` remembers it by the body.
"""

import enum
import random

from attrs import define

from springest_async.api.protocol import Refusal
from springest_async.errors import NoAnswer, NotSent, ServerError, UnexpectedStatus

__all__ = ["TRIES", "Action", "RefusalCause", "RefusalHistory", "Verdicts", "ask_again", "backoff"]

# How often a row must be refused before its body is taken for "invalid" without a silence: for a body that has only
# ever meant that, and for one that has also meant "too fast". The pauses between six refusals add up to a minute.
_REFUSALS_IF_INVALID = 2
_REFUSALS_IF_BOTH = 6

TRIES = 4
"""How often a POST is tried before the try that settles it: the first one and those after 2, 4 and 8 seconds."""


def backoff(failures: int, *, longest: float = 60.0) -> float:
    """Give the seconds to wait after so many failures in a row: 2, 4, 8 … and up to half as much again, at random.

    The jitter is added and never taken off, because what comes back too early is refused again.
    """
    pause = min(longest, float(2 ** min(failures, 30)))
    return min(longest, pause * random.uniform(1.0, 1.5))


def ask_again(error: Exception, retry_after: float | None) -> bool | float:
    """Say whether a list may be asked for again after this error, and after how many seconds if the server said so."""
    # 408 is how some servers end a connection that was idle: the request on it came too late to be read.
    passing = isinstance(error, UnexpectedStatus) and error.status in (408, 429)
    untrusted = isinstance(error, NotSent) and not error.trusted
    if untrusted or not (passing or isinstance(error, NotSent | NoAnswer | ServerError)):
        return False
    return True if retry_after is None else min(retry_after, 300.0)


class RefusalCause(enum.Enum):
    """What a 400 that names no field is taken to mean."""

    UNKNOWN = "unknown"
    TOO_FAST = "too fast"
    INVALID = "invalid"


class Action(enum.Enum):
    """What to do after a refusal: each is an action of `delivery`."""

    AGAIN = "send it again after a pause"
    SLOW_DOWN = "slow down, and send it again"
    PROBE = "send it again alone, after a silence at last"
    REJECT = "it is invalid"


@define
class RefusalHistory:
    """What is held against one certificate: its refusals that had either meaning, and how many POSTs went before."""

    refusals: int = 0
    sent_before: int = 0


class Verdicts:
    """What the bodies of earlier 400s turned out to mean, so that not every row costs a silent minute.

    A body of unknown meaning is put to the test (`Action.PROBE`). After that, evidence decides:

    * it meant "invalid" in a silence, and nothing has been accepted since: invalid, at sight at the slow pace, and at
      the fast one when the row is refused alone as well. But only as long as no more POSTs have left since a silence
      than the limit allows: beyond that, a server whose count only silence resets would refuse valid ones as well;
    * it has only ever meant "invalid": the row is sent once more. Refused again, although a POST that left in between
      was accepted: invalid. Accepted: so the body can mean "too fast" as well, and that is not forgotten;
    * it has meant "too fast": the row must be refused six times, in more than a minute, with others accepted in
      between each time;
    * nothing was accepted in between: only a silence can tell.
    """

    def __init__(self) -> None:
        self._known: dict[str, RefusalCause] = {}
        self._believed: set[str] = set()  # proved invalid in a silence, and nothing accepted since
        self._sent = 0
        self._accepted = 0  # the number of the last sent POST that was accepted
        self.tests = 0  # how many bodies were put to the test, which tells whether one was while another row waited

    def __repr__(self) -> str:
        return f"<Verdicts {len(self._known)} known, {self._sent} sent, {self.tests} tests>"

    def sending(self) -> int:
        """Note that a POST leaves, and give its number."""
        self._sent += 1
        return self._sent

    def was_accepted(self, number: int) -> None:
        """Note that the POST of this number was stored."""
        self._accepted = max(self._accepted, number)
        self._believed.clear()

    def meaning(self, refusal: Refusal) -> RefusalCause:
        """Say what is known of this refusal's body."""
        return self._known.get(refusal.signature, RefusalCause.UNKNOWN)

    def believed(self, refusal: Refusal) -> bool:
        """Whether this body was proved to mean "invalid" in a silence, and nothing was accepted since."""
        return refusal.signature in self._believed

    def judge(self, refusal: Refusal, case: RefusalHistory, *, slow: bool, late: bool = False) -> Action:
        """Say what to do after a refusal, and hold it against the certificate.

        `late` says that more POSTs have left since the last silence than the limit allows.
        """
        if refusal.names_limit:
            return Action.SLOW_DOWN
        meaning = self.meaning(refusal)
        if meaning is RefusalCause.UNKNOWN:
            return Action.PROBE
        if self.believed(refusal):
            # At the fast pace the row may have come too early for a server that wants its distance: it goes alone.
            return Action.REJECT if slow and not late else Action.PROBE
        if meaning is RefusalCause.TOO_FAST and not slow:
            return Action.SLOW_DOWN
        accepted_between = self._accepted > case.sent_before
        case.refusals += 1
        case.sent_before = self._sent
        if case.refusals == 1:
            return Action.AGAIN
        if not accepted_between:
            return Action.PROBE
        enough = _REFUSALS_IF_INVALID if meaning is RefusalCause.INVALID else _REFUSALS_IF_BOTH
        return Action.REJECT if case.refusals >= enough else Action.AGAIN

    def settle(self, refusal: Refusal, meaning: RefusalCause) -> None:
        """Note what a test showed."""
        self.tests += 1
        if meaning is RefusalCause.INVALID:
            self._believed.add(refusal.signature)
        if self.meaning(refusal) is not RefusalCause.TOO_FAST:
            self._known[refusal.signature] = meaning
