"""All that can be known before the first POST: every fault of a manifest, each with its row, column and reason.

A fault in row 900 000 is found here in minutes, and not after three weeks of uploading. Files are not read whole: only
the first and last 8 KiB, and a whole file only where another row has the same fields. Sends nothing.
"""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import lru_cache, partial
from pathlib import Path
from typing import Protocol

from attrs import frozen

from springest_async.bulk.manifest import Fields, Manifest, Row, listed
from springest_async.errors import InvalidUpload
from springest_async.records import CertificateUpload, Certification, shown
from springest_async.source_file import open_regular

__all__ = ["Finding", "Memory", "check_manifest", "check_pdf"]

_EDGE = 8 * 1024


@frozen
class Finding:
    """What is wrong in one place of a manifest. A `warning` does not keep the certificate from being uploaded."""

    row: int
    column: str
    reason: str
    warning: bool = False

    def __str__(self) -> str:
        place = f"row {self.row}" + (f", {self.column}" if self.column else "")
        return f"{place}: {'warning: ' if self.warning else ''}{self.reason}"


class Memory(Protocol):
    """What is known of earlier runs: a `Journal`."""

    def is_settled(self, fields: Fields, origin: str, path: Path) -> bool:
        """Say whether a row's file need not be looked at, because it will not be sent."""

    def known_hash(self, path: Path, size: int, modified_ns: int) -> bytes | None:
        """Give the SHA-256 of a whole file of this size (bytes) and time (ns), if it is known."""

    def remember_hash(self, path: Path, size: int, modified_ns: int, sha256: bytes) -> None:
        """Note that hash."""


def check_manifest(
    manifest: Manifest,
    certifications: Mapping[int, Certification] | None = None,
    memory: Memory | None = None,
    origin: str = "",
) -> Iterator[Finding | None]:
    """Check a manifest row by row; blocking, so run it in a thread.

    Args:
        manifest: the manifest.
        certifications: those that the key sees, by id; without them the checks that need them are left out.
        memory: the journal, which knows files that will not be sent again and may be gone, and hashes.
        origin: the host that the manifest is for, as the journal knows it.

    Yields:
        Every finding, and a None after each row, so that progress can be told.

    Raises:
        ManifestError: when a row cannot even be read.
        JournalError: when the memory is a journal, and fails.
    """
    seen: set[int] = set()
    suspects: set[int] = set()
    if manifest.unused:
        yield Finding(1, "", f"columns that mean nothing: {listed(manifest.unused)}", warning=True)
    with closing(iter(manifest)) as rows:
        for row in rows:
            settled = False
            try:
                upload = manifest.upload(row)
            except InvalidUpload as error:
                yield from (Finding(row.number, fault.field, fault.reason) for fault in error.faults)
                if row.cells["file"].strip():
                    yield from _file_findings(row, manifest.path.parent)
            else:
                settled = memory is not None and memory.is_settled(manifest.fields(row), origin, upload.file)
                if not settled:
                    yield from _file_findings(row, manifest.path.parent)
                if upload.valid_until is not None and upload.valid_until < upload.valid_from:
                    yield Finding(
                        row.number, "valid_until", f"is before valid_from ({upload.valid_from})", warning=True
                    )
                # A set of hashes, and not of fields, keeps a million rows in some 70 MB.
                fields = hash(_fields(upload))
                (suspects if fields in seen else seen).add(fields)
            if certifications is not None and not settled:
                yield from _certification_findings(row, certifications)
            yield None
    if suspects:
        yield from _duplicates(manifest, suspects, memory)


def _file_findings(row: Row, folder: Path) -> Iterator[Finding]:
    cell = row.cells["file"].strip()
    path = folder / cell
    for reason, warning in check_pdf(path):
        yield Finding(row.number, "file", reason + ("" if os.path.lexists(path) else _hint(cell, folder)), warning)


def _hint(cell: str, folder: Path) -> str:
    """Say what nobody can see in a name that no file has."""
    if not cell.isprintable():
        return f": {shown(cell)}"
    for form in ("NFC", "NFD"):
        if (other := unicodedata.normalize(form, cell)) != cell and os.path.lexists(folder / other):
            return f"; there is one with its accents encoded in another way (Unicode's {form}): rename it"
    return ""


