"""A migration that is watched, in a terminal and without one."""

import asyncio
from collections.abc import Callable

import attrs
import pytest
from rich.console import Console

from springest_async import JournalError
from springest_async.cli.console import say
from springest_async.cli.watching import Watch
from springest_async.journal.status import MigrationStatus
from tests.screens import Screen
from tests.statuses import IDLE, STATUS, counted

pytestmark = pytest.mark.looptime

QUIET = attrs.evolve(IDLE, counts=counted(stored=1, waiting=1))
DONE = attrs.evolve(IDLE, counts=counted(stored=2))
TITLE = "certificates.csv to https://api.springest.nl"


class Journal:
    """A journal that is read: what it says, how often it was read, and how long that takes."""

    def __init__(self, status: MigrationStatus | JournalError = STATUS, takes: float = 0.0) -> None:
        self.status = status
        self.takes = takes
        self.readings = 0

    async def read(self) -> MigrationStatus:
        self.readings += 1
        await asyncio.sleep(self.takes)
        if isinstance(self.status, JournalError):
            raise self.status
        return self.status


def terminal(width: int = 80, height: int = 24) -> tuple[Screen, Console]:
    screen = Screen(width)
    return screen, Console(file=screen, width=width, height=height, force_terminal=True, color_system=None)


def pipe() -> tuple[Screen, Console]:
    screen = Screen(400)
    return screen, Console(file=screen, width=20)


def now() -> float:
    return asyncio.get_running_loop().time()


async def changes(screen: Screen, journal: Journal, status: MigrationStatus | JournalError) -> list[str]:
    """Return what is shown some time after the journal says something else."""
    journal.status = status
    await asyncio.sleep(70)
    return screen.shown


async def test_a_terminal_shows_what_is_read_and_keeps_the_last_state() -> None:
    screen, console = terminal()
    journal = Journal()
    say(console, "before")
    async with Watch(console, journal.read).shown():
        await asyncio.sleep(1)
        assert (screen.shown[:2], len(screen.shown)) == (["before", f"{TITLE}: running on anna"], 10)
        journal.status = QUIET
        await asyncio.sleep(3)
        assert screen.shown[1:] == [
            f"{TITLE}: stopped",
            f"{'━' * 20}                     1 of 2, 50 %",
            "1 stored, 1 waiting",
            "No upload is running, springest upload continues it",
        ]
        say(console, "meanwhile")
        journal.status = DONE  # which is read at the end
    say(console, "after")

    assert screen.shown == ["before", "meanwhile", f"{TITLE}: done", f"{'━' * 40} 2 of 2, 100 %", "2 stored", "after"]


async def test_it_ends_when_only_a_person_can_go_on() -> None:
    journal = Journal()
    watch = Watch(pipe()[1], journal.read)
    async with watch.shown():
        ends = asyncio.create_task(watch.until_done())
        await asyncio.sleep(70)
        assert not ends.done()
        journal.status = attrs.evolve(STATUS, counts=counted(stored=1, in_doubt=1))  # which a run asks about
        await asyncio.sleep(70)
        assert not ends.done()
        journal.status = attrs.evolve(IDLE, counts=counted(stored=1, in_doubt=1))
        await ends


async def test_nothing_is_written_while_nothing_changes() -> None:
    screen, console = terminal()
    async with Watch(console, Journal(QUIET).read).shown():
        await asyncio.sleep(1)
        writes = screen.writes
        await asyncio.sleep(100)

        assert screen.writes == writes


async def test_a_display_is_written_at_most_twice_a_second() -> None:
    screen, console = terminal()
    journal = Journal()
    async with Watch(console, journal.read).shown():
        await asyncio.sleep(1)
        writes = screen.writes
        await asyncio.sleep(60)

        assert 60 <= screen.writes - writes <= 120  # its seconds go by
        assert journal.readings <= 31


@pytest.mark.parametrize(("takes", "readings"), [(0.0, 100), (0.5, 20), (5.0, 3)])
async def test_it_rests_twenty_times_what_a_reading_takes(takes: float, readings: int) -> None:
    journal = Journal(takes=takes)
    async with Watch(terminal()[1], journal.read).shown():
        await asyncio.sleep(200)

    assert journal.readings == pytest.approx(readings, abs=2)


