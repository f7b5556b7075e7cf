"""Where a migration stands, as JSON."""

import json
from collections import Counter
from typing import Any

import pytest

from springest_async.journal.records import State, Worker
from springest_async.journal.status import MigrationStatus, Pace, RowInProgress, RowOutcome
from springest_async.reports.addresses import without_addresses
from springest_async.reports.status_json import as_json
from springest_async.reports.summary_json import summary_as_json
from tests.machine_docs import faults_of
from tests.statuses import READ_AT, status_of

AT = READ_AT


def status(**changes: Any) -> MigrationStatus:
    return status_of({"seconds_left": 61.234} | changes, stored=5, waiting=4, sending=1, rejected=2, in_doubt=3)


def test_the_counts_are_of_all_states_and_agree() -> None:
    found = as_json(status())

    assert found["counts"] == {
        "stored": 5,
        "rejected": 2,
        "failed": 0,
        "in_doubt": 3,
        "waiting": 4,
        "sending": 1,
    }
    assert found["rows"] == sum(found["counts"].values()) == 15
    assert found["done"] == 7


def test_rows_left_out_are_in_no_other_number() -> None:
    found = as_json(status(faulty=12))

    assert (found["faulty"], found["rows"]) == (12, 15)


def test_times_are_in_utc_and_say_when_it_will_be_done() -> None:
    found = as_json(status(paused_at=AT))

    assert found["at"] == found["paused_at"] == "2026-11-28T14:09:29.120+00:00"
    assert found["done_at"] == "2026-11-28T14:10:30.354+00:00"
    assert found["seconds_left"] == 61.2


def test_when_nothing_waits_nobody_knows_when_it_is_done() -> None:
    assert as_json(status(counts=Counter({State.IN_DOUBT: 1})))["done_at"] is None


@pytest.mark.parametrize(
    ("counts", "activity"),
    [({State.WAITING: 1}, "stopped"), ({State.IN_DOUBT: 1}, "in_doubt"), ({State.STORED: 1}, "done")],
)
def test_an_activity_is_one_word(counts: dict[State, int], activity: str) -> None:
    assert as_json(status(counts=Counter(counts)))["activity"] == activity


def test_a_worker_that_cannot_send_is_the_trouble() -> None:
    worker = Worker("laptop", "no connection", "Connection refused", 40.04, None)

    found = as_json(status(workers=(worker,)))

    assert found["activity"] == "outage"
    assert found["trouble"] == found["workers"][0]
    assert found["trouble"] == {
        "machine": "laptop",
        "trouble": "no connection",
        "reason": "Connection refused",
        "seconds": 40.0,
        "again_in": None,
    }


def test_neither_an_address_nor_a_file_is_in_it() -> None:
    outcome = RowOutcome(
        number=3,
        file="ole@example.com.pdf",
        state=State.REJECTED,
        at=AT,
        status=400,
        words='"ole@example.com" is unknown',
        request_id="a1",
        reason="POST https://api.springest.nl/x.json rejected the certificate (400): ole@example.com: is unknown",
    )

    text = json.dumps(
        as_json(
            status(
                name="ole@example.com.csv",
                last=(outcome,),
                sending=(RowInProgress(number=4, file="ole@example.com.pdf", seconds=0.5),),
                pace=Pace(posts=30, free=3, next_in=0.04, last_minute=27),
            )
        )
    )

    assert "example" not in text
    assert '"words": "\\"\\u2026\\" is unknown"' in text
    assert '"reason": "\\u2026: is unknown"' in text


@pytest.mark.parametrize(
    "address",
    [
        "ole@example.com",
        "o.l-e+x@mail.example.com",
        "ole%40example.com",
        "ole&#64;example.com",
        "ole\\u0040example.com",
    ],
)
def test_an_address_is_taken_out_however_it_is_written(address: str) -> None:
    words = f"user ({address}): unknown, <{address}>, '{address}', to={address}"

    assert without_addresses(words) == "user (…): unknown, <…>, '…', to=…"


@pytest.mark.parametrize("text", ["x" * 1_000_000, "x'" * 500_000, "@" * 1_000_000, "x " * 500_000])
def test_a_long_text_without_an_address_is_read_once(text: str) -> None:
    assert without_addresses(text) == text


def test_the_words_of_a_summary_have_no_address() -> None:
    summary = summary_as_json("end", "ole@example.com.csv", None, None, error="of ole@example.com", exit_code=3)

    assert (summary["manifest"], summary["error"], summary["exit_code"]) == ("…", "of …", 3)


def test_words_without_an_address_stay_as_they_are() -> None:
    words = "valid_from: must be in the past; 12 @ 3, at 14:00"

    assert without_addresses(words) == words


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"paused_at": AT},
        {"workers": (Worker("a"), Worker("b", "no connection", "refused", 4.0, 1.0))},
        {"workers": (Worker("b", "no connection", "refused", 4.0),)},
        {"sending": (RowInProgress(number=4, file="a.pdf", seconds=0.5),)},
        {"last": (RowOutcome(number=1, file="", state=State.WAITING, at=AT, status=None, words="", request_id="a"),)},
    ],
)
def test_it_is_as_its_page_says(changes: dict[str, Any]) -> None:
    assert faults_of(as_json(status(**changes)), "status") == []
