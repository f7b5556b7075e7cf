"""A temporary database, for what a check must remember of a million rows and cannot keep in memory."""

import sqlite3
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from springest_async.errors import ConfigurationError


class TemporaryDatabase:
    """A database of this process alone, in a file without a name in the folder for temporary files.

    Nobody else can open it, and it is gone after the ``with``. One thread after the other may use it.

    Args:
        tables: the statements that make its tables.

    Raises:
        ConfigurationError: from all methods: the folder for temporary files has no space left, or cannot be written.
    """

    def __init__(self, *tables: str) -> None:
        self._tables = tables
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        # Nobody reads it after a crash, so there is nothing to roll back to.
        for statement in ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", *self._tables, "BEGIN"):
            self._connection.execute(statement)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open().close()
        self._connection = None

    def _open(self) -> sqlite3.Connection:
        assert self._connection is not None
        return self._connection

    def change(self, statement: str, values: Iterable[tuple[object, ...]] = ((),)) -> int:
        """Execute a statement once for each of the values, and return how many lines it has changed."""
        with _translated():
            return self._open().executemany(statement, values).rowcount

    def select(self, query: str, *values: object) -> Generator[Any, None, None]:
        """Yield the lines that a query finds."""
        with _translated():
            yield from self._open().execute(query, values)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        reason = f"what a check must remember cannot be kept in the folder for temporary files ({error})"
        raise ConfigurationError(f"{reason}: free some space there, or set TMPDIR to another folder") from None
