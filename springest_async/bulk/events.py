"""The events of a bulk run, as frozen records, for a progress bar for instance. Nothing is printed here."""

from collections.abc import Callable
from typing import TypeAlias

from attrs import frozen

from springest_async.errors import SpringestError
from springest_async.journal.records import Entry, State
from springest_async.records import Receipt
from springest_async.upload import UploadStep


@frozen
class RowStep:
    """A row is being uploaded; `step` says what its upload is doing."""

    row: Entry
    step: UploadStep


@frozen
class RowSettling:
    """A row is in doubt, and Springest is asked whether it is stored. A `RowDone` or a new try follows."""

    row: Entry


@frozen
class RowDone:
    """A row is finished in this run.

    Attributes:
        row: the row.
        state: its state now.
        receipt: None unless this run got a receipt: not for a row that was stored before, or was found at Springest.
        error: why it is not stored.
        stored_before: whether the journal knew that its certificate is stored, so that nothing was sent.
        changed: whether the same person, certification and dates were sent before with another PDF.
    """

    row: Entry
    state: State
    receipt: Receipt | None = None
    error: SpringestError | None = None
    stored_before: bool = False
    changed: bool = False


BulkListener: TypeAlias = Callable[[RowStep | RowSettling | RowDone], None]
"""A function that receives the events. It is called from the event loop, so it must return quickly."""
