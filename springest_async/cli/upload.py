"""``springest upload`` before the first POST: the list of certifications, the check, the plan and the load."""

import asyncio
import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from attrs import field, frozen
from rich.console import Console

from springest_async.bulk import LeftOut, Loaded, Manifest, Report, RunRecorder, Severity, State, load_manifest
from springest_async.bulk.findings import FindingLog
from springest_async.bulk.plan import Plan
from springest_async.cli import environment
from springest_async.cli.certification_list import CertificationList
from springest_async.cli.check import Asked, check_and_plan, open_manifest, show_not_checked, show_understood
from springest_async.cli.console import argument, cell, journal_argument, say
from springest_async.cli.exit_codes import Exit
from springest_async.cli.exits import explained
from springest_async.cli.findings import kinds_as_json, show_findings, summary
from springest_async.cli.json_log import json_log
from springest_async.cli.machine_options import MachineOptions
from springest_async.cli.machines import Machines
from springest_async.cli.plan import plan_as_json, show_plan
from springest_async.cli.reading import ReadingOptions
from springest_async.cli.status import runs_on
from springest_async.cli.stops import Stops
from springest_async.cli.upload_run import Rest, UploadRun
from springest_async.errors import JournalError
from springest_async.journal import place
from springest_async.reports.numbers import count, number

_SECOND_THOUGHTS = 5.0  # seconds to stop an upload that has warnings


@frozen(kw_only=True)
class UploadOptions:
    """What ``springest upload`` is asked for.

    Attributes:
        stops: when to stop by itself.
        journal: the place of the journal as the user gave it, or None.
        yes: whether to begin at once, also when there are warnings.
        skip_faulty: whether to send the other rows when some have faults.
        skip_listed: whether to leave out what Springest lists already.
        machines: what machines are told.
    """

    stops: Stops
    journal: str | None = None
    yes: bool = False
    skip_faulty: bool = False
    skip_listed: bool = False
    machines: MachineOptions = field(factory=MachineOptions)


async def upload(path: Path, reading: ReadingOptions, options: UploadOptions, out: Console, err: Console) -> Exit:
    """Upload a manifest, or continue it; print tables to `out` and messages to `err`.

    Args:
        path: the manifest.
        reading: how to read it.
        options: what else the user asks for.
        out: where to print tables.
        err: where to print messages.
    """
    async with Machines(path, options.machines, options.stops, err) as machines:
        return await machines.tell_end_of(_check_and_upload(path, reading, options, machines, out, err))


async def _check_and_upload(
    path: Path, reading: ReadingOptions, options: UploadOptions, machines: Machines, out: Console, err: Console
) -> Exit:
    manifest = await asyncio.to_thread(open_manifest, path, reading)
    _refuse_old_journal(path)
    journal = environment.journal_at(options.journal)
    springest = environment.springest(journal)  # a wrong key or host makes no journal
    async with journal, springest:
        if journal.warning:
            say(err, f"Warning: {journal.warning}")
        asked = Asked(origin=springest.origin, journal=journal, springest=springest)
        listing = CertificationList(asked, options.stops, machines, err)
        with_list = await listing.read(manifest, needs_network=options.skip_listed)
        if isinstance(with_list, Exit):
            return with_list
        manifest = with_list
        show_understood(manifest, err)
        with FindingLog() as log:
            try:
                plan = await check_and_plan(manifest, log, asked, err, skip_listed=options.skip_listed)
            finally:
                lister = f"springest check {argument(path)}{reading.arguments()} --findings FILE.csv"
                if (json := json_log()) is None:
                    show_findings(log, err, lister=lister, title=manifest.layout.title)
                else:
                    json.event("findings", kinds=kinds_as_json(log))
            if not plan.totals.rows:
                say(err, f"{path} has no rows: nothing to do.")
                return Exit.STORED
            if json is None:
                show_plan(plan, asked.origin, err)
            else:
                json.event("plan", **plan_as_json(plan))
            show_not_checked(asked, err)
            if log.count(Severity.FAULT) and not options.skip_faulty:
                machines.error = f"{summary(log)}. Nothing was sent."
                _print_refusal(f"{argument(path)}{reading.arguments()}", log, plan, err)
                return Exit.USAGE
            if tried := len(log.faulty) - len(log.faulty_anywhere):
                say(err, f"Also tried, because only their files are at fault: {count(tried, 'row')}.")
            if log.count(Severity.WARNING) and not options.yes:
                await _wait_for_second_thoughts(err)
            return await _load_and_run(manifest, log, plan, asked, reading, options, _Outputs(out, err, machines))


