"""Dates as people and their systems write them, which are never guessed.

A date that begins with a year, or names its month, can be read in one way only. With dashes or dots the day comes
before the month. ``05/06/2026`` can be read in two ways; which one is meant must be known from elsewhere (`DateOrder`).
``46022`` is a date only in a workbook, where it is Excel's number of a day.
A time of day behind a date is passed over, unless it may belong to another day: Springest's dates have none.
"""

import re
import unicodedata
from datetime import date, timedelta
from functools import lru_cache
from typing import Literal

from springest_async.records import shown

DateOrder = Literal["dmy", "mdy"]
"""What a date with slashes begins with: the day or the month."""

MUST_BE_A_DATE = "must be a date such as 2026-12-31 or 31-12-2026"

_LONGEST = 50  # characters; a longer cell is no date, and is not remembered

_MONTHS = (
    "january jan januari januar jänner janvier janv",
    "february feb februari februar février fevrier févr fevr fév fev",
    "march mar maart mrt märz maerz mär mrz mars",
    "april apr avril avr",
    "may mei mai",
    "june jun juni juin",
    "july jul juli juillet juil",
    "august aug augustus août aout",
    "september sep sept septembre",
    "october oct oktober okt octobre",
    "november nov novembre",
    "december dec dezember dez décembre decembre déc",
)  # in English, Dutch, German and French
_MONTH_NUMBERS = {name: number for number, names in enumerate(_MONTHS, start=1) for name in names.split()}
_ENGLISH = [names.split()[0].title() for names in _MONTHS]

_NEVER = frozenset(
    "never nooit nie niemals jamais unlimited onbeperkt onbepaald unbegrenzt unbefristet illimité".split()  # noqa: SIM905
)

_TIME = (
    r"(?:,?[T ]+(?:[01]?[0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.,][0-9]+)?)?"
    r"(?: ?[AaPp]\.?[Mm]\.?)?(?: ?(?:Z|UTC|[+-][0-9]{2}:?[0-9]{2}))?)?"
)
# What programs write for midnight in the middle or the west of Europe, where the day is the next one.
_EVENING_IN_UTC = re.compile(r".*[T ]2[23]:00(?::00(?:[.,]0+)?)? ?(?:Z|UTC|[+-]00:?00)")
# In English, Dutch, German and French, as Moodle has them in front; an abbreviated one may be a month.
_WEEKDAY = (
    r"(?:(?i:(?:mon|tues|wednes|thurs|fri|satur|sun)day|(?:maan|dins|woens|donder|vrij|zater|zon)dag"
    r"|montag|dienstag|mittwoch|donnerstag|freitag|samstag|sonnabend|sonntag"
    r"|lundi|mardi|mercredi|jeudi|vendredi|samedi|dimanche),? +)?"
)
_YEAR_FIRST = re.compile(rf"([0-9]{{4}})([-./])([0-9]{{1,2}})\2([0-9]{{1,2}}){_TIME}")
_DAY_FIRST = re.compile(rf"([0-9]{{1,2}})([-.])([0-9]{{1,2}})\2([0-9]{{4}}){_TIME}")
_SLASHES = re.compile(rf"([0-9]{{1,2}})/([0-9]{{1,2}})/([0-9]{{4}}|[0-9]{{2}}){_TIME}")
_NUMBERS = re.compile(rf"([0-9]{{1,2}})[-./]([0-9]{{1,2}})[-./](?:[0-9]{{4}}|[0-9]{{2}}){_TIME}")
_YEAR = r"([0-9]{4}|[0-9]{2})"
_DAY_AND_NAME = re.compile(
    rf"{_WEEKDAY}([0-9]{{1,2}})(?:\.|er|st|nd|rd|th)?[-./ ]+([^\W\d_]{{3,9}})\.?[-./, ]+{_YEAR}{_TIME}"
)
_DAY_NUMBER = re.compile(r"([2-6][0-9]{4})(?:\.[0-9]+)?")  # of the years 1954 to 2091; a fraction is a time of day
_DAY_ZERO = date(1899, 12, 30)
_NAME_AND_DAY = re.compile(rf"{_WEEKDAY}([^\W\d_]{{3,9}})\.?[- ]+([0-9]{{1,2}})(?:st|nd|rd|th)?[-, ]+{_YEAR}{_TIME}")


class NoDateError(ValueError):
    """The cell is no date; its text says why, for people."""


def read_date(cell: str, order: DateOrder | None = None, *, day_numbers: bool = False) -> date:
    """Return the date that is written in a cell.

    Args:
        cell: the text, without spaces around it.
        order: what a date with slashes begins with, if it is known.
        day_numbers: whether a number such as 46022 is Excel's number of a day, as in a workbook.

    Raises:
        NoDateError: it is none, or can be read in two ways.
    """
    if len(cell) > _LONGEST:
        raise NoDateError(f"{MUST_BE_A_DATE}, not {shown(cell)}")
    found = _short_date(cell, order, day_numbers)
    if isinstance(found, str):
        raise NoDateError(found)
    return found