def _certification_findings(row: Row, certifications: Mapping[int, Certification]) -> Iterator[Finding]:
    # From the cells, so that a fault elsewhere in the row hides none of these.
    cell = row.cells["certification_id"].strip()
    if not re.fullmatch(r"[0-9]{1,18}", cell) or not int(cell):
        return  # told already
    certification = certifications.get(int(cell))
    if certification is None:
        reason = f"{cell} is none of the {len(certifications)} certifications that the key sees"
        yield Finding(row.number, "certification_id", reason)
    elif certification.requires_valid_until and not row.cells.get("valid_until", "").strip():
        yield Finding(row.number, "valid_until", f"is missing, and “{certification.name}” requires it")


# --- the same certificate twice: the same fields and the same content ---


def _fields(upload: CertificateUpload) -> tuple[object, ...]:
    return (
        upload.certification_id,
        upload.email.casefold(),
        upload.valid_from,
        upload.valid_until,
        upload.conversion_id,
    )


def _duplicates(manifest: Manifest, suspects: set[int], memory: Memory | None) -> Iterator[Finding]:
    sha256 = lru_cache(maxsize=1024)(partial(_sha256, memory))
    first: dict[tuple[object, ...], int] = {}
    with closing(iter(manifest)) as rows:
        for row in rows:
            try:
                upload = manifest.upload(row)
                if hash(_fields(upload)) not in suspects:
                    continue
                # Certificates of one template share their first 64 KiB: only the whole file tells them apart.
                identity = (*_fields(upload), sha256(upload.file))
            except (InvalidUpload, OSError):
                continue  # told already
            if (earlier := first.setdefault(identity, row.number)) != row.number:
                yield Finding(row.number, "file", f"is the same certificate as in row {earlier}")


def _sha256(memory: Memory | None, path: Path) -> bytes:
    with open_regular(path) as stream:
        before = os.fstat(stream.fileno())
        if memory is not None and (known := memory.known_hash(path, before.st_size, before.st_mtime_ns)) is not None:
            return known
        found = hashlib.file_digest(stream, "sha256").digest()
        after = os.fstat(stream.fileno())
    # What was written while it was read is not the hash of any one content.
    if memory is not None and (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns):
        memory.remember_hash(path, before.st_size, before.st_mtime_ns, found)
    return found


# --- PDFs ---


def check_pdf(path: Path) -> Iterator[tuple[str, bool]]:
    """Look at the two ends of a file that should be a PDF.

    The rules are those of readers, not of ISO 32000: ``%PDF-`` within the first 1024 bytes, and ``startxref`` and
    ``%%EOF`` near the end.

    Yields:
        A reason, and whether it is but a warning.
    """
    try:
        with open_regular(path) as stream:
            head = stream.read(_EDGE)
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - _EDGE))
            tail = stream.read(_EDGE)
    except OSError as error:
        yield error.strerror or "cannot be read", False
        return
    if (reason := _no_pdf(head)) is not None:
        yield reason, False
        return
    if not head.startswith(b"%PDF-"):
        yield "has something before %PDF-", True
    before, end, after = tail.rpartition(b"%%EOF")
    if not end or b"startxref" not in before:
        yield "has no startxref and %%EOF near its end: it may have been cut off", True
    elif after.strip(b"\0\t\n\f\r "):
        yield "has something after its end (%%EOF)", True


def _no_pdf(head: bytes) -> str | None:
    start = head.lstrip(b"\xef\xbb\xbf\0\t\n\f\r ")
    if not start:
        return "is empty" if not head else "is blank"
    if start.startswith(b"PK\x03\x04"):
        return "is a zip file (as .docx and .xlsx are), not a PDF"
    if re.match(rb"(?i)<(!doctype\s+html|html|head|body)\b", start):
        return "is an HTML page, not a PDF"
    if re.match(rb"(data:[\w/.+-]*;base64,)?\s*JVBERi0", start) or re.fullmatch(rb"[A-Za-z0-9+/=\r\n]{512,}", start):
        return "this file is base64 text, Springest wants the raw PDF"
    if b"%PDF-" not in head[:1024]:
        return "is no PDF: there is no %PDF- in its first 1024 bytes"
    return None