@frozen
class _Outputs:
    """Where results and messages go, and what tells machines."""

    out: Console
    err: Console
    machines: Machines


async def _load_and_run(
    manifest: Manifest,
    log: FindingLog,
    plan: Plan,
    asked: Asked,
    reading: ReadingOptions,
    options: UploadOptions,
    outputs: _Outputs,
) -> Exit:
    out, err = outputs.out, outputs.err
    journal, springest = asked.journal, asked.springest
    assert journal is not None
    assert springest is not None
    # A row whose file is at fault is loaded, and fails here: another machine may have a better file.
    faulty = log.faulty_anywhere
    with err.status(cell(f"Writing {count(plan.totals.rows, 'row')} to {journal.where}")):
        migration, loaded = await load_manifest(journal, manifest, springest.origin, faulty=faulty, listed=plan.listed)
    recorder = RunRecorder(loaded)
    before = await recorder.report(migration)
    hosts = await migration.hosts()
    _print_start(loaded, before, hosts, springest.origin, err)
    with_faults = LeftOut(faulty, partial(log.reasons, title=manifest.layout.title))
    where = journal_argument(options.journal)
    # The file of failed rows has one sheet, of another name.
    others = f"{dataclasses.replace(reading, sheet=None).arguments()}{where}"
    rest = Rest(with_faults, len(plan.listed or ()), others, f"springest resume {argument(manifest.path)}{where}")
    if stops_at := str(options.stops):
        say(err, f"Stops by itself {stops_at}.")
    run = UploadRun(springest, manifest, migration, recorder, before, rest, out, err)
    machines = outputs.machines
    run.tell(machines, machines.told(migration, recorder), machines.tell_aborted)
    code = await run.run(hosts, options.stops)
    machines.error = "" if run.error is None else explained(run.error)
    return code


def _print_refusal(arguments: str, log: FindingLog, plan: Plan, err: Console) -> None:
    more = f" --skip-faulty sends the other {number(len(plan.totals.to_send))}." if plan.totals.to_send else ""
    say(
        err,
        f"{summary(log)}. Nothing was sent. Correct the rows, then run the same command again.{more} All findings are"
        f" listed by: springest check {arguments} --findings FILE.csv",
    )


async def _wait_for_second_thoughts(err: Console) -> None:
    """Wait some seconds, so that a person can read the warnings; without a terminal nobody does."""
    if not (err.is_terminal and sys.stdin is not None and sys.stdin.isatty()):
        return
    loop = asyncio.get_running_loop()
    pressed = asyncio.Event()
    enter = "Enter begins at once, "
    try:
        loop.add_reader(sys.stdin, pressed.set)
    except NotImplementedError:  # Windows: there is only the waiting
        enter = ""
    say(err, f"Starting in {_SECOND_THOUGHTS:.0f} seconds. {enter}Ctrl-C ends without sending anything.")
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SECOND_THOUGHTS):
                await pressed.wait()
                if not sys.stdin.readline():  # Ctrl-D, which is no Enter
                    loop.remove_reader(sys.stdin)
                    await loop.create_future()
    except asyncio.CancelledError:
        say(err, "Nothing was sent.")
        raise
    finally:
        if enter:
            loop.remove_reader(sys.stdin)


def _refuse_old_journal(manifest: Path) -> None:
    for path in (manifest, manifest.resolve()):
        if (old := place.old_journal_beside(path)) is not None:
            raise JournalError(old, place.OLD_JOURNAL)


def _print_start(loaded: Loaded, before: Report, hosts: Sequence[str], origin: str, err: Console) -> None:
    waiting = before.count(State.WAITING)
    words = {State.STORED: "stored before", State.REJECTED: "rejected before"}
    done = [state for state in State if state is not State.WAITING and before.count(state)]
    parts = [f"{number(before.count(state))} {words.get(state, state.value)}" for state in done]
    parts.append(f"{number(waiting) if waiting else 'nothing'} to send to {origin}")
    say(err, f"{', '.join(parts)}.")
    if hosts:
        say(err, f"{runs_on(hosts)} working on this manifest too.")
    if loaded.changed:
        more = f" and {number(loaded.changed - len(loaded.changed_rows))} more" * (
            loaded.changed > len(loaded.changed_rows)
        )
        say(
            err,
            f"Changed since they were uploaded, so uploaded as new certificates: rows"
            f" {', '.join(map(str, loaded.changed_rows))}{more}.",
        )
