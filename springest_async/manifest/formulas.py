"""Escape cells that a spreadsheet would run as a formula, and undo it exactly.

A spreadsheet runs a name such as ``=HYPERLINK(…)`` when it opens a CSV. OWASP's page "CSV Injection" lists the
characters that begin a formula, and the separators: a spreadsheet that splits at ``;`` may find the start of a cell in
the middle of ours. Each such place gets an apostrophe, as in the spreadsheet itself.
"""

import re

# The characters that begin a formula, also in full width, after characters that some spreadsheets skip.
_FORMULA = r"""(?=['"\s\x00-\x1f]*[=+\-@＝＋－＠])"""  # noqa: RUF001 # intended
_BEGINNING = r"(?:^|(?<=[,;\t\r\n]))"
_BLANK = r"(?='*[\t\r\n])"  # at the start of a cell only; in the middle they are separators

_ESCAPE = re.compile(rf"{_BEGINNING}{_FORMULA}|^{_BLANK}")
_UNESCAPE = re.compile(rf"{_BEGINNING}'{_FORMULA}|^'{_BLANK}")


def escape(cell: str) -> str:
    """Put an apostrophe before each place in a cell where a formula could begin."""
    return _ESCAPE.sub("'", cell)


def unescape(cell: str) -> str:
    """Undo `escape`."""
    return _UNESCAPE.sub("", cell)
