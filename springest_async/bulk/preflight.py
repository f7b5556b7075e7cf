"""Check a manifest before the first POST, and report every fault with its row, column and reason.

A fault in row 900 000 is found in minutes, and not after three weeks of uploading. Only the first and last 8 KiB of a
file are read, and the whole file only if another row has, or seems to have, the same fields. Nothing is sent.
"""

import hashlib
import os
import re
from collections import deque
from collections.abc import Collection, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from functools import lru_cache
from itertools import starmap
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self, TypeVar

from attrs import frozen

from springest_async.errors import InvalidUpload, ManifestError
from springest_async.journal.identity import identity, row_digests
from springest_async.journal.known_files import KnownFiles
from springest_async.journal.repeats import SeenDigests
from springest_async.manifest.dates import is_never
from springest_async.manifest.file_names import FileNames
from springest_async.manifest.manifest import Fields, Manifest, Row, listed
from springest_async.records import Certification, shown
from springest_async.source_file import SourceFile, open_regular

EDGE_BYTES = 8 * 1024
"""How much of each end of a file shows whether it is a PDF."""

_FILES_AHEAD = 64

_NOT_FOUND = "there is no such file"
_MANY = 10  # missing files of which none exists: then the folder is wrong, and not each name

_GUESSED = "the manifest is not in UTF-8, and was read as Windows-1252: {} (if that is wrong, save it as “CSV UTF-8”)"

_LIKELY_YEARS = range(1940, 2100)  # working lives that go on today, and ends that are meant as "for ever"

_T = TypeVar("_T")


@frozen
class Finding:
    """A fault in one place of a manifest. With a `warning`, the certificate is uploaded all the same."""

    row: int
    column: str
    reason: str
    warning: bool = False

    def __str__(self) -> str:
        place = f"row {self.row}" + (f", {self.column}" if self.column else "")
        return f"{place}: {'warning: ' if self.warning else ''}{self.reason}"


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
                yield from (Finding(row.number, fault.field, fault.reason) for fault in error.faults)
                if row.cells["file"].strip():
                    yield from files.findings(row)
            else:
                settled = known is not None and known.is_settled(fields, fields.file)
                if not settled:
                    yield from files.findings(row)
                yield from _year_findings(row.number, fields)
                if fields.valid_until is not None and fields.valid_until < fields.valid_from:
                    reason = f"is before valid_from ({fields.valid_from})"
                    yield Finding(row.number, "valid_until", reason, warning=True)
                if seen.add(fingerprint := _fingerprint(fields, origin)):
                    suspects.add(fingerprint)
            if certifications is not None and not settled:
                yield from _certification_findings(row, certifications)
            yield None
    yield from files.rest()
    if suspects:
        yield from _duplicates(manifest, suspects, known, origin)


def _understood(manifest: Manifest) -> Iterator[Finding]:
    """Yield a warning for all in which the manifest may mean something else than was understood."""
    if manifest.header_row > 1:
        reason = f"the names of the columns are in row {manifest.header_row}: what is above them is left out"
        yield Finding(1, "", reason, warning=True)
    if manifest.unused:
        reason = f"these columns are unknown and will not be sent (check their spelling): {listed(manifest.unused)}"
        yield Finding(manifest.header_row, "", reason, warning=True)
    if manifest.table.encoding == "cp1252":
        with closing(iter(manifest)) as rows, suppress(ManifestError):  # of which the rows themselves are told
            for row in rows:
                if beyond_ascii := [(name, cell) for name, cell in row.cells.items() if not cell.isascii()]:
                    name, cell = beyond_ascii[0]
                    yield Finding(row.number, name, _GUESSED.format(shown(cell)), warning=True)
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
        for reason, warning in check_pdf(self._folder / cell):
            if os.path.lexists(self._folder / cell):
                yield Finding(row.number, "file", reason, warning)
            elif reason != _NOT_FOUND:
                yield Finding(row.number, "file", f"{reason}: {shown(cell)}")
            elif self._found:
                yield self._missing_file(row.number, cell)
            else:
                self._missing.append((row.number, cell))
                return
        yield from starmap(self._missing_file, self._missing)
        self._missing, self._found = [], True

    def _missing_file(self, row: int, cell: str) -> Finding:
        return Finding(row, "file", f"{_NOT_FOUND}: {self._names.explain(cell)}")

    def rest(self) -> Iterator[Finding]:
        """Yield what is left to say after the last row."""
        if len(self._missing) < _MANY:
            yield from starmap(self._missing_file, self._missing)
        else:
            row, cell = self._missing[0]
            reason = f"none of the {len({cell for _, cell in self._missing})} files exists under its name, such as"
            question = "" if self._names.meant(cell) else ": is this the right folder?"
            yield Finding(row, "file", f"{reason} {self._names.explain(cell)}{question}")


