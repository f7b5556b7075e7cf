"""The ways in which the sandbox can fail on purpose.

There are four ways to leave a client in doubt: stored or not, and answered with a 500 or not at all. The test decides
when one happens; `server` carries it out.
"""

from enum import Enum


class Mishap(Enum):
    """What goes wrong with a POST that is valid and has been read whole."""

    DROP_BEFORE_STORING = "dropped before storing"
    DROP_AFTER_STORING = "dropped after storing"
    ERROR_BEFORE_STORING = "500 before storing"
    ERROR_AFTER_STORING = "500 after storing"

    @property
    def stores(self) -> bool:
        """Return whether the certificate is stored all the same."""
        return self in (Mishap.DROP_AFTER_STORING, Mishap.ERROR_AFTER_STORING)

    @property
    def status(self) -> int | None:
        """Return the status of the answer; None means that the connection is closed without an answer."""
        return 500 if self in (Mishap.ERROR_BEFORE_STORING, Mishap.ERROR_AFTER_STORING) else None
