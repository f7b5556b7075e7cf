"""Matching many rows with what Springest lists takes no more work for each than matching few."""

from datetime import date

import pytest

from springest_async.bulk.temporary import TemporaryDatabase
from springest_async.journal.comparison import ComparedRow
from springest_async.journal.records import State
from springest_async.reports import matching, springest_lists
from springest_async.reports.matching import Kind
from springest_async.reports.springest_lists import person_of

_LATER = 10**15  # microseconds since 1970


def _row(number: int) -> ComparedRow:
    return ComparedRow(
        looks=b"%d" % number,
        state=State.STORED,
        id=number,
        number=number,
        file="a.pdf",
        certification_id=7,
        email=f"employee{number}@example.org",
        valid_from="2026-01-31",
        valid_until=None,
        certificate=number,
        springest_id=10**9 + number,
        attempt=f"attempt {number}",
        sent_at=_LATER,
        settled_at=_LATER,
        budget="",
        confirmed=True,
    )


def _as_listed(row: ComparedRow, kind: Kind) -> tuple[object, ...]:
    """Return a listed certificate: that of a row, one with other dates, or one of somebody else and another day."""
    if kind is Kind.MISSING:
        return row.number, b"?", person_of(f"x{row.number}@example.org"), "x@example.org", "2025-01-31", _LATER
    looks = row.looks if kind is Kind.SHOWN else b"?"
    return row.number, looks, person_of(row.email), row.email, row.valid_from, _LATER


def _work(count: int, kind: Kind) -> int:
    """Match so many rows that become of one kind, and return how many thousand instructions SQLite needed for that."""
    work = 0

    def count_work() -> int:
        nonlocal work
        work += 1
        return 0

    with TemporaryDatabase(*springest_lists.TABLES, *matching.TABLES) as database:
        rows = [_row(number) for number in range(1, count + 1)]
        matching.add_rows(database, rows)
        lines = [(row.certificate, row.attempt, 1) for row in rows]
        database.change("INSERT INTO before VALUES (?, ?, ?)", lines)
        # One that is known by its id, so that the others may be certainly missing.
        database.change("INSERT INTO others VALUES (0, 0, NULL, 0)")
        database.change("INSERT INTO listed (id, certification, owner) VALUES (0, 7, NULL)")
        database.change("INSERT INTO certifications (id, complete, shown) VALUES (7, 1, 1)")
        database.change(
            "INSERT INTO listed (id, looks, person, certification, email, valid_from, created)"
            " VALUES (?, ?, ?, 7, ?, ?, ?)",
            [_as_listed(row, kind) for row in rows],
        )
        database._open().set_progress_handler(count_work, 1000)
        matching.match(database, date.min, by_person=False, budget="")
        assert matching.counts(database)[kind] == count
    return work


@pytest.mark.parametrize("kind", [Kind.SHOWN, Kind.OTHER_DATES, Kind.MISSING])
def test_the_work_grows_as_the_rows_do(kind: Kind) -> None:
    assert _work(4000, kind) < 6 * _work(1000, kind)
