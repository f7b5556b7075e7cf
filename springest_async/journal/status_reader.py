"""`StatusReader`: read where migrations stand, from time to time, on a connection of its own."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from types import TracebackType
from typing import Self, TypeVar

from springest_async.errors import JournalUnavailable
from springest_async.journal import status
from springest_async.journal.engine import Connection
from springest_async.journal.journal import Journal
from springest_async.journal.status import MigrationStatus

T = TypeVar("T")

_PATIENCE = 1.0  # seconds for a cancelled read to close its connection, at the end


class StatusReader:
    """Reads a journal on a connection of its own, so that uploads of this process need not wait for it.

    A cancelled read ends at once, also while the database does not answer: its thread is a daemon, which drops the
    connection when it ends.

    Usage::

        async with StatusReader(journal) as reader:
            status = await reader.status(migration.id)

    Args:
        journal: the journal, which must be open.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._connection: Connection | None = None  # that no thread uses
        self._given_up: list[threading.Thread] = []
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._close)

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

        A connection that was kept since the last call may have been lost meanwhile: then it reads on a new one.

        Raises:
            JournalError: the journal cannot be read. The next call tries to connect anew.
        """
        known: Connection | None = None

        def read() -> tuple[Connection, T]:
            if known is not None:
                with suppress(JournalUnavailable):
                    return known, _read_or_close(known, job)
            connection = self._journal.connect()
            return connection, _read_or_close(connection, job)

        async with self._lock:
            known, self._connection = self._connection, None
            reading: Future[tuple[Connection, T]] = Future()
            thread = threading.Thread(target=_run, args=(read, reading), name="springest-status", daemon=True)
            thread.start()
            try:
                connection, value = await asyncio.wrap_future(reading)
            except asyncio.CancelledError:
                if reading.cancel():
                    self._given_up = [*filter(threading.Thread.is_alive, self._given_up), thread]
                elif reading.exception() is None:  # it ended at the same moment
                    self._connection, _ = reading.result()
                raise
            self._connection = connection
            return value

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        ends = time.monotonic() + _PATIENCE
        for thread in self._given_up:
            thread.join(max(0.0, ends - time.monotonic()))


def _read_or_close(connection: Connection, job: Callable[[Connection], T]) -> T:
    try:
        with connection.snapshot():
            return job(connection)
    except BaseException:
        connection.close()
        raise


def _run(read: Callable[[], tuple[Connection, T]], reading: "Future[tuple[Connection, T]]") -> None:
    """Settle a future with what a job reads; close the connection if the future was cancelled meanwhile."""
    try:
        connection, value = read()
    except BaseException as error:  # noqa: BLE001 # it belongs to the coroutine
        with suppress(InvalidStateError):
            reading.set_exception(error)
        return
    try:
        reading.set_result((connection, value))
    except InvalidStateError:
        connection.close()
