"""Check whether a file is a PDF, by its two ends."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from attrs import frozen

from springest_async.bulk.findings import Kind
from springest_async.bulk.pdf_pages import page_fault
from springest_async.bulk.pdf_password import ENCRYPTED, asks_for_password
from springest_async.source_file import open_source, size_of, why_unreadable

EDGE_BYTES = 8 * 1024
"""How much of each end of a file shows whether it is a PDF."""

_END = b"%%EOF"
_VERSION = re.compile(rb"%PDF-[0-9]")
_PLACE = re.compile(rb"startxref\s+([0-9]{1,18})")
_LENGTH = re.compile(rb"/L\s+([0-9]{1,18})")

_NOT_FOUND = "there is no such file"  # whether its folder is an archive or not


@frozen
class Ends:
    """The two ends of a file.

    Attributes:
        size: of the whole file, in bytes.
        head: its first bytes, at least `EDGE_BYTES` if there are as many.
        tail: its last ones; in a file of up to two `EDGE_BYTES`, both are all of it.
    """

    size: int
    head: bytes
    tail: bytes

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the ends of a file.

        Raises:
            OSError: as `open_source`, or it cannot be read.
        """
        with open_source(path) as stream:
            size = size_of(stream)
            if size <= 2 * EDGE_BYTES:
                whole = stream.read(2 * EDGE_BYTES)
                return cls(size, whole, whole)
            head = stream.read(EDGE_BYTES)
            stream.seek(size - EDGE_BYTES)
            return cls(size, head, stream.read(EDGE_BYTES))


def check_pdf(path: Path) -> Iterator[tuple[Kind, str]]:
    """Check both ends of a file that should be a PDF.

    Yields:
        What is wrong with it, and how to say so.
    """
    try:
        ends = Ends.read(path)
    except OSError as error:
        yield unreadable(error)
    else:
        yield from check_ends(ends)


def unreadable(error: OSError) -> tuple[Kind, str]:
    """Return what to say of a file that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return Kind.NO_FILE, _NOT_FOUND
    return Kind.UNREADABLE, why_unreadable(error)


def check_ends(ends: Ends) -> Iterator[tuple[Kind, str]]:
    """Check the ends of a file that should be a PDF.

    The rules are those of PDF readers, not of ISO 32000: ``%PDF-`` within the first 1024 bytes, and ``startxref`` and
    ``%%EOF`` near the end.

    Yields:
        What is wrong with it, and how to say so.
    """
    head, tail = ends.head, ends.tail
    if (reason := no_pdf(head)) is not None:
        yield Kind.NO_PDF, reason
        return
    if not head.startswith(b"%PDF-"):
        yield Kind.OTHER_CONTENT, "has other content before the PDF (%PDF-)"
    if (cut_off := _cut_off(ends)) is not None:
        yield Kind.CUT_OFF, f"may be cut off: {cut_off}"
    elif tail[tail.rfind(_END) + len(_END) :].strip(b"\0\t\n\f\r "):
        yield Kind.OTHER_CONTENT, "has other content after the end of the PDF (%%EOF)"
    if _is_encrypted(ends):
        asks = asks_for_password((tail, head))
        if asks is not False:  # else it is only protected against changes
            yield Kind.PASSWORD, "asks for a password" if asks else "is encrypted, and may ask for a password"
    elif ends.size == len(head) and cut_off is None and (pages := page_fault(head)) is not None:
        yield Kind.NO_PAGES, pages


def _cut_off(ends: Ends) -> str | None:
    """Return what shows that the end of a PDF is missing, if something does."""
    head, tail = ends.head, ends.tail
    start = tail.rfind(b"startxref", 0, max(tail.rfind(_END), 0))
    if start < 0:
        return "the end of the PDF is missing"
    # A linearized PDF says at its beginning how long it is; what was saved later is appended.
    linearized = _linearized(head)
    if linearized >= 0 and (length := _LENGTH.search(head, linearized)) and int(length[1]) > ends.size:
        return f"it says that it has {int(length[1])} bytes, and has {ends.size}"
    if (place := _PLACE.match(tail, start)) and int(place[1]) >= ends.size:
        return f"it refers to its byte {int(place[1])}, and has {ends.size}"
    return None


def _linearized(head: bytes) -> int:
    """Return where a PDF says that its first page comes first; -1 if it does not. That must be in its first object."""
    return head.find(b"/Linearized", 0, 1024)


def _is_encrypted(ends: Ends) -> bool:
    """Return whether a PDF is encrypted, which stands at its end, or at its beginning if it is linearized."""
    if b"/Encrypt" in ends.tail and ENCRYPTED.search(ends.tail):
        return True
    return ends.size > len(ends.head) and _linearized(ends.head) >= 0 and bool(ENCRYPTED.search(ends.head))


def no_pdf(head: bytes) -> str | None:
    """Return why a file that begins in this way is no PDF, if it is none."""
    if _VERSION.match(head):
        return None
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
    if not _VERSION.search(head, 0, 1024 + 1):
        return "is not a PDF: behind %PDF- there is no version, such as 1.7"
    return None
