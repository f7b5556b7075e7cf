"""The exit codes, on which scripts rely."""

from pathlib import Path

import pytest

from springest_async import Forbidden, ManifestError, NotAuthorized, NotFound, NotSent, SpringestError
from springest_async.bulk import Report, State
from springest_async.cli.exits import Exit, exit_of

WHERE = "POST https://springest.example/users/certificates.json"
KEY = NotAuthorized(WHERE, 401, "")
FORBIDDEN = Forbidden(WHERE, 403, "")
HOST = NotFound(WHERE, 404, "")
NETWORK = NotSent(WHERE, "no connection", connected=False)
BROKEN_OFF = ManifestError(Path("x.csv"), "row 5 is no CSV")  # nobody knows how many rows it has


def test_the_codes_are_those_that_scripts_rely_on() -> None:
    assert {code.name: code.value for code in Exit} == {
        "STORED": 0,
        "NOT_ALL": 1,
        "USAGE": 2,
        "IN_DOUBT": 3,
        "KEY_REFUSED": 4,
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
        ({State.STORED: 3}, BROKEN_OFF, False, Exit.NOT_ALL),
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
    report = Report(counts=counts, posts=0, refusals=0)

    assert exit_of(report, error, interrupted=interrupted) is code
