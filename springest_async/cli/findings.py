"""Show what a check has found: grouped by kind, the most serious first; and write all of it to a CSV."""

import csv
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console

from springest_async.bulk.findings import FIRST, Finding, FindingLog, Kind, Severity
from springest_async.cli.console import say
from springest_async.errors import ConfigurationError
from springest_async.manifest.formulas import escape
from springest_async.random_names import random_name
from springest_async.reports.numbers import count, number

_SHOWN = 3  # findings of a kind that has more than the log has at hand
_WORKBOOKS = (".xlsx", ".xls", ".ods")
_COLUMNS = ("row", "column", "severity", "kind", "reason")

_SEVERITIES = {
    Severity.FAULT: ("Faults (these rows cannot be sent):", "bold red"),
    Severity.WARNING: ("Warnings (these rows can be sent, but may not be what you mean):", "bold yellow"),
    Severity.NOTE: ("Notes:", "bold"),
}

_ADVICE = {
    Kind.CELL: "Fill in or correct these cells.",
    Kind.DATE: "Write dates as in 2026-12-31, or say with --dates dmy or --dates mdy what they begin with.",
    Kind.EMAIL: "Correct the addresses: Springest knows people by them.",
    Kind.USER: "Correct these cells, or the list of users (--users FILE).",
    Kind.CERTIFICATION: "“springest certifications” lists those that exist; a new one is made in Springest's own admin"
    " pages.",
    Kind.END_REQUIRED: "Fill in the last day on which these certificates are valid.",
    Kind.NO_FILE: "Put the PDFs where the manifest says, correct their names, or name their folder or ZIP with --files."
    " --fix-names takes files whose names are written a little differently.",
    Kind.WRONG_FOLDER: "If the PDFs are elsewhere, name their folder or ZIP: --files FOLDER.",
    Kind.UNREADABLE: "Check that you may open these files, and that no other program holds them. What cannot be read in"
    " a ZIP can be unpacked: then name the folder with --files.",
    Kind.NO_PDF: "Save these documents as PDF.",
    Kind.TWICE: "Delete one of the two rows, or correct it if it is meant to be another certificate.",
    Kind.SHARED_PDF: "Open one: if it names one person, the others would get that person's certificate.",
    Kind.TWO_PDFS: "Springest would show both: delete the row that is not meant.",
    Kind.PASSWORD: "Save them without a password, else nobody at Springest can read them.",
    Kind.CUT_OFF: "Open them: if that fails, copy them again from where they come from.",
    Kind.NO_PAGES: "Open them: if there is nothing to see, make them again.",
    Kind.OTHER_CONTENT: "Open one: most viewers show such a PDF all the same.",
    Kind.YEAR: "Correct the year, unless it is meant.",
    Kind.DATE_ORDER: "If both columns come from the same program, some of their dates were changed: compare them.",
    Kind.ORDER: "Correct one of the two dates.",
    Kind.CONVERSION: "Empty these cells, unless that is meant.",
    Kind.UNUSED_COLUMN: 'If one of them is meant to be sent, say so, as in --map email="E-mail of employee".',
    Kind.ENCODING: "If the letters shown are wrong, save the manifest as “CSV UTF-8”.",
}


def show_findings(
    log: FindingLog,
    console: Console,
    *,
    written_to: Path | None = None,
    lister: str = "--findings FILE.csv",
    title: Callable[[str], str] = str,
) -> None:
    """Print all kinds of findings with their first rows, and what to do about them.

    Args:
        log: the findings.
        console: where to print.
        written_to: the file that has all of them, if there is one.
        lister: otherwise, the command or the option that lists all.
        title: returns how the manifest names a known column.
    """
    for severity, (words, style) in _SEVERITIES.items():
        kinds = [kind for kind in _shown(log) if kind.severity is severity]
        if kinds:
            say(console, words, style)
        for kind in kinds:
            _show_kind(log, kind, console, f" in {written_to}" if written_to else f": {lister} lists all", title)


def _show_kind(log: FindingLog, kind: Kind, console: Console, others: str, title: Callable[[str], str]) -> None:
    found, total = log.first(kind), log.counts[kind]
    counted = "" if kind is Kind.WRONG_FOLDER else f": {number(total)}"  # there is one folder
    say(console, f"  {kind.heading[0].upper()}{kind.heading[1:]}{counted}", _SEVERITIES[kind.severity][1])
    shown = found if total <= FIRST else found[:_SHOWN]
    for finding in shown:
        column = f", {title(finding.column)}" if finding.column else ""
        say(console, f"    row {finding.row}{column}: {finding.reason}")
    if more := total - len(shown):
        say(console, f"    … and {number(more)} more{others}")
    if kind in _ADVICE:
        say(console, f"    {_ADVICE[kind]}", "italic")


