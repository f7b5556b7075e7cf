"""``springest reconcile``: compare an upload with what Springest lists, and let what is missing there wait again."""

import csv
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from attrs import frozen
from rich.console import Console
from rich.table import Table

from springest_async.cli import environment
from springest_async.cli.asking import asking, requests_words
from springest_async.cli.console import Format, argument, cell, folding_table, forget_stdout, plain, say
from springest_async.cli.exit_codes import Exit
from springest_async.cli.question import can_ask, confirmed
from springest_async.cli.status import migration_of, runs_on
from springest_async.client import Springest
from springest_async.errors import (
    ConfigurationError,
    ServerError,
    TransportError,
    UnexpectedStatus,
    UnreadableAnswer,
)
from springest_async.journal.open_migration import OpenMigration
from springest_async.journal.records import State
from springest_async.manifest.formulas import escape
from springest_async.reports.addresses import without_addresses
from springest_async.reports.left_out import left_out
from springest_async.reports.matching import Doubt, Finding, Kind
from springest_async.reports.numbers import count, number
from springest_async.reports.reconcile import Reconciliation

_SHOWN = 20  # rows of each kind
_SHOWN_COLUMNS = ("row", "email", "certification", "valid", "id")
_CERTIFICATIONS_SHOWN = 10
_LOOKED_FOR = 100  # missing certificates, each of which takes a request

_MEANINGS = {
    Kind.MISSING: "Springest has confirmed these, and does not list them although it shows their certification.",
    Kind.MARKED_MISSING: (
        "A person has marked these as stored (springest resolve). Springest has never confirmed them, and does not list"
        " them although it shows their certification."
    ),
    Kind.OTHER_DATES: "Springest lists these with other dates.",
    Kind.OTHER_PERSON: "Springest lists these, by their ids, for another person or certification.",
    Kind.DOUBLED: "Springest lists these more often than they were sent.",
    Kind.NOT_OURS: "Springest lists these, and the journal does not know them.",
    Kind.NOT_EXPECTED: "Springest lists these, although they are not stored by the journal.",
    Kind.NOT_SHOWN: "Springest has confirmed these, and does not show their certification yet, so nobody can see them.",
    Kind.MARKED_NOT_SHOWN: (
        "A person has marked these as stored (springest resolve). Springest has never confirmed them, and does not show"
        " their certification yet."
    ),
    Kind.IN_DOUBT: "Nobody knows whether Springest has stored these. Its lists do not show them.",
}

_LISTED_OTHERWISE = (Kind.OTHER_DATES, Kind.OTHER_PERSON, Kind.NOT_EXPECTED)


@frozen(kw_only=True)
class ReconcileOptions:
    """What ``springest reconcile`` is asked for.

    Attributes:
        journal: the place of the journal as the user gave it, or None.
        form: how to print the result.
        repair: whether to put back what is missing.
        yes: whether to do so without a question.
    """

    journal: str | None = None
    form: Format = "table"
    repair: bool = False
    yes: bool = False


async def reconcile(manifest: Path, options: ReconcileOptions, out: Console, err: Console) -> Exit:
    """Compare a manifest's upload with Springest's lists, print the result to `out` and messages to `err`.

    Args:
        manifest: the manifest.
        options: what else the user asks for.
        out: where to print the result.
        err: where to print messages.

    Raises:
        ConfigurationError: nothing of the manifest is in the journal, there is no key, the host is another one, or
            nobody can be asked whether to repair.
        SpringestError: Springest cannot be asked, or refuses the key.
        JournalError: the journal cannot be read.
    """
    if options.yes and not options.repair:
        raise ConfigurationError("--yes goes with --repair: without that, nothing is changed and nothing is asked")
    if options.repair and not options.yes and not can_ask(err):
        raise ConfigurationError("--repair asks before it changes anything, and there is no terminal: add --yes")
    async with environment.existing_journal(options.journal) as journal:
        migration = await migration_of(journal, manifest)
        springest = environment.springest(journal)
        if springest.origin != migration.source.origin:
            raise ConfigurationError(
                f"{manifest} was uploaded to {migration.source.origin}, not to {springest.origin}: set SPRINGEST_HOST"
                f" to {migration.source.origin}, and SPRINGEST_API_KEY to its key"
            )
        await journal.take_over()
        async with springest, Reconciliation(migration, springest) as comparison:
            await _read(comparison, migration, err)
            if options.repair and comparison.is_of_other_key:
                raise ConfigurationError(
                    f"{manifest} was uploaded with another API key, and Springest may not list its certificates to this"
                    " one: set SPRINGEST_API_KEY to the key of the upload, or compare without --repair"
                )
            await _compare(comparison, springest, options, err)
            await _look_for_missing(comparison, springest, options, err)
            command = _Commands(manifest, options.journal, repairs=options.repair)
            try:
                _show(comparison, command, options.form, out)
            except BrokenPipeError:  # the reader has seen enough; the exit code stays right
                forget_stdout()
            if options.repair:
                await _repair(comparison, migration, command, options.yes, err)
            return _exit_of(comparison)


