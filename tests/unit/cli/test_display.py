"""What is shown of a migration: ten lines at most in a terminal of any size, and one line without a terminal."""

import io
from datetime import timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from springest_async.bulk import State
from springest_async.cli.display import MAX_LINES, Moment, RunNotes, display, line
from springest_async.journal.doubts import DoubtfulRows
from springest_async.journal.records import Worker
from springest_async.journal.status import MigrationStatus, Pace, RowOutcome
from tests.statuses import IDLE, NOON, STATUS, counted, outcome

OUTAGE = Worker("bert", "no connection", "Connection refused", 40, 8)


def shown(moment: Moment, width: int = 100, height: int = 24) -> list[str]:
    """Return the lines of the display."""
    screen = io.StringIO()
    console = Console(file=screen, width=width, height=height, force_terminal=True, color_system=None)
    console.print(display(moment, width=width, height=height))
    return [text.rstrip() for text in screen.getvalue().splitlines()]


def test_all_that_an_owner_asks_for_is_in_ten_lines() -> None:
    assert shown(Moment(status=STATUS, age=1.0)) == [
        "certificates.csv to https://api.springest.nl: running on anna",
        "━━━━━━━━━━━━━━━━                         1 204 of 3 000, 40 %",
        "1 190 stored, 12 rejected, 2 failed, 3 in doubt, 3 being sent, 1 790 waiting",
        "About 1 h 00 min left, done 13:00",
        "28 sent in the last minute (at most 30), 2 free, next in 13 s",
        "Sending: row 7 (3 s, 7.pdf), row 8 (3 s, 8.pdf), row 9 (3 s, 9.pdf)",
        "Last:    12:00:06 row 6 stored (6.pdf)",
        "         12:00:05 row 5 rejected: email: is unknown (5.pdf)",
        "         12:00:04 row 4 refused (400), to be sent again (4.pdf)",
    ]


def test_a_narrow_terminal_has_shorter_lines_and_the_same() -> None:
    assert shown(Moment(status=STATUS), width=40) == [
        "certificates.csv: running on anna",
        "━━━━━━━            1 204 of 3 000, 40 %",
        "1 190 stored, 12 rejected, 2 failed",
        "3 in doubt, 3 being sent, 1 790 waiting",
        "About 1 h 00 min left, done 13:00",
        "28 sent in the last minute (at most 30)",
        "2 free, next in 14 s",
        "Sending: row 7 (2 s, 7.pdf) and 2 more",
        "Last:    12:00:06 row 6 stored (6.pdf)",
        "         12:00:05 row 5 rejected: email…",
    ]


def test_the_same_in_one_line_without_a_terminal() -> None:
    assert line(Moment(status=STATUS)) == (
        "1 204 of 3 000 done: 1 190 stored, 12 rejected, 2 failed, 3 in doubt, 3 being sent, 1 790 waiting."
        " About 1 h 00 min left, done 13:00. 28 sent in the last minute (at most 30), 2 free, next in 14 s."
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"workers": (OUTAGE,)}, "No connection for 42 s (Connection refused), trying again in 6 s"),
        (
            {"workers": (Worker("anna"), OUTAGE)},
            "On bert: no connection for 42 s (Connection refused), trying again in 6 s",
        ),
        ({"paused_at": NOON - timedelta(hours=13)}, "Paused since Wednesday 23:00, springest resume lets it go on"),
        ({"workers": ()}, "No upload is running, springest upload continues it"),
        (
            {"workers": (), "counts": counted(stored=3, in_doubt=1)},
            "Only rows in doubt are left, springest status lists them",
        ),
        ({"counts": counted(stored=3, sending=1)}, "Sending the last rows"),
        ({"seconds_left": 1.5}, "Done in a moment"),
    ],
    ids=["outage", "outage of one", "paused", "stopped", "in doubt", "last rows", "a moment"],
)
def test_what_is_wrong_is_said_or_how_long_it_takes(changes: dict[str, Any], words: str) -> None:
    moment = Moment(status=attrs.evolve(STATUS, **changes), age=2.0)

    assert words in shown(moment)
    assert f"{words}." in line(moment)


@pytest.mark.parametrize("changes", [{"workers": (OUTAGE,)}, {"paused_at": NOON}], ids=["outage", "paused"])
def test_while_nothing_can_leave_nothing_may_leave_now(changes: dict[str, Any]) -> None:
    lines = shown(Moment(status=attrs.evolve(STATUS, **changes)))

    assert "28 sent in the last minute (at most 30)" in lines
    assert lines[0].endswith(": cannot send on bert" if "workers" in changes else ": paused")


def test_what_is_done_says_nothing_more() -> None:
    done = attrs.evolve(IDLE, counts=counted(stored=3, rejected=1))

    assert shown(Moment(status=done)) == [
        "certificates.csv to https://api.springest.nl: done",
        f"{'━' * 40} 4 of 4, 100 %",
        "3 stored, 1 rejected",
    ]
    assert line(Moment(status=done)) == "4 of 4 done: 3 stored, 1 rejected."


def test_rows_left_out_with_faults_are_said() -> None:
    done = attrs.evolve(IDLE, counts=counted(stored=3), faulty=1200)

    assert shown(Moment(status=done))[2] == "3 stored, 1 200 left out with faults"
    assert line(Moment(status=done)) == "3 of 3 done: 3 stored, 1 200 left out with faults."


