"""What calamine does not say of a sheet: error cells, formulas without a value, merged cells, hidden rows, its size.

calamine reads a cell that shows ``#N/A`` as an empty one, and likewise a formula that no spreadsheet has computed, and
all but the first of merged cells. An empty ``valid_until`` has a meaning of its own, so such cells are looked for in
the file itself. And a sheet is measured before it is read: calamine takes memory for all cells up to the last one, and
a stray one may be in row 1048576.
"""

from array import array
from collections.abc import Iterator

from attrs import Factory, define, frozen

MAX_CELLS = 40_000_000
"""Of a sheet, up to its last row and column that have a value: they take about 2 GB of memory."""

_MAX_COLUMNS = 16_384  # of a sheet
_ERRORS = ("#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NUM!", "#NULL!", "#ERROR!")


class BadPartError(Exception):
    """A part of a workbook is missing, or is not what it should be; its text says which."""


@frozen
class Merged:
    """Cells of several rows that are merged; the numbers of its first and last rows and columns begin with 1."""

    top: int
    bottom: int
    left: int
    right: int


@define(eq=False)
class SheetFacts:
    """What was found in a sheet.

    Attributes:
        height: the number of its last row that has a value.
        width: the number of its last column that has one.
        hidden_rows: how many of its rows a filter or a person has hidden.
        uncomputed: the first cell with a formula whose value nobody has computed, such as ``C2``; empty if none has.
        merged: the cells that are merged over several rows.
    """

    height: int = 0
    width: int = 0
    hidden_rows: int = 0
    uncomputed: str = ""
    merged: list[Merged] = Factory(list)
    _errors: "array[int]" = Factory(lambda: array("Q"))  # eight bytes each: there may be one in each row

    @property
    def is_too_large(self) -> bool:
        """Whether it has more than `MAX_CELLS`."""
        return self.height * self.width > MAX_CELLS

    def add_error(self, row: int, column: int, shown: str) -> None:
        """Note an error cell; both numbers begin with 1."""
        kind = _ERRORS.index(shown) if shown in _ERRORS else len(_ERRORS) - 1
        self._errors.append(((row - 1) * _MAX_COLUMNS + column - 1) * len(_ERRORS) + kind)

    def add_uncomputed(self, row: int, column: int) -> None:
        """Note a formula without a value; both numbers begin with 1."""
        self.uncomputed = self.uncomputed or f"{column_name(column)}{row}"

    def add_merged(self, top: int, bottom: int, left: int, right: int) -> None:
        """Note merged cells, unless all of them are in one row."""
        if bottom > top:
            self.merged.append(Merged(top, bottom, left, right))

    def errors(self) -> Iterator[tuple[int, int, str]]:
        """Yield the row, the column (both from 1) and the text of each error cell, by row."""
        for packed in sorted(self._errors):
            place, kind = divmod(packed, len(_ERRORS))
            row, column = divmod(place, _MAX_COLUMNS)
            yield row + 1, column + 1, _ERRORS[kind]


def column_name(number: int) -> str:
    """Return the letters of a column: ``A`` for 1."""
    name = ""
    while number:
        number, rest = divmod(number - 1, 26)
        name = chr(ord("A") + rest) + name
    return name


def column_number(name: str) -> int:
    """Return the number of a column: 1 for ``A``."""
    number = 0
    for letter in name:
        number = number * 26 + ord(letter) - ord("A") + 1
    return number
