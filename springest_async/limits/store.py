"""A bucket in a file that all processes of this machine share, so that they keep one limit together.

The file is a small SQLite database in the user's state folder: one row for each budget, with the state of the bucket as
JSON and its checksum. It contains no key, only the name of the budget. A killed process leaves nothing to clean up:
SQLite rolls its unfinished change back, and what it held in the bucket expires.

Each call opens the file and closes it again, so that a fork inherits nothing, a thousand keys keep no file open, and a
file that was removed is made anew. The calls are synchronous and made on the event loop: a call takes about a
millisecond (and flushes the disk when it writes), and there are three or four for a POST, thus a few in a second. In a
thread they would interleave with changes of the event loop.

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
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from platformdirs import user_state_path

from springest_async.errors import ConfigurationError
from springest_async.limits.bucket import Bucket

_APPLICATION_ID = 0x53505247  # "SPRG": marks the file as ours
_VERSION = 3
# Without a second index that could contradict the table: `quick_check` does not compare them.
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS budgets (name PRIMARY KEY, state TEXT, written_at REAL, checksum INT) WITHOUT ROWID",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_VERSION}",
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


class FileStore:
    """The bucket of one budget in a file, for `Limiter`.

    Args:
        path: the file; it and its folder are created at the first use, for this user only. It must be on a disk of
            this machine.
        budget: the name of what is limited: all users of the same path and budget share one bucket. It is written to
            the file as it is, so it must not contain a key.

    A file of another program, or of another version, is never written to.
    """

    def __init__(self, path: Path, budget: str) -> None:
        self.path = path
        self.budget = budget

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
        with self._open("IMMEDIATE") as connection:
            with self._translate_errors():
                bucket, unused = self._load(connection)
            before = bucket.dump()
            yield bucket
            with self._translate_errors():
                if (state := bucket.dump()) != before:
                    row = (self.budget, json.dumps(state, allow_nan=False), float(self.now()))
                    for statement in _SCHEMA:
                        connection.execute(statement)
                    connection.executemany("DELETE FROM budgets WHERE name = ?", unused)
                    connection.execute("INSERT OR REPLACE INTO budgets VALUES (?, ?, ?, ?)", (*row, _checksum(*row)))
                connection.execute("COMMIT")

    def read(self) -> Bucket:
        """Return the bucket as it is, to look at only, without waiting for a lock.

        Raises:
            ConfigurationError: as for `change`.
        """
        with self._open("DEFERRED") as connection, self._translate_errors():
            return self._load(connection)[0]

    @contextmanager
    def _open(self, transaction: str) -> Iterator[sqlite3.Connection]:
        """Open the file for a transaction, which is undone unless it is committed."""
        with self._translate_errors():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # SQLite gives its other files the same mode.
            with suppress(FileExistsError):
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            if not self.path.is_file():
                raise ConfigurationError(f"the limit cannot be kept in {self.path}: it is not a file; remove it")
            connection = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT, isolation_level=None)
        with closing(connection):
            with self._translate_errors():
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute(f"BEGIN {transaction}")
            yield connection

    def _load(self, connection: sqlite3.Connection) -> tuple[Bucket, list[tuple[str]]]:
        """Return the bucket, and the names of the budgets that have not been used for long.

        Raises:
            ConfigurationError: the file is not ours.
            ValueError: it is damaged, perhaps in the name of this budget.
        """
        bucket, now = Bucket(), self.now()
        unused: list[tuple[str]] = []
        application, version, tables = (
            connection.execute(query).fetchone()[0]
            for query in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
        )
        if (application, version, tables) == (0, 0, 0):
            return bucket, unused
        if application != _APPLICATION_ID:
            raise ConfigurationError(
                f"{self.path} belongs to another program: move it away, so that the limit can be kept there"
            )
        if version != _VERSION:
            raise ConfigurationError(
                f"{self.path} was made by another version of springest_async: use one version on this machine,"
                " or remove the file and wait a minute before you go on"
            )
        if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise ValueError("damaged pages")
        for name, state, written_at, checksum in connection.execute("SELECT * FROM budgets"):
            if checksum != _checksum(name, state, written_at):
                raise ValueError("another checksum")
            if name != self.budget and now - written_at <= _FORGOTTEN_AFTER:
                continue
            found = Bucket.load(json.loads(state))
            if written_at > now + _CLOCK_TOLERANCE:
                found.shift(-written_at)
                written_at = 0.0  # noqa: PLW2901
            if now - written_at > _FORGOTTEN_AFTER and found.is_idle(now):
                unused.append((name,))
            elif name == self.budget:
                bucket = found
        return bucket, unused

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raise a `ConfigurationError` that says what is wrong with the file; a ProgrammingError is a bug of ours."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise
        except (OSError, sqlite3.Error, ValueError) as error:
            # The lower byte of the code is the kind of error. What the module raises itself, for a text that is not
            # UTF-8, has no code, and repeats the whole text.
            reason = _REASONS.get(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF, str(error))
            if isinstance(error, OSError):
                reason = f"{error.strerror}. It needs a little space in a folder that you may write to"
            raise ConfigurationError(f"the limit cannot be kept in {self.path}: {reason}") from error


_DAMAGED = "it is damaged; remove it, and wait a minute before you go on"
_REASONS = {
    sqlite3.SQLITE_BUSY_TIMEOUT: f"another program has had it locked for {_BUSY_TIMEOUT:g} s",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: you need permission to write to it and its folder",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_READONLY: "it cannot be written: you need permission to write to it and its folder",
}


def _checksum(name: str, state: str, written_at: float) -> int:
    return zlib.crc32(repr((name, state, written_at)).encode())
