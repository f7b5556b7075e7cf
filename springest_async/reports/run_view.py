"""`RunView`: where a run stands, for those who are told of it, read anew now and then.

It shows the migration as the journal has it, so that all who look see the same numbers, and never strains the journal.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from springest_async.bulk.report import Report, RunRecorder
from springest_async.errors import JournalError
from springest_async.journal.status import MigrationStatus
from springest_async.reports.summary_json import summary_as_json

_REST = 10  # a read is followed by a rest of so many times as long as it took

StatusRead = Callable[[], Awaitable[MigrationStatus]]
"""A function that reads where a migration stands."""


class RunView:
    """Where a run stands, as it was read last.

    Attributes:
        manifest: the name of the manifest's file.
        status: where the migration stands; None before it was read.
    """

    def __init__(self, manifest: str) -> None:
        self.manifest = manifest
        self.status: MigrationStatus | None = None
        self._read: StatusRead | None = None
        self._recorder: RunRecorder | None = None
        self._rests_until = 0.0  # on the loop's clock

    @property
    def run(self) -> Report | None:
        """What the run has done, if it has begun."""
        if self._recorder is None or self.status is None:
            return None
        return self._recorder.with_counts(self.status.counts)

    def begin(self, read: StatusRead, recorder: RunRecorder) -> None:
        """Note how the status is read, and who counts what the run does."""
        self._read, self._recorder = read, recorder

    async def look(self) -> None:
        """Read the status anew; the last one stays if that fails, or if it was read just now."""
        now = asyncio.get_running_loop().time
        if (read := self._read) is None or (began := now()) < self._rests_until:
            return
        with contextlib.suppress(JournalError):
            status = await read()
            if read is self._read:  # what was read before the end may come after it
                self.status = status
        self._rests_until = now() + _REST * (now() - began)

    async def end(self, read: StatusRead, patience: float) -> None:
        """Read the status a last time, in another way, for at most so many seconds; no look after that reads it."""
        self._read = read
        self._rests_until = 0.0
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self.look()
        finally:
            self._read = None

    def summary(self, event: Literal["begin", "progress", "trouble", "end"], **more: Any) -> dict[str, Any]:
        """Return the summary of the run; see `summary_as_json`."""
        return summary_as_json(event, self.manifest, self.status, self.run, **more)
