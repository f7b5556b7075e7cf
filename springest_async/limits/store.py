"""A bucket in a file that all processes of this machine share, so that they keep one limit together.

The file is a small SQLite database in the user's state folder: one row for each budget, with the bucket's state as
JSON. It holds no key, only the name that the budget was given. A killed process leaves nothing behind that has to be
cleaned up: SQLite undoes its half-made change, and what it held in the bucket ends by itself.

The calls are synchronous, and made on the event loop, on purpose: one takes less than a millisecond, where it writes
the disk's own time to flush is added, there are three or four a POST, hence a few a second at most, and a thread would
let things change in between.

The clock is not the wall's, which people and time servers set, but the machine's own (`time.monotonic`): it counts from
the boot, means the same in all processes, and is read when nobody else can write. Each row says when it was written.
One from the future was written before the machine was booted, and then all that was left at that time is counted from
the boot. Where the machine has been up for longer than at that time, the boot cannot be seen, and what is left now is
no more than what was left then. Either way less time seems to have passed than did, so the limit holds, and nobody
waits longer than without the boot.
"""

import json
import math
import os
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attrs import frozen
from platformdirs import user_state_path

from springest_async import sqlite_file
from springest_async.errors import ConfigurationError
from springest_async.limits.bucket import Bucket

__all__ = ["FileStore", "default_path"]

_APPLICATION_ID = 0x53505247  # "SPRG": marks the file as one of ours, and nobody else's
_VERSION = 1
_TABLES = "CREATE TABLE budgets (name TEXT PRIMARY KEY, state TEXT NOT NULL, written_at REAL NOT NULL)"

# Of a budget that a thousand processes share.
_LONGEST_ROW = 512 * 1024  # bytes

# What would hold a POST back for longer after it was written is none of ours: a server can make us wait for an hour,
# and timeouts and a long line come on top.
_LONGEST_WAIT = 4 * 3600.0

# A budget that nobody used for so long is forgotten, and the pace that a server had asked for with it.
_FORGOTTEN_AFTER = 3600.0

# A row that is newer than now by so little is none of before the boot: clocks of two cores may differ a little.
_SLACK = 5.0

# How long to wait for another process that is writing; it needs a thousandth of a second.
_BUSY = 10.0


def default_path() -> Path:
    """Tell where the file of this user is: ``limits.sqlite3`` in the state folder, which is XDG's on Linux.

    Raises:
        ConfigurationError: when the user has no such folder, as in a container that does not know him.
    """
    with suppress(RuntimeError):  # some versions of platformdirs raise it, the others give a path that begins with ~
        folder = user_state_path("springest", appauthor=False)
        if folder.is_absolute():
            return folder / "limits.sqlite3"
    raise ConfigurationError("there is no folder where the limit can be kept: set HOME or XDG_STATE_HOME")


@frozen
class _Opened:
    """A connection, and the process and file that it was opened by and for."""

    connection: sqlite3.Connection
    pid: int
    file: tuple[int, int] | None

    def close(self) -> None:
        """Close it, unless it was inherited by a fork: then it is the parent's to close."""
        if self.pid == os.getpid():
            self.connection.close()


