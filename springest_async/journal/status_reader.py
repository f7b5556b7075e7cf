"""`StatusReader`: read where migrations stand, from time to time, on a connection of its own."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from springest_async.errors import JournalError
from springest_async.journal import status
from springest_async.journal.engine import Connection
from springest_async.journal.journal import Journal
from springest_async.journal.status import MigrationStatus

T = TypeVar("T")


class StatusReader:
    """Reads a journal on a connection of its own, so that uploads of this process need not wait for it.

    Usage::

        async with StatusReader(journal) as reader:
            status = await reader.status(migration.id)

    Args:
        journal: the journal, which must be open.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await asyncio.to_thread(connection.close)

    async def status(self, migration: int) -> MigrationStatus:
        """Return where a migration stands. What a dead worker was sending is in doubt from now on.

        Raises:
            JournalError: the journal cannot be read, or the migration was erased from it.
        """
        await self.take_over()
        return await self.read(lambda connection: status.read_status(connection, migration))

    async def all(self) -> list[MigrationStatus]:
        """Return where each migration stands, the one that moved last first; raises as `status`."""
        await self.take_over()
        return await self.read(status.read_all)

    async def take_over(self) -> None:
        """Put in doubt what dead workers were sending; raises as `read`."""
        if await self.read(status.has_dead_workers):
            await self._journal.take_over()

    async def read(self, job: Callable[[Connection], T]) -> T:
        """Return what a job reads in one snapshot; it must not write.

        Raises:
            JournalError: the journal cannot be read. The next call tries to connect anew.
        """

        def read() -> T:
            if self._connection is None:
                self._connection = self._journal.connect()
            try:
                with self._connection.snapshot():
                    return job(self._connection)
            except JournalError:
                self._connection.close()
                self._connection = None
                raise

        async with self._lock:
            reading = asyncio.ensure_future(asyncio.to_thread(read))
            try:
                return await asyncio.shield(reading)
            except asyncio.CancelledError:
                await asyncio.wait([reading])  # one thread at a time may use the connection
                raise
