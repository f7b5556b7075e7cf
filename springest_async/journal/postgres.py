"""A journal in a PostgreSQL database, which any number of machines share. Needs the extra ``postgres``.

The clock is that of the server, in seconds since 1970; until it is read again, a process adds the time that passes.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from springest_async.errors import JournalError
from springest_async.journal.clock import elapsed

if TYPE_CHECKING:
    from springest_async.journal.postgres_connection import PostgresConnection


class PostgresEngine:
    """A journal in a database of PostgreSQL 13 or newer.

    Args:
        url: ``postgresql://USER@HOST:PORT/DATABASE``, or ``host=… dbname=…``. A password is better in a file that
            PGPASSFILE or a service file names; it is never shown.

    Attributes:
        where: host, port, user and database.

    Raises:
        JournalError: the URL cannot be read, or psycopg is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            # Who has no such journal needs no psycopg, and does not wait for its import.
            from springest_async.journal import postgres_address, postgres_connection  # noqa: PLC0415
        except ImportError as error:
            reason = "a journal in PostgreSQL needs psycopg: pip install 'springest-async[postgres]'"
            raise JournalError("PostgreSQL", reason) from error
        self._address = postgres_address.parse_address(url)
        self._connection_module = postgres_connection
        self.where = self._address.where
        self.dialect = postgres_connection.DIALECT
        self._time = (0.0, elapsed())

    def __repr__(self) -> str:
        return f"<PostgresEngine {self.where}>"

    def clock(self) -> float:
        """Return the server's time when it was last read, and the seconds since; before that, count from 0."""
        server, local = self._time
        return server + elapsed() - local

    def connect(self, *, create: bool) -> "PostgresConnection":
        """Open a connection; see `Engine.connect`.

        Raises:
            JournalMissing: there is no journal, and `create` is false.
            AnotherServer: the journal was on another server, or on this one before a standby was promoted.
            JournalUnavailable: the server cannot be reached or written now.
            JournalError: the server or the journal cannot be used.
        """
        return self._connection_module.PostgresConnection(self._address, self._set_time, create=create)

    @contextlib.contextmanager
    def trust(self) -> Iterator["PostgresConnection"]:
        """Take a person's word that the server which is there now has all that was sent, and use it from now on.

        The block lets all tokens rest; that and the word are one transaction.
        """
        connection = self._connection_module.PostgresConnection(
            self._address, self._set_time, create=False, trusted=True
        )
        with contextlib.closing(connection), connection.transaction():
            connection.record_identity()
            yield connection

    def _set_time(self, server: float, local: float) -> None:
        self._time = (server, local)