@pytest.mark.parametrize(("asked", "words"), [(1, "1"), (3, "them")])
def test_rows_that_a_run_asks_about_are_told_apart(asked: int, words: str) -> None:
    """They are seen from everywhere, and not only by the run that asks."""
    said = line(Moment(status=attrs.evolve(STATUS, doubts=DoubtfulRows(asked=asked))))

    assert f"3 in doubt (Springest is being asked about {words}), 3 being sent" in said
    assert "done 13:00, checking rows in doubt. " in said


def test_a_manifest_without_rows_is_done() -> None:
    assert line(Moment(status=attrs.evolve(IDLE, counts=counted()))) == "0 of 0 done: 0 stored."
    assert "0 of 0, 100 %" in shown(Moment(status=attrs.evolve(IDLE, counts=counted())))[1]


def test_what_stays_at_the_end_is_where_it_stands() -> None:
    assert shown(Moment(status=STATUS, is_over=True)) == [
        "certificates.csv to https://api.springest.nl",
        *shown(Moment(status=STATUS))[1:3],
    ]


def test_what_is_done_stays_done_while_runs_end() -> None:
    done = attrs.evolve(STATUS, counts=counted(stored=12), sending=())

    assert shown(Moment(status=done, is_over=True))[0] == "certificates.csv to https://api.springest.nl: done"


def test_what_holds_a_run_up_stands_instead_of_its_forecast() -> None:
    moment = Moment(status=STATUS, notes=RunNotes(held_up_by="waiting for the journal: the disk is full"))

    assert "Waiting for the journal: the disk is full" in shown(moment)
    assert "left" not in f"{shown(moment)} {line(moment)}"


def test_a_slow_connection_takes_longer_than_the_limit() -> None:
    notes = RunNotes(seconds_a_row=4.0, is_asking=True)

    assert "About 1 h 59 min left, done 13:59, checking rows in doubt" in shown(Moment(status=STATUS, notes=notes))


@pytest.mark.parametrize(
    ("pace", "words"),
    [
        (Pace(free=12, last_minute=18), "18 sent in the last minute (at most 30), 12 may leave now"),
        (Pace(free=0, next_in=5, last_minute=30), "30 sent in the last minute (at most 30), next in 3 s"),
        (Pace(free=0, next_in=1, last_minute=30), "30 sent in the last minute (at most 30), 1 may leave now"),
        (
            Pace(slow=True, next_in=5),
            "0 sent in the last minute (at most 30), 30 free, next in 3 s, one at a time, after refusals for speed",
        ),
        (
            Pace(posts=20, free=20),
            "0 sent in the last minute (at most 20, because another program keeps to that), 20 may leave now",
        ),
    ],
)
def test_the_bucket_is_told_beside_the_limit(pace: Pace, words: str) -> None:
    moment = Moment(status=attrs.evolve(STATUS, pace=pace), age=2.0, notes=RunNotes(posts=30))

    assert words in shown(moment, width=160)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (outcome(1, State.IN_DOUBT, None, "no answer"), "in doubt: no answer (1.pdf)"),
        (outcome(1, State.WAITING), "not sent, to be sent again (1.pdf)"),
        (outcome(1, State.REJECTED, 422), "rejected (1.pdf)"),
    ],
)
def test_outcomes_are_told_in_words(given: RowOutcome, words: str) -> None:
    assert shown(Moment(status=attrs.evolve(STATUS, last=(given,))))[-1] == f"Last:    12:00:01 row 1 {words}"


def test_the_machines_are_named_or_counted() -> None:
    workers = tuple(map(Worker, ("anna", "bert", "anna")))
    assert shown(Moment(status=attrs.evolve(STATUS, workers=workers)))[0].endswith(": running on anna and bert")

    workers += (Worker("carl"),)
    assert shown(Moment(status=attrs.evolve(STATUS, workers=workers)))[0].endswith(": running on 3 machines")


@given(
    name=st.text(min_size=1) | st.text("\n\r\x1b\x9b\u202e\ud800長[/b]a", min_size=1, max_size=80),
    width=st.integers(1, 130),
    height=st.integers(1, 30),
    notes=st.sampled_from([RunNotes(), RunNotes(held_up_by="a\x1b[2J, b" * 9)]),
    status=st.sampled_from([STATUS, IDLE, attrs.evolve(STATUS, workers=(OUTAGE,) * 4)]),
)
def test_any_names_fit_into_any_terminal(
    name: str, width: int, height: int, notes: RunNotes, status: MigrationStatus
) -> None:
    status = attrs.evolve(
        status,
        name=name,
        workers=tuple(attrs.evolve(worker, host=name, reason=name) for worker in status.workers),
        sending=tuple(attrs.evolve(row, file=name) for row in status.sending),
        last=tuple(attrs.evolve(row, file=name, words=name) for row in status.last),
    )
    moment = Moment(status=status, notes=notes)
    screen = io.StringIO()
    console = Console(file=screen, width=width, height=height, force_terminal=True, color_system=None)
    console.print(display(moment, width=width, height=height), end="")
    lines = screen.getvalue().removesuffix("\n").split("\n")

    assert len(lines) <= max(1, min(MAX_LINES, height - 1))
    assert all(text.isprintable() and cell_len(text.rstrip()) <= width for text in lines)
    assert line(moment).isprintable()
