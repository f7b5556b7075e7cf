"""``springest journal``: where the journal is and how large, what is erased from it, and a word on its server."""

import re
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from springest_async.cli import environment
from springest_async.cli.console import cell, folding_table, forget_stdout, say
from springest_async.cli.exit_codes import Exit
from springest_async.cli.status import migration_of
from springest_async.errors import ConfigurationError
from springest_async.http.transport import Timeouts
from springest_async.journal import erasure
from springest_async.reports.numbers import count

_DAYS = {"y": 365, "m": 30, "d": 1}


async def info(option: str | None, out: Console) -> None:
    """Print where the journal is, and how much it holds."""
    async with environment.existing_journal(option) as journal:
        found = await journal.info()
    table = folding_table("journal", journal.where)
    for name, value in (
        ("engine", journal.kind),
        ("size", _size(found.size)),
        ("certificates", str(found.certificates)),
        ("oldest sent (UTC)", f"{found.oldest:%Y-%m-%d %H:%M:%S}" if found.oldest else "none"),
        ("migrations", str(found.migrations)),
    ):
        table.add_row(cell(name), cell(value))
    _print(table, out)


async def forget(
    manifest: Path | None, older_than: str | None, email: str | None, option: str | None, out: Console
) -> Exit:
    """Erase what identifies people: of one migration, of all that are old, or of one person."""
    if sum(each is not None for each in (manifest, older_than, email)) != 1:
        raise ConfigurationError("give one of these: a manifest, --older-than or --email")
    if older_than is not None:
        older = partial(erasure.forget_older, before=_moment(older_than))
    async with environment.existing_journal(option) as journal:
        if manifest is not None:
            forgotten = await (await migration_of(journal, manifest)).forget()
        elif email is not None:
            forgotten = await journal.erase(partial(erasure.forget_email, email=email))
        else:
            forgotten = await journal.erase(older)
    counts = f"{count(forgotten.certificates, 'certificate')} and {count(forgotten.migrations, 'migration')}"
    say(out, f"Erased from {counts} what identifies people. None of these certificates is ever sent again.")
    for name in forgotten.kept:
        say(out, f"Kept: {name}, because rows of it wait or are in doubt.")
    if forgotten.doubts:
        say(out, f"Kept: {count(forgotten.doubts, 'certificate')} of no manifest, because of being in doubt.")
    return Exit.NOT_ALL if forgotten.kept or forgotten.doubts else Exit.STORED


async def trust(option: str | None, out: Console) -> None:
    """Take a person's word that another database server lacks nothing of what was sent."""
    answer = Timeouts().answer
    journal = environment.journal_at(option)
    await journal.trust(answer=answer)
    say(out, f"{journal.where} is trusted. Uploads go on in {answer + 60:.0f} s.")


def _moment(older_than: str) -> datetime:
    found = re.fullmatch(r"([0-9]{1,3})([ymd])", older_than)
    if found is None:
        raise ConfigurationError("--older-than needs a number of years, months or days: 1y, 6m, 30d")
    return datetime.now(UTC) - timedelta(days=int(found[1]) * _DAYS[found[2]])


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.0f} kB"


def _print(table: Table, out: Console) -> None:
    try:
        out.print(table)
    except BrokenPipeError:  # the reader has seen enough
        forget_stdout()
