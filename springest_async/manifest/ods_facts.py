"""The facts of the sheets of an ODS."""

from collections.abc import Iterator
from xml.etree.ElementTree import Element, ParseError  # of what defusedxml has parsed
from zipfile import ZipFile

import defusedxml.ElementTree

from springest_async.manifest.sheet_facts import BadPartError, SheetFacts

_CONTENT = "content.xml"
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_DAY_ZERO = "1899-12-30"
_CELLS = {f"{_TABLE}table-cell", f"{_TABLE}covered-table-cell"}


class OdsFacts:
    """Knows the sheets of an ODS.

    Attributes:
        counts_from_1904: whether its numbers of days count from there, or from another day that is not Excel's.
        sheets: the name of each sheet, and what was found in it.

    Raises:
        BadPartError: when it is damaged.
    """

    def __init__(self, archive: ZipFile) -> None:
        self.counts_from_1904 = False
        self.sheets: list[tuple[str, SheetFacts]] = []
        try:
            with archive.open(_CONTENT) as stream:
                self._read(defusedxml.ElementTree.iterparse(stream, ("start", "end")))
        except KeyError:
            raise BadPartError(f"it has no {_CONTENT}") from None
        except (ParseError, ValueError):
            raise BadPartError(f"{_CONTENT} is not valid") from None

    def facts(self, index: int) -> SheetFacts:
        """Return what was found in a sheet; the first one has the index 0."""
        return self.sheets[index][1]

    def _read(self, events: Iterator[tuple[str, Element]]) -> None:
        tables = 0  # one within another
        number = 1  # of the next row
        parents: list[Element] = []
        for event, element in events:
            is_start = event == "start"
            if is_start:
                parents.append(element)
            else:
                parents.pop()
            if element.tag == f"{_TABLE}table":
                tables += 1 if is_start else -1
                if is_start and tables == 1:
                    self.sheets.append((element.get(f"{_TABLE}name", ""), SheetFacts()))
                    number = 1
            elif element.tag == f"{_TABLE}null-date":
                self.counts_from_1904 = element.get(f"{_TABLE}date-value", _DAY_ZERO) != _DAY_ZERO
            elif element.tag == f"{_TABLE}table-row" and tables == 1 and not is_start:
                number += _look_at(element, number, self.sheets[-1][1])
                parents[-1].remove(element)


def _look_at(row: Element, number: int, facts: SheetFacts) -> int:
    """Look at a row, and return how many times it is repeated."""
    repeated = int(row.get(f"{_TABLE}number-rows-repeated", "1"))
    column = 1
    for cell in row:
        if cell.tag not in _CELLS:
            continue
        columns = int(cell.get(f"{_TABLE}number-columns-repeated", "1"))
        text = cell.findtext(f"{_TEXT}p") or ""
        kind = cell.get(f"{_OFFICE}value-type")
        formula = cell.get(f"{_TABLE}formula")
        if (rows := cell.get(f"{_TABLE}number-rows-spanned", "1")) != "1":
            right = column + int(cell.get(f"{_TABLE}number-columns-spanned", "1")) - 1
            facts.add_merged(number, number + int(rows) - 1, column, right)
        if kind or text or formula:
            facts.height = max(facts.height, number + repeated - 1)
            facts.width = max(facts.width, column + columns - 1)
        if formula is not None:
            if kind is None and cell.find(f"{_TEXT}p") is None:  # an empty text has an empty paragraph
                facts.add_uncomputed(number, column)
            elif _is_error(cell, kind, text) and not facts.is_too_large:
                for one in range(repeated * columns):
                    facts.add_error(number + one // columns, column + one % columns, text)
        column += columns
    if row.get(f"{_TABLE}visibility") in {"filter", "collapse"} and facts.height >= number:
        facts.hidden_rows += repeated
    return repeated


def _is_error(cell: Element, kind: str | None, text: str) -> bool:
    """Return whether a formula has no value but an error: OpenOffice writes a number 0, LibreOffice an empty text."""
    has_no_value = kind in {None, "string"} and not cell.get(f"{_OFFICE}string-value")
    is_zero = kind == "float" and cell.get(f"{_OFFICE}value") in {"0", "NaN"}
    return (has_no_value or is_zero) and text.startswith(("#", "Err:"))
