"""A SQLite file that anybody may have written: what it holds is data that runs nothing, and damage in it is found.

For the journal and for the store of limits alike. It does what "Defense Against The Dark Arts" on
https://www.sqlite.org/security.html advises, but for what guards against hostile SQL: all SQL is our own, because
tables that are not exactly ours are refused.
"""

import functools
import sqlite3
from contextlib import closing
from pathlib import Path
from stat import S_ISREG

__all__ = ["has_tables", "irregular_sidecar", "passes_integrity_check", "set_defensive_pragmas"]

# What ANALYZE leaves, which some programs that show a database run unasked: figures, which run nothing. Letter for
# letter, because the name alone may be a trigger's.
_FIGURES = [
    ("table", "sqlite_stat1", "sqlite_stat1", "CREATE TABLE sqlite_stat1(tbl,idx,stat)"),
    ("table", "sqlite_stat4", "sqlite_stat4", "CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)"),
]


def irregular_sidecar(path: Path, *others: str) -> Path | None:
    """Give what is no file and stands where SQLite has its files beside a database: a pipe there would block it.

    `others` are the suffixes of more such files.
    """
    for suffix in ("-journal", "-wal", "-shm", *others):
        beside = path.with_name(f"{path.name}{suffix}")
        try:
            mode = beside.lstat().st_mode
        except FileNotFoundError:
            continue
        if not S_ISREG(mode):
            return beside
    return None


def set_defensive_pragmas(connection: sqlite3.Connection, longest: int) -> None:
    """Make a connection trust nothing that its file says; `longest` is how many bytes a row may have."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, longest)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")


def has_tables(connection: sqlite3.Connection, schema: str) -> bool:
    """Say whether the tables and indexes are exactly those that a script makes, and nothing else is there.

    A trigger would do with our changes what it likes, and a table without its index would take the same row twice.
    """
    return _tables(connection) == _tables_of(schema)


@functools.cache
def _tables_of(schema: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(schema)
        return _tables(connection)


def _tables(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    found = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name")
    return [each for each in found if each not in _FIGURES]


def passes_integrity_check(connection: sqlite3.Connection, *, indexes: bool) -> bool:
    """Say whether all pages and rows are as they should be, which takes as long as reading the file.

    With `indexes` also whether they say the same as their tables, which takes ten times as long.
    """
    check = "integrity_check" if indexes else "quick_check"
    (found,) = connection.execute(f"PRAGMA {check}(1)").fetchone()
    return bool(found == "ok")
