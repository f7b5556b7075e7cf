"""What machines are told at the beginning, each minute and at the end of a run: its summary, as JSON.

The log, the hooks and the ping get the same object. Its fields are in docs/machines.md.
"""

from datetime import UTC, datetime
from typing import Any, Literal

from springest_async.bulk.report import Report
from springest_async.journal.status import MigrationStatus
from springest_async.reports.addresses import without_addresses
from springest_async.reports.status_json import as_json, time_as_json

Trouble = Literal["outage", "in_doubt", "key_refused"]
"""What a person is called for."""

StoppedBy = Literal["until", "max-duration", "max-failures"]
"""The option that has stopped a run, without its dashes."""


def summary_as_json(
    event: Literal["begin", "progress", "trouble", "end"],
    manifest: str,
    status: MigrationStatus | None,
    run: Report | None,
    **more: Any,
) -> dict[str, Any]:
    """Return the summary of a run.

    Args:
        event: why it is made.
        manifest: the name of the manifest's file.
        status: where the migration stands; None if the run ended before the manifest was loaded.
        run: what this run did, if it began.
        more: what belongs to the event; addresses are taken out of texts.
    """
    told = {name: without_addresses(value) if isinstance(value, str) else value for name, value in more.items()}
    return {
        "event": event,
        "at": time_as_json(datetime.now(UTC)),
        "manifest": without_addresses(manifest),
        "status": None if status is None else as_json(status),
        "run": None if run is None else run_as_json(run),
    } | told


def run_as_json(run: Report) -> dict[str, Any]:
    """Return what one run did; durations are seconds."""
    return {
        "posts": run.posts,
        "refusals": run.refusals,
        "stored": run.stored,
        "stored_before": run.stored_before,
        "outages": run.outages,
        "outage_seconds": round(run.outage_seconds, 1),
    }
