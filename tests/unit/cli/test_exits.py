"""The exit codes, on which scripts rely."""

from collections import Counter
from pathlib import Path

import pytest

from springest_async import (
    ConfigurationError,
    Forbidden,
    JournalError,
    ManifestError,
    NoAnswer,
    NotAuthorized,
    NotFound,
    NotSent,
    SpringestError,
)
from springest_async.bulk import Report, State
from springest_async.cli.exit_codes import Exit
from springest_async.cli.exits import exit_of, exit_of_error, exit_of_status, explained
from springest_async.journal.status import MigrationStatus
from tests.statuses import status_of

WHERE = "POST https://springest.example/users/certificates.json"
KEY = NotAuthorized(WHERE, 401, "")
FORBIDDEN = Forbidden(WHERE, 403, "")
HOST = NotFound(WHERE, 404, "")
NETWORK = NotSent(WHERE, "no connection", connected=False)
FULL = JournalError(Path("x.journal"), "the disk is full")
LIMITS = ConfigurationError("the limit cannot be kept in limits.sqlite3: it is damaged")


def test_the_codes_are_those_that_scripts_rely_on() -> None:
    assert {code.name: code.value for code in Exit} == {
        "STORED": 0,
        "NOT_ALL": 1,
        "USAGE": 2,
        "IN_DOUBT": 3,
        "KEY_REFUSED": 4,
        "STOPPED": 5,
        "DIFFERENT": 6,
        "INTERRUPTED": 130,
    }


@pytest.mark.parametrize(
    ("counts", "error", "interrupted", "code"),
    [
        ({State.STORED: 3}, None, False, Exit.STORED),
        ({State.STORED: 3}, None, True, Exit.STORED),
        ({}, None, False, Exit.STORED),
        ({State.STORED: 3, State.REJECTED: 1}, None, False, Exit.NOT_ALL),
        ({State.STORED: 3, State.FAILED: 1}, None, False, Exit.NOT_ALL),
        ({State.STORED: 3, State.WAITING: 1}, HOST, False, Exit.NOT_ALL),
        ({State.STORED: 3}, FULL, False, Exit.NOT_ALL),
        ({State.SENDING: 1, State.WAITING: 3}, FULL, False, Exit.IN_DOUBT),
        ({State.IN_DOUBT: 1}, None, False, Exit.IN_DOUBT),
        ({State.STORED: 3, State.REJECTED: 1, State.FAILED: 1, State.IN_DOUBT: 1}, None, False, Exit.IN_DOUBT),
        ({State.IN_DOUBT: 1, State.WAITING: 2}, HOST, False, Exit.IN_DOUBT),
        ({State.WAITING: 3}, HOST, False, Exit.USAGE),
        ({State.WAITING: 3}, NETWORK, False, Exit.USAGE),
        ({State.WAITING: 3}, KEY, False, Exit.KEY_REFUSED),
        ({State.STORED: 3, State.WAITING: 3}, FORBIDDEN, False, Exit.KEY_REFUSED),
        ({State.STORED: 3, State.IN_DOUBT: 3}, KEY, True, Exit.KEY_REFUSED),
        ({State.STORED: 3, State.WAITING: 1}, None, True, Exit.INTERRUPTED),
        ({State.WAITING: 3}, None, True, Exit.INTERRUPTED),
        ({State.IN_DOUBT: 1, State.WAITING: 1}, None, True, Exit.INTERRUPTED),
    ],
)
def test_what_needs_a_person_most_decides_the_code(
    counts: dict[State, int], error: SpringestError | None, interrupted: bool, code: Exit
) -> None:
    report = report_of(counts)
    before = report_of({State.WAITING: report.rows})

    assert exit_of(report, error, before=before, interrupted=interrupted) is code