def _year_findings(row: int, fields: Fields) -> Iterator[Finding]:
    """Yield a warning for each year that a slip of the finger has made: 0025 for 2025, 2205 for 2025."""
    for name, day in (("valid_from", fields.valid_from), ("valid_until", fields.valid_until)):
        if day is not None and day.year not in _LIKELY_YEARS and (name, day.year) != ("valid_until", 9999):  # for ever
            yield Finding(row, name, f"is in the year {day.year:04}: is that meant?", warning=True)


def _certification_findings(row: Row, certifications: Mapping[int, Certification]) -> Iterator[Finding]:
    # It reads the cells, so that it also works in a row with other faults.
    cell = row.cells["certification_id"].strip()
    if not re.fullmatch(r"[0-9]{1,18}", cell) or not int(cell):
        return  # already reported
    certification = certifications.get(int(cell))
    if certification is None:
        reason = f"{cell} does not exist: springest certifications lists the {len(certifications)} that do"
        yield Finding(row.number, "certification_id", reason)
    elif certification.requires_valid_until and (
        (end := row.cells.get("valid_until", "").strip()) == "" or is_never(end)
    ):
        yield Finding(row.number, "valid_until", f"is missing, but “{certification.name}” requires it")


# --- the same certificate twice: the same fields and the same content ---


def _fingerprint(fields: Fields, origin: str) -> bytes:
    """Return a digest of all that makes a certificate, except for its file."""
    return row_digests(fields, origin, "")[0]


def _duplicates(
    manifest: Manifest, suspects: Collection[bytes], known: KnownFiles | None, origin: str
) -> Iterator[Finding]:
    """Yield the rows that have the same certificate as an earlier one; `suspects` are fingerprints."""
    first: dict[bytes, int] = {}
    with _Hashes(known) as hashes:
        for row, fields, reading in _ahead(_suspect_rows(manifest, suspects, hashes, origin)):
            try:
                content = hashes.result(reading)
            except OSError:
                continue  # already reported
            if (earlier := first.setdefault(identity(fields, origin, content), row)) != row:
                yield Finding(row, "file", f"is the same certificate as in row {earlier}")


def _suspect_rows(
    manifest: Manifest, suspects: Collection[bytes], hashes: "_Hashes", origin: str
) -> Iterator[tuple[int, Fields, "Future[_Content]"]]:
    with closing(iter(manifest)) as rows:
        for row in rows:
            try:
                fields = manifest.fields(row)
            except InvalidUpload:
                continue  # already reported
            if _fingerprint(fields, origin) in suspects:
                # Certificates made from one template may differ in their last bytes only, so hash the whole file.
                yield row.number, fields, hashes.read(manifest.path.parent / fields.file)


