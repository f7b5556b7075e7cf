"""Ids as spreadsheets leave them: without their leading zeros, with separators in them, or rounded."""

import re
import unicodedata

_PLAIN = re.compile(r"([0-9]+)(?:[.,]0{1,2})?")
_GROUPED = re.compile(r"([0-9]{1,3}(?:(?P<separator>[.,' \u2019])[0-9]{3})(?:(?P=separator)[0-9]{3})*)(?:[.,]0{1,2})?")
_ROUNDED = re.compile(r"[0-9]([.,][0-9]+)?[Ee]\+?[0-9]+")

_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u00b4`", "'"))
_NOTHING = """
    #n/a #nv #n/b #ref! #verw! #bezug! #name? #naam? #nom? #value! #waarde! #wert! #valeur! #div/0! #null!
    n/a n.a. nvt n.v.t. k.a. - -- ? null none nan 0 unknown onbekend unbekannt inconnu
"""
_SAYS_NOTHING = frozenset(_NOTHING.split())


def comparable(text: str) -> str:
    """Return what of an id or a name is compared: without its case, and each run of spaces as one."""
    return " ".join(unicodedata.normalize("NFC", text).translate(_APOSTROPHES).casefold().split())


def says_nothing(text: str) -> bool:
    """Return whether a cell, as it is compared, stands for no value: empty, ``n/a``, or an error of a formula."""
    return not text or text in _SAYS_NOTHING


def number_of(text: str) -> str | None:
    """Return the digits of an id that a spreadsheet may have taken for a number; None if it is no whole number.

    "0012", "12", "12.0" and "12,00" are one number, and so are "1,234", "1.234" and "1 234".
    """
    found = _PLAIN.fullmatch(text) or _GROUPED.fullmatch(text)
    return (re.sub("[^0-9]", "", found[1]).lstrip("0") or "0") if found else None


def is_rounded(text: str) -> bool:
    """Return whether a cell is a long number as a spreadsheet shortens it, such as 1.23457E+11."""
    return _ROUNDED.fullmatch(text) is not None