async def test_a_journal_that_is_away_for_long_is_tried_each_minute() -> None:
    journal = Journal(JournalError("db.example", "is away"), takes=10.0)
    async with Watch(terminal()[1], journal.read).shown():
        await asyncio.sleep(350)

    assert journal.readings == pytest.approx(5, abs=1)


@pytest.mark.parametrize(("before", "after"), [(80, 60), (60, 40), (80, 30), (30, 80)])
async def test_a_window_of_another_width_leaves_no_rest(before: int, after: int) -> None:
    screen, console = terminal(before)
    say(console, "before")
    async with Watch(console, Journal().read).shown():
        await asyncio.sleep(1)
        screen.resize(after)
        console.width = after
        await asyncio.sleep(5)
        assert screen.shown[0] == "before"
        assert screen.shown[1].startswith("certificates.csv")
        assert len(screen.shown) <= 11
        assert all(len(line) <= after for line in screen.shown)
        assert "certificates.csv" not in str(screen.shown[2:])
    say(console, "after")

    assert (screen.shown[0], screen.shown[-1]) == ("before", "after")
    assert "sent in the last minute" not in str(screen.shown)


async def test_without_a_terminal_there_is_a_line_now_and_then() -> None:
    screen, console = pipe()
    journal = Journal()
    async with Watch(console, journal.read).shown():
        await asyncio.sleep(0.1)
        assert len(screen.shown) == 1  # at once
        await asyncio.sleep(10)
        assert len(screen.shown) == 1  # no news
        for stored in range(1, 4):
            journal.status = attrs.evolve(STATUS, counts=counted(stored=stored, waiting=3))
            await asyncio.sleep(10)
            assert len(screen.shown) == stored + 1

    assert screen.shown[-1].startswith("3 of 6 done: 3 stored, 3 waiting. About ")
    assert "\x1b" not in screen.getvalue()


async def test_three_weeks_have_a_line_a_minute() -> None:
    screen, console = pipe()
    journal = Journal()

    async def read() -> MigrationStatus:
        await journal.read()
        return attrs.evolve(STATUS, counts=counted(stored=journal.readings, waiting=30_000))

    async with Watch(console, read).shown():
        await asyncio.sleep(3600)
        first = len(screen.shown)
        await asyncio.sleep(3600)

    assert 100 < first < 250
    assert len(screen.shown) - first == pytest.approx(60, abs=2)


@pytest.mark.parametrize("make", [terminal, pipe])
async def test_a_journal_that_is_away_is_waited_for(make: Callable[[], tuple[Screen, Console]]) -> None:
    screen, console = make()
    journal = Journal(QUIET)
    async with Watch(console, journal.read).shown():
        await asyncio.sleep(1)
        assert "away" not in str(screen.shown)
        away = await changes(screen, journal, JournalError("db.example", "is away"))
        assert "The journal cannot be read: db.example: is away" in str(away)
        assert "1 of 2" in str(away)
        assert "2 of 2" in str(await changes(screen, journal, DONE))


@pytest.mark.parametrize("make", [terminal, pipe])
async def test_it_can_be_watched_until_it_is_done(make: Callable[[], tuple[Screen, Console]]) -> None:
    screen, console = make()
    journal = Journal(QUIET)
    watch = Watch(console, journal.read)
    async with watch.shown():
        async with asyncio.timeout(100):
            waiting = asyncio.create_task(watch.until_done())
            await asyncio.sleep(50)
            assert not waiting.done()
            journal.status = DONE
            await waiting

    assert "2 stored" in screen.shown[-1]
    assert len(asyncio.all_tasks()) == 1


async def test_a_reader_that_is_gone_ends_the_watch() -> None:
    screen, console = pipe()

    def write(_: str) -> int:
        raise BrokenPipeError

    screen.write = write  # type: ignore[method-assign, assignment]
    console.on_broken_pipe = lambda: (_ for _ in ()).throw(BrokenPipeError)  # type: ignore[method-assign]
    watch = Watch(console, Journal().read)
    with pytest.raises(BrokenPipeError):
        async with watch.shown():
            await watch.until_done()


@pytest.mark.parametrize("make", [terminal, pipe])
async def test_an_error_inside_goes_through(make: Callable[[], tuple[Screen, Console]]) -> None:
    _, console = make()
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 # after a while
        async with Watch(console, Journal().read).shown():
            await asyncio.sleep(1)
            raise ZeroDivisionError

    assert len(asyncio.all_tasks()) == 1
