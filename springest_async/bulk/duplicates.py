"""Find the rows of a manifest that repeat another: one certificate twice, one PDF for two people, two PDFs for one.

A file is read whole for that only if its row has the fields of another row, or its size and its ends are those of
another person's file. Of the rows that are not suspected, nothing but bits is kept.
"""

import hashlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self, TypeVar

from attrs import frozen

from springest_async.bulk.findings import Finding, Kind
from springest_async.bulk.pdf import Ends
from springest_async.bulk.rows import RowSet
from springest_async.bulk.temporary import TemporaryDatabase
from springest_async.bulk.totals import Totals
from springest_async.errors import InvalidUpload
from springest_async.journal.identity import folded, identity, row_digests
from springest_async.journal.known_files import KnownFiles
from springest_async.journal.repeats import SeenDigests
from springest_async.manifest.manifest import Fields, Manifest
from springest_async.source_file import SourceFile, open_source

_FILES_AHEAD = 64
_NAMES_KEPT = 10_000  # of the last files, so that a file that many rows name is not looked at again

_COMPARED_HEAD, _COMPARED_TAIL = 1024, 2048  # bytes, where PDFs of one template have their dates, ids and offsets
_HALF = 2**32 - 1

_T = TypeVar("_T")


class Suspects:
    """What may occur twice in a manifest: certificates, and files of different people.

    Args:
        origin: the host that the manifest is for.

    Attributes:
        found: whether there is something to look at again.
        reported: the rows that are known to name the file of another person.
    """

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._seen = SeenDigests()
        self._seen_files = SeenDigests()
        self._suspects = SeenDigests()
        self._named: dict[str, tuple[int, str]] = {}
        self._has_files = False
        self.found = False
        self.reported = RowSet()

    def add(self, row: int, fields: Fields, ends: Ends | None) -> Iterator[Finding]:
        """Add a row; yield a warning if it names the file of another person.

        Args:
            row: its number.
            fields: what it says.
            ends: of its file; None if it will not be sent again.
        """
        if self._seen.add(digest := self._fingerprint(fields)):
            self._suspects.add(digest)
            self.found = True
        person = folded(fields.email)
        if (first := self._named.pop(fields.file, None)) is not None:
            if first[1] != person and ends is not None:
                self.reported.add(row)
                yield _shared(row, first[0])
        elif ends is not None and self._seen_files.add(digest := _digest_of(ends)):
            if not self._seen_files.add(quick_digest(digest, person)):
                self._suspects.add(digest)
                self._suspects.add(quick_digest(ends.size))
                self.found = self._has_files = True
        elif ends is not None:
            self._seen_files.add(quick_digest(digest, person))
        self._named[fields.file] = first or (row, person)
        if len(self._named) > _NAMES_KEPT:
            del self._named[next(iter(self._named))]

    def has_row(self, fields: Fields) -> bytes | None:
        """Return a digest of all that makes a certificate except for its file, if another row may have it too."""
        digest = self._fingerprint(fields)
        return digest if digest in self._suspects else None

    def has_file(self, path: Path) -> bool:
        """Return whether a file may be the same as one of another person."""
        try:
            if not self._has_files or quick_digest(SourceFile.look(path).size) not in self._suspects:
                return False
            return _digest_of(Ends.read(path)) in self._suspects
        except (OSError, ValueError):
            return False  # already reported

    def _fingerprint(self, fields: Fields) -> bytes:
        return row_digests(fields, self._origin, "")[0]

    def identity(self, fields: Fields, sha256: bytes) -> bytes:
        """Return the digest of all that makes a certificate."""
        return identity(fields, self._origin, sha256)


def _digest_of(ends: Ends) -> bytes:
    return quick_digest(ends.size, ends.head[:_COMPARED_HEAD], ends.tail[-_COMPARED_TAIL:])


def quick_digest(*values: object) -> bytes:
    """Return 16 bytes that are the same for the same values within this process, in less than a microsecond."""
    value = hash(values)
    # Two hashes of the same values would not be independent of each other, but the halves of one are.
    return (value >> 32 & _HALF).to_bytes(8, "big") + (value & _HALF).to_bytes(8, "big")


