"""Cells that a spreadsheet would run as a formula, made to be taken for text, and taken back exactly.

A name such as ``=HYPERLINK(…)`` in a CSV is run by whoever opens it. OWASP's page "CSV Injection" names the characters
that begin a formula, and the separators: a spreadsheet that splits at ``;`` finds the beginning of a cell in the middle
of one of ours. An apostrophe stands before each such place, as in a spreadsheet itself.
"""

import re

__all__ = ["escape", "unescape"]

# What a formula begins with, also in full width, behind what some spreadsheet may pass over.
_FORMULA = r"""(?=['"\s\x00-\x1f]*[=+\-@＝＋－＠])"""  # noqa: RUF001 # they are meant
_BEGINNING = r"(?:^|(?<=[,;\t\r\n]))"
_BLANK = r"(?='*[\t\r\n])"  # at the beginning of the cell only: in the middle they are separators

_ESCAPE = re.compile(rf"{_BEGINNING}{_FORMULA}|^{_BLANK}")
_UNESCAPE = re.compile(rf"{_BEGINNING}'{_FORMULA}|^'{_BLANK}")


def escape(cell: str) -> str:
    """Put an apostrophe before each place in a cell where a formula could begin."""
    return _ESCAPE.sub("'", cell)


def unescape(cell: str) -> str:
    """Give the cell that `escape` was given."""
    return _UNESCAPE.sub("", cell)
