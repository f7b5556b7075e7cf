"""Read the files of rows just before they are sent: check each again, and hash the whole of it."""

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from springest_async.bulk.pdf import EDGE_BYTES, no_pdf
from springest_async.errors import InvalidUpload, UnusableFile
from springest_async.journal.file_hashes import storable_time
from springest_async.journal.records import Entry, FileHash
from springest_async.records import CertificateUpload
from springest_async.source_file import PIECE, FileReader, SourceFile, open_source, why_unreadable

_READ_TOGETHER = 2 * 1024 * 1024
"""Bytes of the files that are read in one hop to a thread; larger ones are better read in several threads."""


@frozen
class ReadRow:
    """A row whose file has been read.

    Attributes:
        entry: the row.
        upload: what is to be sent.
        source: the file as it was then.
        sha256: of the whole file.
        reader: what is in the file, if it was kept to be sent.
    """

    entry: Entry
    upload: CertificateUpload
    source: SourceFile
    sha256: bytes
    reader: FileReader | None = None

    @property
    def hashed(self) -> FileHash:
        """What identifies the certificate of the row."""
        return FileHash(self.source.size, self.source.modified_ns, self.sha256)


def read_row(entry: Entry, *, keep: bool = False) -> ReadRow:
    """Read the file of a row; `keep` says whether to keep what is in it, if that is at most 1 MiB.

    Raises:
        InvalidUpload: the row cannot be sent.
        UnusableFile: the file cannot be read, is no PDF, or changed meanwhile.
    """
    upload = entry.upload()
    return ReadRow(entry, upload, *read_file(entry.path, entry.hashed, keep=keep))


def read_together(entries: Iterable[Entry]) -> list[ReadRow | None]:
    """Read and keep the files of the first of these rows, as long as that is quick.

    None is a row that has to be looked at alone: it has a fault, or may be the same certificate as another one here.
    """
    rows: list[ReadRow | None] = []
    left = _READ_TOGETHER
    seen = set()
    for entry in entries:
        row = None
        with suppress(OSError, ValueError, UnusableFile, InvalidUpload):  # ValueError: a NUL in the path
            left -= SourceFile.look(entry.path).size
            if left < 0:
                break
            row = read_row(entry, keep=True)
            if (same := (row.sha256, entry.email.casefold())) in seen:
                row = None
            seen.add(same)
        rows.append(row)
    return rows


def read_file(
    path: Path, hashed: FileHash | None, *, keep: bool = False
) -> tuple[SourceFile, bytes, FileReader | None]:
    """Check a PDF again, because the preflight may be weeks ago, and return the SHA-256 of the whole file.

    Raises:
        UnusableFile: it cannot be read, is no PDF, or changed meanwhile.
    """
    try:
        with open_source(path) as stream:
            source = SourceFile.of(path, stream)
            if source.size == 0:
                raise UnusableFile(path, "is empty")
            is_known = hashed and (hashed.size, hashed.modified_ns) == (source.size, storable_time(source.modified_ns))
            is_small = source.size <= PIECE and (keep or not is_known)
            # A buffer of a whole file costs less than one of file_digest's; but some network disks read less at once.
            whole = stream.read(source.size if is_small else EDGE_BYTES)
            if (reason := no_pdf(whole[:EDGE_BYTES])) is not None:
                raise UnusableFile(path, reason)
            if hashed and is_known and not is_small:
                return source, hashed.sha256, None
            is_whole = len(whole) == source.size
            if is_whole:  # what is sent as it was read is hashed, whatever is known of the file
                sha256 = hashlib.sha256(whole).digest()
            elif hashed and is_known:
                sha256 = hashed.sha256
            else:
                stream.seek(0)
                sha256 = hashlib.file_digest(stream, "sha256").digest()
            unchanged = source.is_still(stream)
    except OSError as error:
        raise UnusableFile(path, why_unreadable(error)) from None
    if not unchanged:
        raise UnusableFile(path, "changed while it was being read")
    return source, sha256, FileReader(source, 0, stream, whole) if keep and is_whole else None
