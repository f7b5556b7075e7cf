"""What a journal knows of the files of one manifest, for a thread that checks all of them before the first POST."""

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from springest_async.journal import certificates, file_hashes, loading, migrations
from springest_async.journal.engine import Connection
from springest_async.journal.identity import CertificateFields
from springest_async.journal.journal import Journal
from springest_async.journal.migrations import Source
from springest_async.journal.records import State
from springest_async.source_file import SourceFile


class KnownFiles:
    """Reads a journal on a connection of its own; it blocks, so it is for a thread.

    Usage::

        with KnownFiles(journal, source) as known:
            known.settled_state(fields, "a.pdf")

    All methods raise `JournalError` when the journal cannot be read or written.
    """

    def __init__(self, journal: Journal, source: Source) -> None:
        self._journal = journal
        self._source = source
        self._connection: Connection | None = None
        self._migration: int | None = None

    def __enter__(self) -> Self:
        self._connection = self._journal.connect()
        with self._connection.snapshot():
            self._migration = migrations.find(self._connection, self._source)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with closing(self._open()):
            self._connection = None

    def _open(self) -> Connection:
        assert self._connection is not None
        return self._connection

    def settled_state(self, fields: CertificateFields, file: str) -> State | None:
        """Return the state of a row whose file need not be checked, or None; see `loading.settled_state`."""
        connection = self._open()
        with connection.snapshot():
            return loading.settled_state(connection, self._source, self._migration, fields, file)

    def listed_as(self, looks: bytes) -> list[int | None]:
        """Return the ids of the certificates that Springest may list in this way; see `certificates.listed_as`."""
        connection = self._open()
        with connection.snapshot():
            return certificates.listed_as(connection, looks)

    def known_hash(self, path: Path, size: int, modified_ns: int) -> bytes | None:
        """Return the SHA-256 of the whole file when it had this size (bytes) and time (ns), if it is known."""
        connection = self._open()
        with connection.snapshot():
            return file_hashes.known_hash(connection, self._source.machine, path, size, modified_ns)

    def remember_hashes(self, files: Iterable[tuple[SourceFile, bytes]]) -> None:
        """Remember the SHA-256 of whole files, so that they are read only once; all are one commit."""
        connection = self._open()
        with connection.transaction():
            for file, sha256 in files:
                file_hashes.remember_hash(
                    connection, self._source.machine, file.path, file.size, file.modified_ns, sha256
                )