def duplicates(
    manifest: Manifest,
    suspects: Suspects,
    known: KnownFiles | None,
    totals: Totals,
) -> Iterator[Finding | None]:
    """Yield what is wrong with the suspected rows, and leave those out of `totals` that cannot be sent.

    None is yielded often, so that whoever checks can stop.
    """
    with _Hashes(known) as hashes, _Firsts() as firsts:
        for suspect in _ahead(_suspect_rows(manifest, suspects, hashes)):
            yield None
            if suspect is None:
                continue
            try:
                content = hashes.result(suspect.reading)
            except OSError:
                continue  # already reported
            row, fields = suspect.row, suspect.fields
            person = quick_digest(folded(fields.email))
            if suspect.fingerprint is not None:
                same, _ = firsts.of(suspects.identity(fields, content.sha256), row, person)
                if same != row:
                    totals.leave_out(row, fields.certification_id, content.size)
                    yield Finding(Kind.TWICE, row, "file", f"is the same certificate as in row {same}")
                    continue
                other, _ = firsts.of(suspect.fingerprint, row, person)
                if other != row and _any_to_send(totals, row, other):
                    reason = f"is another PDF for the person, certification and dates of row {other}: are both meant?"
                    yield Finding(Kind.TWO_PDFS, row, "file", reason)
            if suspect.has_file:
                same, owner = firsts.of(b"file" + content.sha256, row, person)
                if owner != person:
                    yield _shared(row, same)


def _shared(row: int, first: int) -> Finding:
    return Finding(Kind.SHARED_PDF, row, "file", f"is the same PDF as in row {first}, which is for another person")


def _any_to_send(totals: Totals, *rows: int) -> bool:
    return any(row in totals.to_send for row in rows)


@frozen
class _Suspect:
    """A suspected row, whose file is being read.

    Attributes:
        fingerprint: a digest of all that makes a certificate except for its file, if another row may have it too.
        has_file: whether its file may be the same as one of another person.
    """

    row: int
    fields: Fields
    fingerprint: bytes | None
    has_file: bool
    reading: "Future[_Content]"


def _suspect_rows(manifest: Manifest, suspects: Suspects, hashes: "_Hashes") -> Iterator[_Suspect | None]:
    """Yield the suspected rows, and None for each other one."""
    with closing(iter(manifest)) as rows:
        for row in rows:
            try:
                fields = manifest.fields(row)
            except InvalidUpload:
                continue  # already reported
            path, fingerprint = manifest.path_of(fields.file), suspects.has_row(fields)
            has_file = row.number not in suspects.reported and suspects.has_file(path)
            if fingerprint is not None or has_file:
                # Certificates made from one template may differ in their last bytes only, so hash the whole file.
                yield _Suspect(row.number, fields, fingerprint, has_file, hashes.read(path))
            else:
                yield None


def _ahead(items: Iterator[_T | None]) -> Iterator[_T | None]:
    """Yield all in order, but None at once, while the files of the next ones are read."""
    waiting: deque[_T] = deque()
    for item in items:
        if item is None:
            yield None
            continue
        waiting.append(item)
        if len(waiting) > _FILES_AHEAD:
            yield waiting.popleft()
    yield from waiting


class _Firsts(TemporaryDatabase):
    """The first row of each suspected certificate or file, and its person."""

    def __init__(self) -> None:
        super().__init__("CREATE TABLE firsts (key BLOB PRIMARY KEY, row INTEGER, person BLOB) WITHOUT ROWID")

    def of(self, key: bytes, row: int, person: bytes) -> tuple[int, bytes]:
        """Return the first row with this key, and its person: this row, if there is none before."""
        if self.change("INSERT OR IGNORE INTO firsts VALUES (?, ?, ?)", [(key, row, person)]):
            return row, person
        ((row, person),) = self.select("SELECT row, person FROM firsts WHERE key = ?", key)
        return row, person


@frozen
class _Content:
    """The SHA-256 of a whole file and its size in bytes; and the file as it was, if its hash is new to the journal."""

    sha256: bytes
    size: int
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

    def result(self, reading: "Future[_Content]") -> _Content:
        """Wait for what is known of a file.

        Raises:
            OSError: it cannot be read.
            JournalError: the journal cannot be read or written.
        """
        content = reading.result()
        if content.source is not None:
            self._new[content.source] = content.sha256
            if len(self._new) >= _FILES_AHEAD:
                self._remember()
        return content

    def _remember(self) -> None:
        if self._known is not None and self._new:
            with self._lock:
                self._known.remember_hashes(self._new.items())
        self._new.clear()

    def _read(self, path: Path) -> _Content:
        with open_source(path) as stream:
            source = SourceFile.of(path, stream)
            if self._known is not None:
                with self._lock:
                    remembered = self._known.known_hash(path, source.size, source.modified_ns)
                if remembered is not None:
                    return _Content(remembered, source.size, None)
            found = hashlib.file_digest(stream, "sha256").digest()
            # If the file was changed while it was read, the hash is of no single content.
            return _Content(found, source.size, source if source.is_still(stream) else None)