def _ahead(items: Iterator[_T]) -> Iterator[_T]:
    """Yield all, in order, while the files of the next ones are read."""
    waiting: deque[_T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > _FILES_AHEAD:
            yield waiting.popleft()
    yield from waiting


@frozen
class _Content:
    """The SHA-256 of a whole file, and the file as it was, if its hash is new to the journal."""

    sha256: bytes
    source: SourceFile | None


class _Hashes:
    """A reader of whole files on all cores: hashlib leaves the others alone while it computes.

    Only the thread that checks the manifest writes to the journal, and many hashes at a time.
    """

    def __init__(self, known: KnownFiles | None) -> None:
        self._known = known
        self._lock = Lock()  # for the connection to the journal
        self._threads = ThreadPoolExecutor(os.cpu_count(), "springest-hash")
        self._new: dict[SourceFile, bytes] = {}
        self._futures = lru_cache(maxsize=1024)(lambda path: self._threads.submit(self._read, path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)
        if kind is None:
            self._remember()

    def read(self, path: Path) -> "Future[_Content]":
        """Begin to read a file, unless it was read for one of the last rows."""
        return self._futures(path)

    def result(self, reading: "Future[_Content]") -> bytes:
        """Wait for the SHA-256 of a file.

        Raises:
            OSError: it cannot be read.
            JournalError: the journal cannot be read or written.
        """
        content = reading.result()
        if content.source is not None:
            self._new[content.source] = content.sha256
            if len(self._new) >= _FILES_AHEAD:
                self._remember()
        return content.sha256

    def _remember(self) -> None:
        if self._known is not None and self._new:
            with self._lock:
                self._known.remember_hashes(self._new.items())
        self._new.clear()

    def _read(self, path: Path) -> _Content:
        with open_regular(path) as stream:
            source = SourceFile.at(path, os.fstat(stream.fileno()))
            if self._known is not None:
                with self._lock:
                    remembered = self._known.known_hash(path, source.size, source.modified_ns)
                if remembered is not None:
                    return _Content(remembered, None)
            found = hashlib.file_digest(stream, "sha256").digest()
            # If the file was changed while it was read, the hash is of no single content.
            return _Content(found, source if source.is_still(stream) else None)


# --- PDFs ---


def check_pdf(path: Path) -> Iterator[tuple[str, bool]]:
    """Check both ends of a file that should be a PDF.

    The rules are those of PDF readers, not of ISO 32000: ``%PDF-`` within the first 1024 bytes, and ``startxref`` and
    ``%%EOF`` near the end.

    Yields:
        A reason, and whether it is only a warning.
    """
    try:
        with open_regular(path) as stream:
            head = stream.read(EDGE_BYTES)
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - EDGE_BYTES))
            tail = stream.read(EDGE_BYTES)
    except FileNotFoundError:
        yield _NOT_FOUND, False
        return
    except OSError as error:
        yield error.strerror or "cannot be read", False
        return
    if (reason := no_pdf(head)) is not None:
        yield reason, False
        return
    if not head.startswith(b"%PDF-"):
        yield "has other content before the PDF (%PDF-)", True
    before, end, after = tail.rpartition(b"%%EOF")
    if not end or b"startxref" not in before:
        yield "may be cut off: a PDF has startxref and %%EOF near its end", True
    elif after.strip(b"\0\t\n\f\r "):
        yield "has other content after the end of the PDF (%%EOF)", True


def no_pdf(head: bytes) -> str | None:
    """Return why a file that begins in this way is no PDF, if it is none."""
    start = head.lstrip(b"\xef\xbb\xbf\0\t\n\f\r ")
    if not start:
        return "is an empty file" if not head else "contains only blanks"
    if start.startswith(b"PK\x03\x04"):
        return "is a zip file, not a PDF (Word and Excel files are zip files too: save them as PDF)"
    if re.match(rb"(?i)<(!doctype\s+html|html|head|body)\b", start):
        return "is an HTML page, not a PDF"
    if re.match(rb"(data:[\w/.+-]*;base64,)?\s*JVBERi0", start) or re.fullmatch(rb"[A-Za-z0-9+/=\r\n]{512,}", start):
        return "is base64 text, not a PDF: decode it first"
    if b"%PDF-" not in head[:1024]:
        return "is not a PDF: there is no %PDF- in its first 1024 bytes"
    return None
