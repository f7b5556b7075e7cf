"""The events of a bulk run as JSON, for a log. The fields are in docs/machines.md.

Rows are numbers: no e-mail address and no name of a file is a field. What a server said may have an address in it; the
log takes it out.
"""

from typing import Any

from springest_async.bulk.events import BulkEvent, Outage, OutageOver, Paused, Resumed, RowDone, RowSettling, RowStep
from springest_async.errors import InDoubt, SpringestError, UnusableFile
from springest_async.records import Receipt
from springest_async.reports.status_json import state_as_json, time_as_json


def event_as_json(event: BulkEvent, now: float) -> tuple[str, dict[str, Any]]:
    """Return the name of an event and its fields, of what JSON knows only.

    Args:
        event: the event.
        now: the time on the event loop's clock, in seconds.
    """
    match event:
        case RowStep(row, step):
            return "row_step", {
                "row": row.number,
                "step": step.kind.replace(" ", "_"),
                "attempts": step.attempts,
                "status": step.status,
                "words": step.words,
                "request_id": step.request_id,
            }
        case RowSettling(row):
            return "row_settling", {"row": row.number}
        case RowDone():
            return "row_done", _done(event)
        case Outage():
            return "outage", {
                "what": event.what,
                "reason": event.reason,
                "seconds": round(now - event.since, 1),
                "again_in": None if event.again_at is None else round(event.again_at - now, 1),
            }
        case OutageOver():
            return "outage_over", {"what": event.what, "reason": event.reason, "seconds": round(event.seconds, 1)}
        case Paused():
            return "paused", {"since": time_as_json(event.since)}
        case Resumed():
            return "resumed", {"seconds": round(event.seconds, 1)}


def _done(event: RowDone) -> dict[str, Any]:
    receipt, error = event.receipt, event.error
    return {
        "row": event.row.number,
        "state": state_as_json(event.state),
        "springest_id": None if receipt is None else receipt.id,
        "stored_before": event.stored_before,
        "changed": event.changed,
        "status": None if error is None else error.status,
        "request_id": _request_id(receipt, error),
        "reason": "" if error is None else _words(error),
    }


def _request_id(receipt: Receipt | None, error: SpringestError | None) -> str:
    if receipt is not None:
        return receipt.request_id
    return "" if error is None else error.request_id


def _words(error: SpringestError) -> str:
    """Return what an error says, without the file and the person that it names."""
    return error.reason if isinstance(error, UnusableFile | InDoubt) else str(error)
