"""The journal of a migration: its certificates, their POSTs, and the outcome of each.

Nothing is lost and nothing is posted twice, even when the process is killed: each change is on disk before its method
returns, "sending" before the POST, the outcome right after its answer. A certificate is identified by the SHA-256 of
its whole file, its fields and its host, so the manifest may be sorted, extended or renamed. Calls are synchronous and
take a fraction of a millisecond. The journal sends nothing, reads no certificate, and never sees the API key.
"""

import contextlib
import os
import re
import shutil
import sqlite3
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Self

from attrs import evolve
from filelock import BaseFileLock

from springest_async.bulk import schema
from springest_async.bulk.entries import Entry, State
from springest_async.bulk.manifest import Manifest
from springest_async.bulk.plan import Loaded, digest, load
from springest_async.bulk.reader import ENTRY, EPOCH, JournalReader
from springest_async.errors import ConfigurationError, JournalError, JournalInUse

_MIN_FREE_BYTES = 10_000_000  # needed before a POST, so that its outcome can be written

_NEXT = {
    State.SENDING: {State.STORED, State.REJECTED, State.FAILED, State.IN_DOUBT, State.WAITING},
    State.WAITING: {State.WAITING, State.REJECTED, State.FAILED},
    State.IN_DOUBT: {State.IN_DOUBT, State.STORED, State.WAITING},
}
"""The states that may follow in `Journal.ended`; stored, rejected and failed are final for a run."""


def default_path(manifest: Path) -> Path:
    """Return the path of a manifest's journal: ``x.journal`` beside ``x.csv``.

    ``x.failed.csv``, which a run writes, has the same journal, so that uploading it stores nothing twice.
    """
    stem = re.sub(r"\.(failed|in-doubt)(-[0-9]+)?$", "", manifest.stem)
    return manifest.with_name(f"{stem}.journal")


