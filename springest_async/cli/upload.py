"""``springest upload``: the preflight, the queue, the progress, and the results."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from springest_async.bulk import (
    Finding,
    Journal,
    Loaded,
    Manifest,
    Report,
    RowDone,
    RowSettling,
    RowStep,
    RunRecorder,
    State,
    UploadQueue,
    check_manifest,
    default_path,
    write_failed,
)
from springest_async.cli import environment
from springest_async.cli.console import argument, cell, forget_stdout, say
from springest_async.cli.exits import Exit, exit_of, explained
from springest_async.cli.progress import UploadProgress, duration
from springest_async.cli.signals import interrupts
from springest_async.cli.status import table_of
from springest_async.client import Springest
from springest_async.errors import ConfigurationError, JournalError, SpringestError
from springest_async.limits.limiter import POSTS_PER_MINUTE, Limiter
from springest_async.records import Certification


async def upload(path: Path, journal_path: Path | None, out: Console, err: Console) -> Exit:
    """Upload a manifest, or continue it; print tables to `out` and messages to `err`."""
    manifest = Manifest.open(path)
    async with environment.springest() as springest:
        with Journal.open(journal_path or default_path(path)) as journal:
            rows = await _preflight(manifest, springest, journal, err)
            if rows is None:
                return Exit.USAGE
            if rows == 0:
                say(err, f"{path} has no rows: nothing to do.")
                return Exit.STORED
            with err.status(cell(f"Writing {rows} rows to {journal.path}")):
                loaded = await asyncio.to_thread(journal.load, manifest, springest.origin)
            _print_start(loaded, journal.counts(), springest, err)
            return await _run(springest, manifest, journal, out, err)


def _print_start(loaded: Loaded, counts: Counter[State], springest: Springest, err: Console) -> None:
    waiting = counts[State.WAITING]
    forecast = duration(springest.limiter.seconds_until(waiting))
    of_all = f" of {loaded.rows}" if waiting < loaded.rows else ""
    say(
        err,
        f"{_count(waiting, 'certificate')}{of_all} to {springest.origin}:"
        f" about {forecast} at {springest.limiter.posts} a minute.",
    )
    done = [state for state in State if state is not State.WAITING and counts[state]]
    if before := ", ".join(f"{counts[state]} {state.value}" for state in done):
        say(err, f"From earlier runs: {before}.")
    if loaded.changed:
        more = f" and {loaded.changed - len(loaded.changed_rows)} more" * (loaded.changed > len(loaded.changed_rows))
        say(
            err,
            f"Changed since they were uploaded, so uploaded as new certificates: rows"
            f" {', '.join(map(str, loaded.changed_rows))}{more}.",
        )


async def _run(springest: Springest, manifest: Manifest, journal: Journal, out: Console, err: Console) -> Exit:
    loop = asyncio.get_running_loop()
    started = loop.time()
    error: SpringestError | None = None
    recorder = RunRecorder()
    before = recorder.report(journal)
    to_do = before.count(State.WAITING, State.IN_DOUBT)
    progress = UploadProgress(err, to_do, springest.limiter, before=before.rows - to_do)

    def listen(event: RowStep | RowSettling | RowDone) -> None:
        recorder(event)
        progress(event)
        if isinstance(event, RowDone) and event.row.changed:
            say(err, f"row {event.row.number}: the file has changed since it was uploaded: it is a new certificate")

    queue = UploadQueue(springest, journal, listen)
    task = asyncio.current_task()
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if interrupted and task is not None:
            task.cancel()
        else:
            interrupted = True
            queue.stop()
            say(err, "Stopping: finishing the uploads in progress. Press Ctrl-C again to abort.")

    with interrupts(interrupt), contextlib.suppress(asyncio.CancelledError):
        async with progress.shown():
            error = await queue.run()
    report = recorder.report(journal)
    try:
        _print_totals(report, before, loop.time() - started, springest.limiter, out)
    except OSError as failure:  # keep the exit code of the run
        forget_stdout()
        if not isinstance(failure, BrokenPipeError):  # the reader has seen enough
            say(err, f"The totals cannot be written: {failure.strerror}")
    if error is not None:
        say(err, f"Stopped early: {explained(error)}")
    try:
        _print_unfinished(report, journal, err)
        _print_failed(report, journal, manifest, err)
    except (ConfigurationError, JournalError) as failure:
        say(err, str(failure))
    return exit_of(report, error, before=before, interrupted=interrupted)


async def _certifications(springest: Springest, err: Console) -> Mapping[int, Certification] | None:
    try:
        listed = springest.certifications()
    except ConfigurationError:
        say(
            err,
            "SPRINGEST_CERTIFICATIONS_API_KEY is not set, so springest does not check whether the certifications exist"
            " and which of them require valid_until.",
        )
        return None
    return {certification.id: certification async for certification in listed}


async def _preflight(manifest: Manifest, springest: Springest, journal: Journal, err: Console) -> int | None:
    """Check the manifest and print all findings; return the number of its rows, or None when it has faults."""
    certifications = await _certifications(springest, err)
    rows = 0
    findings: list[Finding] = []
    given_up = False

    def check() -> None:
        nonlocal rows
        for finding in check_manifest(manifest, certifications, journal, springest.origin):
            if given_up:
                return
            if finding is None:
                rows += 1
            else:
                findings.append(finding)

    with err.status("") as status:
        checking = asyncio.create_task(asyncio.to_thread(check))
        try:
            while not (await asyncio.wait([checking], timeout=0.25))[0]:
                status.update(cell(f"Checking {manifest.path.name}: {rows} rows"))
        finally:
            given_up = True  # the thread stops at its next row, also when this task is cancelled
    for finding in sorted(findings, key=lambda finding: finding.row):
        say(err, str(finding))
    await checking  # raises, if it failed, after the findings are printed
    faults = sum(not finding.warning for finding in findings)
    if faults:
        found = f"{_count(faults, 'fault')} in {_count(rows, 'row')} of {manifest.path}"
        say(err, f"{found}. Nothing was sent. Correct the rows, then run the same command again.")
        return None
    return rows


def _print_totals(report: Report, before: Report, seconds: float, limiter: Limiter, out: Console) -> None:
    out.print(table_of(report))
    agreed = ", as agreed with Springest" if limiter.posts > POSTS_PER_MINUTE else ""
    pace = ", then one at a time, because the server refused POSTs as too fast" if limiter.slow else ""
    stored = report.count(State.STORED) - before.count(State.STORED)
    say(
        out,
        f"{_count(stored, 'certificate')} stored in {duration(seconds)}: {report.posts} POSTs tried,"
        f" {report.refusals} of them refused without a reason; the limit was {limiter.posts} a minute{agreed}{pace}",
    )


def _print_failed(report: Report, journal: Journal, manifest: Manifest, err: Console) -> None:
    if (failed := write_failed(journal, manifest)) is not None:
        count = _count(report.count(State.REJECTED, State.FAILED), "row")
        say(err, f"Not stored: {count}. The reasons are in {failed}: correct the rows there and upload that file.")


def _print_unfinished(report: Report, journal: Journal, err: Console) -> None:
    if count := report.count(State.IN_DOUBT):
        say(
            err,
            f"In doubt: {_count(count, 'row')} that Springest may have stored. Run the same command again to ask it;"
            f" springest status {argument(journal.path)} lists them.",
        )
    if gone := sum(entry.number is None for entry in journal.doubts()):
        say(
            err,
            f"In doubt: {_count(gone, 'certificate')} of earlier runs that are no longer in the manifest:"
            f" springest status {argument(journal.path)} lists them.",
        )
    if count := report.count(State.WAITING):
        say(err, f"Waiting: {_count(count, 'row')}. Run the same command again to continue.")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
