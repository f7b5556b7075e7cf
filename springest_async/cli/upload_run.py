"""The run of ``springest upload``: the queue until it ends or is stopped, what is shown meanwhile, and the results."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial

from attrs import frozen
from rich.console import Console

from springest_async.bulk import (
    BulkEvent,
    BulkListener,
    LeftOut,
    Manifest,
    OpenMigration,
    Paused,
    Report,
    Resumed,
    RowDone,
    RowStep,
    RunRecorder,
    State,
    UploadQueue,
    write_failed,
)
from springest_async.cli.console import argument, forget_stdout, say
from springest_async.cli.exit_codes import Exit
from springest_async.cli.exits import exit_of, explained
from springest_async.cli.json_log import json_log
from springest_async.cli.progress import UploadProgress
from springest_async.cli.signals import Abort, interrupts
from springest_async.cli.status import runs_on, table_of
from springest_async.cli.stops import Stops
from springest_async.cli.times import clock_time, duration
from springest_async.client import Springest
from springest_async.errors import (
    ConfigurationError,
    Forbidden,
    JournalError,
    ManifestError,
    NotAuthorized,
    SpringestError,
)
from springest_async.journal.reasons import plain_reason
from springest_async.journal.status_reader import StatusReader
from springest_async.limits.limiter import POSTS_PER_MINUTE, Limiter
from springest_async.reports.numbers import count, number

_REASONS_SHOWN = 5
_LOOK_EVERY = 5.0  # seconds between two looks at what other runs do


@frozen
class Rest:
    """What a run does not send, and how it can be sent later.

    Attributes:
        faulty: the rows that were left out because of their faults.
        listed: how many rows were left out because Springest lists them.
        options: the options with which the file of failed rows is to be uploaded, with a space before each.
        resume: the command that ends a pause.
    """

    faulty: LeftOut
    listed: int
    options: str
    resume: str


class UploadRun:
    """A run of the queue, until its results are printed."""

    def __init__(
        self,
        springest: Springest,
        manifest: Manifest,
        migration: OpenMigration,
        recorder: RunRecorder,
        before: Report,
        rest: Rest,
        out: Console,
        err: Console,
    ) -> None:
        self._limiter = springest.limiter
        self._manifest = manifest
        self._migration = migration
        self._journal = migration.journal
        self._recorder = recorder
        self._before = before
        self._rest = rest
        self._out = out
        self._err = err
        self._hosts: Sequence[str] = ()  # where other runs work on the migration
        self._reader = StatusReader(self._journal)
        read = partial(self._reader.status, migration.id)
        self._progress = UploadProgress(err, read, posts=springest.limiter.posts, held_up_by=self._held_up_by)
        self._queue = UploadQueue(springest, migration, self._listen)
        self._listeners: list[BulkListener] = [recorder, self._progress, self._say_changed, self._say_paused]
        self._beside: list[AbstractAsyncContextManager[object]] = [self._watched()]
        if json_log() is None:
            self._beside += [self._reader, self._progress.shown()]
        self._on_abort: Callable[[str], object] = lambda _: None
        self._in_progress: set[int] = set()  # the keys of the rows that are being sent
        self._unwritten: set[int] = set()  # those whose outcome the journal may not have yet
        self._interrupted = False
        self._has_stopped_itself = False
        self.error: SpringestError | None = None
        """What has ended it early."""

    def tell(
        self,
        listener: BulkListener,
        beside: AbstractAsyncContextManager[object],
        on_abort: Callable[[str], object],
    ) -> None:
        """Add a listener, enter what goes on beside the run, and call `on_abort` if it must end without its journal.

        That gets the reason, for people, and is called in another thread.
        """
        self._listeners.append(listener)
        self._beside.append(beside)
        self._on_abort = on_abort

    async def run(self, hosts: Sequence[str], stops: Stops) -> Exit:
        """Run it until `stops` says so; `hosts` is where other runs work on the migration."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._hosts = hosts
        self._listeners.append(stops)
        task = asyncio.current_task()
        error: SpringestError | None = None
        abort = Abort(self._journal, self._say_waits_for_journal, self._tell_aborted)

        def interrupt() -> None:
            if self._interrupted and task is not None:
                task.cancel()
                abort.interrupt()
            else:
                self._interrupted = True
                self._queue.stop()
                say(self._err, "Stopping: finishing the uploads in progress. Press Ctrl-C again to abort.")

        with interrupts(interrupt):
            with contextlib.suppress(asyncio.CancelledError):
                async with AsyncExitStack() as stack:
                    for beside in (*self._beside, self._stopping(stops)):
                        await stack.enter_async_context(beside)
                    error = self.error = await self._queue.run()
            try:
                return await self._finish(error, loop.time() - started)
            except JournalError as failure:
                say(self._err, f"The results cannot be read: {failure}")
                return Exit.INTERRUPTED if self._interrupted else Exit.NOT_ALL
            except asyncio.CancelledError:  # Ctrl-C while the journal cannot be reached
                return Exit.INTERRUPTED

    def _say_waits_for_journal(self) -> None:
        say(
            self._err,
            f"Waiting until the journal can be written ({self._journal.where}): probably another program has locked it."
            " Press Ctrl-C again to end without it.",
        )

    def _tell_aborted(self) -> None:
        is_in_doubt = self._in_progress or self._unwritten
        result = "what was being sent is in doubt" if is_in_doubt else "the results cannot be read"
        words = (
            f"Aborted: the journal does not answer ({self._journal.where}), so {result}. Run the same command again to"
            " continue."
        )
        self._err.show_cursor()  # which the display has hidden
        say(self._err, words)
        self._on_abort(words)

    def _listen(self, event: BulkEvent) -> None:
        match event:
            case RowStep(row=row, step=step) if step.kind == "sending":
                self._in_progress.add(row.id)
            case RowStep(row=row) | RowDone(row=row) if row.id in self._in_progress:
                self._in_progress.remove(row.id)
                self._unwritten.add(row.id)
        for listener in self._listeners:
            listener(event)

    def _say_changed(self, event: BulkEvent) -> None:
        if isinstance(event, RowDone) and event.changed:
            say(
                self._err,
                f"row {event.row.number}: the file has changed since it was uploaded: it is a new certificate",
            )

    def _say_paused(self, event: BulkEvent) -> None:
        if isinstance(event, Paused):
            since = clock_time(event.since, datetime.now(UTC))
            say(
                self._err,
                f"Paused since {since}: nothing more is sent until: {self._rest.resume} (Ctrl-C ends this run,"
                " and not the pause)",
            )
        elif isinstance(event, Resumed):
            say(self._err, f"Resumed after {duration(event.seconds)}.")

    @asynccontextmanager
    async def _stopping(self, stops: Stops) -> AsyncIterator[None]:
        """Stop when that was asked for at the start, during this ``async with``."""

        async def stop() -> None:
            why = await stops.reached()
            if not self._interrupted:
                self._has_stopped_itself = True
                self._queue.stop()
                say(self._err, f"Stopping {why}: finishing the uploads in progress. Press Ctrl-C twice to abort.")

        stopping = asyncio.create_task(stop())
        try:
            yield
        finally:
            stopping.cancel()
            await asyncio.wait([stopping])

    def _held_up_by(self) -> str:
        if self._journal.trouble:
            return f"waiting for the journal: {self._journal.trouble}"
        if self._queue.waits_for_others and self._hosts:  # none while this run itself settles what is in doubt
            return f"waiting for {self._others}"
        return "finishing the uploads in progress" if self._interrupted or self._has_stopped_itself else ""

    @property
    def _others(self) -> str:
        return ", ".join(sorted(set(self._hosts)))

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        """Look at other runs during this ``async with``."""
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait([watching])

    async def _watch(self) -> None:
        """Look where other runs are, and say when this one has nothing left to do but to wait for them."""
        said = False
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            noted = self._unwritten.copy()
            with contextlib.suppress(JournalError):
                self._hosts = await self._migration.hosts()
                self._unwritten -= noted
            if self._queue.waits_for_others and self._hosts and not said:
                said = True
                say(self._err, f"Waiting for {self._others}, which has the last certificates.")

    async def _finish(self, error: SpringestError | None, seconds: float) -> Exit:
        """Print the results, and return the exit code."""
        report = await self._recorder.report(self._migration)
        self._in_progress.clear()
        self._unwritten.clear()
        hosts = await self._migration.hosts()
        try:
            _print_totals(report, self._before, seconds, self._limiter, self._out)
            _print_left_out(self._rest, self._out)
        except OSError as failure:  # keep the exit code of the run
            forget_stdout()
            if not isinstance(failure, BrokenPipeError):  # the reader has seen enough
                say(self._err, f"The totals cannot be written: {failure.strerror}")
        if error is not None:
            say(self._err, f"Stopped early: {explained(error)}")
        try:
            await self._print_unfinished(report, hosts, error)
            await self._print_failed(report)
        except (ConfigurationError, JournalError, ManifestError) as failure:
            say(self._err, str(failure))
        replaced = not await self._migration.is_current()
        if replaced:
            say(
                self._err,
                "Another run has loaded this manifest meanwhile, edited or with other options: the rows above are those"
                " that it has loaded. Run the command again whose rows you mean.",
            )
        code = exit_of(
            report,
            error,
            before=self._before,
            interrupted=self._interrupted,
            stopped_itself=self._has_stopped_itself,
        )
        return Exit.NOT_ALL if code is Exit.STORED and (self._rest.faulty.rows or replaced) else code

    async def _print_failed(self, report: Report) -> None:
        await self._print_reasons()
        if (failed := await write_failed(self._migration, self._manifest, self._rest.faulty)) is not None:
            rows = count(report.count(State.REJECTED, State.FAILED) + len(self._rest.faulty.rows), "row")
            say(
                self._err,
                f"Not stored: {rows}. The reasons are in {failed}: correct the rows there, then: springest upload"
                f" {argument(failed)}{self._rest.options}",
            )

    async def _print_reasons(self) -> None:
        """Print the most frequent reasons of rejected and failed rows, so that nobody has to open a file for them."""
        reasons, found = await self._migration.reasons(_REASONS_SHOWN)
        for reason in reasons:
            words = plain_reason(reason.words) or "no reason was recorded"
            say(self._err, f"{count(reason.rows, 'row')} {reason.state.value}: {words}")
        if found > len(reasons):
            say(self._err, f"… and {count(found - len(reasons), 'other reason')}")

    async def _print_unfinished(self, report: Report, hosts: Sequence[str], error: SpringestError | None) -> None:
        manifest = argument(self._manifest.path)
        again = "Run the same command again"
        if isinstance(error, NotAuthorized | Forbidden):
            again = "Set the right key, then run the same command again"
        if doubts := report.count(State.IN_DOUBT):
            say(
                self._err,
                f"In doubt: {count(doubts, 'row')} that Springest may have stored. {again} to ask it;"
                f" springest status {manifest} lists them.",
            )
        if gone := len(await self._migration.orphans()):
            say(
                self._err,
                f"In doubt: {count(gone, 'certificate')} of earlier runs that"
                f" {'is' if gone == 1 else 'are'} no longer in a manifest: springest status {manifest} lists them.",
            )
        if hosts:
            say(self._err, f"{runs_on(hosts)} still working on this manifest.")
        elif waiting := report.count(State.WAITING):
            say(self._err, f"Waiting: {count(waiting, 'row')}. {again} to continue.")
            if await self._migration.paused_at():
                say(self._err, f"It is still paused, so that run waits too, until: {self._rest.resume}")