def summary(log: FindingLog) -> str:
    """Return how much was found, in one line: ``3 faults in 2 rows, 1 warning``."""
    counts = {
        severity: sum(log.counts[kind] for kind in _shown(log) if kind.severity is severity) for severity in Severity
    }
    parts = [count(found, severity.value) for severity, found in counts.items() if found]
    if counts[Severity.FAULT]:
        parts[0] += f" in {count(len(log.faulty), 'row')}"
    return ", ".join(parts) or "nothing to correct"


def as_json(log: FindingLog) -> list[dict[str, Any]]:
    """Return the kinds of findings with their first rows, for ``--format json``."""
    return [
        {
            "kind": kind.slug,
            "severity": kind.severity.value,
            "heading": kind.heading,
            "count": log.counts[kind],
            "first": [
                {"row": finding.row, "column": finding.column, "reason": finding.reason} for finding in log.first(kind)
            ],
        }
        for kind in _by_seriousness(log)
    ]


def kinds_as_json(log: FindingLog) -> list[dict[str, Any]]:
    """Return the kinds of findings with the numbers of their first rows, for a log: the reasons may quote people."""
    return [
        {name: value for name, value in kind.items() if name != "first"}
        | {"rows": [each["row"] for each in kind["first"]]}
        for kind in as_json(log)
    ]


def _shown(log: FindingLog) -> list[Kind]:
    """Return the kinds for people: if the folder is wrong, it is one fault, and not one for each file."""
    is_folder = Kind.WRONG_FOLDER in log.counts
    return [kind for kind in _by_seriousness(log) if not (is_folder and kind is Kind.NO_FILE)]


def _by_seriousness(log: FindingLog) -> list[Kind]:
    severities, kinds = list(Severity), list(Kind)
    first = Kind.WRONG_FOLDER  # which explains the others

    def seriousness(kind: Kind) -> tuple[int, bool, int, str]:
        # All faults have to be corrected, the most frequent first. Of the warnings, one may be a leak.
        rank = -log.counts[kind] if kind.severity is Severity.FAULT else kinds.index(kind)
        return severities.index(kind.severity), kind is not first, rank, kind.slug

    return sorted(log.counts, key=seriousness)


# --- all findings, as a file ---


def check_findings_file(path: Path) -> None:
    """Check that the findings can be written to a file, before a check that takes long.

    Raises:
        ConfigurationError: it has the name of a workbook, its folder does not exist, or the file is there and is not a
            list of findings: no other file is ever overwritten.
    """
    if path.suffix.lower() in _WORKBOOKS:
        raise ConfigurationError(f"--findings {path}: the findings are written as a CSV: name it {path.stem}.csv")
    if not path.parent.is_dir():
        raise ConfigurationError(f"--findings {path}: there is no folder {path.parent}")
    if os.path.lexists(path) and not _has_findings(path):
        raise ConfigurationError(f"--findings {path}: this file exists, and has something else: name a new one")


def _has_findings(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as stream:
            return path.is_file() and tuple(stream.readline(100).rstrip().replace(";", ",").split(",")) == _COLUMNS
    except OSError:
        return False


def write_findings(log: FindingLog, path: Path, *, separator: str = ",", title: Callable[[str], str] = str) -> None:
    """Write all findings to a CSV by row, in UTF-8 with a byte order mark, as Excel needs it.

    A cell that a spreadsheet would run as a formula gets an apostrophe in front. Only the owner can read the file,
    because it contains personal data. Findings of an earlier check are replaced at once.

    Args:
        log: the findings.
        path: the file.
        separator: what stands between two cells.
        title: returns how the manifest names a known column.

    Raises:
        ConfigurationError: as `check_findings_file`, or the file cannot be written.
    """
    check_findings_file(path)
    new = path.with_name(f".{random_name()}.findings")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8-sig", errors="backslashreplace", newline="") as stream:
                writer = csv.writer(stream, delimiter=separator)
                writer.writerow(_COLUMNS)
                with closing(iter(log)) as found:
                    writer.writerows(_cells(finding, title) for finding in found)
            new.replace(path)
        except BaseException:
            new.unlink()
            raise
    except OSError as error:
        reason = error.strerror or "cannot be written"
        raise ConfigurationError(f"the findings cannot be written to {path}: {reason}") from None


def _cells(finding: Finding, title: Callable[[str], str]) -> tuple[int | str, ...]:
    kind = finding.kind
    column = title(finding.column) if finding.column else ""
    return (finding.row, escape(column), kind.severity.value, kind.slug, escape(finding.reason))
