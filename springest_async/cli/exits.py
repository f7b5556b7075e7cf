"""Which exit code a run, a state or an error has, and the advice that goes with an error."""

from springest_async.bulk import Report, State
from springest_async.cli.exit_codes import Exit
from springest_async.errors import (
    ConfigurationError,
    Forbidden,
    JournalError,
    ManifestError,
    NotAuthorized,
    NotSent,
    SpringestError,
)
from springest_async.journal.status import MigrationStatus


def exit_of(
    report: Report, error: SpringestError | None, *, before: Report, interrupted: bool, stopped_itself: bool = False
) -> Exit:
    """Return the exit code of a run: first why it ended early, then the states of its rows.

    The first of these that is so: the key was refused (4); an error ended the run before anything was sent (2); a
    person or a signal stopped it, and not all rows are stored (130); it stopped by itself as it was asked, and rows
    wait to be sent (5); some are in doubt (3); some were rejected or have failed, or an error ended the run (1).

    Args:
        report: the totals after the run.
        error: the error that ended the run early, if any.
        before: the totals before the run.
        interrupted: whether it was stopped by a person or a signal.
        stopped_itself: whether it stopped as the user had asked for at the start.
    """
    if isinstance(error, NotAuthorized | Forbidden):
        return Exit.KEY_REFUSED
    all_stored = report.count(State.STORED) == report.rows
    if error is not None and report.counts == before.counts:
        return Exit.USAGE
    if interrupted and not all_stored:
        return Exit.INTERRUPTED
    if stopped_itself and error is None and report.count(State.WAITING):
        return Exit.STOPPED
    if report.count(State.IN_DOUBT):
        return Exit.IN_DOUBT
    return Exit.STORED if all_stored and error is None else Exit.NOT_ALL


def exit_of_status(status: MigrationStatus) -> Exit:
    """Return the exit code of ``springest status``: rows that wait or are being sent are no error.

    Rows that were left out because of their faults are one: `springest upload` has the same exit code for them.
    """
    if status.counts[State.IN_DOUBT]:
        return Exit.IN_DOUBT
    if status.counts[State.REJECTED] or status.counts[State.FAILED] or status.faulty:
        return Exit.NOT_ALL
    return Exit.STORED


def exit_of_error(error: SpringestError, failed: Exit = Exit.NOT_ALL) -> Exit:
    """Return the exit code of an error that ended a command before any row was sent.

    `failed` is the code for a network or server error.
    """
    if isinstance(error, NotAuthorized | Forbidden):
        return Exit.KEY_REFUSED
    return Exit.USAGE if isinstance(error, ConfigurationError | ManifestError | JournalError) else failed


def explained(error: SpringestError) -> str:
    """Return the text of an error, which begins with the advice if the key was refused or there is no connection."""
    if isinstance(error, NotAuthorized | Forbidden):
        said = f": {error.words}" if error.words else ""
        return f"Springest refused the API key. {error.advice} ({error.where} answered {error.status}{said})"
    if isinstance(error, NotSent) and not error.connected and error.trusted:
        return f"Springest cannot be reached. Check the internet connection, then run the same command again. ({error})"
    return str(error)