async def _read(comparison: Reconciliation, migration: OpenMigration, err: Console) -> None:
    loaded = await OpenMigration.of(migration.journal, migration.id)
    if migration.source.sha256 and migration.source.sha256 != loaded.source.sha256:
        comparison.not_compared.append("what has changed in the manifest since it was uploaded last")
    with err.status(cell("Reading what the journal knows")):
        await comparison.read_rows()


async def _compare(comparison: Reconciliation, springest: Springest, options: ReconcileOptions, err: Console) -> None:
    with err.status(cell("Asking Springest how long its lists are")):
        requests = await comparison.count_requests(before_repair=options.repair)
    if requests:
        words = requests_words(requests, springest.limiter)
        say(err, f"{springest.origin} is asked for its lists of certificates: about {words}.")
    await asking(comparison.fetch(), lambda: comparison.asked, err)


async def _look_for_missing(
    comparison: Reconciliation, springest: Springest, options: ReconcileOptions, err: Console
) -> None:
    """Ask once more for what the lists do not have, always before it is sent again, else if that are few requests."""
    certain = comparison.count_missing()
    if not certain or (certain > _LOOKED_FOR and not options.repair):
        return
    words = requests_words(certain, springest.limiter)
    say(err, f"Missing in the lists: {count(certain, 'certificate')}. Springest is asked for each once more: {words}.")
    try:
        await asking(comparison.look_for_missing(), lambda: comparison.asked, err)
    except (TransportError, ServerError, UnexpectedStatus, UnreadableAnswer) as error:
        if options.repair:
            raise
        comparison.not_compared.append(f"what is missing in the lists, with those of its people ({error})")


def _exit_of(comparison: Reconciliation) -> Exit:
    if comparison.differences:
        return Exit.DIFFERENT
    return Exit.STORED if comparison.is_whole else Exit.NOT_ALL


# --- what is printed ---


@frozen
class _Commands:
    """The commands that the advice names, with the options that they need.

    Attributes:
        manifest: the manifest.
        journal: the place of the journal as the user gave it, or None.
        repairs: whether this command sends again what is missing, so that the advice need not name it.
    """

    manifest: Path
    journal: str | None
    repairs: bool = False

    def of(self, name: str, options: str = "") -> str:
        """Return a command for the same manifest and journal, to paste into a shell."""
        where = f" --journal {argument(self.journal)}" if self.journal else ""
        return f"springest {name} {argument(self.manifest)}{where}{options}"


def _show(comparison: Reconciliation, command: _Commands, form: Format, out: Console) -> None:
    match form:
        case "table":
            _show_tables(comparison, command, out)
        case "csv":
            _write_csv(comparison, out)
        case "json":
            _write_json(comparison, command.manifest, out)


