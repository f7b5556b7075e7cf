"""What a check of a manifest finds: each finding is of a kind, which says how serious it is; a log keeps all of them.

The log has a temporary database, so that a million findings need no more memory than a hundred. Nothing is printed.
"""

import enum
from bisect import insort
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from types import TracebackType
from typing import Self

from attrs import frozen

from springest_async.bulk.rows import RowSet
from springest_async.bulk.temporary import TemporaryDatabase


class Severity(enum.Enum):
    """How serious a finding is."""

    FAULT = "fault"  # the row cannot be sent
    WARNING = "warning"  # the row can be sent, but may not be what was meant
    NOTE = "note"  # nothing to worry about


class Kind(enum.Enum):
    """The kinds of findings: a name for scripts, how serious it is, and a heading for people."""

    def __init__(self, slug: str, severity: Severity, heading: str) -> None:
        self.slug = slug
        self.severity = severity
        self.heading = heading

    CELL = ("cell", Severity.FAULT, "cells that are missing or cannot be read")
    DATE = ("date", Severity.FAULT, "dates that cannot be read")
    EMAIL = ("email", Severity.FAULT, "email addresses that are invalid")
    USER = ("user", Severity.FAULT, "people whose email address is not known")
    CERTIFICATION = ("certification", Severity.FAULT, "certifications that do not exist")
    END_REQUIRED = (
        "valid-until-required",
        Severity.FAULT,
        "rows without the valid_until that their certification needs",
    )
    WRONG_FOLDER = ("wrong-folder", Severity.FAULT, "no file was found: the folder of the files may be another one")
    NO_FILE = ("no-file", Severity.FAULT, "files that do not exist")
    UNREADABLE = ("unreadable-file", Severity.FAULT, "files that cannot be read")
    NO_PDF = ("no-pdf", Severity.FAULT, "files that are not PDFs")
    TWICE = ("twice", Severity.FAULT, "rows with the same certificate as another row")

    SHARED_PDF = ("shared-pdf", Severity.WARNING, "PDFs that several people would get")
    TWO_PDFS = ("two-pdfs", Severity.WARNING, "people with two PDFs for one certification and date")
    PASSWORD = ("password", Severity.WARNING, "PDFs that are protected by a password")
    CUT_OFF = ("cut-off", Severity.WARNING, "PDFs that may be cut off")
    NO_PAGES = ("no-pages", Severity.WARNING, "PDFs without pages, or with empty ones")
    OTHER_CONTENT = ("other-content", Severity.WARNING, "PDFs with other content before or after them")
    YEAR = ("year", Severity.WARNING, "years that can hardly be meant")
    DATE_ORDER = ("date-order", Severity.WARNING, "columns of dates that begin with the day and with the month")
    ORDER = ("order", Severity.WARNING, "rows that end before they begin")
    CONVERSION = ("conversion", Severity.WARNING, "rows that may set a participation to done")
    UNUSED_COLUMN = ("unused-column", Severity.WARNING, "columns that are not sent")
    ENCODING = ("encoding", Severity.WARNING, "letters that may have been read wrongly")

    OTHER_COLUMN = ("other-column", Severity.NOTE, "columns that springest does not use")
    TITLE_ROWS = ("title-rows", Severity.NOTE, "rows above the names of the columns")
    FIXED_NAME = ("fixed-name", Severity.NOTE, "files that were found under another name")


@frozen
class Finding:
    """What was found in one place of a manifest; `row` is as in the spreadsheet, and `column` a column of ours."""

    kind: Kind
    row: int
    column: str
    reason: str

    @property
    def is_fault(self) -> bool:
        """Whether the row cannot be sent."""
        return self.kind.severity is Severity.FAULT

    def __str__(self) -> str:
        place = f"row {self.row}" + (f", {self.column}" if self.column else "")
        return f"{place}: {self.reason}"


FIRST = 5
"""How many findings of each kind a log has at hand."""

_AT_ONCE = 1000  # findings that are written together

