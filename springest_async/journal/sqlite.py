"""A journal in one SQLite file, which any number of processes of one machine share.

Every commit is flushed to the disk (``synchronous=FULL``; macOS: ``fullfsync``). SQLite 3.7.0 to 3.51.2 can lose
commits when one of them begins the log anew while a checkpoint begins (https://sqlite.org/wal.html, section 11). So
nobody commits during a checkpoint: it happens only here, while a connection of its own holds SQLite's write lock, or
in SQLite itself when the last connection closes.

The clock counts the seconds since the machine was booted, and goes on while it sleeps. `meta` keeps the time of the
last commit, to a second: a time in the future shows that the machine was booted since, and all times are then counted
from the boot. When the machine has been up for longer than at that time, the boot cannot be seen, and no more time is
left than was left then. In both cases less time seems to have passed than has, so the limit is kept.
"""

import contextlib
import json
import logging
import math
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from springest_async.errors import JournalError, JournalMissing, JournalUnavailable
from springest_async.journal import place, schema
from springest_async.journal.clock import elapsed
from springest_async.journal.engine import Dialect
from springest_async.limits.bucket import Bucket

APPLICATION_ID = 0x5350524A
"""Marks the file as a journal (bytes 68 to 71: https://www.sqlite.org/fileformat.html)."""

_DIALECT = Dialect(
    key="INTEGER PRIMARY KEY",
    lasting_key="INTEGER PRIMARY KEY AUTOINCREMENT",
    integer="INTEGER",
    real="REAL",
    blob="BLOB",
    by_key=" WITHOUT ROWID",
)

_PRAGMAS = ("synchronous = FULL", "mmap_size = 0", "wal_autocheckpoint = 0", "secure_delete = ON")
_BUSY_SECONDS = 30.0  # for another process that commits; the longest is one that loads a manifest
_PAUSE = 0.002  # seconds between two tries to take the write lock
_MIN_FREE_BYTES = 10_000_000  # needed before a POST, so that its outcome can be written
_CHANGES_PER_CHECKPOINT = 5_000  # of rows: a commit of many fills the log as many commits do

# The clocks of two cores may differ a little: a time that is later than now by less was not before a boot.
_CLOCK_TOLERANCE = 5.0
_BACK_BEFORE_BOOT = 1e-6  # seconds from the boot at which a token counts as back that was back before it
_CLOCK_PRECISION = 1.0  # seconds: to write the time with each commit would cost each a page

_BACKUPS = (
    "A backup does not contain what was sent after it was made, and would send that again:"
    " use one only if nothing was uploaded since"
)
_DAMAGED = f"is damaged. Keep it: only this file says which certificates are stored. {_BACKUPS}"
_GONE = (
    "was deleted, replaced or moved away while it was in use, so no more is sent. Put it back: only this file says"
    f" which certificates are stored. {_BACKUPS}"
)
_ELSEWHERE = "or name another place with --journal or SPRINGEST_JOURNAL"

_REASONS = {
    sqlite3.SQLITE_FULL: f"the disk is full: free some space, then run the same command again, {_ELSEWHERE}",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: f"is not a journal of springest: move it away, {_ELSEWHERE}",
    sqlite3.SQLITE_READONLY: f"cannot be written: check the permissions of the file and its folder, {_ELSEWHERE}",
    sqlite3.SQLITE_CANTOPEN: f"cannot be opened: check that its folder exists and can be written, {_ELSEWHERE}",
    sqlite3.SQLITE_IOERR: f"the disk failed to read or write it: check the disk, {_ELSEWHERE}",
    sqlite3.SQLITE_PROTOCOL: f"this disk does not support locks, {_ELSEWHERE}",
}
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

_log = logging.getLogger(__name__)


