"""The events of a bulk run, as frozen records, for a progress bar for instance. Nothing is printed here."""

from collections.abc import Callable
from datetime import datetime
from typing import Literal, TypeAlias

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
    """A row is finished in this run, or was put back: then it is WAITING, and may have its turn again after a pause.

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


@frozen
class Outage:
    """Springest cannot be reached: all rows wait, and one after another tries again. Each try is a new event.

    Attributes:
        since: when it began, in seconds on the event loop's clock.
        what: ``no clear answer`` when something answers, mostly a gateway whose server is down.
        reason: why the last try failed, for a person to read.
        again_at: when the next one is, on the same clock; None while it is under way.
    """

    since: float
    what: Literal["no connection", "no clear answer"]
    reason: str
    again_at: float | None


@frozen
class OutageOver:
    """Springest is reached again, or the run ends.

    Attributes:
        what: as in the last `Outage`.
        reason: why the last try failed.
        seconds: how long it lasted.
    """

    what: Literal["no connection", "no clear answer"]
    reason: str
    seconds: float


@frozen
class Paused:
    """A person has paused the migration: no row is sent until a `Resumed`, but doubts are still settled.

    Attributes:
        since: since when (UTC).
    """

    since: datetime


@frozen
class Resumed:
    """The migration goes on after it was paused.

    Attributes:
        seconds: for how long this run has waited.
    """

    seconds: float


BulkEvent: TypeAlias = RowStep | RowSettling | RowDone | Outage | OutageOver | Paused | Resumed
"""Any event of a bulk run."""

BulkListener: TypeAlias = Callable[[BulkEvent], None]
"""A function that receives the events. It is called from the event loop, so it must return quickly."""