_TABLE = (
    "CREATE TABLE findings (row INTEGER, number INTEGER, kind TEXT, place TEXT, reason TEXT, PRIMARY KEY (row, number))"
    " WITHOUT ROWID"
)


_OF_FILES = {Kind.NO_FILE, Kind.UNREADABLE, Kind.NO_PDF, Kind.WRONG_FOLDER}


class FindingLog:
    """All findings of a check, in bounded memory.

    Usage::

        with FindingLog() as log:
            log.add(finding)
            print(log.counts[Kind.NO_FILE], log.first(Kind.NO_FILE))

    One thread may add findings and another may read them later, but not both at once. It lasts as long as the ``with``
    (see `TemporaryDatabase`).

    Attributes:
        counts: how many findings there are of each kind.
        faulty: the rows that cannot be sent.
        faulty_anywhere: those of them that no machine can send: another one may have a better file, but no other row.

    Raises:
        ConfigurationError: from all methods: there is no space left for temporary files.
    """

    def __init__(self) -> None:
        self.counts: Counter[Kind] = Counter()
        self.faulty = RowSet()
        self.faulty_anywhere = RowSet()
        self._first: dict[Kind, list[tuple[int, int, Finding]]] = {}
        self._new: list[tuple[int, int, str, str, str]] = []
        self._number = 0
        self._database = TemporaryDatabase(_TABLE)

    def __enter__(self) -> Self:
        self._database.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._database.__exit__(kind, error, traceback)

    def add(self, finding: Finding) -> None:
        """Add a finding, in any order of rows."""
        self._number += 1
        self.counts[finding.kind] += 1
        if finding.is_fault:
            self.faulty.add(finding.row)
            if finding.kind not in _OF_FILES:
                self.faulty_anywhere.add(finding.row)
        self._note_first(finding)
        text = (_storable(finding.column), _storable(finding.reason))
        self._new.append((finding.row, self._number, finding.kind.slug, *text))
        if len(self._new) >= _AT_ONCE:
            self._write()

    def _note_first(self, finding: Finding) -> None:
        first = self._first.setdefault(finding.kind, [])
        if len(first) < FIRST or finding.row < first[-1][0]:
            insort(first, (finding.row, self._number, finding))
            del first[FIRST:]

    def _write(self) -> None:
        self._database.change("INSERT INTO findings VALUES (?, ?, ?, ?, ?)", self._new)
        self._new.clear()

    def first(self, kind: Kind) -> tuple[Finding, ...]:
        """Return the first findings of a kind by row, at most `FIRST`."""
        return tuple(finding for _, _, finding in self._first.get(kind, ()))

    def count(self, severity: Severity) -> int:
        """Return how many findings are as serious as this."""
        return sum(count for kind, count in self.counts.items() if kind.severity is severity)

    def __iter__(self) -> Generator[Finding, None, None]:
        """Yield all findings by row; those of one row as they were added. Close the generator if you stop early."""
        yield from self._select("SELECT row, kind, place, reason FROM findings ORDER BY row, number")

    def of_row(self, row: int) -> tuple[Finding, ...]:
        """Return the findings of a row, as they were added."""
        query = "SELECT row, kind, place, reason FROM findings WHERE row = ? ORDER BY number"
        return tuple(self._select(query, row))

    def reasons(self, row: int, *, title: Callable[[str], str] = str) -> str:
        """Return why a row cannot be sent, as in the column ``error`` of a file of failed rows; empty if it can.

        Args:
            row: its number.
            title: returns how the manifest names a known column.
        """
        return "; ".join(
            f"{title(finding.column)}: {finding.reason}" if finding.column else finding.reason
            for finding in self.of_row(row)
            if finding.is_fault
        )

    def _select(self, query: str, *values: int) -> Iterator[Finding]:
        self._write()
        for row, slug, column, reason in self._database.select(query, *values):
            yield Finding(_KINDS[slug], row, column, reason)


_KINDS = {kind.slug: kind for kind in Kind}


def _storable(text: str) -> str:
    """Return a text without lone surrogates (bytes of a name that are no UTF-8), which SQLite cannot store."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")
