"""``springest status`` and ``springest resolve``: the state of migrations, and decisions about rows in doubt."""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from springest_async.cli import environment
from springest_async.cli.console import argument, cell, folding_table, forget_stdout, journal_argument, print_json, say
from springest_async.cli.display import activity_words, state_words
from springest_async.cli.exit_codes import Exit
from springest_async.cli.exits import exit_of_status
from springest_async.cli.signals import interrupts
from springest_async.cli.times import clock_time, outage_words
from springest_async.cli.watching import Watch
from springest_async.errors import ConfigurationError, JournalError
from springest_async.journal import place
from springest_async.journal.doubts import asked_about
from springest_async.journal.journal import Journal
from springest_async.journal.open_migration import OpenMigration
from springest_async.journal.records import Entry, KnownCertificate, State, Worker
from springest_async.journal.status import MigrationStatus
from springest_async.journal.status_reader import StatusReader
from springest_async.reports.left_out import left_out
from springest_async.reports.manifest_names import names_of
from springest_async.reports.numbers import count, number
from springest_async.reports.status_json import as_json

_IDS_SHOWN = 20
_DOUBTS_SHOWN = 50
_TABLE_WIDTH = 140  # cells; a narrower table of rows in doubt would break its words


def table_of(counts: Counter[State]) -> Table:
    """Return the table of outcomes."""
    table = Table("outcome", "rows")
    table.columns[1].justify = "right"
    for state in State:
        if state is not State.SENDING:
            table.add_row(state.value, str(counts[state]))
    if counts[State.SENDING]:
        table.add_row("being sent", str(counts[State.SENDING]))
    return table


async def migration_of(journal: Journal, manifest: Path) -> OpenMigration:
    """Return the migration of a manifest, which may have been moved or renamed, or be gone.

    Raises:
        ConfigurationError: the journal has none, or has some for several hosts, and SPRINGEST_HOST is none of them.
        ManifestError: the file cannot be read.
    """
    found = await OpenMigration.look_up(journal, manifest)
    if not found:
        raise ConfigurationError(
            f"{manifest}: nothing of this manifest is in the journal {journal.where}: springest upload loads it, and"
            " springest status lists what is there"
        )
    if len(found) > 1:
        hosts = " and ".join(migration.source.origin for migration in found)
        found = [migration for migration in found if migration.source.origin == environment.origin()]
        if not found:
            raise ConfigurationError(f"{manifest} was uploaded to {hosts}: set SPRINGEST_HOST to the one that you mean")
    return found[0]


async def status(
    manifest: Path | None,
    option: str | None,
    out: Console,
    *,
    form: Literal["table", "json"] = "table",
    watch: bool = False,
) -> Exit:
    """Print the state of a migration, also while it runs, with the rows in doubt; without a manifest, of all.

    Args:
        manifest: its manifest, or None.
        option: the place of the journal as the user gave it, or None.
        out: where to print.
        form: as tables, or as JSON for a script.
        watch: whether to show it again and again, until it is done or waits for a person only.

    Raises:
        ConfigurationError: `watch` without a manifest, or as JSON.
    """
    if watch and (manifest is None or form == "json"):
        raise ConfigurationError(
            "--watch shows one manifest to a person: springest status MANIFEST --watch, without --format"
        )
    if manifest is not None:
        _refuse_old(manifest)
    async with environment.existing_journal(option) as journal:
        if form == "json":
            return await _status_as_json(journal, manifest, out)
        if watch and manifest is not None:
            return await _watch(journal, manifest, out)
        await journal.take_over()
        if manifest is None:
            return await _status_of_all(journal, out)
        migration = await migration_of(journal, manifest)
        async with StatusReader(journal) as reader:
            found = await reader.status(migration.id)
            asked = await reader.read(asked_about)
        doubts = await _doubts(migration)
    try:
        _print_status(found, doubts, asked, argument(manifest), journal_argument(option), out)
    except BrokenPipeError:  # the reader has seen enough; the exit code stays right
        forget_stdout()
    # Doubts about certificates that are no longer in the manifest are not in the status.
    return Exit.IN_DOUBT if doubts else exit_of_status(found)


