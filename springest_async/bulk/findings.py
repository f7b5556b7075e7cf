"""What a check of a manifest finds: each finding is of a kind, which says how serious it is."""

import enum

from attrs import frozen


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
    ORDER = ("order", Severity.WARNING, "rows that end before they begin")
    CONVERSION = ("conversion", Severity.WARNING, "rows that may set a participation to done")
    UNUSED_COLUMN = ("unused-column", Severity.WARNING, "columns that are not sent")
    ENCODING = ("encoding", Severity.WARNING, "letters that may have been read wrongly")

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