@pytest.mark.parametrize(
    ("counts", "error", "interrupted", "code"),
    [
        ({State.STORED: 3, State.WAITING: 1}, None, False, Exit.STOPPED),
        ({State.STORED: 3, State.REJECTED: 1, State.WAITING: 1}, None, False, Exit.STOPPED),
        ({State.IN_DOUBT: 1, State.WAITING: 1}, None, False, Exit.STOPPED),
        ({State.STORED: 3}, None, False, Exit.STORED),
        ({State.STORED: 3, State.REJECTED: 1}, None, False, Exit.NOT_ALL),
        ({State.STORED: 3, State.IN_DOUBT: 1}, None, False, Exit.IN_DOUBT),
        ({State.STORED: 3, State.WAITING: 1}, None, True, Exit.INTERRUPTED),
        ({State.STORED: 3, State.WAITING: 1}, KEY, False, Exit.KEY_REFUSED),
        ({State.STORED: 3, State.WAITING: 1}, FULL, False, Exit.NOT_ALL),
    ],
)
def test_a_run_that_stopped_itself_has_a_code_while_rows_wait(
    counts: dict[State, int], error: SpringestError | None, interrupted: bool, code: Exit
) -> None:
    report = report_of(counts)
    before = report_of({State.WAITING: report.rows})

    assert exit_of(report, error, before=before, interrupted=interrupted, stopped_itself=True) is code


def report_of(counts: dict[State, int]) -> Report:
    return Report(counts=Counter(counts), posts=0, refusals=0)


@pytest.mark.parametrize("error", [HOST, NETWORK, FULL, LIMITS], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("counts", [{State.STORED: 3, State.WAITING: 1}, {State.IN_DOUBT: 1, State.WAITING: 2}])
def test_a_run_that_changed_nothing_sent_nothing(counts: dict[State, int], error: SpringestError) -> None:
    report = report_of(counts)

    assert exit_of(report, error, before=report, interrupted=False) is Exit.USAGE
    assert exit_of(report, KEY, before=report, interrupted=False) is Exit.KEY_REFUSED


def test_an_interrupted_run_that_changed_nothing() -> None:
    report = report_of({State.STORED: 3, State.WAITING: 1})

    assert exit_of(report, None, before=report, interrupted=True) is Exit.INTERRUPTED


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (status_of(), Exit.STORED),
        (status_of(stored=3), Exit.STORED),
        (status_of(stored=3, waiting=4), Exit.STORED),
        (status_of(stored=3, sending=4), Exit.STORED),
        (status_of(stored=3, rejected=1), Exit.NOT_ALL),
        (status_of(waiting=3, failed=1), Exit.NOT_ALL),
        (status_of({"faulty": 1}, stored=3), Exit.NOT_ALL),
        (status_of(stored=3, in_doubt=1), Exit.IN_DOUBT),
        (status_of({"faulty": 1}, rejected=3, failed=1, in_doubt=1), Exit.IN_DOUBT),
    ],
)
def test_the_exit_code_of_status(status: MigrationStatus, code: Exit) -> None:
    assert exit_of_status(status) is code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KEY, Exit.KEY_REFUSED),
        (FORBIDDEN, Exit.KEY_REFUSED),
        (LIMITS, Exit.USAGE),
        (ManifestError(Path("x.csv"), "row 5 is no CSV"), Exit.USAGE),
        (FULL, Exit.USAGE),
        (NoAnswer(WHERE, "silence"), Exit.NOT_ALL),
        (NETWORK, Exit.NOT_ALL),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_before_the_first_row_has_a_code(error: SpringestError, code: Exit) -> None:
    assert exit_of_error(error) is code


def test_an_unreachable_server_is_explained() -> None:
    advice = "Springest cannot be reached. Check the internet connection, then run the same command again."

    assert explained(NETWORK) == f"{advice} ({NETWORK})"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (KEY, "Check that the API key is the one for this host: each host has its own."),
        (FORBIDDEN, "The key may not do this: certificates and certifications need different keys."),
    ],
    ids=["401", "403"],
)
def test_a_refused_key_is_explained(error: NotAuthorized | Forbidden, advice: str) -> None:
    answered = str(error).removesuffix(f". {advice}")

    assert explained(error) == f"Springest refused the API key. {advice} ({answered})"


@pytest.mark.parametrize(
    "error",
    [FULL, NotSent(WHERE, "the connection broke"), NotSent(WHERE, "untrusted", connected=False, trusted=False)],
    ids=["journal", "connection", "TLS certificate"],
)
def test_other_errors_explain_themselves(error: SpringestError) -> None:
    assert explained(error) == str(error)