class Journal(JournalReader):
    """The one writer of a journal.

    Usage::

        with Journal.open(default_path(manifest.path)) as journal:
            journal.load(manifest, springest.origin)
            while (entry := journal.next()) is not None:
                entry = journal.identify(entry, size, modified_ns, sha256)
                if entry.state is State.WAITING:
                    journal.sending(entry.id, datetime.now(UTC))
                    ...  # the POST
                    journal.ended(entry.id, State.STORED, at=datetime.now(UTC), springest_id=7)

    All methods raise `JournalError` when the file cannot be written; the change is then undone. An impossible change of
    state is the caller's mistake, and raises AssertionError.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: BaseFileLock) -> None:
        """Not for use: see `open`."""
        super().__init__(path, connection)
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a journal, or create it. Entries that are found "sending" become in doubt.

        Raises:
            JournalInUse: when another process is writing it, or this one already is.
            JournalError: when it cannot be opened or created, or the file is not a journal. The file is left unchanged.
        """
        path = schema.real_path(path)
        schema.check(path)
        try:
            lock = schema.lock(path)
        except JournalInUse as error:
            with contextlib.suppress(JournalError), JournalReader.open(path) as reader:
                error.pid = reader.writer
            raise
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(lock.release)
            if not schema.check(path):
                schema.create(path)
            connection = schema.connect(path, write=True)
            on_failure.callback(connection.close)
            _begin(path, connection)
            on_failure.pop_all()
        return cls(path, connection, lock)

    def close(self) -> None:
        """Close the file and release its lock; closing again does nothing.

        The journal is then a single ordinary file, unless a reader has it open.
        """
        # Everything that matters is on disk already, so an error here only makes the next opening slower.
        with self._one_at_a_time:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("DELETE FROM meta WHERE key = 'pid'")
                self._connection.execute("PRAGMA busy_timeout = 0")
                self._connection.execute("PRAGMA journal_mode = DELETE")
            super().close()
            self._lock.release()

    @property
    def writer(self) -> int:
        """The id of the process that is writing it, which is this one."""
        return os.getpid()

    def load(self, manifest: Manifest, origin: str) -> Loaded:
        """Load a manifest that has passed the preflight.

        Entries that are no longer in the manifest stay in the journal without a row. Failed rows wait again. This
        blocks; ``python -m benchmarks journal`` measures how long a million rows take.

        Raises:
            ManifestError: when the manifest cannot be read to its end, or a row has faults; nothing is changed then.
        """
        folder = manifest.path.parent.absolute()
        self._all("PRAGMA cache_size = -65536")
        try:
            with self._transaction() as connection:
                if connection.execute("SELECT 1 FROM attempt WHERE ended_at IS NULL").fetchone():
                    raise AssertionError("a manifest is loaded while rows are being sent")
                loaded = load(connection, manifest, origin, folder, same_folder=folder == self._loaded_folder())
                connection.execute("INSERT OR REPLACE INTO meta VALUES ('folder', ?)", (self._portable(folder),))
        finally:
            self._all("PRAGMA cache_size = -2000")
        self._folder = folder
        # A million rows make a log as large as the journal itself.
        self._all("PRAGMA wal_checkpoint(TRUNCATE)")
        return loaded

    def next(self, exclude: Collection[int] = ()) -> Entry | None:
        """Return the first waiting row of the manifest, if any; `exclude` has the ids of rows already taken."""
        with self._one_at_a_time, schema.translate_errors(self.path):
            lines = self._connection.execute(f"{ENTRY} WHERE state = 'waiting' AND number IS NOT NULL ORDER BY number")
            with contextlib.closing(lines):
                return next((self._entry(line) for line in lines if line[0] not in exclude), None)

    def remember_hash(self, path: Path, size: int, modified_ns: int, sha256: bytes) -> None:
        """Remember the SHA-256 of a whole file with this size (bytes) and time (ns), so that it is read only once."""
        with self._transaction() as connection:
            self._remember(connection, path, size, modified_ns, sha256)

    def _remember(self, connection: sqlite3.Connection, path: Path, size: int, modified_ns: int, sha256: bytes) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO hash VALUES (?, ?, ?, ?)", (self._portable(path), size, modified_ns, sha256)
        )

    # --- the turn of a row ---

    def identify(self, entry: Entry, size: int, modified_ns: int, sha256: bytes) -> Entry:
        """Record the hash of a waiting row's file, and return the entry that the row has from now on.

        That is usually the same entry. When the journal knows this certificate from an entry without a row, it is that
        entry, and the row may be finished without a POST. When another row has this certificate, the row has failed.

        Args:
            entry: the row, as `next` returned it.
            size: the size of the file in bytes.
            modified_ns: its time (``st_mtime_ns``), taken before it was read.
            sha256: the hash of the whole file.
        """
        with self._transaction() as connection:
            self._remember(connection, entry.path, size, modified_ns, sha256)
            known, fields, conversion_id = self._current(
                connection, entry.id, "sha256, fields, conversion_id", State.WAITING
            )
            identity = (fields, conversion_id, sha256)
            twin, row = connection.execute(
                "SELECT id, number FROM entry WHERE fields = ? AND conversion_id = ? AND sha256 = ? AND id <> ?",
                (*identity, entry.id),
            ).fetchone() or (None, None)
            if row is not None:
                current = entry.id
                connection.execute(
                    "UPDATE entry SET state = 'failed', reason = ? WHERE id = ?",
                    (f"is the same certificate as in row {row}", current),
                )
            else:
                current = twin or entry.id
                if twin is not None or known not in (None, sha256):
                    current = self._replace(connection, entry.id, by=twin)
                connection.execute(
                    "UPDATE entry SET sha256 = ?, size = ?, modified_ns = ? WHERE id = ?",
                    (sha256, size, modified_ns, current),
                )
            found = self._entry(connection.execute(f"{ENTRY} WHERE id = ?", (current,)).fetchone())
            if digest(found, found.origin) != fields:
                raise JournalError(self.path, schema.DAMAGED)  # it would be sent for another person
            (changed,) = connection.execute(
                "SELECT EXISTS (SELECT 1 FROM entry WHERE number IS NULL"
                " AND state IN ('stored', 'rejected', 'in doubt') AND file = ?"
                " AND fields = ? AND conversion_id = ? AND sha256 IS NOT ? AND id <> ?)",
                (entry.file, *identity, current),
            ).fetchone()
        return evolve(found, changed=bool(changed))

    def _replace(self, connection: sqlite3.Connection, old: int, *, by: int | None) -> int:
        """Move an entry's row to the entry `by`, or to a new one; return that entry's id."""
        number, copy = connection.execute("SELECT number, copy FROM entry WHERE id = ?", (old,)).fetchone()
        connection.execute("UPDATE entry SET number = NULL, copy = 0 WHERE id = ?", (old,))
        if by is None:
            by = connection.execute(
                "INSERT INTO entry (number, copy, state, file, fields, certification_id, email, valid_from,"
                " valid_until, conversion_id, origin, extra) SELECT ?, ?, 'waiting', file, fields, certification_id,"
                " email, valid_from, valid_until, conversion_id, origin, extra FROM entry WHERE id = ?",
                (number, copy, old),
            ).lastrowid
        else:
            connection.execute(
                "UPDATE entry SET number = ?, copy = ?, file = row.file, email = row.email, extra = row.extra,"
                " state = CASE entry.state WHEN 'failed' THEN 'waiting' ELSE entry.state END,"
                " reason = CASE entry.state WHEN 'failed' THEN '' ELSE entry.reason END"
                " FROM entry AS row WHERE row.id = ? AND entry.id = ?",
                (number, copy, old, by),
            )
        # An entry without a hash was never sent, so it need not be kept.
        connection.execute("DELETE FROM entry WHERE id = ? AND sha256 IS NULL", (old,))
        assert by is not None
        return by

    def sending(self, entry_id: int, sent_at: datetime) -> None:
        """Record that a POST of a waiting, identified entry is sent at `sent_at`; call it before sending.

        Raises:
            JournalError: when that cannot be written, or less than 10 MB are free on the disk, or an earlier POST has
                stored the certificate. Do not send the POST then.
        """
        with self._transaction() as connection:
            if shutil.disk_usage(self.path.parent).free < _MIN_FREE_BYTES:
                raise JournalError(
                    self.path, "the disk is nearly full: free some space, then run the same command again"
                )
            (sha256,) = self._current(connection, entry_id, "sha256", State.WAITING)
            if sha256 is None:
                raise AssertionError(f"entry {entry_id} must be identified before it is sent")
            # After a lost write, a page of the file may be valid and out of date.
            if connection.execute(
                "SELECT 1 FROM attempt WHERE entry = ? AND outcome = 'stored'", (entry_id,)
            ).fetchone():
                raise JournalError(self.path, schema.DAMAGED)
            at = _microseconds(sent_at)
            connection.execute(
                "INSERT INTO attempt (entry, number, sent_at) SELECT ?, 1 + count(*), ? FROM attempt WHERE entry = ?",
                (entry_id, at, entry_id),
            )
            connection.execute(
                "UPDATE entry SET state = 'sending', sent_at = ?, given_up_at = NULL, reason = '' WHERE id = ?",
                (at, entry_id),
            )

    def ended(
        self,
        entry_id: int,
        state: State,
        *,
        at: datetime,
        status: int | None = None,
        words: str = "",
        reason: str = "",
        springest_id: int | None = None,
    ) -> None:
        """Record the outcome of an entry's POST, or of its turn without a POST, or of asking Springest about it.

        Args:
            entry_id: the entry's id.
            state: its new state; WAITING after a refusal, or when the server cannot have received it.
            at: when that was known; for IN_DOUBT, when we stopped waiting for the answer.
            status: the HTTP status of the answer, if there was one.
            words: what the server said.
            reason: why, for a person to read.
            springest_id: Springest's id of the certificate, if it is known.
        """
        with self._transaction() as connection:
            (before,) = self._current(connection, entry_id, "state", *_NEXT)
            if state not in _NEXT[State(before)]:
                raise AssertionError(f"entry {entry_id} is {before} and cannot become {state.value}")
            when = _microseconds(at)
            connection.execute(
                "UPDATE attempt SET ended_at = ?, outcome = ?, status = ?, words = ?"
                " WHERE entry = ? AND ended_at IS NULL",
                (when, state.value, status, _storable(words), entry_id),
            )
            # Asking again without success does not change when we stopped waiting.
            connection.execute(
                "UPDATE entry SET state = ?, reason = ?, springest_id = ?,"
                " given_up_at = CASE WHEN ? <> 'in doubt' THEN NULL WHEN state = 'in doubt' THEN given_up_at ELSE ? END"
                " WHERE id = ?",
                (state.value, _storable(reason), _storable_id(springest_id), state.value, when, entry_id),
            )

    def resolve(self, numbers: Collection[int] | None, state: Literal[State.STORED, State.WAITING]) -> int:
        """Record a person's decision about rows in doubt, and return how many rows were changed.

        Args:
            numbers: their rows in the manifest; None for all, also those that are no longer in the manifest.
            state: STORED, or WAITING when it is not stored and should be sent again. A rejected row can be sent again
                too, by its number: Springest may accept it now.

        Raises:
            ConfigurationError: when any of the rows is not in doubt; nothing is changed then.
        """
        reason = f"a person found it {'stored' if state is State.STORED else 'not stored'} at Springest"
        states = "'in doubt', 'rejected'" if numbers is not None and state is State.WAITING else "'in doubt'"
        with self._transaction() as connection:
            found = connection.execute(f"SELECT id, number FROM entry WHERE state IN ({states})").fetchall()  # noqa: S608
            if numbers is not None:
                if wrong := sorted(set(numbers) - {number for _, number in found}):
                    rows = ", ".join(map(str, wrong))
                    raise ConfigurationError(f"not in doubt: row {rows} of the manifest. Nothing was changed.")
                found = [(key, number) for key, number in found if number in numbers]
            connection.executemany(
                "UPDATE entry SET state = ?, reason = ?, given_up_at = NULL WHERE id = ?",
                [(state.value, reason, key) for key, _ in found],
            )
        return len(found)

    # --- for all methods ---

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._one_at_a_time, schema.transaction(self.path, self._connection):
            yield self._connection

    def _current(self, connection: sqlite3.Connection, entry_id: int, columns: str, *states: State) -> Any:
        """Read an entry that must be in one of these states."""
        sql = f"SELECT state, {columns} FROM entry WHERE id = ?"  # noqa: S608 # names of columns
        state, *values = connection.execute(sql, (entry_id,)).fetchone() or (None,)
        if state not in {possible.value for possible in states}:
            raise AssertionError(f"entry {entry_id} is {state or 'unknown'}")
        return values


def _begin(path: Path, connection: sqlite3.Connection) -> None:
    """Become the writer, and put in doubt what the previous writer was sending."""
    now = _microseconds(datetime.now(UTC))
    with schema.translate_errors(path):
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_mode = WAL")
        # After each commit, because people copy the file without the log beside it.
        connection.execute("PRAGMA wal_autocheckpoint = 1")
    with schema.transaction(path, connection):
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('pid', ?)", (os.getpid(),))
        connection.execute(
            "UPDATE entry SET state = 'in doubt', reason = 'interrupted while it was being sent', given_up_at = ?"
            " WHERE id IN (SELECT entry FROM attempt WHERE ended_at IS NULL)",
            (now,),
        )
        connection.execute("UPDATE attempt SET ended_at = ?, outcome = 'in doubt' WHERE ended_at IS NULL", (now,))


def _microseconds(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


def _storable(words: str) -> str:
    # JSON can contain half a surrogate pair, which cannot be encoded.
    return words.encode(errors="backslashreplace").decode()


def _storable_id(springest_id: int | None) -> int | None:
    # JSON numbers have any length, SQLite's have 64 bits. That must not keep us from recording a stored row.
    return springest_id if springest_id is not None and abs(springest_id) < 2**63 else None
