"""Random names for what is made with every POST, such as the boundary of its form.

Their randomness is the system's, fetched for many at once: each call of the system lets another thread run, and this
one wait for it, which costs more than everything else in making a name.
"""

import os
import time

_AT_ONCE = 256


class _Names:
    """Names that were drawn and not used yet; a child of a fork draws its own, however it was forked."""

    def __init__(self) -> None:
        self._left: list[str] = []
        self._pid = 0

    def next(self) -> str:
        if self._pid != os.getpid():
            self._left, self._pid = [], os.getpid()
        while True:
            try:
                return self._left.pop()
            except IndexError:
                digits = os.urandom(16 * _AT_ONCE).hex()
                self._left.extend(digits[at : at + 32] for at in range(0, len(digits), 32))


_names = _Names()


def random_name() -> str:
    """Return 32 random hex digits that no other call returns, in no thread or process."""
    return _names.next()


def new_request_id() -> str:
    """Return the id of a new POST: 32 hex digits, of which the first 16 are the time (ns) and the others are random.

    It is sent as ``X-Request-Id``, and names the attempt in a journal. The time is first, so that POSTs near each other
    in time stand on the same pages of the journal's index.
    """
    return f"{time.time_ns():016x}{random_name()[:16]}"
