"""Checks of a SQLite file that may be damaged, or come from somewhere else: the journal, and the file of the limits.

They follow "Defense Against The Dark Arts" on https://www.sqlite.org/security.html, without its guards against hostile
SQL: all SQL is our own, because a file whose tables are not exactly ours is refused.
"""

import functools
import sqlite3
from contextlib import closing
from pathlib import Path
from stat import S_ISREG

__all__ = ["has_tables", "irregular_sidecar", "passes_integrity_check", "set_defensive_pragmas"]

# The tables of ANALYZE, which some database viewers run unasked. They contain statistics and execute nothing. Compared
# as a whole, because a trigger may have the same name.
_STATISTICS = [
    ("table", "sqlite_stat1", "sqlite_stat1", "CREATE TABLE sqlite_stat1(tbl,idx,stat)"),
    ("table", "sqlite_stat4", "sqlite_stat4", "CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)"),
]


def irregular_sidecar(path: Path, *others: str) -> Path | None:
    """Return a sidecar path that exists and is not a regular file, because a pipe there would block SQLite; else None.

    Args:
        path: the database.
        others: suffixes of sidecars, beside those of SQLite.
    """
    for suffix in ("-journal", "-wal", "-shm", *others):
        sidecar = path.with_name(f"{path.name}{suffix}")
        try:
            mode = sidecar.lstat().st_mode
        except FileNotFoundError:
            continue
        if not S_ISREG(mode):
            return sidecar
    return None


def set_defensive_pragmas(connection: sqlite3.Connection, longest: int) -> None:
    """Set up a connection so that it trusts nothing in its file; `longest` is the maximum size of a row in bytes."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, longest)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")


def has_tables(connection: sqlite3.Connection, schema: str) -> bool:
    """Return whether the file has exactly the tables and indexes that a script creates, and nothing else.

    A trigger could change what we write, and a table without its index would accept the same row twice.
    """
    return _tables(connection) == _tables_of(schema)


@functools.cache
def _tables_of(schema: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(schema)
        return _tables(connection)


def _tables(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    found = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name")
    return [each for each in found if each not in _STATISTICS]


def passes_integrity_check(connection: sqlite3.Connection, *, indexes: bool) -> bool:
    """Return whether all pages and rows are sound, which takes as long as reading the file.

    With `indexes`, the indexes must also match their tables, which takes ten times as long.
    """
    check = "integrity_check" if indexes else "quick_check"
    (found,) = connection.execute(f"PRAGMA {check}(1)").fetchone()
    return bool(found == "ok")
