"""Write rows as a CSV beside a manifest: with its separator, and in UTF-8."""

import csv
import io
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import IO, Self

from attrs import frozen

from springest_async.manifest.csv_table import SEPARATORS, CsvTable
from springest_async.manifest.formulas import escape
from springest_async.manifest.table import Table


@frozen
class CsvForm:
    """How a CSV is written; by default as Excel does in most of Springest's countries.

    Attributes:
        separator: what stands between two cells.
        encoding: Python's name of it; Excel reads UTF-8 for certain only behind a byte order mark.
    """

    separator: str = ";"
    encoding: str = "utf-8-sig"

    @classmethod
    def beside(cls, table: Table) -> Self:
        """Return the form for a file beside this one: the same if it is a CSV, but always in UTF-8."""
        if not isinstance(table, CsvTable):
            return cls()
        separator = table.separator if table.separator in SEPARATORS else ";"
        return cls(separator, "utf-8" if table.encoding == "utf-8" and not table.bom else "utf-8-sig")


@contextmanager
def csv_rows(stream: IO[bytes], form: CsvForm) -> Generator[Callable[[Iterable[str]], object], None, None]:
    """Yield what writes a row; a cell that a spreadsheet would run as a formula gets an apostrophe in front."""
    text = io.TextIOWrapper(stream, form.encoding, errors="backslashreplace", newline="")
    try:
        writer = csv.writer(text, delimiter=form.separator)
        yield lambda cells: writer.writerow(map(escape, cells))
        text.flush()
    finally:
        text.detach()
