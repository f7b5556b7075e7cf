"""What a run knows of itself for those who are told of it."""

import asyncio

import pytest

from springest_async.journal.status import MigrationStatus
from springest_async.reports.run_view import RunView

from .summaries import status_of


@pytest.mark.looptime(start=0, noop_cycles=0)
async def test_nothing_is_read_after_the_end() -> None:
    """By then, the journal may be closed."""
    read = 0

    async def read_last() -> MigrationStatus:
        nonlocal read
        read += 1
        return status_of(stored=read)

    view = RunView("certificates.csv")
    await view.end(read_last, patience=5.0)
    await asyncio.sleep(3600.0)
    await view.look()

    assert (read, view.status) == (1, status_of(stored=1))
