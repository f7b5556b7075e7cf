"""``springest audit``: whether the limit was kept and nothing was stored twice, from all POSTs in the journal."""

from datetime import datetime
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from springest_async.cli import environment
from springest_async.cli.console import forget_stdout, print_json, say
from springest_async.cli.exit_codes import Exit
from springest_async.cli.status import migration_of
from springest_async.journal.attempts import Double, SentAgain
from springest_async.journal.status_reader import StatusReader
from springest_async.reports.audit import Audit, Peak, as_json, notes, read_audit, sentence
from springest_async.reports.numbers import count, number


async def audit(manifest: Path, option: str | None, form: Literal["table", "json"], out: Console) -> Exit:
    """Print what all POSTs of the same host and key show, in the time of a migration, also while it runs.

    Args:
        manifest: its manifest.
        option: the place of the journal as the user gave it, or None.
        form: as a text, or as JSON for a script.
        out: where to print.
    """
    async with environment.existing_journal(option) as journal, StatusReader(journal) as reader:
        migration = await migration_of(journal, manifest)
        await reader.take_over()
        found = await reader.read(lambda connection: read_audit(connection, migration.id))
    try:
        if form == "json":
            print_json(out, as_json(found))
            out.file.flush()
        else:
            _show(found, out)
    except BrokenPipeError:  # the reader has seen enough; the exit code stays right
        forget_stdout()
    return Exit.DIFFERENT if found.exceeded or found.doubles else Exit.STORED


def _show(audit: Audit, out: Console) -> None:
    say(out, sentence(audit))
    if not audit.posts:
        return
    period = f"{audit.period:g} s"
    table = Table("", "", show_header=False)
    table.add_row("time", f"{_time(audit.first_at)} to {_time(audit.last_at)}")
    table.add_row("POSTs of this manifest", number(audit.own_posts))
    if audit.posts != audit.own_posts:
        table.add_row("… and all others with the same key", number(audit.posts - audit.own_posts))
    table.add_row(f"most in any {period}, by our clock", _peak(audit.by_our_clock))
    if audit.by_server_clock is not None:
        table.add_row(f"most in any {period}, by the server's clock", _peak(audit.by_server_clock))
    if audit.undated:
        table.add_row("POSTs without a time of the server", number(audit.undated))
    table.add_row("refused (400 or 429), and sent again", number(audit.refused))
    if audit.too_fast:
        table.add_row("… of them as too fast", number(audit.too_fast))
    table.add_row("stored twice", number(audit.doubles))
    if audit.sent_again:
        table.add_row("sent again, because Springest did not list it", number(audit.sent_again))
    table.add_row("rows in doubt", number(audit.in_doubt))
    out.print(table)
    for note in notes(audit):
        say(out, note)
    for double in audit.first_doubles:
        say(out, _double(double))
    if (more := audit.doubles - len(audit.first_doubles)) > 0:
        say(out, f"… and {number(more)} more.")
    for one in audit.first_sent_again:
        say(out, _sent_again(one))
    if (more := audit.sent_again - len(audit.first_sent_again)) > 0:
        say(out, f"… and {number(more)} more that were sent again.")


def _double(double: Double) -> str:
    rows = _rows(double.rows)
    if double.springest_id is not None:
        return f"{rows}: Springest gave the same id, {double.springest_id}, to several certificates."
    ids = " and ".join(double.request_ids)
    return f"{rows}: {count(len(double.request_ids), 'POST')} of it were stored. Their X-Request-Id: {ids}"


def _sent_again(one: SentAgain) -> str:
    was = " and ".join(map(str, one.missing_ids)) or "not known"
    now = "not known yet" if one.springest_id is None else str(one.springest_id)
    return (
        f"{_rows(one.rows)} sent again: Springest's id was {was}, and is {now}. The X-Request-Id of the POSTs:"
        f" {' and '.join(one.request_ids)}"
    )


def _rows(rows: tuple[int, ...]) -> str:
    return f"Row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows))}"


def _peak(peak: Peak) -> str:
    return f"{peak.posts}, from {_time(peak.at)}"


def _time(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else ""
