"""Report to machines how a run goes: the JSON log, a metrics file, pings, and hooks at the end or in trouble.

All of them get the summary of the run, in which the migration's status is read from the journal from time to time.
Nothing that fails here stops a run or changes its exit code: it is said once.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from attrs import evolve
from rich.console import Console

from springest_async.api.settlement import was_asked
from springest_async.bulk import BulkEvent, Outage, OutageOver, RowDone, RunRecorder, State
from springest_async.cli import environment
from springest_async.cli.console import say
from springest_async.cli.exit_codes import Exit
from springest_async.cli.exits import exit_of_error, explained
from springest_async.cli.hooks import run_hook
from springest_async.cli.json_log import json_log
from springest_async.cli.machine_options import MachineOptions
from springest_async.cli.signals import interrupts
from springest_async.cli.stops import Stops
from springest_async.cli.times import duration
from springest_async.errors import InDoubt, JournalError, SpringestError
from springest_async.journal import migrations
from springest_async.journal.doubts import reasons_of_doubts
from springest_async.journal.engine import Connection
from springest_async.journal.open_migration import OpenMigration
from springest_async.journal.status import MigrationStatus, read_status
from springest_async.journal.status_reader import StatusReader
from springest_async.reports.events_json import event_as_json
from springest_async.reports.run_view import RunView, StatusRead
from springest_async.reports.summary_json import StoppedBy, Trouble

if TYPE_CHECKING:
    from springest_async.http.ping import Ping

_METRICS_EVERY = 15.0  # seconds
_MINUTE = 60.0  # seconds between two pings, and two summaries in the log
_LONG_OUTAGE = 600.0  # seconds after which somebody is called
_PATIENCE_AT_END = 5.0  # seconds for the last read


class Machines:
    """Tells machines how one run of ``springest upload`` goes.

    Usage::

        async with Machines(manifest, options, stops, err) as machines:
            return await machines.tell_end_of(upload())  # in which:
            async with machines.told(migration, recorder):
                error = await UploadQueue(springest, migration, machines).run()

    Args:
        manifest: the manifest's file.
        options: what is to be told.
        stops: what stops the run by itself.
        err: where to print what fails, and what hooks print.

    Raises:
        ConfigurationError: the options cannot be right.
    """

    def __init__(self, manifest: Path, options: MachineOptions, stops: Stops, err: Console) -> None:
        self._view = RunView(manifest.name)
        self._options = options
        self._stops = stops
        self._err = err
        self._log = json_log()
        self._stack = AsyncExitStack()
        self._ping: Ping | None = None
        self._pinging = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._outage: asyncio.TimerHandle | None = None
        self._told: set[Trouble] = set()
        self._known_doubts: frozenset[str] = frozenset()  # the POSTs in doubt that a person knows of
        self._failed: set[str] = set()
        self.error = ""
        """What ended the run early, in words."""

    async def __aenter__(self) -> Self:
        if self._options.metrics is not None:
            from springest_async.reports.metrics import check_metrics_file  # noqa: PLC0415 # not always needed

            check_metrics_file(self._options.metrics)
        self._ping = environment.ping(self._options.ping)
        if self._ping is not None:
            await self._stack.enter_async_context(self._ping)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    @property
    def _tells(self) -> bool:
        """Whether there is anything to tell at all."""
        return self._log is not None or self._ping is not None or self._options != MachineOptions()

    # --- while it runs ---

    @asynccontextmanager
    async def told(self, migration: OpenMigration, recorder: RunRecorder) -> AsyncIterator[None]:
        """Report a run during this ``async with``."""
        if not self._tells:
            yield
            return

        def read_without_this_run(connection: Connection) -> MigrationStatus:
            others = migrations.workers(connection, migration.id, without=migration.journal.worker)
            return evolve(read_status(connection, migration.id), workers=others)

        async def read_last(reader: StatusReader) -> MigrationStatus:
            # The last outcomes may still wait for a commit to ride with: this one.
            await migration.journal.run(lambda _: None)
            return await reader.read(read_without_this_run)

        with suppress(JournalError):
            doubts = await migration.journal.run(partial(reasons_of_doubts, origin=migration.source.origin))
            self._known_doubts = frozenset(post for post, reason in doubts.items() if was_asked(reason))
        async with StatusReader(migration.journal) as reader:
            try:
                async with self.told_from(lambda: reader.status(migration.id), recorder):
                    yield
            finally:
                await self._view.end(lambda: read_last(reader), _PATIENCE_AT_END)

    @asynccontextmanager
    async def told_from(self, read: StatusRead, recorder: RunRecorder) -> AsyncIterator[None]:
        """Report a run whose status is read so."""
        self._view.begin(read, recorder)
        await self._view.look()
        begin = self._view.summary("begin")
        self._to_log(begin)
        self._start(self._post(begin))
        repeated = [asyncio.create_task(self._keep_metrics()), asyncio.create_task(self._tell_each_minute())]
        try:
            yield
        finally:
            for task in repeated:
                task.cancel()
            await asyncio.wait(repeated)
            self._end_outage()

    def __call__(self, event: BulkEvent) -> None:
        """Note an event."""
        if not self._tells:
            return
        loop = asyncio.get_running_loop()
        if self._log is not None:
            name, fields = event_as_json(event, loop.time())
            self._log.event(name, **fields)
        match event:
            case Outage():
                if self._outage is None:
                    what = f"{event.what} for {duration(_LONG_OUTAGE)} ({event.reason})"
                    self._outage = loop.call_at(event.since + _LONG_OUTAGE, self._call_for_help, "outage", what)
            case OutageOver():
                self._end_outage()
            case RowDone(state=State.IN_DOUBT):
                why, post = (
                    (event.error.reason, event.error.request_id) if isinstance(event.error, InDoubt) else ("", "")
                )
                if post not in self._known_doubts:
                    row = event.row.number
                    which = "a certificate of an earlier run" if row is None else f"row {row}"
                    self._call_for_help("in_doubt", f"{which}: {why}")

    def _end_outage(self) -> None:
        if self._outage is not None:
            self._outage.cancel()
            self._outage = None

    async def _keep_metrics(self) -> None:
        while self._options.metrics is not None:
            await self._view.look()
            await self._write_metrics()
            await asyncio.sleep(_METRICS_EVERY)

    async def _tell_each_minute(self) -> None:
        while True:
            await asyncio.sleep(_MINUTE)
            await self._view.look()
            progress = self._view.summary("progress")
            self._to_log(progress)
            await self._post(progress)

    # --- who is told ---

    def _call_for_help(self, trouble: Trouble, words: str) -> None:
        """Report trouble, of each kind once."""
        if trouble not in self._told:
            self._told.add(trouble)
            self._start(self._tell_trouble(trouble, words))

    async def _tell_trouble(self, trouble: Trouble, words: str) -> None:
        await self._view.look()
        summary = self._view.summary("trouble", trouble=trouble, words=words)
        self._to_log(summary)
        await self._run_hook("--on-trouble", self._options.on_trouble, summary)

    def _start(self, telling: Coroutine[Any, Any, None]) -> None:
        """Report to somebody while the run goes on."""
        self._tasks.add(asyncio.create_task(telling))

    def _to_log(self, summary: dict[str, Any]) -> None:
        if self._log is not None:
            self._log.event(**summary)

    async def _run_hook(self, option: str, command: str | None, summary: dict[str, Any]) -> None:
        if command is None:
            return
        if failure := await run_hook(command, summary, lambda line: say(self._err, line)):
            say(self._err, f"Warning: the command of {option} {failure}.")

    async def _post(self, summary: dict[str, Any]) -> None:
        if self._ping is None:
            return
        async with self._pinging:
            if failure := await self._ping.post(summary):
                self._say_once(f"Warning: {self._ping.origin} cannot be pinged ({failure}). The upload goes on.")

    async def _write_metrics(self, exit_code: Exit | None = None) -> None:
        await asyncio.to_thread(self._save_metrics, exit_code)

    def _save_metrics(self, exit_code: Exit | None) -> None:
        if (path := self._options.metrics) is None:
            return
        from springest_async.reports.metrics import RunMetrics, write_metrics  # noqa: PLC0415 # not always needed

        view = self._view
        metrics = RunMetrics(
            file=path.name,
            manifest=view.manifest,
            status=view.status,
            run=view.run,
            exit_code=exit_code,
            stopped_by=self._stopped_by(exit_code),
        )
        try:
            write_metrics(path, metrics)
        except OSError as error:
            self._say_once(f"Warning: the metrics cannot be written to {path}: {error.strerror}. The upload goes on.")

    def _stopped_by(self, code: Exit | None) -> StoppedBy | None:
        return self._stops.stopped_by if code is Exit.STOPPED else None

    def _say_once(self, words: str) -> None:
        kind = words.partition("(")[0]
        if kind not in self._failed:
            self._failed.add(kind)
            say(self._err, words)

    # --- at the end ---

    async def tell_end_of(self, command: Coroutine[Any, Any, Exit]) -> Exit:
        """Run the command to its end, tell of that, and return its exit code; raise what it raises."""
        try:
            code = await command
        except SpringestError as error:
            self.error = explained(error)
            await self._tell_end(exit_of_error(error, Exit.USAGE))
            raise
        except asyncio.CancelledError:
            await self._tell_end(Exit.INTERRUPTED)
            raise
        await self._tell_end(code)
        return code

    async def _tell_end(self, code: Exit) -> None:
        """Report the end; Ctrl-C ends that at once."""
        if not self._tells:
            return
        telling = asyncio.create_task(self._tell_all_of_end(code))

        def interrupt() -> None:
            telling.cancel()

        with interrupts(interrupt):
            try:
                await asyncio.wait([telling])
            finally:
                telling.cancel()
        if not telling.cancelled():
            telling.result()

    async def _tell_all_of_end(self, code: Exit) -> None:
        if code is Exit.KEY_REFUSED:
            self._call_for_help("key_refused", self.error)
        summary = self._end_log(code)
        await self._write_metrics(code)
        await asyncio.gather(*self._tasks, self._post(summary))
        await self._run_hook("--on-finish", self._options.on_finish, summary)

    def _end_log(self, code: Exit) -> dict[str, Any]:
        """Return the summary of the end, which is also the last object of the log."""
        summary = self._view.summary("end", exit_code=int(code), error=self.error, stopped_by=self._stopped_by(code))
        if self._log is not None:
            self._log.end |= {name: value for name, value in summary.items() if name != "at"}
        return summary

    def tell_aborted(self, words: str) -> None:
        """Report the end of a run whose journal does not answer: in the log and the metrics, as it was read last.

        It waits for nobody, so no hook is run and no ping is sent; it may be called in any thread.

        Args:
            words: why it ends.
        """
        self.error = words
        self._end_log(Exit.INTERRUPTED)
        self._save_metrics(Exit.INTERRUPTED)
