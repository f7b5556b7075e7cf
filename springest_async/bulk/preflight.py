"""Check a manifest before the first POST, and report every fault with its row, column and reason.

A fault in row 900 000 is found in minutes, and not after three weeks of uploading. Only the first and last 8 KiB of a
file are read, and the whole file only if another row has, or seems to have, the same fields or file. Nothing is sent.
"""

import unicodedata
from collections.abc import Generator, Iterator
from contextlib import closing, suppress

from springest_async.bulk.duplicates import Suspects, duplicates
from springest_async.bulk.findings import Finding, Kind
from springest_async.bulk.pdf import Ends, check_ends, unreadable
from springest_async.bulk.totals import Totals
from springest_async.errors import ConfigurationError, Fault, InvalidUpload, ManifestError
from springest_async.journal.known_files import KnownFiles
from springest_async.manifest.certifications import Certifications
from springest_async.manifest.columns import listed
from springest_async.manifest.csv_table import CsvTable
from springest_async.manifest.dates import is_never
from springest_async.manifest.file_names import FileNames
from springest_async.manifest.manifest import MISSING, NO_LIST, Fields, Manifest, Row
from springest_async.records import shown
from springest_async.source_file import exists

_MANY = 10  # missing files of which none exists: then the folder is wrong, and not each name

_GUESSED = "the manifest is not in UTF-8, and was read as Windows-1252: {} (if that is wrong, save it as “CSV UTF-8”)"

_CONVERSIONS = "is in {} of the rows: Springest may set these participations to done (“Afgerond”), as its own page does"

_LIKELY_YEARS = range(1940, 2100)  # working lives that go on today, and ends that are meant as "for ever"

_FAULTS = {
    "user": Kind.USER,
    "email": Kind.EMAIL,
    "certification": Kind.CERTIFICATION,
    "certification_id": Kind.CERTIFICATION,
    "valid_from": Kind.DATE,
    "valid_until": Kind.DATE,
}  # by field, of a cell that is not empty


def check_manifest(
    manifest: Manifest,
    known: KnownFiles | None = None,
    origin: str = "",
    totals: Totals | None = None,
) -> Generator[Finding | None, None, None]:
    """Check a manifest row by row. This blocks, so run it in a thread.

    Args:
        manifest: the manifest.
        known: what a journal knows: hashes, and the files that will not be sent again and may be gone.
        origin: the host that the manifest is for, as in ``https://api.springest.nl``.
        totals: where to count the rows and bytes to send; complete after the last finding.

    Yields:
        Every finding, and None after each row and often after the last one, to show progress and to stop.

    Raises:
        ManifestError: when a row cannot be read.
        JournalError: when the journal cannot be read or written.
        ConfigurationError: the certification of all rows is wrong, a row names one and there is no list to look it up,
            or there is no place left for temporary files.
    """
    manifest.check_certification()
    check = _Check(manifest, known, origin, Totals() if totals is None else totals)
    yield from _understood(manifest)
    with closing(iter(manifest)) as rows:
        for row in rows:
            yield from check.row(row)
            yield None
    yield from check.rest()


class _Check:
    """A check of a manifest, one row after the other."""

    def __init__(
        self,
        manifest: Manifest,
        known: KnownFiles | None,
        origin: str,
        totals: Totals,
    ) -> None:
        self._manifest = manifest
        self._certifications = manifest.reading.certifications
        self._known = known
        self._origin = origin
        self._totals = totals
        self._files = _Files(manifest)
        self._suspects = Suspects(origin)
        self._conversions = 0
        self._first_conversion = 0  # its row
        self._has_slashes = False  # in a date

    def row(self, row: Row) -> list[Finding]:
        """Return all that is to say of a row, apart from what the rows behind it show."""
        self._totals.rows += 1
        self._has_slashes = self._has_slashes or "/" in self._manifest.cell(row, "valid_until")
        try:
            fields = self._manifest.checked_fields(row)
        except InvalidUpload as error:
            if name := self._manifest.unlisted_name(row):
                where = f"row {row.number}, {self._manifest.layout.title('certification')}: {shown(name)}"
                raise ConfigurationError(f"{self._manifest.path}: {where} is not an id, and {NO_LIST}") from None
            return self._faulty(row, error)
        state = None if self._known is None else self._known.settled_state(fields, fields.file)
        ends = None
        found: list[Finding] = []
        if state is not None:
            self._totals.known[state] += 1
        else:
            ends = self._files.check(row.number, fields.file, found)
            found.extend(_date_findings(row.number, fields))
            if self._certifications is not None:
                requires = fields.valid_until is None
                found.extend(
                    _certification_findings(row.number, fields.certification_id, self._certifications, requires)
                )
            if ends is not None and not any(finding.is_fault for finding in found):
                self._totals.add(row.number, fields.certification_id, ends.size)
                if fields.conversion_id is not None:
                    self._conversions += 1
                    self._first_conversion = self._first_conversion or row.number
        found.extend(self._suspects.add(row.number, fields, ends))
        return found

    def _faulty(self, row: Row, error: InvalidUpload) -> list[Finding]:
        """Return all faults of a row whose cells have some, so that they can be corrected at once."""
        found = [_finding(row.number, fault) for fault in error.faults]
        if file := self._manifest.file(row):
            self._files.check(row.number, file, found)
        certification = self._manifest.certification_id(row)
        if self._certifications is not None and certification is not None:
            end = self._manifest.cell(row, "valid_until").strip()
            no_end = not end or is_never(end)
            found.extend(_certification_findings(row.number, certification, self._certifications, no_end))
        return found

    def rest(self) -> Iterator[Finding | None]:
        """Yield what can only be said after the last row, and None where a check can stop."""
        yield from self._files.rest()
        if self._has_slashes and (dates := self._manifest.opposite_dates()):
            (first, first_row, first_date), (column, row, day) = dates
            reason = f"{day} has its day and month in the other order than {first_date} ({first}, row {first_row})"
            yield Finding(Kind.DATE_ORDER, row, column, f"{reason}: check both columns")
        if self._conversions:
            yield Finding(
                Kind.CONVERSION, self._first_conversion, "conversion_id", _CONVERSIONS.format(self._conversions)
            )
        if self._suspects.found:
            yield from duplicates(self._manifest, self._suspects, self._known, self._totals)


