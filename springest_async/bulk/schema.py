"""The file of a journal: how it is made, opened and locked, and what goes wrong with it, in plain words.

SQLite in WAL mode while somebody writes, so that others can read meanwhile; an ordinary SQLite file afterwards, so
that it can be copied alone. What is no journal is told and never touched. What its lines mean is `journal`'s business.
"""

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from springest_async import sqlite_file
from springest_async.bulk.entries import State
from springest_async.errors import JournalError, JournalInUse
from springest_async.source_file import open_regular

__all__ = [
    "DAMAGED",
    "begin",
    "check",
    "connect",
    "create",
    "is_locked",
    "located",
    "lock",
    "transaction",
    "translate_errors",
]

_BACKUPS = (
    "A copy from a backup does not know what was sent after it was made, and would send that again:"
    " take one only if there was no run after that"
)

DAMAGED = f"is damaged. Keep it: without it nobody knows which certificates are stored. {_BACKUPS}"

_APPLICATION_ID = 0x53505247  # "SPRG"
_VERSION = 1  # any other letter in the statements below is another version

# A row of a manifest is 128 Ki characters at most, which JSON may write as twelve bytes each.
_LONGEST_LINE = 4 * 1024 * 1024  # bytes

_STATES = ", ".join(f"'{state.value}'" for state in State)

# `fields` is the digest of all that the certificates of one person, certification and dates have in common. `copy`
# tells apart the rows of one manifest with the same file and fields (1, 2 …); at 0, the file has become another one.
# `conversion_id` is 0 for none, because NULLs are never equal. Times are microseconds since 1970, UTC.
_SCHEMA = f"""
BEGIN;
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE entry (
    id INTEGER PRIMARY KEY,
    number INTEGER,
    state TEXT NOT NULL,
    file TEXT NOT NULL,
    copy INTEGER NOT NULL,
    fields BLOB NOT NULL,
    certification_id INTEGER NOT NULL,
    email TEXT NOT NULL,
    valid_from TEXT NOT NULL,
    valid_until TEXT,
    conversion_id INTEGER NOT NULL,
    origin TEXT NOT NULL,
    extra TEXT,
    sha256 BLOB,
    size INTEGER,
    modified_ns INTEGER,
    springest_id INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    sent_at INTEGER,
    given_up_at INTEGER
);
CREATE INDEX entry_turn ON entry (state, number) WHERE number IS NOT NULL;
CREATE UNIQUE INDEX entry_row ON entry (file, fields, conversion_id, copy) WHERE copy > 0;
CREATE UNIQUE INDEX entry_identity ON entry (fields, conversion_id, sha256) WHERE sha256 IS NOT NULL;
CREATE INDEX entry_settled_file ON entry (file) WHERE number IS NULL AND state IN ('stored', 'rejected', 'in doubt');
CREATE INDEX entry_sibling ON entry (fields) WHERE state IN ('stored', 'in doubt', 'sending');
CREATE INDEX entry_doubt ON entry (number) WHERE state = 'in doubt';
CREATE TABLE attempt (
    entry INTEGER NOT NULL REFERENCES entry (id),
    number INTEGER NOT NULL,
    sent_at INTEGER NOT NULL,
    ended_at INTEGER,
    outcome TEXT,
    status INTEGER,
    words TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (entry, number)
) WITHOUT ROWID;
CREATE INDEX attempt_running ON attempt (entry) WHERE ended_at IS NULL;
CREATE TABLE hash (
    path BLOB PRIMARY KEY,
    size INTEGER NOT NULL,
    modified_ns INTEGER NOT NULL,
    sha256 BLOB NOT NULL
) WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
COMMIT;
"""

_REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full: make room, and start again",
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_TOOBIG: DAMAGED,
    sqlite3.SQLITE_NOTADB: "is no journal of springest: move it away, or name another one",
    sqlite3.SQLITE_READONLY: "cannot be written: check the permissions of the file and its folder",
    sqlite3.SQLITE_READONLY_ROLLBACK: "a run was killed in the middle of closing it: springest upload mends that",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: check that its folder exists and can be written",
    sqlite3.SQLITE_IOERR: "the disk failed to read or write it: check the disk, and start again",
    sqlite3.SQLITE_BUSY: "another program has it open and does not let go: close that, and start again",
}


@contextlib.contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """Raise what SQLite and the disk raise as a `JournalError` of this journal.

    A `sqlite3.ProgrammingError` is a mistake of ours and goes through as it is.
    """
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except sqlite3.DatabaseError as error:
        # Constraints and broken SQL have no plain words: they come from a file that is not what it was made as. Python
        # has no code for what is no text, and repeats all of it.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
        reason = _REASONS.get(code) or _REASONS.get(code & 0xFF) or f"cannot be used as a journal: {error}"
        raise JournalError(path, reason) from error
    except UnicodeDecodeError as error:  # SQLite quotes in its message what it cannot make sense of
        raise JournalError(path, DAMAGED) from error
    except OSError as error:
        raise JournalError(path, error.strerror or "cannot be opened") from error


@contextlib.contextmanager
def transaction(path: Path, connection: sqlite3.Connection) -> Iterator[None]:
    """Do all or nothing; it is on disk when this ends.

    Raises:
        JournalError: when that cannot be done.
    """
    with translate_errors(path):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            # A full disk has rolled it back already.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def begin(path: Path, connection: sqlite3.Connection) -> None:
    """Prepare to write so that a commit is on disk when it returns, and others can read meanwhile.

    Raises:
        JournalError: when it cannot be written.
    """
    with translate_errors(path):
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_mode = WAL")
        # After each commit, so that the file alone says what is stored: people copy it without the log beside it.
        connection.execute("PRAGMA wal_autocheckpoint = 1")


def located(path: Path) -> Path:
    """Tell where a journal is, whatever links lead to it: one file has one lock.

    Raises:
        JournalError: when there is no such place.
    """
    try:
        return Path(os.path.realpath(path))
    except ValueError:
        raise JournalError(path, "is no name that a file can have") from None
    except FileNotFoundError:
        raise JournalError(path, "the folder that this program was started in is gone") from None


def check(path: Path) -> bool:
    """Say whether there is a journal, or no file yet.

    Raises:
        JournalError: when something else is there. It is only looked at, since SQLite would change it.
    """
    with translate_errors(path):
        if (strange := sqlite_file.irregular_sidecar(path, ".lock")) is not None:
            raise JournalError(path, f"{strange.name} beside it is no file: remove it")
        try:
            with open_regular(path) as stream:
                header = stream.read(100)
        except FileNotFoundError:
            return False
    if not header.strip(b"\0"):
        # No run leaves one, but a crash of the machine, or a copy that broke off, may make one of a full journal.
        raise JournalError(path, f"is empty. Remove it if no run has ever written it. {_BACKUPS}")
    # "The Database Header" on https://www.sqlite.org/fileformat.html: the application's id is at offset 68.
    if not header.startswith(b"SQLite format 3\0") or header[68:72] != _APPLICATION_ID.to_bytes(4, "big"):
        raise JournalError(path, _REASONS[sqlite3.SQLITE_NOTADB])
    return True


