"""``springest bench``: how fast a bulk run is on this machine, and what bounds it.

It does what ``springest upload`` does, with invented certificates and a journal of its own, on the disk that holds the
user's. The server is a sandbox that it starts, or one on this machine that ``SPRINGEST_HOST`` names.
"""

import asyncio
import csv
import os
import random
import re
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

from attrs import define, field, frozen
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress

from springest_async.bulk import (
    COLUMNS,
    BulkEvent,
    Manifest,
    OpenMigration,
    RowDone,
    RowSettling,
    RowStep,
    RunRecorder,
    State,
    UploadQueue,
    load_manifest,
)
from springest_async.cli import environment
from springest_async.cli.bench_figures import Figures, readable
from springest_async.cli.bench_sandbox import API_KEY, SandboxProcess, sandbox_process
from springest_async.cli.console import folding_table, say
from springest_async.cli.exit_codes import Exit
from springest_async.cli.exits import exit_of, explained
from springest_async.cli.signals import interrupts
from springest_async.cli.times import duration
from springest_async.client import Settings, Springest
from springest_async.errors import ConfigurationError, SpringestError
from springest_async.journal.journal import Journal, where_from_env
from springest_async.journal.place import default_path
from springest_async.journal.post_times import read_post_times
from springest_async.limits.limiter import Limiter
from springest_async.sandbox.audit import most_in_any

_NO_LIMIT = 10**9  # requests an hour, and POSTs a minute
_LINKS = 500  # names of one file; NTFS allows 1023
_LOOK_EVERY = 0.05  # seconds between two looks at the limit

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_HEAD = (
    b"%PDF-1.4\n1 0 obj <</Type /Catalog /Pages 2 0 R>> endobj\n"
    b"2 0 obj <</Type /Pages /Kids [3 0 R] /Count 1>> endobj\n"
    b"3 0 obj <</Type /Page /Parent 2 0 R /MediaBox [0 0 99 99] /Contents 4 0 R>> endobj\n"
    b"4 0 obj <<>> stream\n0 0 99 99 re f\n"
)
_TAIL = b"\nendstream endobj\ntrailer <</Root 1 0 R>>\nstartxref\n0\n%%EOF\n"


@frozen(kw_only=True)
class Plan:
    """What to measure.

    Args:
        count: how many uploads.
        size: bytes of each file.
        concurrency: how many uploads are in flight at once.
        limited: whether at most 30 POSTs leave in any 60 s.

    Raises:
        ConfigurationError: a number is too small.
    """

    count: int
    size: int
    concurrency: int
    limited: bool

    def __attrs_post_init__(self) -> None:
        if self.count < 1 or self.concurrency < 1:
            raise ConfigurationError("--count and --concurrency must be 1 or more")
        if self.size < len(_HEAD + _TAIL):
            raise ConfigurationError(f"--size must be {len(_HEAD + _TAIL)} bytes or more, which a PDF needs")

    @property
    def settings(self) -> Settings:
        """The settings of the client."""
        no_limit = None if self.limited else _NO_LIMIT
        return Settings(concurrency=self.concurrency, posts_per_minute=no_limit, requests_per_hour=no_limit)


def size_of(text: str) -> int:
    """Return how many bytes a size has that a person wrote, such as ``50KB`` or ``1.5 MB``.

    Raises:
        ConfigurationError: it is no size.
    """
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,3})?) ?([kmg]?)b?", text.strip().lower(), re.ASCII)
    if found is None:
        raise ConfigurationError("--size must be a size such as 50KB or 5MB")
    return round(float(found[1]) * _UNITS[found[2]])


async def bench(plan: Plan, out: Console, err: Console) -> Exit:
    """Upload invented certificates; print the figures to `out` and messages to `err`.

    Raises:
        ConfigurationError: SPRINGEST_HOST names another machine, or there is no room for the certificates.
        SpringestError: the server or the journal failed before the first upload.
    """
    task = asyncio.current_task()
    assert task is not None
    running: list[_Run] = []

    def interrupt() -> None:
        if not (running and running[0].stop()):
            task.cancel()

    origin = environment.local_origin()
    with _folder() as folder, interrupts(interrupt):
        with _no_room(folder.parent):
            manifest = await asyncio.to_thread(_archive, folder, plan)
        async with AsyncExitStack() as stack:
            sandbox = await stack.enter_async_context(sandbox_process(limited=plan.limited)) if not origin else None
            journal = Journal(folder / "journal.sqlite3")
            if sandbox is None:
                springest = environment.local_springest(journal, plan.settings)
            else:
                springest = Springest(api_key=API_KEY, host=sandbox.origin, settings=plan.settings, journal=journal)
            await stack.enter_async_context(journal)
            await stack.enter_async_context(springest)
            run = _Run(plan, springest, sandbox, *await _loaded(journal, manifest, springest), err)
            running.append(run)
            return await run.run(out)