def _print_totals(report: Report, before: Report, seconds: float, limiter: Limiter, out: Console) -> None:
    out.print(table_of(report.counts))
    # The report counts what the journal knew when the manifest was loaded, and so does `before`.
    known = report.stored_before - before.stored_before
    stored_before = before.count(State.STORED) + known
    if report.posts:
        _print_posts(report, seconds, limiter, out)
    elif report.stored:
        say(out, f"{count(report.stored, 'certificate')} in doubt found at Springest: nothing was sent")
    elif not stored_before:
        say(out, "Nothing was sent")
    if stored_before:
        nothing = "" if report.posts or report.stored else "Nothing was sent: "
        say(out, f"{nothing}{number(stored_before)} stored before")
    if (outage := report.last_outage) is not None:
        often = "" if report.outages == 1 else f" in all, {report.outages} times"
        say(out, f"{outage.what} for {duration(report.outage_seconds)}{often} ({outage.reason})")
    if (by_others := report.count(State.STORED) - stored_before - report.stored) > 0:
        say(out, f"{count(by_others, 'certificate')} stored by other runs meanwhile")


def _print_left_out(rest: Rest, out: Console) -> None:
    parts = [f"{count(faulty, 'row')} with faults"] if (faulty := len(rest.faulty.rows)) else []
    parts += [f"{count(rest.listed, 'row')} that Springest lists already"] if rest.listed else []
    if parts:
        say(out, f"Left out: {', '.join(parts)}")


def _print_posts(report: Report, seconds: float, limiter: Limiter, out: Console) -> None:
    agreed = ", as agreed with Springest" if limiter.posts > POSTS_PER_MINUTE else ""
    pace = ", then one at a time, because the server refused POSTs as too fast" if limiter.slow else ""
    say(
        out,
        f"{count(report.stored, 'certificate')} stored in {duration(seconds)}: {count(report.posts, 'POST')} tried,"
        f" {report.refusals} of them refused without a reason; the limit was {limiter.posts} a minute{agreed}{pace}",
    )
