"""Ids and names, found also as spreadsheets leave them: without leading zeros, with separators in them.

What was not found, or belongs to several, is for the caller to say.
"""

import re
import unicodedata
from collections.abc import Mapping

from springest_async.manifest.nearest import Nearest

_PLAIN = re.compile(r"([0-9]+)(?:[.,]0{1,2})?")
_GROUPED = re.compile(r"([0-9]{1,3}(?:(?P<separator>[.,' \u2019])[0-9]{3})(?:(?P=separator)[0-9]{3})*)(?:[.,]0{1,2})?")
_ROUNDED = re.compile(r"[0-9]([.,][0-9]+)?[Ee]\+[0-9]+")

_MOST_MEANT = 10  # for one id or name, of which two are too many

MERGED = "(merged with the cell above)"
"""The text of a cell of a workbook that has no text of its own, because it is merged with the one above."""

_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u00b4`", "'"))
_ERROR = re.compile(r"#[^\W1-9]+(?:/[^\W1-9]+)?[!?]?|err:[0-9]+")  # #N/A, #DIV/0!, #NAAM? in any language, Err:502
_NOTHING = """
    n/a n.a. nvt n.v.t. k.a. n/b - -- ? null none nan 0 unknown onbekend unbekannt inconnu
"""
_SAYS_NOTHING = frozenset(_NOTHING.split())


def comparable(text: str) -> str:
    """Return what of an id or a name is compared: without its case, and each run of spaces as one."""
    return " ".join(unicodedata.normalize("NFC", text).translate(_APOSTROPHES).casefold().split())


def says_nothing(text: str) -> bool:
    """Return whether a cell, as it is compared, stands for no value: empty, ``n/a``, or an error of a formula."""
    return not text or text in _SAYS_NOTHING or text == MERGED or is_error(text)


def is_error(text: str) -> bool:
    """Return whether a cell, as it is compared, is the error of a formula, such as ``#n/a`` or ``#bezug!``."""
    return text[:1] in ("#", "e") and _ERROR.fullmatch(text) is not None


def number_of(text: str) -> str | None:
    """Return the digits of an id that a spreadsheet may have taken for a number; None if it is no whole number.

    "0012", "12", "12.0" and "12,00" are one number, and so are "1,234", "1.234" and "1 234".
    """
    found = _PLAIN.fullmatch(text) or _GROUPED.fullmatch(text)
    return (re.sub("[^0-9]", "", found[1]).lstrip("0") or "0") if found else None


def is_rounded(text: str) -> bool:
    """Return whether a cell is a long number as a spreadsheet shortens it, such as 1.23457E+11."""
    return _ROUNDED.fullmatch(text) is not None


class Ids:
    """What each id or name can stand for; each of these things is known by a number of the caller's."""

    def __init__(self) -> None:
        self._by_text: dict[str, int | tuple[int, ...]] = {}
        self._by_number: dict[str, int | tuple[int, ...]] = {}  # those that are not written as the number that they are
        self._nearest = Nearest(self._by_text)

    def add(self, key: str, meant: int) -> None:
        """Add an id or a name.

        Args:
            key: as `comparable` returns it. One that says nothing, or was shortened, is passed over.
            meant: what it can stand for.
        """
        if says_nothing(key) or is_rounded(key):
            return
        _add(self._by_text, key, meant)
        if (digits := number_of(key)) is not None and digits != key:
            _add(self._by_number, digits, meant)

    def find(self, key: str) -> set[int]:
        """Return what an id or a name can stand for; if that is a great many things, some of them.

        A number with zeros in front is taken as it is, if it is known. Any other number may have lost some.
        """
        found = set(_all(self._by_text, key))
        if (digits := number_of(key)) is None or says_nothing(key) or (found and key.isdigit() and key != digits):
            return found
        return found.union(_all(self._by_text, digits), _all(self._by_number, digits))

    def nearest(self, key: str) -> tuple[str, int] | None:
        """Return the nearest id or name, and the first that it stands for; None if none is near."""
        near = self._nearest.to(key)
        return None if near is None else (near, _all(self._by_text, near)[0])


def _all(index: Mapping[str, int | tuple[int, ...]], key: str) -> tuple[int, ...]:
    meant = index.get(key, ())
    return meant if isinstance(meant, tuple) else (meant,)


def _add(index: dict[str, int | tuple[int, ...]], key: str, meant: int) -> None:
    earlier = _all(index, key)
    if not earlier:
        index[key] = meant  # without a tuple around it, which would take as much memory as all else here
    elif meant not in earlier and len(earlier) < _MOST_MEANT:
        index[key] = (*earlier, meant)