async def _loaded(journal: Journal, manifest: Path, springest: Springest) -> tuple[OpenMigration, RunRecorder]:
    migration, loaded = await load_manifest(journal, Manifest.open(manifest), springest.origin)
    return migration, RunRecorder(loaded)


@define(eq=False)
class _Sends:
    """A listener that notes when each POST of a row left.

    Attributes:
        by_row: the times, in seconds since 1970, by the key of the row.
        waiting: the rows that wait until they may be sent.
    """

    by_row: defaultdict[int, list[float]] = field(factory=lambda: defaultdict(list))
    waiting: set[int] = field(factory=set)

    def __call__(self, event: BulkEvent) -> None:
        """Note an event."""
        if not isinstance(event, RowStep | RowSettling | RowDone):
            return
        row = event.row.id
        self.waiting.discard(row)
        if isinstance(event, RowStep):
            match event.step.kind:
                case "waiting":
                    self.waiting.add(row)
                case "sending":
                    self.by_row[row].append(event.step.at.timestamp())

    @property
    def times(self) -> list[float]:
        """When all POSTs left, sorted."""
        return sorted(time for times in self.by_row.values() for time in times)


async def _times(journal: Journal, sends: _Sends) -> tuple[list[float], float, float]:
    """Compare when POSTs left with what the journal recorded of their bodies and answers, in seconds.

    Returns:
        How long each took that was answered, sorted; the sum of the times from the first byte to the last, and of those
        from there to the answer.
    """
    left = {row: iter(times) for row, times in sends.by_row.items()}
    latencies, sending, answering = [], 0.0, 0.0
    for post in await journal.run(read_post_times):
        sent_at = next(left.get(post.row, iter(())), None)
        if sent_at is None or post.answered_at is None:
            continue
        latencies.append(post.answered_at - sent_at)
        written_at = max(sent_at, post.written_at or sent_at)
        sending += written_at - sent_at
        answering += post.answered_at - written_at
    return sorted(latencies), sending, answering


class _Run:
    """A run that is measured."""

    def __init__(
        self,
        plan: Plan,
        springest: Springest,
        sandbox: SandboxProcess | None,
        migration: OpenMigration,
        recorder: RunRecorder,
        err: Console,
    ) -> None:
        self._plan = plan
        self._springest = springest
        self._sandbox = sandbox
        self._migration = migration
        self._recorder = recorder
        self._err = err
        self._sends = _Sends()
        self._bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            console=err,
            refresh_per_second=2,  # little, beside what is measured
            disable=not err.is_interactive,
        )
        self._shown = self._bar.add_task("", total=plan.count)
        self._queue = UploadQueue(springest, migration, self._listen)
        self._stopped = False

    def stop(self) -> bool:
        """Finish the uploads in progress and begin no more; return False if that was asked for before."""
        if self._stopped:
            return False
        self._stopped = True
        self._queue.stop()
        say(self._err, "Stopping: finishing the uploads in progress. Press Ctrl-C again to abort.")
        return True

    def _listen(self, event: BulkEvent) -> None:
        self._recorder(event)
        if isinstance(event, RowDone):
            self._bar.advance(self._shown)
        self._sends(event)

    async def run(self, out: Console) -> Exit:
        """Upload everything, print the figures, and return the exit code."""
        plan, limiter = self._plan, self._springest.limiter
        before = await self._recorder.report(self._migration)
        server = "a sandbox" if self._sandbox else self._springest.origin
        pace = "as fast as possible"
        if plan.limited:
            pace = f"at {limiter.posts} a minute: about {duration(limiter.seconds_until(plan.count))}"
        say(self._err, f"{plan.count} uploads of {readable(plan.size)} to {server}, {pace}.")
        figures, error = await self._measure()
        table = folding_table("what", "how much")
        for name, value in figures.lines().items():
            table.add_row(name, value)
        out.print(table)
        say(out, f"What bounds it: {figures.bound()}.")
        if error is not None:
            say(self._err, f"Stopped early: {explained(error)}")
        report = await self._recorder.report(self._migration)
        return exit_of(report, error, before=before, interrupted=self._stopped)

    async def _measure(self) -> tuple[Figures, SpringestError | None]:
        """Upload everything; return the figures, and the error that ended the run early, if any."""
        plan, journal = self._plan, self._migration.journal
        server_before = await self._sandbox.state() if self._sandbox else None
        disk, cpu, began = journal.waited, time.process_time(), time.perf_counter()
        with self._bar:
            async with _waits_for_limit(self._springest.limiter, self._sends) as limit:
                error = await self._queue.run()
        seconds, cpu, disk = time.perf_counter() - began, time.process_time() - cpu, journal.waited - disk
        server_after = await self._sandbox.state() if self._sandbox else None
        report = await self._recorder.report(self._migration)
        latencies, sending, answering = await _times(journal, self._sends)
        figures = Figures(
            seconds=seconds,
            uploads=plan.count,
            size=plan.size,
            concurrency=plan.concurrency,
            stored=report.count(State.STORED),
            posts=report.posts,
            refusals=report.refusals,
            most_in_any_minute=(
                server_after.most_in_any_minute if server_after else most_in_any(self._sends.times, 60.0)
            ),
            latencies=latencies,
            sending=sending,
            answering=answering,
            client_cpu=cpu,
            server_cpu=server_after.cpu - server_before.cpu if server_after and server_before else None,
            limit=limit.total,
            disk=disk,
        )
        return figures, error


