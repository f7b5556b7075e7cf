"""The progress of a run, in a terminal and without one."""

import asyncio
import io
import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

import attrs
import pytest
from rich.console import Console

from springest_async import Limiter
from springest_async.bulk import Entry, Outage, OutageOver, Paused, Resumed, RowDone, RowSettling, RowStep, State
from springest_async.cli.progress import UploadProgress
from springest_async.upload import UploadStep
from tests.waiting import A_WHILE

pytestmark = pytest.mark.looptime


@pytest.fixture
def screen() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("springest_async.cli.progress._LINE_EVERY", 0.01)
    monkeypatch.setattr("springest_async.cli.progress._TICK", 0.01)


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


def step(number: int, kind: Literal["waiting", "sending", "refused", "unsent"]) -> RowStep:
    return RowStep(row(number), UploadStep(kind, 1, datetime(2026, 1, 31, tzinfo=UTC)))


async def until_shown(screen: io.StringIO, pattern: str) -> str:
    async with asyncio.timeout(A_WHILE):
        while not (found := re.search(pattern, screen.getvalue())):  # noqa: ASYNC110 # a screen tells nobody
            await asyncio.sleep(0.01)
    return found[0]


async def use_up(limiter: Limiter) -> None:
    for _ in range(limiter.posts):
        async with limiter.post(count_window=1.0) as turn:
            turn.mark_answered()


async def test_without_a_terminal_there_is_a_line_now_and_then(screen: io.StringIO) -> None:
    progress = UploadProgress(Console(file=screen, width=20), 4, Limiter())
    async with progress.shown():
        progress(RowDone(row(2), State.STORED))
        progress(RowDone(row(3), State.REJECTED))
        line = await until_shown(screen, r".*\n")

    assert line == "2 of 4 done, 1 not stored, 0 s left\n"
    assert "\x1b" not in screen.getvalue()


async def test_what_earlier_runs_did_is_counted_and_takes_no_time(screen: io.StringIO) -> None:
    progress = UploadProgress(Console(file=screen, width=20), 4, Limiter(), before=90)
    async with progress.shown():
        progress(RowDone(row(2), State.STORED))
        line = await until_shown(screen, r".*\n")

    assert line == "91 of 94 done, 0 s left\n"


async def test_rows_that_are_handed_back_are_not_done(screen: io.StringIO) -> None:
    progress = UploadProgress(Console(file=screen, width=20), 4, Limiter())
    async with progress.shown():
        progress(RowDone(row(2), State.STORED))
        progress(RowDone(row(3), State.WAITING))
        line = await until_shown(screen, r".*\n")

    assert line == "1 of 4 done, 0 s left\n"


async def test_a_pause_is_shown_until_it_is_over(screen: io.StringIO) -> None:
    progress = UploadProgress(Console(file=screen, width=20), 4, Limiter())
    async with progress.shown():
        progress(Paused(datetime(2026, 1, 31, tzinfo=UTC)))
        await until_shown(screen, r"0 of 4 done, paused\n")
        progress(Resumed(5.0))
        await until_shown(screen, r"0 of 4 done, \d+ s left\n")


async def test_in_a_terminal_the_bar_begins_where_earlier_runs_ended(screen: io.StringIO) -> None:
    progress = UploadProgress(Console(file=screen, width=100, force_terminal=True), 1, Limiter(), before=3)
    async with progress.shown():
        await until_shown(screen, "3/4")
        progress(RowDone(row(2), State.STORED))

    assert "4/4" in screen.getvalue().rpartition("\r")[2]


async def test_checking_a_row_in_doubt_is_shown_until_settled(screen: io.StringIO) -> None:
    progress = UploadProgress(Console(file=screen, width=20), 3, Limiter())
    asking = r"0 of 3 done, checking rows in doubt\n"
    async with progress.shown():
        progress(step(2, "sending"))
        progress(RowSettling(row(2)))
        await until_shown(screen, asking)
        progress(step(2, "waiting"))  # it is not, and will be sent again
        screen.truncate(0)
        await until_shown(screen, r"0 of 3 done, 0 s left\n")
        progress(RowSettling(row(2)))
        await until_shown(screen, asking)
        progress(RowDone(row(2), State.STORED))
        await until_shown(screen, r"1 of 3 done, 0 s left\n")


async def test_a_doubt_no_longer_in_the_manifest_is_not_counted(screen: io.StringIO) -> None:
    progress = UploadProgress(Console(file=screen, width=20), 2, Limiter())
    async with progress.shown():
        progress(RowSettling(row(None, 7)))
        progress(RowDone(row(None, 7), State.IN_DOUBT))
        progress(RowDone(row(2), State.STORED))
        line = await until_shown(screen, r".*\n")

    assert line == "1 of 2 done, 0 s left\n"


