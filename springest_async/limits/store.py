"""A bucket in a file that all processes of this machine share, so that they keep one limit together.

The file is a small SQLite database in the user's state folder: one row for each budget, with the state of the bucket as
JSON and its checksum. It contains no key, only the name of the budget. A killed process leaves nothing to clean up:
SQLite rolls its unfinished change back, and what it held in the bucket expires.

The calls are synchronous and made on the event loop: a call takes less than a millisecond (and a flush of the disk when
it writes), and there are three or four for a POST, thus a few in a second. In a thread they would interleave with
changes of the event loop.

The clock is the machine's own (`time.monotonic`) and not the wall clock, which people and time servers set. It counts
from the boot and is the same in all processes. Each row contains the time when it was written. A time in the future
shows that the machine was booted since; the times that were left then are counted from the boot. When the machine has
already been up for longer than at that time, the boot cannot be seen, and no more time is left than was left then. In
both cases less time seems to have passed than has, so the limit is kept, and no POST waits longer than without a boot.
"""

import json
import os
import sqlite3
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import frozen
from platformdirs import user_state_path

from springest_async.errors import ConfigurationError
from springest_async.limits.bucket import Bucket

__all__ = ["FileStore", "default_path"]

_APPLICATION_ID = 0x53505247  # "SPRG": marks the file as ours
_VERSION = 3
# Without a second index that could contradict the table: `quick_check` does not compare them.
_TABLES = (
    "CREATE TABLE budgets (name TEXT PRIMARY KEY, state TEXT NOT NULL, written_at REAL NOT NULL,"
    " checksum INTEGER NOT NULL) WITHOUT ROWID"
)

# A budget that was not used for so long is removed, and with it the slow pace that a server had asked for.
_FORGOTTEN_AFTER = 3600.0

# The clocks of two cores may differ a little: a row that is newer than now by less was not written before a boot.
_CLOCK_TOLERANCE = 5.0

# Seconds to wait for another process that is writing; it needs a thousandth of a second.
_BUSY_TIMEOUT = 10.0


def default_path() -> Path:
    """Return the path of this user's file: ``limits.sqlite3`` in the state folder, which is XDG's on Linux.

    Raises:
        ConfigurationError: the user has no such folder, as in a container that was started for a number.
    """
    with suppress(RuntimeError):  # some versions of platformdirs raise it, others return a path that begins with ~
        folder = user_state_path("springest", appauthor=False)
        if folder.is_absolute():
            return folder / "limits.sqlite3"
    raise ConfigurationError("there is no folder where the limit can be kept: set HOME or XDG_STATE_HOME")


@frozen
class _Opened:
    """A connection, the process that opened it, and the file (device and inode)."""

    connection: sqlite3.Connection
    pid: int
    file: tuple[int, int] | None