@define(eq=False)
class _Waits:
    """How long uploads have waited for the limit, in seconds of the run."""

    total: float = 0.0


@asynccontextmanager
async def _waits_for_limit(limiter: Limiter, sends: _Sends) -> AsyncIterator[_Waits]:
    """Count during the block how long uploads wait because no POST may leave."""
    waits = _Waits()

    async def watch() -> None:
        before = time.perf_counter()
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            now = time.perf_counter()
            if sends.waiting and limiter.seconds_until(1) > 0:
                waits.total += now - before
            before = now

    watching = asyncio.create_task(watch())
    try:
        yield waits
    finally:
        watching.cancel()
        await asyncio.wait([watching])


# --- the invented archive ---


@contextmanager
def _folder() -> Iterator[Path]:
    """Make a folder on the disk of the user's journal, and remove it at the end.

    Raises:
        ConfigurationError: it cannot be made.
    """
    where = where_from_env()
    beside = default_path() if str(where).startswith(("postgresql://", "postgres://")) else Path(where)
    with ExitStack() as stack:
        with _no_room(beside.parent):
            beside.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = tempfile.TemporaryDirectory(prefix="bench-", dir=beside.parent, ignore_cleanup_errors=True)
        yield Path(stack.enter_context(folder))


@contextmanager
def _no_room(folder: Path) -> Iterator[None]:
    """Raise what the system says of a folder as a `ConfigurationError`."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"the invented certificates cannot be in {folder}: {error.strerror}") from error


def _archive(folder: Path, plan: Plan) -> Path:
    """Write the certificates and their manifest, and return its path. Most files are further names of a few."""
    manifest = folder / "certificates.csv"
    with manifest.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="")
        writer.writeheader()
        first = folder
        for number in range(plan.count):
            file = folder / f"{number}.pdf"
            if number % _LINKS == 0:
                first = file
                _write_pdf(file, plan.size)
            else:
                _link(file, first)
            writer.writerow(
                {
                    "file": file.name,
                    "certification_id": 1,
                    "email": f"employee{number}@example.org",
                    "valid_from": "2026-01-31",
                    "valid_until": "2031-01-31",
                }
            )
    return manifest


def _write_pdf(file: Path, size: int) -> None:
    noise = random.Random(2026).randbytes(1 << 20)
    left = size - len(_HEAD) - len(_TAIL)
    with file.open("wb") as stream:
        stream.write(_HEAD)
        while left > 0:
            left -= stream.write(noise[:left])
        stream.write(_TAIL)


def _link(file: Path, first: Path) -> None:
    with suppress(OSError):  # a file system without links
        os.link(first, file)
        return
    shutil.copyfile(first, file)
