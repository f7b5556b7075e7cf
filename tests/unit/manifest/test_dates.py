"""Dates in the forms of spreadsheets and of other systems, and what is none."""

from contextlib import suppress
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from springest_async.manifest.dates import (
    DateOrder,
    NoDateError,
    is_ambiguous,
    is_never,
    may_be_swapped,
    proves,
    read_date,
)

FOURTH_OF_MARCH = date(2026, 3, 4)


@pytest.mark.parametrize(
    "cell",
    [
        "2026-03-04",
        "2026-3-4",
        "2026/03/04",
        "2026.03.04",
        "04-03-2026",
        "4-3-2026",
        "04.03.2026",
        "4.3.2026",
        "2026-03-04 09:41:00 -0500",
        "2026-03-04T00:00",
        "2026-03-04T09:41:00.123Z",
        "2026-03-04 09:41 UTC",
        "04-03-2026 9:41:00 PM",
        "04-MAR-2026",
        "4 March 2026",
        "4th Mar. 2026",
        "March 4, 2026",
        "Mar 4th 26",
        "4 maart 2026",
        "4 mrt. 2026",
        "4. März 2026",
        "4. Mrz. 2026",
        "4. Ma\u0308rz 2026",
        "4 mars 2026",
        "4/Mar/2026 09:41",
        "4 March 2026, 9:41 AM",
        "Wednesday, 4 March 2026, 9:41 AM",
        "Wednesday, March 4, 2026",
        "woensdag, 4 maart 2026, 09:41",
        "Mittwoch, 4. März 2026, 09:41",
        "mercredi 4 mars 2026, 09:41",
        "4\xa0March\xa02026",
        "2026-03-04 22:30 UTC",
    ],
)
def test_a_date_with_one_meaning_is_read(cell: str) -> None:
    assert read_date(cell) == FOURTH_OF_MARCH
    assert read_date(cell, "mdy") == FOURTH_OF_MARCH
    assert not is_ambiguous(cell)


@pytest.mark.parametrize(
    ("cell", "month"),
    [
        ("1er janv. 2026", 1),
        ("1 Jänner 2026", 1),
        ("1 févr. 2026", 2),
        ("1 avril 2026", 4),
        ("1 mei 2026", 5),
        ("1. Mai 2026", 5),
        ("1 juin 2026", 6),
        ("1 juil. 2026", 7),
        ("1 aout 2026", 8),
        ("1 AOÛT 2026", 8),
        ("1 Sept 2026", 9),
        ("1 okt 2026", 10),
        ("1. Dez. 2026", 12),
        ("1 déc. 2026", 12),
    ],
)
def test_months_have_names_in_four_languages(cell: str, month: int) -> None:
    assert read_date(cell) == date(2026, month, 1)


@pytest.mark.parametrize(
    ("cell", "order", "meant"),
    [
        ("05/06/2026", "dmy", date(2026, 6, 5)),
        ("05/06/2026", "mdy", date(2026, 5, 6)),
        ("5/6/26 10:30 PM", "mdy", date(2026, 5, 6)),
        ("31/12/1999 00:00:00", "dmy", date(1999, 12, 31)),
        ("1/2/29", "dmy", date(2029, 2, 1)),
    ],
)
def test_slashes_are_read_in_the_order_that_is_known(cell: str, order: DateOrder, meant: date) -> None:
    assert is_ambiguous(cell)
    assert read_date(cell, order) == meant


def test_the_same_number_twice_needs_no_order() -> None:
    assert read_date("05/05/2026") == date(2026, 5, 5)
    assert not is_ambiguous("05/05/2026")


@pytest.mark.parametrize(
    ("cell", "swapped"),
    [("05-06-2026", True), ("5.6.2026", True), ("13-06-2026", False), ("6-6-2026", False), ("2026-05-06", False)],
)
def test_a_day_of_twelve_at_most_may_be_a_month(cell: str, swapped: bool) -> None:
    assert may_be_swapped(cell) is swapped


@pytest.mark.parametrize("cell", ["05/06/2026", "31/12/2026", "12/31/2026"])
def test_slashes_are_never_guessed(cell: str) -> None:
    with pytest.raises(NoDateError, match="can be read in two ways"):
        read_date(cell)


@pytest.mark.parametrize(
    ("cell", "order"),
    [
        ("31/12/2026", "dmy"),
        ("31/12/45", "dmy"),
        ("31/12/25", None),  # it may begin with the year
        ("12/31/26 10:00", "mdy"),
        ("12/12/2026", None),
        ("32/12/2026", None),
        ("13/13/2026", None),
        ("31-12-2026", None),
        ("31/12/2026" + " " * 100, None),
    ],
)
def test_a_number_over_twelve_proves_the_order(cell: str, order: DateOrder | None) -> None:
    assert proves(cell) == order


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("2026-02-29", "there is no 29 February 2026"),
        ("31-13-2026", "there is no month 13"),
        ("31 Feb 2026", "there is no 31 February 2026"),
        ("0000-01-01", "there is no 1 January 0000"),
        ("1 May 30", "has a year of two digits that may be of either century: write all four"),
        (
            "2025-12-31T23:00Z",
            "'2025-12-31T23:00Z' is midnight of the next day in Europe: write the day that is meant, without a time",
        ),
        ("2026-01-01 99:99", "must be a date such as 2026-12-31 or 31-12-2026, not '2026-01-01 99:99'"),
        ("4 foo 2026", "must be a date such as 2026-12-31 or 31-12-2026, not '4 foo 2026'"),
        ("4-3.2026", "must be a date such as 2026-12-31 or 31-12-2026, not '4-3.2026'"),
        ("2026-W10-3", "must be a date such as 2026-12-31 or 31-12-2026, not '2026-W10-3'"),
        ("2026-03-04 noon", "must be a date such as 2026-12-31 or 31-12-2026, not '2026-03-04 noon'"),
    ],
)
def test_what_is_no_date_is_said(cell: str, reason: str) -> None:
    with pytest.raises(NoDateError) as caught:
        read_date(cell)

    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("cell", "never"), [("NEVER", True), ("nie", True), ("jamais", True), ("", False), ("no", False)]
)
def test_never_is_said_in_four_languages(cell: str, never: bool) -> None:
    assert is_never(cell) is never


@given(st.dates(min_value=date(1000, 1, 1)))
def test_what_python_writes_is_read_as_it_was_meant(day: date) -> None:
    assert read_date(day.isoformat()) == read_date(f"{day:%d-%m-%Y}") == read_date(f"{day:%d %B %Y}") == day
    assert read_date(f"{day:%d/%m/%Y}", "dmy") == read_date(f"{day:%m/%d/%Y}", "mdy") == day
    assert proves(f"{day:%d/%m/%Y}") == ("dmy" if day.day > 12 else None)


@given(st.text(max_size=60))
def test_any_text_is_a_date_or_none(cell: str) -> None:
    with suppress(NoDateError):
        assert read_date(cell, "dmy").year >= 1


@pytest.mark.parametrize("cell", ["46085", "46085.5", "46085.99999"])
def test_a_number_of_a_day_is_a_date_in_a_workbook(cell: str) -> None:
    assert read_date(cell, day_numbers=True) == FOURTH_OF_MARCH
    with pytest.raises(NoDateError):
        read_date(cell)


@pytest.mark.parametrize("cell", ["2026", "19999", "70000", "20260304", "46085.", "-46085", "46085 "])
def test_other_numbers_are_no_dates_in_a_workbook(cell: str) -> None:
    with pytest.raises(NoDateError):
        read_date(cell, day_numbers=True)
