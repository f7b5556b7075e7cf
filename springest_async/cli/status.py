"""``springest status`` and ``springest resolve``: where a migration stands, and a person's word on rows in doubt."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from springest_async.bulk import Entry, Journal, JournalReader, Report, State
from springest_async.cli.console import argument, cell, folding_table, forget_stdout, say
from springest_async.cli.exits import Exit, exit_of_status

__all__ = ["resolve", "status", "table_of"]


def table_of(report: Report, sending: int = 0) -> Table:
    """Make the table of outcomes; `sending` rows are being sent by a run that goes on."""
    table = Table("outcome", "rows")
    table.columns[1].justify = "right"
    for state in State:
        if state is not State.SENDING:
            table.add_row(state.value, str(report.count(state)))
    if sending:
        table.add_row("being sent", str(sending))
    return table


def status(path: Path, out: Console) -> Exit:
    """Tell where a migration stands, also while it runs, and list what is in doubt.

    Raises:
        JournalError: when there is no such journal.
    """
    with JournalReader.open(path) as journal:
        counts = journal.counts()
        sending = counts.pop(State.SENDING, 0)
        report = Report(counts=counts, posts=0, refusals=0)
        doubts = journal.doubts()
        writer = journal.writer
    try:
        _tell(report, sending, writer, doubts, path, out)
    except BrokenPipeError:  # whoever reads has seen enough, and the exit code is that of the whole
        forget_stdout()
    # Also what the manifest names no more: no row of the report, and in doubt all the same.
    return Exit.IN_DOUBT if doubts else exit_of_status(report)


def _tell(report: Report, sending: int, writer: int | None, doubts: Sequence[Entry], path: Path, out: Console) -> None:
    out.print(table_of(report, sending))
    if writer is not None:
        say(out, f"Process {writer} is uploading.")
    if doubts:
        say(out, "In doubt: these were sent, and no answer told whether they are stored.")
        out.print(_table_of_doubts(doubts))
        say(
            out,
            "Uploading again asks Springest. When you have looked yourself:"
            f" springest resolve {argument(path)} --row N --stored (or --send-again; or --all for all rows).",
        )


def _table_of_doubts(doubts: Sequence[Entry]) -> Table:
    table = folding_table("row", "file", "email", "certification", "valid from", "sent (UTC)", "why")
    for entry in doubts:
        row = "gone" if entry.number is None else str(entry.number)
        sent = f"{entry.sent_at:%Y-%m-%d %H:%M:%S}" if entry.sent_at else ""
        cells = (row, entry.file, entry.email, str(entry.certification_id), str(entry.valid_from), sent, entry.reason)
        table.add_row(*map(cell, cells))
    return table


def resolve(
    path: Path, rows: Collection[int] | None, state: Literal[State.STORED, State.WAITING], out: Console
) -> None:
    """Note what a person found out about rows in doubt; None stands for all of them.

    Raises:
        ConfigurationError: when one of the rows is not in doubt; then nothing is noted.
        JournalError: when there is no such journal, or it cannot be written because a run is going on.
    """
    JournalReader.open(path).close()  # a name that was mistyped must not become a new journal
    with Journal.open(path) as journal:
        count = journal.resolve(rows, state)
    rows_said = "1 row is" if count == 1 else f"{count} rows are"
    what = "noted as stored" if state is State.STORED else "sent again by the next springest upload"
    say(out, f"{rows_said} {what}.")