def create(path: Path) -> None:
    """Make an empty journal that only its owner can read: whole, or not at all. The caller holds the lock.

    Raises:
        JournalError: when it cannot be written.
    """
    fresh = path.with_name(f"{path.name}.new")
    with translate_errors(path):
        fresh.unlink(missing_ok=True)
        os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            with contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as connection:
                connection.executescript(_SCHEMA)
            fresh.replace(path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        if os.name == "posix":  # elsewhere a folder cannot be opened
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def connect(path: Path, *, write: bool) -> sqlite3.Connection:
    """Open a journal that is there and is as it should be, which takes as long as reading it.

    To write takes ten times as long, because indexes are compared with their tables as well: either may be asked
    whether a certificate was sent, and where one is damaged they answer differently.

    Raises:
        JournalError: when it cannot be opened, is damaged, or was made by another version or program. It is left as it
            is then.
    """
    with translate_errors(path):
        if write:
            if path.stat().st_nlink > 1:
                # The lock is beside each name, so another run could send the same certificates under the other one.
                raise JournalError(path, "has another name (a hard link): remove that, or make a copy of it")
            beside = {end for end in ("-journal", "-wal") if path.with_name(f"{path.name}{end}").exists()}
            if beside == {"-journal"}:
                _open(path, "rw").close()  # undoes what a killed writer had begun, which a reader may not
            # Before: whoever may write copies the log beside it into the file when it closes, damaged or not.
            with contextlib.closing(_open(path, "ro")) as looking:
                _look_through(path, looking, indexes=True)
            return _open(path, "rw")
        connection = _open(path, "ro")
        try:
            _look_through(path, connection, indexes=False)
        except BaseException:
            connection.close()
            raise
    return connection


def _open(path: Path, mode: str) -> sqlite3.Connection:
    # One thread at a time, which the journal sees to: the preflight runs in another one.
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    try:
        sqlite_file.set_defensive_pragmas(connection, _LONGEST_LINE)
        _check_version(path, connection)
        connection.execute("PRAGMA temp_store = FILE")
    except BaseException:
        connection.close()
        raise
    return connection


def _check_version(path: Path, connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != _VERSION:
        reason = f"was made by another version of springest (its format is {version}, not {_VERSION}): use that one"
        raise JournalError(path, reason)


def _look_through(path: Path, connection: sqlite3.Connection, *, indexes: bool) -> None:
    if not sqlite_file.has_tables(connection, _SCHEMA):
        raise JournalError(path, f"has other tables than springest makes. Keep it. {_BACKUPS}")
    # A CHECK in the table would not do: SQLite leaves it out where it may only read.
    no_state = f"SELECT EXISTS (SELECT 1 FROM entry WHERE state NOT IN ({_STATES}))"  # noqa: S608 # constants
    if not sqlite_file.passes_integrity_check(connection, indexes=indexes) or connection.execute(
        no_state
    ).fetchone() != (0,):
        raise JournalError(path, DAMAGED)


def lock(path: Path) -> BaseFileLock:
    """Take the lock of the one writer; whoever holds it releases it, or dies.

    Raises:
        JournalInUse: when somebody else has it; `pid` is not known here.
        JournalError: when there can be no lock.
    """
    with translate_errors(path):
        if not path.parent.is_dir():
            raise JournalError(path, "there is no such folder")
        taken = FileLock(_lock_path(path), mode=0o600, thread_local=False)
        try:
            # Not at once: a reader that asks whether somebody writes holds it for a moment.
            taken.acquire(timeout=0.3, poll_interval=0.02)
        except Timeout:
            if not _lock_path(path).exists():
                raise JournalError(path, "cannot be made here: check that its folder can be written") from None
            raise JournalInUse(path, "is in use") from None
        except NotImplementedError:
            raise JournalError(path, "this file system has no locks: put the manifest on another disk") from None
    return taken


def is_locked(path: Path) -> bool:
    """Say whether a writer lives. Makes no file."""
    if not _lock_path(path).exists():
        return False
    with translate_errors(path):
        asked = FileLock(_lock_path(path), mode=0o600, thread_local=False)
        try:
            # Longer than another reader that asks the same holds it.
            asked.acquire(timeout=0.01, poll_interval=0.002)
        except Timeout:
            return True
        except (NotImplementedError, PermissionError):
            return False
        except OSError as error:
            if error.errno == errno.EROFS:  # who writes here, does so from another machine
                return False
            raise
        asked.release()
    return False


def _lock_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")
