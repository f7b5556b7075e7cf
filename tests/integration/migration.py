"""A migration as a process of its own, made to be killed: ``python -m tests.integration.migration``.

What the command ``springest upload`` does, with a shorter minute, and with an end by its own hand at moments that a
kill from outside hits too seldom: on both sides of the commit of a POST's intent, and of its outcome's. Tests start and
end it with `begin` and `end`.
"""

import argparse
import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable
from pathlib import Path

from springest_async import CertificateUpload, Journal, Limiter, Settings, Springest, Timeouts
from springest_async.bulk import BulkEvent, Manifest, UploadQueue, load_manifest
from springest_async.journal import certificates
from springest_async.journal.engine import Connection
from springest_async.journal.ledger import JournalLedger
from springest_async.journal.records import Intent
from springest_async.limits.bucket import Bucket, Change
from tests.waiting import A_WHILE

from .command import kill_at_end

__all__ = ["IDLE", "LEASE", "MOMENTS", "PERIOD", "begin", "end", "uploads_of"]

PERIOD = 3.0
"""The minute of the limit, in seconds."""

LEASE = 3.0
"""How long a worker that is not heard of keeps what it has, in seconds."""

IDLE = 2.0
"""How long a sandbox keeps a body that stands still, in seconds: give it as `body_timeout`."""

MOMENTS = ("before-intent", "after-intent", "before-outcome", "after-outcome")
"""When a migration can end by its own hand: before or after the commit of an intent, or of an outcome."""


class MortalLedger(JournalLedger):
    """A ledger whose process ends at the n-th of the moments of one kind."""

    def __init__(self, journal: Journal, budget: str, moment: str, left: int) -> None:
        super().__init__(journal, budget)
        self._whole_journal = journal
        self._moment = moment
        self._left = left

    def _count(self, moment: str) -> None:
        if self._is_last(moment):
            os.kill(os.getpid(), signal.SIGKILL)

    def _is_last(self, moment: str) -> bool:
        self._left -= moment == self._moment
        return moment == self._moment and self._left == 0

    def _begin(self, connection: Connection, intent: Intent) -> None:
        super()._begin(connection, intent)
        self._count("before-intent")

    async def change(self, change: Change, intent: object | None = None) -> float:
        wait = await super().change(change, intent)
        if intent is not None and wait == 0:
            self._count("after-intent")
        return wait

    def note(self, change: Callable[[Bucket, float], object], outcome: object | None = None) -> None:
        if outcome is not None:
            self._count("before-outcome")
        super().note(change, outcome)
        if outcome is not None and self._is_last("after-outcome"):
            # What runs later in the journal's thread is committed no earlier.
            committed = asyncio.ensure_future(self._whole_journal.run(lambda _: None))
            committed.add_done_callback(lambda _: os.kill(os.getpid(), signal.SIGKILL))


class MortalJournal(Journal):
    """A journal with such a ledger."""

    def __init__(self, where: str, *, lease: float, moment: str, left: int) -> None:
        super().__init__(where, lease=lease)
        self._moment = moment
        self._left = left

    def ledger(self, budget: str) -> JournalLedger:
        return self._ledgers.setdefault(budget, MortalLedger(self, budget, self._moment, self._left))


def ignore(_: BulkEvent) -> None:
    """Listen to nothing."""


async def migrate(options: argparse.Namespace) -> None:
    where, lease, moment, left = options.journal, options.lease, options.moment, options.after
    async with MortalJournal(where, lease=lease, moment=moment, left=left) as journal:
        settings = Settings(
            # Hundreds of processes that are killed lose what they had reserved of the hour.
            limiter=Limiter(period=options.period, requests_per_hour=1_000_000, ledger=journal.ledger("a budget")),
            timeouts=Timeouts(answer=options.answer),
            concurrency=options.concurrency,
        )
        async with Springest(
            api_key="sandbox-key",
            certifications_api_key="sandbox-certifications-key",
            host=options.origin,
            settings=settings,
            journal=journal,
        ) as springest:
            manifest = Manifest.open(options.manifest)
            if options.service:
                say_begins()
                await asyncio.gather(*(springest.upload(upload) for upload in uploads_of(manifest)))
                return
            migration, _ = await load_manifest(journal, manifest, springest.origin)
            say_begins()
            error = await UploadQueue(springest, migration, ignore).run()
    if error is not None:
        raise error


def say_begins() -> None:
    sys.stdout.write("begins\n")
    sys.stdout.flush()


def uploads_of(manifest: Manifest) -> list[CertificateUpload]:
    """Return the certificates of a manifest, as a service uploads them."""
    return [
        CertificateUpload(
            file=manifest.path.parent / row.file,
            certification_id=row.certification_id,
            email=row.email,
            valid_from=row.valid_from,
        )
        for row in map(manifest.fields, manifest)
    ]


async def begin(
    manifest: Path,
    origin: str,
    journal: Path | str,
    *options: str,
    before: tuple[str, ...] = (),
    home: Path | None = None,
) -> Process:
    """Start a migration, and return its process when it has loaded the manifest.

    Args:
        manifest: the manifest.
        origin: the sandbox.
        journal: a path or the address of a database.
        options: more of its options.
        before: a command that starts it.
        home: the home of its user, which is a machine of its own to the journal.
    """
    process = await asyncio.create_subprocess_exec(
        *(*before, sys.executable, "-m", "tests.integration.migration", manifest, origin, journal, *options),
        env=os.environ | ({} if home is None else {"HOME": str(home), "XDG_STATE_HOME": str(home / "state")}),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
    )
    kill_at_end(process)
    assert process.stdout is not None
    await process.stdout.readline()  # it begins
    return process


async def end(process: Process, *, warnings: bool = False) -> int:
    """Wait for the end of a migration, and return 0, or -9 when it was killed; all else is an error.

    A warning is an error too, unless there may be `warnings`.
    """
    async with asyncio.timeout(4 * A_WHILE):
        _, err = await process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), err.decode()
    assert warnings or not err, err.decode()
    return process.returncode


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("manifest", type=Path)
    parser.add_argument("origin")
    parser.add_argument("journal")
    parser.add_argument("--period", type=float, default=PERIOD)
    parser.add_argument("--answer", type=float, default=3.0)
    parser.add_argument("--lease", type=float, default=LEASE)
    parser.add_argument("--idle", type=float, default=IDLE)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--service", action="store_true", help="upload as a service does, not as a bulk run")
    parser.add_argument("--moment", default="never")
    parser.add_argument("--after", type=int, default=0)
    options = parser.parse_args()
    certificates.SERVER_IDLE_SECONDS = options.idle
    asyncio.run(migrate(options))


if __name__ == "__main__":
    main()
