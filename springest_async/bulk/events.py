"""What a bulk run tells whoever listens: one frozen record an event. It knows no terminal."""

import enum
from typing import Protocol

from attrs import frozen

from springest_async.bulk.manifest import Row
from springest_async.delivery import UploadStep
from springest_async.errors import SpringestError
from springest_async.records import Receipt

__all__ = ["BulkListener", "RowDone", "RowStep", "State"]


class State(enum.Enum):
    """Where a row is in the end. At all times: rows = stored + rejected + failed + in doubt + waiting."""

    STORED = "stored"
    REJECTED = "rejected"  # Springest does not want it
    FAILED = "failed"  # it could not be sent
    IN_DOUBT = "in doubt"  # it was sent, and nobody knows whether it was stored
    WAITING = "waiting"  # it was not sent, and nothing is wrong with it


@frozen
class RowStep:
    """A row is being uploaded, and this is what its upload is doing."""

    row: Row
    step: UploadStep


@frozen
class RowDone:
    """A row has come to its end in this run: with a receipt when it is stored, or with the error that tells why not."""

    row: Row
    state: State
    receipt: Receipt | None = None
    error: SpringestError | None = None


class BulkListener(Protocol):
    """Whoever wants to know; called synchronously from the event loop, so it must be quick."""

    def __call__(self, event: RowStep | RowDone, /) -> None:
        """Take note of an event."""
