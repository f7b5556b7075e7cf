"""What the journal asks of a database: an engine that connects, and a connection that runs statements in transactions.

The statements stand once, in the portable subset of SQLite and PostgreSQL; `Dialect` has the words that differ. Calls
are synchronous, and made in the journal's own thread.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from attrs import frozen


@frozen(kw_only=True)
class Dialect:
    """The words that the two databases spell differently.

    Attributes:
        key: the type of a primary key that the database numbers.
        lasting_key: the same, of which no number is used again after its line was deleted.
        integer: a type of 64 bits.
        real: a floating-point type of 64 bits.
        blob: the type of bytes.
        by_key: follows the columns of a table that is found only by a key that is not a number, so that the key is not
            stored twice.
    """

    key: str
    lasting_key: str
    integer: str
    real: str
    blob: str
    by_key: str


class Connection(Protocol):
    """An open connection, which one thread uses at a time.

    All methods raise `JournalError`, or `JournalUnavailable` when waiting can help.
    """

    def transaction(self) -> AbstractContextManager[None]:
        """Run the block as one transaction: its changes are durable when it ends, or undone if it raises.

        The transactions of all processes run one after another.
        """

    def snapshot(self) -> AbstractContextManager[None]:
        """Read one consistent state in the block, without waiting for a lock."""

    def execute(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run a statement with `?` for each value, and return its rows."""

    def executemany(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """Run a statement for each sequence of values."""

    def now(self) -> float:
        """Return the time on the journal's clock in seconds; only within a transaction or snapshot."""

    def check_space(self) -> None:
        """Raise `JournalError` if the database is so full that the outcome of a POST might not be written."""

    def size(self) -> int:
        """Return how many bytes the journal takes on the disk."""

    def erase(self) -> None:
        """Remove from the disk what was deleted; not within a transaction."""

    def close(self) -> None:
        """Close it; closing again does nothing."""


class Engine(Protocol):
    """A database that can hold a journal.

    Attributes:
        where: its place, for people to read; contains no password.
        dialect: its words.
    """

    where: str
    dialect: Dialect

    def connect(self, *, create: bool) -> Connection:
        """Open a connection.

        With `create`, a missing journal is made.

        Raises:
            JournalMissing: there is none, and `create` is false.
            JournalError: it cannot be opened, or belongs to another version or another program.
        """

    def clock(self) -> float:
        """Return this process's estimate of the journal's clock, which counts the time that the machine sleeps."""