def _show_tables(comparison: Reconciliation, command: _Commands, out: Console) -> None:
    counts = comparison.counts
    table = Table("what was found", "rows")
    table.columns[1].justify = "right"
    for kind in Kind:
        if counts[kind] or kind is Kind.SHOWN:
            table.add_row(kind.value, number(counts[kind]))
    out.print(table)
    for kind, meaning in _MEANINGS.items():
        if counts[kind]:
            say(out, f"{kind.value.capitalize()} ({number(counts[kind])}): {meaning}", "bold")
            _show_findings(comparison, kind, out)
            say(out, f"What to do: {_advice(kind, comparison, command)}")
        if kind is Kind.MISSING:
            for doubt, rows in comparison.doubts.items():
                say(out, f"Not certainly missing: {doubt.value} ({count(rows, 'row')}).")
    if rows := counts[Kind.SENDING]:
        say(out, f"Being sent ({number(rows)}): when the upload has ended, run this again: {command.of('reconcile')}")
    if rows := counts[Kind.NOT_STORED]:
        states = comparison.states(Kind.NOT_STORED)
        words = ", ".join(f"{number(states[state])} {state.value}" for state in State if states[state])
        say(out, f"Not stored ({number(rows)}): {words}. See {command.of('status')}")
    if comparison.faulty:
        say(out, left_out(comparison.faulty, f"springest check {argument(command.manifest)}"))
    for words in comparison.not_compared:
        say(out, f"Not compared: {words}.")
    if comparison.by_person:
        say(out, "Asked by person, which takes fewer requests: what other people have was not looked at.")
    say(out, _verdict(comparison, command), "bold")


def _show_findings(comparison: Reconciliation, kind: Kind, out: Console) -> None:
    if kind in (Kind.NOT_SHOWN, Kind.MARKED_NOT_SHOWN):  # all rows of a certification are alike
        certifications = comparison.certifications(kind).most_common()
        for certification, rows in certifications[:_CERTIFICATIONS_SHOWN]:
            say(out, f"  certification {certification}: {count(rows, 'row')}")
        if (more := len(certifications) - _CERTIFICATIONS_SHOWN) > 0:
            say(out, f"  … and {count(more, 'other certification')}")
        return
    first = list(islice(comparison.findings(kind), _SHOWN))
    seen = []
    if kind in _LISTED_OTHERWISE:
        seen = ["as Springest lists it"]
    elif kind is Kind.MISSING and any(finding.listed for finding in first):
        seen = ["may be, at Springest"]
    table = folding_table(*_SHOWN_COLUMNS, *seen)
    for finding in first:
        more_cells = [_differences(finding) if finding.listed else ""] if seen else []
        table.add_row(*map(cell, (*_cells(finding), *more_cells)))
    out.print(table)
    if (more := comparison.counts[kind] - _SHOWN) > 0:
        say(out, f"… and {number(more)} more; --format csv lists all")


def _cells(finding: Finding) -> Iterator[str]:
    yield _rows_words(finding)
    yield finding.email or "unknown"
    yield str(finding.certification_id)
    yield _dates(finding.valid_from, finding.valid_until)
    is_listed = finding.kind in (Kind.DOUBLED, Kind.NOT_OURS)
    yield str((finding.listed.id if is_listed and finding.listed else finding.springest_id) or "")


def _rows_words(finding: Finding) -> str:
    if finding.row is None:
        return ""
    more = finding.rows - 1
    state = f" ({finding.state.value})" if finding.state and finding.kind is Kind.NOT_EXPECTED else ""
    return f"{finding.row}{f' and {number(more)} more' if more else ''}{state}"


def _differences(finding: Finding) -> str:
    listed = finding.listed
    assert listed is not None
    words = [f"id {listed.id}"] if listed.id != finding.springest_id else []
    if finding.kind is Kind.OTHER_PERSON:
        words += [listed.email or "of an unknown person", f"certification {listed.certification_id}"]
    if (listed.valid_from, listed.valid_until) != (finding.valid_from, finding.valid_until):
        words.append(_dates(listed.valid_from, listed.valid_until))
    return ", ".join(words)


def _dates(valid_from: str, valid_until: str | None) -> str:
    return f"{valid_from} – {valid_until}" if valid_until else f"from {valid_from}"


