"""Show the progress of a bulk run on stderr: a live bar in a terminal, else a line every ten seconds."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from springest_async.bulk import BulkEvent, Outage, OutageOver, Paused, Resumed, RowDone, RowSettling, RowStep, State
from springest_async.cli.times import duration, outage_words
from springest_async.limits.limiter import Limiter

_LINE_EVERY = 10.0  # seconds between two lines without a terminal
_FINISHED = (State.STORED, State.REJECTED, State.FAILED)
_TICK = 0.25  # seconds between two updates of the bar


class UploadProgress:
    """A listener that shows the progress of a run.

    Args:
        console: where to show it.
        rows: how many rows this run has to upload or settle.
        before: how many rows earlier runs have finished.
        limiter: knows how long the limit makes uploads wait.
        waits_for: returns what the run waits for, such as the journal; empty when it goes on.
    """

    def __init__(
        self,
        console: Console,
        rows: int,
        limiter: Limiter,
        *,
        before: int = 0,
        waits_for: Callable[[], str] = str,
    ) -> None:
        self._console = console
        self._rows = rows
        self._before = before
        self._limiter = limiter
        self._waits_for = waits_for
        self._done: Counter[State] = Counter()
        self._sending: dict[int, float] = {}  # entries, and since when
        self._settling: set[int] = set()
        self._spent = 0.0  # seconds, all POSTs together
        self._posts = 0
        self._most_at_once = 1
        self._outage: Outage | None = None
        self._is_paused = False
        self._away = 0.0  # seconds of the outages and pauses that are over

    def __call__(self, event: BulkEvent) -> None:
        """Count an event."""
        if isinstance(event, Outage):
            self._outage = event
            return
        if isinstance(event, OutageOver):
            self._outage = None
            self._away += event.seconds
            return
        if isinstance(event, Paused | Resumed):
            self._is_paused = isinstance(event, Paused)
            self._away += 0.0 if isinstance(event, Paused) else event.seconds
            return
        now = asyncio.get_running_loop().time()
        row = event.row.id
        self._settling.discard(row)
        began = self._sending.pop(row, None)
        if began is not None and not (isinstance(event, RowStep) and not event.step.connected):
            self._spent += now - began
            self._posts += 1
        if isinstance(event, RowDone):
            # Rows of this manifest only, and none that was handed back.
            self._done[event.state] += event.row.number is not None and event.state is not State.WAITING
        elif isinstance(event, RowSettling):
            self._settling.add(row)
        elif event.step.kind == "sending":
            self._sending[row] = now
            self._most_at_once = max(self._most_at_once, len(self._sending))

    def count(self, counts: Counter[State]) -> None:
        """Count what other runs have finished: `counts` has all rows of the migration by state."""
        finished = sum(counts[state] for state in _FINISHED)
        total = self._before + self._rows
        self._before = max(self._before, finished - sum(self._done[state] for state in _FINISHED))
        self._rows = total - self._before

    @asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Show the progress during this ``async with``."""
        show = self._bar() if self._console.is_interactive else self._lines()
        task = asyncio.create_task(show)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _bar(self) -> None:
        columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[words]}", markup=False))
        started = asyncio.get_running_loop().time()
        with Progress(*columns, console=self._console) as bar:
            task = bar.add_task("upload", total=self._before + self._rows, words="")
            try:
                while True:
                    bar.update(task, completed=self._before + self._done.total(), words=self._words(started))
                    await asyncio.sleep(_TICK)
            finally:
                bar.update(task, completed=self._before + self._done.total(), words="")

    async def _lines(self) -> None:
        started = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(_LINE_EVERY)
            done = self._before + self._done.total()
            line = f"{done} of {self._before + self._rows} done, {self._words(started)}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _words(self, started: float) -> str:
        now = asyncio.get_running_loop().time()
        elapsed = now - started - self._away
        done = self._done.total()
        words = []
        if waits_for := self._waits_for():
            words.append(f"waiting for {waits_for}")
        if failed := done - self._done[State.STORED]:
            words.append(f"{failed} not stored")
        if self._settling:
            words.append("checking rows in doubt")
        if self._is_paused:
            words.append("paused")
            return ", ".join(words)
        if (outage := self._outage) is not None:  # nobody knows how long it lasts: there is no rate and no forecast
            again_in = None if outage.again_at is None else outage.again_at - now
            words.append(outage_words(outage.what, outage.reason, now - outage.since, again_in))
            return ", ".join(words)
        if done and elapsed > 1:
            words.append(f"{done / elapsed * 60:.0f} a minute")
        if (posts_now := self._limiter.posts_now) < self._limiter.posts:
            words.append(f"at most {posts_now} a minute, because another program keeps to that")
        wait = self._limiter.seconds_until(1)
        if wait >= 1 and not self._sending:
            words.append(f"waiting {duration(wait)} for the limit")
        if left := self._rows - done:
            by_limit = self._limiter.seconds_until(left - len(self._sending))
            # Big files on a slow connection may take longer than the limit.
            by_line = left * self._spent / self._posts / self._most_at_once if self._posts else 0.0
            if (seconds := max(by_limit, by_line)) >= 1 or not self._settling:  # how long that takes, nobody knows
                words.append(f"{duration(seconds)} left")
        return ", ".join(words)
