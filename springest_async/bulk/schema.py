"""The file of a journal: create, open and lock it, and report errors in plain words.

The file is SQLite in WAL mode while a process writes, so that others can read it, and a single ordinary file
afterwards, so that it can be copied. A file that is not a journal is reported and never changed. The meaning of the
rows is in `journal`.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from springest_async.errors import JournalError, JournalInUse
from springest_async.source_file import open_regular

_BACKUPS = (
    "A backup does not contain what was sent after it was made, and would send that again:"
    " use one only if nothing was uploaded since"
)

DAMAGED = f"is damaged. Keep it: only this file says which certificates are stored. {_BACKUPS}"

_APPLICATION_ID = 0x53505247  # "SPRG"
_VERSION = 1  # increase it with any change of the statements below

# `fields` is the digest of person, certification, dates and host (see `plan`). `copy` numbers the rows of one manifest
# that have the same file and fields (1, 2 …), and is 0 after the file has changed. `conversion_id` is 0 for none,
# because NULLs are never equal. Times are microseconds since 1970, UTC.
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

_STATEMENTS = {statement.strip() for statement in _SCHEMA.split(";") if "CREATE" in statement}

_REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space, then run the same command again",
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: "is not a journal of springest: move it away, or choose another name with --journal",
    sqlite3.SQLITE_READONLY: "cannot be written: check the permissions of the file and its folder",
    sqlite3.SQLITE_READONLY_ROLLBACK: "a run was killed while closing it: springest upload repairs that",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: check that its folder exists and can be written",
    sqlite3.SQLITE_IOERR: "the disk failed to read or write it: check the disk, then run the same command again",
    sqlite3.SQLITE_BUSY: "another program keeps it locked: close that program, then run the same command again",
}


@contextlib.contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """Raise errors of SQLite and the disk as a `JournalError`, except `sqlite3.ProgrammingError`, which is our bug."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except sqlite3.DatabaseError as error:
        # Errors of constraints and SQL have no message here: they come from a file that was changed by other means. For
        # invalid text Python sets no code.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
        reason = _REASONS.get(code) or _REASONS.get(code & 0xFF) or f"cannot be used as a journal: {error}"
        raise JournalError(path, reason) from error
    except UnicodeDecodeError as error:  # SQLite's message may quote invalid text
        raise JournalError(path, DAMAGED) from error
    except OSError as error:
        raise JournalError(path, error.strerror or "cannot be opened") from error


@contextlib.contextmanager
def transaction(path: Path, connection: sqlite3.Connection) -> Iterator[None]:
    """Run a transaction; its changes are on disk when this ends, or nothing is changed."""
    with translate_errors(path):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            # On a full disk SQLite has already rolled back.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def real_path(path: Path) -> Path:
    """Return the path of a journal with all links resolved, because one file must have one lock."""
    try:
        return Path(os.path.realpath(path))
    except ValueError:
        raise JournalError(path, "is not a valid file name") from None
    except FileNotFoundError:
        raise JournalError(path, "the current folder was deleted: change to another folder") from None


def check(path: Path) -> bool:
    """Return whether there is a journal; raise for any other file, which SQLite must not open: it might change it."""
    with translate_errors(path):
        try:
            with open_regular(path) as stream:
                header = stream.read(100)
        except FileNotFoundError:
            return False
    if not header.strip(b"\0"):
        # We never leave an empty file, but a crash of the machine or an incomplete copy may.
        raise JournalError(path, f"is empty. Delete it if you have never uploaded with it. {_BACKUPS}")
    # "The Database Header" on https://www.sqlite.org/fileformat.html: the application's id is at offset 68.
    if not header.startswith(b"SQLite format 3\0") or header[68:72] != _APPLICATION_ID.to_bytes(4, "big"):
        raise JournalError(path, _REASONS[sqlite3.SQLITE_NOTADB])
    return True


def create(path: Path) -> None:
    """Create an empty journal, atomically, that only its owner can read. The caller holds the lock."""
    fresh = path.with_name(f"{path.name}.new")
    with translate_errors(path):
        fresh.unlink(missing_ok=True)
        os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as connection:
            connection.executescript(_SCHEMA)
        fresh.replace(path)
        if os.name == "posix":  # Windows cannot open a folder
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def connect(path: Path, *, write: bool) -> sqlite3.Connection:
    """Open an existing journal and check its pages, which takes as long as reading it.

    Opening it for writing takes ten times as long, because the indexes are compared with their tables too: a damaged
    index could hide that a certificate was sent. A file that is refused is left unchanged.
    """
    with translate_errors(path):
        if not write:
            return _open(path, "ro", "quick_check")
        if path.stat().st_nlink > 1:
            # The lock is beside each name, so another run could send the same certificates under the other one.
            raise JournalError(path, "has another name (a hard link): remove that, or make a copy of it")
        beside = {end for end in ("-journal", "-wal") if path.with_name(f"{path.name}{end}").exists()}
        if beside == {"-journal"}:
            _open(path, "rw").close()  # rolls back what a killed writer had begun; read-only connections cannot
        # Check it read-only first: closing a writable connection copies the log into the file, damaged or not.
        _open(path, "ro", "integrity_check").close()
        return _open(path, "rw")


def _open(path: Path, mode: str, check: str | None = None) -> sqlite3.Connection:
    # The preflight runs in another thread; the journal's lock admits one thread at a time.
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    try:
        _check_content(path, connection, check)
        connection.execute("PRAGMA temp_store = FILE")
    except BaseException:
        connection.close()
        raise
    return connection


def _check_content(path: Path, connection: sqlite3.Connection, check: str | None) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != _VERSION:
        reason = f"was made by another version of springest (its format is {version}, not {_VERSION}): use that version"
        raise JournalError(path, reason)
    if check:
        # The check does not notice a changed letter in the name of a column.
        found = {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master")}
        if not found >= _STATEMENTS or connection.execute(f"PRAGMA {check}(1)").fetchone() != ("ok",):
            raise JournalError(path, DAMAGED)


def lock(path: Path) -> BaseFileLock:
    """Take the writer's lock, or raise `JournalInUse`; it is released by the caller, or when the process ends."""
    with translate_errors(path):
        if not path.parent.is_dir():
            raise JournalError(path, "there is no such folder")
        taken = FileLock(_lock_path(path), mode=0o600, thread_local=False)
        try:
            # Wait a little: a reader holds the lock for a moment to find out whether there is a writer.
            taken.acquire(timeout=0.3, poll_interval=0.02)
        except Timeout:
            if not _lock_path(path).exists():
                raise JournalError(path, "cannot be created: check the permissions of its folder") from None
            raise JournalInUse(path, "is in use") from None
        except NotImplementedError:
            raise JournalError(
                path, "this disk does not support locks: put the journal on another one (--journal)"
            ) from None
    return taken


def is_locked(path: Path) -> bool:
    """Return whether a process is writing the journal. Creates no file."""
    if not _lock_path(path).exists():
        return False
    with translate_errors(path):
        asked = FileLock(_lock_path(path), mode=0o600, thread_local=False)
        try:
            # Longer than another reader holds it for the same question.
            asked.acquire(timeout=0.01, poll_interval=0.002)
        except Timeout:
            return True
        except (NotImplementedError, OSError):  # such as a read-only disk: no process on this machine can write
            return False
        asked.release()
    return False


def _lock_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")
