"""``springest upload``: preflight, the queue, the progress, and what came of it."""

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from springest_async.bulk import Finding, Manifest, Report, RowDone, RowStep, RunRecorder, State, UploadQueue
from springest_async.bulk.preflight import check_manifest
from springest_async.cli import environment
from springest_async.cli.console import forget_stdout, say
from springest_async.cli.exits import Exit, exit_of
from springest_async.cli.progress import UploadProgress, duration
from springest_async.cli.signals import interrupts
from springest_async.client import Springest
from springest_async.errors import ManifestError, SpringestError
from springest_async.limiter import POSTS_PER_MINUTE, Limiter
from springest_async.records import Certification

__all__ = ["upload"]


async def upload(path: Path, out: Console, err: Console) -> Exit:
    """Upload a manifest: tables to `out`, words to `err`."""
    manifest = Manifest.open(path)
    async with environment.springest() as springest:
        rows = await _preflight(manifest, await _certifications(springest, err), err)
        if rows is None:
            return Exit.USAGE
        if rows == 0:
            say(err, f"{path} has no rows: nothing to do.")
            return Exit.STORED
        forecast = duration(springest.limiter.seconds_until(rows))
        say(
            err,
            f"{_count(rows, 'certificate')} to {springest.origin}:"
            f" about {forecast} at {springest.limiter.posts} a minute.",
        )
        return await _run(springest, manifest, rows, out, err)


async def _run(springest: Springest, manifest: Manifest, rows: int, out: Console, err: Console) -> Exit:
    loop = asyncio.get_running_loop()
    started = loop.time()
    error: SpringestError | None = None
    progress = UploadProgress(err, rows, springest.limiter)
    with RunRecorder(manifest) as recorder:

        def listen(event: RowStep | RowDone) -> None:
            recorder(event)
            progress(event)

        queue = UploadQueue(springest, manifest, listen)
        interruption = _Interruption(queue, err)
        with interrupts(interruption), contextlib.suppress(asyncio.CancelledError):
            async with progress.shown():
                error = await queue.run()
    report = recorder.report()
    try:
        _tell(report, loop.time() - started, springest.limiter, out)
    except BrokenPipeError:
        forget_stdout()
    if error is not None:
        say(err, f"Ended early: {error}")
    _tell_left_over(report, err)
    return exit_of(report, error, interrupted=interruption.happened)


class _Interruption:
    """Stops the queue when it is called first (Ctrl-C), and gives up when it is called again."""

    def __init__(self, queue: UploadQueue, err: Console) -> None:
        self._queue = queue
        self._err = err
        self._task = asyncio.current_task()
        self.happened = False

    def __call__(self) -> None:
        if self.happened and self._task is not None:
            self._task.cancel()
            return
        self.happened = True
        self._queue.stop()
        say(self._err, "Stopping: what is being sent may end. Press Ctrl-C again to give up at once.")


async def _certifications(springest: Springest, err: Console) -> Mapping[int, Certification] | None:
    if not environment.certifications_key_is_set():
        say(
            err,
            "SPRINGEST_CERTIFICATIONS_API_KEY is not set:"
            " whether the certifications exist, and which of them require valid_until, is not checked.",
        )
        return None
    return {certification.id: certification async for certification in springest.certifications()}


async def _preflight(
    manifest: Manifest, certifications: Mapping[int, Certification] | None, err: Console
) -> int | None:
    """Check the manifest and tell all findings; give the number of its rows, or None when it has faults."""
    rows = 0
    findings: list[Finding] = []
    given_up = False
    unreadable: ManifestError | None = None

    def check() -> None:
        nonlocal rows, unreadable
        try:
            for finding in check_manifest(manifest, certifications):
                if given_up:
                    return
                if finding is None:
                    rows += 1
                else:
                    findings.append(finding)
        except ManifestError as error:
            unreadable = error  # told after what was found before it

    with err.status("") as status:
        checking = asyncio.create_task(asyncio.to_thread(check))
        try:
            while not (await asyncio.wait([checking], timeout=0.25))[0]:
                status.update(f"Checking {manifest.path.name}: {rows} rows")
        finally:
            given_up = True  # the thread ends at its next row, also when this task is cancelled
        await checking
    for finding in sorted(findings, key=lambda finding: finding.row):
        say(err, str(finding))
    if unreadable is not None:
        raise unreadable
    faults = sum(not finding.warning for finding in findings)
    if faults:
        say(err, f"{_count(faults, 'fault')} in {_count(rows, 'row')} of {manifest.path}. Nothing was sent.")
        return None
    return rows


def _tell(report: Report, seconds: float, limiter: Limiter, out: Console) -> None:
    table = Table("outcome", "rows")
    table.columns[1].justify = "right"
    for state in State:
        table.add_row(state.value, str(report.count(state)))
    out.print(table)
    agreed = ", as agreed with Springest" if limiter.posts > POSTS_PER_MINUTE else ""
    pace = ", then one at a time, because the server refused for speed" if limiter.slow else ""
    say(
        out,
        f"{_count(report.rows, 'certificate')} in {duration(seconds)}: {report.posts} POSTs tried,"
        f" {report.refusals} of them refused without a reason; the limit was {limiter.posts} a minute{agreed}{pace}",
    )


def _tell_left_over(report: Report, err: Console) -> None:
    if (path := report.left_over.get("failed")) is not None:
        count = report.count(State.REJECTED, State.FAILED, State.WAITING)
        say(
            err,
            f"Not stored: {_count(count, 'row')}. The reasons are in {path};"
            " upload it when they are mended, a minute from now or later.",
        )
    if (path := report.left_over.get("in-doubt")) is not None:
        count = report.count(State.IN_DOUBT)
        say(
            err,
            f"In doubt: {_count(count, 'row')}, which Springest may have stored. See {path},"
            " and look at Springest before you upload any of them again.",
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
