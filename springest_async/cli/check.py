"""``springest check``: all that can be known without sending, and the plan of the upload; also for ``upload``."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext
from pathlib import Path
from typing import Any, Literal

from attrs import define, field, frozen
from rich.console import Console

from springest_async.bulk.findings import FindingLog, Severity
from springest_async.bulk.listed import ListedCertificates
from springest_async.bulk.loading import source_of
from springest_async.bulk.plan import Plan, leave_out_listed
from springest_async.bulk.preflight import check_manifest
from springest_async.bulk.rows import RowSet
from springest_async.bulk.totals import Totals
from springest_async.cli import environment
from springest_async.cli.asking import asking, requests_words
from springest_async.cli.console import argument, cell, print_json, say
from springest_async.cli.exit_codes import Exit
from springest_async.cli.exits import explained
from springest_async.cli.findings import (
    as_json,
    check_findings_file,
    show_findings,
    summary,
    write_findings,
)
from springest_async.cli.in_thread import GoOn, in_thread
from springest_async.cli.plan import plan_as_json, show_plan
from springest_async.cli.reading import ReadingOptions
from springest_async.client import Springest
from springest_async.errors import ConfigurationError, JournalError, JournalMissing, ManifestError, SpringestError
from springest_async.journal.journal import Journal
from springest_async.journal.known_files import KnownFiles
from springest_async.limits.limiter import Limiter
from springest_async.manifest.csv_rows import CsvForm
from springest_async.manifest.manifest import Manifest
from springest_async.records import Certification
from springest_async.reports.numbers import count, number


@frozen(kw_only=True)
class CheckOptions:
    """What ``springest check`` is asked for.

    Attributes:
        journal: the place of the journal as the user gave it, or None.
        findings: the CSV to write all findings to, or None.
        form: how to print: for people, or as JSON.
        strict: whether warnings are faults.
        skip_listed: whether to leave out what Springest lists already.
    """

    journal: str | None = None
    findings: Path | None = None
    form: Literal["table", "json"] = "table"
    strict: bool = False
    skip_listed: bool = False


@define(kw_only=True)
class Asked:
    """What a check can ask for more than the manifest and its files say.

    Attributes:
        origin: the host.
        journal: open, if there is one.
        springest: open, if there is a key.
        not_checked: what could not be asked, in sentences.
    """

    origin: str
    journal: Journal | None = None
    springest: Springest | None = None
    not_checked: list[str] = field(factory=list)


async def check(path: Path, reading: ReadingOptions, options: CheckOptions, out: Console, err: Console) -> Exit:
    """Check a manifest, and print the findings and the plan to `out`; progress goes to `err`.

    Args:
        path: the manifest.
        reading: how to read it.
        options: what else the user asks for.
        out: where to print the result.
        err: where to print progress.

    Raises:
        ConfigurationError: the findings cannot be written, or Springest is to be asked without a key.
        ManifestError: when the manifest cannot be read any more.
        SpringestError: when Springest cannot be asked what it lists.
    """
    if options.findings is not None:
        check_findings_file(options.findings)
    manifest = await asyncio.to_thread(open_manifest, path, reading)
    asked = Asked(origin=environment.origin())
    listed, why = await known_certifications(err)
    if listed is not None:
        manifest = manifest.with_listed(listed)
    elif manifest.names_certifications and manifest.reading.certifications is None:
        asked.not_checked.append(
            "which certifications are meant by their names, so whether these exist, which of them require valid_until,"
            f" and which of their rows were stored before ({why})"
        )
        if options.skip_listed:
            raise ConfigurationError(
                f"--skip-listed needs to know which certifications are meant by their names: {why}"
            )
        manifest = manifest.with_unlisted()
    else:
        asked.not_checked.append(not_checked_without_list(why))
    if options.form == "table":
        show_understood(manifest, out)
    async with AsyncExitStack() as stack:
        await _open_journal(asked, options.journal, stack)
        await _open_springest(asked, stack, needed=options.skip_listed)
        with FindingLog() as log:
            try:
                plan = await check_and_plan(manifest, log, asked, err, skip_listed=options.skip_listed)
            except (ConfigurationError, ManifestError, JournalError):
                if log.counts:  # else there would be nothing to correct, and nobody knows that yet
                    _show(manifest, log, options, out)
                raise
            except SpringestError:  # all rows were checked, and only the lists are not known
                _show(manifest, log, options, out)
                _write(manifest, log, options, err)
                raise
            if options.form == "json":
                _print_json(manifest, log, plan, asked, out)
            else:
                _show(manifest, log, options, out)
                show_plan(plan, asked.origin, out)
                _show_end(f"{argument(path)}{reading.arguments()}", log, plan, asked, out)
            _write(manifest, log, options, err)
            is_wrong = log.count(Severity.FAULT) or (options.strict and log.count(Severity.WARNING))
            return Exit.USAGE if is_wrong else Exit.STORED


def open_manifest(path: Path, reading: ReadingOptions) -> Manifest:
    """Open a manifest as the user says; see `Manifest.open`. This reads files, so run it in a thread."""
    try:
        said = reading.reading(path)
    except ManifestError:
        manifest = Manifest.open(path, reading.reading(path, beside=False))
        if manifest.names_certifications:
            raise
        return manifest  # it needs no list of certifications, so the one beside it may be another's
    return Manifest.open(path, said)


async def _open_journal(asked: Asked, where: str | None, stack: AsyncExitStack) -> None:
    """Open the journal if there is one; none is made."""
    try:
        asked.journal = await stack.enter_async_context(environment.existing_journal(where))
    except JournalMissing:
        if where is not None:  # by default there is none before the first upload
            asked.not_checked.append(f"which rows were stored before: there is no journal in {where}")
    except (ConfigurationError, JournalError) as error:
        asked.not_checked.append(f"which rows were stored before: the journal cannot be read ({error})")


async def _open_springest(asked: Asked, stack: AsyncExitStack, *, needed: bool) -> None:
    """Open a client for the lists and the limit, if there is a key."""
    try:
        if asked.journal is None:
            springest = environment.springest_for_certificates()
        else:
            springest = environment.springest(asked.journal)
    except ConfigurationError:
        if needed:
            raise
        return
    asked.springest = await stack.enter_async_context(springest)


def not_checked_without_list(why: str) -> str:
    """Return what is not checked without the list of certifications, for a sentence."""
    return f"whether the certifications exist, and which of them require valid_until ({why})"


async def known_certifications(err: Console) -> tuple[Sequence[Certification] | None, str]:
    """Ask Springest for its certifications; return them, or None and why they are not known."""
    try:
        async with environment.springest_for_certifications() as springest:
            with err.status(cell("Asking Springest for its certifications")):
                return [found async for found in springest.certifications()], ""
    except ConfigurationError as error:
        return None, str(error)
    except SpringestError as error:
        return None, explained(error)


# --- the check itself, also of an upload ---


async def check_and_plan(
    manifest: Manifest, log: FindingLog, asked: Asked, err: Console, *, skip_listed: bool = False
) -> Plan:
    """Check a manifest, and return the plan of its upload. Ctrl-C ends it at once; a line says how far it is.

    Args:
        manifest: the manifest.
        log: where all findings go, also when this ends with an error.
        asked: what can be asked; `Asked.springest` is needed for `skip_listed`.
        err: where progress is shown, and how many requests `skip_listed` takes.
        skip_listed: whether to leave out what Springest lists already.

    Raises:
        ManifestError: when a row cannot be read.
        JournalError: when the journal cannot be read or written.
        SpringestError: when Springest does not list its certificates.
        ConfigurationError: when there is no space left for temporary files.
    """
    totals = Totals()
    name = manifest.path.name

    def check_rows(go_on: GoOn) -> None:
        with _known(manifest, asked) as known:
            for finding in check_manifest(manifest, known, asked.origin, totals):
                go_on()
                if finding is not None:
                    log.add(finding)

    await in_thread(check_rows, lambda: f"Checking {name}: {count(totals.rows, 'row')}", err)
    listed = None
    if skip_listed and len(totals.to_send):
        assert asked.springest is not None
        listed = await _leave_out_listed(manifest, totals, asked, asked.springest, err)
    limiter = asked.springest.limiter if asked.springest else Limiter()
    return Plan.of(totals, limiter, listed=listed, certifications=manifest.reading.certifications)


def _known(manifest: Manifest, asked: Asked) -> AbstractContextManager[KnownFiles | None]:
    if asked.journal is None:
        return nullcontext()
    return KnownFiles(asked.journal, source_of(manifest, asked.origin, asked.journal.machine))


async def _leave_out_listed(
    manifest: Manifest, totals: Totals, asked: Asked, springest: Springest, err: Console
) -> RowSet:
    left_out = RowSet()
    with ListedCertificates(manifest, asked.origin, totals.to_send) as listed:

        def read(go_on: GoOn) -> None:
            for _ in listed.read_rows():
                go_on()

        def compare(go_on: GoOn) -> None:
            with _known(manifest, asked) as known:
                for _ in leave_out_listed(listed, totals, known, left_out):
                    go_on()

        await in_thread(read, lambda: "Looking up which people and certifications the rows name", err)
        with err.status(cell("Asking Springest how long its lists are")):
            requests = await listed.count_requests(springest)
        say(err, _requests_line(requests, springest.limiter))
        await asking(listed.fetch(springest), lambda: listed.asked, err)
        await in_thread(compare, lambda: f"Comparing the rows with the lists: {number(len(left_out))} listed", err)
        if listed.nameless:
            asked.not_checked.append(
                f"{count(listed.nameless, 'listed certificate')} without a person, which may be of any row"
            )
    return left_out


def _requests_line(requests: int | None, limiter: Limiter) -> str:
    line = "To find the rows that Springest lists already, it is asked for its lists"
    if requests is None:
        return f"{line}, whose length it does not say: press Ctrl-C if that takes too long."
    return f"{line}: {requests_words(requests, limiter)}."


# --- what is printed ---


def _show(manifest: Manifest, log: FindingLog, options: CheckOptions, out: Console) -> None:
    if options.form == "table":
        say(out, f"{manifest.path}: {summary(log)}.", "bold")
        show_findings(log, out, written_to=options.findings, title=manifest.layout.title)


def _write(manifest: Manifest, log: FindingLog, options: CheckOptions, err: Console) -> None:
    if options.findings is not None:
        write_findings(
            log, options.findings, separator=CsvForm.beside(manifest.table).separator, title=manifest.layout.title
        )
        say(err, f"All findings are in {options.findings}.")


def show_understood(manifest: Manifest, console: Console) -> None:
    """Print how a manifest is read, before anything that follows from it."""
    first, *others = manifest.understood
    say(console, f"{manifest.path} is read as {first}.")
    for words in others:
        say(console, f"  {words}.")
    if manifest.reading.files is not None:
        say(console, f"  The files are in {manifest.files}.")


def show_not_checked(asked: Asked, console: Console) -> None:
    """Print what could not be asked."""
    for words in asked.not_checked:
        say(console, f"Not checked: {words}.")


def _show_end(arguments: str, log: FindingLog, plan: Plan, asked: Asked, out: Console) -> None:
    show_not_checked(asked, out)
    command = f"springest upload {arguments}"
    faulty, to_send = log.count(Severity.FAULT), len(plan.totals.to_send)
    if faulty and to_send:
        say(out, f"Nothing was sent. Correct the faults; or send the other rows: {command} --skip-faulty")
    elif faulty:
        say(out, "Nothing was sent. Correct the faults.")
    elif to_send:
        say(out, f"Nothing was sent. To send the rows: {command}")
    else:
        say(out, "There is nothing to send." if plan.totals.rows else "There are no rows, so there is nothing to send.")


def _print_json(manifest: Manifest, log: FindingLog, plan: Plan, asked: Asked, out: Console) -> None:
    document: dict[str, Any] = {
        "manifest": str(manifest.path),
        "understood": manifest.understood,
        "host": asked.origin,
        **{f"{severity.value}s": log.count(severity) for severity in Severity},
        "findings": as_json(log),
        "plan": plan_as_json(plan),
        "not_checked": asked.not_checked,
    }
    print_json(out, document)