async def test_the_wait_for_the_limit_is_shown_unless_sending(screen: io.StringIO) -> None:
    limiter = Limiter(posts=2)
    await use_up(limiter)
    progress = UploadProgress(Console(file=screen, width=20), 3, limiter)
    progress(RowDone(row(2), State.STORED))
    async with progress.shown():
        progress(step(3, "waiting"))
        await until_shown(screen, r"1 of 3 done, waiting (60|59) s for the limit, (60|59) s left\n")
        progress(step(3, "sending"))
        # Only the other row needs a token now.
        await until_shown(screen, r"1 of 3 done, (60|59) s left\n")
        progress(step(3, "refused"))
        screen.truncate(0)
        await until_shown(screen, r"waiting (60|59) s for the limit")


async def test_a_smaller_limit_of_another_is_shown(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limiter, "posts_now", 20)
    progress = UploadProgress(Console(file=screen, width=20), 2, Limiter())
    async with progress.shown():
        line = await until_shown(screen, r".*\n")

    assert line == "0 of 2 done, at most 20 a minute, because another program keeps to that, 0 s left\n"


async def test_the_time_left_knows_the_limit(screen: io.StringIO) -> None:
    progress = UploadProgress(Console(file=screen, width=20), 95, Limiter())
    async with progress.shown():
        line = await until_shown(screen, r".*\n")

    # 30 now, 30 after each of the next three minutes.
    assert line == "0 of 95 done, 3 min left\n"


async def test_the_time_left_knows_a_thin_line(screen: io.StringIO) -> None:
    progress = UploadProgress(Console(file=screen, width=20), 8, Limiter())
    for first in (1, 3):  # two at once take 20 s
        for number in (first, first + 1):
            progress(step(number, "sending"))
        await asyncio.sleep(20)
        for number in (first, first + 1):
            progress(RowDone(row(number), State.STORED))

    async with progress.shown():
        assert await until_shown(screen, r"\d+ \w+ left\n") == "40 s left\n"


async def test_the_rate_is_shown_after_a_second(screen: io.StringIO) -> None:
    progress = UploadProgress(Console(file=screen, width=20), 3, Limiter())
    progress(RowDone(row(2), State.STORED))
    progress(RowDone(row(3), State.STORED))
    async with progress.shown():
        rate = await until_shown(screen, r"2 of 3 done, [0-9]+ a minute, 0 s left\n")

    assert 90 <= int(rate.split()[4]) <= 120


async def test_in_a_terminal_there_is_a_bar_that_ends_full(screen: io.StringIO) -> None:
    progress = UploadProgress(Console(file=screen, width=100, force_terminal=True), 2, Limiter())
    async with progress.shown():
        progress(RowDone(row(2), State.STORED))
        await until_shown(screen, "1/2")
        await until_shown(screen, "0 s left")
        progress(RowDone(row(3), State.IN_DOUBT))

    end = screen.getvalue().rpartition("\r")[2]
    assert "2/2" in end
    assert "left" not in end


async def test_a_terminal_that_cannot_move_its_cursor_has_lines(
    screen: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editor's shell would show a bar only at the end."""
    monkeypatch.setenv("TERM", "dumb")
    progress = UploadProgress(Console(file=screen, width=80, force_terminal=True), 4, Limiter())
    async with progress.shown():
        progress(RowDone(row(2), State.STORED))
        assert await until_shown(screen, r".*\n") == "1 of 4 done, 0 s left\n"


async def test_an_outage_is_shown_without_rate_and_forecast(screen: io.StringIO) -> None:
    """The times that failed are no POSTs, and the outage is no time of the rate that follows."""
    progress = UploadProgress(Console(file=screen, width=20), 4, Limiter())
    started = asyncio.get_running_loop().time()
    async with progress.shown():
        progress(RowDone(row(2), State.STORED))
        progress(step(3, "sending"))
        progress(attrs.evolve(step(3, "unsent"), step=attrs.evolve(step(3, "unsent").step, connected=False)))
        progress(Outage(started, "no connection", "Connection refused", started + 48))
        words = r"1 of 4 done, no connection for (39|40) s \(Connection refused\), trying again in [89] s\n"
        await until_shown(screen, words)
        progress(Outage(started, "no connection", "Connection refused", None))
        await until_shown(screen, r"1 of 4 done, no connection for 50 s \(Connection refused\), trying again now\n")
        lines = screen.getvalue()
        progress(OutageOver("no connection", "Connection refused", 50))
        progress(RowDone(row(3), State.STORED))
        rate = await until_shown(screen, r"2 of 4 done, [0-9]+ a minute, 0 s left\n")

    assert "a minute" not in lines
    assert "left" not in lines
    assert 60 <= int(rate.split()[4]) <= 125


async def test_an_error_inside_goes_through(screen: io.StringIO) -> None:
    progress = UploadProgress(Console(file=screen, force_terminal=True), 2, Limiter())
    with pytest.raises(ZeroDivisionError):
        async with progress.shown():
            raise ZeroDivisionError

    assert len(asyncio.all_tasks()) == 1
