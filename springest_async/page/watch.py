"""`JournalWatch`: read a journal again and again while somebody looks at the page, once for all who do."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self, TypeVar

from attrs import evolve

from springest_async.errors import JournalError, JournalMissing
from springest_async.journal.engine import Connection
from springest_async.journal.journal import Journal
from springest_async.journal.status_reader import StatusReader
from springest_async.page.picture import Picture, read_picture

T = TypeVar("T")

_REST = 1.0  # seconds between two reads
_RESTS_PER_READ = 10  # a read may take a second of a big journal, and must not keep its uploads from the disk
_BUSY = "it does not answer"
_PATIENCE = 10.0  # seconds for a read, after which viewers are told that what they see is old


class JournalWatch:
    """Reads a journal while it has viewers.

    Args:
        journal: the journal, which must be open.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._reader = StatusReader(journal)
        self._picture: Picture | None = None
        self._changed = asyncio.Condition()
        self._viewers = 0
        self._wanted = asyncio.Event()  # there are viewers
        self._asked = asyncio.Event()  # somebody has pressed a button
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._reader.__aenter__()
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._reader.__aexit__(kind, error, traceback)

    @contextmanager
    def viewer(self) -> Iterator[None]:
        """Count a viewer during the block."""
        if not self._viewers:
            self._picture = None  # of when somebody looked last
        self._viewers += 1
        self._wanted.set()
        try:
            yield
        finally:
            self._viewers -= 1
            if not self._viewers:
                self._wanted.clear()

    async def newer(self, known: Picture | None) -> Picture:
        """Wait for a picture that is not the known one, and return it."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._picture is not None and self._picture is not known)
        assert self._picture is not None
        return self._picture

    async def read(self, job: Callable[[Connection], T]) -> T:
        """Return what a job reads in one snapshot, on the connection of the pictures; see `StatusReader.read`."""
        return await self._reader.read(job)

    def look(self) -> None:
        """Read the journal soon: a person has changed something, and wants to see it."""
        self._asked.set()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wanted.wait()
            self._asked.clear()
            began = loop.time()
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(self._read())
                await asyncio.wait([reading], timeout=_PATIENCE)
                if not reading.done():  # it goes on: a database that is frozen or locked may come back
                    await self._show(evolve(self._picture or Picture(), trouble=self._journal.trouble or _BUSY))
            rest = max(_REST, _RESTS_PER_READ * (loop.time() - began))
            await self._show(reading.result())
            with suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await self._asked.wait()

    async def _show(self, picture: Picture) -> None:
        async with self._changed:
            self._picture = picture
            self._changed.notify_all()

    async def _read(self) -> Picture:
        try:
            await self._reader.take_over()
            return await self._reader.read(read_picture)
        except JournalError as error:
            before = self._picture or Picture()
            if isinstance(error, JournalMissing) and before.trouble:
                return evolve(before)  # its words are for a journal that never was: the first ones say more
            return evolve(before, trouble=str(error))