def is_never(cell: str) -> bool:
    """Return whether a cell says in words that there is no such date."""
    return cell.casefold() in _NEVER


def is_ambiguous(cell: str) -> bool:
    """Return whether a date can only be read when its `DateOrder` is known."""
    found = _SLASHES.fullmatch(cell) if len(cell) <= _LONGEST else None
    return found is not None and int(found[1]) != int(found[2])


def may_be_swapped(cell: str) -> bool:
    """Return whether a date with dashes or dots would be another one if its month came first."""
    found = _DAY_FIRST.fullmatch(cell) if len(cell) <= _LONGEST else None
    return found is not None and int(found[1]) <= 12 and int(found[1]) != int(found[3])


def may_be_made_of_another(cell: str) -> bool:
    """Return whether a real date of a spreadsheet may have been typed with day and month the other way round."""
    found = _YEAR_FIRST.fullmatch(cell) if len(cell) <= _LONGEST else None
    return found is not None and int(found[4]) <= 12 and int(found[4]) != int(found[3])


def is_after_day_12(cell: str) -> bool:
    """Return whether a real date of a spreadsheet is none of the first twelve days of a month."""
    found = _YEAR_FIRST.fullmatch(cell) if len(cell) <= _LONGEST else None
    return found is not None and int(found[4]) > 12


def stayed_text(cell: str) -> bool:
    """Return whether a spreadsheet takes this date for text where it expects the other order of day and month."""
    found = _NUMBERS.fullmatch(cell) if len(cell) <= _LONGEST else None
    return found is not None and (int(found[1]) > 12) != (int(found[2]) > 12)


def begins_with_month(cell: str) -> bool:
    """Return whether a date with dashes or dots has its month first for certain, as in 12-31-2026: it is a fault."""
    found = _DAY_FIRST.fullmatch(cell) if len(cell) <= _LONGEST else None
    return found is not None and 1 <= int(found[1]) <= 12 < int(found[3]) <= 31


def proves(cell: str) -> DateOrder | None:
    """Return which order a date with slashes has for certain, because one of its numbers is no month.

    ``26/05/13`` shows nothing: it may begin with the year.
    """
    found = _SLASHES.fullmatch(cell) if len(cell) <= _LONGEST else None
    if found is None:
        return None
    first, second, third = int(found[1]), int(found[2]), int(found[3])
    if 12 < first <= 31 and 1 <= second <= 12 and third > 31:
        return "dmy"
    if 12 < second <= 31 and 1 <= first <= 12:
        return "mdy"
    return None


@lru_cache(maxsize=4096)  # a million rows have a few thousand dates
def _short_date(cell: str, order: DateOrder | None, day_numbers: bool) -> date | str:
    """Return the date, or why it is none."""
    text = unicodedata.normalize("NFC", cell).replace("\xa0", " ")
    if _EVENING_IN_UTC.fullmatch(text):
        return f"{shown(cell)} is midnight of the next day in Europe: write the day that is meant, without a time"
    if found := _YEAR_FIRST.fullmatch(text):
        return _date(int(found[1]), int(found[3]), int(found[4]))
    if found := _DAY_FIRST.fullmatch(text):
        return _date(int(found[4]), int(found[3]), int(found[1]))
    if found := _SLASHES.fullmatch(text):
        if order is None and is_ambiguous(text):
            return f"{shown(cell)} can be read in two ways"
        day, month = (found[2], found[1]) if order == "mdy" else (found[1], found[2])
        return _date(_full_year(found[3]), int(month), int(day))
    if (found := _DAY_AND_NAME.fullmatch(text)) and (month_number := _month(found[2])):
        return _date(_full_year(found[3]), month_number, int(found[1]))
    if (found := _NAME_AND_DAY.fullmatch(text)) and (month_number := _month(found[1])):
        return _date(_full_year(found[3]), month_number, int(found[2]))
    if (found := _DAY_NUMBER.fullmatch(cell)) is None:
        return f"{MUST_BE_A_DATE}, not {shown(cell)}"
    if day_numbers:
        return _DAY_ZERO + timedelta(days=int(found[1]))
    return f"{MUST_BE_A_DATE}, not {shown(cell)} (Excel's number of a day: format the column as dates)"


def _date(year: int | None, month: int, day: int) -> date | str:
    if year is None:
        return "has a year of two digits that may be of either century: write all four"
    try:
        return date(year, month, day)
    except ValueError:
        if not 1 <= month <= 12:
            return f"there is no month {month}"
        return f"there is no {day} {_ENGLISH[month - 1]} {year:04}"


def _month(name: str) -> int | None:
    return _MONTH_NUMBERS.get(name.casefold())


def _full_year(year: str) -> int | None:
    """Return a year; None for one of two digits that programs take for different centuries (Excel: 30 is 1930)."""
    number = int(year)
    if len(year) == 4:
        return number
    return 2000 + number if number < 30 else None
