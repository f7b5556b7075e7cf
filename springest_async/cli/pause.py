"""``springest pause`` and ``springest resume``: let all who upload a manifest wait, and go on."""

from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from springest_async.cli import environment
from springest_async.cli.console import argument, journal_argument, say
from springest_async.cli.status import migration_of, runs_on
from springest_async.cli.times import clock_time, duration
from springest_async.journal.records import State


async def pause(manifest: Path, option: str | None, out: Console) -> None:
    """Pause a manifest, so that nobody sends rows of it, and print what that means.

    Args:
        manifest: the manifest.
        option: the place of the journal as the user gave it, or None.
        out: where to print.
    """
    async with environment.existing_journal(option) as journal:
        await journal.take_over()
        migration = await migration_of(journal, manifest)
        hosts = await migration.hosts()
        counts = await migration.counts()
        done = counts[State.STORED] + counts[State.REJECTED] + counts[State.FAILED]
        if done == counts.total() and not hosts:
            say(out, "Nothing is left to pause: every row is stored, rejected or failed.")
            return
        is_new = await migration.pause()
        since = await migration.paused_at() or datetime.now(UTC)
    say(out, "Paused." if is_new else f"It is paused already, since {clock_time(since, datetime.now(UTC))}.")
    if hosts and not is_new and not counts[State.SENDING]:
        say(out, f"{runs_on(hosts)} waiting.")
    elif hosts:
        say(
            out,
            f"{runs_on(hosts)} uploading: within seconds nothing more is sent. What is being sent is finished, and"
            " rows in doubt are still looked up at Springest.",
        )
    else:
        say(out, "Nothing uploads it now. A springest upload that is started waits.")
    say(out, f"To go on: springest resume {argument(manifest)}{journal_argument(option)}")


async def resume(manifest: Path, option: str | None, out: Console) -> None:
    """Resume a manifest after `pause`, and print what happens then."""
    async with environment.existing_journal(option) as journal:
        await journal.take_over()
        migration = await migration_of(journal, manifest)
        since = await migration.paused_at()
        is_new = await migration.resume()
        hosts = await migration.hosts()
        counts = await migration.counts()
    if not is_new or since is None:
        say(out, "It is not paused.")
    else:
        paused = (datetime.now(UTC) - since).total_seconds()
        say(out, f"Resumed, after {duration(max(0.0, paused))}.")
    if hosts:
        say(out, f"{runs_on(hosts)} uploading{' again within seconds' if is_new else ''}.")
    elif counts[State.WAITING]:
        upload = f"springest upload {argument(manifest)}{journal_argument(option)}"
        say(out, f"Nothing uploads it now. To continue: {upload}")