class FileStore:
    """The bucket of one budget in a file, for `Limiter`.

    Args:
        path: of the file; it and its folder are made when first needed, for this user only. It must be on a disk of
            this machine.
        budget: the name of what is limited: all who give the same path and budget share one bucket. It is kept in the
            file as it is, so it must not be or hold a key.

    Nothing is opened before the first use. A file that is no database of limits, or one of a newer version, is never
    written to.
    """

    def __init__(self, path: Path, budget: str) -> None:
        self.path = path
        self.budget = budget
        self._opened: _Opened | None = None
        self._finalizer: Callable[[], object] = lambda: None

    def __repr__(self) -> str:
        return f"<FileStore {self.path}>"

    def now(self) -> float:
        """Tell the time of this machine, in seconds since it was booted."""
        return time.monotonic()

    @contextmanager
    def change(self) -> Iterator[Bucket]:
        """Give the bucket to this process alone, and keep what was made of it when the block ends normally.

        Raises:
            ConfigurationError: when the file cannot be opened, read or written, or holds something else; at the
                block's end, when what was made of the bucket cannot be kept.
        """
        connection = self._connection()
        with self._explained():
            connection.execute("BEGIN IMMEDIATE")
        try:
            with self._explained():
                before = self._row(connection)
                bucket = self._bucket(before)
            yield bucket
            state = json.dumps(bucket.dump(), allow_nan=False)
            with self._explained():
                if before is None or state != before[0]:
                    connection.execute(
                        "INSERT OR REPLACE INTO budgets (name, state, written_at) VALUES (?, ?, ?)",
                        (self.budget, state, self.now()),
                    )
                connection.execute("COMMIT")
        finally:
            _roll_back(connection)

    def read(self) -> Bucket:
        """Give the bucket as it is, to look at only; waits for nobody.

        Raises:
            ConfigurationError: as for `change`.
        """
        connection = self._connection()
        with self._explained():
            return self._bucket(self._row(connection))

    def close(self) -> None:
        """Close the file, until it is used again. The program's end does it as well."""
        self._opened = None
        self._finalizer()

    # --- rows ---

    def _row(self, connection: sqlite3.Connection) -> tuple[Any, Any] | None:
        row = connection.execute("SELECT state, written_at FROM budgets WHERE name = ?", (self.budget,)).fetchone()
        return None if row is None else (row[0], row[1])

    def _bucket(self, row: tuple[Any, Any] | None) -> Bucket:
        return (row and _bucket_of(*row, now=self.now())) or Bucket()

    def _forget_the_unused(self, connection: sqlite3.Connection) -> None:
        now = self.now()
        for name, *row in connection.execute("SELECT name, state, written_at FROM budgets").fetchall():
            # One that cannot be read is left to those whose budget it is.
            with suppress(ValueError):
                if _bucket_of(*row, now=now) is None:
                    connection.execute("DELETE FROM budgets WHERE name = ?", (name,))

    # --- the file ---

    def _connection(self) -> sqlite3.Connection:
        """Give this process's connection to the file that is there now: it may have been removed and made anew."""
        opened = self._opened
        if opened is not None and opened.pid == os.getpid() and opened.file == self._file():
            return opened.connection
        if opened is not None and opened.pid != os.getpid():
            _inherited.append(opened)
        self.close()
        with self._explained():
            self._opened = opened = self._open()
        self._finalizer = weakref.finalize(self, opened.close)
        return opened.connection

    def _file(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _open(self) -> _Opened:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives its other files the same mode. Only a new file: to close one that this process has open lets go
        # of SQLite's locks on it, and another process would then take away the log from under our hands.
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        if not self.path.is_file():
            raise ConfigurationError(f"the limit cannot be kept in {self.path}: it is no file; remove it")
        if (strange := sqlite_file.irregular_sidecar(self.path)) is not None:
            raise ConfigurationError(f"the limit cannot be kept in {self.path}: {strange} is no file; remove that")
        file = self._file()
        connection = sqlite3.connect(self.path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return _Opened(connection, os.getpid(), file)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make sure that the file is one of ours, or make it one if it is new."""
        sqlite_file.set_defensive_pragmas(connection, _LONGEST_ROW)
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
                raise ConfigurationError(f"{self.path} is of a newer version of springest_async: update this one")
            elif not sqlite_file.has_tables(connection, _TABLES) or not sqlite_file.passes_integrity_check(
                connection, indexes=True
            ):
                raise ValueError("these are no limits of ours")
            self._forget_the_unused(connection)
            connection.execute("COMMIT")
        finally:
            _roll_back(connection)
        # Refused when others have just begun to use the new file; whoever opens it next does it.
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode = WAL")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say in plain words what is wrong with the file. A `sqlite3.ProgrammingError` is a mistake of ours."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise
        except (OSError, sqlite3.Error, ValueError) as error:
            raise ConfigurationError(f"the limit cannot be kept in {self.path}: {_reason(error)}") from error


_DAMAGED = "it is damaged; remove it, and wait a minute before you go on"
_REASONS = {
    sqlite3.SQLITE_BUSY: f"another program has had it locked for {_BUSY:g} s",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: make it and its folder such that you can write to them",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_TOOBIG: _DAMAGED,
    sqlite3.SQLITE_READONLY: "it cannot be written: make it and its folder such that you can write to them",
}


def _reason(error: OSError | sqlite3.Error | ValueError) -> str:
    match error:
        case OSError():
            return f"{error.strerror}. It needs a little room in a folder that you can write to"
        case sqlite3.Error():
            # The lower byte is the kind of error, the rest its details. The module itself has none for what is no text,
            # and repeats all of it.
            return _REASONS.get(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF, str(error))
        case _:
            return _DAMAGED


# Connections of the process that this one was forked from: SQLite must not even close them here.
_inherited: list[_Opened] = []


def _roll_back(connection: sqlite3.Connection) -> None:
    """Undo a change that was not finished, if there is one."""
    if connection.in_transaction:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def _bucket_of(state: Any, written_at: Any, *, now: float) -> Bucket | None:
    """Make a bucket of a row; None when nobody has used it for long.

    Raises:
        ValueError: when the row is damaged.
    """
    if not isinstance(state, str) or not isinstance(written_at, float) or not math.isfinite(written_at):
        raise ValueError("this is no row of ours")  # SQLite keeps what it is given, whatever the column's type
    try:
        bucket = Bucket.load(json.loads(state))
    except RecursionError as error:
        raise ValueError("this is no row of ours") from error
    if bucket.holds_until(written_at) > written_at + _LONGEST_WAIT:
        raise ValueError("this would hold POSTs back for ever")
    if written_at > now + _SLACK:
        bucket.shift(-written_at)
        written_at = 0.0
    return None if now - written_at > _FORGOTTEN_AFTER and bucket.is_idle(now) else bucket
