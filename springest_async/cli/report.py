"""``springest report``: what became of a manifest, for people, as CSV, as a manifest to correct, and as a page."""

import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO

from attrs import evolve, frozen
from rich.console import Console

from springest_async.bulk.failed_rows import needs_users, write_failed_of_journal
from springest_async.cli import environment
from springest_async.cli.console import argument, cell, folding_table, forget_stdout, say
from springest_async.cli.exit_codes import Exit
from springest_async.cli.exits import exit_of_status
from springest_async.cli.in_thread import GoOn, in_thread
from springest_async.cli.status import migration_of, table_of
from springest_async.cli.times import duration
from springest_async.errors import ConfigurationError, ManifestError
from springest_async.journal.engine import Connection
from springest_async.journal.journal import Journal
from springest_async.journal.records import State
from springest_async.manifest.csv_rows import CsvForm
from springest_async.manifest.new_file import new_file
from springest_async.manifest.table import open_table
from springest_async.reports import charts, html, rows_csv
from springest_async.reports.audit import notes_on_repairs, sentence
from springest_async.reports.charts import quantile, shown
from springest_async.reports.left_out import left_out
from springest_async.reports.numbers import count, number
from springest_async.reports.summary import Summary, outcomes_of, read_summary, rows_for_person

_WORKBOOKS = (".xlsx", ".xls", ".xlsb", ".ods")


@frozen(kw_only=True)
class ReportOptions:
    """What is to be written beside the summary: the paths of new files, or None.

    Attributes:
        csv: all rows.
        failed: the rejected and failed rows, as a manifest.
        html: a page.
        with_addresses: whether the page has e-mail addresses.
        journal: the place of the journal as the user gave it.
    """

    csv: Path | None = None
    failed: Path | None = None
    html: Path | None = None
    with_addresses: bool = False
    journal: str | None = None

    def check(self) -> None:
        """Check what can be known before anything is read.

        Raises:
            ConfigurationError: an option does not fit, a file exists already, its folder does not, or there is no
                pygal for the pictures.
        """
        if self.with_addresses and self.html is None:
            raise ConfigurationError("--with-addresses is about the page: give --html FILE, too")
        files = {"--csv": self.csv, "--failed": self.failed, "--html": self.html}
        for option, path in files.items():
            if path is None:
                continue
            if option != "--html" and path.suffix.lower() in _WORKBOOKS:
                raise ConfigurationError(f"{option} {path}: the rows are written as a CSV: name it {path.stem}.csv")
            if os.path.lexists(path):
                raise ConfigurationError(f"{option} {path}: this file exists already: name a new one, or delete it")
            if not path.parent.is_dir():
                raise ConfigurationError(f"{option} {path}: there is no folder {path.parent}")
        paths = [path.absolute() for path in files.values() if path is not None]
        if len(set(paths)) < len(paths):
            raise ConfigurationError("--csv, --failed and --html need a file each")
        if self.html is not None:
            charts.import_pygal()


async def report(manifest: Path, options: ReportOptions, out: Console, err: Console) -> Exit:
    """Print what became of a manifest, and write the files that the options name.

    Raises:
        ConfigurationError: as `ReportOptions.check`, or a file cannot be written.
        JournalError: the journal cannot be read.
        ManifestError: the manifest is there, and cannot be read.
    """
    options.check()
    async with environment.existing_journal(options.journal) as journal:
        await journal.take_over()
        migration = await migration_of(journal, manifest)
        reading = _Reading(journal, migration.id, manifest, options)
        summary = await in_thread(reading.run, reading.words, err)
    try:
        _print(summary, manifest, out)
        for words in reading.written:
            say(out, words)
    except BrokenPipeError:  # the reader has seen enough
        forget_stdout()
    return exit_of_status(summary.status)