class SQLiteEngine:
    """A journal in a file.

    Args:
        path: the file, on a disk of this machine; it is made at the first `connect` with `create`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = str(path)
        self.dialect = _DIALECT

    def __repr__(self) -> str:
        return f"<SQLiteEngine {self.where}>"

    def is_in(self, path: Path) -> bool:
        """Return whether the journal is this file: to open and close it would release the locks of this process."""
        try:
            return self.path.samefile(path)
        except OSError:
            return False

    def clock(self) -> float:
        """Return the seconds since the machine was booted."""
        return elapsed()

    def connect(self, *, create: bool) -> "SQLiteConnection":
        """Open the file; see `Engine.connect`. With `create`, its pages are checked, which takes as long as reading it.

        Raises:
            JournalMissing: there is no file, and `create` is false.
            JournalError: the file cannot be opened or made, is damaged, or is no journal of this version.
        """
        with _translated(self.where):
            place.refuse_network(self.path)
            if create:
                path = place.prepare(self.path)
            else:
                path = self.path.resolve()
                if not path.is_file() or not path.stat().st_size:
                    raise JournalMissing(self.where, "there is no journal yet: springest upload makes it")
            connection = SQLiteConnection(self.where, path)
            try:
                connection.begin(create=create)
            except BaseException:
                connection.close()
                raise
            return connection


class SQLiteConnection:
    """A connection to the file; see `Connection`."""

    def __init__(self, where: str, path: Path) -> None:
        self._where = where
        self._path = path
        self._folder = path.parent
        self._has_space = False  # whether there was enough in this transaction
        self._file: os.stat_result | None = None  # as it was when it was opened
        self._checkpointed = 0  # how many changes there were at the last checkpoint
        self._noted = -math.inf  # the time in `meta`, as this connection wrote it
        self._connection = self._connect(_BUSY_SECONDS)

    def _connect(self, timeout: float) -> sqlite3.Connection:
        # The journal's thread uses it, and another one opens and closes it.
        uri = f"{self._path.absolute().as_uri()}?mode=rw"
        return sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False)

    def begin(self, *, create: bool) -> None:
        """Prepare the connection, and make or check the journal; called once."""
        self._file = self._path.stat()
        # Only SQLite ever opens the file: closing it in another way would drop the locks of this process (POSIX).
        execute = self._connection.execute
        for pragma in _PRAGMAS:
            execute(f"PRAGMA {pragma}")
        if sys.platform == "darwin":
            execute("PRAGMA fullfsync = ON")
        size = self._path.stat().st_size
        with self.snapshot():  # another process may be making it
            application, version, tables, pages = (
                execute(query).fetchone()[0]
                for query in (
                    "PRAGMA application_id",
                    "PRAGMA user_version",
                    "SELECT count(*) FROM sqlite_master",
                    "PRAGMA page_count",
                )
            )
        if size and not pages:  # SQLite would overwrite a few bytes as if there were none
            raise JournalError(self._where, _REASONS[sqlite3.SQLITE_NOTADB])
        if (application, version, tables) == (0, 0, 0):
            if not create:
                raise JournalMissing(self._where, "there is no journal yet: springest upload makes it")
            # Here SQLite itself does not wait, when another process does the same.
            _execute_patiently(self._connection, "PRAGMA journal_mode = WAL")
            with self.transaction():
                if not execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    self._create()
        elif application == place.OLD_APPLICATION_ID:
            raise JournalError(self._where, place.OLD_JOURNAL)
        elif application != APPLICATION_ID:
            raise JournalError(self._where, _REASONS[sqlite3.SQLITE_NOTADB])
        elif version != schema.VERSION:
            raise JournalError(
                self._where,
                f"was made by another version of springest (its format is {version}, not {schema.VERSION}):"
                " use that version",
            )
        if create and execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise JournalError(self._where, _DAMAGED)
        with self.transaction():
            (text,) = execute("SELECT value FROM meta WHERE key = 'clock'").fetchone()
            if float(text) > elapsed() + _CLOCK_TOLERANCE:
                self._count_from_boot(float(text))
        execute("PRAGMA busy_timeout = 0")  # from now on only `_execute_patiently` waits

    def _create(self) -> None:
        for statement in schema.statements(_DIALECT):
            self._connection.execute(statement)
        self._connection.execute("INSERT INTO meta VALUES ('clock', ?)", (repr(elapsed()),))
        self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self._connection.execute(f"PRAGMA user_version = {schema.VERSION}")

    def _count_from_boot(self, before: float) -> None:
        """Move all times, which were counted from an earlier boot; `before` is the time of the last commit."""
        for statement in (
            "UPDATE workers SET lease_until = lease_until - ?",
            "UPDATE certificates SET given_up = given_up - ? WHERE state = 'in doubt'",
            "UPDATE attempts SET counted_until = counted_until - ? WHERE counted_until IS NOT NULL",
            "UPDATE attempts SET sent = sent - ?",
        ):
            self._connection.execute(statement, (before,))
        # A token that was back then is back now, too. It is not 0, which says that a POST never left.
        self._connection.execute(
            "UPDATE attempts SET back_at = max(back_at - ?, ?) WHERE back_at > 0", (before, _BACK_BEFORE_BOOT)
        )
        for name, state in self._connection.execute("SELECT name, state FROM budgets").fetchall():
            bucket = Bucket.load(json.loads(state), ())
            bucket.shift(-before)
            self._connection.execute(
                "UPDATE budgets SET version = version + 1, state = ? WHERE name = ?",
                (json.dumps(bucket.dump(), allow_nan=False), name),
            )

    def now(self) -> float:
        """Return the seconds since the machine was booted."""
        return elapsed()

    def execute(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run a statement; see `Connection.execute`."""
        try:  # not `_translated`, which costs as much as a statement
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error:
            with _translated(self._where):
                raise

    def executemany(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """Run a statement for each sequence of values."""
        with _translated(self._where):
            self._connection.executemany(sql, rows)

    def check_space(self) -> None:
        """Raise `JournalError` if the disk is so full that an outcome might not be written, or the file is gone."""
        if self._has_space:  # once in a transaction, which many POSTs may share
            return
        with _translated(self._where):
            self._require_file()
            free = shutil.disk_usage(self._folder).free
        if free < _MIN_FREE_BYTES:
            raise JournalError(self._where, _REASONS[sqlite3.SQLITE_FULL].replace("is full", "is nearly full"))
        self._has_space = self._connection.in_transaction

    def _require_file(self) -> None:
        if not self._is_there():
            raise JournalError(self._where, _GONE)

    def _is_there(self) -> bool:
        """Return whether the path still leads to the open file; SQLite itself would go on without it."""
        try:
            return self._file is not None and os.path.samestat(self._path.stat(), self._file)
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block as one transaction; see `Connection.transaction`."""
        connection = self._connection
        with _translated(self._where):
            _execute_patiently(connection, "BEGIN IMMEDIATE")
            try:
                changes, self._has_space = connection.total_changes, False
                yield
                noted, now = self._noted, elapsed()
                if connection.total_changes != changes and not 0 <= now - noted < _CLOCK_PRECISION:
                    connection.execute("UPDATE meta SET value = ? WHERE key = 'clock'", (repr(now),))
                    noted = now
                connection.execute("COMMIT")
                self._noted = noted
            except BaseException:
                if connection.in_transaction:  # on a full disk SQLite has rolled back already
                    connection.execute("ROLLBACK")
                raise
            if connection.total_changes - self._checkpointed >= _CHANGES_PER_CHECKPOINT:
                self._checkpointed = connection.total_changes
                try:
                    self._checkpoint()
                except sqlite3.Error as error:  # the commit is durable: only the log cannot be made shorter
                    _log.warning("%s: no checkpoint: %s", self._where, error)

    def _checkpoint(self) -> None:
        """Copy the log into the file, as far as nobody reads what is older, while nobody commits."""
        if not self._is_there():
            return  # the lock would be another file's
        with contextlib.closing(self._connect(0)) as other:
            _execute_patiently(other, "BEGIN IMMEDIATE")
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read one consistent state in the block; see `Connection.snapshot`."""
        with _translated(self._where):
            self._require_file()
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def size(self) -> int:
        """Return the bytes of the file and of its log."""
        with _translated(self._where):
            return self._path.stat().st_size + self._log_size()

    def _log_size(self) -> int:
        log = self._path.with_name(f"{self._path.name}-wal")
        return log.stat().st_size if log.exists() else 0

    def erase(self) -> None:
        """Remove what was deleted from the file and its log, which a deletion alone leaves there."""
        with _translated(self._where):
            _execute_patiently(self._connection, "VACUUM")
            # Not `wal_checkpoint(TRUNCATE)`, which goes on without the write lock when it has waited for long. The
            # first commit after all was copied begins the log anew, and cuts off what is behind it.
            self._connection.execute("PRAGMA journal_size_limit = 0")
            before, ends = self._log_size(), time.monotonic() + _BUSY_SECONDS
            while True:
                self._checkpoint()
                with self.transaction():
                    self._connection.execute(f"PRAGMA user_version = {schema.VERSION}")  # writes the page as it is
                if self._log_size() < before:
                    return
                if time.monotonic() > ends:
                    raise _busy(self._where)
                time.sleep(_PAUSE)

    def close(self) -> None:
        """Close the file; closing again does nothing."""
        # The last connection copies the log into the file. Everything is on disk already, so no error matters.
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()


def _execute_patiently(connection: sqlite3.Connection, statement: str) -> None:
    """Run a statement that needs the write lock, and ask for that again while another process has it.

    SQLite itself pauses for longer and longer, so that those who have come later would take it first.
    """
    ends = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute(statement)
        except sqlite3.OperationalError as error:
            if _kind_of(error) not in _BUSY or time.monotonic() > ends:
                raise
            time.sleep(_PAUSE)
        else:
            return


def _kind_of(error: sqlite3.Error) -> int:
    # It is the lower byte of a code. For text that is not UTF-8 Python sets no code.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF


def _busy(where: str) -> JournalUnavailable:
    return JournalUnavailable(where, f"another program has had it locked for {_BUSY_SECONDS:g} s")


@contextlib.contextmanager
def _translated(where: str) -> Iterator[None]:
    """Raise errors of SQLite and the disk as a `JournalError`; a `sqlite3.ProgrammingError` is our own bug."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except sqlite3.Error as error:
        code = _kind_of(error)
        if code in _BUSY:
            raise _busy(where) from error
        raise JournalError(where, _REASONS.get(code, f"cannot be used as a journal: {error}")) from error
    except UnicodeDecodeError as error:  # SQLite's message may quote invalid text
        raise JournalError(where, _DAMAGED) from error
    except OSError as error:
        reason = f"{error.strerror or 'cannot be opened'}: check the file and its folder, {_ELSEWHERE}"
        raise JournalError(where, reason) from error
