"""The log of findings: counts, the first of each kind, all of them by row, and the rows that cannot be sent."""

import tracemalloc
from collections.abc import Iterator

import pytest

from springest_async.bulk.findings import FIRST, Finding, FindingLog, Kind, Severity
from springest_async.bulk.rows import RowSet


@pytest.fixture
def log() -> Iterator[FindingLog]:
    with FindingLog() as log:
        yield log


def missing(row: int) -> Finding:
    return Finding(Kind.NO_FILE, row, "file", f"there is no such file: {row}.pdf")


def test_each_kind_has_a_name_of_its_own() -> None:
    assert len({kind.slug for kind in Kind}) == len(Kind)
    assert len({kind.heading for kind in Kind}) == len(Kind)


def test_log_counts_by_kind_and_by_severity(log: FindingLog) -> None:
    for finding in (missing(2), missing(3), Finding(Kind.YEAR, 3, "valid_from", "is in the year 0025")):
        log.add(finding)
    assert log.counts == {Kind.NO_FILE: 2, Kind.YEAR: 1}
    assert [log.count(severity) for severity in Severity] == [2, 1, 0]


def test_log_has_the_first_of_each_kind_by_row(log: FindingLog) -> None:
    year = Finding(Kind.YEAR, 1, "valid_from", "is in the year 0025")
    for finding in (*map(missing, range(100, 40, -1)), year, *map(missing, range(101, 120))):
        log.add(finding)
    assert log.first(Kind.NO_FILE) == tuple(missing(row) for row in range(41, 41 + FIRST))
    assert log.first(Kind.YEAR) == (year,)
    assert log.first(Kind.TWICE) == ()


def test_log_yields_all_by_row_however_they_came(log: FindingLog) -> None:
    rows = [2 + n * 7919 % 2600 for n in range(2600)]  # each once, in a wild order, and more than are written at once
    for row in rows:
        log.add(missing(row))
    later = Finding(Kind.TWICE, 2, "file", "is the same certificate as in row 9")
    log.add(later)
    found = list(log)
    assert found == [missing(2), later, *(missing(row) for row in sorted(rows)[1:])]
    assert log.of_row(2) == (missing(2), later)


def test_log_knows_the_faulty_rows_and_why(log: FindingLog) -> None:
    for finding in (
        Finding(Kind.PASSWORD, 3, "file", "is protected by a password"),
        missing(4),
        Finding(Kind.CELL, 4, "", "has more cells than there are columns"),
        Finding(Kind.YEAR, 4, "valid_from", "is in the year 0025"),
    ):
        log.add(finding)
    assert list(log.faulty) == [4]
    assert (3 in log.faulty, 4 in log.faulty, 4_000_000 in log.faulty) == (False, True, False)
    assert log.reasons(4) == "file: there is no such file: 4.pdf; has more cells than there are columns"
    assert log.reasons(4, title={"file": "Bestand"}.__getitem__).startswith("Bestand: there is no such file")
    assert log.reasons(3) == log.reasons(5) == ""


def test_faulty_rows_are_known_after_the_log_is_closed() -> None:
    with FindingLog() as log:
        log.add(missing(2))
    assert 2 in log.faulty


def test_log_keeps_names_that_are_no_unicode(log: FindingLog) -> None:
    log.add(Finding(Kind.NO_FILE, 2, "file", "there is no such file: 'caf\udce9.pdf'"))
    (found,) = log
    assert found.reason == r"there is no such file: 'caf\udce9.pdf'"


def test_memory_of_a_log_does_not_grow() -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        with FindingLog() as log:
            for row in range(count):
                log.add(missing(row))
            assert sum(1 for _ in log) == count
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    # 16 000 findings more, of more than a hundred bytes each.
    assert peak(20_000) < peak(4_000) + 500_000


def test_row_set_counts_each_row_once() -> None:
    rows = RowSet()
    for row in (17, 2, 17, 1_000_000):
        rows.add(row)
    assert list(rows) == [2, 17, 1_000_000]
    assert len(rows) == 3
    assert (0 in rows, 16 in rows, 17 in rows, 2_000_000 in rows) == (False, False, True, False)