def _finding(row: int, fault: Fault) -> Finding:
    kind = Kind.CELL if fault.reason == MISSING else _FAULTS.get(fault.field, Kind.CELL)
    return Finding(kind, row, fault.field, fault.reason)


def _understood(manifest: Manifest) -> Iterator[Finding]:
    """Yield what is to say where the manifest may mean something else than was understood."""
    if manifest.header_row > 1:
        reason = f"the names of the columns are in row {manifest.header_row}: what is above them is left out"
        yield Finding(Kind.TITLE_ROWS, 1, "", reason)
    if mistyped := manifest.mistyped:
        reason = f"these columns are unknown and will not be sent (check their spelling): {listed(mistyped)}"
        yield Finding(Kind.UNUSED_COLUMN, manifest.header_row, "", reason)
    if others := [title for title in manifest.unused if title not in mistyped]:
        yield Finding(Kind.OTHER_COLUMN, manifest.header_row, "", f"these columns will not be sent: {listed(others)}")
    if isinstance(manifest.table, CsvTable) and manifest.table.encoding == "cp1252":
        with closing(manifest.table.rows()) as rows, suppress(ManifestError):  # of which the rows themselves are told
            for number, cells in rows:
                if beyond_ascii := [(index, cell) for index, cell in enumerate(cells) if not cell.isascii()]:
                    index, cell = beyond_ascii[0]
                    is_named = number > manifest.header_row and index < len(manifest.columns)
                    name = manifest.columns[index] if is_named else ""
                    yield Finding(Kind.ENCODING, number, name, _GUESSED.format(shown(cell)))
                    break


class _Files:
    """The files that the rows name; if none of them exists, that is said too.

    Args:
        manifest: the manifest.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._names = manifest.names or FileNames(manifest.files)
        self._found = False
        self._missing = 0
        self._first_missing = (0, "")  # its row and name

    def check(self, row: int, file: str, found: list[Finding]) -> Ends | None:
        """Add what is wrong with the file of a row, and return its ends if it can be read."""
        path = self._manifest.path_of(file)
        if self._manifest.names is not None and path != self._manifest.files / file:
            folder = self._manifest.files
            taken = str(path.relative_to(folder) if path.is_relative_to(folder) else path)
            is_same = unicodedata.normalize("NFC", taken) == unicodedata.normalize("NFC", file)
            accents = " (accents encoded differently)" if is_same else ""
            found.append(Finding(Kind.FIXED_NAME, row, "file", f"{shown(file)}: {shown(taken)} is taken{accents}"))
        try:
            ends = Ends.read(path)
        except OSError as error:
            kind, reason = unreadable(error)
            if exists(path):
                self._found = True
            elif kind is Kind.NO_FILE:
                self._missing += 1
                self._first_missing = self._first_missing if self._missing > 1 else (row, file)
                reason = f"{reason}: {self._names.explain(file)}"
            else:
                reason = f"{reason}: {shown(file)}"
            found.append(Finding(kind, row, "file", reason))
            return None
        self._found = True
        found.extend(Finding(kind, row, "file", reason) for kind, reason in check_ends(ends))
        return ends

    def rest(self) -> Iterator[Finding]:
        """Yield what there is to say of all files together."""
        row, file = self._first_missing
        if self._missing >= _MANY and not self._found and self._names.meant(file) is None:
            reason = f"none of the files of {self._missing} rows is in {self._manifest.files.absolute()}"
            yield Finding(Kind.WRONG_FOLDER, row, "file", f"{reason}: is this the right folder?")


def _date_findings(row: int, fields: Fields) -> Iterator[Finding]:
    """Yield a warning for each date that is probably a slip of the finger: 0025 or 2205 for 2025, an early end."""
    for name, day in (("valid_from", fields.valid_from), ("valid_until", fields.valid_until)):
        if day is not None and day.year not in _LIKELY_YEARS and (name, day.year) != ("valid_until", 9999):  # for ever
            yield Finding(Kind.YEAR, row, name, f"is in the year {day.year:04}: is that meant?")
    if fields.valid_until is not None and fields.valid_until < fields.valid_from:
        yield Finding(Kind.ORDER, row, "valid_until", f"is before valid_from ({fields.valid_from})")


def _certification_findings(row: int, id_: int, certifications: Certifications, no_end: bool) -> Iterator[Finding]:
    certification = certifications.get(id_)
    if certification is None and certifications.is_complete:
        reason = f"{id_} does not exist: springest certifications lists the {len(certifications)} that do"
        yield Finding(Kind.CERTIFICATION, row, "certification_id", reason)
    elif certification is not None and certification.requires_valid_until and no_end:
        reason = f"is missing, but “{certification.name}” requires it"
        yield Finding(Kind.END_REQUIRED, row, "valid_until", reason)
