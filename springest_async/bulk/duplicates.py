"""Find the rows of a manifest that have the same certificate: the same fields, and files with the same content.

Files are read whole for that, but only those of rows whose fields are, or seem to be, the same as another row's.
"""

import hashlib
import os
from collections import deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self, TypeVar

from attrs import frozen

from springest_async.bulk.findings import Finding, Kind
from springest_async.errors import InvalidUpload
from springest_async.journal.identity import identity, row_digests
from springest_async.journal.known_files import KnownFiles
from springest_async.manifest.manifest import Fields, Manifest
from springest_async.source_file import SourceFile, open_source

_FILES_AHEAD = 64

_T = TypeVar("_T")


def fingerprint(fields: Fields, origin: str) -> bytes:
    """Return a digest of all that makes a certificate, except for its file."""
    return row_digests(fields, origin, "")[0]


def duplicates(
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
                yield Finding(Kind.TWICE, row, "file", f"is the same certificate as in row {earlier}")


def _suspect_rows(
    manifest: Manifest, suspects: Collection[bytes], hashes: "_Hashes", origin: str
) -> Iterator[tuple[int, Fields, "Future[_Content]"]]:
    with closing(iter(manifest)) as rows:
        for row in rows:
            try:
                fields = manifest.fields(row)
            except InvalidUpload:
                continue  # already reported
            if fingerprint(fields, origin) in suspects:
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
        with open_source(path) as stream:
            source = SourceFile.of(path, stream)
            if self._known is not None:
                with self._lock:
                    remembered = self._known.known_hash(path, source.size, source.modified_ns)
                if remembered is not None:
                    return _Content(remembered, None)
            found = hashlib.file_digest(stream, "sha256").digest()
            # If the file was changed while it was read, the hash is of no single content.
            return _Content(found, source if source.is_still(stream) else None)