def _print_status(
    found: MigrationStatus, doubts: Sequence[Entry], asked: Mapping[int, str], manifest: str, where: str, out: Console
) -> None:
    """Print the state of a migration; `manifest` and `where` are arguments of the commands that are named."""
    out.print(table_of(found.counts))
    if found.faulty:
        say(out, left_out(found.faulty, f"springest check {manifest}"))
    if found.paused_at is not None:
        resume = f"springest resume {manifest}{where}"
        say(out, f"Paused since {clock_time(found.paused_at, datetime.now(UTC))}: nothing is sent until: {resume}")
    if hosts := [worker.host for worker in found.workers if not worker.trouble]:
        say(out, f"{runs_on(hosts)} {'uploading' if found.paused_at is None else 'waiting'}.")
    for worker in found.workers:
        if worker.trouble:
            say(out, f"A run on {worker.host}: {_trouble_of(worker)}.")
    if _print_doubts(doubts, asked, "In doubt: these", out):
        say(
            out,
            f"springest upload asks Springest again. Or look there yourself, then run: springest resolve {manifest}"
            f"{where} --row N --stored (or --send-again; or --all for all rows)",
        )


async def _status_as_json(journal: Journal, manifest: Path | None, out: Console) -> Exit:
    document: dict[str, Any] | list[dict[str, Any]]
    async with StatusReader(journal) as reader:
        if manifest is None:
            document = [as_json(one) for one in await reader.all()]
            code = Exit.IN_DOUBT if await journal.orphans() else Exit.STORED
        else:
            migration = await migration_of(journal, manifest)
            found = await reader.status(migration.id)
            document = as_json(found)
            code = await _code_of(migration, found)
    try:
        print_json(out, document)
        out.file.flush()
    except BrokenPipeError:
        forget_stdout()
    return code


async def _watch(journal: Journal, manifest: Path, out: Console) -> Exit:
    """Show where a migration stands until it is done or waits for a person only, or until Ctrl-C."""
    migration = await migration_of(journal, manifest)
    task = asyncio.current_task()

    def interrupt() -> None:
        assert task is not None
        task.cancel()

    async with StatusReader(journal) as reader:
        watch = Watch(out, partial(reader.status, migration.id))
        try:
            with interrupts(interrupt):
                async with watch.shown():
                    await watch.until_done()
        except BrokenPipeError:
            forget_stdout()
        return await _code_of(migration, await reader.status(migration.id))


async def _code_of(migration: OpenMigration, found: MigrationStatus) -> Exit:
    """Return the exit code of what was found."""
    # Doubts about certificates that are no longer in the manifest are not in its counts.
    return Exit.IN_DOUBT if await migration.orphans() else exit_of_status(found)


async def _status_of_all(journal: Journal, out: Console) -> Exit:
    async with StatusReader(journal) as reader:
        migrations = await reader.all()
        asked = await reader.read(asked_about)
    orphans = await journal.orphans()
    try:
        if migrations:
            out.print(_table_of_migrations(migrations))
        else:
            say(out, f"The journal {journal.where} has no migrations.")
        _print_doubts(orphans, asked, "In doubt, and in no manifest: these", out)
    except BrokenPipeError:
        forget_stdout()
    return Exit.IN_DOUBT if orphans else Exit.STORED


async def resolve(
    manifest: Path,
    option: str | None,
    rows: Collection[int] | None,
    state: Literal[State.STORED, State.WAITING],
    out: Console,
) -> None:
    """Record a person's decision about rows in doubt (None: all of them); see `OpenMigration.resolve`."""
    _refuse_old(manifest)
    async with environment.existing_journal(option) as journal:
        migration = await migration_of(journal, manifest)
        resolved = await migration.resolve(rows, state)
    noted = "marked as stored" if state is State.STORED else "put back to waiting for the next springest upload"
    say(out, f"{count(resolved, 'row')} {noted}.")


def runs_on(hosts: Sequence[str]) -> str:
    """Return the beginning of a sentence about the runs on these machines."""
    if len(hosts) == 1:
        return f"A run on {hosts[0]} is"
    names = sorted(set(hosts))
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{len(hosts)} runs on {listed} are"


def _refuse_old(manifest: Path) -> None:
    """Explain what to do about a journal of the old form, which was an argument of these commands."""
    if place.is_old(manifest):
        raise JournalError(manifest, place.OLD_JOURNAL)


async def _doubts(migration: OpenMigration) -> list[Entry]:
    doubts: list[Entry] = []
    while page := await migration.entries(State.IN_DOUBT, after=(doubts[-1].number or 0) if doubts else 0):
        doubts += page
    return doubts + await migration.orphans()


