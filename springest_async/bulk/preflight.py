"""Check a manifest before the first POST, and report every fault with its row, column and reason.

A fault in row 900 000 is found in minutes, and not after three weeks of uploading. Only the first and last 8 KiB of a
file are read, and the whole file only if another row has, or seems to have, the same fields. Nothing is sent.
"""

import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, suppress
from itertools import starmap
from pathlib import Path

from springest_async.bulk.duplicates import duplicates, fingerprint
from springest_async.bulk.findings import Finding, Kind
from springest_async.bulk.pdf import NOT_FOUND, check_pdf
from springest_async.errors import Fault, InvalidUpload, ManifestError
from springest_async.journal.known_files import KnownFiles
from springest_async.journal.repeats import SeenDigests
from springest_async.manifest.dates import is_never
from springest_async.manifest.file_names import FileNames
from springest_async.manifest.manifest import MISSING, Fields, Manifest, Row, listed
from springest_async.records import Certification, shown
from springest_async.source_file import exists

_MANY = 10  # missing files of which none exists: then the folder is wrong, and not each name

_GUESSED = "the manifest is not in UTF-8, and was read as Windows-1252: {} (if that is wrong, save it as “CSV UTF-8”)"

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
    certifications: Mapping[int, Certification] | None = None,
    known: KnownFiles | None = None,
    origin: str = "",
) -> Generator[Finding | None, None, None]:
    """Check a manifest row by row. This blocks, so run it in a thread.

    Args:
        manifest: the manifest.
        certifications: those that the key can list, by id; without them, the certifications are not checked.
        known: what a journal knows: hashes, and the files that will not be sent again and may be gone.
        origin: the host that the manifest is for, as in ``https://api.springest.nl``.

    Yields:
        Every finding, and None after each row, to show progress.

    Raises:
        ManifestError: when a row cannot be read.
        JournalError: when the journal cannot be read or written.
    """
    seen = SeenDigests()
    suspects: set[bytes] = set()
    files = _Files(manifest.path.parent)
    yield from _understood(manifest)
    with closing(iter(manifest)) as rows:
        for row in rows:
            settled = False
            try:
                fields = manifest.checked_fields(row)
            except InvalidUpload as error:
                yield from (_finding(row.number, fault) for fault in error.faults)
                if row.cells["file"].strip():
                    yield from files.findings(row)
            else:
                settled = known is not None and known.is_settled(fields, fields.file)
                if not settled:
                    yield from files.findings(row)
                yield from _year_findings(row.number, fields)
                if fields.valid_until is not None and fields.valid_until < fields.valid_from:
                    reason = f"is before valid_from ({fields.valid_from})"
                    yield Finding(Kind.ORDER, row.number, "valid_until", reason)
                if seen.add(digest := fingerprint(fields, origin)):
                    suspects.add(digest)
            if certifications is not None and not settled:
                yield from _certification_findings(row, certifications)
            yield None
    yield from files.rest()
    if suspects:
        yield from duplicates(manifest, suspects, known, origin)


def _finding(row: int, fault: Fault) -> Finding:
    kind = Kind.CELL if fault.reason == MISSING else _FAULTS.get(fault.field, Kind.CELL)
    return Finding(kind, row, fault.field, fault.reason)


def _understood(manifest: Manifest) -> Iterator[Finding]:
    """Yield what is to say where the manifest may mean something else than was understood."""
    if manifest.header_row > 1:
        reason = f"the names of the columns are in row {manifest.header_row}: what is above them is left out"
        yield Finding(Kind.TITLE_ROWS, 1, "", reason)
    if manifest.unused:
        reason = f"these columns are unknown and will not be sent (check their spelling): {listed(manifest.unused)}"
        yield Finding(Kind.UNUSED_COLUMN, manifest.header_row, "", reason)
    if manifest.table.encoding == "cp1252":
        with closing(iter(manifest)) as rows, suppress(ManifestError):  # of which the rows themselves are told
            for row in rows:
                if beyond_ascii := [(name, cell) for name, cell in row.cells.items() if not cell.isascii()]:
                    name, cell = beyond_ascii[0]
                    yield Finding(Kind.ENCODING, row.number, name, _GUESSED.format(shown(cell)))
                    break


class _Files:
    """The files that the rows name; if none of them exists, that is said once.

    Args:
        folder: where their names begin.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = FileNames(folder)
        self._missing: list[tuple[int, str]] = []  # rows and names, as long as there was no other file
        self._found = False

    def findings(self, row: Row) -> Iterator[Finding]:
        """Yield what is wrong with the file of a row; what is missing may come later, or be said by `rest`."""
        cell = row.cells["file"].strip()
        for kind, reason in check_pdf(self._folder / cell):
            if exists(self._folder / cell):
                yield Finding(kind, row.number, "file", reason)
            elif kind is not Kind.NO_FILE:
                yield Finding(kind, row.number, "file", f"{reason}: {shown(cell)}")
            elif self._found:
                yield self._missing_file(row.number, cell)
            else:
                self._missing.append((row.number, cell))
                return
        yield from starmap(self._missing_file, self._missing)
        self._missing, self._found = [], True

    def _missing_file(self, row: int, cell: str) -> Finding:
        return Finding(Kind.NO_FILE, row, "file", f"{NOT_FOUND}: {self._names.explain(cell)}")

    def rest(self) -> Iterator[Finding]:
        """Yield what is left to say after the last row."""
        if len(self._missing) < _MANY:
            yield from starmap(self._missing_file, self._missing)
        else:
            row, cell = self._missing[0]
            reason = f"none of the {len({cell for _, cell in self._missing})} files exists under its name, such as"
            question = "" if self._names.meant(cell) else ": is this the right folder?"
            yield Finding(Kind.NO_FILE, row, "file", f"{reason} {self._names.explain(cell)}{question}")


def _year_findings(row: int, fields: Fields) -> Iterator[Finding]:
    """Yield a warning for each year that a slip of the finger has made: 0025 for 2025, 2205 for 2025."""
    for name, day in (("valid_from", fields.valid_from), ("valid_until", fields.valid_until)):
        if day is not None and day.year not in _LIKELY_YEARS and (name, day.year) != ("valid_until", 9999):  # for ever
            yield Finding(Kind.YEAR, row, name, f"is in the year {day.year:04}: is that meant?")


def _certification_findings(row: Row, certifications: Mapping[int, Certification]) -> Iterator[Finding]:
    # It reads the cells, so that it also works in a row with other faults.
    cell = row.cells["certification_id"].strip()
    if not re.fullmatch(r"[0-9]{1,18}", cell) or not int(cell):
        return  # already reported
    certification = certifications.get(int(cell))
    if certification is None:
        reason = f"{cell} does not exist: springest certifications lists the {len(certifications)} that do"
        yield Finding(Kind.CERTIFICATION, row.number, "certification_id", reason)
    elif certification.requires_valid_until and (
        (end := row.cells.get("valid_until", "").strip()) == "" or is_never(end)
    ):
        reason = f"is missing, but “{certification.name}” requires it"
        yield Finding(Kind.END_REQUIRED, row.number, "valid_until", reason)