class _Reading:
    """Reads all that a report needs in one snapshot, in a thread.

    Attributes:
        written: a sentence on each file that was written.
    """

    def __init__(self, journal: Journal, migration: int, manifest: Path, options: ReportOptions) -> None:
        self.written: list[str] = []
        self._journal = journal
        self._migration = migration
        self._manifest = manifest
        self._options = options
        self._rows = 0

    def words(self) -> str:
        return f"Writing row {number(self._rows)}" if self._rows else "Reading the journal"

    def run(self, go_on: GoOn) -> Summary:
        def next_row() -> None:
            self._rows += 1
            go_on()

        options = self._options
        connection = self._journal.connect()
        try:
            with connection.snapshot():
                summary = read_summary(connection, self._migration)
                if options.csv is not None:
                    form = evolve(_form(self._manifest), encoding=CsvForm().encoding)  # it is for a spreadsheet
                    write = partial(rows_csv.write_rows, connection, self._migration, form=form, go_on=next_row)
                    _write(options.csv, write)
                    self.written.append(f"All rows: {options.csv}")
                if options.failed is not None:
                    self._write_failed(options.failed, summary, connection, next_row)
                if options.html is not None:
                    rows = rows_for_person(connection, self._migration, html.SHOWN)
                    page = html.page(summary, rows, with_addresses=options.with_addresses)
                    _write(options.html, lambda stream: stream.write(page.encode(errors="backslashreplace")))
                    self.written.append(f"The page: {options.html}")
        finally:
            connection.close()
        return summary

    def _write_failed(self, path: Path, summary: Summary, connection: Connection, next_row: GoOn) -> None:
        rows = sum(summary.status.counts[state] for state in (State.REJECTED, State.FAILED))
        if not rows:
            self.written.append("No row was rejected or has failed, so there is no manifest of them.")
            return
        form = _form(self._manifest)
        write = partial(write_failed_of_journal, connection, self._migration, form=form, go_on=next_row)
        _write(path, write)
        words = f"{count(rows, 'row')} to correct: {path}. Then run: springest upload {argument(path)}"
        if needs_users(connection, self._migration):
            words += " --users FILE (the list of the people), or the same --map email"
        if path.parent.resolve() != self._manifest.parent.resolve():
            words += " --files FOLDER (the folder that the names of the PDFs are relative to)"
        self.written.append(words)


def _write(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a new file that only its owner can read.

    Raises:
        ConfigurationError: it cannot be written, or was made by somebody else meanwhile.
    """
    try:
        with new_file(path.parent) as file:
            write(file.stream)
            file.publish([path])
    except OSError as error:
        reason = "it exists already" if error.errno == errno.EEXIST else error.strerror
        raise ConfigurationError(f"{path} cannot be written: {reason}") from None


def _form(manifest: Path) -> CsvForm:
    """Return how a CSV beside this manifest is written."""
    if manifest.suffix.lower() in _WORKBOOKS:  # to read it whole would only take long
        return CsvForm()
    try:
        return CsvForm.beside(open_table(manifest))
    except ManifestError:  # it is gone
        return CsvForm()


def _print(summary: Summary, manifest: Path, out: Console) -> None:
    status, posts = summary.status, summary.posts
    say(out, f"{status.name}, for {status.origin}, as of {shown(status.at)} UTC", "bold")
    out.print(table_of(status.counts))
    if status.faulty:
        say(out, left_out(status.faulty, f"springest check {argument(manifest)}"))
    for words in _sentences(summary):
        say(out, words)
    if summary.reasons:
        table = folding_table("rows", "outcome", "why")
        for reason in summary.reasons:
            table.add_row(*map(cell, (number(reason.rows), reason.state.value, reason.words)))
        out.print(table)
        if summary.more_reasons:
            say(out, f"… and {count(summary.more_reasons, 'other reason')}.")
    if asked := status.doubts.asked:
        say(
            out,
            f"{count(asked, 'row')} in doubt: a run is asking Springest about {'it' if asked == 1 else 'them'} now.",
        )
    if doubts := status.counts[State.IN_DOUBT] - asked:
        say(out, f"{count(doubts, 'row')} in doubt: springest status lists them, and says what to do.")
    if posts.posts:
        say(out, f"{sentence(summary.audit)} springest audit shows how that is known.")
        for words in notes_on_repairs(summary.audit):
            say(out, words)
    else:
        say(out, "Nothing was sent for this manifest.")


def _sentences(summary: Summary) -> list[str]:
    posts, times = summary.posts, summary.answer_times
    words = []
    if posts.first_at is not None and posts.last_at is not None:
        took = duration((posts.last_at - posts.first_at).total_seconds())
        words += [
            f"Sent from {shown(posts.first_at)} to {shown(posts.last_at)} UTC ({took}).",
            f"{count(posts.posts, 'POST')}: {outcomes_of(posts)}.",
        ]
    if times:
        half, most, slowest = (
            charts.seconds(each) for each in (quantile(times, 0.5), quantile(times, 0.95), times[-1].until)
        )
        words.append(f"Answers: half of them within {half}, 95 % within {most}, the slowest within {slowest}.")
    return words
