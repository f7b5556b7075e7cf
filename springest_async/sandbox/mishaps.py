"""What a server does to a certificate when something goes wrong with it, to be asked for by a test.

Four ways to leave a client in doubt: stored or not, and answered with a 500 or not at all. When one happens is for
the test to say, and what the client then sees and the audit says is for the server.
"""

from enum import Enum

__all__ = ["Mishap"]


class Mishap(Enum):
    """What goes wrong with a POST that is valid and has been read whole."""

    DROP_BEFORE_STORING = "dropped before storing"
    DROP_AFTER_STORING = "dropped after storing"
    ERROR_BEFORE_STORING = "500 before storing"
    ERROR_AFTER_STORING = "500 after storing"

    @property
    def stores(self) -> bool:
        """Whether the certificate is stored all the same."""
        return self in (Mishap.DROP_AFTER_STORING, Mishap.ERROR_AFTER_STORING)

    @property
    def status(self) -> int | None:
        """The status of the answer, or None when there is none and the connection is closed."""
        return 500 if self in (Mishap.ERROR_BEFORE_STORING, Mishap.ERROR_AFTER_STORING) else None
