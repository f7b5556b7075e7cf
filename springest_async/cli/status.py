"""``springest status`` and ``springest resolve``: the state of a migration, and decisions about rows in doubt."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from springest_async.bulk import Entry, Journal, JournalReader, Report, State
from springest_async.cli.console import argument, cell, folding_table, forget_stdout, say
from springest_async.cli.exits import Exit, exit_of_status


def table_of(report: Report, sending: int = 0) -> Table:
    """Return the table of outcomes; `sending` is how many rows a running process is sending."""
    table = Table("outcome", "rows")
    table.columns[1].justify = "right"
    for state in State:
        if state is not State.SENDING:
            table.add_row(state.value, str(report.count(state)))
    if sending:
        table.add_row("being sent", str(sending))
    return table


def status(path: Path, out: Console) -> Exit:
    """Print the state of a migration, also while it runs, and list the rows in doubt."""
    with JournalReader.open(path) as journal:
        counts = journal.counts()
        sending = counts.pop(State.SENDING, 0)
        report = Report(counts=counts, posts=0, refusals=0)
        doubts = journal.doubts()
        writer = journal.writer
    try:
        out.print(table_of(report, sending))
        if writer is not None:
            say(out, f"Process {writer} is uploading.")
        if doubts:
            say(out, "In doubt: these were sent, but no answer said whether they are stored.")
            out.print(_table_of_doubts(doubts))
            say(
                out,
                "springest upload asks Springest again. Or look there yourself, then run:"
                f" springest resolve {argument(path)} --row N --stored (or --send-again; or --all for all rows)",
            )
    except BrokenPipeError:  # the reader has seen enough; the exit code stays right
        forget_stdout()
    # Doubts about certificates that are no longer in the manifest are not in the report.
    return Exit.IN_DOUBT if doubts else exit_of_status(report)


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
    """Record a person's decision about rows in doubt (None: all of them); see `Journal.resolve`."""
    JournalReader.open(path).close()  # do not create a journal for a mistyped name
    with Journal.open(path) as journal:
        count = journal.resolve(rows, state)
    noted = "marked as stored" if state is State.STORED else "put back to waiting for the next springest upload"
    say(out, f"{count} {'row' if count == 1 else 'rows'} {noted}.")
