"""What an upload shows of itself: where its migration stands, and what only this run knows."""

import asyncio
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

import attrs
import pytest
from rich.console import Console

from springest_async.bulk import (
    BulkEvent,
    Entry,
    Outage,
    OutageOver,
    Paused,
    Resumed,
    RowDone,
    RowSettling,
    RowStep,
    State,
)
from springest_async.cli.progress import UploadProgress
from springest_async.journal.status import MigrationStatus
from springest_async.upload import UploadStep
from tests.screens import Screen
from tests.statuses import STATUS, counted

pytestmark = pytest.mark.looptime

RUNNING = attrs.evolve(STATUS, counts=counted(stored=1, waiting=10), sending=(), last=(), seconds_left=20.0)


def row(number: int | None, key: int | None = None) -> Entry:
    return Entry(
        id=key or number or 0,
        number=number,
        file=f"{number}.pdf",
        path=Path(f"{number}.pdf"),
        certification_id=7,
        email="jan@example.org",
        valid_from=date(2026, 1, 31),
        valid_until=None,
        conversion_id=None,
        origin="https://springest.example",
        state=State.WAITING,
    )


def step(number: int, kind: Literal["waiting", "sending", "refused", "unsent"], *, connected: bool = True) -> RowStep:
    return RowStep(row(number), UploadStep(kind, 1, datetime(2026, 1, 31, tzinfo=UTC), connected=connected))


class Run:
    """The progress of a run in a pipe, and what it has said."""

    def __init__(self, held_up_by: str = "") -> None:
        self.screen = Screen(400)
        self.held_up_by = held_up_by
        self.progress = UploadProgress(
            Console(file=self.screen, width=20), self._read, posts=30, held_up_by=lambda: self.held_up_by
        )

    async def _read(self) -> MigrationStatus:
        return RUNNING

    def __call__(self, *events: BulkEvent) -> None:
        for event in events:
            self.progress(event)

    async def next_line(self) -> str:
        """Wait for the next line, and return what it says of the situation."""
        count = len(self.screen.shown) if self.screen.writes else 0
        async with asyncio.timeout(100):
            while len(self.screen.shown) == count or not self.screen.writes:  # noqa: ASYNC110 # a screen tells nobody
                await asyncio.sleep(0.01)
        line = self.screen.shown[-1]
        head = "1 of 11 done: 1 stored, 10 waiting. "
        assert line.startswith(head)
        return line.removeprefix(head)


async def test_the_first_line_comes_after_a_while() -> None:
    run = Run()
    began = asyncio.get_running_loop().time()
    async with run.progress.shown():
        line = await run.next_line()

    assert asyncio.get_running_loop().time() - began == pytest.approx(10, abs=0.1)
    assert line.startswith("About 20 s left, done ")
    assert line.endswith(". 28 sent in the last minute (at most 30), 2 free, next in 14 s.")


async def test_the_time_left_knows_a_thin_line() -> None:
    run = Run()
    for first in (1, 3):  # two at once take 20 s
        run(step(first, "sending"), step(first + 1, "sending"))
        await asyncio.sleep(20)
        run(RowDone(row(first), State.STORED), RowDone(row(first + 1), State.STORED))

    async with run.progress.shown():
        assert (await run.next_line()).startswith("About 2 min left, done ")


async def test_what_failed_to_connect_takes_no_time_of_the_line() -> None:
    run = Run()
    run(step(1, "sending"))
    await asyncio.sleep(500)
    run(step(1, "unsent", connected=False))

    async with run.progress.shown():
        assert (await run.next_line()).startswith("About 20 s left, done ")


async def test_checking_a_row_in_doubt_is_shown_until_settled() -> None:
    run = Run()
    async with run.progress.shown():
        run(step(2, "sending"), RowSettling(row(2)))
        assert ", checking rows in doubt. " in await run.next_line()
        run(step(2, "waiting"))  # it is not, and will be sent again
        assert "checking" not in await run.next_line()
        run(RowSettling(row(None, 7)))
        assert ", checking rows in doubt. " in await run.next_line()
        run(RowDone(row(None, 7), State.IN_DOUBT))
        assert "checking" not in await run.next_line()


async def test_an_outage_is_shown_at_once_without_a_forecast() -> None:
    run = Run()
    clock = asyncio.get_running_loop().time
    async with run.progress.shown():
        await asyncio.sleep(3)
        run(Outage(clock() - 3, "no connection", "Connection refused", clock() + 8))
        assert await run.next_line() == "No connection for 3 s (Connection refused), trying again in 8 s."
        assert clock() < 4
        run(Outage(clock() - 11, "no connection", "Connection refused", None))  # no news that could not wait
        assert await run.next_line() == "No connection for 21 s (Connection refused), trying again now."
        began = clock()
        run(OutageOver("no connection", "Connection refused", 50))
        assert (await run.next_line()).startswith("About 20 s left")
        assert clock() - began < 1


async def test_a_pause_and_its_end_are_shown_at_once() -> None:
    run = Run()
    async with run.progress.shown():
        for event in (Paused(datetime.now(UTC)), Resumed(3.0)):
            await asyncio.sleep(1)
            run.held_up_by = str(event)
            run(event)
            await run.next_line()

    assert asyncio.get_running_loop().time() < 4


async def test_what_holds_the_run_up_is_shown() -> None:
    run = Run(held_up_by="waiting for the journal: the disk is full")
    run(Outage(0.0, "no connection", "Connection refused", None))
    async with run.progress.shown():
        assert await run.next_line() == "Waiting for the journal: the disk is full."