class FileStore:
    """The bucket of one budget in a file, for `Limiter`.

    Args:
        path: the file; it and its folder are created at the first use, for this user only. It must be on a disk of
            this machine.
        budget: the name of what is limited: all users of the same path and budget share one bucket. It is written to
            the file as it is, so it must not contain a key.

    Nothing is opened before the first use. A file of another program, or of another version, is never written to.
    """

    def __init__(self, path: Path, budget: str) -> None:
        self.path = path
        self.budget = budget
        self._opened: _Opened | None = None

    def __repr__(self) -> str:
        return f"<FileStore {self.path}>"

    def now(self) -> float:
        """Return the time of this machine, in seconds since it was booted."""
        return time.monotonic()

    @contextmanager
    def change(self) -> Iterator[Bucket]:
        """Lock the bucket for the block, and write its changes when the block ends normally.

        Raises:
            ConfigurationError: the file cannot be opened, read or written, or contains something else; at the end of
                the block: the changes cannot be written.
        """
        connection = self._connection()
        with self._translate_errors():
            connection.execute("BEGIN IMMEDIATE")
        try:
            with self._translate_errors():
                bucket = self._bucket(connection)
            before = bucket.dump()
            yield bucket
            with self._translate_errors():
                if (state := bucket.dump()) != before:
                    row = (self.budget, json.dumps(state, allow_nan=False), float(self.now()))
                    connection.execute("INSERT OR REPLACE INTO budgets VALUES (?, ?, ?, ?)", (*row, _checksum(*row)))
                connection.execute("COMMIT")
        finally:
            _roll_back(connection)

    def read(self) -> Bucket:
        """Return the bucket as it is, to look at only, without waiting for a lock.

        Raises:
            ConfigurationError: as for `change`.
        """
        connection = self._connection()
        with self._translate_errors():
            return self._bucket(connection)

    def close(self) -> None:
        """Close the file until the next use."""
        opened, self._opened = self._opened, None
        if opened is None:
            return
        if opened.pid == os.getpid():
            opened.connection.close()
        else:
            _inherited.append(opened)

    # --- rows ---

    def _bucket(self, connection: sqlite3.Connection) -> Bucket:
        row = connection.execute("SELECT * FROM budgets WHERE name = ?", (self.budget,)).fetchone()
        return (row and _bucket_of(*row, now=self.now())) or Bucket()

    def _forget_the_unused(self, connection: sqlite3.Connection) -> None:
        now = self.now()
        for row in connection.execute("SELECT * FROM budgets").fetchall():
            if _bucket_of(*row, now=now) is None:
                connection.execute("DELETE FROM budgets WHERE name = ?", row[:1])

    # --- the file ---

    def _connection(self) -> sqlite3.Connection:
        """Return this process's connection to the file that is there now, which may be a new one."""
        opened = self._opened
        if opened is not None and opened.pid == os.getpid() and opened.file == self._file():
            return opened.connection
        self.close()
        with self._translate_errors():
            self._opened = opened = self._open()
        return opened.connection

    def _file(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _open(self) -> _Opened:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives its other files the same mode. Only a new file: closing one that this process has open releases
        # SQLite's locks on it, and another process could then remove the log that we are writing.
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        if not self.path.is_file():
            raise ConfigurationError(f"the limit cannot be kept in {self.path}: it is not a file; remove it")
        file = self._file()
        connection = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return _Opened(connection, os.getpid(), file)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Check that the file is ours, or create its tables if it is new."""
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        try:
            application, version, tables = (
                connection.execute(query).fetchone()[0]
                for query in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
            )
            if (application, version, tables) == (0, 0, 0):
                connection.execute(_TABLES)
                connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {_VERSION}")
            elif application != _APPLICATION_ID:
                raise ConfigurationError(
                    f"{self.path} belongs to another program: move it away, so that the limit can be kept there"
                )
            elif version != _VERSION:
                raise ConfigurationError(
                    f"{self.path} was made by another version of springest_async: use one version on this machine,"
                    " or remove the file and wait a minute before you go on"
                )
            elif connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise ValueError("damaged pages")
            self._forget_the_unused(connection)
            connection.execute("COMMIT")
        finally:
            _roll_back(connection)
        # Refused when other processes have just begun to use the new file; the next one that opens it does it.
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode = WAL")

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raise a `ConfigurationError` that says what is wrong with the file; a ProgrammingError is a bug of ours."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise
        except (OSError, sqlite3.Error, ValueError) as error:
            raise ConfigurationError(f"the limit cannot be kept in {self.path}: {_reason(error)}") from error


_DAMAGED = "it is damaged; remove it, and wait a minute before you go on"
_REASONS = {
    sqlite3.SQLITE_BUSY_TIMEOUT: f"another program has had it locked for {_BUSY_TIMEOUT:g} s",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: you need permission to write to it and its folder",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_READONLY: "it cannot be written: you need permission to write to it and its folder",
}


def _reason(error: OSError | sqlite3.Error | ValueError) -> str:
    match error:
        case OSError():
            return f"{error.strerror}. It needs a little space in a folder that you may write to"
        case sqlite3.Error():
            # The lower byte of the code is the kind of error. What the module raises itself, for a text that is not
            # UTF-8, has no code, and repeats the whole text.
            return _REASONS.get(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF, str(error))
        case _:
            return _DAMAGED


# Connections that a fork inherited: SQLite must not close them in the child, and the garbage collector would.
_inherited: list[_Opened] = []


def _roll_back(connection: sqlite3.Connection) -> None:
    """Undo an unfinished change, if there is one."""
    if connection.in_transaction:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def _checksum(name: str, state: str, written_at: float) -> int:
    return zlib.crc32(repr((name, state, written_at)).encode())


def _bucket_of(name: str, state: str, written_at: float, checksum: int, *, now: float) -> Bucket | None:
    """Return the bucket of a row; None when it has not been used for long.

    Raises:
        ValueError: the row is damaged.
    """
    if checksum != _checksum(name, state, written_at):
        raise ValueError("another checksum")
    bucket = Bucket.load(json.loads(state))
    if written_at > now + _CLOCK_TOLERANCE:
        bucket.shift(-written_at)
        written_at = 0.0
    return None if now - written_at > _FORGOTTEN_AFTER and bucket.is_idle(now) else bucket
