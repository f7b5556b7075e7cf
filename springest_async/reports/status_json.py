"""Where a migration stands, as JSON: for scripts, the page, metrics, hooks and pings, which all get the same object.

Rows are numbers in it: no e-mail address is in it, and no name of a certificate's file, which often has one. The fields
are in docs/machines.md.
"""

from datetime import datetime, timedelta
from typing import Any

from springest_async.journal.reasons import plain_reason
from springest_async.journal.records import State, Worker
from springest_async.journal.status import MigrationStatus, RowOutcome
from springest_async.reports.addresses import without_addresses


def as_json(status: MigrationStatus) -> dict[str, Any]:
    """Return where a migration stands, of what JSON knows only; times are ISO 8601 in UTC, durations are seconds."""
    pace = status.pace
    ends = status.at + timedelta(seconds=status.seconds_left)
    return {
        "migration": status.id,
        "manifest": without_addresses(status.name),
        "host": status.origin,
        "at": time_as_json(status.at),
        "activity": status.activity.replace(" ", "_"),
        "rows": status.rows,
        "done": status.done,
        "counts": {state_as_json(state): status.counts[state] for state in State},
        "settling": status.doubts.asked,
        "faulty": status.faulty,
        "seconds_left": round(status.seconds_left, 1),
        "done_at": time_as_json(ends) if status.counts[State.WAITING] else None,
        "moved_at": time_as_json(status.moved_at),
        "paused_at": time_as_json(status.paused_at),
        "pace": {
            "posts_per_minute": pace.posts,
            "free": pace.free,
            "next_in": round(pace.next_in, 1),
            "last_minute": pace.last_minute,
            "one_at_a_time": pace.slow,
        },
        "workers": [_worker(worker) for worker in status.workers],
        "trouble": None if status.trouble is None else _worker(status.trouble),
        "sending": [{"row": row.number, "seconds": round(row.seconds, 1)} for row in status.sending],
        "last": [_outcome(outcome) for outcome in status.last],
    }


def state_as_json(state: State) -> str:
    """Return the name of a state: ``stored``, ``in_doubt``."""
    return state.name.lower()


def time_as_json(at: datetime | None) -> str | None:
    """Return a time as in ``2026-11-28T14:09:29.120+00:00``."""
    return None if at is None else at.isoformat(timespec="milliseconds")


def _worker(worker: Worker) -> dict[str, Any]:
    return {
        "machine": worker.host,
        "trouble": worker.trouble,
        "reason": without_addresses(worker.reason),
        "seconds": round(worker.seconds, 1),
        "again_in": None if worker.again_in is None else round(worker.again_in, 1),
    }


def _outcome(outcome: RowOutcome) -> dict[str, Any]:
    return {
        "row": outcome.number,
        "state": state_as_json(outcome.state),
        "at": time_as_json(outcome.at),
        "status": outcome.status,
        "words": without_addresses(outcome.words),
        "reason": without_addresses(plain_reason(outcome.reason)),
        "request_id": outcome.request_id,
    }
