"""What an upload shows of itself on stderr: where its migration stands, and what only this run knows."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from rich.console import Console

from springest_async.bulk import BulkEvent, Outage, OutageOver, Paused, Resumed, RowDone, RowSettling, RowStep
from springest_async.cli.display import RunNotes
from springest_async.cli.times import outage_words
from springest_async.cli.watching import Watch
from springest_async.journal.status import MigrationStatus


class UploadProgress:
    """A listener that shows the progress of a run.

    Args:
        console: where to show it.
        read: returns where the migration stands; see `Watch`.
        posts: how many POSTs a minute this run would send, if it were alone.
        held_up_by: returns what holds the run up, such as the journal; empty while it goes on.
    """

    def __init__(
        self,
        console: Console,
        read: Callable[[], Awaitable[MigrationStatus]],
        *,
        posts: int,
        held_up_by: Callable[[], str] = str,
    ) -> None:
        self._watch = Watch(console, read, self._notes, at_once=False)
        self._posts = posts
        self._held_up_by = held_up_by
        self._sending: dict[int, float] = {}  # entries, and since when
        self._settling: set[int] = set()
        self._spent = 0.0  # seconds, all POSTs together
        self._sent = 0
        self._most_at_once = 1
        self._outage: Outage | None = None

    def __call__(self, event: BulkEvent) -> None:
        """Note what an event says of this run."""
        match event:
            case Outage():
                if self._outage is None:
                    self._watch.wake()
                self._outage = event
            case OutageOver():
                self._outage = None
                self._watch.wake()
            case Paused() | Resumed():
                self._watch.wake()
            case RowDone() | RowSettling() | RowStep():
                self._note_row(event)

    def _note_row(self, event: RowDone | RowSettling | RowStep) -> None:
        now = asyncio.get_running_loop().time()
        row = event.row.id
        self._settling.discard(row)
        began = self._sending.pop(row, None)
        if began is not None and not (isinstance(event, RowStep) and not event.step.connected):
            self._spent += now - began
            self._sent += 1
        if isinstance(event, RowSettling):
            self._settling.add(row)
        elif isinstance(event, RowStep) and event.step.kind == "sending":
            self._sending[row] = now
            self._most_at_once = max(self._most_at_once, len(self._sending))

    def shown(self) -> AbstractAsyncContextManager[None]:
        """Show the progress during this ``async with``."""
        return self._watch.shown()

    def _notes(self) -> RunNotes:
        held_up_by = self._held_up_by()
        if (outage := self._outage) is not None and not held_up_by:
            now = asyncio.get_running_loop().time()
            again_in = None if outage.again_at is None else outage.again_at - now
            held_up_by = outage_words(outage.what, outage.reason, now - outage.since, again_in)
        return RunNotes(
            held_up_by=held_up_by,
            is_asking=bool(self._settling),
            # Big files on a slow connection may take longer than the limit.
            seconds_a_row=self._spent / self._sent / self._most_at_once if self._sent else 0.0,
            posts=self._posts,
        )
