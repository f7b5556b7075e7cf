"""What a bulk run tells whoever listens: one frozen record an event. It knows no terminal."""

from typing import Protocol

from attrs import frozen

from springest_async.bulk.entries import Entry, State
from springest_async.errors import SpringestError
from springest_async.records import Receipt
from springest_async.upload import UploadStep

__all__ = ["BulkListener", "RowDone", "RowSettling", "RowStep"]


@frozen
class RowStep:
    """A row is being uploaded, and this is what its upload is doing."""

    row: Entry
    step: UploadStep


@frozen
class RowSettling:
    """A row is in doubt for now, and Springest is asked whether it is stored; a `RowDone` or a new try follows."""

    row: Entry


@frozen
class RowDone:
    """A row has come to its end in this run, with the error that tells why if it is not stored.

    `receipt` is None for a row that was stored before, or that was in doubt and found at Springest; `error` is None for
    one that an earlier run saw rejected under another name: `row.reason` says why.
    """

    row: Entry
    state: State
    receipt: Receipt | None = None
    error: SpringestError | None = None


class BulkListener(Protocol):
    """Whoever wants to know; called synchronously from the event loop, so it must be quick."""

    def __call__(self, event: RowStep | RowSettling | RowDone, /) -> None:
        """Take note of an event."""