def _advice(kind: Kind, comparison: Reconciliation, command: _Commands) -> str:
    match kind:
        case Kind.MISSING:
            repair = _words_of_repair(comparison, command)
            return f"ask Springest what became of them, by their ids.{repair}"
        case Kind.MARKED_MISSING | Kind.MARKED_NOT_SHOWN:
            return (
                "ask Springest whether it has them. Its staff can find their POSTs by the request ids in the file that"
                f" this writes: {command.of('report', ' --csv FILE')}"
            )
        case Kind.IN_DOUBT:
            return (
                f"{command.of('upload')} asks Springest again. Or look there yourself, then run:"
                f" {command.of('resolve')} --row N --stored (or --send-again)"
            )
        case Kind.OTHER_DATES:
            return "look which dates are right. Wrong ones at Springest are corrected there; nothing is sent again."
        case Kind.OTHER_PERSON:
            return "look them up at Springest by their ids. Somebody may have a new address; nothing is sent again."
        case Kind.DOUBLED:
            return "look them up at Springest by their ids, and let it delete those that are too many."
        case Kind.NOT_OURS:
            return (
                "nothing, if somebody has entered them by hand, or another program has sent them since the first row."
            )
        case Kind.NOT_EXPECTED:
            return (
                f"rows in doubt are settled by {command.of('upload')}, or by you: {command.of('resolve')} --row N"
                f" --stored. So that waiting rows are not stored twice: {command.of('upload')} --skip-listed"
            )
    return f"ask Springest to verify the certification. Then run this again: {command.of('reconcile')}"


def _words_of_repair(comparison: Reconciliation, command: _Commands) -> str:
    repair = command.of("reconcile", " --repair")
    if not (certain := comparison.count_missing()):
        words = " Nothing is sent again, because it is not certain that they are missing."
        if Doubt.BY_PERSON in comparison.doubts:
            words += f" To ask for the lists of their certifications first, and send again what is in none: {repair}"
        return words
    if command.repairs:
        return ""
    if comparison.doubts:
        return f" To send those again that are certainly missing ({number(certain)}): {repair}"
    return f" Or send them again: {repair}"


def _verdict(comparison: Reconciliation, command: _Commands) -> str:
    counts = comparison.counts
    if comparison.since is None:
        listed = f"springest check {argument(command.manifest)} --skip-listed"
        return f"Nothing was sent yet, so there is nothing to compare. To find what Springest lists already: {listed}"
    if comparison.differences:
        return f"{count(comparison.differences, 'difference')}."
    if comparison.is_whole:
        return f"No difference: each of {count(counts.total(), 'row')} is stored, and Springest shows it."
    parts = {
        Kind.NOT_STORED: "not stored",
        Kind.IN_DOUBT: "in doubt",
        Kind.SENDING: "being sent",
        Kind.NOT_SHOWN: "stored, and not shown yet",
        Kind.MARKED_NOT_SHOWN: "marked as stored by a person, and not shown yet",
        Kind.NOT_COMPARED: "stored, and not compared",
    }
    rest = [f"{count(counts[kind], 'row')} {words}" for kind, words in parts.items() if counts[kind]]
    rest += [f"{count(comparison.faulty, 'row')} left out with faults"] if comparison.faulty else []
    more = f": {', '.join(rest)}" if rest else ""
    return f"No difference was found, but not everything is proved{more}."


# --- for programs ---

_COLUMNS = (
    "kind",
    "row",
    "rows",
    "file",
    "state",
    "certification_id",
    "email",
    "valid_from",
    "valid_until",
    "springest_id",
    "listed_id",
    "listed_certification_id",
    "listed_email",
    "listed_valid_from",
    "listed_valid_until",
    "certainly_missing",
)


def _write_csv(comparison: Reconciliation, out: Console) -> None:
    writer = csv.writer(out.file)
    writer.writerow(_COLUMNS)
    shown = plain if out.is_terminal else str  # programs get each cell unchanged
    for finding in comparison.findings():
        line = _line_of(finding)
        values = ("yes" if line[name] is True else "" if not line[name] else str(line[name]) for name in _COLUMNS)
        writer.writerow([escape(shown(value)) for value in values])


