"""The exit codes of ``springest``, which scripts rely on."""

import enum

from springest_async.bulk import Report, State
from springest_async.errors import (
    ConfigurationError,
    Forbidden,
    JournalError,
    ManifestError,
    NotAuthorized,
    SpringestError,
)

__all__ = ["Exit", "exit_of", "exit_of_error", "exit_of_status"]


class Exit(enum.IntEnum):
    """What a command's exit code says."""

    STORED = 0  # all is well: every row is stored
    NOT_ALL = 1  # some rows were rejected or failed, or a list could not be had
    USAGE = 2  # usage, manifest or journal faults: nothing was sent
    IN_DOUBT = 3  # some rows are in doubt
    KEY_REFUSED = 4  # the key was refused (401, 403)
    INTERRUPTED = 130  # interrupted, and resumable


def exit_of(report: Report, error: SpringestError | None, *, before: Report, interrupted: bool) -> Exit:
    """Give the exit code of a run: first why it ended early, then what became of its rows.

    Args:
        report: what has become of the manifest.
        error: what ended the run early.
        before: what had become of it before the run.
        interrupted: whether somebody stopped it.
    """
    if isinstance(error, NotAuthorized | Forbidden):
        return Exit.KEY_REFUSED
    all_stored = report.count(State.STORED) == report.rows
    if error is not None and report.counts == before.counts:
        return Exit.USAGE
    if interrupted and not all_stored:
        return Exit.INTERRUPTED
    if report.count(State.IN_DOUBT):
        return Exit.IN_DOUBT
    return Exit.STORED if all_stored and error is None else Exit.NOT_ALL


def exit_of_status(report: Report) -> Exit:
    """Give the exit code of a look at a journal: rows that wait are nobody's fault."""
    if report.count(State.IN_DOUBT):
        return Exit.IN_DOUBT
    return Exit.NOT_ALL if report.count(State.REJECTED, State.FAILED) else Exit.STORED


def exit_of_error(error: SpringestError, failed: Exit = Exit.NOT_ALL) -> Exit:
    """Give the exit code of an error that ended a command before any row was sent.

    `failed` is that of a line or a server that failed: for an upload, nothing was sent then.
    """
    match error:
        case NotAuthorized() | Forbidden():
            return Exit.KEY_REFUSED
        case ConfigurationError() | ManifestError() | JournalError():
            return Exit.USAGE
    return failed
