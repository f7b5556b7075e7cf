"""Show where a migration stands until it is done or the user has seen enough: live in a terminal, else line by line."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from rich.console import Console
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment

from springest_async.cli.console import say
from springest_async.cli.display import Moment, RunNotes, display, line
from springest_async.errors import JournalError
from springest_async.journal.status import MigrationStatus

_TICK = 0.5  # seconds between two looks at what has changed
_REST = 2.0  # seconds between two readings, at least
_RESTS = 20  # and at least so many times what the last reading took: half a second, of a million rows
_AWAY = 60.0  # seconds after which a journal that cannot be read is tried again, at most
_LINE_EVERY = 10.0  # seconds between two lines, at least
_LINES = 60  # and at least the time that has passed by so many lines
_RAREST = 60.0  # seconds between two lines, at most because of that


class Watch:
    """Shows where a migration stands.

    Args:
        console: where to show it: a display of at most ten lines in a terminal, else lines, each for itself.
        read: returns where it stands; when it raises a JournalError, that is shown, and it is called again later.
        notes: returns what a run of this process knows beyond its journal.
        at_once: whether the first line comes at once, where there are lines.
    """

    def __init__(
        self,
        console: Console,
        read: Callable[[], Awaitable[MigrationStatus]],
        notes: Callable[[], RunNotes] = RunNotes,
        *,
        at_once: bool = True,
    ) -> None:
        self._console = console
        self._read = read
        self._notes = notes
        self._at_once = at_once
        self._status: MigrationStatus | None = None
        self._read_at = 0.0  # on the loop's clock
        self._rest = _REST  # seconds until the next reading
        self._trouble = ""  # why the journal cannot be read
        self._task: asyncio.Task[None] | None = None
        self._done = asyncio.Event()
        self._woken = asyncio.Event()

    @asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Show it during this ``async with``; in a terminal, its last state stays."""
        self._task = asyncio.create_task(self._live() if self._console.is_interactive else self._lines())
        try:
            yield
        finally:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def until_done(self) -> None:
        """Wait, while it is shown, until it is done, or until only rows in doubt are left that nobody works on.

        Raises:
            OSError: it cannot be shown.
        """
        assert self._task is not None
        done = asyncio.create_task(self._done.wait())
        try:
            await asyncio.wait([done, self._task], return_when=asyncio.FIRST_COMPLETED)
        finally:
            done.cancel()
        if self._task.done():
            self._task.result()

    def wake(self) -> None:
        """Show soon what has changed, also where the next line would come much later."""
        self._woken.set()

    async def _live(self) -> None:
        with Live(console=self._console, auto_refresh=False, redirect_stdout=False) as live:
            screen = _Screen(live)
            reading = asyncio.create_task(self._keep_reading())
            try:
                while True:
                    screen.show(self._moment())
                    await asyncio.sleep(_TICK)
            finally:
                reading.cancel()
                await asyncio.wait([reading])
                if not self._trouble:  # what the run has done since
                    await self._read_once()
                screen.show(self._moment(is_over=True))

    async def _keep_reading(self) -> None:
        while True:
            await self._read_once()
            await asyncio.sleep(self._rest)

    async def _read_once(self) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            self._status, self._trouble = await self._read(), ""
        except JournalError as error:
            self._trouble = str(error)
            self._rest = min(_AWAY, max(_REST, _RESTS * (clock() - began)))
            return
        self._read_at = clock()
        self._rest = max(_REST, _RESTS * (self._read_at - began))
        if self._status.activity in ("done", "in doubt"):  # nothing goes on by itself
            self._done.set()

    def _moment(self, *, is_over: bool = False) -> Moment | None:
        if self._status is None:
            return None
        notes = self._notes()
        if self._trouble and not notes.held_up_by:
            notes = RunNotes(held_up_by=f"the journal cannot be read: {self._trouble}")
        age = asyncio.get_running_loop().time() - self._read_at
        return Moment(status=self._status, age=age, notes=notes, is_over=is_over)

    async def _lines(self) -> None:
        clock = asyncio.get_running_loop().time
        began, last = clock(), ""
        if not self._at_once:
            await self._pause(began)
        while True:
            await self._read_once()
            if (moment := self._moment()) is not None and (words := line(moment)) != last:
                say(self._console, words)
                last = words
            await self._pause(began)

    async def _pause(self, began: float) -> None:
        """Wait until the next line: the longer it takes in all, the fewer are needed."""
        passed = asyncio.get_running_loop().time() - began
        self._woken.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(self._rest, _LINE_EVERY, min(_RAREST, passed / _LINES))):
                await self._woken.wait()


class _Screen:
    """Writes a display anew where something has changed, and knows how many lines of the terminal the last one has."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._shown: list[list[Segment]] = []
        self._width = 0

    def show(self, moment: Moment | None) -> None:
        if moment is None:
            return
        console = self._live.console
        width, height = console.size
        self._find(width)
        group = display(moment, width=width, height=height)
        lines = console.render_lines(group, console.options, pad=False)
        if lines != self._shown:
            self._shown = lines
            self._live.update(group, refresh=True)

    def _find(self, width: int) -> None:
        """Move to the last line but those that `Live` knows of, if a narrower window has broken some of them."""
        if width < self._width:
            broken = sum((Segment.get_line_length(line) - 1) // width for line in self._shown if line)
            up = ((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)) * broken
            self._live.console.control(Control(*up))
            self._shown = []
        self._width = width