def _line_of(finding: Finding) -> dict[str, Any]:
    listed = finding.listed
    return {
        "kind": finding.kind.value,
        "row": finding.row,
        "rows": finding.rows,
        "file": finding.file,
        "state": finding.state and finding.state.value,
        "certification_id": finding.certification_id,
        "email": finding.email,
        "valid_from": finding.valid_from,
        "valid_until": finding.valid_until,
        "springest_id": finding.springest_id,
        "listed_id": listed and listed.id,
        "listed_certification_id": listed and listed.certification_id,
        "listed_email": listed and listed.email,
        "listed_valid_from": listed and listed.valid_from,
        "listed_valid_until": listed and listed.valid_until,
        "certainly_missing": finding.certain,
    }


_PERSONAL = ("file", "email", "listed_email")


def _write_json(comparison: Reconciliation, manifest: Path, out: Console) -> None:
    head = {
        "manifest": without_addresses(manifest.name),
        "host": comparison.origin,
        "since": comparison.since and comparison.since.isoformat(),
        "requests": comparison.asked,
        "by_person": comparison.by_person,
        "counts": {_name(kind): comparison.counts[kind] for kind in Kind},
        "faulty": comparison.faulty,
        "differences": comparison.differences,
        "whole": comparison.is_whole,
        "not_compared": list(map(without_addresses, comparison.not_compared)),
    }
    out.file.write(f'{_json(head)[:-1]}, "findings": [')
    separator = "\n"
    kinds: Sequence[Kind] = [kind for kind in Kind if kind is not Kind.SHOWN]
    for finding in comparison.findings(*kinds):
        line = {name: value for name, value in _line_of(finding).items() if name not in _PERSONAL}
        out.file.write(separator + _json(line | {"kind": _name(finding.kind)}))
        separator = ",\n"
    out.file.write("\n]}\n")


def _name(kind: Kind) -> str:
    return kind.name.lower()


def _json(value: object) -> str:
    return json.dumps(value).replace("\x7f", "\\u007f")


# --- repairing ---


async def _repair(
    comparison: Reconciliation, migration: OpenMigration, command: _Commands, yes: bool, err: Console
) -> None:
    """Put back what Springest was asked for once more and certainly does not have; ask a person first."""
    _say_found(comparison, err)
    certain = comparison.count_missing()
    if not certain:
        say(err, "Nothing is certainly missing, so nothing is sent again.")
        return
    question = f"Put {count(certain, 'certificate')} back to waiting, so that springest upload sends them once more?"
    if not yes and not await confirmed(question, err):
        say(err, "Nothing was changed.")
        return
    again = await comparison.send_again()
    if changed := certain - again:
        say(err, f"Another run has changed {number(changed)} of them meanwhile: these are left as they are.")
    hosts = await migration.hosts()
    how = f"{runs_on(hosts)} uploading, and sends them" if hosts else f"To send them: {command.of('upload')}"
    say(err, f"Waiting again: {count(again, 'certificate')}. {how}")


def _say_found(comparison: Reconciliation, err: Console) -> None:
    """Name the rows that seemed missing and are left as they are, and what was seen of each."""
    found = list(comparison.found_after_all())
    if not found:
        return
    rows = count(sum(finding.rows for finding in found), "row")
    say(err, f"Springest has {rows} after all, or may have. Nothing is sent again for:")
    for finding in found[:_SHOWN]:
        say(err, f"  row {_rows_words(finding)}: {_seen(finding)}")
    if (more := len(found) - _SHOWN) > 0:
        say(err, f"  … and {number(more)} more")


def _seen(finding: Finding) -> str:
    if finding.listed is None:
        return f"Springest gave no clear answer about id {finding.springest_id}"
    if finding.kind is Kind.MISSING:
        return f"id {finding.springest_id} may now be {_differences(finding)}"
    if finding.kind is Kind.SHOWN:
        return f"id {finding.springest_id} is there, as it was sent"
    return f"id {finding.springest_id} is there ({finding.kind.value}): {_differences(finding)}"