def _print_doubts(
    doubts: Sequence[Entry | KnownCertificate], asked: Mapping[int, str], heading: str, out: Console
) -> bool:
    """Print the rows in doubt, and return whether any of them waits for a person.

    Args:
        doubts: the rows.
        asked: the machines whose runs are asking Springest about certificates now; see `asked_about`.
        heading: the beginning of the heading of those that wait for a person.
        out: where to print.
    """
    hosts = Counter(asked[key] for entry in doubts if (key := _certificate_of(entry)) in asked)
    for host, rows in sorted(hosts.items()):
        about = f"{count(rows, 'row')} in doubt now, so {'it needs' if rows == 1 else 'they need'} no answer yet"
        say(out, f"A run on {host or 'another machine'} is asking Springest about {about}.")
    waiting = [entry for entry in doubts if _certificate_of(entry) not in asked]
    if waiting:
        say(out, f"{heading} were sent, but no answer said whether they are stored.")
        _print_rows(waiting, out)
    return bool(waiting)


def _certificate_of(entry: Entry | KnownCertificate) -> int:
    """Return the key of a certificate in doubt."""
    return entry.id if isinstance(entry, KnownCertificate) else entry.certificate or 0


def _print_rows(doubts: Sequence[Entry | KnownCertificate], out: Console) -> None:
    """Print the first rows in doubt with all that a person needs to look for them: as a table, if that has room."""
    table = folding_table("row", "file", "email", "certification", "valid from", "sent (UTC)", "why")
    for entry in doubts[:_DOUBTS_SHOWN]:
        file = entry.file if isinstance(entry, Entry) else ""
        row, certification, begins = _row_of(entry), str(entry.certification_id), str(entry.valid_from)
        if out.width >= _TABLE_WIDTH:
            table.add_row(
                *map(cell, (row, file, entry.email, certification, begins, _shown(entry.sent_at), entry.reason))
            )
            continue
        what = ", ".join(filter(None, (file, entry.email, f"certification {certification} from {begins}")))
        out.print(cell(f"{row if row == 'gone' else f'row {row}'}: {what}"))
        out.print(Padding(cell(f"sent {_shown(entry.sent_at)} (UTC): {entry.reason}"), (0, 0, 0, 4), expand=False))
    if table.row_count:
        out.print(table)
    if (more := len(doubts) - _DOUBTS_SHOWN) > 0:
        say(out, f"… and {count(more, 'other')}: springest report --csv writes all rows to a file.")
    _say_request_ids(doubts, out)


def _row_of(entry: Entry | KnownCertificate) -> str:
    return str(entry.number) if isinstance(entry, Entry) and entry.number is not None else "gone"


def _say_request_ids(doubts: Sequence[Entry | KnownCertificate], out: Console) -> None:
    """Print by what Springest's staff can find the POSTs in their logs: not in the table, which would break the ids."""
    say(out, "Springest's staff can find them in their logs by the X-Request-Id:")
    for entry in doubts[:_IDS_SHOWN]:
        row = _row_of(entry)
        say(out, f"  {row if row == 'gone' else f'row {row}'}: {entry.request_id}")
    if (more := len(doubts) - _IDS_SHOWN) > 0:
        say(out, f"  … and {count(more, 'other')}: springest report --csv writes those of all rows to a file.")


def _table_of_migrations(migrations: Sequence[MigrationStatus]) -> Table:
    table = folding_table("manifest", "host", "state", "stored", "problems", "last moved (UTC)")
    names = names_of(migrations)
    for each in migrations:
        stored = f"{number(each.counts[State.STORED])} of {number(each.rows)}"
        problems = [
            state_words(each, state) for state in (State.IN_DOUBT, State.REJECTED, State.FAILED) if each.counts[state]
        ]
        if each.faulty:
            problems.append(f"{number(each.faulty)} left out with faults")
        table.add_row(
            *map(
                cell,
                (names[each.id], each.origin, _state_of(each), stored, ", ".join(problems), _shown(each.moved_at)),
            )
        )
    return table


def _state_of(migration: MigrationStatus) -> str:
    """Return what a migration is doing, and on which machines, or what keeps these from sending."""
    words = activity_words(migration)
    if migration.activity not in ("running", "outage"):
        return words
    hosts = [f"{worker.host}: {_trouble_of(worker)}" if worker.trouble else worker.host for worker in migration.workers]
    return f"{words} on {', '.join(dict.fromkeys(hosts))}"


def _trouble_of(worker: Worker) -> str:
    return outage_words(worker.trouble, worker.reason, worker.seconds, worker.again_in)


def _shown(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}" if at else ""
