"""What a failure means, and how long to wait: decisions only, nothing here awaits, sends or reads a clock.

The hard one is a 400 that names no field: Springest answers 400 both for "too fast" and for "invalid". Nothing was
stored, so sending it again cannot double; but guessing wrong either fails a row for speed or burns the budget. The
verdict is reached by experiment, once for each body (`Verdicts`): the same certificate is sent again after 2, 4 and 8
seconds and at last alone after a silent minute. Stored then: it was the limit. Refused even then: it is invalid.
"""

import enum
import random

from springest_async.errors import NoAnswer, NotSent, ServerError, UnexpectedStatus
from springest_async.protocol import Refusal

__all__ = ["TRIES", "Meaning", "Verdicts", "ask_again", "backoff"]

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
    too_many = isinstance(error, UnexpectedStatus) and error.status == 429
    if not (too_many or isinstance(error, NotSent | NoAnswer | ServerError)):
        return False
    return True if retry_after is None else min(retry_after, 300.0)


class Meaning(enum.Enum):
    """What a 400 that names no field is taken to mean."""

    UNKNOWN = "unknown"
    TOO_FAST = "too fast"
    INVALID = "invalid"


class Verdicts:
    """What the bodies of earlier 400s turned out to mean, so that each costs one silent minute in a run.

    A body that once meant "too fast" is never again taken for "invalid" at sight, since a server may use one body for
    both. A body that meant "invalid" is believed, until so many rows in a row get it that the limit may be behind it
    after all; then it is put to the test again, and the next test takes twice as many.
    """

    def __init__(self) -> None:
        self._known: dict[str, Meaning] = {}
        self._in_a_row = 0
        self._suspicious = 8
        self.accepted = 0  # how many POSTs were stored, which tells whether any was between two refusals

    def __repr__(self) -> str:
        return f"<Verdicts {len(self._known)} known, {self.accepted} accepted, {self._in_a_row} refusals in a row>"

    def meaning(self, refusal: Refusal) -> Meaning:
        """Say what is known of this refusal's body."""
        if refusal.names_limit:
            return Meaning.TOO_FAST
        known = self._known.get(refusal.signature, Meaning.UNKNOWN)
        if known is Meaning.INVALID and self._in_a_row >= self._suspicious:
            return Meaning.UNKNOWN
        return known

    def was_accepted(self) -> None:
        """Note that a POST was stored."""
        self.accepted += 1
        self._in_a_row = 0

    def was_rejected(self) -> None:
        """Note that a row was rejected on the strength of its body alone."""
        self._in_a_row += 1

    def settle(self, refusal: Refusal, meaning: Meaning) -> None:
        """Note what the experiment showed."""
        if self._known.get(refusal.signature) is not Meaning.TOO_FAST:
            if self._known.get(refusal.signature) is meaning is Meaning.INVALID:
                self._suspicious *= 2
            self._known[refusal.signature] = meaning
        self._in_a_row = 0
